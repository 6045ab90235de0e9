//! Messages to values.

use api::Value;
use base64::Engine as _;
use jiff::Timestamp;

use super::Error;
use super::wire::{Field as Raw, Reader};
use super::write::is_wrapped_list;
use crate::decode::{scalar, written, zero};
use crate::types::{Shape, Struct, Ty, Wire};

/// As deep as messages may nest: the depth of JSON documents.
const MAX_DEPTH: usize = api::json::MAX_DEPTH;

/// Reads the message of an object of a type, without envelope. The result is normalized.
pub fn decode(bytes: &[u8], ty: Ty<'_>) -> Result<Value, Error> {
    body(bytes, ty, 0)
}

fn message(bytes: &[u8], s: &Struct, ty: Ty<'_>, depth: usize) -> Result<Value, Error> {
    let mut slots: Vec<Option<Value>> = Vec::new();
    slots.resize_with(s.fields.len(), || None);
    fill(bytes, s, ty, &mut slots, depth)?;
    Ok(Value::Object(written(slots, s, ty)))
}

/// Fills the slots of a struct's fields from its message.
fn fill(
    bytes: &[u8],
    s: &Struct,
    ty: Ty<'_>,
    slots: &mut [Option<Value>],
    depth: usize,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::TooDeep);
    }
    let mut reader = Reader(bytes);
    // Fields come in the order of their numbers.
    let mut next = 0;
    while let Some((number, raw)) = reader.field()? {
        let number_of = |w: &Wire| match w {
            Wire::Field(i) => s.fields[*i as usize].number,
            Wire::Inlined(i) => s.inlined[*i as usize].number,
        };
        let n = s.wire.len();
        let found = (0..n).map(|k| (next + k) % n).find(|k| number_of(&s.wire[*k]) == number);
        let Some(at) = found else { continue };
        next = at;
        match s.wire[at] {
            Wire::Inlined(i) => {
                let inlined = &s.inlined[i as usize];
                let inner = ty.at(inlined.ty);
                if let Shape::Struct(s) = inner.shape() {
                    let first = inlined.first as usize;
                    fill(raw.bytes()?, s, inner, &mut slots[first..first + s.fields.len()], depth + 1)?;
                }
            }
            Wire::Field(i) => {
                let field = &s.fields[i as usize];
                add(&mut slots[i as usize], raw, ty.at(field.ty), depth + 1)?;
            }
        }
    }
    Ok(())
}

/// Adds what a field holds to what it held before.
fn add(slot: &mut Option<Value>, raw: Raw<'_>, ty: Ty<'_>, depth: usize) -> Result<(), Error> {
    match ty.shape() {
        Shape::List(_) if is_wrapped_list(ty) => {
            let mut items = Vec::new();
            let mut reader = Reader(raw.bytes()?);
            while let Some((number, item)) = reader.field()? {
                if number == 1 {
                    items.push(Value::from(item.str()?));
                }
            }
            *slot = Some(Value::Array(items));
        }
        Shape::List(l) => {
            let item = one(raw, ty.at(l.item), depth)?.unwrap_or_else(|| zero(ty.at(l.item)));
            slot.get_or_insert_with(|| Value::Array(Vec::new())).make_array().push(item);
        }
        Shape::Map(m) => {
            let of = ty.at(m.value);
            let (mut key, mut value) = ("", None);
            let mut reader = Reader(raw.bytes()?);
            while let Some((number, raw)) = reader.field()? {
                match number {
                    1 => key = raw.str()?,
                    2 if matches!(of.shape(), Shape::List(_)) => add(&mut value, raw, of, depth)?,
                    2 => value = one(raw, of, depth)?,
                    _ => {}
                }
            }
            let map = slot.get_or_insert_with(Value::object).make_object();
            let value = value.unwrap_or_else(|| zero(of));
            // Entries mostly come in the order of their keys.
            if map.keys().last().is_none_or(|last| last < key) {
                map.push(key, value);
            } else {
                map.insert(key, value);
                map.sort_keys();
            }
        }
        _ => *slot = one(raw, ty, depth)?,
    }
    Ok(())
}

