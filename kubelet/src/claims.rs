//! Devices by claim: what ResourceClaims were allocated is made ready by drivers before the pods start that use them, and
//! given back when the last of these pods has ended.
//!
//! Drivers are plug-ins in the watched folder; there may be several of one driver, which take turns. What was asked of
//! drivers is noted in upstream's file `dra_manager_state` before they are asked, so that it can be taken back by any
//! kubelet, whatever happened meanwhile.

mod api;
mod drivers;
mod health;
mod metrics;
mod names;
mod prepare;
mod server;
mod state;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::api::Value;
use anyhow::Context;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::checkpoint;
use crate::pod_resources::{CdiDevice, ClaimResource, DynamicResource};
use drivers::Drivers;
pub(crate) use drivers::Registry;
use health::Healths;
pub(crate) use metrics::Metrics;
pub(crate) use names::without_claimed;
pub(crate) use server::{NodeServer, Server};
use state::{Key, Known};

const CHECKPOINT: &str = "dra_manager_state";

/// The claims of the node's pods, and the drivers that know about them.
pub(crate) struct Claims {
    root: PathBuf,
    server: Arc<dyn Server>,
    known: Mutex<Known>,
    /// One thing at a time happens to a claim.
    turns: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    drivers: Mutex<Drivers>,
    health: Mutex<Healths>,
    /// A driver can be reached that could not be before.
    arrived: Notify,
    pub(crate) metrics: Metrics,
}

impl Claims {
    /// Reads what an earlier kubelet left in its folder.
    pub(crate) fn load(root: &Path, server: Arc<dyn Server>) -> anyhow::Result<Self> {
        let path = root.join(CHECKPOINT);
        let text = checkpoint::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let known = text.as_deref().map(state::decode).transpose().map_err(anyhow::Error::msg);
        let known = known.with_context(|| {
            format!("cannot use {}, please drain node and remove DRA state file", path.display())
        })?;
        Ok(Self {
            root: root.to_owned(),
            server,
            known: Mutex::new(known.unwrap_or_default()),
            turns: Mutex::default(),
            drivers: Mutex::default(),
            health: Mutex::new(Healths::load(root)),
            arrived: Notify::new(),
            metrics: Metrics::new(),
        })
    }

    fn write(&self, known: &Known) -> std::io::Result<()> {
        checkpoint::write(&self.root.join(CHECKPOINT), &state::encode(known)?)
    }

    /// Waits for the turn at all of these claims.
    async fn turns(&self, mut keys: Vec<Key>) -> Vec<OwnedMutexGuard<()>> {
        // In one order, so that nobody waits in a circle.
        keys.sort_unstable();
        keys.dedup();
        let mut held = Vec::new();
        for key in keys {
            let turn = {
                let mut turns = self.turns.lock();
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
                turns.entry(key).or_default().clone()
            };
            held.push(turn.lock_owned().await);
        }
        held
    }

    /// The devices that a container uses, by their names in the Container Device Interface. An error is a sentence.
    pub(crate) fn cdi_ids(&self, pod: &Value, container: &Value) -> Result<Vec<String>, String> {
        let mut ids = Vec::new();
        let known = self.known.lock();
        for (name, requests) in names::of_container(pod, container)? {
            let missing = || {
                format!(
                    "internal error: unable to get claim info for ResourceClaim {name} in namespace {}",
                    pod.namespace()
                )
            };
            let info = known.get(&(pod.namespace().to_owned(), name.clone())).ok_or_else(missing)?;
            for id in requests.iter().flat_map(|request| info.cdi_ids(request)) {
                if !ids.contains(id) {
                    ids.push(id.clone());
                }
            }
        }
        Ok(ids)
    }

    /// The claims that a container uses, with all of their devices.
    pub(crate) fn given(&self, pod: &Value, container: &Value) -> Vec<DynamicResource> {
        // What cannot be resolved yet is not used yet.
        let used = names::of_container(pod, container).unwrap_or_default();
        let known = self.known.lock();
        let infos = used.keys().filter_map(|name| known.get(&(pod.namespace().to_owned(), name.clone())));
        let shown = infos.map(|info| {
            let devices = info
                .drivers
                .iter()
                .flat_map(|(driver, part)| part.devices.iter().map(move |device| (driver, device)));
            // DIVERGES: upstream shows with each device also the names of those before it.
            let resources = devices.map(|(driver, device)| ClaimResource {
                cdi_devices: device.cdi_ids.iter().map(|name| CdiDevice { name: name.clone() }).collect(),
                driver_name: driver.clone(),
                pool_name: device.pool_name.clone(),
                device_name: device.device_name.clone(),
                share_id: device.share_id.clone(),
            });
            DynamicResource {
                claim_name: info.name.clone(),
                claim_namespace: info.namespace.clone(),
                claim_resources: resources.collect(),
            }
        });
        shown.collect()
    }
}

/// An API server that knows nothing.
#[cfg(test)]
pub(crate) struct Nobody;

#[cfg(test)]
#[async_trait::async_trait]
impl Server for Nobody {
    async fn claim(&self, _: &str, name: &str) -> Result<Value, String> {
        Err(format!("resourceclaims.resource.k8s.io \"{name}\" not found"))
    }

    async fn wipe(&self, _: Option<&str>) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
