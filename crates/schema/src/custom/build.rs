//! Types from a structural schema.

use api::Value;
use compact_str::CompactString;

use crate::types::{Field, List, ListKind, MapOf, Omit, Schema, Shape, Struct, Type, TypeId, Unknown, named};

/// The type of whole objects: what the schema says, and what every object has.
pub(super) fn root(types: &mut Schema, schema: &Value, preserve: bool) -> TypeId {
    let keep = preserve || flag(schema, "x-kubernetes-preserve-unknown-fields");
    let mut s = object(types, schema, keep);
    add_meta(types, &mut s);
    add(types, Shape::Struct(s))
}

fn add(types: &mut Schema, shape: Shape) -> TypeId {
    types.add(Type { name: "".into(), shape })
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).as_bool().unwrap_or(false)
}

fn field(name: &str, ty: TypeId) -> Field {
    Field {
        name: name.into(),
        ty,
        number: 0,
        pointer: false,
        omit: Omit::Empty,
        required: false,
        nullable: false,
        via: None,
        patch: None,
        default: None,
    }
}

/// Adds what every object has, instead of what the schema says of it.
fn add_meta(types: &mut Schema, s: &mut Struct) {
    s.fields.retain(|f| !matches!(f.name.as_str(), "apiVersion" | "kind" | "metadata"));
    for name in ["apiVersion", "kind"] {
        let ty = add(types, Shape::String);
        s.fields.push(field(name, ty));
    }
    let meta = named("meta/v1.ObjectMeta").expect("the table has it").id();
    let ty = add(types, Shape::Builtin(meta));
    s.fields.push(field("metadata", ty));
    s.kind = true;
}

fn object(types: &mut Schema, schema: &Value, keep: bool) -> Struct {
    let mut s = Struct { atomic: schema.str_at(&["x-kubernetes-map-type"]) == "atomic", ..Struct::default() };
    for (name, property) in schema.get("properties").as_object().into_iter().flat_map(|m| m.iter()) {
        let ty = build(types, property);
        let default = property.get("default");
        s.fields.push(Field {
            nullable: flag(property, "nullable"),
            default: (!default.is_null()).then(|| Box::new(default.clone())),
            ..field(name, ty)
        });
    }
    let additional = schema.get("additionalProperties");
    s.unknown = match additional {
        Value::Object(_) => Unknown::Typed(build(types, additional)),
        Value::Bool(true) => Unknown::Keep,
        _ if keep => Unknown::Keep,
        _ => Unknown::Drop,
    };
    s
}

fn build(types: &mut Schema, schema: &Value) -> TypeId {
    let keep = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let shape = match schema.str_at(&["type"]) {
        _ if flag(schema, "x-kubernetes-int-or-string") => Shape::IntOrString,
        "string" => Shape::String,
        "boolean" => Shape::Bool,
        "integer" => Shape::Int64,
        "number" => Shape::Float,
        "array" => {
            let items = schema.get("items");
            let item = if items.is_null() { add(types, Shape::Any) } else { build(types, items) };
            let kind = match schema.str_at(&["x-kubernetes-list-type"]) {
                "set" => ListKind::Set,
                "map" => ListKind::Map(
                    schema
                        .array_at(&["x-kubernetes-list-map-keys"])
                        .iter()
                        .filter_map(|k| k.as_str().map(CompactString::from))
                        .collect(),
                ),
                _ => ListKind::Atomic,
            };
            Shape::List(List { item, kind, declared: true })
        }
        "object" => {
            let embedded = flag(schema, "x-kubernetes-embedded-resource");
            let mut s = object(types, schema, keep);
            if embedded {
                add_meta(types, &mut s);
            }
            match s.unknown {
                Unknown::Typed(value) if s.fields.is_empty() => {
                    Shape::Map(MapOf { value, atomic: s.atomic, declared: true })
                }
                Unknown::Keep if s.fields.is_empty() && !s.atomic => Shape::Any,
                _ => Shape::Struct(s),
            }
        }
        _ => Shape::Any,
    };
    add(types, shape)
}
