//! ConfigMaps and Secrets, read when a pod needs them and remembered for a short while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Value;
use client::resource::{CONFIG_MAPS, SECRETS};
use client::{Client, Resource};
use parking_lot::Mutex;

/// How long a read counts: long enough for pods that start together to read an object once.
const FRESH: Duration = Duration::from_secs(15);
/// How many objects are remembered at most; beyond that the stale ones go.
const MANY: usize = 256;

type Key = (&'static str, String, String);

/// When something was read, and what; none when it was not there.
type Read = (Instant, Option<Arc<Value>>);

/// What was read.
pub(crate) struct Objects {
    client: Client,
    read: Mutex<HashMap<Key, Read>>,
}

impl Objects {
    /// Nothing read yet.
    pub(crate) fn new(client: Client) -> Self {
        Self { client, read: Mutex::default() }
    }

    /// A ConfigMap; none when there is no such thing.
    pub(crate) async fn config_map(&self, namespace: &str, name: &str) -> client::Result<Option<Arc<Value>>> {
        self.get("ConfigMap", &CONFIG_MAPS, namespace, name).await
    }

    /// A Secret; none when there is no such thing.
    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> client::Result<Option<Arc<Value>>> {
        self.get("Secret", &SECRETS, namespace, name).await
    }

    async fn get(
        &self,
        kind: &'static str,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> client::Result<Option<Arc<Value>>> {
        let key = (kind, namespace.to_owned(), name.to_owned());
        if let Some((at, object)) = self.read.lock().get(&key) {
            // That something is missing is not remembered: whoever waits for it is waiting now.
            if object.is_some() && at.elapsed() < FRESH {
                return Ok(object.clone());
            }
        }
        let object = self.client.get_opt(resource, namespace, name).await?.map(Arc::new);
        let mut read = self.read.lock();
        if read.len() >= MANY {
            read.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        read.insert(key, (Instant::now(), object.clone()));
        Ok(object)
    }
}
