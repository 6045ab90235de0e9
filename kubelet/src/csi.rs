//! Volumes of CSI drivers: plug-ins that attach, mount and grow them.
//!
//! What a volume is, and which pod has it, is noted in files beside it before its driver is asked for anything, so that
//! it can be taken down by any kubelet, whatever happened meanwhile: what is on the disk is what is known.

mod api;
mod driver;
mod expand;
mod facts;
mod files;
mod mount;
mod node;
mod stats;
mod unmount;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Recorder};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::metrics::Storage;
use crate::volumes::Tokens;
use driver::Driver;
pub(crate) use driver::Registration;
use files::Layout;
pub(crate) use mount::{Source, Wanted};

/// How long a volume waits for the API server to hear that it is in use.
const REPORT_LIMIT: Duration = Duration::from_secs(20);

/// A volume for all of its users: its driver's name and its handle.
type Key = (String, String);

/// What is known on this node alone.
#[derive(Debug)]
struct Local {
    layout: Layout,
    node_name: String,
    drivers: Mutex<HashMap<String, Arc<Driver>>>,
    /// One thing at a time happens to a volume.
    turns: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    /// Volumes that this process has made ready.
    staged: Mutex<HashSet<Key>>,
    /// Volumes that this process has shown to pods, and when: by the pod's uid and the volume's name.
    published: Mutex<HashMap<(String, String), tokio::time::Instant>>,
    /// Volumes that may not be detached, and whether the API server knows that.
    in_use: Mutex<BTreeMap<String, bool>>,
    /// What is in use has changed.
    changed: Notify,
    /// The API server knows of everything in use.
    reported: Notify,
}

impl Local {
    fn new(root: &Path, node_name: &str) -> io::Result<Self> {
        let layout = Layout { root: root.to_owned() };
        let attached = layout
            .published()?
            .into_iter()
            .map(|(_, data)| data)
            .filter(|data| data.lifecycle != "Ephemeral");
        let in_use = layout
            .staged()?
            .into_iter()
            .chain(attached)
            .map(|data| (unique(&data.driver, &data.handle), false));
        Ok(Self {
            in_use: Mutex::new(in_use.collect()),
            layout,
            node_name: node_name.to_owned(),
            drivers: Mutex::default(),
            turns: Mutex::default(),
            staged: Mutex::default(),
            published: Mutex::default(),
            changed: Notify::new(),
            reported: Notify::new(),
        })
    }

    async fn turn(&self, key: &Key) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock();
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(key.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }

    /// Waits until the API server knows that a volume is in use: from then on nobody detaches it. The error is a sentence.
    async fn hold(&self, driver: &str, handle: &str) -> Result<(), String> {
        let name = unique(driver, handle);
        let wait = async {
            loop {
                let reported = self.reported.notified();
                tokio::pin!(reported);
                reported.as_mut().enable();
                if *self.in_use.lock().entry(name.clone()).or_default() {
                    return;
                }
                self.changed.notify_one();
                reported.await;
            }
        };
        tokio::time::timeout(REPORT_LIMIT, wait).await.map_err(|_| {
            format!("Volume has not been added to the list of VolumesInUse in the node's volume status for volume {name}")
        })
    }

    fn let_go(&self, driver: &str, handle: &str) {
        if self.in_use.lock().remove(&unique(driver, handle)).is_some() {
            self.changed.notify_one();
        }
    }
}

/// The name of a volume in the node's status.
fn unique(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// The volumes of drivers on this node.
pub(crate) struct Csi {
    local: Local,
    node_name: String,
    client: Client,
    recorder: Recorder,
    tokens: Arc<Tokens>,
    metrics: Arc<Storage>,
    /// Held while the node's objects are changed.
    node_turn: tokio::sync::Mutex<()>,
}

impl Csi {
    /// Looks what an earlier kubelet left below `root`.
    pub(crate) fn new(
        root: &Path,
        node_name: &str,
        (client, recorder): (Client, Recorder),
        tokens: Arc<Tokens>,
        metrics: Arc<Storage>,
    ) -> io::Result<Self> {
        Ok(Self {
            local: Local::new(root, node_name)?,
            node_name: node_name.to_owned(),
            client,
            recorder,
            tokens,
            metrics,
            node_turn: tokio::sync::Mutex::default(),
        })
    }

    /// The names of volumes that may not be detached.
    pub(crate) fn in_use(&self) -> Vec<String> {
        self.local.in_use.lock().keys().cloned().collect()
    }

    /// Notes that the API server knows of these.
    pub(crate) fn note_reported(&self, names: &[String]) {
        let mut in_use = self.local.in_use.lock();
        for name in names {
            if let Some(reported) = in_use.get_mut(name) {
                *reported = true;
            }
        }
        drop(in_use);
        self.local.reported.notify_waiters();
    }

    /// Waits until what is in use has changed.
    pub(crate) async fn changed(&self) {
        self.local.changed.notified().await;
    }
}

#[cfg(test)]
mod tests;
