//! Putting other resources into effect, one step after the other.

use std::collections::HashMap;
use std::sync::Arc;

use api::Value;
use linux::cgroup::Limits;

use super::{Amounts, Changes, Update};
use crate::pods::actor::Actor;
use crate::pods::container::{self, Machine};
use crate::pods::{resources, spec};

/// What is changed at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resource {
    Memory,
    Cpu,
}

/// A limit in an order in which none is the most.
fn ordered(limit: Option<i64>) -> i64 {
    limit.filter(|limit| *limit >= 0).unwrap_or(i64::MAX)
}

impl Actor {
    /// Makes the changes: the pod's control group grows before its containers and shrinks after them. Stops at the first
    /// step that fails; the error is a sentence, and the next round goes on from there.
    pub(in crate::pods) async fn actuate(
        &mut self,
        pod: &Arc<Value>,
        changes: &Changes,
    ) -> Result<(), String> {
        let file = &self.kubelet.config.file;
        let period = file.cpu_cfs_quota_period.0.as_micros() as u64;
        let wanted = resources::pod_limits(pod, period, file.cpu_cfs_quota, file.pod_pids_limit);
        let group = resources::cgroup(&file.cgroup_root, pod);
        let have = match file.cgroups_per_qos {
            true => self.kubelet.cgroups.limits(&group),
            false => Limits::default(),
        };
        let unreadable =
            |what: &str| format!("unable to get pod cgroup {what} config for pod {:?}", spec::describe(pod));
        if file.cgroups_per_qos && have.memory.is_none() {
            return Err(unreadable("memory"));
        }
        if file.cgroups_per_qos && have.cpu_shares.is_none() {
            return Err(unreadable("cpu"));
        }
        let everything = changes.restarts || changes.whole;
        if !changes.memory.is_empty() || changes.restarts {
            self.check_memory(&group, &have, &wanted, &changes.memory).await?;
        }
        let mut current = HashMap::new();
        if !changes.memory.is_empty() || everything {
            // A limit is never lifted.
            let limit = wanted.memory.or(have.memory);
            let set = Limits { memory: limit, ..Limits::default() };
            let grows = ordered(limit) > ordered(have.memory);
            let shrinks = ordered(limit) < ordered(have.memory);
            self.set_group(&group, &set, grows)?;
            self.update_all(pod, Resource::Memory, &changes.memory, &mut current).await?;
            self.set_group(&group, &set, shrinks)?;
        }
        if !changes.cpu.is_empty() || everything {
            let quota = wanted.cpu_quota_us.or(have.cpu_quota_us);
            let limit =
                Limits { cpu_quota_us: quota, cpu_period_us: wanted.cpu_period_us, ..Limits::default() };
            let weight = Limits { cpu_shares: wanted.cpu_shares, ..Limits::default() };
            let (old, new) = (ordered(have.cpu_quota_us), ordered(quota));
            self.set_group(&group, &limit, new > old)?;
            self.set_group(&group, &weight, wanted.cpu_shares > have.cpu_shares)?;
            self.update_all(pod, Resource::Cpu, &changes.cpu, &mut current).await?;
            self.set_group(&group, &weight, wanted.cpu_shares < have.cpu_shares)?;
            self.set_group(&group, &limit, new < old)?;
        }
        if changes.whole {
            self.kubelet.allocations.actuate_pod(pod);
        }
        Ok(())
    }

    fn set_group(&self, group: &str, limits: &Limits, now: bool) -> Result<(), String> {
        if !now || !self.kubelet.config.file.cgroups_per_qos {
            return Ok(());
        }
        self.kubelet.cgroups.update(group, limits).map_err(|error| error.to_string())
    }

    async fn update_all(
        &self,
        pod: &Arc<Value>,
        resource: Resource,
        updates: &[Update],
        current: &mut HashMap<String, Amounts>,
    ) -> Result<(), String> {
        for update in updates {
            let amounts = current.entry(update.id.clone()).or_insert(update.current);
            // What of the other resource is in effect stays as it is.
            match resource {
                Resource::Memory => {
                    amounts.memory_limit = update.desired.memory_limit;
                    amounts.memory_request = update.desired.memory_request;
                }
                Resource::Cpu => {
                    amounts.cpu_limit = update.desired.cpu_limit;
                    amounts.cpu_request = update.desired.cpu_request;
                }
            }
            self.update(pod, update, amounts.to_requirements()).await?;
        }
        Ok(())
    }

    async fn update(&self, pod: &Arc<Value>, update: &Update, resources: Value) -> Result<(), String> {
        let Some(definition) = spec::container(pod, &update.name) else { return Ok(()) };
        let mut definition = definition.clone();
        definition.set(&["resources"], resources.clone());
        let machine = Machine {
            config: &self.kubelet.config,
            memory: self.kubelet.facts.memory as i64,
            cgroup_v2: self.kubelet.cgroups.is_v2(),
        };
        let linux = container::linux_resources(pod, &definition, &machine);
        self.kubelet.runtime.update_container(&update.id, linux).await.map_err(|error| error.to_string())?;
        self.kubelet.allocations.actuate(pod, &update.name, resources);
        Ok(())
    }

    /// Memory that is in use cannot be taken away.
    async fn check_memory(
        &self,
        group: &str,
        have: &Limits,
        wanted: &Limits,
        updates: &[Update],
    ) -> Result<(), String> {
        let mut errors = Vec::new();
        if let Some(limit) = wanted.memory.filter(|_| ordered(wanted.memory) < ordered(have.memory)) {
            let usage = self.kubelet.cgroups.usage(group).memory;
            if usage >= limit.unsigned_abs() {
                errors.push(format!(
                    "attempting to set pod memory limit ({limit}) below current usage ({usage})"
                ));
            }
        }
        let limit = |amounts: &Amounts| Some(amounts.memory_limit).filter(|limit| *limit > 0);
        for update in updates {
            let Some(desired) = limit(&update.desired).filter(|new| *new < ordered(limit(&update.current)))
            else {
                continue;
            };
            let name = &update.name;
            match self.kubelet.runtime.container_memory(&update.id).await {
                Ok(Some(usage)) if usage < desired.unsigned_abs() => {}
                Ok(Some(usage)) => errors.push(format!(
                    "attempting to set container {name:?} memory limit ({desired}) below current usage ({usage})"
                )),
                Ok(None) | Err(_) => errors.push(format!("missing container {name:?} memory usage")),
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            several => Err(format!("cannot decrease memory limits: [{}]", several.join(", "))),
        }
    }
}
