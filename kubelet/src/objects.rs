//! ConfigMaps and Secrets: each one that a pod asks for is watched for as long as that pod is here.
//!
//! A kubelet may read only what its pods name, so every object has a watch of its own. What changed before a pod was
//! bound is seen by that pod: both come to this node by watches on the same server.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::Value;
use client::resource::{CONFIG_MAPS, SECRETS};
use client::{Client, Error, Informer, Resource};
use daemon::Tasks;
use parking_lot::Mutex;
use tokio_util::sync::DropGuard;

/// Time for the first answer about an object.
const PATIENCE: Duration = Duration::from_secs(10);

type Key = (&'static str, String, String);

/// An object under watch; dropping it ends the watch.
struct Watched {
    informer: Informer<Value>,
    /// The uids of the pods that have asked for it.
    pods: HashSet<String>,
    _stop: DropGuard,
}

/// The objects under watch.
pub(crate) struct Objects {
    client: Client,
    tasks: Tasks,
    watched: Mutex<HashMap<Key, Watched>>,
}

impl Objects {
    /// Nothing watched yet.
    pub(crate) fn new(client: Client, tasks: Tasks) -> Self {
        Self { client, tasks, watched: Mutex::default() }
    }

    /// A ConfigMap in a pod's namespace; none when there is no such thing.
    pub(crate) async fn config_map(&self, pod: &Value, name: &str) -> client::Result<Option<Arc<Value>>> {
        self.get(CONFIG_MAPS, pod, name).await
    }

    /// A Secret in a pod's namespace; none when there is no such thing.
    pub(crate) async fn secret(&self, pod: &Value, name: &str) -> client::Result<Option<Arc<Value>>> {
        self.get(SECRETS, pod, name).await
    }

    /// Ends the watches that only this pod has asked for.
    pub(crate) fn forget(&self, uid: &str) {
        self.watched.lock().retain(|_, watched| !watched.pods.remove(uid) || !watched.pods.is_empty());
    }

    async fn get(&self, resource: Resource, pod: &Value, name: &str) -> client::Result<Option<Arc<Value>>> {
        let informer = self.watch(resource, pod, name);
        let synced = tokio::time::timeout(PATIENCE, informer.synced()).await;
        synced.map_err(|_| Error::Timeout(PATIENCE.as_secs()))?;
        Ok(informer.store().find(pod.namespace(), name))
    }

    fn watch(&self, resource: Resource, pod: &Value, name: &str) -> Informer<Value> {
        let namespace = pod.namespace();
        let key =
            (if resource == SECRETS { "secret" } else { "configmap" }, namespace.to_owned(), name.to_owned());
        let mut watched = self.watched.lock();
        if let Some(known) = watched.get_mut(&key) {
            if !known.pods.contains(pod.uid()) {
                known.pods.insert(pod.uid().to_owned());
            }
            return known.informer.clone();
        }
        let fields = format!("metadata.name={name}");
        let informer = Informer::of_values(resource, |_| {}).namespace(namespace).fields(&fields).build();
        let stop = self.tasks.token().child_token();
        let running = informer.clone().run(self.client.clone(), stop.clone());
        self.tasks.plain("object", async move {
            running.await;
            Ok(())
        });
        let pods = HashSet::from([pod.uid().to_owned()]);
        watched.insert(key, Watched { informer: informer.clone(), pods, _stop: stop.drop_guard() });
        informer
    }
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[tokio::test]
    async fn an_object_is_watched_for_as_long_as_a_pod_that_asked_for_it_is_here() {
        let objects = Objects::new(client::nowhere(), Tasks::new());
        let pod = |uid: &str| object!({"metadata": {"name": uid, "namespace": "n", "uid": uid}});
        let watched = || {
            let mut names: Vec<_> = objects.watched.lock().keys().map(|(_, _, name)| name.clone()).collect();
            names.sort();
            names
        };
        for (resource, uid, name) in [
            (CONFIG_MAPS, "a", "both"),
            (CONFIG_MAPS, "b", "both"),
            (SECRETS, "a", "own"),
            (SECRETS, "a", "own"),
        ] {
            objects.watch(resource, &pod(uid), name);
        }
        assert_eq!(watched(), ["both", "own"]);
        objects.forget("nobody");
        objects.forget("a");
        assert_eq!(watched(), ["both"]);
        objects.forget("b");
        assert!(watched().is_empty());
    }
}
