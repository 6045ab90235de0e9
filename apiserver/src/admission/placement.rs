//! Where pods may run: PodNodeSelector, LimitPodHardAntiAffinityTopology, PodTopologyLabels, PodResizeValidator.

use std::collections::BTreeMap;

use api::error::{Cause, Result};
use api::{ApiError, Map, Value};
use placement::{Resources, pod_requests};

use super::{Operation, forbid, is, is_resize, name_of, plain};
use crate::registry::Call;
use crate::resources::TABLE;

const SELECTOR: &str = "scheduler.alpha.kubernetes.io/node-selector";
const DEFAULT: &str = "clusterDefaultNodeSelector";
const HOSTNAME: &str = "kubernetes.io/hostname";
const OS: &str = "kubernetes.io/os";
/// Labels of nodes that their pods have too.
const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

type Labels = BTreeMap<String, String>;

/// Reads `a=b,c=d`.
fn labels(text: &str) -> Result<Labels> {
    let mut out = Labels::new();
    for term in text.split(',').filter(|_| !text.is_empty()) {
        let wrong = || plain(format!("invalid selector: {term}"));
        let (key, value) = term.split_once('=').ok_or_else(wrong)?;
        out.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(out)
}

fn own_labels(pod: &Value) -> Labels {
    let own = pod.at(&["spec", "nodeSelector"]).as_object();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    own.into_iter().flat_map(Map::iter).map(|(k, v)| (k.to_owned(), text(v))).collect()
}

fn conflict(a: &Labels, b: &Labels) -> bool {
    a.iter().any(|(key, value)| b.get(key).is_some_and(|other| other != value))
}

/// The selector of the namespace, or that of the cluster.
fn selector_of_namespace(call: &Call) -> Result<Labels> {
    let home = call.server.storage.cache(TABLE.store("", "namespaces")).get(&call.namespace);
    let home = home.ok_or_else(|| ApiError::not_found("", "namespaces", &call.namespace))?.object();
    let configured = &call.server.config.admission.node_selectors;
    let text = home.annotation(SELECTOR);
    labels(text.unwrap_or_else(|| configured.get(DEFAULT).map_or("", String::as_str)))
}

/// A pod is placed by the selector of its namespace beside its own.
pub(super) fn select_nodes(call: &Call, operation: Operation, pod: &mut Value) -> Result<()> {
    if operation != Operation::Create || !is(call, "", "pods") {
        return Ok(());
    }
    let (namespace, own) = (selector_of_namespace(call)?, own_labels(pod));
    if !conflict(&namespace, &own) {
        for (key, value) in &namespace {
            pod.set(&["spec", "nodeSelector", key], value.as_str());
        }
    }
    check_selector(call, operation, pod)
}

/// The selector of a pod is one that its namespace allows.
pub(super) fn check_selector(call: &Call, operation: Operation, pod: &Value) -> Result<()> {
    if operation != Operation::Create || !is(call, "", "pods") {
        return Ok(());
    }
    let own = own_labels(pod);
    if conflict(&selector_of_namespace(call)?, &own) {
        let why = "pod node label selector conflicts with its namespace node label selector";
        return Err(forbid(call, name_of(pod), why));
    }
    let configured = &call.server.config.admission.node_selectors;
    let allowed = labels(configured.get(&call.namespace).map_or("", String::as_str))?;
    if !allowed.is_empty() && own.iter().any(|(key, value)| allowed.get(key) != Some(value)) {
        let why = "pod node label selector labels conflict with its namespace whitelist";
        return Err(forbid(call, name_of(pod), why));
    }
    Ok(())
}

/// Pods keep away from each other within single nodes only.
pub(super) fn check_affinity(call: &Call, pod: &Value) -> Result<()> {
    if !is(call, "", "pods") {
        return Ok(());
    }
    let path = ["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    let keys = pod.array_at(&path).iter().map(|term| term.str_at(&["topologyKey"]));
    match keys.into_iter().find(|key| *key != HOSTNAME) {
        None => Ok(()),
        Some(key) => {
            let why = format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOSTNAME} is allowed"
            );
            Err(forbid(call, name_of(pod), why))
        }
    }
}

/// Pods have the labels that say where their node is.
pub(super) fn label_topology(call: &Call, operation: Operation, object: &mut Value) {
    if operation != Operation::Create || call.row.plural != "pods" || !call.row.group.is_empty() {
        return;
    }
    let node = match call.subresource.as_str() {
        "" => object.str_at(&["spec", "nodeName"]),
        "binding" if object.str_at(&["target", "kind"]) == "Node" => object.str_at(&["target", "name"]),
        _ => return,
    };
    let node = call.server.storage.cache(TABLE.store("", "nodes")).get(node);
    for key in TOPOLOGY {
        if let Some(value) = node.as_ref().and_then(|n| n.label(key)) {
            object.set(&["metadata", "labels", key], value);
        }
    }
}

/// A pod grows only where its node has room for it alone.
pub(super) fn check_resize(
    call: &Call,
    operation: Operation,
    new: &Value,
    old: Option<&Value>,
) -> Result<()> {
    if !is_resize(call, operation) {
        return Ok(());
    }
    let generation = |pod: &Value| pod.at(&["metadata", "generation"]).as_i64();
    let name = new.str_at(&["spec", "nodeName"]);
    if name.is_empty() || old.is_some_and(|old| generation(old) == generation(new)) {
        return Ok(());
    }
    let quoted = api::field::go_quote(name);
    let node = call.server.storage.cache(TABLE.store("", "nodes")).get(name).map(|n| n.object());
    let missing = || forbid(call, name_of(new), format!("node {quoted} not found"));
    let node = node.ok_or_else(missing)?;
    let refuse = |why: String, reason: &str| {
        let mut error = forbid(call, name_of(new), why);
        let cause = Cause { reason: reason.to_owned(), ..Cause::default() };
        error.status_mut().details.causes.push(cause);
        Err(error)
    };
    if let Some(os) = node.label(OS).filter(|os| *os != "linux") {
        let os = api::field::go_quote(os);
        let why = format!("pod resize is only supported on linux nodes, node {quoted} is {os}");
        return refuse(why, "UnsupportedPlatform");
    }
    let (asked, room) = (pod_requests(new), Resources::of(node.at(&["status", "allocatable"])));
    let amounts = [("cpu", asked.milli_cpu, room.milli_cpu), ("memory", asked.memory, room.memory)];
    let told: Vec<String> = amounts
        .into_iter()
        .filter(|(_, asked, room)| asked > room)
        .map(|(name, asked, room)| format!("{name}, requested: {asked}, allocatable: {room}"))
        .collect();
    if told.is_empty() {
        return Ok(());
    }
    refuse(format!("node didn't have enough allocatable resources: {}", told.join("; ")), "NodeCapacity")
}
