//! Defaults of a structural schema.

use api::Value;

fn nullable(schema: &Value) -> bool {
    schema.get("nullable").as_bool().unwrap_or(false)
}

/// The schema of a member: the property's own, or that of additional ones.
fn member<'s>(schema: &'s Value, name: &str) -> &'s Value {
    let properties = schema.get("properties").as_object();
    match properties.and_then(|m| m.get(name)) {
        Some(property) => property,
        None => schema.get("additionalProperties"),
    }
}

/// Sets defaults in a value and below.
pub(super) fn set(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema.get("properties").as_object().into_iter().flat_map(|m| m.iter()) {
                let default = property.get("default");
                let lacks = map.get(name).is_none_or(|v| v.is_null() && !nullable(property));
                if lacks && !default.is_null() {
                    map.insert(name, default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                let known = schema.get("properties").as_object().is_some_and(|m| m.contains_key(name));
                let of = member(schema, name);
                if !known && value.is_null() && !of.is_null() && !nullable(of) {
                    *value = of.get("default").clone();
                }
                set(value, of);
            }
        }
        Value::Array(items) => {
            let of = schema.get("items");
            for item in items {
                if item.is_null() && !of.is_null() && !nullable(of) {
                    *item = of.get("default").clone();
                }
                set(item, of);
            }
        }
        _ => {}
    }
}

/// Drops members that are null where null may not stand and no default would take its place.
pub(super) fn drop_nulls(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let of = member(schema, name);
            let known = matches!(of, Value::Object(_));
            if value.is_null() && known && !nullable(of) && of.get("default").is_null() {
                return false;
            }
            drop_nulls(value, of);
            true
        }),
        Value::Array(items) => items.iter_mut().for_each(|v| drop_nulls(v, schema.get("items"))),
        _ => {}
    }
}
