//! Processors and memory that containers have for themselves, and devices near them.
//!
//! `machine` reads how the machine is made, `cpus` and `memory` decide who has which part of it, `topology` on which NUMA
//! nodes that is to be, `admit` asks them all when a pod comes, `reconcile` moves containers. What is given away is kept in
//! upstream's two checkpoint files. With every policy at none nothing is read, kept or run.

mod admit;
pub(crate) mod cpus;
pub(crate) mod cpuset;
mod held;
pub(crate) mod machine;
mod memory;
mod metrics;
mod options;
mod reconcile;
pub(crate) mod resize;
mod take;
pub(crate) mod topology;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use api::Value;
use k8s_cri::v1 as cri;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::KubeletConfiguration;
use crate::devices::api::{NumaNode, TopologyInfo};
use crate::pod_resources::ContainerMemory;
pub(crate) use admit::Request;
use held::Held;
use machine::Machine;
use metrics::{CACHES, CORES, Metrics};
use options::{CpuOptions, TopologyOptions};
pub(crate) use reconcile::run;
use topology::{Hints, Policy};

/// Why a pod is turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// What it asks for is not in one place.
    Locality,
    /// It cannot have whole cores.
    Alignment(String),
    /// Something else; a sentence.
    Unexpected(String),
}

impl Refusal {
    /// The reason and message.
    fn into_words(self) -> (String, String) {
        let (reason, message) = match self {
            Self::Locality => (topology::REASON, topology::MESSAGE.to_owned()),
            Self::Alignment(message) => ("SMTAlignmentError", message),
            Self::Unexpected(why) => {
                ("UnexpectedAdmissionError", format!("Allocate failed due to {why}, which is unexpected"))
            }
        };
        (reason.to_owned(), message)
    }
}

/// Whether the pod as a whole asks for something. Its containers get nothing for themselves then: who manages resources of
/// pods is behind a gate (`PodLevelResourceManagers`) that is off.
fn has_own_resources(pod: &Value) -> bool {
    let lists = ["requests", "limits"].map(|kind| pod.at(&["spec", "resources", kind]));
    lists.into_iter().any(|list| !list.is_empty())
}

/// What the node keeps for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Thousandths of a processor.
    pub(crate) cpu: i64,
    /// Bytes, those among them at which pods are evicted.
    pub(crate) memory: i64,
}

/// The managers of this node.
pub(crate) struct Managers {
    topology: Option<Policy>,
    /// The machine's NUMA nodes; none are known when nobody manages anything.
    nodes: BTreeSet<usize>,
    held: Mutex<Held>,
    /// Held while it is decided what a pod gets: device plug-ins are asked meanwhile.
    turn: tokio::sync::Mutex<()>,
    /// Somebody has other processors.
    changed: Notify,
    pub(crate) metrics: Metrics,
}

impl Managers {
    /// Makes them as configured. What was given away before is read from the kubelet's folder; `sys` is where the kernel
    /// tells of the machine, which has so many bytes of memory.
    pub(crate) fn load(
        file: &KubeletConfiguration,
        root: &Path,
        sys: &Path,
        kept: Kept,
        memory: u64,
    ) -> anyhow::Result<Self> {
        let settings = &file.managers;
        let idle = settings.are_none();
        let machine = match idle {
            true => Machine::default(),
            false => Machine::read(sys, memory)?,
        };
        if let Some(node) = machine.nodes.iter().find(|node| node.id > 63) {
            bail!(
                "unsupported on machines with a NUMA node of number {}: only those from 0 to 63 are managed",
                node.id
            );
        }
        let machine = Arc::new(machine);
        let gates = daemon::features::FeatureGates::from_map(file.feature_gates.clone());
        let options = || TopologyOptions::parse(&settings.topology_manager_policy_options);
        let (name, scope) = (&settings.topology_manager_policy, &settings.topology_manager_scope);
        let topology = Policy::new(name, scope, options, &machine).map_err(|error| anyhow!(error))?;
        let metrics = Metrics::new();
        if topology.is_some() {
            ["container", "pod"].into_iter().for_each(|scope| metrics.expect([scope, "numa_node"], true));
        }
        let cpus = held::cpu_policy(settings, &gates, &machine, kept, topology.as_ref());
        let memory = held::memory_policy(settings, &machine, kept);
        let held =
            Held::load(root, cpus.map_err(|error| anyhow!(error))?, memory.map_err(|error| anyhow!(error))?)?;
        if let Some(policy) = &held.cpus.policy {
            metrics.expect(CORES, true);
            metrics.expect(CACHES, false);
            metrics.show(policy, &held.cpus.state);
        }
        Ok(Self {
            topology,
            nodes: machine.nodes.iter().map(|node| node.id).collect(),
            held: Mutex::new(held),
            turn: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            metrics,
        })
    }

