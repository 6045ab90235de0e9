//! Structural schemas: every field that a schema speaks of has a type, and alternatives only restrict values.
//!
//! Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>.

use api::{Map, Value};

use super::{Errors, forbidden, invalid, required};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What keeps a schema from being structural, in order of the sentences.
pub fn violations(schema: &Value, path: &str) -> Errors {
    let mut errors = Errors::new();
    if refers(schema) {
        // What stands elsewhere cannot be judged; the reference is refused by itself.
        return errors;
    }
    node(schema, Level::Root, path, &mut errors);
    complete(schema, schema, path, path, &mut errors);
    errors.sort_by_key(ToString::to_string);
    errors
}

fn is(schema: &Value, key: &str) -> bool {
    schema.get(key).as_bool() == Some(true)
}

/// True when a schema leaves to another what it is.
fn refers(schema: &Value) -> bool {
    let below = |key| members(schema, key).any(|(_, property)| refers(property));
    let inside = |key| Some(schema.get(key)).filter(|s| !s.is_null()).is_some_and(refers);
    !schema.get("$ref").is_null() || below("properties") || inside("items") || inside("additionalProperties")
}

fn members<'v>(schema: &'v Value, key: &str) -> impl Iterator<Item = (&'v str, &'v Value)> {
    schema.get(key).as_object().into_iter().flat_map(Map::iter)
}

fn node(schema: &Value, level: Level, path: &str, errors: &mut Errors) {
    if !matches!(schema, Value::Object(_)) {
        return;
    }
    let kind = schema.str_at(&["type"]);
    let (items, additional) = (schema.get("items"), schema.get("additionalProperties"));
    if kind == "array" && items.is_null() {
        required(errors, &format!("{path}.items"), "must be specified");
    }
    node(items, Level::Item, &format!("{path}.items"), errors);
    for (name, property) in members(schema, "properties") {
        node(property, Level::Field, &format!("{path}.properties[{name}]"), errors);
    }
    if !additional.is_null() {
        let path = format!("{path}.additionalProperties");
        if level == Level::Root {
            forbidden(errors, &path, "must not be used at the root");
        }
        node(additional, Level::Field, &path, errors);
    }
    extensions(schema, kind, path, errors);
    values(schema, takes_both(schema.get("anyOf")), first_takes_both(schema), path, errors);
    typed(schema, kind, level, path, errors);
    metadata(schema, level, path, errors);
}

fn extensions(schema: &Value, kind: &str, path: &str, errors: &mut Errors) {
    if is(schema, "x-kubernetes-int-or-string") {
        for key in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if is(schema, key) {
                let why = "must be false if x-kubernetes-int-or-string is true";
                invalid(errors, &format!("{path}.{key}"), true, why);
            }
        }
    }
    if !is(schema, "x-kubernetes-embedded-resource") {
        return;
    }
    const OBJECT: &str = "must be object if x-kubernetes-embedded-resource is true";
    match kind {
        "object" => {}
        "" => required(errors, &format!("{path}.type"), OBJECT),
        other => invalid(errors, &format!("{path}.type"), other, OBJECT),
    }
    if !schema.get("additionalProperties").is_null() {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        forbidden(errors, &format!("{path}.additionalProperties"), why);
    }
    if !is(schema, "x-kubernetes-preserve-unknown-fields") && schema.get("properties").is_empty() {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        required(errors, &format!("{path}.properties"), why);
    }
}

fn typed(schema: &Value, kind: &str, level: Level, path: &str, errors: &mut Errors) {
    let path = format!("{path}.type");
    let free = [
        "x-kubernetes-int-or-string",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
    ];
    if kind.is_empty() && !free.iter().any(|key| is(schema, key)) {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        required(errors, &path, why);
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        invalid(errors, &path, kind, "must be object at the root");
    }
}

fn metadata(schema: &Value, level: Level, path: &str, errors: &mut Errors) {
    let whole = level == Level::Root || is(schema, "x-kubernetes-embedded-resource");
    let properties = schema.get("properties");
    for name in ["kind", "apiVersion"] {
        let property = properties.get(name);
        let kind = property.str_at(&["type"]);
        if whole && !property.is_null() && kind != "string" {
            invalid(errors, &format!("{path}.properties[{name}].type"), kind, "must be string");
        }
    }
    let metadata = properties.get("metadata");
    if metadata.is_null() {
        return;
    }
    let path = format!("{path}.properties[metadata]");
    let kind = metadata.str_at(&["type"]);
    if whole && kind != "object" {
        invalid(errors, &format!("{path}.type"), kind, "must be object");
    }
    let only_names = members(metadata, "properties").all(|(name, _)| matches!(name, "name" | "generateName"));
    let nothing_else = metadata.as_object().is_some_and(|m| {
        m.iter().all(|(k, v)| matches!(k, "type" | "properties" | "default") || v.is_empty())
    });
    if level == Level::Root && !(only_names && nothing_else) {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        forbidden(errors, &path, why);
    }
}

