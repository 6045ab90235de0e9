//! The loop: one pod at a time is decided on, then bound by a task of its own.

use std::sync::Arc;
use std::time::Duration;

use api::{Value, object, time};
use client::events::{Event, Kind, reference};
use client::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS};
use client::{Client, DeleteOptions, Key, Patch, Recorder, Store};
use compact_str::CompactString;
use daemon::Tasks;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{error, info};

use crate::cluster::{Cluster, Node};
use crate::filter::{Filter, Rejection, message};
use crate::pod::Pod;
use crate::preempt::{Victims, preempt};
use crate::queue::{Happened, Plugin, Queue};
use crate::score::best;
use crate::volumes::{Choice, SELECTED_NODE, Volumes, is_bound, promised};

/// How long volumes may take to be bound.
const BIND_TIMEOUT: Duration = Duration::from_secs(600);

/// Everything under one lock: decisions are short.
pub(crate) struct State {
    pub(crate) cluster: Cluster,
    pub(crate) queue: Queue,
}

/// The scheduler.
pub(crate) struct Scheduler {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) tasks: Tasks,
    /// Names under which pods ask for us.
    pub(crate) names: Vec<String>,
    pub(crate) state: Mutex<State>,
    pub(crate) wake: Notify,
    pub(crate) volumes: Volumes,
    /// Counts changes of claims, for those who wait for one to be bound.
    pub(crate) claim_changes: watch::Sender<u64>,
}

/// What came of looking at a pod.
enum Decision {
    Place(CompactString, Vec<Choice>),
    Nowhere { message: String, victims: Option<Victims> },
}

impl Scheduler {
    /// Whether the pod is ours to place.
    pub(crate) fn wants(&self, pod: &Pod) -> bool {
        !pod.is_assigned() && !pod.terminating && !pod.gated && self.names.iter().any(|n| *n == pod.scheduler)
    }

    /// Tells the queue what happened.
    pub(crate) fn happened(&self, what: Happened) {
        self.state.lock().queue.happened(what, Instant::now());
        self.wake.notify_one();
    }

    /// Schedules for ever.
    pub(crate) async fn run(self: Arc<Self>, pods: &Store<Pod>) {
        loop {
            let wake = self.wake.notified();
            let (next, due) = {
                let queue = &mut self.state.lock().queue;
                (queue.pop(Instant::now()), queue.next_due())
            };
            if let Some(key) = next {
                match pods.get(&key) {
                    Some(pod) if self.wants(&pod) => self.schedule(&pod),
                    _ => self.state.lock().queue.remove(&key),
                }
                // Others on this thread get their turn between pods.
                tokio::task::yield_now().await;
                continue;
            }
            let flush = Instant::now() + Duration::from_secs(30);
            tokio::select! {
                () = wake => {}
                () = tokio::time::sleep_until(due.map_or(flush, |d| d.min(flush))) => {
                    self.state.lock().queue.flush(Instant::now());
                }
            }
        }
    }

    fn schedule(self: &Arc<Self>, pod: &Arc<Pod>) {
        let state = &mut *self.state.lock();
        if state.cluster.holds(pod) {
            state.queue.remove(&pod.key);
            return;
        }
        let (decision, plugins) = self.decide(&mut state.cluster, pod);
        match decision {
            Decision::Place(node, choices) => {
                let mut assumed = (**pod).clone();
                assumed.view.node_name = node.clone();
                state.cluster.place(Arc::new(assumed));
                for choice in &choices {
                    if let Choice::Bind(_, volume) = choice {
                        state.cluster.promised.insert(volume.name().into(), pod.key.clone());
                    }
                }
                let (this, pod) = (Arc::clone(self), Arc::clone(pod));
                self.start("binding", async move { this.bind(&pod, &node, choices).await });
            }
            Decision::Nowhere { message, victims } => {
                state.queue.turned_away(&pod.key, plugins);
                let (this, pod) = (Arc::clone(self), Arc::clone(pod));
                self.start("rejection", async move { this.reject(&pod, &message, victims).await });
            }
        }
    }

