//! ResourceQuota: a write that would exceed what a namespace may use is refused.
//!
//! Usage is counted in the quota's status, in the same guarded way as any other write, before the object is written.

use api::Value;
use api::error::Result;
use api::quantity::Quantity;

use jiff::Timestamp;
use quota::{Source, Usage, in_scope, quantities, quantity, usage};

use super::{Operation, forbid, is_resize};
use crate::registry::Call;
use crate::resources::TABLE;

pub(super) async fn validate(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    let (Some(new), Operation::Create | Operation::Update) = (object, operation) else { return Ok(()) };
    let resizes = is_resize(call, operation);
    if !call.row.namespaced
        || !(call.subresource.is_empty() || resizes)
        || !call.row.is_stored()
        || call.row.built_in() == "resourcequotas"
    {
        return Ok(());
    }
    // What a change may use more of are ports, storage, and what running pods are given.
    let may_grow = resizes || matches!(call.row.built_in(), "services" | "persistentvolumeclaims");
    if operation == Operation::Update && !may_grow {
        return Ok(());
    }
    let prefix = format!("{}/", call.namespace);
    let snapshot = call.server.storage.cache(TABLE.store("", "resourcequotas")).snapshot();
    let quotas: Vec<Value> = snapshot.below(&prefix).map(|s| s.object()).collect();
    if quotas.is_empty() {
        return Ok(());
    }
    let (source, now) = (Source::of(call.row.group, call.row.plural), Timestamp::now());
    let before = old.map(|o| usage(&source, o, now)).unwrap_or_default();
    let delta = difference(usage(&source, new, now), before);
    for quota in quotas.iter().filter(|q| in_scope(q, &source, new)) {
        charge(call, quota, new, &delta).await?;
    }
    Ok(())
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

/// Under a quota on cpu or memory every container must say what it needs, unless the pod does.
fn must_say(call: &Call, quota: &Value, pod: &Value, limited: &[String]) -> Result<()> {
    if !pod.at(&["spec", "resources"]).is_empty() {
        return Ok(());
    }
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
            .chain(pod.array_at(&["spec", "initContainers"]))
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
