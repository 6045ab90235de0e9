//! Looking at the node and its pods.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::Value;

use super::thresholds::Signal;
use super::tracker::{Observation, Observations};
use super::usage::{ContainerUsage, PodUsage};
use crate::Kubelet;
use crate::cri::labels;
use crate::pods::spec;
use crate::server::node_usage;
use crate::usage::{self, Used};

/// What the node has left, and whether images have a disk of their own.
pub(super) async fn node(kubelet: &Kubelet) -> (Observations, bool) {
    let mut out = Observations::new();
    let capacity = kubelet.facts.memory as i64;
    let working_set = node_usage(kubelet).working_set as i64;
    out.insert(Signal::Memory, Observation { available: capacity - working_set, capacity });
    if kubelet.config.file.cgroups_per_qos {
        let group = kubelet.config.groups.kubepods();
        let used = kubelet.cgroups.usage(&group).working_set as i64;
        if let Some(capacity) = kubelet.cgroups.limits(&group).memory.filter(|limit| *limit > 0) {
            out.insert(Signal::PodsMemory, Observation { available: capacity - used, capacity });
        }
    }
    let numbers =
        processes().map(|(running, capacity)| Observation { available: capacity - running, capacity });
    out.extend(numbers.map(|observed| (Signal::Pids, observed)));
    let root = kubelet.config.root.as_path();
    disk(root, [Signal::NodeDisk, Signal::NodeInodes], &mut out);
    let images = kubelet.runtime.image_fs().await.unwrap_or_default();
    let images = images.map_or_else(|| root.to_owned(), |images| images.mount.into());
    disk(&images, [Signal::ImageDisk, Signal::ImageInodes], &mut out);
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    (out, device(root) != device(&images) && device(&images).is_some())
}

fn disk(path: &Path, [bytes, inodes]: [Signal; 2], out: &mut Observations) {
    let Ok(stat) = nix::sys::statvfs::statvfs(path) else { return };
    let unit = stat.fragment_size() as i64;
    let (available, capacity) = (stat.blocks_available() as i64 * unit, stat.blocks() as i64 * unit);
    out.insert(bytes, Observation { available, capacity });
    // Some file systems have no fixed number of inodes.
    if stat.files() > 0 {
        out.insert(
            inodes,
            Observation { available: stat.files_free() as i64, capacity: stat.files() as i64 },
        );
    }
}

/// How many processes and threads there can be.
pub(crate) fn most_processes() -> Option<i64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
    let most = [number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max")];
    most.into_iter().flatten().min()
}

/// How many processes and threads there are and can be.
pub(crate) fn processes() -> Option<(i64, i64)> {
    let most = most_processes()?;
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let running = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some((running, most))
}

/// What pods use: of disks, which takes its time to measure, when `disks` is true, else of memory and of process numbers.
pub(super) async fn pods(kubelet: &Kubelet, pods: &[Arc<Value>], disks: bool) -> HashMap<String, PodUsage> {
    let mut out = HashMap::new();
    let Ok(stats) = kubelet.runtime.container_stats().await else { return out };
    let mut by_pod: HashMap<String, Vec<ContainerUsage>> = HashMap::new();
    for stats in &stats {
        let labels = stats.attributes.as_ref().map(|attributes| &attributes.labels);
        let uid = labels.and_then(|labels| labels.get(labels::POD_UID));
        if let Some((uid, usage)) = uid.zip(container(stats)) {
            by_pod.entry(uid.clone()).or_default().push(usage);
        }
    }
    for pod in pods {
        let group = match disks {
            true => linux::cgroup::Usage::default(),
            false => kubelet.cgroups.usage(&kubelet.config.groups.pod(pod)),
        };
        let mut usage = PodUsage {
            memory: group.working_set as i64,
            processes: group.pids as i64,
            containers: by_pod.remove(pod.uid()).unwrap_or_default(),
            volumes: Vec::new(),
        };
        if disks {
            measure(kubelet, pod, &mut usage).await;
        }
        if !usage.containers.is_empty() || !usage.volumes.is_empty() {
            out.insert(pod.uid().to_owned(), usage);
        }
    }
    out
}

fn container(stats: &k8s_cri::v1::ContainerStats) -> Option<ContainerUsage> {
    let name = stats.attributes.as_ref()?.labels.get(labels::CONTAINER_NAME)?.clone();
    let layer = stats.writable_layer.as_ref();
    let layer = layer.map(|layer| Used {
        bytes: layer.used_bytes.as_ref().map_or(0, |bytes| bytes.value as i64),
        inodes: layer.inodes_used.as_ref().map_or(0, |inodes| inodes.value as i64),
    });
    let memory = stats.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref());
    Some(ContainerUsage {
        name,
        memory: memory.map(|bytes| bytes.value as i64),
        layer: layer.unwrap_or_default(),
        logs: Used::default(),
    })
}

/// Measures what the pod's logs and volumes take.
pub(crate) async fn measure(kubelet: &Kubelet, pod: &Value, usage: &mut PodUsage) {
    let logs = kubelet.config.pod_logs(pod.namespace(), pod.name(), pod.uid());
    let logs: Vec<_> = usage.containers.iter().map(|container| logs.join(&container.name)).collect();
    let volumes: Vec<_> = local_volumes(pod, &kubelet.config.pod_dir(pod.uid())).collect();
    let measured = tokio::task::spawn_blocking(move || {
        let logs: Vec<_> = logs.iter().map(|path| usage::measure(path)).collect();
        let volumes: Vec<_> = volumes.into_iter().map(|(name, path)| (name, usage::measure(&path))).collect();
        (logs, volumes)
    });
    let Ok((logs, volumes)) = measured.await else { return };
    for (container, logs) in usage.containers.iter_mut().zip(logs) {
        container.logs = logs;
    }
    usage.volumes = volumes;
}

/// The pod's volumes that take room on this node and go with it.
pub(crate) fn local_volumes(pod: &Value, dir: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let volumes = dir.join("volumes");
    spec::volumes(pod).iter().filter_map(move |volume| {
        let plugin = match volume {
            volume if !volume.get("emptyDir").is_null() => "empty-dir",
            volume if !volume.get("configMap").is_null() => "configmap",
            _ => return None,
        };
        let name = volume.str_at(&["name"]);
        Some((name.to_owned(), volumes.join(format!("kubernetes.io~{plugin}")).join(name)))
    })
}
