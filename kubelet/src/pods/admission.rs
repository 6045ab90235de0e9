//! Whether the node takes a pod that was bound to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::Value;
use api::quantity::Quantity;
use placement::{NodeAffinity, NodeView, Reason, Resources};

use super::needs::Needs;
use super::{sandbox, security, spec};
use crate::Kubelet;
use crate::eviction;
use crate::shutdown;

/// Local storage, which only the node's object says how much there is of.
const STORAGE: &str = "ephemeral-storage";

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
    let (needs, others) = (Needs::of(pod), kubelet.taken(pod.uid()));
    let node = kubelet.node.read().clone();
    if let Some(node) = &node {
        suits(pod, &needs, &others, node)?;
    }
    enough("pods", 1, others.len() as i64, i64::from(kubelet.config.file.max_pods))?;
    if !spec::is_static(pod) {
        fits(&needs.requests, &others, &kubelet.allocatable())?;
    }
    let used = |resource: &str| kubelet.devices.used(resource) as i64;
    node.map_or(Ok(()), |node| {
        has_extended(&needs.requests, &others, node.at(&["status", "allocatable"]), &used)
    })
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
fn suits(pod: &Value, needs: &Needs, others: &[Arc<Needs>], node: &Value) -> Result<(), (String, String)> {
    let failed = |predicate: &str, reason: Reason| {
        Err((predicate.to_owned(), format!("Predicate {predicate} failed: {reason}")))
    };
    if spec::is_static(pod) {
        return Ok(());
    }
    if !NodeAffinity::of(pod.get("spec")).matches(&NodeView::of(node)) {
        return failed("NodeAffinity", Reason::Affinity);
    }
    match others.iter().any(|other| needs.ports.conflicts(&other.ports)) {
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
    requests: &Resources,
    others: &[Arc<Needs>],
    allocatable: &Allocatable,
) -> Result<(), (String, String)> {
    let amounts = |requests: &Resources| [requests.milli_cpu, requests.memory];
    let (requested, capacity) = (amounts(requests), [allocatable.cpu, allocatable.memory]);
    for (i, resource) in ["cpu", "memory"].into_iter().enumerate() {
        let used = sum(others, |requests| amounts(requests)[i]);
        enough(resource, requested[i], used, capacity[i])?;
    }
    Ok(())
}

/// Whether there is enough of the resources that not every node has, and of local storage. Devices that containers have
/// stay theirs when their plug-in is gone. Resources that the node knows nothing of are somebody else's matter.
fn has_extended(
    requests: &Resources,
    others: &[Arc<Needs>],
    allocatable: &Value,
    devices: &dyn Fn(&str) -> i64,
) -> Result<(), (String, String)> {
    let capacity =
        |resource: &str| allocatable.str_at(&[resource]).parse::<Quantity>().ok().map(|q| q.units());
    if let Some(capacity) = capacity(STORAGE) {
        let used = sum(others, |requests| requests.storage);
        enough(STORAGE, requests.storage, used, capacity)?;
    }
    for (resource, requested) in &requests.other {
        let Some(capacity) = capacity(resource) else { continue };
        let used = sum(others, |requests| requests.get(resource));
        enough(resource, *requested, used, capacity.max(devices(resource)))?;
    }
    Ok(())
}

fn sum(others: &[Arc<Needs>], amount: impl Fn(&Resources) -> i64) -> i64 {
    others.iter().fold(0, |sum, other| sum.saturating_add(amount(&other.requests)))
}

fn enough(resource: &str, requested: i64, used: i64, capacity: i64) -> Result<(), (String, String)> {
    if requested <= 0 || used.saturating_add(requested) <= capacity {
        return Ok(());
    }
    let message = format!(
        "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
    );
    Err((format!("OutOf{resource}"), message))
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    fn of_spec(spec: Value) -> (Arc<Value>, Needs) {
        let pod = Arc::new(object!({"spec": (spec)}));
        let needs = Needs::of(&pod);
        (pod, needs)
    }

    fn requesting(requests: Value) -> Needs {
        of_spec(object!({"containers": [{"resources": {"requests": (requests)}}]})).1
    }

    #[test]
    fn a_pod_that_wants_another_node_or_a_taken_port_is_turned_away() {
        let node = object!({"metadata": {"name": "n", "labels": {"disk": "ssd"}}});
        let check = |disk: &str, others: &[Arc<Needs>]| {
            let ports = object!([{"containerPort": 80, "hostPort": 80}]);
            let (pod, needs) =
                of_spec(object!({"nodeSelector": {"disk": disk}, "containers": [{"ports": (ports)}]}));
            suits(&pod, &needs, others, &node).map(|()| needs).map_err(|(reason, _)| reason)
        };
        let taken = check("ssd", &[]).unwrap();
        assert_eq!(check("hdd", &[]).unwrap_err(), "NodeAffinity");
        assert_eq!(check("ssd", &[Arc::new(taken)]).unwrap_err(), "NodePorts");
    }

    #[test]
    fn a_pod_that_does_not_fit_is_turned_away() {
        let node = Allocatable { cpu: 2000, memory: 1 << 30 };
        let others = [Arc::new(requesting(object!({"cpu": "1500m"})))];
        let check = |cpu: &str| fits(&requesting(object!({"cpu": cpu})).requests, &others, &node);
        assert_eq!(check("500m"), Ok(()));
        let (reason, message) = check("501m").unwrap_err();
        assert_eq!(reason, "OutOfcpu");
        assert_eq!(
            message,
            "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"
        );
    }

    #[test]
    fn other_resources_count_where_the_node_has_them() {
        let pod = |amount: &str| {
            requesting(object!({"example.com/x": amount, "hugepages-2Mi": "0", "other.com/y": "9"}))
        };
        let (others, node) =
            ([Arc::new(pod("1"))], object!({"example.com/x": "2", "ephemeral-storage": "1Mi"}));
        let check = |needs: &Needs, devices: i64| has_extended(&needs.requests, &others, &node, &|_| devices);
        assert_eq!(check(&pod("1"), 0), Ok(()));
        let (reason, message) = check(&pod("2"), 0).unwrap_err();
        assert_eq!(reason, "OutOfexample.com/x");
        assert_eq!(
            message,
            "Node didn't have enough resource: example.com/x, requested: 2, used: 1, capacity: 2"
        );
        assert_eq!(check(&pod("2"), 3), Ok(()));
        let stored = requesting(object!({"ephemeral-storage": "2Mi"}));
        assert_eq!(check(&stored, 0).unwrap_err().0, "OutOfephemeral-storage");
    }
}