/// `anyOf: [{type: integer}, {type: string}]`, which says what `x-kubernetes-int-or-string` says.
fn takes_both(any: &Value) -> bool {
    let only =
        |v: &Value, kind: &str| v.as_object().is_some_and(|m| m.len() == 1) && v.str_at(&["type"]) == kind;
    matches!(any.as_array().map(Vec::as_slice), Some([a, b]) if only(a, "integer") && only(b, "string"))
}

fn first_takes_both(schema: &Value) -> bool {
    schema.array_at(&["allOf"]).first().is_some_and(|s| takes_both(s.get("anyOf")))
}

/// The alternatives of a schema.
fn values(schema: &Value, skip_any: bool, skip_first: bool, path: &str, errors: &mut Errors) {
    if !skip_any {
        for (i, s) in schema.array_at(&["anyOf"]).iter().enumerate() {
            nested(s, false, &format!("{path}.anyOf[{i}]"), errors);
        }
    }
    for (i, s) in schema.array_at(&["allOf"]).iter().enumerate() {
        nested(s, skip_first && i == 0, &format!("{path}.allOf[{i}]"), errors);
    }
    for (i, s) in schema.array_at(&["oneOf"]).iter().enumerate() {
        nested(s, false, &format!("{path}.oneOf[{i}]"), errors);
    }
    nested(schema.get("not"), false, &format!("{path}.not"), errors);
    if let Some(pattern) = schema.get("pattern").as_str()
        && let Some(why) = schema::custom::pattern_error(pattern)
    {
        let why = cel::pattern_error(pattern).unwrap_or(why);
        let why = format!("must be a valid regular expression, but isn't: {why}");
        invalid(errors, &format!("{path}.pattern"), pattern, why);
    }
}

/// A schema within an alternative: it restricts values and says nothing about structure.
fn nested(schema: &Value, skip_any: bool, path: &str, errors: &mut Errors) {
    if !matches!(schema, Value::Object(_)) {
        return;
    }
    values(schema, skip_any, false, path, errors);
    nested(schema.get("items"), false, &format!("{path}.items"), errors);
    for (name, property) in members(schema, "properties") {
        nested(property, false, &format!("{path}.properties[{name}]"), errors);
    }
    const NOT_STRUCTURAL: [(&str, &str); 13] = [
        ("type", "must be empty"),
        ("additionalProperties", "must be undefined"),
        ("default", "must be undefined"),
        ("title", "must be empty"),
        ("description", "must be empty"),
        ("nullable", "must be false"),
        ("x-kubernetes-preserve-unknown-fields", "must be false"),
        ("x-kubernetes-embedded-resource", "must be false"),
        ("x-kubernetes-int-or-string", "must be false"),
        ("x-kubernetes-list-map-keys", "must be empty"),
        ("x-kubernetes-list-type", "must be undefined"),
        ("x-kubernetes-map-type", "must be undefined"),
        ("x-kubernetes-validations", "must be empty"),
    ];
    for (key, what) in NOT_STRUCTURAL {
        let value = schema.get(key);
        let there = if what == "must be undefined" { !value.is_null() } else { !value.is_empty() };
        if there {
            forbidden(errors, &format!("{path}.{key}"), format!("{what} to be structural"));
        }
    }
    if !schema.at(&["properties", "metadata"]).is_null() {
        let why = "must not be specified in a nested context";
        forbidden(errors, &format!("{path}.properties[metadata]"), why);
    }
}

/// What alternatives speak of is there outside of them, too.
fn complete(schema: &Value, outside: &Value, path: &str, inner: &str, errors: &mut Errors) {
    let all = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|key| {
        schema.array_at(&[key]).iter().enumerate().map(move |(i, s)| (s, format!("{key}[{i}]")))
    });
    for (s, name) in std::iter::once((schema.get("not"), "not".to_owned())).chain(all) {
        complete_nested(s, outside, path, &format!("{inner}.{name}"), errors);
    }
}

fn complete_nested(schema: &Value, outside: &Value, path: &str, inner: &str, errors: &mut Errors) {
    if !matches!(schema, Value::Object(_)) {
        return;
    }
    if outside.is_null() {
        return required(errors, path, &format!("because it is defined in {inner}"));
    }
    complete(schema, outside, path, inner, errors);
    complete_nested(
        schema.get("items"),
        outside.get("items"),
        &format!("{path}.items"),
        &format!("{inner}.items"),
        errors,
    );
    for (name, property) in members(schema, "properties") {
        let below = format!(".properties[{name}]");
        let known = outside.get("properties").get(name);
        complete_nested(property, known, &format!("{path}{below}"), &format!("{inner}{below}"), errors);
    }
}
