//! LimitRanges and ResourceQuotas.

use std::collections::BTreeSet;

use api::Value;
use api::quantity::Quantity;

use super::check::{At, view};
use super::pod::validate_quantity;
use super::resource_names::{
    can_overcommit, is_quota, validate_container_resource, validate_quota_resource, validate_resource,
};
use super::{Entry, Errors, Part, Strategy, default_to};

pub(super) const STRATEGIES: &[Entry] = &[("", "limitranges", &LIMIT_RANGE), ("", "resourcequotas", &QUOTA)];

static LIMIT_RANGE: Strategy = Strategy {
    default: |l| {
        let limits = l.at_mut(&["spec", "limits"]).and_then(Value::as_array_mut);
        for limit in limits.into_iter().flatten().filter(|l| l.str_at(&["type"]) == "Container") {
            // Limits default to the maximum, requests to the limits, then to the minimum.
            for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
                let values = limit.get(from).clone();
                for (name, value) in values.as_object().into_iter().flat_map(|m| m.iter()) {
                    default_to(limit.make_object().entry(to), name, value);
                }
            }
        }
    },
    prepare_create: |l| {
        if l.name().is_empty() {
            l.set(&["metadata", "name"], api::names::new_uid());
        }
    },
    create_on_update: true,
    validate: validate_limit_range,
    ..Strategy::NEUTRAL
};

fn validate_limit_range(range: &Value, errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for limit in At::of(range, "spec.limits").items() {
        let kind = limit.get("type");
        let found = errors.len();
        kind.qualified(errors);
        let known = ["Pod", "Container", "PersistentVolumeClaim"].contains(&kind.text());
        if errors.len() == found && !kind.text().contains('/') && !known {
            kind.invalid_as(errors, kind.text(), "must be a standard limit type or fully qualified");
        }
        if seen.iter().any(|k| k == kind.text()) {
            kind.duplicate(errors);
        }
        seen.push(kind.text().to_owned());
        validate_limit(&limit, errors);
    }
}

