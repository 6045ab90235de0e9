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
use crate::resources::Resource;

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
    let own = COLUMNS.get(&format!("{group}/{}/{}", row.version, row.plural));
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

/// The table of some objects; `head` says whether columns are named, `form` what stands beside the cells.
pub fn of(row: &Resource, objects: &[Value], metadata: &Value, head: bool, form: Form) -> Value {
    let now = Timestamp::now();
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
            cells.resize(names.len(), Value::Null);
            let shown = match form.include {
                Include::Object => given.clone(),
                Include::None => Value::Null,
                Include::Metadata => object!({
                    "kind": "PartialObjectMetadata", "apiVersion": (form.meta_version()), "metadata": (o.get("metadata")),
                }),
            };
            let mut out = object!({"cells": cells, "object": shown});
            let conditions =
                if row.custom.is_some() { Vec::new() } else { cells::row_conditions(row, o) };
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
