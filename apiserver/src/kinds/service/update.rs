//! What may change about a Service, and what goes with its old type.

use api::Value;

use super::{is_external, is_headless, kind, needs_health_check, uses_node_ports};
use crate::kinds::Errors;
use crate::kinds::check::At;

/// Fields that the new type has no use for go, unless the client changed them.
pub(super) fn drop_unused(new: &mut Value, old: &Value) {
    let has_address = |s: &Value| kind(s) != "ExternalName";
    let same = |new: &Value, field: &str| new.at(&["spec", field]) == old.at(&["spec", field]);
    if has_address(old) && !has_address(new) {
        if same(new, "clusterIP") && same(new, "clusterIPs") {
            new.remove_at(&["spec", "clusterIP"]);
            new.remove_at(&["spec", "clusterIPs"]);
        }
        for field in ["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if same(new, field) {
                new.remove_at(&["spec", field]);
            }
        }
    }
    if uses_node_ports(old) && !uses_node_ports(new) {
        drop_ports(new, old);
    }
    let balanced = |s: &Value| kind(s) == "LoadBalancer";
    let no_longer = [
        ("healthCheckNodePort", needs_health_check(old) && !needs_health_check(new)),
        ("allocateLoadBalancerNodePorts", balanced(old) && !balanced(new)),
        ("loadBalancerClass", balanced(old) && !balanced(new)),
        ("externalTrafficPolicy", is_external(old.get("spec")) && !is_external(new.get("spec"))),
    ];
    for (field, gone) in no_longer {
        if gone && same(new, field) {
            new.remove_at(&["spec", field]);
        }
    }
    if !balanced(new) {
        new.set(&["status", "loadBalancer"], Value::object());
    }
}

fn drop_ports(new: &mut Value, old: &Value) {
    let numbers = |s: &Value| -> Vec<i64> {
        let ports = s.array_at(&["spec", "ports"]).iter();
        ports.filter_map(|p| p.get("nodePort").as_i64()).filter(|n| *n != 0).collect()
    };
    let before = numbers(old);
    if numbers(new).iter().any(|n| !before.contains(n)) {
        return;
    }
    for port in new.at_mut(&["spec", "ports"]).and_then(Value::as_array_mut).into_iter().flatten() {
        port.make_object().remove("nodePort");
    }
}

/// Checks a change.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    let spec = At::of(new, "spec");
    if kind(new) != "ExternalName" && kind(old) != "ExternalName" {
        validate_addresses(new, old, &spec, errors);
        validate_families(new, old, &spec, errors);
    }
    let class = spec.get("loadBalancerClass");
    if kind(new) == "LoadBalancer"
        && kind(old) == "LoadBalancer"
        && class.value != old.at(&["spec", "loadBalancerClass"])
    {
        class.invalid(errors, "may not change once set");
    }
    if class.is_set() {
        if kind(new) == "LoadBalancer" {
            class.qualified(errors);
        } else {
            class.forbidden(errors, "may only be used when `type` is 'LoadBalancer'");
        }
    }
    let health = spec.get("healthCheckNodePort");
    if needs_health_check(new)
        && needs_health_check(old)
        && health.value != old.at(&["spec", "healthCheckNodePort"])
    {
        health.forbidden(errors, "field is immutable");
    }
}

const FIXED: &str = "may not change once set";

fn validate_addresses(new: &Value, old: &Value, spec: &At<'_>, errors: &mut Errors) {
    if is_headless(old) && is_headless(new) {
        return;
    }
    let list = spec.get("clusterIPs");
    let (is, was) = (new.array_at(&["spec", "clusterIPs"]), old.array_at(&["spec", "clusterIPs"]));
    let mut refuse = |i: usize, why: &str| {
        let at = At { value: list.value, path: list.path.index(i) };
        at.invalid(errors, why);
    };
    if is.len() == was.len() {
        for i in (0..is.len()).filter(|i| is[*i] != was[*i]) {
            refuse(i, FIXED);
        }
        return;
    }
    if is.is_empty() {
        refuse(0, "primary clusterIP can not be unset");
    } else if !was.is_empty() && is[0] != was[0] {
        refuse(0, FIXED);
    }
    if is.len() == 1 && was.len() > 1 {
        must_be_single(spec, "clusterIP", errors);
    }
}

fn must_be_single(spec: &At<'_>, what: &str, errors: &mut Errors) {
    let policy = spec.get("ipFamilyPolicy");
    if policy.text() != "SingleStack" {
        policy.invalid(errors, format!("must be set to 'SingleStack' when releasing the secondary {what}"));
    }
}

fn validate_families(new: &Value, old: &Value, spec: &At<'_>, errors: &mut Errors) {
    if is_headless(old) || is_headless(new) {
        return;
    }
    let list = spec.get("ipFamilies");
    let (is, was) = (new.array_at(&["spec", "ipFamilies"]), old.array_at(&["spec", "ipFamilies"]));
    let at = At { value: list.value, path: list.path.index(0) };
    if is.len() == was.len() {
        for _ in (0..is.len()).filter(|i| is[*i] != was[*i]) {
            at.invalid(errors, FIXED);
        }
        return;
    }
    if is.len() < was.len() && new.array_at(&["spec", "clusterIPs"]).is_empty() {
        at.invalid(errors, "primary ipFamily can not be unset");
    }
    if !is.is_empty() && !was.is_empty() && is[0] != was[0] {
        at.invalid_as(errors, new.at(&["spec", "clusterIPs"]), FIXED);
    }
    if is.len() == 1 && was.len() > 1 {
        must_be_single(spec, "ipFamily", errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn what_a_type_does_not_use_goes_with_it() {
        let old = object!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "externalTrafficPolicy": "Cluster", "ports": [{"port": 1, "nodePort": 30001}]}});
        let mut new = old.clone();
        new.set(&["spec", "type"], "ClusterIP");
        drop_unused(&mut new, &old);
        let want = object!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 1}]});
        assert_eq!(new.get("spec"), &want);
    }

    #[test]
    fn an_address_stays() {
        let service =
            |ip: &str| object!({"spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]}});
        let mut errors = Vec::new();
        validate(&service("10.0.0.2"), &service("10.0.0.1"), &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]
        );
    }
}
