//! Putting other resources into effect, one step after the other.

use std::collections::HashMap;
use std::sync::Arc;

use api::Value;
use k8s_cri::v1 as cri;
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

/// The pod's control group, with the limits that it has by now.
struct Group {
    path: String,
    limits: Limits,
}

/// Limits with those of `over` in place of their own.
fn merged(limits: &Limits, over: &Limits) -> Limits {
    Limits {
        cpu_shares: over.cpu_shares.or(limits.cpu_shares),
        cpu_quota_us: over.cpu_quota_us.or(limits.cpu_quota_us),
        cpu_period_us: over.cpu_period_us.or(limits.cpu_period_us),
        memory: over.memory.or(limits.memory),
        pids: over.pids.or(limits.pids),
    }
}

/// What a sandbox needs itself, and what of the group's limits is left for its containers.
fn of_sandbox(
    pod: &Value,
    limits: &Limits,
    period: u64,
) -> (cri::LinuxContainerResources, cri::LinuxContainerResources) {
    let need = |resource: &str| resources::overhead(pod, resource);
    let (cpu, memory) = (need("cpu"), need("memory"));
    let mut overhead = cri::LinuxContainerResources { memory_limit_in_bytes: memory, ..Default::default() };
    if cpu > 0 {
        overhead.cpu_shares = resources::shares(cpu) as i64;
        overhead.cpu_quota = resources::quota(cpu, period);
        overhead.cpu_period = period as i64;
    }
    let less = |amount: i64, overhead: i64| if amount > 0 { (amount - overhead).max(0) } else { amount };
    let rest = cri::LinuxContainerResources {
        cpu_shares: less(limits.cpu_shares.unwrap_or_default() as i64, overhead.cpu_shares),
        cpu_quota: less(limits.cpu_quota_us.unwrap_or_default(), overhead.cpu_quota),
        cpu_period: limits.cpu_period_us.unwrap_or_default() as i64,
        memory_limit_in_bytes: less(limits.memory.unwrap_or_default(), memory),
        ..Default::default()
    };
    (overhead, rest)
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
        let rationed = file.cpu_cfs_quota && !self.kubelet.managers.has_own_cpus(pod.uid());
        let wanted = resources::pod_limits(pod, period, rationed, file.pod_pids_limit);
        let group = self.kubelet.config.groups.pod(pod);
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
        let mut group = Group { path: group, limits: have };
        if !changes.memory.is_empty() || everything {
            // A limit is never lifted.
            let limit = wanted.memory.or(have.memory);
            let set = Limits { memory: limit, ..Limits::default() };
            let grows = ordered(limit) > ordered(have.memory);
            let shrinks = ordered(limit) < ordered(have.memory);
            self.set_group(pod, &mut group, ("memory", &set), grows).await?;
            self.update_all(pod, Resource::Memory, &changes.memory, &mut current).await?;
            self.set_group(pod, &mut group, ("memory", &set), shrinks).await?;
        }
        if !changes.cpu.is_empty() || everything {
            let quota = wanted.cpu_quota_us.or(have.cpu_quota_us);
            let limit =
                Limits { cpu_quota_us: quota, cpu_period_us: wanted.cpu_period_us, ..Limits::default() };
            let weight = Limits { cpu_shares: wanted.cpu_shares, ..Limits::default() };
            let (old, new) = (ordered(have.cpu_quota_us), ordered(quota));
            self.set_group(pod, &mut group, ("cpu", &limit), new > old).await?;
            self.set_group(pod, &mut group, ("cpu", &weight), wanted.cpu_shares > have.cpu_shares).await?;
            self.update_all(pod, Resource::Cpu, &changes.cpu, &mut current).await?;
            self.set_group(pod, &mut group, ("cpu", &weight), wanted.cpu_shares < have.cpu_shares).await?;
            self.set_group(pod, &mut group, ("cpu", &limit), new < old).await?;
        }
        if changes.whole {
            self.kubelet.allocations.actuate_pod(pod);
            self.kubelet.allocations.save().await;
        }
        Ok(())
    }

    /// Changes the pod's control group. The runtime is told before, and may refuse.
    async fn set_group(
        &self,
        pod: &Value,
        group: &mut Group,
        (resource, limits): (&str, &Limits),
        now: bool,
    ) -> Result<(), String> {
        if !now || !self.kubelet.config.file.cgroups_per_qos {
            return Ok(());
        }
        let merged = merged(&group.limits, limits);
        self.tell_runtime(pod, &merged).await.map_err(|why| {
            format!("failed to notify runtime for UpdatePodSandboxResources (resource={resource}); resize rejected: {why}")
        })?;
        if let Err(error) = self.kubelet.cgroups.update(&group.path, limits).await {
            if let Err(error) = self.tell_runtime(pod, &group.limits).await {
                tracing::error!(pod = %spec::describe(pod), err = error, "Cannot take back what the runtime was told");
            }
            return Err(error.to_string());
        }
        group.limits = merged;
        Ok(())
    }

    async fn tell_runtime(&self, pod: &Value, limits: &Limits) -> Result<(), String> {
        let Some(sandbox) = self.observed.sandbox(pod) else { return Ok(()) };
        let file = &self.kubelet.config.file;
        let period = file.cpu_cfs_quota_period.0.as_micros() as u64;
        let (overhead, resources) = of_sandbox(pod, limits, period);
        let told = self.kubelet.runtime.update_sandbox(&sandbox.id, overhead, resources).await;
        told.map_err(|error| {
            format!("updatePodSandboxResources failed for sanboxID {:?}: {error}", sandbox.id)
        })
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
            huge_pages: &self.kubelet.capacity.huge_pages,
            swap: self.kubelet.swap,
        };
        let mut linux = container::linux_resources(pod, &definition, &machine);
        self.kubelet.managers.pin(pod.uid(), &update.name, &mut linux);
        self.kubelet.runtime.update_container(&update.id, linux).await.map_err(|error| error.to_string())?;
        self.kubelet.allocations.actuate(pod, &update.name, resources);
        self.kubelet.allocations.save().await;
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

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn the_runtime_is_told_what_containers_have_besides_the_overhead() {
        let limits = Limits { cpu_shares: Some(1024), memory: Some(100 << 20), ..Limits::default() };
        let quota = Limits { cpu_quota_us: Some(100_000), cpu_period_us: Some(100_000), ..Limits::default() };
        let all = merged(&limits, &quota);
        let pod = object!({"spec": {"overhead": {"cpu": "250m", "memory": "10Mi"}}});
        let (overhead, rest) = of_sandbox(&pod, &all, 100_000);
        assert_eq!(
            (overhead.cpu_shares, overhead.cpu_quota, overhead.memory_limit_in_bytes),
            (256, 25_000, 10 << 20)
        );
        assert_eq!((rest.cpu_shares, rest.cpu_quota, rest.memory_limit_in_bytes), (768, 75_000, 90 << 20));
        let (overhead, rest) = of_sandbox(&Value::object(), &limits, 100_000);
        assert_eq!(overhead, cri::LinuxContainerResources::default());
        assert_eq!((rest.cpu_shares, rest.cpu_quota), (1024, 0));
    }
}
