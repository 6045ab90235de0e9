//! The schema of a version: what OpenAPI allows and Kubernetes supports of it.

use api::{Map, Value};
use cel::rules::Rules;
use schema::custom::{CustomType, is_known_format};
use schema::decode::Mode;

use super::structural::violations;
use super::{Errors, forbidden, invalid, not_supported, push, required};
use crate::kinds::check::view;

/// Schemas are no deeper than this; what reads them walks down.
const MAX_DEPTH: usize = 200;

const AT_ROOT: [&str; 22] = [
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];

/// What holds for a place in a schema.
#[derive(Clone)]
struct Place {
    defaults: Result<(), String>,
    in_metadata: bool,
}

/// Checks an `openAPIV3Schema`. `status` says that status has a subresource.
pub(super) fn validate(schema: &Value, status: bool, path: &str, errors: &mut Errors) {
    if !matches!(schema, Value::Object(_)) {
        return;
    }
    if is_too_deep(schema) {
        return invalid(errors, path, "", format!("must not be nested deeper than {MAX_DEPTH} levels"));
    }
    let before = errors.len();
    if status {
        root_with_status(schema, path, errors);
    }
    if schema.get("nullable").as_bool() == Some(true) {
        forbidden(errors, &format!("{path}.nullable"), "nullable cannot be true at the root");
    }
    let structural = violations(schema, path);
    if structural.is_empty() {
        defaults(schema, schema, path, errors);
    } else {
        errors.extend(structural);
    }
    node(schema, true, &Place { defaults: Ok(()), in_metadata: false }, path, errors);
    if errors.len() == before && has(schema, &|part| !part.get("$schema").is_empty()) {
        invalid(errors, path, "", "OpenAPIV3Schema 'schema' is not supported");
    }
}

/// True when something holds for a schema or any within it.
pub(super) fn has(schema: &Value, what: &dyn Fn(&Value) -> bool) -> bool {
    let within = |key: &str| match schema.get(key) {
        Value::Array(parts) => parts.iter().any(|part| has(part, what)),
        part => has(part, what),
    };
    matches!(schema, Value::Object(_))
        && (what(schema)
            || members(schema, "properties").any(|(_, part)| has(part, what))
            || ["items", "additionalProperties", "not", "allOf", "oneOf", "anyOf"].into_iter().any(within))
}

/// True for schemas that nothing should walk down.
pub(super) fn is_too_deep(schema: &Value) -> bool {
    depth(schema) > MAX_DEPTH
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn root_with_status(schema: &Value, path: &str, errors: &mut Errors) {
    // What is absent in Go: a pointer to something empty is not.
    const POINTERS: [&str; 3] = ["$ref", "x-kubernetes-list-type", "x-kubernetes-map-type"];
    let given = |(key, value): &(&str, &Value)| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty() || POINTERS.contains(key),
        Value::Bool(yes) => *yes,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    for (key, value) in schema.as_object().into_iter().flat_map(Map::iter).filter(given) {
        let go: String = match key {
            "x-kubernetes-preserve-unknown-fields" => "XPreserveUnknownFields".to_owned(),
            "x-kubernetes-validations" => "XValidations".to_owned(),
            key => key.get(..1).unwrap_or_default().to_ascii_uppercase() + key.get(1..).unwrap_or_default(),
        };
        if key == "type" && value.as_str() != Some("object") {
            let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            return invalid(errors, &format!("{path}.type"), value.clone(), why);
        }
        if !AT_ROOT.contains(&go.as_str()) {
            let why = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                AT_ROOT.join(" ")
            );
            return invalid(errors, path, view(schema, "apiextensions/v1.JSONSchemaProps"), why);
        }
    }
}

fn members<'v>(schema: &'v Value, key: &str) -> impl Iterator<Item = (&'v str, &'v Value)> {
    schema.get(key).as_object().into_iter().flat_map(Map::iter)
}

