//! The drivers that have made themselves known, and whether they can be reached.
//!
//! What a driver that cannot be reached offers is of no use: its ResourceSlices are deleted after a while, and all of the
//! node's when the kubelet starts, because nobody is known then.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use daemon::Tasks;
use tokio_util::sync::CancellationToken;

use super::api::{VERSIONS, Version};
use super::{Claims, metrics};
use crate::grpc::{self, Plugin};
use crate::plugins::Handler;

/// How long a driver may be gone before its ResourceSlices go.
pub(super) const WIPING_DELAY: Duration = Duration::from_secs(30);
/// A driver that cannot be reached is tried again after this, then after more each time.
const RECONNECT_FIRST: Duration = Duration::from_secs(1);
const RECONNECT_LAST: Duration = Duration::from_secs(120);
/// The same for deletions that fail.
const WIPE_FIRST: Duration = Duration::from_secs(1);
const WIPE_LAST: Duration = Duration::from_secs(300);

/// All drivers, by name.
#[derive(Default)]
pub(super) struct Drivers {
    /// Each one's plug-ins, in the order in which they came.
    by_name: HashMap<String, Vec<Entry>>,
    /// Drivers whose ResourceSlices will be or have been deleted, as long as they cannot be reached; each with what stops that.
    wipes: HashMap<String, CancellationToken>,
    next: u64,
}

struct Entry {
    id: u64,
    endpoint: PathBuf,
    instance: Instance,
    connected: bool,
    /// It tells about the health of its devices.
    telling: bool,
    stop: CancellationToken,
}

/// A plug-in of a driver.
#[derive(Clone)]
pub(super) struct Instance {
    pub(super) plugin: Plugin,
    pub(super) version: Version,
}

impl Drivers {
    fn entry(&mut self, name: &str, id: u64) -> Option<&mut Entry> {
        self.by_name.get_mut(name)?.iter_mut().find(|entry| entry.id == id)
    }

    fn is_usable(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|entries| entries.iter().any(|entry| entry.connected))
    }

    /// The newest plug-in that can be reached, or else the newest.
    fn best(&self, name: &str) -> Option<&Instance> {
        let entries = self.by_name.get(name)?;
        let connected = entries.iter().rev().find(|entry| entry.connected);
        connected.or(entries.last()).map(|entry| &entry.instance)
    }

    /// The drivers whose slices are about to go, for tests.
    #[cfg(test)]
    pub(super) fn waits(&self) -> Vec<&String> {
        self.wipes.keys().collect()
    }

    /// How many plug-ins there have been, for tests.
    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.next
    }

    /// Whether a plug-in can be reached that came after so many others, for tests.
    #[cfg(test)]
    pub(super) fn has_newer(&self, count: u64) -> bool {
        self.by_name.values().flatten().any(|entry| entry.connected && entry.id >= count)
    }

    /// How many plug-ins of a driver can be reached, for tests.
    #[cfg(test)]
    pub(super) fn connected(&self, name: &str) -> usize {
        self.by_name.get(name).into_iter().flatten().filter(|entry| entry.connected).count()
    }
}

impl Claims {
    /// A driver; an error is a sentence.
    pub(super) fn driver(&self, name: &str) -> Result<Instance, String> {
        if name.is_empty() {
            return Err("DRA driver name is empty".to_owned());
        }
        let missing = || format!("DRA driver {name} is not registered");
        self.drivers.lock().best(name).cloned().ok_or_else(missing)
    }

    /// Whether some plug-in of a driver can be reached.
    #[cfg(test)]
    pub(super) fn is_usable(&self, name: &str) -> bool {
        self.drivers.lock().is_usable(name)
    }
}

/// The newest version that a plug-in and this kubelet have in common; an error is a sentence.
fn common(offered: &[String]) -> Result<Version, String> {
    if offered.is_empty() {
        return Err("empty list of supported gRPC services (aka supported versions)".to_owned());
    }
    let known = |name: &String| VERSIONS.into_iter().find(|version| version.name == name);
    let quoted = |names: &mut dyn Iterator<Item = &str>| {
        names.map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" ")
    };
    // Plug-ins name the newest first.
    offered.iter().find_map(known).ok_or_else(|| {
        format!(
            "none of services supported by the plugin ([{}]) are supported by the kubelet ([{}])",
            quoted(&mut offered.iter().map(String::as_str)),
            quoted(&mut VERSIONS.iter().map(|version| version.name)),
        )
    })
}

/// Where drivers make themselves known.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(super) claims: Arc<Claims>,
    pub(super) tasks: Tasks,
    pub(super) wake: Arc<dyn Fn(&str) + Send + Sync>,
    pub(super) wiping_delay: Duration,
}

impl Registry {
    /// Takes the drivers of these claims. `wake` has a pod looked at again, by its uid.
    pub(crate) fn new(claims: Arc<Claims>, tasks: Tasks, wake: Arc<dyn Fn(&str) + Send + Sync>) -> Self {
        Self { claims, tasks, wake, wiping_delay: WIPING_DELAY }
    }

