//! `/stats/summary`, laid out as upstream does, with the figures that are known.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use api::{Value, object};
use http::{Response, StatusCode};
use jiff::Timestamp;
use linux::cgroup::{Pressure, Usage, Waited};
use serve::Body;

use super::{Container, Swapped, containers, machine, node_usage};
use crate::Kubelet;
use crate::eviction::{ContainerUsage, Parts, PodUsage, measure};
use crate::usage::Used;

/// What is asked for, and when.
struct Asked<'k> {
    kubelet: &'k Kubelet,
    now: String,
    instant: Instant,
}

/// The summary.
pub(in crate::server) async fn summary(kubelet: &Kubelet) -> Response<Body> {
    let containers = match containers(kubelet).await {
        Ok(containers) => containers,
        Err(error) => return serve::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let asked = Asked { kubelet, now: api::time::format(Timestamp::now()), instant: Instant::now() };
    let images = kubelet.runtime.image_fs().await.ok().flatten();
    let layers = images.as_ref().map_or(&*kubelet.config.root, |images| Path::new(&images.mount));
    let mut by_pod: HashMap<&str, Vec<&Container>> = HashMap::new();
    for container in &containers {
        by_pod.entry(&container.uid).or_default().push(container);
    }
    let noted: Vec<Arc<Value>> = kubelet.pods.lock().values().map(|known| known.pod.clone()).collect();
    let mut pods = Vec::new();
    for pod in noted {
        if let Some(own) = by_pod.remove(pod.uid()) {
            pods.push(asked.pod(&pod, &own, layers).await);
        }
    }
    let mut node = asked.node();
    if let Some(images) = &images {
        let used = asked.disk(layers, Some(Used { bytes: images.bytes, inodes: images.inodes }));
        node.set(&["runtime"], object!({"imageFs": (used.clone()), "containerFs": (used)}));
    }
    kubelet.rates.clear(asked.instant);
    let summary = object!({"node": (node), "pods": (Value::Array(pods))});
    serve::json(StatusCode::OK, summary.to_json())
}

impl Asked<'_> {
    fn node(&self) -> Value {
        let kubelet = self.kubelet;
        let usage = node_usage(kubelet);
        let (cpu, memory) = self.figures("", &usage, Some(kubelet.facts.memory));
        let mut node = object!({
            "nodeName": (kubelet.config.node_name.as_str()),
            "systemContainers": (self.system()),
            "cpu": (cpu),
            "memory": (memory),
            "fs": (self.disk(&kubelet.config.root, None)),
            "swap": (Swapped::of_node(kubelet, &usage).shown(&self.now)),
        });
        self.add_pressures(&mut node, "");
        for (field, figures) in [
            ("startTime", machine::booted().map_or(Value::Null, |booted| api::time::format(booted).into())),
            ("network", machine::network(&self.now)),
            ("rlimit", machine::processes(&self.now)),
        ] {
            if !figures.is_null() {
                node.set(&[field], figures);
            }
        }
        node
    }

    /// What a group or container uses of the processors and of memory; its name tells it from others.
    fn figures(&self, name: &str, usage: &Usage, limit: Option<u64>) -> (Value, Value) {
        let mut cpu = object!({"time": (self.now.as_str())});
        if let Some(rate) = self.kubelet.rates.of(name, usage.cpu_nanoseconds, self.instant) {
            cpu.set(&["usageNanoCores"], rate as i64);
        }
        cpu.set(&["usageCoreNanoSeconds"], usage.cpu_nanoseconds as i64);
        let mut memory = object!({
            "time": (self.now.as_str()),
            "usageBytes": (usage.memory as i64),
            "workingSetBytes": (usage.working_set as i64),
            "rssBytes": (usage.rss as i64),
            "pageFaults": (usage.page_faults as i64),
            "majorPageFaults": (usage.major_page_faults as i64),
        });
        if let Some(limit) = limit {
            memory.set(&["availableBytes"], limit.saturating_sub(usage.working_set) as i64);
        }
        (cpu, memory)
    }

    /// Adds how long a group has waited for each resource, where the kernel tells.
    fn add_pressures(&self, shown: &mut Value, group: &str) {
        for resource in ["cpu", "memory", "io"] {
            let Some(pressure) = self.kubelet.cgroups.pressure(group, resource) else { continue };
            if resource == "io" {
                shown.set(&["io", "time"], self.now.as_str());
            }
            shown.set(&[resource, "psi"], psi(&pressure));
        }
    }

    /// What a disk has, and what is used of it: by everybody, unless it is said by whom.
    fn disk(&self, path: &Path, used: Option<Used>) -> Value {
        let Ok(stat) = nix::sys::statvfs::statvfs(path) else { return Value::Null };
        let unit = stat.fragment_size() as i64;
        let all = stat.blocks() as i64 * unit;
        let used = used.unwrap_or(Used {
            bytes: all - stat.blocks_free() as i64 * unit,
            inodes: (stat.files() - stat.files_free()) as i64,
        });
        object!({
            "time": (self.now.as_str()),
            "availableBytes": (stat.blocks_available() as i64 * unit),
            "capacityBytes": (all),
            "usedBytes": (used.bytes),
            "inodesFree": (stat.files_free() as i64),
            "inodes": (stat.files() as i64),
            "inodesUsed": (used.inodes),
        })
    }

    async fn pod(&self, pod: &Value, own: &[&Container], layers: &Path) -> Value {
        let kubelet = self.kubelet;
        let used = of_disks(kubelet, pod, own).await;
        let logs = Path::new(&kubelet.config.file.pod_logs_dir);
        let shown = own.iter().zip(&used.containers);
        let shown = shown.map(|(container, used)| {
            let mut shown = self.container(pod, container);
            shown.set(&["rootfs"], self.disk(layers, Some(used.layer)));
            shown.set(&["logs"], self.disk(logs, Some(used.logs)));
            shown
        });
        let group = kubelet.config.groups.pod(pod);
        let usage = kubelet.cgroups.usage(&group);
        let limit = kubelet.cgroups.limits(&group).memory.and_then(|limit| u64::try_from(limit).ok());
        let (cpu, memory) = self.figures(&group, &usage, limit);
        let swap = Swapped::new(usage.swap, kubelet.cgroups.swap_limit(&group));
        let first = own.iter().map(|container| container.started).min().unwrap_or_default();
        let all = used.disk(pod, Parts { layers: true, rest: true });
        let mut shown = object!({
            "podRef": {"name": (pod.name()), "namespace": (pod.namespace()), "uid": (pod.uid())},
            "startTime": (start_time(first)),
            "containers": (Value::Array(shown.collect())),
            "cpu": (cpu),
            "memory": (memory),
            "volume": (self.volumes(pod, &used.volumes).await),
            "ephemeral-storage": (self.disk(&kubelet.config.root, Some(all))),
            "swap": (swap.shown(&self.now)),
        });
        self.add_pressures(&mut shown, &group);
        shown
    }

    fn container(&self, pod: &Value, container: &Container) -> Value {
        let usage = Usage {
            cpu_nanoseconds: container.cpu_nanoseconds,
            memory: container.memory,
            working_set: container.working_set,
            rss: container.rss,
            ..Usage::default()
        };
        let group = self.kubelet.config.groups.container(&self.kubelet.config.groups.pod(pod), &container.id);
        let limit = self.kubelet.cgroups.limits(&group).memory.and_then(|limit| u64::try_from(limit).ok());
        let (cpu, memory) = self.figures(&container.id, &usage, limit);
        let swap = Swapped::of_container(self.kubelet, container).unwrap_or(Swapped::new(0, Some(0)));
        let mut shown = object!({
            "name": (container.name.as_str()),
            "startTime": (start_time(container.started)),
            "cpu": (cpu),
            "memory": (memory),
            "swap": (swap.shown(&self.now)),
        });
        self.add_pressures(&mut shown, &group);
        shown
    }

    /// What the node's own groups use, those of them that are known.
    fn system(&self) -> Value {
        let kubelet = self.kubelet;
        let config = &kubelet.config;
        let settings = &config.file.reserved;
        let own = match settings.kubelet_cgroups.as_str() {
            "" => kubelet.cgroups.own().unwrap_or_default(),
            group => group.to_owned(),
        };
        let pods = if config.file.cgroups_per_qos { config.groups.kubepods() } else { String::new() };
        let all = [
            ("kubelet", own),
            ("runtime", config.runtime_group.clone()),
            ("misc", settings.system_cgroups.clone()),
            ("pods", pods),
        ];
        let known = all.into_iter().filter(|(_, group)| !group.is_empty() && kubelet.cgroups.exists(group));
        let shown = known.map(|(name, group)| {
            let usage = kubelet.cgroups.usage(&group);
            let limit = kubelet.cgroups.limits(&group).memory.and_then(|limit| u64::try_from(limit).ok());
            let (cpu, memory) = self.figures(&group, &usage, limit);
            let swap = Swapped::new(usage.swap, kubelet.cgroups.swap_limit(&group));
            let started = match name {
                "kubelet" => Some(kubelet.started),
                _ => kubelet.cgroups.since(&group).and_then(|since| Timestamp::try_from(since).ok()),
            };
            let mut shown = object!({
                "name": name,
                "startTime": (started.map_or(Value::Null, |started| api::time::format(started).into())),
                "cpu": (cpu),
                "memory": (memory),
                "swap": (swap.shown(&self.now)),
            });
            self.add_pressures(&mut shown, &group);
            shown
        });
        Value::Array(shown.collect())
    }

    /// The volumes of a pod, those on this node and those of drivers, by their names in its spec.
    async fn volumes(&self, pod: &Value, local: &[(String, Used)]) -> Value {
        let kubelet = self.kubelet;
        let dir = kubelet.config.pod_dir(pod.uid());
        let mut shown = Vec::new();
        for (name, path) in crate::eviction::local_volumes(pod, &dir) {
            let used = local.iter().find(|(known, _)| *known == name).map(|(_, used)| *used);
            let mut figures = self.disk(&path, used);
            if !figures.is_null() {
                figures.set(&["name"], name);
                shown.push(figures);
            }
        }
        for (name, mut figures) in kubelet.csi.stats(pod.uid(), &self.now).await {
            let known = kubelet.volumes.names(pod.uid(), &name);
            let (name, claim) = known.unwrap_or((name, String::new()));
            figures.set(&["name"], name);
            if !claim.is_empty() {
                figures.set(&["pvcRef"], object!({"name": claim, "namespace": (pod.namespace())}));
            }
            shown.push(figures);
        }
        Value::Array(shown)
    }
}

