//! Sets and maps in lists: no item may be there twice.

use api::field::{FieldError, Problem};
use api::{Map, Value};

/// Checks all lists of a value. `path` is where it stands, empty for the whole object.
pub(super) fn check(value: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter() {
                let property = schema.get("properties").as_object().and_then(|m| m.get(name));
                let (of, path) = match property {
                    Some(of) if path.is_empty() => (of, name.to_owned()),
                    Some(of) => (of, format!("{path}.{name}")),
                    None => (schema.get("additionalProperties"), format!("{path}[{name}]")),
                };
                if matches!(of, Value::Object(_)) {
                    check(value, of, &path, errors);
                }
            }
        }
        Value::Array(items) => {
            match schema.str_at(&["x-kubernetes-list-type"]) {
                "set" => duplicates(items, items, path, errors),
                "map" => map_items(items, schema, path, errors),
                _ => {}
            }
            for (i, item) in items.iter().enumerate() {
                check(item, schema.get("items"), &format!("{path}[{i}]"), errors);
            }
        }
        _ => {}
    }
}

fn map_items(items: &[Value], schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let wrong = items.iter().position(|v| !matches!(v, Value::Object(_) | Value::Null));
    if let Some(i) = wrong {
        let detail = "must be an object for an array of list-type map".to_owned();
        let problem = Problem::Invalid(items[i].clone());
        errors.push(FieldError { field: format!("{path}[{i}]"), problem, detail });
        return;
    }
    let names = schema.array_at(&["x-kubernetes-list-map-keys"]);
    let key = |item: &Value| {
        let members = names.iter().filter_map(Value::as_str);
        let found = members.filter_map(|k| item.as_object()?.get(k).map(|v| (k, v.clone())));
        Value::Object(found.collect::<Map>())
    };
    let keys: Vec<Value> = items.iter().map(key).collect();
    duplicates(&keys, &keys, path, errors);
}

/// Reports the second of each group of equal keys.
fn duplicates(keys: &[Value], shown: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    // Large sets are compared by their texts.
    let mut seen = std::collections::HashMap::new();
    for (i, key) in keys.iter().enumerate() {
        let mut key = key.clone();
        crate::decode::sort(&mut key);
        let times = seen.entry(format!("{} {key}", key.kind_name())).or_insert(0);
        *times += 1;
        if *times == 2 {
            let problem = Problem::Duplicate(shown[i].clone());
            errors.push(FieldError { field: format!("{path}[{i}]"), problem, detail: String::new() });
        }
    }
}
