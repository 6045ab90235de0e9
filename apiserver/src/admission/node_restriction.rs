//! NodeRestriction: a kubelet changes its own node and the pods bound to it, and nothing else.

use api::error::Result;
use api::{ApiError, Value};

use super::{Operation, forbid};
use crate::registry::Call;
use crate::resources::TABLE;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels below kubernetes.io that a kubelet may set on its node.
const OWN_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "node.kubernetes.io/windows-build",
];

pub(super) fn validate(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    let Some(node) = call.user.node_name().map(str::to_owned) else { return Ok(()) };
    match (call.row.group, call.row.plural) {
        ("", "nodes") => check_node(call, &node, operation, object, old),
        ("", "pods") if call.subresource == "eviction" => check_eviction(call, &node, object),
        ("", "pods") => check_pod(call, &node, operation, object, old),
        ("", "serviceaccounts") if call.subresource == "token" => check_token(call, &node, object),
        ("coordination.k8s.io", "leases") => check_name(call, &node, "lease"),
        ("storage.k8s.io", "csinodes") => check_name(call, &node, "CSINode"),
        _ => Ok(()),
    }
}

fn check_name(call: &Call, node: &str, what: &str) -> Result<()> {
    if call.name.is_empty() || call.name == node {
        return Ok(());
    }
    Err(forbid(call, &call.name, format!("can only access {what} with the same name as the requesting node")))
}

fn check_node(
    call: &Call,
    node: &str,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    let name = object.or(old).map_or("", Value::name);
    let named = if name.is_empty() { call.name.as_str() } else { name };
    if named != node {
        let why = format!(
            "node {} is not allowed to modify node {}",
            api::field::go_quote(node),
            api::field::go_quote(named)
        );
        return Err(forbid(call, named, why));
    }
    let (Some(new), Some(old)) = (object, old) else {
        return match (operation, object) {
            (Operation::Create, Some(new)) => check_labels(call, new, None),
            _ => Ok(()),
        };
    };
    if new.at(&["spec", "taints"]) != old.at(&["spec", "taints"]) && call.subresource.is_empty() {
        let why = format!("node {} is not allowed to modify taints", api::field::go_quote(node));
        return Err(forbid(call, named, why));
    }
    if new.at(&["spec", "configSource"]) != old.at(&["spec", "configSource"]) {
        return Err(forbid(
            call,
            named,
            "is not allowed to update configSource to a new non-nil configSource",
        ));
    }
    check_labels(call, new, Some(old))
}

fn check_labels(call: &Call, new: &Value, old: Option<&Value>) -> Result<()> {
    let mut refused: Vec<&str> = new
        .at(&["metadata", "labels"])
        .as_object()
        .into_iter()
        .flat_map(|m| m.iter())
        .filter(|(key, value)| old.is_none_or(|o| o.at(&["metadata", "labels", key]) != *value))
        .map(|(key, _)| key)
        .filter(|key| is_restricted(key))
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    refused.sort_unstable();
    let why = format!("is not allowed to modify labels: {}", refused.join(", "));
    Err(forbid(call, new.name(), why))
}

fn is_restricted(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    let within = |suffix: &str| domain == suffix || domain.ends_with(&format!(".{suffix}"));
    if within("node-restriction.kubernetes.io") {
        return true;
    }
    if within("kubelet.kubernetes.io") || within("node.kubernetes.io") {
        return false;
    }
    (within("kubernetes.io") || within("k8s.io")) && !OWN_LABELS.contains(&label)
}

fn check_pod(
    call: &Call,
    node: &str,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    let bound_here = |pod: &Value| pod.str_at(&["spec", "nodeName"]) == node;
    let quoted = api::field::go_quote(node);
    match operation {
        Operation::Create if call.subresource.is_empty() => {
            let Some(pod) = object else { return Ok(()) };
            if pod.annotation(MIRROR).is_none() {
                let why = format!(
                    "pod does not have {:?} annotation, node {quoted} can only create mirror pods",
                    MIRROR
                );
                return Err(forbid(call, pod.name(), why));
            }
            if !bound_here(pod) {
                let why = format!("node {quoted} can only create pods with spec.nodeName set to itself");
                return Err(forbid(call, pod.name(), why));
            }
            Ok(())
        }
        _ => {
            let Some(pod) = old else { return Ok(()) };
            if bound_here(pod) {
                return Ok(());
            }
            let what =
                if operation == Operation::Delete { "delete pods" } else { "update pod status for pods" };
            let why = format!("node {quoted} can only {what} with spec.nodeName set to itself");
            Err(forbid(call, pod.name(), why))
        }
    }
}

/// A kubelet evicts no pods but its own.
fn check_eviction(call: &Call, node: &str, eviction: Option<&Value>) -> Result<()> {
    let name = match (call.name.as_str(), eviction) {
        ("", Some(eviction)) => eviction.name(),
        (name, _) => name,
    };
    let key = format!("{}/{name}", call.namespace);
    let pod = call.server.storage.cache(TABLE.store("", "pods")).get(&key);
    let pod = pod.ok_or_else(|| ApiError::not_found("", "pods", name))?.object();
    if pod.str_at(&["spec", "nodeName"]) == node {
        return Ok(());
    }
    let quoted = api::field::go_quote(node);
    Err(forbid(call, name, format!("node {quoted} can only evict pods with spec.nodeName set to itself")))
}

/// Tokens are for pods that run on the node.
fn check_token(call: &Call, node: &str, request: Option<&Value>) -> Result<()> {
    let reference = request.map_or(&Value::Null, |r| r.at(&["spec", "boundObjectRef"]));
    if reference.kind() != "Pod" {
        return Err(forbid(call, &call.name, "node requested token not bound to a pod"));
    }
    let key = format!("{}/{}", call.namespace, reference.str_at(&["name"]));
    let pod = call.server.storage.cache(TABLE.store("", "pods")).get(&key).map(|s| s.object());
    let fits =
        pod.is_some_and(|p| p.str_at(&["spec", "nodeName"]) == node && p.uid() == reference.str_at(&["uid"]));
    if fits {
        return Ok(());
    }
    Err(forbid(call, &call.name, "node requested token bound to a pod scheduled on a different node"))
}