const BOUNDS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn validate_limit(limit: &At<'_>, errors: &mut Errors) {
    let kind = limit.get("type").text();
    let mut keys = BTreeSet::new();
    for bound in BOUNDS {
        let map = limit.get(bound);
        if kind == "Pod" && matches!(bound, "default" | "defaultRequest") {
            if map.len() > 0 {
                map.forbidden(errors, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        if bound == "maxLimitRequestRatio" && kind == "PersistentVolumeClaim" {
            let bounded = ["min", "max"].iter().any(|b| !limit.value.at(&[b, "storage"]).is_null());
            if !bounded {
                let why = "either minimum or maximum storage value is required, but neither was provided";
                limit.get("limits").required(errors, why);
            }
        }
        for (name, amount) in map.entries() {
            match kind {
                "Pod" | "Container" => validate_container_resource(&amount, name, errors),
                _ => validate_resource(&amount, name, errors),
            }
            keys.insert(name.to_owned());
        }
    }
    for key in keys {
        validate_order(limit, &key, errors);
    }
}

/// Minimum, default request, default and maximum are in this order.
fn validate_order(limit: &At<'_>, key: &str, errors: &mut Errors) {
    let pod = limit.get("type").text() == "Pod";
    let get = |bound: &str| {
        let hidden = pod && matches!(bound, "default" | "defaultRequest");
        let text = limit.value.at(&[bound, key]).as_str().filter(|_| !hidden)?;
        text.parse::<Quantity>().ok()
    };
    let (min, max) = (get("min"), get("max"));
    let (default, request, ratio) = (get("default"), get("defaultRequest"), get("maxLimitRequestRatio"));
    let mut refuse = |bound: &str, shown: Quantity, why: String| {
        let map = limit.get(bound);
        let at = At { value: &Value::Null, path: map.path.key(key) };
        at.invalid_as(errors, shown.to_string(), why);
    };
    for (bound, shown, low, high, what) in [
        ("min", min, min, max, ("min value", "max value")),
        ("defaultRequest", request, min, request, ("min value", "default request value")),
        ("defaultRequest", request, request, max, ("default request value", "max value")),
        ("defaultRequest", request, request, default, ("default request value", "default limit value")),
        ("default", min, min, default, ("min value", "default value")),
        ("default", max, default, max, ("default value", "max value")),
    ] {
        if let (Some(shown), Some(low), Some(high)) = (shown, low, high)
            && low > high
        {
            refuse(bound, shown, format!("{} {low} is greater than {} {high}", what.0, what.1));
        }
    }
    if let Some(ratio) = ratio {
        if ratio < Quantity::from_millis(1000) {
            refuse("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (min, max) {
            let bound = max.as_f64() / min.as_f64();
            if ratio.as_f64() > bound {
                let why = format!("ratio {ratio} is greater than max/min = {bound:.6}");
                refuse("maxLimitRequestRatio", ratio, why);
            }
        }
    }
    if let (Some(default), Some(request)) = (default, request)
        && default != request
        && !can_overcommit(key)
    {
        let why = format!("default value {default} must equal to defaultRequest value {request} in {key}");
        refuse("defaultRequest", request, why);
    }
}

static QUOTA: Strategy = Strategy {
    validate: |quota, errors| {
        validate_amounts(&At::of(quota, "spec.hard"), errors);
        validate_scopes(quota, errors);
    },
    validate_update: |new, old, errors| {
        let set = |q: &Value| -> BTreeSet<String> {
            let scopes = q.array_at(&["spec", "scopes"]).iter().filter_map(Value::as_str);
            scopes.map(str::to_owned).collect()
        };
        if set(new) != set(old) {
            At::of(new, "spec.scopes").invalid(errors, "field is immutable");
        }
    },
    parts: &[Part {
        name: "status",
        fixed: &[&["spec"]],
        prepare: |_, _| {},
        validate: |new, _, errors| {
            validate_amounts(&At::of(new, "status.hard"), errors);
            validate_amounts(&At::of(new, "status.used"), errors);
        },
    }],
    ..Strategy::NEUTRAL
};

fn validate_amounts(amounts: &At<'_>, errors: &mut Errors) {
    for (name, amount) in amounts.entries() {
        validate_quota_resource(&amount, name, errors);
        validate_quantity(name, &amount, errors);
    }
}

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];

const COMPUTE: [&str; 7] =
    ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

fn scope_fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ if SCOPES.contains(&scope) => COMPUTE.contains(&resource),
        _ => true,
    }
}

fn validate_scopes(quota: &Value, errors: &mut Errors) {
    let hard: BTreeSet<&str> =
        quota.at(&["spec", "hard"]).as_object().into_iter().flat_map(api::Map::keys).collect();
    let misfits = |scope: &str| hard.iter().filter(|r| is_quota(r) && !scope_fits(scope, r)).count();
    let spec = At::of(quota, "spec");
    let scopes = spec.get("scopes");
    let given = scopes.texts();
    for scope in &given {
        if !SCOPES.contains(scope) {
            scopes.invalid(errors, "unsupported scope");
        }
        for _ in 0..misfits(scope) {
            scopes.invalid(errors, "unsupported scope applied to resource");
        }
    }
    let conflicts = |given: &[&str], at: &At<'_>, errors: &mut Errors| {
        for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
            if pair.iter().all(|s| given.contains(s)) {
                at.invalid_as(errors, quota.at(&["spec", "scopes"]), "conflicting scopes");
            }
        }
    };
    conflicts(&given, &scopes, errors);
    let selector = spec.get("scopeSelector");
    let list = selector.get("matchExpressions");
    let mut named: Vec<&str> = Vec::new();
    for (requirement, value) in list.items().zip(list.value.as_array().into_iter().flatten()) {
        let scope = value.str_at(&["scopeName"]);
        named.push(scope);
        if !SCOPES.contains(&scope) {
            list.get("scopeName").invalid_as(errors, scope, "unsupported scope");
        }
        for _ in 0..misfits(scope) {
            let shown = view(selector.value, "core/v1.ScopeSelector");
            list.invalid_as(errors, shown, "unsupported scope applied to resource");
        }
        validate_requirement(&list, &requirement, scope, errors);
    }
    conflicts(&named, &list, errors);
}

fn validate_requirement(list: &At<'_>, requirement: &At<'_>, scope: &str, errors: &mut Errors) {
    let (operator, values) = (requirement.get("operator").text(), requirement.get("values"));
    let needs_exists = SCOPES.contains(&scope) && !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
    if needs_exists && operator != "Exists" {
        let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        list.get("operator").invalid_as(errors, operator, why);
    }
    match operator {
        "In" | "NotIn" if values.len() == 0 => {
            let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            list.get("values").required(errors, why);
        }
        "Exists" | "DoesNotExist" if values.len() != 0 => {
            let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            list.get("values").with(values.value).invalid(errors, why);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => list.get("operator").invalid_as(errors, other, "not a valid selector operator"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn bounds_are_in_order() {
        let range =
            object!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}});
        let mut errors = Vec::new();
        validate_limit_range(&range, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"]
        );
    }

    #[test]
    fn quotas_count_whole_things_and_fitting_scopes() {
        let check = |spec: Value, want: &[&str]| {
            let mut errors = Vec::new();
            (QUOTA.validate)(&object!({"spec": spec}), &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
        };
        check(
            object!({"hard": {"pods": "500m"}}),
            &["spec.hard[pods]: Invalid value: \"500m\": must be an integer"],
        );
        check(
            object!({"hard": {"services": "1"}, "scopes": ["BestEffort"]}),
            &["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
        );
        check(object!({"hard": {"count/pods": "1"}}), &[]);
    }
}
