//! May this pod run on that node? The predicates that the scheduler, the DaemonSet controller and the kubelet's admission must
//! agree on, over small views of pods and nodes.
//!
//! Views are made once from object values and hold nothing else. What needs to know of other pods or of volumes (affinity
//! between pods, spreading, claims) is the scheduler's own. Reasons read as upstream's.

mod affinity;
mod ports;
mod resources;
mod taints;
mod views;

pub use affinity::{NodeAffinity, Term};
pub use ports::{HostPort, HostPorts};
pub use resources::{Resources, pod_requests};
pub use taints::{Effect, Taint, Toleration, untolerated};
pub use views::{Labels, NodeView, PodView};

/// Why a pod may not run on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The node is cordoned.
    Unschedulable,
    /// The pod names another node.
    NodeName,
    /// A taint is not tolerated.
    Taint,
    /// The node's labels are not those the pod asks for.
    Affinity,
    /// A host port is taken.
    Ports,
    /// There is no room for another pod.
    TooManyPods,
    /// Too little is left of a resource.
    Insufficient(String),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::Unschedulable => f.write_str("node(s) were unschedulable"),
            Reason::NodeName => f.write_str("node(s) didn't match the requested node name"),
            Reason::Taint => f.write_str("node(s) had untolerated taint(s)"),
            Reason::Affinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Reason::Ports => f.write_str("node(s) didn't have free ports for the requested pod ports"),
            Reason::TooManyPods => f.write_str("Too many pods"),
            Reason::Insufficient(resource) => write!(f, "Insufficient {resource}"),
        }
    }
}

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Whether the node takes new pods at all, and this one.
pub fn schedulable(pod: &PodView, node: &NodeView) -> Result<(), Reason> {
    let cordon = Taint {
        key: UNSCHEDULABLE.into(),
        value: compact_str::CompactString::default(),
        effect: Effect::NoSchedule,
    };
    let tolerated = pod.tolerations.iter().any(|t| t.tolerates(&cordon));
    if node.unschedulable && !tolerated { Err(Reason::Unschedulable) } else { Ok(()) }
}

/// Whether the pod's selector and required affinity match the node.
pub fn matches_affinity(pod: &PodView, node: &NodeView) -> Result<(), Reason> {
    if pod.affinity.matches(node) { Ok(()) } else { Err(Reason::Affinity) }
}

/// Whether the pod tolerates all taints of the node that keep pods away.
pub fn tolerates(pod: &PodView, node: &NodeView) -> Result<(), Reason> {
    let hard = |t: &&Taint| t.effect != Effect::PreferNoSchedule;
    let taints = node.taints.iter().filter(hard);
    if untolerated(taints, &pod.tolerations).is_some() { Err(Reason::Taint) } else { Ok(()) }
}

/// What the node is short of for the pod, given what is used already by how many pods.
pub fn fits(pod: &PodView, node: &NodeView, used: &Resources, pods: usize) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if i64::try_from(pods).unwrap_or(i64::MAX) >= node.allocatable.pods {
        reasons.push(Reason::TooManyPods);
    }
    reasons.extend(pod.requests.lacking(&node.allocatable, used).map(Reason::Insufficient));
    reasons
}

/// Everything but room: the predicates about pod and node alone, in upstream's order; the first that fails counts.
pub fn suits(pod: &PodView, node: &NodeView) -> Result<(), Reason> {
    schedulable(pod, node)?;
    if !pod.node_name.is_empty() && pod.node_name != node.name {
        return Err(Reason::NodeName);
    }
    tolerates(pod, node)?;
    matches_affinity(pod, node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Value, object};

    fn node(extra: Value) -> NodeView {
        let mut node = object!({
            "metadata": {"name": "n1", "labels": {"zone": "a", "cores": "8"}},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3"}},
        });
        node.set(&["spec"], extra);
        NodeView::of(&node)
    }

    fn pod(spec: Value) -> PodView {
        PodView::of(&object!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec}))
    }

    #[test]
    fn pods_suit_nodes_as_their_specs_say() {
        let tainted = object!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
        let soft = object!({"taints": [{"key": "k", "value": "v", "effect": "PreferNoSchedule"}]});
        let term = |op: &str, key: &str, value: &str| {
            object!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": op, "values": [value]}]}],
            }}}})
        };
        let field = object!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}],
        }}}});
        for (spec, node_spec, want) in [
            (object!({}), object!({}), Ok(())),
            (object!({}), object!({"unschedulable": true}), Err(Reason::Unschedulable)),
            (object!({"nodeName": "n2"}), object!({}), Err(Reason::NodeName)),
            (object!({}), tainted.clone(), Err(Reason::Taint)),
            (object!({}), soft, Ok(())),
            (object!({"tolerations": [{"key": "k", "operator": "Exists"}]}), tainted.clone(), Ok(())),
            (object!({"tolerations": [{"key": "k", "value": "w"}]}), tainted.clone(), Err(Reason::Taint)),
            (object!({"tolerations": [{"operator": "Exists"}]}), tainted, Ok(())),
            (object!({"nodeSelector": {"zone": "a"}}), object!({}), Ok(())),
            (object!({"nodeSelector": {"zone": "b"}}), object!({}), Err(Reason::Affinity)),
            (term("In", "zone", "a"), object!({}), Ok(())),
            (term("NotIn", "zone", "a"), object!({}), Err(Reason::Affinity)),
            (term("Gt", "cores", "7"), object!({}), Ok(())),
            (term("Gt", "cores", "8"), object!({}), Err(Reason::Affinity)),
            (field, object!({}), Ok(())),
        ] {
            assert_eq!(suits(&pod(spec.clone()), &node(node_spec)), want, "{spec}");
        }
    }

    #[test]
    fn what_is_short_is_named() {
        let big = pod(object!({"containers": [{"resources": {"requests": {"cpu": "3", "x.io/gpu": "1"}}}]}));
        let used = Resources::default();
        let names: Vec<String> =
            fits(&big, &node(object!({})), &used, 3).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["Too many pods", "Insufficient cpu", "Insufficient x.io/gpu"]);
        assert!(fits(&pod(object!({})), &node(object!({})), &used, 2).is_empty());
    }
}
