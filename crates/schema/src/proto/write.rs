//! Values to messages.

use api::{Map, Value};
use base64::Engine as _;

use super::wire;
use crate::decode::scalar;
use crate::types::{Field, Shape, Struct, Ty, Wire};

/// The message of a normalized object, without envelope.
pub fn encode(object: &Value, ty: Ty<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    // Types with a form of their own are messages too.
    body(&mut out, object, ty);
    out
}

/// The values of a struct's fields, in the order of the fields.
type Slots<'v> = [Option<&'v Value>];

/// Finds the values of a struct's fields and gives them to `f`.
fn with_slots<'v>(map: Option<&'v Map>, s: &Struct, f: impl FnOnce(&Slots<'v>)) {
    const MANY: usize = 64;
    let n = s.fields.len();
    let (mut few, mut many) = ([None; MANY], Vec::new());
    let slots: &mut Slots<'v> = if n <= MANY {
        &mut few[..n]
    } else {
        many.resize(n, None);
        &mut many
    };
    // Members mostly come in the order of declaration: the search starts after the last one found.
    let mut next = 0;
    for (name, value) in map.into_iter().flat_map(Map::iter).filter(|(_, v)| !v.is_null()) {
        if let Some(i) = (0..n).map(|k| (next + k) % n).find(|i| s.fields[*i].name == name) {
            slots[i] = Some(value);
            next = i + 1;
        }
    }
    f(slots);
}

fn message(out: &mut Vec<u8>, slots: &Slots<'_>, s: &Struct, ty: Ty<'_>) {
    for wire in &s.wire {
        match wire {
            Wire::Field(i) => {
                let field = &s.fields[*i as usize];
                match slots[*i as usize] {
                    Some(value) => write(out, field.number, value, ty.at(field.ty)),
                    None if !field.pointer => zero(out, field, ty.at(field.ty)),
                    None => {}
                }
            }
            Wire::Inlined(i) => {
                let inlined = &s.inlined[*i as usize];
                let (inner, first) = (ty.at(inlined.ty), inlined.first as usize);
                if let Shape::Struct(s) = inner.shape() {
                    let slots = &slots[first..first + s.fields.len()];
                    wire::nested(out, inlined.number, |out| message(out, slots, s, inner));
                }
            }
        }
    }
}

/// A field that is no pointer and has no value.
fn zero(out: &mut Vec<u8>, field: &Field, ty: Ty<'_>) {
    let number = field.number;
    match ty.shape() {
        Shape::String => wire::bytes(out, number, b""),
        Shape::Bool | Shape::Int32 | Shape::Int64 => wire::int(out, number, 0),
        Shape::Float => wire::double(out, number, 0.0),
        Shape::Struct(_) => wire::nested(out, number, |out| body(out, &Value::Null, ty)),
        Shape::Time | Shape::MicroTime | Shape::Raw => wire::bytes(out, number, b""),
        Shape::Quantity => write(out, number, &"0".into(), ty),
        Shape::IntOrString => write(out, number, &0.into(), ty),
        Shape::Duration => write(out, number, &"0s".into(), ty),
        _ => {}
    }
}

/// A list that is a type of its own is a message of its own, unless its items are messages.
pub(super) fn is_wrapped_list(ty: Ty<'_>) -> bool {
    !ty.get().name.starts_with('[') && ty.item().is_some_and(|i| matches!(i.shape(), Shape::String))
}

fn write(out: &mut Vec<u8>, number: u32, value: &Value, ty: Ty<'_>) {
    match (ty.shape(), value) {
        (Shape::List(_), Value::Array(items)) if is_wrapped_list(ty) => wire::nested(out, number, |out| {
            items.iter().for_each(|v| wire::bytes(out, 1, v.as_str().unwrap_or_default().as_bytes()));
        }),
        (Shape::List(l), Value::Array(items)) => {
            let item = ty.at(l.item);
            items.iter().for_each(|v| write(out, number, v, item));
        }
        (Shape::Map(m), Value::Object(map)) => {
            let item = ty.at(m.value);
            let mut members: Vec<(&str, &Value)> = map.iter().collect();
            members.sort_by_key(|(k, _)| *k);
            for (key, value) in members {
                wire::nested(out, number, |out| {
                    wire::bytes(out, 1, key.as_bytes());
                    write(out, 2, value, item);
                });
            }
        }
        (Shape::String, v) => wire::bytes(out, number, v.as_str().unwrap_or_default().as_bytes()),
        (Shape::Bool, v) => wire::int(out, number, v.as_bool().unwrap_or_default().into()),
        (Shape::Int32 | Shape::Int64, v) => wire::int(out, number, v.as_i64().unwrap_or_default()),
        (Shape::Float, Value::Int(n)) => wire::double(out, number, *n as f64),
        (Shape::Float, Value::Float(n)) => wire::double(out, number, *n),
        (Shape::Bytes, Value::String(s)) => wire::bytes(out, number, &from_base64(s)),
        (_, value) => wire::nested(out, number, |out| body(out, value, ty)),
    }
}

/// Go's decoder does not mind bits after the end.
pub(super) fn from_base64(text: &str) -> Vec<u8> {
    const CONFIG: base64::engine::GeneralPurposeConfig =
        base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIG).decode(text).unwrap_or_default()
}

/// The content of a message field.
fn body(out: &mut Vec<u8>, value: &Value, ty: Ty<'_>) {
    let text = || value.as_str().unwrap_or_default();
    match ty.shape() {
        Shape::Struct(s) => with_slots(value.as_object(), s, |slots| message(out, slots, s, ty)),
        Shape::Quantity => wire::bytes(out, 1, text().as_bytes()),
        Shape::IntOrString => {
            wire::int(out, 1, value.as_str().is_some().into());
            wire::int(out, 2, value.as_i64().unwrap_or_default());
            wire::bytes(out, 3, text().as_bytes());
        }
        Shape::Time | Shape::MicroTime => {
            if let Some(t) = api::time::parse(text()) {
                wire::int(out, 1, t.as_second());
                wire::int(
                    out,
                    2,
                    if matches!(ty.shape(), Shape::Time) { 0 } else { t.subsec_nanosecond().into() },
                );
            }
        }
        Shape::Duration => wire::int(out, 1, scalar::parse_duration(text()).unwrap_or_default()),
        Shape::Raw | Shape::FieldsV1 if !value.is_null() => wire::bytes(out, 1, &value.to_json()),
        Shape::SchemaOrBool(id) => {
            wire::int(out, 1, (value.as_bool().unwrap_or(true)).into());
            schema_in(out, 2, value, ty.at(*id));
        }
        Shape::SchemaOrArray(id) | Shape::SchemaOrStrings(id) => {
            let props = ty.at(*id);
            schema_in(out, 1, value, props);
            for item in value.as_array().into_iter().flatten() {
                match item {
                    Value::String(s) => wire::bytes(out, 2, s.as_bytes()),
                    item => wire::nested(out, 2, |out| body(out, item, props)),
                }
            }
        }
        _ => {}
    }
}

fn schema_in(out: &mut Vec<u8>, number: u32, value: &Value, props: Ty<'_>) {
    if matches!(value, Value::Object(_)) {
        wire::nested(out, number, |out| body(out, value, props));
    }
}