fn node(schema: &Value, root: bool, place: &Place, path: &str, errors: &mut Errors) {
    if !matches!(schema, Value::Object(_)) {
        return;
    }
    supported(schema, place, path, errors);
    let additional = schema.get("additionalProperties");
    if !additional.is_null() {
        let contradicts = !schema.get("properties").is_empty() && additional.as_bool() != Some(true);
        let path = format!("{path}.additionalProperties");
        if contradicts {
            forbidden(errors, &path, "additionalProperties and properties are mutual exclusive");
        }
        let mut place = place.clone();
        if place.in_metadata {
            place.defaults = Err("inside additionalProperties applying to object metadata".to_owned());
        }
        node(additional, false, &place, &path, errors);
    }
    let embedded = schema.get("x-kubernetes-embedded-resource").as_bool() == Some(true);
    for (name, property) in members(schema, "properties") {
        let mut place = place.clone();
        if (root || embedded) && matches!(name, "metadata" | "kind" | "apiVersion") {
            place.in_metadata = true;
            if root {
                place.defaults = Err(format!("in top-level {name}"));
            }
        }
        node(property, false, &place, &format!("{path}.properties[{name}]"), errors);
    }
    node(schema.get("not"), false, place, &format!("{path}.not"), errors);
    for key in ["allOf", "oneOf", "anyOf"] {
        for (i, s) in schema.array_at(&[key]).iter().enumerate() {
            node(s, false, place, &format!("{path}.{key}[{i}]"), errors);
        }
    }
    node(schema.get("items"), false, place, &format!("{path}.items"), errors);
    list_and_map(schema, path, errors);
}

fn supported(schema: &Value, place: &Place, path: &str, errors: &mut Errors) {
    const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
    let at = |key: &str| format!("{path}.{key}");
    let kind = schema.str_at(&["type"]);
    if !kind.is_empty() && !TYPES.contains(&kind) {
        not_supported(errors, &at("type"), kind, &TYPES);
    }
    if let (Err(why), false) = (&place.defaults, schema.get("default").is_null()) {
        forbidden(errors, &at("default"), format!("must not be set {why}"));
    }
    for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let value = schema.get(key);
        let counts_empty = matches!(key, "additionalItems" | "$ref");
        if !value.is_empty() || (counts_empty && !value.is_null()) {
            forbidden(errors, &at(key), format!("{key} is not supported"));
        }
    }
    if kind == "null" {
        forbidden(errors, &at("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if matches!(schema.get("items"), Value::Array(_)) {
        forbidden(errors, &at("items"), "items must be a schema object and not an array");
    }
    if place.in_metadata && schema.get("x-kubernetes-embedded-resource").as_bool() == Some(true) {
        forbidden(errors, &at("x-kubernetes-embedded-resource"), "must not be used inside of resource meta");
    }
    if schema.get("uniqueItems").as_bool() == Some(true) {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        forbidden(errors, &at("uniqueItems"), why);
    }
    let preserve = "x-kubernetes-preserve-unknown-fields";
    if schema.get(preserve).as_bool() == Some(false) {
        invalid(errors, &at(preserve), false, "must be true or undefined");
    }
}

/// `x-kubernetes-map-type`, `x-kubernetes-list-type` and its keys.
fn list_and_map(schema: &Value, path: &str, errors: &mut Errors) {
    const MAP: &str = "x-kubernetes-map-type";
    const LIST: &str = "x-kubernetes-list-type";
    const KEYS: &str = "x-kubernetes-list-map-keys";
    let at = |key: &str| format!("{path}.{key}");
    let kind = schema.str_at(&["type"]);
    for (key, want, supported) in
        [(MAP, "object", &["atomic", "granular"][..]), (LIST, "array", &["atomic", "set", "map"][..])]
    {
        let Some(value) = schema.get(key).as_str() else { continue };
        if kind != want {
            let why = format!("must be {want} if {key} is specified");
            match kind {
                "" => required(errors, &at("type"), &why),
                kind => invalid(errors, &at("type"), kind, why),
            }
        }
        if !supported.contains(&value) {
            not_supported(errors, &at(key), value, supported);
        }
    }
    let items = schema.get("items");
    let list = schema.get(LIST).as_str();
    if kind == "array" && list == Some("set") {
        const ATOMIC: &str = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let (key, value) = match items.str_at(&["type"]) {
            "array" => (LIST, items.get(LIST)),
            "object" => (MAP, items.get(MAP)),
            _ => ("", &Value::Null),
        };
        let implicit = key == LIST && value.is_null();
        if !key.is_empty() && value.as_str() != Some("atomic") && !implicit {
            invalid(errors, &format!("{path}.items.{key}"), items.get(LIST).clone(), ATOMIC);
        }
    }
    let keys = schema.array_at(&[KEYS]);
    if !keys.is_empty() && list != Some("map") {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list {
            None => required(errors, &at(LIST), why),
            Some(other) => invalid(errors, &at(LIST), other, why),
        }
    }
    if list == Some("map") {
        map_list(schema, keys, path, errors);
    }
    if matches!(list, Some("map" | "set")) && items.get("nullable").as_bool() == Some(true) {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {}", list.unwrap_or_default());
        forbidden(errors, &format!("{path}.items.nullable"), why);
    }
}

fn map_list(schema: &Value, keys: &[Value], path: &str, errors: &mut Errors) {
    let at = |key: &str| format!("{path}.{key}");
    let items = schema.get("items");
    if keys.is_empty() {
        let why = "must not be empty if x-kubernetes-list-type is map";
        required(errors, &at("x-kubernetes-list-map-keys"), why);
    }
    if items.is_null() {
        return required(errors, &at("items"), "must have a schema if x-kubernetes-list-type is map");
    }
    let kind = items.str_at(&["type"]);
    if kind != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        return invalid(errors, &at("items.type"), kind, why);
    }
    let required_names = items.array_at(&["required"]);
    for (i, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let property = items.get("properties").get(name);
        let inner = |field: &str| format!("{path}.items.properties[{name}].{field}");
        if property.is_null() {
            let why = "entries must all be names of item properties";
            invalid(errors, &at("x-kubernetes-list-map-keys"), Value::Array(keys.to_vec()), why);
        } else if matches!(property.str_at(&["type"]), "array" | "object") {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            invalid(errors, &inner("type"), kind, why);
        }
        if keys[..i].contains(key) {
            let why = "must not contain duplicate entries";
            invalid(errors, &at("x-kubernetes-list-map-keys"), Value::Array(keys.to_vec()), why);
        }
        if property.is_null() {
            continue;
        }
        if !required_names.contains(key) && property.get("default").is_null() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            required(errors, &inner("default"), why);
        }
        if property.get("nullable").as_bool() == Some(true) {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            forbidden(errors, &inner("nullable"), why);
        }
    }
}