/// One value; none for what is null in JSON.
fn one(raw: Raw<'_>, ty: Ty<'_>, depth: usize) -> Result<Option<Value>, Error> {
    Ok(Some(match ty.shape() {
        Shape::String => raw.str()?.into(),
        Shape::Bool => Value::Bool(raw.int()? != 0),
        Shape::Int32 => Value::Int((raw.int()? as i32).into()),
        Shape::Int64 => Value::Int(raw.int()?),
        Shape::Float => Value::Float(raw.double()?),
        Shape::Bytes => base64::engine::general_purpose::STANDARD.encode(raw.bytes()?).into(),
        _ => {
            let value = body(raw.bytes()?, ty, depth)?;
            return Ok((!value.is_null()).then_some(value));
        }
    }))
}

/// The numbers and strings of a small message, by field number from 1.
#[derive(Default)]
struct Small<'a> {
    ints: [i64; 3],
    bytes: [Option<&'a [u8]>; 4],
}

fn small(bytes: &[u8]) -> Result<Small<'_>, Error> {
    let mut out = Small::default();
    let mut reader = Reader(bytes);
    while let Some((number, raw)) = reader.field()? {
        match (number as usize, raw) {
            (n @ 0..3, Raw::Varint(v)) => out.ints[n] = v as i64,
            (n @ 0..4, Raw::Bytes(b)) => out.bytes[n] = Some(b),
            _ => {}
        }
    }
    Ok(out)
}

fn text(bytes: Option<&[u8]>) -> Result<&str, Error> {
    std::str::from_utf8(bytes.unwrap_or_default()).map_err(|_| Error::Malformed("string is not UTF-8"))
}

fn body(bytes: &[u8], ty: Ty<'_>, depth: usize) -> Result<Value, Error> {
    if let Shape::Struct(s) = ty.shape() {
        return message(bytes, s, ty, depth);
    }
    if let Shape::SchemaOrBool(id) | Shape::SchemaOrArray(id) | Shape::SchemaOrStrings(id) = ty.shape() {
        return schema_or(bytes, ty, ty.at(*id), depth + 1);
    }
    let s = small(bytes)?;
    Ok(match ty.shape() {
        Shape::Quantity => match text(s.bytes[1])? {
            "" => "0".into(),
            q => q.into(),
        },
        Shape::IntOrString if s.ints[1] == 1 => text(s.bytes[3])?.into(),
        Shape::IntOrString => Value::Int((s.ints[2] as i32).into()),
        Shape::Time | Shape::MicroTime if bytes.is_empty() => Value::Null,
        Shape::Time | Shape::MicroTime => {
            let nanos = i32::try_from(s.ints[2]).unwrap_or_default();
            let t = Timestamp::new(s.ints[1], nanos).map_err(|_| Error::Malformed("time out of range"))?;
            let micro = matches!(ty.shape(), Shape::MicroTime);
            if micro { api::time::format_micro(t) } else { api::time::format(t) }.into()
        }
        Shape::Duration => scalar::format_duration(s.ints[1]).into(),
        _ => match s.bytes[1] {
            None | Some([]) => Value::Null,
            Some(json) => api::json::decode(json).map_err(|e| Error::Json(e.to_string()))?.value,
        },
    })
}

fn schema_or(bytes: &[u8], ty: Ty<'_>, props: Ty<'_>, depth: usize) -> Result<Value, Error> {
    let (mut allows, mut schema, mut items) = (false, None, Vec::new());
    let is_bool = matches!(ty.shape(), Shape::SchemaOrBool(_));
    let mut reader = Reader(bytes);
    while let Some((number, raw)) = reader.field()? {
        match number {
            1 if is_bool => allows = raw.int()? != 0,
            1 => schema = Some(body(raw.bytes()?, props, depth)?),
            2 if is_bool => schema = Some(body(raw.bytes()?, props, depth)?),
            2 if matches!(ty.shape(), Shape::SchemaOrStrings(_)) => items.push(raw.str()?.into()),
            2 => items.push(body(raw.bytes()?, props, depth)?),
            _ => {}
        }
    }
    Ok(match schema {
        Some(schema) => schema,
        None if is_bool => allows.into(),
        None if items.is_empty() => Value::Null,
        None => Value::Array(items),
    })
}
