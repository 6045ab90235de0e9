//! Reading pod objects: the few questions that come up everywhere.

use api::Value;

/// Where a pod comes from: `api`, `file` or `http`.
pub(crate) const SOURCE: &str = "kubernetes.io/config.source";
/// The hash of a static pod's file.
pub(crate) const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// On mirror pods: the hash of the static pod they show.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
/// The action of a rule that has all containers of a pod started over.
const RESTART_ALL: &str = "RestartAllContainers";
/// When the kubelet first saw the pod.
pub(crate) const SEEN: &str = "kubernetes.io/config.seen";

/// The pod's volumes.
pub(crate) fn volumes(pod: &Value) -> &[Value] {
    pod.array_at(&["spec", "volumes"])
}

/// The pod's main containers.
pub(crate) fn containers(pod: &Value) -> &[Value] {
    pod.array_at(&["spec", "containers"])
}

/// The pod's init containers, restartable ones among them.
pub(crate) fn init_containers(pod: &Value) -> &[Value] {
    pod.array_at(&["spec", "initContainers"])
}

/// The containers that were added to look into a running pod; they are started once.
pub(crate) fn ephemeral_containers(pod: &Value) -> &[Value] {
    pod.array_at(&["spec", "ephemeralContainers"])
}

/// All containers that make up the pod: init containers first.
pub(crate) fn all_containers(pod: &Value) -> impl Iterator<Item = &Value> {
    init_containers(pod).iter().chain(containers(pod))
}

/// A container by its name.
pub(crate) fn container<'p>(pod: &'p Value, name: &str) -> Option<&'p Value> {
    let mut all = all_containers(pod).chain(ephemeral_containers(pod));
    all.find(|container| container.str_at(&["name"]) == name)
}

/// Whether an init container keeps running beside the main ones.
pub(crate) fn is_sidecar(container: &Value) -> bool {
    container.str_at(&["restartPolicy"]) == "Always"
}

/// Whether `name` is one of the init containers.
pub(crate) fn is_init(pod: &Value, name: &str) -> bool {
    init_containers(pod).iter().any(|container| container.str_at(&["name"]) == name)
}

/// Whether `name` was added later.
pub(crate) fn is_ephemeral(pod: &Value, name: &str) -> bool {
    ephemeral_containers(pod).iter().any(|container| container.str_at(&["name"]) == name)
}

/// Whether the pod shares the host's network.
pub(crate) fn host_network(pod: &Value) -> bool {
    pod.at(&["spec", "hostNetwork"]).as_bool().unwrap_or_default()
}

/// Whether the pod was read from a file on this node, or from a URL.
pub(crate) fn is_static(pod: &Value) -> bool {
    matches!(pod.annotation(SOURCE), Some("file" | "http"))
}

/// Whether the object only shows a static pod.
pub(crate) fn is_mirror(pod: &Value) -> bool {
    pod.annotation(MIRROR).is_some()
}

