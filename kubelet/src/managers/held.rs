//! What is given away, with the files that it is kept in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use api::Value;
use daemon::features::FeatureGates;

use super::cpuset::CpuSet;
use super::machine::Machine;
use super::memory::Reusable;
use super::topology::Policy;
use super::{CpuOptions, Hints, Kept, cpus, memory};
use crate::checkpoint;
use crate::config::ManagerSettings;

/// How a state is kept: the file's text is made of the policy's name and the state.
struct Format<S> {
    policy: &'static str,
    decode: fn(&str, &str) -> Result<S, String>,
    encode: fn(&str, &S) -> Result<String, String>,
}

/// A state that is kept in a file.
pub(super) struct Manager<P, S> {
    /// None when nothing is given away.
    pub(super) policy: Option<P>,
    pub(super) state: S,
    path: PathBuf,
    format: Format<S>,
}

impl<P, S: Default + PartialEq> Manager<P, S> {
    /// Reads the file, which is to be of the policy that is configured, and writes it when that says something else.
    fn load(
        path: PathBuf,
        policy: Option<P>,
        kind: &str,
        format: Format<S>,
        check: impl Fn(&P, &mut S) -> Result<(), String>,
    ) -> anyhow::Result<Self> {
        let text = checkpoint::read(&path).map_err(|error| error.to_string());
        let decode = |text: &str| (format.decode)(text, format.policy);
        let read = text.and_then(|text| text.as_deref().map(decode).transpose());
        let before = read.map_err(|error| {
            anyhow!(
                "could not restore state from checkpoint: {error}, please drain this node and delete the {kind} manager \
                 checkpoint file {path:?} before restarting Kubelet"
            )
        })?;
        let mut fresh = before.is_none();
        let mut manager = Self { policy, state: before.unwrap_or_default(), path, format };
        if let Some(policy) = &manager.policy {
            let unset = manager.state == S::default();
            check(policy, &mut manager.state).map_err(|error| anyhow!(error))?;
            fresh |= unset;
        }
        if fresh {
            manager.write();
        }
        Ok(manager)
    }

    /// Writes the file. What cannot be written is given away nevertheless.
    pub(super) fn write(&self) {
        let text = (self.format.encode)(self.format.policy, &self.state);
        let written =
            text.and_then(|text| checkpoint::write(&self.path, &text).map_err(|error| error.to_string()));
        if let Err(error) = written {
            tracing::error!(err = error, checkpoint = %self.path.display(), "Failed to save checkpoint");
        }
    }
}

/// Processors.
pub(super) type Cpus = Manager<cpus::Static, cpus::State>;
/// Memory.
pub(super) type Memory = Manager<memory::Static, memory::State>;

impl Cpus {
    pub(super) fn hints(&self, pod: &Value, container: &Value, left: &CpuSet) -> Hints {
        self.policy.as_ref().map(|policy| policy.hints(&self.state, pod, container, left)).unwrap_or_default()
    }

    pub(super) fn pod_hints(&self, pod: &Value) -> Hints {
        self.policy.as_ref().map(|policy| policy.pod_hints(&self.state, pod)).unwrap_or_default()
    }

    /// Forgets pods; true when one of them had something.
    pub(super) fn retain(&mut self, keep: &impl Fn(&str) -> bool) -> bool {
        let gone: Vec<_> = self.state.pods.keys().filter(|uid| !keep(uid)).cloned().collect();
        let any = gone.iter().fold(false, |any, uid| self.state.forget(uid) | any);
        if any {
            self.write();
        }
        any
    }
}

impl Memory {
    pub(super) fn hints(&self, pod: &Value, container: &Value, left: &Reusable) -> Hints {
        self.policy.as_ref().map(|policy| policy.hints(&self.state, pod, container, left)).unwrap_or_default()
    }

    pub(super) fn pod_hints(&self, pod: &Value) -> Hints {
        self.policy.as_ref().map(|policy| policy.pod_hints(&self.state, pod)).unwrap_or_default()
    }

