//! Objects within objects: they say what they are, and their metadata is metadata.

use api::Value;
use api::field::{FieldError, Problem};

/// Checks all embedded objects of a value. `path` is where it stands, empty for the whole object.
pub(super) fn check(value: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !path.is_empty() && schema.get("x-kubernetes-embedded-resource") == &Value::Bool(true) {
        resource(value, path, errors);
    }
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
            for (i, item) in items.iter().enumerate() {
                check(item, schema.get("items"), &format!("{path}[{i}]"), errors);
            }
        }
        _ => {}
    }
}

fn resource(object: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut push = |field: &str, problem: Problem, detail: String| {
        errors.push(FieldError { field: format!("{path}.{field}"), problem, detail });
    };
    if !matches!(object, Value::Object(_)) {
        return;
    }
    for field in ["apiVersion", "kind"] {
        if object.str_at(&[field]).is_empty() {
            push(field, Problem::Required, "must not be empty".to_owned());
        }
    }
    let version = object.api_version();
    if !version.is_empty() && api::meta::GroupVersion::parse(version).is_none() {
        let why = format!("unexpected GroupVersion string: {version}");
        push("apiVersion", Problem::Invalid(version.into()), why);
    }
    if !object.kind().is_empty() {
        for why in api::names::dns1035_label(&object.kind().to_ascii_lowercase()) {
            let why = format!("may have mixed case, but should otherwise match: {why}");
            push("kind", Problem::Invalid(object.kind().into()), why);
        }
    }
    for why in api::names::path_segment(object.name()) {
        push("metadata.name", Problem::Invalid(object.name().into()), why);
    }
}
