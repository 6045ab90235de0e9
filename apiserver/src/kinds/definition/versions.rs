//! The versions of a definition, together.

use api::{Map, Value};

use super::{Errors, invalid};
use crate::kinds::check::view;

/// Parts of versions that, when they are the same in all, upstream sees once for the whole definition: its errors name
/// them so.
pub(super) const SHARED: [(&str, &str); 4] = [
    ("schema", "validation"),
    ("subresources", "subresources"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// The part `field` where all versions have the same, which may be none.
pub(super) fn shared<'v>(versions: &'v [Value], field: &str) -> Option<&'v Value> {
    let first = versions.first()?.get(field);
    versions.iter().all(|v| v.get(field) == first).then_some(first)
}

const PARTS: [(&str, &str); 2] = [
    ("schema", "apiextensions/v1.CustomResourceValidation"),
    ("subresources", "apiextensions/v1.CustomResourceSubresources"),
];

fn columns(list: &Value, field: &str) -> Value {
    let ty = match field {
        "selectableFields" => "apiextensions/v1.SelectableField",
        _ => "apiextensions/v1.CustomResourceColumnDefinition",
    };
    match list.as_array() {
        Some(items) => items.iter().map(|item| view(item, ty)).collect::<Vec<_>>().into(),
        None => Value::Null,
    }
}

/// The versions as upstream prints them in errors.
pub(super) fn printed(versions: &Value) -> Value {
    if versions.is_empty() {
        return versions.clone();
    }
    let versions = versions.array_at(&[]);
    let part = |version: &Value, field: &str| match shared(versions, field) {
        Some(_) => Value::Null,
        None => match PARTS.iter().find(|(name, _)| *name == field) {
            Some((_, ty)) => view(version.get(field), ty),
            None => columns(version.get(field), field),
        },
    };
    let print = |v: &Value| {
        Value::Object(
            [
                ("Name", v.get("name").clone()),
                ("Served", v.get("served").clone()),
                ("Storage", v.get("storage").clone()),
                ("Deprecated", v.get("deprecated").as_bool().unwrap_or(false).into()),
                ("DeprecationWarning", v.get("deprecationWarning").clone()),
                ("Schema", part(v, "schema")),
                ("Subresources", part(v, "subresources")),
                ("AdditionalPrinterColumns", part(v, "additionalPrinterColumns")),
                ("SelectableFields", part(v, "selectableFields")),
            ]
            .into_iter()
            .collect::<Map>(),
        )
    };
    versions.iter().map(print).collect::<Vec<_>>().into()
}

/// Checks the versions that objects may be stored in.
pub(super) fn validate_stored(definition: &Value, errors: &mut Errors) {
    const PATH: &str = "status.storedVersions";
    let stored = definition.at(&["status", "storedVersions"]);
    let names: Vec<&str> = stored.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() {
        return invalid(errors, PATH, Value::Null, "must have at least one stored version");
    }
    let versions = definition.array_at(&["spec", "versions"]);
    // A second version of a name finds it taken.
    let mut left = names.clone();
    for version in versions {
        let name = version.str_at(&["name"]);
        let known = left.iter().position(|stored| *stored == name).map(|at| left.remove(at));
        if known.is_none() && version.get("storage").as_bool() == Some(true) {
            invalid(errors, PATH, stored.clone(), format!("must have the storage version {name}"));
        }
    }
    for (i, name) in names.into_iter().enumerate() {
        if !versions.iter().any(|v| v.str_at(&["name"]) == name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            invalid(errors, &format!("{PATH}[{i}]"), name, why);
        }
    }
}
