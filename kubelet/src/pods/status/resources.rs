//! The resources that a status shows: what was given, corrected by what the runtime and the kernel say is in effect.

use api::quantity::{Format, Quantity};
use api::{Map, Value};
use linux::cgroup::Limits;

use super::Context;
use crate::pods::observed::{Container, State};
use crate::pods::{resources, spec};

/// At or below these the kernel does not tell amounts apart.
const LEAST_CPU_LIMIT: i64 = 10;
const LEAST_CPU_REQUEST: i64 = 2;

fn cpu(millis: i64) -> Value {
    Quantity::from_millis(millis).to_string().into()
}

fn bytes(bytes: i64) -> Value {
    Quantity::from_units(bytes, Format::BinarySi).to_string().into()
}

fn is_object(value: &Value) -> bool {
    value.as_object().is_some()
}

/// Puts a container's resources and what was given to it into its status. `old` is its last status.
pub(super) fn of_container(container: &Value, newest: &Container, old: Option<&Value>, out: &mut Map) {
    let requests = container.at(&["resources", "requests"]);
    if !requests.is_empty() {
        out.push("allocatedResources", requests.clone());
    }
    let mut shown = Value::Object(container.get("resources").as_object().cloned().unwrap_or_default());
    if newest.state == State::Running {
        let id = super::containers::container_id(&newest.id);
        let same =
            |old: &&Value| old.str_at(&["containerID"]) == id && !old.at(&["state", "running"]).is_null();
        in_effect(&mut shown, newest, old.filter(same).map_or(&Value::Null, |old| old.get("resources")));
    }
    out.push("resources", shown);
}

fn in_effect(shown: &mut Value, newest: &Container, old: &Value) {
    let given = &newest.resources;
    for (kind, resource, actual, least) in [
        ("limits", "cpu", given.cpu_limit, LEAST_CPU_LIMIT),
        ("limits", "memory", given.memory_limit, 0),
        ("requests", "cpu", given.cpu_request, LEAST_CPU_REQUEST),
        ("requests", "memory", given.memory_request, 0),
    ] {
        if !is_object(shown.get(kind)) {
            continue;
        }
        let allocated = resources::amount(shown, kind, resource).unwrap_or_default();
        match actual {
            Some(actual) if actual > least || allocated > least => {
                shown.set(&[kind, resource], if resource == "cpu" { cpu(actual) } else { bytes(actual) });
            }
            Some(_) => {}
            None if old.at(&[kind, resource]).is_null() => {}
            None => shown.set(&[kind, resource], old.at(&[kind, resource]).clone()),
        }
    }
}

/// What was given to the pod as a whole, and what of it is in effect.
pub(super) fn of_pod(context: &Context<'_>, status: &mut Map) {
    let pod = context.pod;
    let requests = sums(pod, "requests");
    status.push("allocatedResources", requests.clone());
    let mut shown = Value::Object(pod.at(&["spec", "resources"]).as_object().cloned().unwrap_or_default());
    if pod.str_at(&["status", "phase"]) == "Running" {
        // The kernel does not know of requests of memory.
        if shown.at(&["requests", "memory"]).is_null() && !requests.get("memory").is_null() {
            shown.set(&["requests", "memory"], requests.get("memory").clone());
        }
        of_group(&mut shown, &(context.limits)(), pod.at(&["status", "resources"]));
    } else {
        shown.set(&["requests"], requests);
        shown.set(&["limits"], sums(pod, "limits"));
    }
    for kind in ["requests", "limits"] {
        if shown.get(kind).is_empty() {
            shown.remove_at(&[kind]);
        }
    }
    status.push("resources", shown);
}

fn of_group(shown: &mut Value, limits: &Limits, old: &Value) {
    let quota = limits.cpu_quota_us.unwrap_or(-1);
    let period = limits.cpu_period_us.and_then(|period| i64::try_from(period).ok()).unwrap_or_default();
    let shares = limits.cpu_shares.and_then(|shares| i64::try_from(shares).ok());
    let memory = limits.memory.filter(|memory| *memory > 0);
    for (kind, resource, actual, least) in [
        ("requests", "cpu", shares.map(resources::millis_of_shares), LEAST_CPU_REQUEST),
        ("limits", "cpu", resources::millis_of_quota(quota, period), LEAST_CPU_LIMIT),
        ("limits", "memory", memory, 0),
    ] {
        let allocated = resources::amount(shown, kind, resource).unwrap_or_default();
        match actual {
            Some(actual) if actual > least || allocated > least => {
                shown.set(&[kind, resource], if resource == "cpu" { cpu(actual) } else { bytes(actual) });
            }
            Some(_) => {}
            None if old.at(&[kind, resource]).is_null() => {}
            None => shown.set(&[kind, resource], old.at(&[kind, resource]).clone()),
        }
    }
}

/// What the pod has in all of each resource that it names.
fn sums(pod: &Value, kind: &str) -> Value {
    let mut names: Vec<&str> = Vec::new();
    let lists = spec::all_containers(pod).map(|container| container.at(&["resources", kind]));
    let whole = [pod.at(&["spec", "resources", kind]), pod.at(&["spec", "overhead"])];
    for name in lists.chain(whole).filter_map(Value::as_object).flat_map(Map::keys) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.sort_unstable();
    let mut out = Map::new();
    for name in names {
        // A sum of one is shown as it was written.
        if let (own @ Value::String(_), Value::Null) = (whole[0].get(name), whole[1].get(name)) {
            out.push(name, own.clone());
            continue;
        }
        let sum = resources::sum(pod, kind, name);
        let text = match name {
            "cpu" => cpu(sum),
            "memory" => bytes(sum),
            name if name.starts_with("hugepages-") || name == "ephemeral-storage" => bytes(sum),
            _ => Quantity::from_units(sum, Format::DecimalSi).to_string().into(),
        };
        out.push(name, text);
    }
    Value::Object(out)
}
