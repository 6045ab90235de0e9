//! The version 2 document as protobuf, in the messages of gnostic: what kubectl asks for as
//! `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
//!
//! Source: <https://github.com/google/gnostic-models/blob/main/openapiv2/OpenAPIv2.proto>.

use api::{Map, Value};

use crate::proto::wire::{bytes, double, int, nested};

type Out = Vec<u8>;

/// Encodes a document that [`v2`](super::v2) made.
pub fn gnostic(document: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 << 20);
    let d = document;
    text(&mut out, 1, d.get("swagger"));
    nested(&mut out, 2, |out| {
        text(out, 1, d.at(&["info", "title"]));
        text(out, 2, d.at(&["info", "version"]));
    });
    nested(&mut out, 8, |out| named(out, 2, members(d.get("paths")), path_item));
    nested(&mut out, 9, |out| named(out, 1, members(d.get("definitions")), schema));
    for requirement in d.array_at(&["security"]) {
        nested(&mut out, 12, |out| {
            named(out, 1, members(requirement), |out, scopes| texts(out, 1, scopes));
        });
    }
    nested(&mut out, 13, |out| {
        named(out, 1, members(d.get("securityDefinitions")), |out, key| {
            nested(out, 2, |out| {
                for (number, name) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
                    text(out, number, key.get(name));
                }
            });
        });
    });
    out
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// A repeated message of a name and a value.
fn named<'v>(
    out: &mut Out,
    number: u32,
    members: impl Iterator<Item = (&'v str, &'v Value)>,
    write: impl Fn(&mut Out, &Value),
) {
    for (name, value) in members {
        nested(out, number, |out| {
            bytes(out, 1, name.as_bytes());
            nested(out, 2, |out| write(out, value));
        });
    }
}

fn text(out: &mut Out, number: u32, value: &Value) {
    if let Some(text) = value.as_str().filter(|t| !t.is_empty()) {
        bytes(out, number, text.as_bytes());
    }
}

fn texts(out: &mut Out, number: u32, value: &Value) {
    for item in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
        bytes(out, number, item.as_bytes());
    }
}

fn flag(out: &mut Out, number: u32, value: &Value) {
    if value.as_bool() == Some(true) {
        int(out, number, 1);
    }
}

/// Any value is YAML text, which JSON is too.
fn any(out: &mut Out, value: &Value) {
    bytes(out, 2, format!("{value}\n").as_bytes());
}

fn extensions(out: &mut Out, number: u32, of: &Value) {
    named(out, number, members(of).filter(|(k, _)| k.starts_with("x-")), any);
}

fn path_item(out: &mut Out, item: &Value) {
    let methods =
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")];
    for (number, method) in methods {
        if !item.get(method).is_null() {
            nested(out, number, |out| operation(out, item.get(method)));
        }
    }
    parameters(out, 9, item.get("parameters"));
}

fn operation(out: &mut Out, o: &Value) {
    texts(out, 1, o.get("tags"));
    text(out, 3, o.get("description"));
    text(out, 5, o.get("operationId"));
    texts(out, 6, o.get("produces"));
    texts(out, 7, o.get("consumes"));
    parameters(out, 8, o.get("parameters"));
    nested(out, 9, |out| {
        named(out, 1, members(o.get("responses")), |out, response| {
            nested(out, 1, |out| {
                text(out, 1, response.get("description"));
                if !response.get("schema").is_null() {
                    nested(out, 2, |out| nested(out, 1, |out| schema(out, response.get("schema"))));
                }
            });
        });
    });
    texts(out, 10, o.get("schemes"));
    extensions(out, 13, o);
}

fn parameters(out: &mut Out, number: u32, list: &Value) {
    for p in list.as_array().into_iter().flatten() {
        nested(out, number, |out| nested(out, 1, |out| parameter(out, p)));
    }
}

fn parameter(out: &mut Out, p: &Value) {
    let place = p.str_at(&["in"]);
    if place == "body" {
        return nested(out, 1, |out| {
            text(out, 1, p.get("description"));
            text(out, 2, p.get("name"));
            text(out, 3, p.get("in"));
            flag(out, 4, p.get("required"));
            nested(out, 5, |out| schema(out, p.get("schema")));
        });
    }
    // A path parameter has no field for "allow empty value", which shifts the numbers after it.
    let (kind, shift) = if place == "path" { (4, 0) } else { (3, 1) };
    nested(out, 2, |out| {
        nested(out, kind, |out| {
            flag(out, 1, p.get("required"));
            text(out, 2, p.get("in"));
            text(out, 3, p.get("description"));
            text(out, 4, p.get("name"));
            text(out, 5 + shift, p.get("type"));
            text(out, 6 + shift, p.get("format"));
            flag(out, 19 + shift, p.get("uniqueItems"));
        });
    });
}

fn schema(out: &mut Out, s: &Value) {
    text(out, 1, s.get("$ref"));
    text(out, 2, s.get("format"));
    text(out, 3, s.get("title"));
    text(out, 4, s.get("description"));
    if !s.get("default").is_null() {
        nested(out, 5, |out| any(out, s.get("default")));
    }
    let number = |out: &mut Out, at: u32, name: &str| match s.get(name) {
        Value::Int(n) => double(out, at, *n as f64),
        Value::Float(n) => double(out, at, *n),
        _ => {}
    };
    let count = |out: &mut Out, at: u32, name: &str| {
        if let Some(n) = s.get(name).as_i64().filter(|n| *n != 0) {
            int(out, at, n);
        }
    };
    number(out, 6, "multipleOf");
    number(out, 7, "maximum");
    flag(out, 8, s.get("exclusiveMaximum"));
    number(out, 9, "minimum");
    flag(out, 10, s.get("exclusiveMinimum"));
    count(out, 11, "maxLength");
    count(out, 12, "minLength");
    text(out, 13, s.get("pattern"));
    count(out, 14, "maxItems");
    count(out, 15, "minItems");
    flag(out, 16, s.get("uniqueItems"));
    count(out, 17, "maxProperties");
    count(out, 18, "minProperties");
    texts(out, 19, s.get("required"));
    for value in s.array_at(&["enum"]) {
        nested(out, 20, |out| any(out, value));
    }
    match s.get("additionalProperties") {
        Value::Null => {}
        Value::Bool(b) => nested(out, 21, |out| int(out, 2, (*b).into())),
        of => nested(out, 21, |out| nested(out, 1, |out| schema(out, of))),
    }
    if let Some(kind) = s.get("type").as_str() {
        nested(out, 22, |out| bytes(out, 1, kind.as_bytes()));
    }
    if !s.get("items").is_null() {
        nested(out, 23, |out| nested(out, 1, |out| schema(out, s.get("items"))));
    }
    for part in s.array_at(&["allOf"]) {
        nested(out, 24, |out| schema(out, part));
    }
    if !s.get("properties").is_null() {
        nested(out, 25, |out| named(out, 1, members(s.get("properties")), schema));
    }
    extensions(out, 31, s);
}
