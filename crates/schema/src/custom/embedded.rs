//! Objects within objects: they say what they are.

use api::Value;
use api::field::{FieldError, Problem};

use crate::decode::DecodeError;

/// Checks what all embedded objects of a value say they are.
pub(super) fn check(value: &Value, schema: &Value, errors: &mut Vec<FieldError>) {
    let mut found = Vec::new();
    collect(value, schema, "", &mut found);
    found.into_iter().for_each(|(path, object)| resource(object, &path, errors));
}

/// What objects say they are is text, or they cannot be read.
pub(super) fn check_types(found: &[(String, &Value)]) -> Result<(), DecodeError> {
    for (path, object) in found {
        for field in ["apiVersion", "kind"] {
            let value = object.get(field);
            if !value.is_null() && value.as_str().is_none() {
                let why = format!("{path}.{field}: Invalid value: {value}: must be a string");
                return Err(DecodeError(why));
            }
        }
    }
    Ok(())
}

/// Finds all embedded objects of a value, with their paths. `path` is where it stands, empty for the whole object.
pub(super) fn collect<'v>(
    value: &'v Value,
    schema: &Value,
    path: &str,
    found: &mut Vec<(String, &'v Value)>,
) {
    let embedded = schema.get("x-kubernetes-embedded-resource") == &Value::Bool(true);
    if !path.is_empty() && embedded && matches!(value, Value::Object(_)) {
        found.push((path.to_owned(), value));
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
                    collect(value, of, &path, found);
                }
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                collect(item, schema.get("items"), &format!("{path}[{i}]"), found);
            }
        }
        _ => {}
    }
}

fn resource(object: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut push = |field: &str, problem: Problem, detail: String| {
        errors.push(FieldError { field: format!("{path}.{field}"), problem, detail });
    };
    for field in ["apiVersion", "kind"] {
        match object.get(field) {
            Value::Null => push(field, Problem::Required, String::new()),
            value if value.is_empty() => {
                push(field, Problem::Invalid("".into()), "must not be empty".to_owned());
            }
            _ => {}
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
}
