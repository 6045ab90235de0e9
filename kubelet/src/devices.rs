//! Devices of plug-ins: who has which, and what their containers need for that.
//!
//! Plug-ins make themselves known at `device-plugins/kubelet.sock` in the kubelet's folder or by the folder of plug-ins,
//! then tell of their devices for as long as they live. What is given away is kept in upstream's checkpoint file.

mod allocate;
pub(crate) mod api;
mod checkpoint;
mod hints;
mod options;
mod registry;
mod state;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::api::{Map, Value, object};
use anyhow::Context;
use parking_lot::Mutex;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};
use tokio::sync::Notify;

use crate::pod_resources::ContainerDevices;

pub(crate) use allocate::Reusable;
pub(crate) use options::Options;
pub(crate) use registry::Registry;
pub(crate) use state::Amounts;
use state::State;

const CHECKPOINT: &str = "kubelet_internal_checkpoint";

/// The devices of the node.
pub(crate) struct Devices {
    dir: PathBuf,
    state: Mutex<State>,
    /// Held while it is decided who gets what: plug-ins are asked meanwhile.
    turn: tokio::sync::Mutex<()>,
    /// How long a plug-in may think.
    patience: Duration,
    /// There was no checkpoint: the node is new, or was made over.
    fresh: bool,
    /// What there is has changed.
    pub(crate) changed: Notify,
    /// How often plug-ins made themselves known.
    pub(crate) registrations: IntCounterVec,
    /// How long they took to give devices away.
    pub(crate) durations: HistogramVec,
}

impl Devices {
    /// Reads what was given away before, from the folder of device plug-ins.
    pub(crate) fn load(root: &Path, patience: Duration) -> anyhow::Result<Self> {
        let dir = root.join("device-plugins");
        let make = fs::DirBuilder::new().recursive(true).mode(0o750).create(&dir);
        make.and_then(|()| clean(&dir)).with_context(|| format!("cannot prepare {}", dir.display()))?;
        let mut state = State::default();
        let text = crate::checkpoint::read(&dir.join(CHECKPOINT)).map_err(|error| error.to_string());
        let fresh = matches!(text, Ok(None));
        match text.and_then(|text| text.as_deref().map(checkpoint::decode).transpose()) {
            Ok(None) => {}
            Ok(Some((pods, names))) => {
                state.pods = pods;
                // There is nothing of them until their plug-in is back.
                for name in names {
                    let entry = state.resources.entry(name).or_default();
                    entry.stopped = Some(Instant::now());
                }
            }
            Err(error) => tracing::error!(
                err = error,
                "Continue after failing to read checkpoint file. Device allocation info may NOT be up-to-date"
            ),
        }
        let label = &["resource_name"];
        let registrations = Opts::new(
            "kubelet_device_plugin_registration_total",
            "[ALPHA] Cumulative number of device plugin registrations. Broken down by resource name.",
        );
        let durations = HistogramOpts::new(
            "kubelet_device_plugin_alloc_duration_seconds",
            "[ALPHA] Duration in seconds to serve a device plugin Allocation request. Broken down by resource name.",
        );
        Ok(Self {
            dir,
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::default(),
            patience,
            fresh,
            changed: Notify::new(),
            registrations: IntCounterVec::new(registrations, label)?,
            durations: HistogramVec::new(durations, label)?,
        })
    }

    /// Whether a resource is one of devices.
    pub(crate) fn manages(&self, resource: &str) -> bool {
        self.state.lock().manages(resource)
    }

    /// Whether the resources of plug-ins that an older node object shows are to be taken for none.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// How much there is of each resource.
    pub(crate) fn amounts(&self) -> Amounts {
        let amounts = self.state.lock().amounts(Instant::now());
        if !amounts.removed.is_empty() {
            self.write();
        }
        amounts
    }

    /// How many devices of a resource containers have.
    pub(crate) fn used(&self, resource: &str) -> usize {
        self.state.lock().used(resource).len()
    }

    /// Takes back the devices of a pod that has ended.
    pub(crate) fn forget(&self, uid: &str) {
        let had = self.state.lock().pods.remove(uid).is_some();
        if had {
            self.write();
        }
    }

