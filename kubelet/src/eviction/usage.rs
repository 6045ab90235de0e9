//! What pods use, for those who rank them and for their own limits.

use api::Value;

use crate::usage::Used;

/// What one container uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ContainerUsage {
    pub name: String,
    /// Bytes in its working set, if the runtime knows.
    pub memory: Option<i64>,
    /// Its own layer.
    pub layer: Used,
    /// Its logs.
    pub logs: Used,
}

/// What a pod uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PodUsage {
    /// Bytes in its working set.
    pub memory: i64,
    /// Processes.
    pub processes: i64,
    pub containers: Vec<ContainerUsage>,
    /// Volumes on this node, by name.
    pub volumes: Vec<(String, Used)>,
}

/// Which parts of a pod's use of disks count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    pub layers: bool,
    /// Logs and volumes.
    pub rest: bool,
}

impl PodUsage {
    /// What the pod uses of disks.
    pub(crate) fn disk(&self, pod: &Value, parts: Parts) -> Used {
        let mut sum = Used::default();
        for container in &self.containers {
            if parts.layers {
                sum += container.layer;
            }
            if parts.rest {
                sum += container.logs;
            }
        }
        if parts.rest {
            let local = self.volumes.iter().filter(|(name, _)| is_on_disk(pod, name));
            local.for_each(|(_, used)| sum += *used);
        }
        sum
    }
}

/// Whether a volume of the pod goes with it and takes room on the node's disk.
fn is_on_disk(pod: &Value, name: &str) -> bool {
    let mut volumes = pod.array_at(&["spec", "volumes"]).iter();
    volumes.find(|volume| volume.str_at(&["name"]) == name).is_some_and(|volume| {
        !volume.get("configMap").is_null()
            || !volume.get("emptyDir").is_null() && volume.str_at(&["emptyDir", "medium"]).is_empty()
    })
}
