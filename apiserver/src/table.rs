//! Tables: lists as people read them, for `kubectl get`.
//!
//! The columns stand in `data/columns.json`; the cells of a kind are one function in `table/cells.rs` or below.

mod cells;

use std::collections::HashMap;
use std::sync::LazyLock;

use api::{Value, object};
use jiff::Timestamp;

use crate::custom::Column;
use crate::negotiate::{Form, Include};
use crate::registry::to_storage;
use crate::render::metadata_of;
use crate::resources::{Resource, TABLE};

static COLUMNS: LazyLock<HashMap<String, Value>> = LazyLock::new(|| {
    let decoded =
        api::json::decode(include_bytes!("../data/columns.json")).expect("the columns are valid JSON");
    let Value::Object(map) = decoded.value else { return HashMap::new() };
    map.into_iter().map(|(key, columns)| (key.to_string(), columns)).collect()
});

const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// The columns of a resource; those of any resource without its own.
fn columns(row: &Resource) -> Value {
    if let Some(custom) = &row.custom {
        let mut columns = vec![object!({
            "name": "Name", "type": "string", "format": "name", "description": NAME, "priority": 0,
        })];
        columns.extend(custom.version().columns.iter().map(Column::head));
        return Value::Array(columns);
    }
    let group = if row.group.is_empty() { "core" } else { row.group };
    let of = |version: &str| COLUMNS.get(&format!("{group}/{version}/{}", row.plural));
    // Versions that look the same have the same columns.
    let own = of(row.version).or_else(|| of(TABLE.storage_row(row.store?).version));
    own.cloned().unwrap_or_else(|| {
        object!([
            {"name": "Name", "type": "string", "format": "name", "description": "Name must be unique within a namespace.", "priority": 0},
            {"name": "Created At", "type": "date", "format": "", "description": "When the object was created.", "priority": 0},
        ])
    })
}

/// The metrics of autoscalers stand in annotations of their older version.
fn is_older_autoscaler(row: &Resource) -> bool {
    row.built_in() == "horizontalpodautoscalers" && row.version == "v1"
}

/// What stands beside the cells of an object, whose metadata are those of the stored version.
fn beside(object: &Value, stored: &Value, form: Form) -> Value {
    match form.include {
        Include::Object => object.clone(),
        Include::None => Value::Null,
        Include::Metadata => metadata_of(stored, form),
    }
}

/// The kind of scales, which are of other types than the objects that they are of.
pub const SCALE: &str = "Scale";

/// The table of one scale. Columns of those of custom resources are described in other words.
pub fn of_scale(row: &Resource, scale: &Value, form: Form) -> Value {
    const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
    let (format, age, desired, available) = match row.custom {
        Some(_) => ("name", "date", "Number of desired replicas", "Number of actual replicas"),
        None => (
            "",
            "string",
            "replicas is the desired number of instances for the scaled object.",
            "replicas is the actual number of observed instances of the scaled object.",
        ),
    };
    let columns = object!([
        {"name": "Name", "type": "string", "format": format, "description": NAME, "priority": 0},
        {"name": "Desired", "type": "integer", "format": "", "description": desired, "priority": 0},
        {"name": "Available", "type": "integer", "format": "", "description": available, "priority": 0},
        {"name": "Age", "type": age, "format": "", "description": CREATED, "priority": 0},
    ]);
    let count = |part: &str| Value::from(scale.at(&[part, "replicas"]).as_i64().unwrap_or(0));
    let age = cells::age(scale, Timestamp::now());
    let cells: Vec<Value> = vec![scale.name().into(), count("spec"), count("status"), age.into()];
    let shown = object!({"cells": cells, "object": (beside(scale, scale, form))});
    object!({
        "kind": "Table", "apiVersion": (form.meta_version()),
        "metadata": {"resourceVersion": (scale.resource_version())},
        "columnDefinitions": columns, "rows": (Value::Array(vec![shown])),
    })
}

/// Schemas stand in the order in which they are tried.
fn in_order(row: &Resource, objects: &[Value]) -> Option<Vec<Value>> {
    if row.built_in() != "flowschemas" {
        return None;
    }
    let mut sorted = objects.to_vec();
    sorted.sort_by_cached_key(|o| {
        (o.at(&["spec", "matchingPrecedence"]).as_i64().unwrap_or(0), o.name().to_owned())
    });
    Some(sorted)
}

/// The table of some objects; `head` says whether columns are named, `form` what stands beside the cells.
pub fn of(row: &Resource, objects: &[Value], metadata: &Value, head: bool, form: Form) -> Value {
    let now = Timestamp::now();
    let sorted = in_order(row, objects);
    let objects = sorted.as_deref().unwrap_or(objects);
    let names: Vec<String> =
        columns(row).as_array().into_iter().flatten().map(|c| c.str_at(&["name"]).to_owned()).collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|o| {
            // Columns are those of the stored version, whatever version is asked for; so is the metadata.
            let viewed = is_older_autoscaler(row).then(|| to_storage(row, o.clone()));
            let (given, o) = (o, viewed.as_ref().unwrap_or(o));
            let mut cells = match &row.custom {
                Some(custom) => {
                    let own = custom.version().columns.iter().map(|c| c.cell(o, now));
                    std::iter::once(o.name().into()).chain(own).collect()
                }
                None => cells::of(row, o, now),
            };
            // Rows may have more than there are columns for, but never less.
            cells.resize(cells.len().max(names.len()), Value::Null);
            let shown = beside(given, o, form);
            let mut out = object!({"cells": cells, "object": shown});
            let conditions = if row.custom.is_some() { Vec::new() } else { cells::row_conditions(row, o) };
            if !conditions.is_empty() {
                out.set(&["conditions"], conditions);
                let map = out.make_object();
                map.sort_by_key(|k| match k {
                    "cells" => 0,
                    "conditions" => 1,
                    _ => 2,
                });
            }
            out
        })
        .collect();
    // Kinds without columns of their own have no rows rather than an empty list of them.
    let bare = rows.is_empty() && row.custom.is_none() && names.get(1).is_some_and(|n| n == "Created At");
    let rows = if bare { Value::Null } else { rows.into() };
    let head = if head { columns(row) } else { Value::Null };
    object!({
        "kind": "Table", "apiVersion": (form.meta_version()), "metadata": metadata, "columnDefinitions": head, "rows": rows,
    })
}
