//! LimitRanger: defaults and bounds of the resources of pods and claims in a namespace.

use std::collections::BTreeMap;

use api::error::Result;
use api::quantity::Quantity;
use api::{Map, Value};

use super::{Operation, forbid, is, is_resize, name_of};
use crate::registry::Call;
use crate::resources::TABLE;

/// The limits that hold in the namespace of the call.
fn limits(call: &Call) -> Vec<(String, Value)> {
    let snapshot = call.server.storage.cache(TABLE.store("", "limitranges")).snapshot();
    let prefix = format!("{}/", call.namespace);
    let here = snapshot.below(&prefix).map(|s| s.object());
    here.flat_map(|range| {
        let name = range.name().to_owned();
        range.array_at(&["spec", "limits"]).iter().map(|l| (name.clone(), l.clone())).collect::<Vec<_>>()
    })
    .collect()
}

pub(super) fn mutate(call: &Call, operation: Operation, pod: &mut Value) -> Result<()> {
    if operation != Operation::Create || !is(call, "", "pods") {
        return Ok(());
    }
    let mut told: Option<(String, Vec<String>)> = None;
    for (range, limit) in limits(call).iter().filter(|(_, l)| l.str_at(&["type"]) == "Container") {
        for list in ["containers", "initContainers"] {
            let containers = pod.at_mut(&["spec", list]).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                let kind = if list == "containers" { "container" } else { "init container" };
                let set = [("defaultRequest", "requests", "request"), ("default", "limits", "limit")]
                    .into_iter()
                    .filter_map(|(from, to, word)| {
                        let added = fill(container, limit.get(from), to);
                        (!added.is_empty()).then(|| {
                            format!("{} {word} for {kind} {}", added.join(", "), container.str_at(&["name"]))
                        })
                    })
                    .collect::<Vec<_>>();
                if !set.is_empty() {
                    told.get_or_insert_with(|| (range.clone(), Vec::new())).1.extend(set);
                }
            }
        }
    }
    if let Some((_, sentences)) = told {
        let text = format!("LimitRanger plugin set: {}", sentences.join("; "));
        pod.set(&["metadata", "annotations", "kubernetes.io/limit-ranger"], text);
    }
    Ok(())
}

/// Adds absent quantities and returns their names.
fn fill(container: &mut Value, values: &Value, to: &str) -> Vec<String> {
    let mut added = Vec::new();
    for (name, value) in values.as_object().into_iter().flat_map(Map::iter) {
        let present = container.at(&["resources", to, name]);
        if present.is_null() {
            container.set(&["resources", to, name], value);
            added.push(name.to_owned());
        }
    }
    added
}

pub(super) fn validate(call: &Call, operation: Operation, object: Option<&Value>) -> Result<()> {
    let Some(object) = object else { return Ok(()) };
    let creates = is(call, "", "pods") && operation == Operation::Create;
    let is_pod = creates || is_resize(call, operation);
    let is_claim = is(call, "", "persistentvolumeclaims");
    if !is_pod && !is_claim {
        return Ok(());
    }
    let mut errors = Vec::new();
    for (_, limit) in limits(call) {
        match limit.str_at(&["type"]) {
            "Container" if is_pod => {
                for container in
                    ["containers", "initContainers"].into_iter().flat_map(|l| object.array_at(&["spec", l]))
                {
                    check(&limit, container.get("resources"), "Container", &mut errors);
                }
            }
            "Pod" if is_pod => check(&limit, &total(object), "Pod", &mut errors),
            "PersistentVolumeClaim" if is_claim => {
                check(&limit, object.at(&["spec", "resources"]), "PersistentVolumeClaim", &mut errors);
            }
            _ => {}
        }
    }
    match errors.len() {
        0 => Ok(()),
        1 => Err(forbid(call, name_of(object), &errors[0])),
        _ => Err(forbid(call, name_of(object), format!("[{}]", errors.join(", ")))),
    }
}

/// What a pod asks for and may use in all: what its containers do together, or what it takes while it begins, whichever
/// is more; or what it says itself.
fn total(pod: &Value) -> Value {
    let mut total = Value::object();
    for kind in ["requests", "limits"] {
        let of = |container: &Value| amounts(container.at(&["resources", kind]));
        let (mut sum, mut sidecars, mut beginning) = (Amounts::new(), Amounts::new(), Amounts::new());
        for container in pod.array_at(&["spec", "containers"]) {
            combine(&mut sum, of(container), Quantity::plus);
        }
        for container in pod.array_at(&["spec", "initContainers"]) {
            let mut now = sidecars.clone();
            combine(&mut now, of(container), Quantity::plus);
            if container.str_at(&["restartPolicy"]) == "Always" {
                combine(&mut sum, of(container), Quantity::plus);
                sidecars.clone_from(&now);
            }
            combine(&mut beginning, now, Quantity::max);
        }
        combine(&mut sum, beginning, Quantity::max);
        for (name, own) in amounts(pod.at(&["spec", "resources", kind])) {
            if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
                sum.insert(name, own);
            }
        }
        for (name, amount) in sum {
            total.set(&[kind, &name], amount.to_string());
        }
    }
    total
}

type Amounts = BTreeMap<String, Quantity>;

fn amounts(list: &Value) -> Amounts {
    let all = list.as_object().into_iter().flat_map(Map::iter);
    all.filter_map(|(name, amount)| Some((name.to_owned(), quantity(amount)?))).collect()
}

fn combine(all: &mut Amounts, more: Amounts, how: fn(Quantity, Quantity) -> Quantity) {
    for (name, amount) in more {
        let known = all.entry(name).or_insert(Quantity::ZERO);
        *known = how(*known, amount);
    }
}

fn quantity(v: &Value) -> Option<Quantity> {
    v.as_str()?.parse().ok()
}

fn check(limit: &Value, resources: &Value, kind: &str, errors: &mut Vec<String>) {
    let each = |bound: &'static str| {
        limit
            .get(bound)
            .as_object()
            .into_iter()
            .flat_map(Map::iter)
            .filter_map(|(n, q)| Some((n.to_owned(), quantity(q)?)))
    };
    let got = |list: &str, name: &str| quantity(resources.at(&[list, name]));
    for (name, min) in each("min") {
        match got("requests", &name) {
            None => {
                errors.push(format!("minimum {name} usage per {kind} is {min}.  No request is specified"))
            }
            Some(q) if q < min => {
                errors.push(format!("minimum {name} usage per {kind} is {min}, but request is {q}"))
            }
            _ => {}
        }
    }
    for (name, max) in each("max") {
        match (got("limits", &name), got("requests", &name)) {
            (None, request) if kind == "PersistentVolumeClaim" => {
                if let Some(q) = request.filter(|q| *q > max) {
                    errors.push(format!("maximum {name} usage per {kind} is {max}, but request is {q}"));
                }
            }
            (None, _) => {
                errors.push(format!("maximum {name} usage per {kind} is {max}.  No limit is specified"))
            }
            (Some(q), _) if q > max => {
                errors.push(format!("maximum {name} usage per {kind} is {max}, but limit is {q}"))
            }
            _ => {}
        }
    }
    for (name, ratio) in each("maxLimitRequestRatio") {
        if let (Some(limit), Some(request)) = (got("limits", &name), got("requests", &name))
            && !request.is_zero()
            && limit.as_f64() / request.as_f64() > ratio.as_f64()
        {
            let actual = limit.as_f64() / request.as_f64();
            errors.push(format!(
                "{name} max limit to request ratio per {kind} is {ratio}, but provided ratio is {actual:.6}"
            ));
        }
    }
}
