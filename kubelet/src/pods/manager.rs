//! All pods of the node: which actor each has, and what it is told.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::{Value, object};
use client::resource::PODS;
use client::{Change, Informer};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::actor::{Actor, Desired};
use super::traces::{self, Names};
use super::{relist, report, spec};
use crate::cri::labels;
use crate::metrics::Startup;
use crate::{Known, Kubelet};

pub(crate) use super::admission::Allocatable;
pub(crate) use super::relist::Health;

struct Handle {
    desired: watch::Sender<Desired>,
}

/// The actors of the node's pods.
pub(crate) struct Manager {
    kubelet: Arc<Kubelet>,
    actors: Mutex<HashMap<String, Handle>>,
    /// Mirror pods by the namespace and name that they share with their static pod.
    mirrors: Mutex<HashMap<(String, String), Arc<Value>>>,
}

impl Manager {
    /// No pods yet.
    pub(crate) fn new(kubelet: Arc<Kubelet>) -> Arc<Self> {
        Arc::new(Self { kubelet, actors: Mutex::default(), mirrors: Mutex::default() })
    }

    /// The informer of the pods that are bound to this node, which feeds this manager.
    pub(crate) fn informer(self: &Arc<Self>) -> Informer<Value> {
        let fields = format!("spec.nodeName={}", self.kubelet.config.node_name);
        let informer = Informer::of_values(PODS, |_| {}).fields(&fields).build();
        let this = self.clone();
        informer.on_change(move |change| this.changed(change));
        informer
    }

