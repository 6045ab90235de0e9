//! Tolerations that pods get: DefaultTolerationSeconds, PodTolerationRestriction, ExtendedResourceToleration.

use std::collections::BTreeSet;

use api::error::Result;
use api::{ApiError, Value, object};

use super::{Operation, is, plain};
use crate::kinds::{is_extended_resource, qos_class};
use crate::registry::Call;
use crate::resources::TABLE;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

fn tolerations(pod: &mut Value) -> &mut Vec<Value> {
    pod.make_object().entry("spec").make_object().entry("tolerations").make_array()
}

/// Pods stay a while on a node that is lost, unless they say otherwise.
pub(super) fn tolerate_lost_nodes(call: &Call, pod: &mut Value) {
    if !is(call, "", "pods") {
        return;
    }
    let seconds = call.server.config.admission.toleration_seconds;
    for (key, seconds) in [NOT_READY, UNREACHABLE].into_iter().zip(seconds) {
        let covers = |t: &Value| {
            let (k, effect) = (t.str_at(&["key"]), t.str_at(&["effect"]));
            (k == key || k.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        };
        if pod.array_at(&["spec", "tolerations"]).iter().any(covers) {
            continue;
        }
        let toleration = object!({
            "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds,
        });
        tolerations(pod).push(toleration);
    }
}

/// Pods that ask for extended resources go to the nodes that are kept for them.
pub(super) fn tolerate_extended_resources(call: &Call, pod: &mut Value) {
    if !is(call, "", "pods") {
        return;
    }
    let lists = ["containers", "initContainers"].into_iter().flat_map(|list| pod.array_at(&["spec", list]));
    let names = lists.flat_map(|c| c.at(&["resources", "requests"]).as_object()).flat_map(|m| m.keys());
    let names: BTreeSet<String> = names.filter(|n| is_extended_resource(n)).map(str::to_owned).collect();
    for name in names {
        let wanted = object!({"key": (name.as_str()), "operator": "Exists", "effect": "NoSchedule"});
        let same = |t: &&mut Value| {
            ["key", "operator", "effect", "value"].iter().all(|f| t.str_at(&[f]) == wanted.str_at(&[f]))
        };
        match tolerations(pod).iter_mut().find(same) {
            Some(known) => *known = wanted,
            None => tolerations(pod).push(wanted),
        }
    }
}

/// Pods get the tolerations of their namespace, or those of the cluster.
pub(super) fn add(call: &Call, operation: Operation, pod: &mut Value) -> Result<()> {
    if !is(call, "", "pods") {
        return Ok(());
    }
    let mut more = Vec::new();
    if operation == Operation::Create {
        let configured = &call.server.config.admission.tolerations.default;
        more = of_namespace(call, DEFAULTS)?.unwrap_or_else(|| configured.clone());
    }
    if qos_class(pod.get("spec")) != "BestEffort" {
        more.push(object!({"key": MEMORY_PRESSURE, "operator": "Exists", "effect": "NoSchedule"}));
    }
    if !more.is_empty() {
        merge(tolerations(pod), more);
    }
    validate(call, pod)
}

/// Pods have no tolerations but those that their namespace, or the cluster, allows.
pub(super) fn validate(call: &Call, pod: &Value) -> Result<()> {
    let given = pod.array_at(&["spec", "tolerations"]);
    if !is(call, "", "pods") || given.is_empty() {
        return Ok(());
    }
    let configured = &call.server.config.admission.tolerations.allowed;
    let (scope, allowed) = match of_namespace(call, ALLOWED)? {
        Some(allowed) => ("namespace", allowed),
        None => ("cluster", configured.clone()),
    };
    let fits = |t: &Value| allowed.iter().any(|wide| covers(wide, t));
    if allowed.is_empty() || given.iter().all(fits) {
        return Ok(());
    }
    Err(plain(format!(
        "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
    )))
}

/// The tolerations in an annotation of the namespace, if it has that.
fn of_namespace(call: &Call, annotation: &str) -> Result<Option<Vec<Value>>> {
    let home = call.server.storage.cache(TABLE.store("", "namespaces")).get(&call.namespace);
    let home = home.ok_or_else(|| ApiError::not_found("", "namespaces", &call.namespace))?.object();
    let Some(text) = home.annotation(annotation) else { return Ok(None) };
    if text.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let read = api::json::decode(text.as_bytes()).map_err(|e| plain(e.to_string()))?;
    Ok(Some(read.value.as_array().cloned().unwrap_or_default()))
}

/// Adds tolerations; what another one covers goes.
pub(super) fn merge(own: &mut Vec<Value>, more: Vec<Value>) {
    let all: Vec<Value> = own.drain(..).chain(more).collect();
    for (i, toleration) in all.iter().enumerate() {
        let covered = own.iter().chain(&all[i + 1..]).any(|wide| covers(wide, toleration));
        if !covered {
            own.push(toleration.clone());
        }
    }
}

/// True when whatever `t` tolerates is tolerated by `wide` too.
fn covers(wide: &Value, t: &Value) -> bool {
    let text = |v: &Value, field: &str| v.str_at(&[field]).to_owned();
    let same = |field: &str| text(wide, field) == text(t, field);
    if wide == t {
        return true;
    }
    let operator = text(wide, "operator");
    if !same("key") && (!text(wide, "key").is_empty() || operator != "Exists") {
        return false;
    }
    if !same("effect") && !text(wide, "effect").is_empty() {
        return false;
    }
    let seconds = |v: &Value| v.get("tolerationSeconds").as_i64();
    if text(wide, "effect") == "NoExecute"
        && let Some(longest) = seconds(wide)
        && seconds(t).is_none_or(|s| s > longest)
    {
        return false;
    }
    match operator.as_str() {
        "Exists" => true,
        "Equal" | "" => text(t, "operator") == "Equal" && same("value"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_toleration_covers_goes() {
        let t = |key: &str, operator: &str, value: &str, effect: &str| object!({"key": key, "operator": operator, "value": value, "effect": effect});
        let check = |own: Vec<Value>, more: Vec<Value>, want: &[&Value]| {
            let mut merged = own;
            merge(&mut merged, more);
            assert_eq!(merged.iter().collect::<Vec<_>>(), want);
        };
        let (all, a, b) =
            (t("", "Exists", "", ""), t("a", "Equal", "1", "NoSchedule"), t("b", "Exists", "", ""));
        check(vec![a.clone(), b.clone()], vec![all.clone()], &[&all]);
        check(vec![a.clone()], vec![b.clone(), a.clone()], &[&b, &a]);
        check(vec![b.clone()], vec![t("b", "Equal", "x", "NoExecute")], &[&b]);
        let (long, short) = (
            object!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10}),
            object!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}),
        );
        assert!(covers(&long, &short) && !covers(&short, &long));
    }
}
