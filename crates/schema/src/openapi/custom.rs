//! Definitions of custom resources: their schemas as clients of each version of OpenAPI can use them.

use api::{Value, object};

use super::definitions::{Definitions, TYPE_META, gvk};
use super::{Format, Resource};
use crate::decode::sort;

const KEEPS: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDS: &str = "x-kubernetes-embedded-resource";
const OBJECT_META: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST_META: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
/// What is said of the members by which an object within another says what it is.
const EMBEDDED_TYPE: [(&str, &str); 2] = [
    (
        "apiVersion",
        "apiVersion defines the versioned schema of this representation of an object. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
    ),
    (
        "kind",
        "kind is a string value representing the type of this object. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
    ),
];

impl Definitions<'_> {
    pub(super) fn custom_kind(&mut self, r: &Resource<'_>) -> Value {
        let mut schema = r.schema.cloned().unwrap_or_else(|| object!({"type": "object"}));
        if self.format == Format::V2 && is(&schema, KEEPS) {
            // With any property in the definition kubectl would refuse all others.
            schema = object!({"type": "object"});
        } else {
            if self.format == Format::V2 {
                for_v2(&mut schema);
            }
            let metadata = self.metadata();
            add_members(&mut schema, &TYPE_META, metadata.clone());
            self.embed(&mut schema, &metadata);
        }
        finish(&mut schema, r, r.kind);
        schema
    }

    pub(super) fn custom_list(&mut self, r: &Resource<'_>) -> Value {
        let item = self.kind(r, false);
        let metadata = self.named("meta/v1.ListMeta");
        let metadata = self.with_description(metadata, Some(LIST_META.to_owned()), None);
        let plural = r.name;
        let list = format!("{}List", r.kind);
        let mut schema = object!({
            "description": (format!("{list} is a list of {}", r.kind)),
            "type": "object",
            "required": ["items"],
            "properties": {
                "items": {
                    "description": (format!("List of {plural}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md")),
                    "type": "array", "items": item,
                },
            },
        });
        add_members(&mut schema, &TYPE_META, metadata);
        finish(&mut schema, r, &list);
        schema
    }

    fn metadata(&mut self) -> Value {
        let metadata = self.named("meta/v1.ObjectMeta");
        self.with_description(metadata, Some(OBJECT_META.to_owned()), None)
    }

    /// Gives whole objects within an object what every object has.
    fn embed(&self, schema: &mut Value, metadata: &Value) {
        each_part(schema, |part| self.embed(part, metadata));
        if !is(schema, EMBEDS) || (self.format == Format::V2 && is(schema, KEEPS)) {
            return;
        }
        add_members(schema, &EMBEDDED_TYPE, metadata.clone());
        let required = schema.make_object().entry("required").make_array();
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|known| known.as_str() == Some(name)) {
                required.push(name.into());
            }
        }
    }
}

fn is(schema: &Value, flag: &str) -> bool {
    schema.get(flag).as_bool() == Some(true)
}

fn add_members(schema: &mut Value, types: &[(&str, &str)], metadata: Value) {
    for (name, text) in types {
        schema.set(&["properties", name], object!({"description": (*text), "type": "string"}));
    }
    schema.set(&["properties", "metadata"], metadata);
}

/// Names the kind, and the fields by which its objects can be selected.
fn finish(schema: &mut Value, r: &Resource<'_>, kind: &str) {
    schema.set(&["x-kubernetes-group-version-kind"], Value::Array(vec![gvk(r.group, r.version, kind)]));
    if !r.selectable.is_empty() {
        let fields: Vec<Value> = r.selectable.iter().map(|path| object!({"fieldPath": (*path)})).collect();
        schema.set(&["x-kubernetes-selectable-fields"], fields);
    }
    sort(schema);
}

/// Drops what version 2 has no words for, and what would have clients refuse what the server takes.
fn for_v2(schema: &mut Value) {
    let (nullable, keeps) = (is(schema, "nullable"), is(schema, KEEPS));
    let Value::Object(m) = schema else { return };
    for key in ["allOf", "anyOf", "oneOf", "not", "nullable", "default"] {
        m.remove(key);
    }
    if nullable || keeps {
        m.remove("items");
        m.remove("properties");
    }
    let vague = match m.get("type").and_then(Value::as_str) {
        Some("array") => !m.contains_key("items"),
        Some("object") => keeps,
        _ => false,
    };
    if nullable || vague {
        m.remove("type");
    }
    let may_be_null = |name: &str| m.get("properties").is_some_and(|p| is(p.get(name), "nullable"));
    let required: Vec<Value> = match m.get("additionalProperties").is_some_and(|v| is(v, "nullable")) {
        true => Vec::new(),
        false => {
            let all = m.get("required").and_then(Value::as_array).into_iter().flatten();
            all.filter(|name| !name.as_str().is_some_and(may_be_null)).cloned().collect()
        }
    };
    match required.is_empty() {
        true => drop(m.remove("required")),
        false => drop(m.insert("required", required)),
    }
    each_part(schema, for_v2);
}

/// Does something with each schema right below this one.
fn each_part(schema: &mut Value, mut each: impl FnMut(&mut Value)) {
    let Value::Object(m) = schema else { return };
    if let Some(Value::Object(properties)) = m.get_mut("properties") {
        properties.iter_mut().for_each(|(_, part)| each(part));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(part) = m.get_mut(key) {
            each(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_says_nothing_that_clients_would_hold_against_objects() {
        for (schema, want) in [
            (r#"{"type":"integer","nullable":true,"minimum":1}"#, r#"{"minimum":1}"#),
            (r#"{"type":"array","nullable":true,"items":{"type":"string"}}"#, "{}"),
            (
                r#"{"type":"object","x-kubernetes-preserve-unknown-fields":true,"required":["a"],"properties":{"a":{"type":"string"}}}"#,
                r#"{"x-kubernetes-preserve-unknown-fields":true,"required":["a"]}"#,
            ),
            (
                r#"{"x-kubernetes-int-or-string":true,"anyOf":[{"type":"integer"},{"type":"string"}],"maxLength":5}"#,
                r#"{"x-kubernetes-int-or-string":true,"maxLength":5}"#,
            ),
            (
                r#"{"type":"object","required":["a","b"],"properties":{"a":{"type":"string","nullable":true},"b":{"type":"string","default":"x"}}}"#,
                r#"{"type":"object","required":["b"],"properties":{"a":{},"b":{"type":"string"}}}"#,
            ),
            (
                r#"{"type":"object","required":["a"],"additionalProperties":{"type":"string","nullable":true}}"#,
                r#"{"type":"object","additionalProperties":{}}"#,
            ),
        ] {
            let mut schema = api::json::decode(schema.as_bytes()).unwrap().value;
            for_v2(&mut schema);
            assert_eq!(schema.to_string(), want);
        }
    }
}