/// Defaults fit their schemas and rules, and have nothing that would be pruned.
fn defaults(schema: &Value, root: &Value, path: &str, errors: &mut Errors) {
    if !matches!(schema, Value::Object(_)) {
        return;
    }
    let default = schema.get("default");
    if !default.is_null() && !std::ptr::eq(schema, root) {
        check_default(default, schema, &format!("{path}.default"), errors);
    }
    for (name, property) in members(schema, "properties") {
        defaults(property, root, &format!("{path}.properties[{name}]"), errors);
    }
    defaults(schema.get("items"), root, &format!("{path}.items"), errors);
    defaults(schema.get("additionalProperties"), root, &format!("{path}.additionalProperties"), errors);
}

fn check_default(default: &Value, schema: &Value, path: &str, errors: &mut Errors) {
    // The default stands in a member of an object, whose type is made for the purpose.
    let outer = api::object!({"type": "object", "properties": {"default": schema}});
    let mut object = Value::object();
    object.set(&["default"], default);
    let ty = CustomType::new(&outer, false);
    if let Ok((_, findings)) = schema::decode::normalize(object.clone(), ty.ty(), Mode::Strict)
        && !findings.is_empty()
    {
        invalid(errors, path, default.clone(), "must not have unknown fields");
    }
    // That a default has no item twice upstream does not check.
    let mut found = ty.validate(&object);
    found.retain(|e| !matches!(e.problem, api::field::Problem::Duplicate(_)));
    let rules = if found.is_empty() { Rules::new(&outer) } else { None };
    for error in rules.iter().flat_map(|r| r.validate(&object, None, &mut drop)) {
        let rest = error.field.strip_prefix("default").unwrap_or_default();
        push(errors, &format!("{path}{rest}"), error.problem, error.detail);
    }
    for error in found {
        let rest = error.field.strip_prefix("default").unwrap_or_default();
        // A default is the root of what is looked at, which has no name.
        let (quote, detail) = match error.detail.strip_prefix("\"default") {
            Some(detail) => ("\"", detail),
            None => ("", error.detail.strip_prefix("default").unwrap_or(&error.detail)),
        };
        let detail = format!("{quote}{}", detail.strip_prefix('.').unwrap_or(detail));
        push(errors, &format!("{path}{rest}"), error.problem, detail);
    }
}

/// Collects warnings about formats that nobody checks.
pub(super) fn unknown_formats(schema: &Value, out: &mut Vec<String>) {
    let Value::Object(map) = schema else { return };
    if let Some(format) = schema.get("format").as_str()
        && !format.is_empty()
        && !is_known_format(schema.str_at(&["type"]), format)
    {
        out.push(format!("unrecognized format {}", api::field::go_quote(format)));
    }
    for (key, value) in map.iter() {
        match (key, value) {
            ("properties", Value::Object(properties)) => {
                properties.values().for_each(|s| unknown_formats(s, out))
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(items)) => {
                items.iter().for_each(|s| unknown_formats(s, out))
            }
            ("items" | "additionalProperties" | "not", value) => unknown_formats(value, out),
            _ => {}
        }
    }
}