/// What the containers and volumes of a pod use of disks; the containers in their order.
async fn of_disks(kubelet: &Kubelet, pod: &Value, own: &[&Container]) -> PodUsage {
    let containers = own.iter().map(|container| ContainerUsage {
        name: container.name.clone(),
        layer: container.layer,
        ..ContainerUsage::default()
    });
    let mut used = PodUsage { containers: containers.collect(), ..PodUsage::default() };
    measure(kubelet, pod, &mut used).await;
    used
}

/// The API counts nanoseconds.
fn psi(pressure: &Pressure) -> Value {
    let data = |waited: &Waited| {
        let [avg10, avg60, avg300] = waited.averages;
        let total = i64::try_from(waited.total.saturating_mul(1000)).unwrap_or(i64::MAX);
        object!({"total": total, "avg10": avg10, "avg60": avg60, "avg300": avg300})
    };
    object!({"full": (data(&pressure.full)), "some": (data(&pressure.some))})
}

fn start_time(nanoseconds: i64) -> Value {
    Timestamp::from_nanosecond(i128::from(nanoseconds))
        .map_or(Value::Null, |time| api::time::format(time).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_shown_in_nanoseconds_and_percent() {
        let waited = |total| Waited { total, averages: [1.5, 0.25, 0.0] };
        let shown = psi(&Pressure { full: waited(7), some: waited(12) });
        let part = |total: i64| object!({"total": total, "avg10": 1.5, "avg60": 0.25, "avg300": 0.0});
        assert_eq!(shown, object!({"full": (part(7000)), "some": (part(12_000))}));
    }
}
