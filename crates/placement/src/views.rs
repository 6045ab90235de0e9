//! What the predicates look at of pods and nodes.

use api::Value;
use compact_str::CompactString;

use crate::affinity::NodeAffinity;
use crate::ports::HostPorts;
use crate::resources::{Resources, pod_requests};
use crate::taints::{Taint, Toleration};

/// Labels, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<(CompactString, CompactString)>);

impl Labels {
    /// The labels of an object.
    pub fn of(object: &Value) -> Self {
        let labels = object.at(&["metadata", "labels"]).as_object().into_iter().flat_map(api::Map::iter);
        let mut list: Vec<_> =
            labels.map(|(k, v)| (k.into(), v.as_str().unwrap_or_default().into())).collect();
        list.sort();
        Self(list)
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }
}

/// What the predicates look at of a pod.
#[derive(Clone, Debug, Default)]
pub struct PodView {
    /// The node it is on, or asks for by name.
    pub node_name: CompactString,
    /// What it asks for.
    pub requests: Resources,
    /// Its tolerations.
    pub tolerations: Vec<Toleration>,
    /// The nodes it asks for.
    pub affinity: NodeAffinity,
    /// The ports of the node it asks for.
    pub ports: HostPorts,
}

impl PodView {
    /// The view of a pod.
    pub fn of(pod: &Value) -> Self {
        let spec = pod.get("spec");
        Self {
            node_name: spec.str_at(&["nodeName"]).into(),
            requests: pod_requests(pod),
            tolerations: spec.array_at(&["tolerations"]).iter().map(Toleration::of).collect(),
            affinity: NodeAffinity::of(spec),
            ports: HostPorts::of(spec),
        }
    }
}

/// What the predicates look at of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Name.
    pub name: CompactString,
    /// Labels.
    pub labels: Labels,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Cordoned.
    pub unschedulable: bool,
    /// What pods may use.
    pub allocatable: Resources,
}

impl NodeView {
    /// The view of a node.
    pub fn of(node: &Value) -> Self {
        Self {
            name: node.name().into(),
            labels: Labels::of(node),
            taints: node.array_at(&["spec", "taints"]).iter().filter_map(Taint::of).collect(),
            unschedulable: node.at(&["spec", "unschedulable"]).as_bool() == Some(true),
            allocatable: Resources::of(node.at(&["status", "allocatable"])),
        }
    }
}