    /// Starts to notice what happens to containers.
    pub(crate) fn watch_runtime(self: &Arc<Self>) {
        let kubelet = self.kubelet.clone();
        let stop = self.kubelet.tasks.token();
        self.kubelet.tasks.critical("relist", async move {
            tokio::select! {
                () = relist::run(kubelet) => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        });
    }

    fn changed(self: &Arc<Self>, change: &Change<Value>) {
        let pod = change.object();
        if spec::is_mirror(pod) {
            return self.mirror_changed(pod, matches!(change, Change::Deleted(_)));
        }
        // The old one of two pods with one name is gone without its own event.
        if let Some(old) = change.old().filter(|old| old.uid() != pod.uid()) {
            self.tell(Desired { pod: old.clone(), mirror: None, removed: true });
        }
        let removed = matches!(change, Change::Deleted(_));
        self.tell(Desired { pod: pod.clone(), mirror: None, removed });
    }

    fn mirror_changed(self: &Arc<Self>, mirror: &Arc<Value>, deleted: bool) {
        let key = (mirror.namespace().to_owned(), mirror.name().to_owned());
        let mut mirrors = self.mirrors.lock();
        match deleted {
            true => mirrors.remove(&key),
            false => mirrors.insert(key, mirror.clone()),
        };
        self.kubelet.metrics.pods.mirrors.set(i64::try_from(mirrors.len()).unwrap_or(i64::MAX));
        drop(mirrors);
        let actors = self.actors.lock();
        let of_mirror = |handle: &&Handle| {
            let desired = handle.desired.borrow();
            spec::is_static(&desired.pod)
                && desired.pod.name() == mirror.name()
                && desired.pod.namespace() == mirror.namespace()
        };
        for handle in actors.values().filter(of_mirror) {
            handle.desired.send_modify(|desired| desired.mirror = (!deleted).then(|| mirror.clone()));
        }
        drop(actors);
        self.kubelet.mirrors_changed.notify_one();
    }

    /// The mirror of a static pod.
    pub(super) fn mirror(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.mirrors.lock().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All mirrors.
    pub(super) fn mirrors(&self) -> Vec<Arc<Value>> {
        self.mirrors.lock().values().cloned().collect()
    }

    /// Tells a pod's actor what is wanted; a pod that has none yet gets one.
    pub(super) fn tell(self: &Arc<Self>, desired: Desired) {
        let uid = desired.pod.uid().to_owned();
        let removed = desired.removed;
        let mut actors = self.actors.lock();
        if let Some(handle) = actors.get(&uid) {
            self.note(&uid, &desired);
            handle.desired.send_replace(desired);
            return;
        }
        if removed {
            return;
        }
        let handle = self.start(&uid, desired);
        actors.insert(uid, handle);
    }

    /// Keeps what is wanted of a pod that has an actor.
    fn note(&self, uid: &str, desired: &Desired) {
        let pulling = self.kubelet.images.spent(uid);
        let mut pods = self.kubelet.pods.lock();
        let Some(known) = pods.get_mut(uid) else { return };
        self.kubelet.metrics.outcomes.asks(&known.pod, &desired.pod);
        known.pod = desired.pod.clone().into();
        known.removed = desired.removed;
        if let Some(started) = known.startup.look(&desired.pod, Timestamp::now(), pulling) {
            self.kubelet.metrics.pods.has_started(&started);
        }
    }

    fn start(self: &Arc<Self>, uid: &str, desired: Desired) -> Handle {
        let wake = Arc::new(Notify::new());
        let (eviction, evictions) = watch::channel(None);
        let known = Known {
            pod: desired.pod.clone().into(),
            status: Value::Null,
            wake: wake.clone(),
            eviction,
            over: false,
            // Whoever has an actor from the start only to be ended has never been wanted.
            found: desired.removed,
            removed: desired.removed,
            startup: Startup::of(&desired.pod),
        };
        self.kubelet.pods.lock().insert(uid.to_owned(), known);
        let (sender, receiver) = watch::channel(desired);
        let durations = self.kubelet.metrics.pods.reports.clone();
        let (reports, reporter) = report::channel(self.kubelet.client.clone(), durations);
        let actor = Actor::new(self.kubelet.clone(), receiver, evictions, wake.clone(), reports);
        let this = self.clone();
        let uid = uid.to_owned();
        let stop = self.kubelet.tasks.token();
        self.kubelet.tasks.plain("pod", async move {
            tokio::select! {
                () = actor.run() => this.ended(&uid),
                // It goes on for as long as the actor does.
                () = reporter.run() => {}
                // Containers go on without a kubelet.
                () = stop.cancelled() => {}
            }
            Ok(())
        });
        Handle { desired: sender }
    }

    /// An actor is through. A static pod whose manifest has come back meanwhile begins again.
    fn ended(self: &Arc<Self>, uid: &str) {
        let mut actors = self.actors.lock();
        let handle = actors.remove(uid);
        self.kubelet.pods.lock().remove(uid);
        let wanted = handle.map(|handle| handle.desired.borrow().clone()).filter(|desired| !desired.ends());
        if let Some(desired) = wanted {
            self.kubelet.metrics.pods.restarted(&desired.pod);
            let handle = self.start(uid, desired);
            actors.insert(uid.to_owned(), handle);
        }
        drop(actors);
        self.kubelet.settled.notify_waiters();
    }

    /// Whether another pod of this name is still here.
    pub(super) fn has_namesake(&self, pod: &Value) -> bool {
        let actors = self.actors.lock();
        actors.iter().any(|(uid, handle)| {
            let other = &handle.desired.borrow().pod;
            uid != pod.uid() && other.name() == pod.name() && other.namespace() == pod.namespace()
        })
    }

    /// Gives back what pods had claimed that are not here any more. To be called once all pods are known.
    pub(crate) async fn clean_up_claims(&self) {
        self.kubelet.claims.clean_up(|uid| self.actors.lock().contains_key(uid)).await;
    }

    /// Ends pods that do not exist any more and have left something here: what runs, and what is on the disk. To be called
    /// once all pods are known, and again.
    pub(crate) async fn adopt_orphans(self: &Arc<Self>) -> anyhow::Result<()> {
        // Whoever comes after this look is known by the time that it is found out who is.
        let mut found = traces::find(&self.kubelet)?;
        let mut running = HashSet::new();
        for sandbox in self.kubelet.runtime.sandboxes(None).await? {
            let label = |key: &str| sandbox.labels.get(key).cloned().unwrap_or_default();
            let names = Names { namespace: label(labels::POD_NAMESPACE), name: label(labels::POD_NAME) };
            found.insert(label(labels::POD_UID), names);
            running.insert(label(labels::POD_UID));
        }
        // Whoever was found at an earlier look should be gone by now.
        let left = self.kubelet.pods.lock().values().filter(|known| known.found).count();
        let mut with_volumes = 0;
        for (uid, names) in found.into_iter().filter(|(uid, _)| !uid.is_empty()) {
            let runs = running.contains(&uid);
            let has_folder = self.kubelet.config.pod_dir(&uid).exists();
            if self.adopt(uid, names) {
                with_volumes += usize::from(has_folder);
                self.kubelet.metrics.pods.orphans.inc_by(runs.into());
            }
        }
        self.kubelet.metrics.pods.swept(with_volumes, left);
        let actors = self.actors.lock();
        self.kubelet.allocations.retain(|uid| actors.contains_key(uid));
        self.kubelet.devices.retain(|uid| actors.contains_key(uid));
        self.kubelet.managers.retain(|uid| actors.contains_key(uid));
        Ok(())
    }

    /// Ends a pod, unless it is known; true when it was not.
    fn adopt(self: &Arc<Self>, uid: String, names: Names) -> bool {
        let mut actors = self.actors.lock();
        if actors.contains_key(&uid) {
            return false;
        }
        let Names { namespace, name } = names;
        tracing::info!(pod = name, namespace, uid, "Ending a pod that is gone");
        let pod = object!({"metadata": {"name": name, "namespace": namespace, "uid": (uid.as_str())}});
        let handle = self.start(&uid, Desired { pod: Arc::new(pod), mirror: None, removed: true });
        actors.insert(uid, handle);
        true
    }
}
