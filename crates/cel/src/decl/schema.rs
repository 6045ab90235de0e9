//! Declarations from an OpenAPI v3 schema.

use std::collections::HashMap;
use std::sync::Arc;

use api::Value;

use super::{Decl, Format, ListKind, MAX_REQUEST, Shape, escape};
use crate::cost::{Range, Sizes};

/// Deepest schema that is read.
const MAX_DEPTH: u32 = 200;

impl Decl {
    /// What `schema` declares; its object types are called `name` and, below, by their path. None when expressions can see
    /// nothing of it, as with a schema that has no type.
    ///
    /// With `root`, the schema is that of a whole resource, which has a kind, a version and metadata of its own.
    pub fn from_schema(schema: &Value, name: &str, root: bool) -> Option<Decl> {
        read(schema, name, root, 0)
    }
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).as_bool() == Some(true)
}

fn limit(schema: &Value, name: &str) -> Option<u64> {
    schema.get(name).as_i64().map(|n| u64::try_from(n).unwrap_or(0))
}

/// Text whose length is limited by `maxLength` takes up to four bytes for each character.
fn max_length(schema: &Value) -> u64 {
    limit(schema, "maxLength").map_or(MAX_REQUEST - 2, |n| n.saturating_mul(4))
}

fn read(schema: &Value, name: &str, root: bool, depth: u32) -> Option<Decl> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut decl = if flag(schema, "x-kubernetes-int-or-string") {
        Decl { max_elements: max_length(schema), ..Decl::of(Shape::IntOrString, 1) }
    } else {
        match schema.str_at(&["type"]) {
            "array" => list(schema, name, depth)?,
            "object" => object(schema, name, root, depth)?,
            "string" => string(schema),
            "boolean" => Decl::bool(),
            "number" => Decl::of(Shape::Double, 1),
            "integer" => Decl::int(),
            _ => return None,
        }
    };
    decl.nullable = flag(schema, "nullable");
    Some(decl)
}

fn embedded(schema: &Value) -> bool {
    flag(schema, "x-kubernetes-embedded-resource")
}

fn list(schema: &Value, name: &str, depth: u32) -> Option<Decl> {
    let items = schema.get("items");
    let item = read(items, &format!("{name}.@idx"), embedded(items), depth + 1)?;
    let kind = match schema.str_at(&["x-kubernetes-list-type"]) {
        "set" => ListKind::Set,
        "map" => {
            let keys = schema.array_at(&["x-kubernetes-list-map-keys"]).iter().filter_map(Value::as_str);
            ListKind::Map(keys.map(|k| escape::escape(k).map_or(k.to_owned(), |e| e.into_owned())).collect())
        }
        _ => ListKind::Atomic,
    };
    let mut decl = Decl::list(item, limit(schema, "maxItems"));
    if let Shape::List { kind: k, .. } = &mut decl.shape {
        *k = kind;
    }
    Some(decl)
}

fn object(schema: &Value, name: &str, root: bool, depth: u32) -> Option<Decl> {
    if schema.get("additionalProperties").as_object().is_some() {
        let values = schema.get("additionalProperties");
        let value = read(values, &format!("{name}.@elem"), embedded(values), depth + 1)?;
        return Some(Decl::map(value, limit(schema, "maxProperties")));
    }
    let required: Vec<&str> = schema.array_at(&["required"]).iter().filter_map(Value::as_str).collect();
    let mut members = HashMap::new();
    let mut min_size = 2;
    let properties = schema.get("properties").as_object();
    for (member, property) in properties.into_iter().flat_map(api::Map::iter) {
        let path = format!("{name}.{}", escape::escape(member).as_deref().unwrap_or(member));
        let Some(decl) = read(property, &path, embedded(property), depth + 1) else { continue };
        if required.contains(&member) && property.get("default").is_null() {
            min_size += member.len() as u64 + decl.min_size + 4;
        }
        members.insert(member.to_owned(), decl);
    }
    if root && !has_type_and_metadata(schema) {
        for member in ["kind", "apiVersion"] {
            members.insert(member.to_owned(), Decl::string());
        }
        let named = ["name", "generateName"].map(|n| (n.to_owned(), Decl::string()));
        members.insert("metadata".to_owned(), Decl::object(&format!("{name}.metadata"), named));
    }
    Some(Decl { min_size, ..Decl::object(name, members) })
}

/// True when a schema of a resource declares itself what all resources have.
fn has_type_and_metadata(schema: &Value) -> bool {
    let of = |path: &[&str], wanted: &str| schema.get("properties").str_at(path) == wanted;
    of(&["kind", "type"], "string")
        && of(&["apiVersion", "type"], "string")
        && of(&["metadata", "type"], "object")
        && of(&["metadata", "properties", "name", "type"], "string")
        && of(&["metadata", "properties", "generateName", "type"], "string")
}

fn string(schema: &Value) -> Decl {
    let of = |format, max, min| Decl { max_elements: max, ..Decl::of(Shape::String(format), min) };
    match schema.str_at(&["format"]) {
        "byte" => of(Format::Byte, limit(schema, "maxLength").unwrap_or(MAX_REQUEST - 2), 2),
        "duration" => of(Format::Duration, 32, 3),
        "date" => of(Format::Date, 12, 12),
        "date-time" => of(Format::DateTime, 32, 21),
        _ => {
            let longest =
                schema.array_at(&["enum"]).iter().map(|v| v.as_str().map_or(0, str::len) as u64).max();
            let max = match (limit(schema, "maxLength"), longest) {
                (None, Some(longest)) => longest,
                _ => max_length(schema),
            };
            of(Format::None, max, 2)
        }
    }
}

impl Decl {
    /// The declaration behind a step of a path: `@items`, `@values`, `@keys` or a field.
    pub(crate) fn step(&self, step: &str) -> Option<Arc<Decl>> {
        match (&self.shape, step) {
            (Shape::List { item, .. }, "@items") => Some(item.clone()),
            (Shape::Map { value }, "@values") => Some(value.clone()),
            // Keys have no limit of their own, and are not estimated.
            (Shape::Map { .. }, "@keys") => Some(Arc::new(Decl { max_elements: 0, ..Decl::string() })),
            (Shape::Object { fields, .. }, field) => fields.get(field).cloned(),
            _ => None,
        }
    }
}

/// The sizes of what is below a declaration, whatever the variable is called.
impl Sizes for Decl {
    fn size(&self, path: &[String]) -> Option<Range> {
        let mut found: Option<Arc<Decl>> = None;
        for step in path.get(1..)? {
            found = Some(found.as_deref().unwrap_or(self).step(step)?);
        }
        Some(Range { min: 0, max: found.as_deref().unwrap_or(self).max_elements })
    }
}
