//! Whether the node takes a pod that was bound to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::Value;
use placement::{HostPorts, NodeAffinity, NodeView, Reason};

use super::{resources, sandbox, security, spec};
use crate::Kubelet;
use crate::claims::without_claimed;
use crate::eviction;
use crate::shutdown;

/// The reason and message with which the pod is turned away.
pub(crate) fn check(kubelet: &Kubelet, pod: &Arc<Value>) -> Result<(), (String, String)> {
    eviction::admit(kubelet, pod).map_err(|message| (eviction::REASON.to_owned(), message))?;
    if kubelet.shutting_down.load(Ordering::Relaxed) {
        let (reason, message) = shutdown::REFUSED;
        return Err((reason.to_owned(), message.to_owned()));
    }
    if let Some(name) = sandbox::forbidden_sysctl(pod, &kubelet.config.file.allowed_unsafe_sysctls) {
        return Err(("SysctlForbidden".to_owned(), format!("forbidden sysctl: {name:?} not allowlisted")));
    }
    secures(kubelet, pod)?;
    if pod.str_at(&["spec", "os", "name"]) == "windows" {
        let message = "Failed to admit pod as the OS field doesn't match node OS".to_owned();
        return Err(("PodOSNotSupported".to_owned(), message));
    }
    let others = kubelet.admitted(pod.uid());
    let node = kubelet.node.read().clone();
    if let Some(node) = &node {
        suits(pod, &others, node)?;
    }
    fits(pod, &others, &kubelet.allocatable(), kubelet.config.file.max_pods)?;
    let used = |resource: &str| kubelet.devices.used(resource) as i64;
    // Extended resources that come with a claim are no matter of device plug-ins.
    let others: Vec<_> = others.iter().map(without_claimed).collect();
    let pod = without_claimed(pod);
    node.map_or(Ok(()), |node| has_extended(&pod, &others, node.at(&["status", "allocatable"]), &used))
}

/// Whether the kernel and the runtime can keep the pod as it wants to be kept.
fn secures(kubelet: &Kubelet, pod: &Value) -> Result<(), (String, String)> {
    if security::needs_app_armor(pod) && !kubelet.facts.app_armor {
        let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        return Err(("AppArmor".to_owned(), message.to_owned()));
    }
    let strict = pod.str_at(&["spec", "securityContext", "supplementalGroupsPolicy"]) == "Strict";
    if strict && kubelet.abilities.read().as_ref().is_some_and(|can| !can.strict_groups()) {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return Err(("SupplementalGroupsPolicyNotSupported".to_owned(), message.to_owned()));
    }
    Ok(())
}

/// Whether the pod's own wishes about its node and ports can be had here.
fn suits(pod: &Value, others: &[Arc<Value>], node: &Value) -> Result<(), (String, String)> {
    let failed = |predicate: &str, reason: Reason| {
        Err((predicate.to_owned(), format!("Predicate {predicate} failed: {reason}")))
    };
    if spec::is_static(pod) {
        return Ok(());
    }
    if !NodeAffinity::of(pod.get("spec")).matches(&NodeView::of(node)) {
        return failed("NodeAffinity", Reason::Affinity);
    }
    let ports = HostPorts::of(pod.get("spec"));
    match others.iter().any(|other| ports.conflicts(&HostPorts::of(other.get("spec")))) {
        true => failed("NodePorts", Reason::Ports),
        false => Ok(()),
    }
}

/// What the node has for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocatable {
    /// Thousandths of a core.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
}

fn fits(
    pod: &Value,
    others: &[Arc<Value>],
    allocatable: &Allocatable,
    max_pods: u32,
) -> Result<(), (String, String)> {
    if others.len() >= max_pods as usize {
        let message = format!(
            "Node didn't have enough resource: pods, requested: 1, used: {0}, capacity: {0}",
            max_pods
        );
        return Err(("OutOfpods".to_owned(), message));
    }
    for (resource, capacity) in [("cpu", allocatable.cpu), ("memory", allocatable.memory)] {
        let requested = resources::request(pod, resource);
        let used: i64 = others.iter().map(|other| resources::request(other, resource)).sum();
        if requested > 0 && used + requested > capacity && !spec::is_static(pod) {
            let message = format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return Err((format!("OutOf{resource}"), message));
        }
    }
    Ok(())
}

/// Whether there is enough of the resources that the node has besides those that every node has. Devices that containers
/// have stay theirs when their plug-in is gone. Resources that the node knows nothing of are somebody else's matter.
fn has_extended(
    pod: &Value,
    others: &[Arc<Value>],
    allocatable: &Value,
    devices: &dyn Fn(&str) -> i64,
) -> Result<(), (String, String)> {
    let requests = placement::pod_requests(pod);
    for (resource, requested) in requests.other.iter().filter(|(_, requested)| *requested > 0) {
        let quantity = allocatable.str_at(&[resource.as_str()]).parse::<api::quantity::Quantity>();
        let Ok(quantity) = quantity else { continue };
        let capacity = quantity.units().max(devices(resource));
        let used: i64 = others.iter().map(|other| placement::pod_requests(other).get(resource)).sum();
        if used + requested > capacity {
            let message = format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return Err((format!("OutOf{resource}"), message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn a_pod_that_wants_another_node_or_a_taken_port_is_turned_away() {
        let node = object!({"metadata": {"name": "n", "labels": {"disk": "ssd"}}});
        let pod = |disk: &str| {
            object!({"spec": {
                "nodeSelector": {"disk": disk},
                "containers": [{"ports": [{"containerPort": 80, "hostPort": 80}]}],
            }})
        };
        assert_eq!(suits(&pod("ssd"), &[], &node), Ok(()));
        assert_eq!(suits(&pod("hdd"), &[], &node).unwrap_err().0, "NodeAffinity");
        assert_eq!(suits(&pod("ssd"), &[Arc::new(pod("ssd"))], &node).unwrap_err().0, "NodePorts");
    }

    #[test]
    fn a_pod_that_does_not_fit_is_turned_away() {
        let pod = |cpu: &str| object!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]}});
        let node = Allocatable { cpu: 2000, memory: 1 << 30 };
        let others = [Arc::new(pod("1500m"))];
        assert_eq!(fits(&pod("500m"), &others, &node, 110), Ok(()));
        let (reason, message) = fits(&pod("501m"), &others, &node, 110).unwrap_err();
        assert_eq!(reason, "OutOfcpu");
        assert_eq!(
            message,
            "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"
        );
        assert_eq!(fits(&pod("1m"), &others, &node, 1).unwrap_err().0, "OutOfpods");
    }

    #[test]
    fn extended_resources_count_where_the_node_has_them() {
        let pod = |amount: &str| {
            let resources =
                object!({"requests": {"example.com/x": amount, "hugepages-2Mi": "0", "other.com/y": "9"}});
            object!({"spec": {"containers": [{"resources": (resources)}]}})
        };
        let (others, node) = ([Arc::new(pod("1"))], object!({"example.com/x": "2"}));
        assert_eq!(has_extended(&pod("1"), &others, &node, &|_| 0), Ok(()));
        let (reason, message) = has_extended(&pod("2"), &others, &node, &|_| 0).unwrap_err();
        assert_eq!(reason, "OutOfexample.com/x");
        assert_eq!(
            message,
            "Node didn't have enough resource: example.com/x, requested: 2, used: 1, capacity: 2"
        );
        assert_eq!(has_extended(&pod("2"), &others, &node, &|_| 3), Ok(()));
    }
}