/// Whether the container is to be started again after it ended with this code: its own rules come first, then its own
/// policy, then the pod's.
pub(crate) fn should_restart(pod: &Value, container: &Value, exit_code: i32) -> bool {
    if is_ephemeral(pod, container.str_at(&["name"])) {
        return false;
    }
    // An init container that succeeded has done its part.
    if exit_code == 0 && is_init(pod, container.str_at(&["name"])) && !is_sidecar(container) {
        return false;
    }
    let ruled = !container.str_at(&["restartPolicy"]).is_empty();
    if ruled
        && restart_rule(container, exit_code)
            .is_some_and(|rule| matches!(rule.str_at(&["action"]), "Restart" | RESTART_ALL))
    {
        return true;
    }
    match policy(pod, container) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// The first of the container's own rules that fits an exit code.
fn restart_rule(container: &Value, exit_code: i32) -> Option<&Value> {
    container.array_at(&["restartPolicyRules"]).iter().find(|rule| {
        let codes = rule.array_at(&["exitCodes", "values"]);
        let listed = codes.iter().any(|code| code.as_i64() == Some(i64::from(exit_code)));
        match rule.str_at(&["exitCodes", "operator"]) {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    })
}

/// Whether some container of the pod may have all of them started over.
pub(crate) fn may_restart_all(pod: &Value) -> bool {
    let mut rules = all_containers(pod).flat_map(|container| container.array_at(&["restartPolicyRules"]));
    rules.any(|rule| rule.str_at(&["action"]) == RESTART_ALL)
}

/// Whether a container that ended with this code has all containers of its pod started over.
pub(crate) fn restarts_all(container: &Value, exit_code: i32) -> bool {
    restart_rule(container, exit_code).is_some_and(|rule| rule.str_at(&["action"]) == RESTART_ALL)
}

/// The restart policy that counts for a container: its own or the pod's.
pub(crate) fn policy<'p>(pod: &'p Value, container: &'p Value) -> &'p str {
    match container.str_at(&["restartPolicy"]) {
        "" => pod.str_at(&["spec", "restartPolicy"]),
        own => own,
    }
}

/// The pod's quality of service, recomputed when the API server has not said it.
pub(crate) fn qos(pod: &Value) -> &'static str {
    match pod.str_at(&["status", "qosClass"]) {
        "Guaranteed" => return "Guaranteed",
        "Burstable" => return "Burstable",
        "BestEffort" => return "BestEffort",
        _ => {}
    }
    let (mut any, mut guaranteed) = (false, true);
    let whole = pod.at(&["spec", "resources"]);
    let of_containers = all_containers(pod).map(|container| container.get("resources"));
    // The resources of the pod as a whole count instead of those of its containers.
    let counted: Vec<_> = if whole.is_empty() { of_containers.collect() } else { vec![whole] };
    for resources in counted {
        for resource in ["cpu", "memory"] {
            let request = resources.at(&["requests", resource]);
            let limit = resources.at(&["limits", resource]);
            any |= !request.is_null() || !limit.is_null();
            guaranteed &= !limit.is_null() && (request.is_null() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// `name_namespace(uid)`, as upstream names a pod in messages.
pub(crate) fn describe(pod: &Value) -> String {
    format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid())
}

/// Whether the status says that the pod has ended for good.
pub(crate) fn is_terminal(pod: &Value) -> bool {
    matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed")
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn the_restart_policy_decides_by_kind_of_container() {
        let sidecar = object!({"name": "s", "restartPolicy": "Always"});
        let init = object!({"name": "i"});
        let main = object!({"name": "m"});
        for (policy, init_again, main_again_0, main_again_1) in
            [("Always", true, true, true), ("OnFailure", true, false, true), ("Never", false, false, false)]
        {
            let pod = object!({"spec": {
                "restartPolicy": policy,
                "initContainers": [(init.clone()), (sidecar.clone())],
                "containers": [(main.clone())],
            }});
            assert_eq!(should_restart(&pod, &init, 1), init_again, "{policy}");
            assert!(!should_restart(&pod, &init, 0), "{policy}");
            assert!(should_restart(&pod, &sidecar, 0), "{policy}");
            assert_eq!(should_restart(&pod, &main, 0), main_again_0, "{policy}");
            assert_eq!(should_restart(&pod, &main, 1), main_again_1, "{policy}");
        }
    }

    #[test]
    fn a_containers_own_rules_come_before_its_policy() {
        let rule = |operator: &str, code: i64| object!({"action": "Restart", "exitCodes": {"operator": operator, "values": [code]}});
        let rules = Value::Array(vec![rule("In", 42)]);
        let container = object!({"name": "m", "restartPolicy": "Never", "restartPolicyRules": (rules)});
        let pod = object!({"spec": {"restartPolicy": "Always", "containers": [(container.clone())]}});
        assert!(should_restart(&pod, &container, 42));
        assert!(!should_restart(&pod, &container, 1) && !should_restart(&pod, &container, 0));
        let mut other = container;
        other.set(&["restartPolicyRules"], Value::Array(vec![rule("NotIn", 0)]));
        assert!(should_restart(&pod, &other, 42) && !should_restart(&pod, &other, 0));
    }

    #[test]
    fn a_rule_may_start_all_containers_over() {
        let rule = object!({"action": RESTART_ALL, "exitCodes": {"operator": "In", "values": [88]}});
        let container = object!({"name": "m", "restartPolicy": "Never", "restartPolicyRules": [(rule)]});
        let pod = object!({"spec": {"restartPolicy": "Never", "containers": [(container.clone())]}});
        assert!(
            may_restart_all(&pod) && restarts_all(&container, 88) && should_restart(&pod, &container, 88)
        );
        assert!(!restarts_all(&container, 1) && !should_restart(&pod, &container, 1));
        assert!(!may_restart_all(&object!({"spec": {"containers": [{"name": "m"}]}})));
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let with =
            |resources: Value| object!({"spec": {"containers": [{"name": "a", "resources": (resources)}]}});
        assert_eq!(qos(&with(Value::object())), "BestEffort");
        assert_eq!(qos(&with(object!({"requests": {"cpu": "1"}}))), "Burstable");
        assert_eq!(qos(&with(object!({"limits": {"cpu": "1", "memory": "1Gi"}}))), "Guaranteed");
    }
}