    /// Runs a task until the daemon ends or is no longer the leader: then another one decides, and nothing is waited for.
    fn start(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.tasks.token();
        self.tasks.plain(name, async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        });
    }

    /// Decides on a pod by the picture alone; names what turned it away.
    fn decide(&self, cluster: &mut Cluster, pod: &Pod) -> (Decision, Vec<Plugin>) {
        let total = cluster.nodes().count();
        let nowhere = |message: String, victims| Decision::Nowhere { message, victims };
        let claims = match self.volumes.of(pod.key.namespace(), &pod.claims) {
            Ok(claims) => claims,
            Err(why) => {
                let text = format!(
                    "0/{total} nodes are available: {why}. preemption: 0/{total} nodes are available: {total} Preemption is not helpful for scheduling."
                );
                return (nowhere(text, None), vec![Plugin::Volumes]);
            }
        };
        let filter = Filter::new(cluster, pod, &claims);
        let mut rejections: Vec<(String, Rejection)> = Vec::new();
        let mut feasible: Vec<(&Node, Vec<Choice>)> = Vec::new();
        for node in cluster.nodes() {
            match filter.node(cluster, node) {
                Ok(choices) => feasible.push((node, choices)),
                Err(rejection) => rejections.push((node.view.name.to_string(), rejection)),
            }
        }
        // Where room was made for it, it goes if it can.
        let nominated = feasible.iter().position(|(n, _)| n.view.name == pod.nominated);
        let nodes: Vec<&Node> = feasible.iter().map(|(n, _)| *n).collect();
        if let Some(at) = nominated.or_else(|| best(cluster, pod, &nodes)) {
            let (node, choices) = feasible.swap_remove(at);
            return (Decision::Place(node.view.name.clone(), choices), Vec::new());
        }
        let mut plugins: Vec<Plugin> = rejections.iter().map(|(_, r)| r.plugin).collect();
        plugins.dedup();
        let reasons: Vec<Rejection> = rejections.iter().map(|(_, r)| r.clone()).collect();
        let text = message(total, &reasons);
        if total == 0 {
            plugins.push(Plugin::Node);
            return (nowhere("no nodes available to schedule pods".to_owned(), None), plugins);
        }
        match preempt(cluster, pod, &claims, &rejections) {
            Ok(victims) => (nowhere(text, Some(victims)), plugins),
            Err(why) => (nowhere(format!("{text} {why}"), None), plugins),
        }
    }

    async fn bind(&self, pod: &Pod, node: &str, choices: Vec<Choice>) {
        let result = match self.bind_volumes(pod, node, &choices).await {
            Ok(()) => self.bind_pod(pod, node).await,
            Err(e) => Err(e),
        };
        let state = &mut *self.state.lock();
        state.cluster.promised.retain(|_, by| *by != pod.key);
        match result {
            Ok(()) => {
                state.queue.remove(&pod.key);
                info!(pod = %pod.key, node, "Successfully bound pod to node");
                let text = format!("Successfully assigned {} to {node}", pod.key);
                self.tell(pod, Kind::Normal, "Scheduled", "Binding", text);
            }
            Err(e) => {
                // The bound pod may have shown up already, and then it stays.
                if state.cluster.holds(pod) {
                    state.cluster.remove(&pod.key);
                }
                state.queue.failed(&pod.key, Instant::now());
                self.wake.notify_one();
                error!(pod = %pod.key, node, err = e, "Cannot bind");
                self.tell(pod, Kind::Warning, "FailedScheduling", "Scheduling", e);
            }
        }
    }

    async fn bind_pod(&self, pod: &Pod, node: &str) -> Result<(), String> {
        let (namespace, name) = (pod.key.namespace(), pod.key.name());
        let binding = object!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"namespace": namespace, "name": name, "uid": (pod.uid.clone())},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let done = self.client.create_part(&PODS, (namespace, name, "binding"), &binding).await;
        done.map(drop).map_err(|e| format!("binding rejected: {}", e.message()))
    }

    /// Binds or asks for the pod's volumes, and waits until its claims are bound.
    async fn bind_volumes(&self, pod: &Pod, node: &str, choices: &[Choice]) -> Result<(), String> {
        if choices.is_empty() {
            return Ok(());
        }
        let text = |e: client::Error| format!("binding volumes: {}", e.message());
        let mut waiting = Vec::new();
        for choice in choices {
            let claim = match choice {
                Choice::Bind(claim, volume) => {
                    let volume = promised(volume, claim);
                    self.client.update(&PERSISTENT_VOLUMES, &volume).await.map_err(text)?;
                    claim
                }
                Choice::Provision(claim) => {
                    let mut asked = (**claim).clone();
                    asked.set(&["metadata", "annotations", SELECTED_NODE], node);
                    self.client.update(&PERSISTENT_VOLUME_CLAIMS, &asked).await.map_err(text)?;
                    claim
                }
            };
            waiting.push((Key::of(claim), matches!(choice, Choice::Provision(_))));
        }
        let bound = self.claims_bound(waiting, node);
        match tokio::time::timeout(BIND_TIMEOUT, bound).await {
            Ok(result) => result,
            Err(_) => Err(format!("binding volumes: timed out waiting for the claims of {}", pod.key)),
        }
    }

    async fn claims_bound(&self, waiting: Vec<(Key, bool)>, node: &str) -> Result<(), String> {
        let mut changes = self.claim_changes.subscribe();
        let mut asked_seen = false;
        loop {
            let mut all = true;
            for (key, provisioning) in &waiting {
                let Some(claim) = self.volumes.claims.store().get(key) else {
                    return Err(format!("binding volumes: claim {key} is gone"));
                };
                if is_bound(&claim) {
                    continue;
                }
                all = false;
                // A provisioner that cannot serve this node takes the annotation away again.
                let selected = claim.annotation(SELECTED_NODE) == Some(node);
                if *provisioning && asked_seen && !selected {
                    return Err(format!("binding volumes: provisioning failed for claim {key}"));
                }
                asked_seen |= *provisioning && selected;
            }
            if all {
                return Ok(());
            }
            // The sender lives as long as we do.
            let _ = changes.changed().await;
        }
    }

    /// Makes known that a pod fits nowhere, and makes room for it where that is possible.
    async fn reject(&self, pod: &Pod, message: &str, victims: Option<Victims>) {
        info!(pod = %pod.key, err = message, "Unable to schedule pod; no fit; waiting");
        self.tell(pod, Kind::Warning, "FailedScheduling", "Scheduling", message.to_owned());
        let nominated = victims.as_ref().map(|v| v.node.as_str());
        if pod.condition != message || nominated.is_some_and(|n| n != pod.nominated) {
            let now = time::format(Timestamp::now());
            let mut patch = object!({"status": {"conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "lastTransitionTime": now, "lastProbeTime": null,
            }]}});
            if let Some(node) = nominated {
                patch.set(&["status", "nominatedNodeName"], node);
            }
            self.patch_status(pod, &patch).await;
        }
        for victim in victims.iter().flat_map(|v| &v.pods) {
            self.evict(pod, victim).await;
        }
    }

    async fn evict(&self, pod: &Pod, victim: &Pod) {
        if victim.terminating {
            return;
        }
        let text = format!("{}: preempting to accommodate a higher priority pod", self.names[0]);
        let condition = object!({"status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": text,
            "lastTransitionTime": (time::format(Timestamp::now())),
        }]}});
        self.patch_status(victim, &condition).await;
        let (namespace, name) = (victim.key.namespace(), victim.key.name());
        let options = DeleteOptions::uid(&victim.uid);
        if let Err(e) = self.client.delete(&PODS, namespace, name, &options).await
            && !e.is_not_found()
        {
            error!(pod = %victim.key, err = %e, "Cannot preempt");
            return;
        }
        let text = format!("Preempted by pod {} on node {}", pod.uid, victim.view.node_name);
        self.tell(victim, Kind::Normal, "Preempted", "Preempting", text);
    }

    async fn patch_status(&self, pod: &Pod, patch: &Value) {
        let target = (pod.key.namespace(), pod.key.name(), "status");
        if let Err(e) = self.client.patch(&PODS, target, Patch::Strategic, patch).await
            && !e.is_not_found()
        {
            error!(pod = %pod.key, err = %e, "Cannot update the pod's status");
        }
    }

    fn tell(&self, pod: &Pod, kind: Kind, reason: &str, action: &'static str, message: String) {
        let regarding = reference(&pod.head());
        self.recorder.record(Event { regarding, kind, reason: reason.to_owned(), message, action });
    }
}
