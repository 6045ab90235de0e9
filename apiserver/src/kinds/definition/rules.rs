//! Rules in CEL in the schemas of a definition.

use std::collections::HashSet;

use api::Value;
use cel::rules::{Check, check};

use super::Errors;
use super::schema::is_too_deep;
use super::versions::shared;

/// Checks the rules of a definition; `old` is the one it replaces. Rules are compiled where nothing else is wrong with
/// their schema.
pub(super) fn validate(definition: &Value, old: Option<&Value>, errors: &mut Errors) {
    let versions = definition.array_at(&["spec", "versions"]);
    let before = old.map_or(&[][..], |old| old.array_at(&["spec", "versions"]));
    let mut known = HashSet::new();
    before.iter().for_each(|version| expressions(schema_of(version), &mut known));
    let known = |text: &str| known.contains(text);
    let once = shared(versions, "schema").is_some();
    for (i, version) in versions.iter().enumerate().take(if once { 1 } else { usize::MAX }) {
        let schema = schema_of(version);
        if is_too_deep(schema) {
            continue;
        }
        let path = if once {
            "spec.validation.openAPIV3Schema".to_owned()
        } else {
            format!("spec.versions[{i}].schema.openAPIV3Schema")
        };
        let compile = !errors.iter().any(|e| e.field.starts_with(&path));
        let same = |other: &&Value| other.get("name") == version.get("name") && schema_of(other) == schema;
        let unchanged = before.iter().any(|other| same(&other));
        errors.extend(check(schema, &Check { path: &path, compile, known: &known, unchanged }));
    }
}

fn schema_of(version: &Value) -> &Value {
    version.at(&["schema", "openAPIV3Schema"])
}

/// Collects the expressions of a schema.
fn expressions<'v>(schema: &'v Value, found: &mut HashSet<&'v str>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map.iter() {
                if key == "x-kubernetes-validations" {
                    for rule in value.as_array().into_iter().flatten() {
                        found.extend(["rule", "messageExpression"].map(|key| rule.str_at(&[key])));
                    }
                }
                expressions(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}
