//! ResourceQuota: a write that would exceed what a namespace may use is refused.
//!
//! Usage is counted in the quota's status, in the same guarded way as any other write, before the object is written.

use std::collections::BTreeMap;

use api::error::Result;
use api::quantity::Quantity;
use api::{Map, Value};

use super::{Operation, forbid};
use crate::registry::Call;
use crate::resources::TABLE;

type Usage = BTreeMap<String, Quantity>;

pub(super) async fn validate(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    let (Some(new), Operation::Create | Operation::Update) = (object, operation) else { return Ok(()) };
    if !call.row.namespaced
        || !call.subresource.is_empty()
        || !call.row.is_stored()
        || call.row.built_in() == "resourcequotas"
    {
        return Ok(());
    }
    // What a change may use more of are ports and storage.
    if operation == Operation::Update && !matches!(call.row.built_in(), "services" | "persistentvolumeclaims")
    {
        return Ok(());
    }
    let prefix = format!("{}/", call.namespace);
    let snapshot = call.server.storage.cache(TABLE.store("", "resourcequotas")).snapshot();
    let quotas: Vec<Value> =
        snapshot.objects.values().filter(|s| s.key.starts_with(&prefix)).map(|s| s.object()).collect();
    if quotas.is_empty() {
        return Ok(());
    }
    let delta = difference(usage(call, new), old.map(|o| usage(call, o)).unwrap_or_default());
    for quota in quotas.iter().filter(|q| in_scope(q, new)) {
        charge(call, quota, new, &delta).await?;
    }
    Ok(())
}

/// Scopes that a quota is limited to.
fn in_scope(quota: &Value, object: &Value) -> bool {
    quota.array_at(&["spec", "scopes"]).iter().filter_map(Value::as_str).all(|scope| {
        let deadline = !object.at(&["spec", "activeDeadlineSeconds"]).is_null();
        let best_effort = object.str_at(&["status", "qosClass"]) == "BestEffort";
        object.kind() == "Pod"
            && match scope {
                "Terminating" => deadline,
                "NotTerminating" => !deadline,
                "BestEffort" => best_effort,
                "NotBestEffort" => !best_effort,
                _ => false,
            }
    })
}

/// What an object uses, by the names quotas have for it.
fn usage(call: &Call, object: &Value) -> Usage {
    let mut usage = Usage::new();
    let one = Quantity::from_units(1, api::quantity::Format::DecimalSi);
    usage.insert(format!("count/{}", api::error::qualified(call.row.group, call.row.plural)), one);
    match call.row.built_in() {
        "pods" => {
            if matches!(object.str_at(&["status", "phase"]), "Failed" | "Succeeded") {
                return Usage::new();
            }
            usage.insert("pods".to_owned(), one);
            pod_usage(object, &mut usage);
        }
        "services" => {
            usage.insert("services".to_owned(), one);
            let ports = node_ports(object);
            if ports > 0 {
                let ports = Quantity::from_units(ports, api::quantity::Format::DecimalSi);
                usage.insert("services.nodeports".to_owned(), ports);
            }
            if object.str_at(&["spec", "type"]) == "LoadBalancer" {
                usage.insert("services.loadbalancers".to_owned(), one);
            }
        }
        "persistentvolumeclaims" => {
            usage.insert("persistentvolumeclaims".to_owned(), one);
            if let Some(q) = quantity(object.at(&["spec", "resources", "requests", "storage"])) {
                usage.insert("requests.storage".to_owned(), q);
            }
        }
        plural @ ("configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => {
            usage.insert(plural.to_owned(), one);
        }
        _ => {}
    }
    usage
}

