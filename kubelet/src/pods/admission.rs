//! Whether the node takes a pod that was bound to it.

use api::Value;

use super::{resources, sandbox, spec};
use crate::Kubelet;

/// The reason and message with which the pod is turned away.
pub(super) fn check(kubelet: &Kubelet, pod: &Value) -> Result<(), (String, String)> {
    if let Some(name) = sandbox::forbidden_sysctl(pod, &kubelet.config.file.allowed_unsafe_sysctls) {
        return Err(("SysctlForbidden".to_owned(), format!("forbidden sysctl: {name:?} not allowlisted")));
    }
    let others = kubelet.admitted(pod.uid());
    fits(pod, &others, &kubelet.allocatable(), kubelet.config.file.max_pods)
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
    others: &[std::sync::Arc<Value>],
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::object;

    use super::*;

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
}
