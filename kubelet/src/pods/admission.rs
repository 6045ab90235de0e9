//! Whether the node takes a pod that was bound to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::Value;
use api::quantity::Quantity;
use placement::{NodeAffinity, NodeView, Reason};

use super::needs::{Needs, Taken};
use super::preemption::{self, Missing};
use super::{resources, sandbox, security, spec};
use crate::Kubelet;
use crate::eviction;
use crate::shutdown;

/// The pods, by uid, that have to be gone before this one may start; the error is the reason and message with which it is
/// turned away.
pub(crate) fn check(kubelet: &Kubelet, pod: &Arc<Value>) -> Result<Vec<String>, (String, String)> {
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
    let (own, node) = (kubelet.allocatable(), node.unwrap_or_default());
    let capacity = |resource: &str| match resource {
        "pods" => Some(i64::from(kubelet.config.file.max_pods)),
        "cpu" => Some(own.cpu),
        "memory" => Some(own.memory),
        other => {
            // Devices that containers have stay theirs when their plug-in is gone.
            let capacity = node.str_at(&["status", "allocatable", other]).parse::<Quantity>().ok()?;
            Some(capacity.units().max(kubelet.devices.used(other) as i64))
        }
    };
    let Some(first) = lacking(&needs, &others, capacity).into_iter().next() else { return Ok(Vec::new()) };
    if !resources::is_critical(pod) {
        return Err(first.refusal());
    }
    let told = {
        let pods = kubelet.pods.lock();
        let staying = |uid: &str| pods.get(uid).is_some_and(|known| known.eviction.borrow().is_none());
        others.iter().map(|(other, _)| staying(other.uid())).collect::<Vec<_>>()
    };
    // Whoever has been told to go leaves room for it.
    let (staying, leaving): (Vec<_>, Vec<_>) = others.into_iter().zip(told).partition(|(_, stays)| *stays);
    let staying: Vec<_> = staying.into_iter().map(|(other, _)| other).collect();
    let mut gone: Vec<_> = leaving.iter().map(|((other, _), _)| other.uid().to_owned()).collect();
    gone.extend(make_room(kubelet, pod, &staying, &lacking(&needs, &staying, capacity))?);
    Ok(gone)
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
fn suits(pod: &Value, needs: &Needs, others: &[Taken], node: &Value) -> Result<(), (String, String)> {
    let failed = |predicate: &str, reason: Reason| {
        Err((predicate.to_owned(), format!("Predicate {predicate} failed: {reason}")))
    };
    if spec::is_static(pod) {
        return Ok(());
    }
    if !NodeAffinity::of(pod.get("spec")).matches(&NodeView::of(node)) {
        return failed("NodeAffinity", Reason::Affinity);
    }
    match others.iter().any(|(_, other)| needs.ports.conflicts(&other.ports)) {
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

/// A resource of which there is not enough.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lack {
    resource: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Lack {
    fn refusal(&self) -> (String, String) {
        let Self { resource, requested, used, capacity } = self;
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        (format!("OutOf{resource}"), message)
    }

    fn missing(&self) -> Missing {
        let amount = self.used.saturating_add(self.requested).saturating_sub(self.capacity);
        Missing { resource: self.resource.clone(), amount }
    }
}

/// What there is not enough of for a pod besides others. Resources of which nobody knows how much there is are somebody
/// else's matter.
fn lacking(needs: &Needs, others: &[Taken], capacity: impl Fn(&str) -> Option<i64>) -> Vec<Lack> {
    let own = needs.requests.other.iter().map(|(resource, _)| resource.as_str());
    let all = ["pods", "cpu", "memory", "ephemeral-storage"].into_iter().chain(own);
    let lacks = all.filter_map(|resource| {
        let (requested, capacity) = (needs.amount(resource), capacity(resource)?);
        let used = others.iter().fold(0_i64, |sum, (_, other)| sum.saturating_add(other.amount(resource)));
        let lacks = requested > 0 && used.saturating_add(requested) > capacity;
        lacks.then(|| Lack { resource: resource.to_owned(), requested, used, capacity })
    });
    lacks.collect()
}

/// Has others go in favour of a pod that the node cannot do without; returns who.
fn make_room(
    kubelet: &Kubelet,
    pod: &Value,
    others: &[Taken],
    lacking: &[Lack],
) -> Result<Vec<String>, (String, String)> {
    let missing: Vec<_> = lacking.iter().map(Lack::missing).collect();
    let victims = preemption::victims(pod, &missing, others).map_err(|why| {
        let why = format!("preemption: error finding a set of pods to preempt: {why}");
        let message = format!("Unexpected error while attempting to recover from admission failure: {why}");
        ("UnexpectedAdmissionError".to_owned(), message)
    })?;
    for victim in &victims {
        if eviction::preempt(kubelet, victim) {
            kubelet.metrics.preempted(&lacking[0].resource);
        }
    }
    Ok(victims.iter().map(|victim| victim.uid().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    fn of_spec(spec: Value) -> Taken {
        let pod = Arc::new(object!({"spec": (spec)}));
        let needs = Arc::new(Needs::of(&pod));
        (pod, needs)
    }

    fn requesting(requests: Value) -> Taken {
        of_spec(object!({"containers": [{"resources": {"requests": (requests)}}]}))
    }

    #[test]
    fn a_pod_that_wants_another_node_or_a_taken_port_is_turned_away() {
        let node = object!({"metadata": {"name": "n", "labels": {"disk": "ssd"}}});
        let check = |disk: &str, others: &[Taken]| {
            let ports = object!([{"containerPort": 80, "hostPort": 80}]);
            let taken =
                of_spec(object!({"nodeSelector": {"disk": disk}, "containers": [{"ports": (ports)}]}));
            suits(&taken.0, &taken.1, others, &node).map(|()| taken).map_err(|(reason, _)| reason)
        };
        let taken = check("ssd", &[]).unwrap();
        assert_eq!(check("hdd", &[]).unwrap_err(), "NodeAffinity");
        assert_eq!(check("ssd", &[taken]).unwrap_err(), "NodePorts");
    }

    #[test]
    fn a_pod_that_does_not_fit_is_turned_away() {
        let others = [requesting(object!({"cpu": "1500m", "example.com/x": "1"}))];
        let check = |requests: Value, expected: &[(&str, &str)]| {
            let capacity = |resource: &str| match resource {
                "pods" | "example.com/x" => Some(2),
                "cpu" => Some(2000),
                "ephemeral-storage" => Some(1 << 20),
                _ => None,
            };
            let found: Vec<_> =
                lacking(&requesting(requests).1, &others, capacity).iter().map(Lack::refusal).collect();
            let found: Vec<_> = found.iter().map(|(reason, why)| (reason.as_str(), why.as_str())).collect();
            let whole = |why: &str| format!("Node didn't have enough resource: {why}");
            let expected: Vec<_> = expected.iter().map(|(reason, why)| (*reason, whole(why))).collect();
            assert_eq!(found, expected.iter().map(|(r, why)| (*r, why.as_str())).collect::<Vec<_>>());
        };
        check(object!({"cpu": "500m", "memory": "1Ti", "example.com/x": "1", "other.com/y": "9"}), &[]);
        check(
            object!({"cpu": "501m", "example.com/x": "2"}),
            &[
                ("OutOfcpu", "cpu, requested: 501, used: 1500, capacity: 2000"),
                ("OutOfexample.com/x", "example.com/x, requested: 2, used: 1, capacity: 2"),
            ],
        );
        check(
            object!({"ephemeral-storage": "2Mi"}),
            &[(
                "OutOfephemeral-storage",
                "ephemeral-storage, requested: 2097152, used: 0, capacity: 1048576",
            )],
        );
        check(
            object!({"cpu": "8Ei"}),
            &[("OutOfcpu", "cpu, requested: 9223372036854775807, used: 1500, capacity: 2000")],
        );
    }
}