/// How many ports of the nodes a Service has, or will get.
fn node_ports(service: &Value) -> i64 {
    let ports = service.array_at(&["spec", "ports"]);
    let without = service.at(&["spec", "allocateLoadBalancerNodePorts"]).as_bool() == Some(false);
    let count = match service.str_at(&["spec", "type"]) {
        "LoadBalancer" if without => ports.iter().filter(|p| !p.get("nodePort").is_empty()).count(),
        "NodePort" | "LoadBalancer" => ports.len(),
        _ => 0,
    };
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn pod_usage(pod: &Value, usage: &mut Usage) {
    for (kind, bare) in [("requests", true), ("limits", false)] {
        let mut sum = Usage::new();
        for container in pod.array_at(&["spec", "containers"]) {
            for (name, q) in quantities(container.at(&["resources", kind])) {
                let total = sum.entry(name).or_insert(Quantity::ZERO);
                *total = total.plus(q);
            }
        }
        for container in pod.array_at(&["spec", "initContainers"]) {
            for (name, q) in quantities(container.at(&["resources", kind])) {
                let total = sum.entry(name).or_insert(Quantity::ZERO);
                *total = (*total).max(q);
            }
        }
        for (name, q) in sum {
            if bare && matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                usage.insert(name.clone(), q);
            }
            usage.insert(format!("{kind}.{name}"), q);
        }
    }
}

fn quantities(list: &Value) -> impl Iterator<Item = (String, Quantity)> {
    list.as_object()
        .into_iter()
        .flat_map(Map::iter)
        .filter_map(|(name, v)| Some((name.to_owned(), quantity(v)?)))
}

fn quantity(v: &Value) -> Option<Quantity> {
    v.as_str()?.parse().ok()
}

fn difference(new: Usage, old: Usage) -> Usage {
    new.into_iter()
        .map(|(name, q)| {
            let before = old.get(&name).copied().unwrap_or(Quantity::ZERO);
            (name, q.minus(before))
        })
        .filter(|(_, q)| *q > Quantity::ZERO)
        .collect()
}

async fn charge(call: &Call, quota: &Value, object: &Value, delta: &Usage) -> Result<()> {
    let row = TABLE.find_any_version("", "resourcequotas").expect("a built-in resource");
    let mut inner = call.internal(row, &call.namespace, quota.name());
    inner.subresource = "status".to_owned();
    let limited: Vec<String> = quantities(quota.at(&["spec", "hard"])).map(|(name, _)| name).collect();
    if call.row.built_in() == "pods" {
        must_say(call, quota, object, &limited)?;
    }
    if !limited.iter().any(|name| delta.contains_key(name)) {
        return Ok(());
    }
    let name = quota.name().to_owned();
    let change = |current: &Value| {
        let mut next = current.clone();
        let (mut requested, mut used, mut hard) = (Vec::new(), Vec::new(), Vec::new());
        for (resource, limit) in quantities(current.at(&["spec", "hard"])) {
            let Some(more) = delta.get(&resource) else { continue };
            let before = quantity(current.at(&["status", "used", &resource])).unwrap_or(Quantity::ZERO);
            let after = before.plus(*more);
            if after > limit {
                requested.push(format!("{resource}={more}"));
                used.push(format!("{resource}={before}"));
                hard.push(format!("{resource}={limit}"));
            }
            next.set(&["status", "used", &resource], after.to_string());
        }
        if requested.is_empty() {
            return Ok(next);
        }
        let why = format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            requested.join(","),
            used.join(","),
            hard.join(",")
        );
        Err(forbid(call, object.name(), why))
    };
    inner.update_within(change).await.map(|_| ())
}

/// Under a quota on cpu or memory every container must say what it needs.
fn must_say(call: &Call, quota: &Value, pod: &Value, limited: &[String]) -> Result<()> {
    let mut missing: Vec<String> = Vec::new();
    for name in limited {
        let (kind, resource) = match name.split_once('.') {
            Some((kind @ ("requests" | "limits"), resource)) => (kind, resource),
            None if matches!(name.as_str(), "cpu" | "memory") => ("requests", name.as_str()),
            _ => continue,
        };
        if !matches!(resource, "cpu" | "memory") {
            continue;
        }
        let silent: Vec<&str> = pod
            .array_at(&["spec", "containers"])
            .iter()
            .filter(|c| c.at(&["resources", kind, resource]).is_null())
            .map(|c| c.str_at(&["name"]))
            .collect();
        if !silent.is_empty() {
            missing.push(format!("{name} for: {}", silent.join(",")));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(forbid(
        call,
        pod.name(),
        format!("failed quota: {}: must specify {}", quota.name(), missing.join("; ")),
    ))
}