    /// Deletes what earlier drivers offered: nobody can use it before they are back.
    pub(crate) fn start(&self) {
        let (this, stop) = (self.clone(), self.tasks.token());
        self.tasks.plain("driver-cleanup", async move {
            tokio::select! {
                () = this.wipe(None) => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        });
    }

    /// Shows metrics at an endpoint.
    pub(crate) fn register_metrics(claims: &Arc<Claims>, registry: &prometheus::Registry) {
        metrics::register(claims, registry);
    }

    async fn wipe(&self, driver: Option<&str>) {
        let mut pause = WIPE_FIRST;
        while let Err(why) = self.claims.server.wipe(driver).await {
            tracing::info!(driver, err = why, "Deleting ResourceSlice failed, retrying");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(WIPE_LAST);
        }
    }

    /// To be called whenever something about a driver changes.
    fn sync(&self, name: &str) {
        let mut drivers = self.claims.drivers.lock();
        if drivers.is_usable(name) {
            if let Some(wipe) = drivers.wipes.remove(name) {
                wipe.cancel();
            }
            drop(drivers);
            self.claims.arrived.notify_waiters();
            return;
        }
        if drivers.wipes.contains_key(name) {
            return;
        }
        let stop = self.tasks.token().child_token();
        drivers.wipes.insert(name.to_owned(), stop.clone());
        let (this, name) = (self.clone(), name.to_owned());
        self.tasks.plain("driver-cleanup", async move {
            let work = async {
                tokio::time::sleep(this.wiping_delay).await;
                this.wipe(Some(&name)).await;
            };
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        });
    }

    fn note_connection(&self, name: &str, id: u64, connected: bool) {
        if let Some(entry) = self.claims.drivers.lock().entry(name, id) {
            entry.connected = connected;
        }
        tracing::info!(driver = name, connected, "Connection changed");
        self.sync(name);
    }

    /// Notes whether a plug-in tells about health; true when none of the driver's does.
    pub(super) fn note_telling(&self, name: &str, id: u64, telling: bool) -> bool {
        let mut drivers = self.claims.drivers.lock();
        if let Some(entry) = drivers.entry(name, id) {
            entry.telling = telling;
        }
        drivers.by_name.get(name).is_none_or(|entries| entries.iter().all(|entry| !entry.telling))
    }

    /// Keeps a connection to a plug-in, which tells whether it is there, and listens to it meanwhile.
    async fn follow(&self, name: &str, id: u64, endpoint: &Path, plugin: &Plugin) {
        let mut pause = RECONNECT_FIRST;
        loop {
            let began = Instant::now();
            match grpc::connection(endpoint).await {
                Ok(connection) => {
                    self.note_connection(name, id, true);
                    tokio::select! {
                        () = connection => {}
                        () = self.listen(name, id, plugin) => {}
                    }
                    self.fall_silent(name, id);
                    self.note_connection(name, id, false);
                }
                Err(error) => tracing::debug!(driver = name, err = %error, "Cannot reach a driver"),
            }
            if began.elapsed() > pause {
                pause = RECONNECT_FIRST;
                continue;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 8 / 5).min(RECONNECT_LAST);
        }
    }
}

#[async_trait]
impl Handler for Registry {
    fn validate(&self, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String> {
        // The name becomes part of selectors.
        if let Some(problem) = ::api::names::dns_subdomain(&name.to_lowercase()).pop() {
            return Err(format!("invalid name {name:?} of DRA driver: {problem}"));
        }
        common(versions).map(drop).map_err(|why| {
            let endpoint = endpoint.display();
            format!(
                "invalid supported gRPC versions of DRA driver plugin {name} at endpoint {endpoint}: {why}"
            )
        })
    }

    async fn register(&self, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String> {
        let version = common(versions)?;
        let (plugin, stop) = (Plugin::new(endpoint), self.tasks.token().child_token());
        let id = {
            let mut drivers = self.claims.drivers.lock();
            let id = drivers.next;
            drivers.next += 1;
            let entries = drivers.by_name.entry(name.to_owned()).or_default();
            if entries.iter().any(|entry| entry.endpoint == endpoint) {
                let endpoint = endpoint.display();
                return Err(format!("endpoint {endpoint} already registered for DRA driver plugin {name}"));
            }
            let instance = Instance { plugin: plugin.clone(), version };
            entries.push(Entry {
                id,
                endpoint: endpoint.to_owned(),
                instance,
                connected: false,
                telling: false,
                stop: stop.clone(),
            });
            id
        };
        self.sync(name);
        let (this, name, endpoint) = (self.clone(), name.to_owned(), endpoint.to_owned());
        self.tasks.plain("dra-plugin", async move {
            tokio::select! {
                () = this.follow(&name, id, &endpoint, &plugin) => {}
                () = stop.cancelled() => this.fall_silent(&name, id),
            }
            Ok(())
        });
        Ok(())
    }

    async fn deregister(&self, name: &str, endpoint: &Path) {
        {
            let mut drivers = self.claims.drivers.lock();
            let Some(entries) = drivers.by_name.get_mut(name) else { return };
            for entry in entries.extract_if(.., |entry| entry.endpoint == endpoint) {
                entry.stop.cancel();
            }
            if entries.is_empty() {
                drivers.by_name.remove(name);
            }
        }
        self.sync(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_of_the_plugin_that_is_known_counts() {
        let common = |offered: &[&str]| {
            let offered: Vec<String> = offered.iter().map(|name| (*name).to_owned()).collect();
            common(&offered).map(|version| version.name)
        };
        assert_eq!(
            common(&["v1alpha1.DRAResourceHealth", "v1.DRAPlugin", "v1beta1.DRAPlugin"]),
            Ok("v1.DRAPlugin")
        );
        assert_eq!(common(&["v1beta1.DRAPlugin"]), Ok("v1beta1.DRAPlugin"));
        assert_eq!(
            common(&["v1alpha4.Node"]).unwrap_err(),
            "none of services supported by the plugin ([\"v1alpha4.Node\"]) are supported by the kubelet ([\"v1.DRAPlugin\" \"v1beta1.DRAPlugin\"])"
        );
        assert_eq!(
            common(&[]).unwrap_err(),
            "empty list of supported gRPC services (aka supported versions)"
        );
    }
}