    /// Takes back the devices of all pods but some.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        let (before, after) = {
            let mut state = self.state.lock();
            let before = state.pods.len();
            state.pods.retain(|uid, _| keep(uid));
            (before, state.pods.len())
        };
        if before != after {
            self.write();
        }
    }

    /// `allocatedResourcesStatus` of a container.
    pub(crate) fn health(&self, uid: &str, container: &str) -> Vec<Value> {
        let state = self.state.lock();
        let given = state.of(uid, container).into_iter().flatten();
        let shown = given.filter(|(_, given)| !given.devices.is_empty()).map(|(resource, given)| {
            let known = state.resources.get(resource);
            let healths = given.ids().into_iter().map(|id| {
                let device = known.and_then(|entry| entry.devices.get(&id));
                // Nothing is said against a device that nobody speaks of.
                let healthy = device.is_none_or(|device| device.health == api::HEALTHY);
                let mut shown = Map::new();
                shown.push("resourceID", id.into());
                shown.push("health", if healthy { "Healthy" } else { "Unhealthy" }.into());
                Value::Object(shown)
            });
            object!({"name": (resource.as_str()), "resources": (Value::Array(healths.collect()))})
        });
        shown.collect()
    }

    /// The devices of a container, one by one.
    pub(crate) fn given(&self, uid: &str, container: &str) -> Vec<ContainerDevices> {
        let state = self.state.lock();
        let mut shown = Vec::new();
        for (resource, given) in state.of(uid, container).into_iter().flatten() {
            for id in given.ids() {
                let holds = |(_, ids): &(&i64, &Vec<String>)| ids.contains(&id);
                let nodes = given.devices.iter().filter(holds).map(|(node, _)| *node);
                let nodes: Vec<_> =
                    nodes.filter(|node| *node != state::NOWHERE).map(|id| api::NumaNode { id }).collect();
                let topology = (!nodes.is_empty()).then_some(api::TopologyInfo { nodes });
                shown.push(ContainerDevices { resource: resource.clone(), ids: vec![id], topology });
            }
        }
        shown
    }

    /// The devices that can be given away or have been, one by one.
    pub(crate) fn healthy(&self) -> Vec<ContainerDevices> {
        let state = self.state.lock();
        let mut shown = Vec::new();
        for (resource, entry) in &state.resources {
            for id in &entry.healthy {
                let topology = entry.devices.get(id).and_then(|device| device.topology.clone());
                shown.push(ContainerDevices { resource: resource.clone(), ids: vec![id.clone()], topology });
            }
        }
        shown.sort_by(|one, other| (&one.resource, &one.ids).cmp(&(&other.resource, &other.ids)));
        shown
    }

    /// Has devices and gives them to a container, for tests.
    #[cfg(test)]
    pub(crate) fn pretend(&self, uid: &str, container: &str, resource: &str, ids: &[&str]) {
        let device =
            |id: &&str| api::Device { id: (*id).to_owned(), health: api::HEALTHY.to_owned(), topology: None };
        let mut state = self.state.lock();
        state.update(resource, ids.iter().map(device).collect());
        let wish = state::Wish { uid, container, resource, count: ids.len() };
        state.give(&wish, &ids.iter().map(|id| (*id).to_owned()).collect(), api::Allocated::default());
    }

    fn write(&self) {
        let text = {
            let state = self.state.lock();
            let names = state.resources.iter();
            let registered =
                names.map(|(name, entry)| (name.clone(), entry.healthy.iter().cloned().collect()));
            checkpoint::encode(&state.pods, registered.collect())
        };
        let path = self.dir.join(CHECKPOINT);
        let written =
            text.and_then(|text| crate::checkpoint::write(&path, &text).map_err(|error| error.to_string()));
        if let Err(error) = written {
            tracing::error!(err = error, checkpoint = CHECKPOINT, "Failed to write checkpoint file");
        }
    }
}

/// Removes sockets of plug-ins: by that they learn that they have to make themselves known again.
fn clean(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
