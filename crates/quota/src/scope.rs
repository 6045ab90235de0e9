//! The objects that a quota is limited to.

use api::Value;
use api::selector::{Operator, Requirement};

use crate::{Source, quantity};

/// Whether an object is in all scopes of a quota: those of `spec.scopes` and those of `spec.scopeSelector`.
pub fn in_scope(quota: &Value, source: &Source, object: &Value) -> bool {
    let plain = quota.array_at(&["spec", "scopes"]).iter().filter_map(Value::as_str);
    let selected = quota.array_at(&["spec", "scopeSelector", "matchExpressions"]);
    plain
        .map(|scope| (scope, &Value::Null))
        .chain(selected.iter().map(|s| (s.str_at(&["scopeName"]), s)))
        .all(|(scope, selector)| match source {
            Source::Pods => pod_in(scope, selector, object),
            Source::Claims if scope == "VolumeAttributesClass" => claim_in(selector, object),
            Source::Claims | Source::Services | Source::Objects { .. } => false,
        })
}

fn pod_in(scope: &str, selector: &Value, pod: &Value) -> bool {
    let deadline = pod.at(&["spec", "activeDeadlineSeconds"]).as_i64().is_some_and(|s| s >= 0);
    match scope {
        "Terminating" => deadline,
        "NotTerminating" => !deadline,
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => matches(selector, pod.str_at(&["spec", "priorityClassName"])),
        "CrossNamespacePodAffinity" => looks_elsewhere(pod),
        _ => false,
    }
}

/// Whether a name (empty: none) is as the selector of a scope wants it.
fn matches(selector: &Value, name: &str) -> bool {
    let values = || {
        let values = selector.array_at(&["values"]).iter().filter_map(Value::as_str);
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    let operator = match selector.str_at(&["operator"]) {
        "" | "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "In" => Operator::In(values()),
        "NotIn" => Operator::NotIn(values()),
        _ => return false,
    };
    Requirement { key: String::new(), operator }.matches((!name.is_empty()).then_some(name))
}

/// A claim is of every class it has, shall get, or is about to get.
fn claim_in(selector: &Value, claim: &Value) -> bool {
    let paths: [&[&str]; 3] = [
        &["spec", "volumeAttributesClassName"],
        &["status", "currentVolumeAttributesClassName"],
        &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
    ];
    let mut names: Vec<&str> = paths.iter().map(|p| claim.str_at(p)).filter(|n| !n.is_empty()).collect();
    if names.is_empty() {
        names.push("");
    }
    names.into_iter().any(|name| matches(selector, name))
}

/// Whether a pod asks for no cpu and no memory, and has no limits on them.
fn is_best_effort(pod: &Value) -> bool {
    let told = pod.str_at(&["status", "qosClass"]);
    if !told.is_empty() {
        return told == "BestEffort";
    }
    let spec = pod.get("spec");
    let asks = |holder: &Value| {
        ["requests", "limits"].iter().any(|kind| {
            ["cpu", "memory"]
                .iter()
                .any(|name| quantity(holder.at(&["resources", kind, name])).is_some_and(|q| !q.is_zero()))
        })
    };
    let containers = spec.array_at(&["containers"]).iter().chain(spec.array_at(&["initContainers"]));
    !asks(spec) && !containers.into_iter().any(asks)
}

/// Whether a term of the pod's affinity to pods names other namespaces.
fn looks_elsewhere(pod: &Value) -> bool {
    let elsewhere =
        |term: &Value| !term.get("namespaces").is_empty() || !term.get("namespaceSelector").is_null();
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let rules = pod.at(&["spec", "affinity", kind]);
        rules.array_at(&["requiredDuringSchedulingIgnoredDuringExecution"]).iter().any(elsewhere)
            || rules
                .array_at(&["preferredDuringSchedulingIgnoredDuringExecution"])
                .iter()
                .any(|weighted| elsewhere(weighted.get("podAffinityTerm")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn scopes_choose_pods() {
        let pod = object!({"spec": {
            "activeDeadlineSeconds": 5, "priorityClassName": "high",
            "containers": [{"resources": {"limits": {"memory": "1Gi"}}}],
            "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaceSelector": {}}]}},
        }});
        let bare = object!({"spec": {"containers": [{}]}});
        for (scope, first, second) in [
            ("Terminating", true, false),
            ("NotTerminating", false, true),
            ("BestEffort", false, true),
            ("NotBestEffort", true, false),
            ("PriorityClass", true, false),
            ("CrossNamespacePodAffinity", true, false),
        ] {
            let quota = object!({"spec": {"scopes": [scope]}});
            assert_eq!(in_scope(&quota, &Source::Pods, &pod), first, "{scope}");
            assert_eq!(in_scope(&quota, &Source::Pods, &bare), second, "{scope}");
            assert!(!in_scope(&quota, &Source::Services, &object!({})), "{scope}");
        }
    }

    #[test]
    fn priorities_are_selected_by_name() {
        let pod = |class: &str| object!({"spec": {"priorityClassName": class}});
        for (operator, high, none) in [
            ("In", true, false),
            ("NotIn", false, true),
            ("Exists", true, false),
            ("DoesNotExist", false, true),
        ] {
            let quota = object!({"spec": {"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": ["high"]},
            ]}}});
            assert_eq!(in_scope(&quota, &Source::Pods, &pod("high")), high, "{operator}");
            assert_eq!(in_scope(&quota, &Source::Pods, &pod("")), none, "{operator}");
        }
    }
}