    /// Forgets pods.
    pub(super) fn retain(&mut self, keep: &impl Fn(&str) -> bool) {
        let gone: Vec<_> = self.state.uids().filter(|uid| !keep(uid)).cloned().collect();
        if gone.iter().fold(false, |any, uid| self.state.forget(uid) | any) {
            self.write();
        }
    }

    /// A container starts.
    pub(super) fn started(&mut self, pod: &Value, container: &str) {
        if self.policy.is_some() && self.state.started(pod, container) {
            self.write();
        }
    }
}

/// Everything that is given away.
pub(super) struct Held {
    pub(super) cpus: Cpus,
    pub(super) memory: Memory,
}

impl Held {
    /// Reads both files.
    pub(super) fn load(
        root: &Path,
        cpus: Option<cpus::Static>,
        memory: Option<memory::Static>,
    ) -> anyhow::Result<Self> {
        let of_cpus = Format {
            policy: if cpus.is_some() { "static" } else { "none" },
            decode: cpus::checkpoint::decode,
            encode: cpus::checkpoint::encode,
        };
        let of_memory = Format {
            policy: if memory.is_some() { "Static" } else { "None" },
            decode: memory::checkpoint::decode,
            encode: memory::checkpoint::encode,
        };
        let (cpu_file, memory_file) =
            (root.join(cpus::checkpoint::FILE), root.join(memory::checkpoint::FILE));
        Ok(Self {
            cpus: Manager::load(cpu_file, cpus, "CPU", of_cpus, cpus::Static::check)?,
            memory: Manager::load(memory_file, memory, "memory", of_memory, memory::Static::check)?,
        })
    }
}

/// The policy for processors that is configured; none for the policy none. The error is a sentence.
pub(super) fn cpu_policy(
    settings: &ManagerSettings,
    gates: &FeatureGates,
    machine: &Arc<Machine>,
    kept: Kept,
    topology: Option<&Policy>,
) -> Result<Option<cpus::Static>, String> {
    let given = &settings.cpu_manager_policy_options;
    match settings.cpu_manager_policy.as_str() {
        "none" if given.is_empty() => return Ok(None),
        "none" => {
            let shown: Vec<_> = given.iter().map(|(name, value)| format!("{name}:{value}")).collect();
            return Err(format!(
                "new none policy error: None policy: received unsupported options=map[{}]",
                shown.join(" ")
            ));
        }
        "static" => {}
        other => return Err(format!("unknown policy: {other:?}")),
    }
    if kept.cpu <= 0 {
        return Err("[cpumanager] unable to determine reserved CPU resources for static policy".to_owned());
    }
    let count = usize::try_from(kept.cpu).unwrap_or_default().div_ceil(1000);
    let reserved: CpuSet = settings.reserved_system_cpus.parse()?;
    let make = || {
        let options = CpuOptions::parse(given, gates)?;
        if options.align_by_socket && topology.is_some_and(Policy::guarantees) {
            return Err(
                "Topolgy manager single-numa-node policy is incompatible with CPUManager align-by-socket policy option"
                    .to_owned(),
            );
        }
        cpus::Static::new(machine.clone(), options, count, &reserved)
    };
    make().map(Some).map_err(|error| format!("new static policy error: {error}"))
}

/// The policy for memory that is configured; none for the policy None. The error is a sentence.
pub(super) fn memory_policy(
    settings: &ManagerSettings,
    machine: &Machine,
    kept: Kept,
) -> Result<Option<memory::Static>, String> {
    match settings.memory_manager_policy.as_str() {
        "None" => Ok(None),
        "Static" => {
            let reserved = memory::reserved(machine, &settings.reserved_memory, kept.memory)?;
            memory::Static::new(machine, &reserved).map(Some)
        }
        "BestEffort" => Err("policy \"BestEffort\" is not available for platform \"linux\"".to_owned()),
        other => Err(format!("unknown policy: {other:?}")),
    }
}