    /// Whether nobody manages anything.
    fn is_idle(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether there are processors to be given away.
    pub(crate) fn manage_cpus(&self) -> bool {
        self.held.lock().cpus.policy.is_some()
    }

    /// Whether a pod's containers have something.
    fn knows(&self, uid: &str) -> bool {
        let held = self.held.lock();
        held.cpus.state.pods.contains_key(uid) || held.memory.state.knows(uid)
    }

    /// Takes back what the containers of a pod have.
    pub(crate) fn forget(&self, uid: &str) {
        if !self.is_idle() {
            self.retain(|other| other != uid);
        }
    }

    /// Takes back what the containers of all pods but some have.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        let mut held = self.held.lock();
        if held.cpus.retain(&keep) {
            if let Some(policy) = &held.cpus.policy {
                self.metrics.show(policy, &held.cpus.state);
            }
            self.changed.notify_one();
        }
        held.memory.retain(&keep);
    }

    /// Tells where a container that is about to be made is to run, and that processors of its own are not rationed.
    pub(crate) fn pin(&self, uid: &str, container: &str, resources: &mut cri::LinuxContainerResources) {
        if self.is_idle() {
            return;
        }
        let held = self.held.lock();
        if held.cpus.policy.is_some() {
            let state = &held.cpus.state;
            let own = state.of(uid, container);
            resources.cpuset_cpus = own.unwrap_or(&state.shared).to_string();
            if own.is_some_and(|cpus| !cpus.is_empty()) && resources.cpu_period > 0 {
                resources.cpu_quota = -1;
            }
        }
        let blocks = held.memory.state.of(uid, container).unwrap_or_default();
        let nodes: BTreeSet<_> = blocks.iter().flat_map(|block| &block.numa_affinity).collect();
        resources.cpuset_mems = nodes.into_iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    }

    /// Whether a container of the pod has processors of its own: then the pod is not rationed.
    pub(crate) fn has_own_cpus(&self, uid: &str) -> bool {
        !self.is_idle() && self.held.lock().cpus.state.pods.contains_key(uid)
    }

    /// A container has been made: init containers before it have ended.
    pub(crate) fn started(&self, pod: &Value, container: &str) {
        if !self.is_idle() {
            self.held.lock().memory.started(pod, container);
        }
    }

    /// The processors that a container has for itself.
    pub(crate) fn cpu_ids(&self, uid: &str, container: &str) -> Vec<i64> {
        let held = self.held.lock();
        held.cpus.state.of(uid, container).map(ids).unwrap_or_default()
    }

    /// The processors that can be given away in all.
    pub(crate) fn allocatable_cpu_ids(&self) -> Vec<i64> {
        let held = self.held.lock();
        held.cpus.policy.as_ref().map(|policy| ids(&policy.allocatable())).unwrap_or_default()
    }

    /// The memory that a container has for itself.
    pub(crate) fn memory(&self, uid: &str, container: &str) -> Vec<ContainerMemory> {
        let held = self.held.lock();
        held.memory.state.of(uid, container).unwrap_or_default().iter().map(shown).collect()
    }

    /// The memory that can be given away in all.
    pub(crate) fn allocatable_memory(&self) -> Vec<ContainerMemory> {
        self.held.lock().memory.state.allocatable().iter().map(shown).collect()
    }
}

fn ids(cpus: &cpuset::CpuSet) -> Vec<i64> {
    cpus.iter().filter_map(|cpu| i64::try_from(cpu).ok()).collect()
}

fn shown(block: &memory::Block) -> ContainerMemory {
    let nodes = block.numa_affinity.iter().filter_map(|node| i64::try_from(*node).ok());
    ContainerMemory {
        kind: block.kind.clone(),
        size: block.size,
        topology: Some(TopologyInfo { nodes: nodes.map(|id| NumaNode { id }).collect() }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
