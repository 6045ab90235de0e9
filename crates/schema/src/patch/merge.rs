//! Merge patch, RFC 7396.

use api::{Map, Value};

use super::Error;
use crate::decode::Mode;

/// Applies a merge patch.
pub fn merge(doc: Value, patch: Value, mode: Mode) -> Result<Value, Error> {
    match (doc, patch) {
        (Value::Object(mut doc), Value::Object(patch)) => {
            merge_objects(&mut doc, patch);
            Ok(Value::Object(doc))
        }
        (_, patch) if mode == Mode::Ignore || matches!(patch, Value::Null | Value::Object(_)) => {
            Err(Error::Malformed("Invalid JSON Patch".into()))
        }
        (_, patch) => Err(Error::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            patch.kind_name()
        ))),
    }
}

fn merge_objects(doc: &mut Map, patch: Map) {
    merge_members(doc, patch);
    // What a patch touches is written with its keys in order.
    doc.sort_keys();
}

fn merge_members(doc: &mut Map, patch: Map) {
    let mut gone = Vec::new();
    for (key, value) in patch {
        match (doc.get_mut(&key), value) {
            (_, Value::Null) => gone.push(key),
            (Some(Value::Object(inner)), Value::Object(patch)) => merge_objects(inner, patch),
            // A list that replaces a value keeps its nulls; anything else that is new loses them.
            (Some(Value::Object(_)), value) => {
                doc.insert(key, value);
            }
            (_, mut value) => {
                prune_nulls(&mut value);
                doc.insert(key, value);
            }
        }
    }
    doc.remove_all(&gone);
}

fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(m) => {
            m.retain(|_, v| {
                prune_nulls(v);
                !v.is_null()
            });
            m.sort_keys();
        }
        Value::Array(a) => a.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}
