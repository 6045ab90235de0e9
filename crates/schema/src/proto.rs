//! Protobuf: objects as upstream stores them in etcd and as clients may ask for them.
//!
//! An object on the wire is the envelope: four bytes, then a `runtime.Unknown` message with the object's `apiVersion` and
//! `kind`, and the object's own message, which has neither. Field numbers come from the types. As in the code that
//! upstream generates, fields that are no pointers are written even when zero, and everything in the order of its
//! number, so that the same object always gives the same bytes.

use api::{Map, Value};

use crate::types::Ty;

mod read;
pub(crate) mod wire;
mod write;

pub use read::decode;
pub use write::encode;

/// What an object in protobuf begins with.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// Bytes that are no object in protobuf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are none.
    #[error("empty data")]
    Empty,
    /// Nothing follows [`MAGIC`].
    #[error("empty body")]
    EmptyBody,
    /// They do not begin with [`MAGIC`].
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    /// They end in the middle of something.
    #[error("unexpected EOF")]
    Truncated,
    /// Something is not as protobuf has it.
    #[error("proto: {0}")]
    Malformed(&'static str),
    /// JSON in it cannot be read.
    #[error("proto: bad JSON in field: {0}")]
    Json(String),
    /// Messages nest too deeply.
    #[error("proto: message is nested too deeply")]
    TooDeep,
}

/// What the envelope says about the object in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `group/version`.
    pub api_version: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// The object's message.
    pub raw: &'a [u8],
    /// Encoding of the message; empty for none.
    pub content_encoding: &'a str,
    /// Media type of the message; empty for protobuf.
    pub content_type: &'a str,
}

/// Takes an object out of its envelope.
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    let body = bytes.strip_prefix(&MAGIC).ok_or(Error::NoMagic)?;
    if body.is_empty() {
        return Err(Error::EmptyBody);
    }
    let mut out = Envelope::default();
    let mut reader = wire::Reader(body);
    while let Some((number, value)) = reader.field()? {
        match (number, value) {
            (1, wire::Field::Bytes(meta)) => {
                let mut meta = wire::Reader(meta);
                while let Some((number, value)) = meta.field()? {
                    match number {
                        1 => out.api_version = value.str()?,
                        2 => out.kind = value.str()?,
                        _ => {}
                    }
                }
            }
            (2, wire::Field::Bytes(raw)) => out.raw = raw,
            (3, value) => out.content_encoding = value.str()?,
            (4, value) => out.content_type = value.str()?,
            _ => {}
        }
    }
    Ok(out)
}

/// Puts an object's message into an envelope.
pub fn seal(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + api_version.len() + kind.len() + 24);
    out.extend(MAGIC);
    wire::nested(&mut out, 1, |out| {
        wire::bytes(out, 1, api_version.as_bytes());
        wire::bytes(out, 2, kind.as_bytes());
    });
    wire::bytes(&mut out, 2, raw);
    wire::bytes(&mut out, 3, b"");
    wire::bytes(&mut out, 4, b"");
    out
}

/// An object of a type with its envelope, which takes `apiVersion` and `kind` from the object.
pub fn encode_object(object: &Value, ty: Ty<'_>) -> Vec<u8> {
    seal(object.str_at(&["apiVersion"]), object.str_at(&["kind"]), &encode(object, ty))
}

/// An object out of its envelope, with `kind` and `apiVersion` set. `ty` finds the type of a `group/version` and kind;
/// the answer is none when it does not.
pub fn decode_object<'a>(
    bytes: &[u8],
    ty: impl FnOnce(&str, &str) -> Option<Ty<'a>>,
) -> Result<Option<Value>, Error> {
    let envelope = open(bytes)?;
    let Some(ty) = ty(envelope.api_version, envelope.kind) else { return Ok(None) };
    let object = decode(envelope.raw, ty)?;
    let Value::Object(members) = object else { return Ok(Some(object)) };
    let mut out = Map::with_capacity(members.len() + 2);
    for (name, value) in [("kind", envelope.kind), ("apiVersion", envelope.api_version)] {
        if !value.is_empty() {
            out.push(name, value.into());
        }
    }
    for (name, value) in members {
        if name != "kind" && name != "apiVersion" {
            out.push(name, value);
        }
    }
    Ok(Some(Value::Object(out)))
}

/// A watch event as it stands in a stream of frames: without envelope, around an object with one.
pub fn watch_event(event: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + event.len() + 16);
    wire::bytes(&mut out, 1, event.as_bytes());
    wire::nested(&mut out, 2, |out| wire::bytes(out, 1, object));
    out
}

#[cfg(test)]
mod tests;
