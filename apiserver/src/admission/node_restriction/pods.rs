//! Pods: a kubelet creates those that mirror files of its node, and deletes, evicts and reports those that run there.

use api::Value;
use api::error::Result;
use api::pod::references;

use super::Write;
use crate::admission::Operation;

const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn check(write: &Write<'_>) -> Result<()> {
    let operation = api::field::go_quote(write.operation.name());
    match (write.call.subresource.as_str(), write.operation) {
        ("", Operation::Create) => create(write),
        ("", Operation::Delete) => delete(write),
        ("", _) => write.refuse(format!(
            "unexpected operation {operation}, node {} can only create and delete mirror pods",
            write.quoted()
        )),
        ("status", Operation::Update) => status(write),
        ("eviction", Operation::Create) => evict(write),
        ("status" | "eviction", _) => write.refuse(format!("unexpected operation {operation}")),
        (other, _) => write.refuse(format!(
            "unexpected pod subresource {}, only 'status' and 'eviction' are allowed",
            api::field::go_quote(other)
        )),
    }
}

fn runs_here(write: &Write<'_>, pod: &Value) -> bool {
    pod.str_at(&["spec", "nodeName"]) == write.node
}

fn create(write: &Write<'_>) -> Result<()> {
    let (pod, node) = (write.object, write.quoted());
    if pod.annotation(MIRROR).is_none() {
        let why = format!("pod does not have {MIRROR:?} annotation, node {node} can only create mirror pods");
        return write.refuse(why);
    }
    if !runs_here(write, pod) {
        return write.refuse(format!("node {node} can only create pods with spec.nodeName set to itself"));
    }
    let only =
        |what: &str| write.refuse(format!("node {node} can only create pods with {what} set to itself"));
    let owner = match pod.array_at(&["metadata", "ownerReferences"]) {
        [owner] => owner,
        [] => return only("an owner reference"),
        _ => return only("a single owner reference"),
    };
    if (owner.api_version(), owner.kind(), owner.str_at(&["name"])) != ("v1", "Node", write.node) {
        return only("an owner reference");
    }
    if owner.get("controller").as_bool() != Some(true) {
        return only("a controller owner reference");
    }
    if owner.get("blockOwnerDeletion").as_bool() == Some(true) {
        let why = format!("node {node} must not set blockOwnerDeletion on an owner reference");
        return write.refuse(why);
    }
    let (given, known) = (owner.str_at(&["uid"]), write.find("nodes", write.node)?);
    if given != known.uid() {
        let why = format!("node {} UID mismatch: expected {given} got {}", write.node, known.uid());
        return write.refuse(why);
    }
    match references::first(pod) {
        Some(what) => write.refuse(format!("node {node} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

fn delete(write: &Write<'_>) -> Result<()> {
    if runs_here(write, write.old) {
        return Ok(());
    }
    let node = write.quoted();
    write.refuse(format!("node {node} can only delete pods with spec.nodeName set to itself"))
}

fn status(write: &Write<'_>) -> Result<()> {
    let (new, old, node) = (write.object, write.old, write.quoted());
    if !runs_here(write, old) {
        let why = format!("node {node} can only update pod status for pods with spec.nodeName set to itself");
        return write.refuse(why);
    }
    for (path, what) in [
        (["metadata", "labels"], "update labels through pod status"),
        (["status", "resourceClaimStatuses"], "update resource claim statues"),
        (["status", "extendedResourceClaimStatus"], "update extended resource claim status"),
    ] {
        let (new, old) = (new.at(&path), old.at(&path));
        if new != old && !(new.is_empty() && old.is_empty()) {
            return write.refuse(format!("node {node} cannot {what}"));
        }
    }
    Ok(())
}

fn evict(write: &Write<'_>) -> Result<()> {
    let name = match write.call.name.as_str() {
        "" => write.object.name(),
        name => name,
    };
    if name.is_empty() {
        return write.refuse("could not determine pod from request data");
    }
    if runs_here(write, &write.find("pods", name)?) {
        return Ok(());
    }
    write.refuse(format!("node {} can only evict pods with spec.nodeName set to itself", write.node))
}
