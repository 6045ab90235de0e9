//! Giving a new pod its devices, processors and memory, near each other as the policy has it.

use std::collections::BTreeSet;
use std::time::Instant;

use api::Value;

use super::cpuset::CpuSet;
use super::metrics::{CACHES, CORES};
use super::topology::{Hint, Mask, Policy, Scope};
use super::{Managers, Refusal, memory};
use crate::devices::{Devices, Reusable};
use crate::pods::spec;

/// What init containers leave to those that come after them, while their pod is looked at.
#[derive(Default)]
struct Left {
    devices: Reusable,
    cpus: CpuSet,
    memory: memory::Reusable,
}

/// A pod that wants to be let in.
pub(crate) struct Request<'a> {
    pub(crate) pod: &'a Value,
    /// Whether a container runs already.
    pub(crate) running: &'a (dyn Fn(&str) -> bool + Sync),
    /// Whether the pod was let in by a kubelet before this one.
    pub(crate) known: bool,
}

/// Where nothing is known of what would be near.
const ANYWHERE: Hint = Hint { affinity: None, preferred: false };

impl Managers {
    /// Gives all containers of a pod what is to be their own. The error is the reason and message with which the pod is
    /// turned away; what it was given until then it has until it is forgotten.
    pub(crate) async fn admit(
        &self,
        devices: &Devices,
        request: Request<'_>,
    ) -> Result<(), (String, String)> {
        self.metrics.admissions.inc();
        let began = Instant::now();
        // What is near is found out from what others have: one pod at a time.
        let _turn = if self.is_idle() { None } else { Some(self.turn.lock().await) };
        let admitted = match &self.topology {
            // What runs stays where it is.
            Some(_) if request.known && self.knows(request.pod.uid()) => {
                self.give_all(devices, &request, ANYWHERE).await
            }
            None => self.give_all(devices, &request, ANYWHERE).await,
            Some(policy) => {
                let together = self.give_together(policy, devices, &request).await;
                if together.is_err() {
                    self.metrics.refusals.inc();
                }
                together
            }
        };
        self.metrics.durations.observe(began.elapsed().as_secs_f64() * 1000.0);
        admitted.map_err(Refusal::into_words)
    }

    /// Gives all containers what is to be their own, from the same nodes.
    async fn give_all(&self, devices: &Devices, request: &Request<'_>, hint: Hint) -> Result<(), Refusal> {
        if self.is_idle() && !devices.concerns(request.pod) {
            return Ok(());
        }
        let mut left = Left::default();
        for container in spec::all_containers(request.pod) {
            self.give(devices, request, container, hint, &mut left).await?;
        }
        Ok(())
    }

    async fn give_together(
        &self,
        policy: &Policy,
        devices: &Devices,
        request: &Request<'_>,
    ) -> Result<(), Refusal> {
        let pod = request.pod;
        let note = |scope: &str, together: bool| {
            if policy.guarantees() {
                self.metrics.note([scope, "numa_node"], together);
            }
        };
        if policy.scope == Scope::Pod {
            let hints = {
                let held = self.held.lock();
                let (cpus, memory) = (held.cpus.pod_hints(pod), held.memory.pod_hints(pod));
                [devices.pod_hints(pod, &self.nodes), cpus, memory]
            };
            let Some(hint) = policy.decide(&hints) else {
                note("pod", false);
                return Err(Refusal::Locality);
            };
            self.give_all(devices, request, hint).await?;
            note("pod", true);
            return Ok(());
        }
        let mut left = Left::default();
        for container in spec::all_containers(pod) {
            let hints = {
                let held = self.held.lock();
                let cpus = held.cpus.hints(pod, container, &left.cpus);
                let memory = held.memory.hints(pod, container, &left.memory);
                [devices.hints(pod, container, &left.devices, &self.nodes), cpus, memory]
            };
            let Some(hint) = policy.decide(&hints) else {
                note("container", false);
                return Err(Refusal::Locality);
            };
            self.give(devices, request, container, hint, &mut left).await?;
            note("container", true);
        }
        Ok(())
    }

    /// Gives one container what is to be its own.
    async fn give(
        &self,
        devices: &Devices,
        request: &Request<'_>,
        container: &Value,
        hint: Hint,
        left: &mut Left,
    ) -> Result<(), Refusal> {
        let Request { pod, running, known } = *request;
        let nodes =
            |mask: Mask| mask.nodes().filter_map(|node| i64::try_from(node).ok()).collect::<BTreeSet<_>>();
        let runs = running(container.str_at(&["name"]));
        let given = devices.allocate(pod, container, runs, &mut left.devices, hint.affinity.map(nodes)).await;
        given.map_err(Refusal::Unexpected)?;
        if self.is_idle() {
            return Ok(());
        }
        self.give_cpus(pod, container, hint, &mut left.cpus)?;
        self.give_memory(pod, container, known, hint, &mut left.memory)
    }

    fn give_cpus(
        &self,
        pod: &Value,
        container: &Value,
        hint: Hint,
        left: &mut CpuSet,
    ) -> Result<(), Refusal> {
        let mut held = self.held.lock();
        let held = &mut held.cpus;
        let Some(policy) = held.policy.clone() else { return Ok(()) };
        let wants = super::cpus::wanted(pod, container) > 0;
        if !wants {
            return Ok(());
        }
        self.metrics.cpu_requests.inc();
        let given = policy.allocate(&mut held.state, pod, container, hint.affinity, left);
        if policy.options.full_pcpus_only {
            self.metrics.note(CORES, given.is_ok());
        }
        match given {
            Ok(Some(cpus)) => {
                if policy.share_a_cache(&cpus) {
                    self.metrics.note(CACHES, true);
                }
                self.metrics.show(&policy, &held.state);
                held.write();
                self.changed.notify_one();
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(refusal) => {
                self.metrics.cpu_errors.inc();
                Err(refusal)
            }
        }
    }

    fn give_memory(
        &self,
        pod: &Value,
        container: &Value,
        known: bool,
        hint: Hint,
        left: &mut memory::Reusable,
    ) -> Result<(), Refusal> {
        let mut held = self.held.lock();
        let held = &mut held.memory;
        let Some(policy) = held.policy.clone() else { return Ok(()) };
        // The memory of init containers that have ended was taken back, and is not needed again.
        if known && held.state.knows(pod.uid()) {
            return Ok(());
        }
        if spec::qos(pod) == "Guaranteed" && !super::has_own_resources(pod) {
            self.metrics.memory_requests.inc();
        }
        match policy.allocate(&mut held.state, pod, container, hint, left) {
            Ok(new) => {
                if new {
                    held.write();
                }
                Ok(())
            }
            Err(why) => {
                self.metrics.memory_errors.inc();
                Err(Refusal::Unexpected(why))
            }
        }
    }
}
