//! Parameters of operations.

use api::{Map, Value, object};

use super::Format;
use super::definitions::Definitions;
use crate::types::{self, Shape};

/// Query parameters: name, type, what they do.
const QUERY: [(&str, &str, &str); 19] = [
    (
        "allowWatchBookmarks",
        "boolean",
        "Asks for events of type BOOKMARK in a watch. Servers that have none ignore it, and send them when they like.",
    ),
    (
        "continue",
        "string",
        "Where the next page of a list begins: taken from the metadata of the page before.",
    ),
    (
        "dryRun",
        "string",
        "When present, nothing is stored. Valid values are: All: everything but storing is done.",
    ),
    (
        "fieldManager",
        "string",
        "Name of whoever makes the change, of at most 128 printable characters. Required for apply patches.",
    ),
    ("fieldSelector", "string", "Restricts the objects by their fields. Everything by default."),
    (
        "fieldValidation",
        "string",
        "What happens to unknown and duplicate fields: Ignore drops them, Warn (the default) drops them and warns, Strict refuses the request.",
    ),
    ("force", "boolean", "Takes over the fields that other managers own. Only for apply patches."),
    (
        "gracePeriodSeconds",
        "integer",
        "Seconds before the object is deleted; zero deletes at once. By default what the object's kind says.",
    ),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Deletes an object that can no longer be read from storage, without finalizers and preconditions. May break the cluster.",
    ),
    ("labelSelector", "string", "Restricts the objects by their labels. Everything by default."),
    ("limit", "integer", "The most objects to return; what is left is found with `continue`."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy. Whether dependents are kept."),
    ("pretty", "string", "If 'true', the answer is indented."),
    (
        "propagationPolicy",
        "string",
        "What happens to dependents: Orphan keeps them, Background deletes them after, Foreground before.",
    ),
    (
        "resourceVersion",
        "string",
        "Which versions may be answered. See https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions.",
    ),
    (
        "resourceVersionMatch",
        "string",
        "How resourceVersion is meant in lists. See https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions.",
    ),
    (
        "sendInitialEvents",
        "boolean",
        "Begins a watch with an event for each object there is, and a bookmark after them.",
    ),
    ("timeoutSeconds", "integer", "How long a list or watch may take."),
    ("watch", "boolean", "Answers with a stream of changes from resourceVersion on."),
];

pub(super) const LIST: [&str; 11] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
];
pub(super) const DELETE: [&str; 5] = [
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
pub(super) const DELETE_COLLECTION: [&str; 14] = [
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
];
pub(super) const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
pub(super) const PATCH: [&str; 4] = ["dryRun", "fieldManager", "fieldValidation", "force"];

fn parameter(format: Format, place: &str, name: &str, kind: &str, about: &str) -> Value {
    let mut out = Map::new();
    if !about.is_empty() {
        out.push("description", about.into());
    }
    out.push("in", place.into());
    out.push("name", name.into());
    if place == "path" {
        out.push("required", true.into());
    }
    match format {
        Format::V2 => {
            out.push("type", kind.into());
            out.push("uniqueItems", true.into());
        }
        Format::V3 => out.push("schema", object!({"type": kind, "uniqueItems": true})),
    }
    Value::Object(out)
}

/// The query parameters of these names.
pub(super) fn query(format: Format, names: &[&str]) -> Vec<Value> {
    let find = |name: &&str| {
        let (_, kind, about) = QUERY.iter().find(|(n, _, _)| n == name).copied().unwrap_or((
            "",
            "string",
            "Restricts the objects to a share of them. An alpha feature.",
        ));
        parameter(format, "query", name, kind, about)
    };
    names.iter().map(find).collect()
}

/// Which parts of a path are parameters: whether it has a name and a namespace.
pub(super) fn of_path(format: Format, kind: &str, path: &str) -> Vec<Value> {
    let mut out = Vec::new();
    let mut add = |name: &str, about: &str| {
        if path.contains(&format!("{{{name}}}")) {
            out.push(parameter(format, "path", name, "string", about));
        }
    };
    add("name", &format!("name of the {kind}"));
    add("namespace", "object name and auth scope, such as for teams and projects");
    add("path", "path to the resource");
    out
}

/// The fields of a type as query parameters.
pub(super) fn of_type(definitions: &Definitions<'_>, name: &str) -> Vec<Value> {
    let Some(ty) = types::named(name) else { return Vec::new() };
    let fields = ty.as_struct().map_or(&[][..], |s| &s.fields);
    let mut out: Vec<(&str, Value)> = Vec::new();
    for f in fields.iter().filter(|f| f.name != "kind" && f.name != "apiVersion") {
        let ty = ty.at(f.ty);
        let shape = match ty.shape() {
            Shape::List(l) => ty.at(l.item).shape(),
            other => other,
        };
        let kind = match shape {
            Shape::Bool => "boolean",
            Shape::Int32 | Shape::Int64 => "integer",
            _ => "string",
        };
        // Not a parameter that can be given in a query.
        if matches!(shape, Shape::Time) {
            continue;
        }
        let about = definitions.about(name, &f.name).unwrap_or_default();
        out.push((&f.name, parameter(definitions.format, "query", &f.name, kind, &about)));
    }
    out.sort_by_key(|(name, _)| *name);
    out.into_iter().map(|(_, p)| p).collect()
}
