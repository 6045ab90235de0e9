//! The status of a pod, as kubelets and schedulers write it.

use std::collections::HashSet;
use std::net::IpAddr;

use api::field::Path;
use api::{Value, names};

use super::update;
use crate::kinds::Errors;
use crate::kinds::check::At;

const LAST_ID: i64 = i32::MAX as i64;

/// Checks a write of the status.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    update::validate_annotations(new, old, errors);
    let (status, before) = (At { value: new.get("status"), path: Path::new("status") }, old.get("status"));
    for condition in status.get("conditions").items() {
        condition.get("observedGeneration").not_negative_integer(errors);
        let kind = condition.get("type").text();
        if !["PodScheduled", "Ready", "Initialized"].contains(&kind) {
            condition.get("Type").with(condition.value.get("type")).qualified(errors);
        }
    }
    let nominated = status.get("nominatedNodeName");
    if nominated.value != before.get("nominatedNodeName") && !nominated.text().is_empty() {
        nominated.named(errors, names::dns_subdomain);
        if !old.str_at(&["spec", "nodeName"]).is_empty() {
            nominated.forbidden(errors, "may not be set on pods that are already bound to a node");
        }
    }
    status.get("observedGeneration").not_negative_integer(errors);
    let class = status.get("qosClass");
    if class.text() != before.str_at(&["qosClass"]) {
        class.invalid_as(errors, class.text(), "field is immutable");
    }
    validate_transitions(&status, before, old.get("spec"), errors);
    validate_claims(&status.get("resourceClaimStatuses"), new.get("spec"), errors);
    validate_addresses(&status, before, errors);
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        for container in status.get(list).items() {
            validate_user(&container.get("user.linux"), new, errors);
        }
    }
}

impl At<'_> {
    fn not_negative_integer(&self, errors: &mut Errors) {
        if self.int() < 0 {
            self.invalid(errors, "must be a non-negative integer");
        }
    }
}

/// A container that has ended for good does not start again.
fn validate_transitions(status: &At<'_>, before: &Value, spec: &Value, errors: &mut Errors) {
    let restarts_all = ["containers", "initContainers"].iter().flat_map(|l| spec.array_at(&[l])).any(|c| {
        c.array_at(&["restartPolicyRules"]).iter().any(|r| r.str_at(&["action"]) == "RestartAllContainers")
    });
    for (list, containers) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", ""),
    ] {
        if restarts_all && !containers.is_empty() {
            continue;
        }
        let at = status.get(list);
        for (i, was) in before.array_at(&[list]).iter().enumerate() {
            let ended = was.at(&["state", "terminated"]);
            let is = at.items().find(|s| s.value.get("name") == was.get("name"));
            let Some(is) = is.filter(|s| !ended.is_null() && !s.get("state.terminated").is_set()) else {
                continue;
            };
            let known = spec.array_at(&[containers]);
            let container = known.iter().find(|c| c.get("name") == was.get("name"));
            let code = ended.get("exitCode").as_i64().unwrap_or(0);
            if !container.is_some_and(|c| restarts(c, spec, code)) {
                let item = at.path.index(i);
                let state = At { value: is.value, path: item.child("state") };
                state.forbidden(errors, "may not be transitioned to non-terminated state");
            }
        }
    }
}

/// True when the container is started again after it ended with `code`.
fn restarts(container: &Value, spec: &Value, code: i64) -> bool {
    for rule in container.array_at(&["restartPolicyRules"]) {
        let values = rule.array_at(&["exitCodes", "values"]);
        let listed = values.iter().any(|v| v.as_i64() == Some(code));
        let applies = match rule.str_at(&["exitCodes", "operator"]) {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if applies {
            return true;
        }
    }
    let policy = match container.str_at(&["restartPolicy"]) {
        "" => spec.str_at(&["restartPolicy"]),
        own => own,
    };
    match policy {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

fn validate_claims(statuses: &At<'_>, spec: &Value, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for status in statuses.items() {
        let name = status.get("name");
        if !spec.array_at(&["resourceClaims"]).iter().any(|c| c.str_at(&["name"]) == name.text()) {
            name.invalid_as(errors, name.text(), "must match the name of an entry in `spec.resourceClaims`");
        }
        if !seen.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
        let claim = status.get("resourceClaimName");
        if claim.is_set() {
            claim.named(errors, names::dns_subdomain);
        }
    }
}

fn validate_addresses(status: &At<'_>, before: &Value, errors: &mut Errors) {
    for list in ["podIPs", "hostIPs"] {
        let at = status.get(list);
        let known: Vec<&str> = before.array_at(&[list]).iter().map(|a| a.str_at(&["ip"])).collect();
        if let Some(first) = at.items().next().filter(|_| list == "hostIPs")
            && first.get("ip").text() != status.get("hostIP").text()
        {
            first.get("ip").invalid(errors, "must be equal to `hostIP`");
        }
        let mut families = Vec::new();
        for item in at.items() {
            let address = item.with(item.value.get("ip"));
            address.legacy_ip(errors, &known);
            families.extend(address.ip().map(|a| IpAddr::is_ipv4(&a)));
        }
        let dual = families.len() == 2 && families[0] != families[1];
        if at.len() > 1 && !dual {
            let why = "may specify no more than one IP for each IP family";
            let ty = if list == "podIPs" { "core/v1.PodIP" } else { "core/v1.HostIP" };
            let items = at.value.as_array().into_iter().flatten();
            let shown: Vec<Value> = items.map(|a| crate::kinds::check::view(a, ty)).collect();
            at.invalid_as(errors, shown, why);
        }
    }
}

fn validate_user(user: &At<'_>, pod: &Value, errors: &mut Errors) {
    if !user.is_set() {
        return;
    }
    if pod.str_at(&["spec", "os", "name"]) == "windows" {
        return user.forbidden(errors, "cannot be set for a windows pod");
    }
    user.get("uid").within(errors, 0, LAST_ID);
    user.get("gid").within(errors, 0, LAST_ID);
    for group in user.get("supplementalGroups").items() {
        group.within(errors, 0, LAST_ID);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn containers_restart_as_their_policy_says() {
        let spec = object!({"restartPolicy": "Never"});
        assert!(!restarts(&object!({}), &spec, 1));
        assert!(restarts(&object!({"restartPolicy": "Always"}), &spec, 0));
        assert!(!restarts(&object!({"restartPolicy": "OnFailure"}), &spec, 0));
        let rule = object!({"action": "Restart", "exitCodes": {"operator": "In", "values": [7]}});
        assert!(restarts(&object!({"restartPolicyRules": [(rule.clone())]}), &spec, 7));
        assert!(!restarts(&object!({"restartPolicyRules": [rule]}), &spec, 8));
    }

    #[test]
    fn a_container_that_ended_for_good_stays_so() {
        let pod = |state: Value| object!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}, "status": {"containerStatuses": [{"name": "c", "state": state}]}});
        let mut errors = Vec::new();
        let old = pod(object!({"terminated": {"exitCode": 0}}));
        validate(&pod(object!({"running": {}})), &old, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
        );
    }
}
