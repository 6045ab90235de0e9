//! ConfigMaps and Secrets: each one that a pod asks for is watched, until nobody has asked for it for a while.
//!
//! A kubelet may read only what its pods name, so every object has a watch of its own. What changed before a pod was
//! bound is seen by that pod: both come to this node by watches on the same server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Value;
use client::resource::{CONFIG_MAPS, SECRETS};
use client::{Client, Error, Informer, Resource};
use daemon::Tasks;
use parking_lot::Mutex;
use tokio_util::sync::DropGuard;

/// Time for the first answer about an object.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pods ask again with every look at them; what nobody asked for in this time is let go.
const IDLE: Duration = Duration::from_secs(300);

type Key = (&'static str, String, String);

/// An object under watch; dropping it ends the watch.
struct Watched {
    informer: Informer<Value>,
    asked: Instant,
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

    /// A ConfigMap; none when there is no such thing.
    pub(crate) async fn config_map(&self, namespace: &str, name: &str) -> client::Result<Option<Arc<Value>>> {
        self.get(CONFIG_MAPS, namespace, name).await
    }

    /// A Secret; none when there is no such thing.
    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> client::Result<Option<Arc<Value>>> {
        self.get(SECRETS, namespace, name).await
    }

    async fn get(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
    ) -> client::Result<Option<Arc<Value>>> {
        let informer = self.watch(resource, namespace, name);
        let synced = tokio::time::timeout(PATIENCE, informer.synced()).await;
        synced.map_err(|_| Error::Timeout(PATIENCE.as_secs()))?;
        Ok(informer.store().find(namespace, name))
    }

    fn watch(&self, resource: Resource, namespace: &str, name: &str) -> Informer<Value> {
        let now = Instant::now();
        let key =
            (if resource == SECRETS { "secret" } else { "configmap" }, namespace.to_owned(), name.to_owned());
        let mut watched = self.watched.lock();
        if let Some(known) = watched.get_mut(&key) {
            known.asked = now;
            return known.informer.clone();
        }
        watched.retain(|_, w| now.duration_since(w.asked) < IDLE);
        let fields = format!("metadata.name={name}");
        let informer = Informer::of_values(resource, |_| {}).namespace(namespace).fields(&fields).build();
        let stop = self.tasks.token().child_token();
        let running = informer.clone().run(self.client.clone(), stop.clone());
        self.tasks.plain("object", async move {
            running.await;
            Ok(())
        });
        let entry = Watched { informer: informer.clone(), asked: now, _stop: stop.drop_guard() };
        watched.insert(key, entry);
        informer
    }
}
