//! The three patches of a PATCH request that are not apply: JSON patch (RFC 6902), merge patch (RFC 7396) and
//! strategic merge patch.
//!
//! Each takes the object in the version of the request and gives the patched one, not yet decoded; [`decode`] does
//! that with the messages that upstream has for patches.

use api::field::{FieldError, Path};
use api::{ApiError, Value};
use http::StatusCode;

use crate::decode::{DecodeError, Finding, Mode, normalize, normalize_converted};
use crate::types::Ty;

mod json;
mod merge;
mod strategic;
mod unstructured;

pub use json::json;
pub use merge::merge;
pub use strategic::strategic;

/// A patch that cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The patch is not well formed (400).
    #[error("{0}")]
    Malformed(String),
    /// It does not fit the object (422). The client is not told why, only that; `Display` is for logs.
    #[error("{0}")]
    DoesNotApply(String),
    /// A test of a JSON patch failed (422); told as little of.
    #[error("{0}")]
    TestFailed(String),
    /// A JSON patch of so many operations (413).
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooMany(usize),
    /// Upstream has no word for it and answers 500.
    #[error("{0}")]
    Other(String),
}

/// As many bytes of JSON as all copies of a JSON patch may make, which else could double an object again and again.
pub const MAX_COPIED: usize = 3 << 20;

/// As many operations as a JSON patch may have.
pub const MAX_OPERATIONS: usize = 10_000;

impl From<Error> for ApiError {
    fn from(e: Error) -> Self {
        let text = e.to_string();
        match e {
            Error::Malformed(text) => ApiError::bad_request(text),
            Error::DoesNotApply(_) | Error::TestFailed(_) => {
                let why = "the server rejected our request due to an error in our request";
                let mut error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", why);
                error.status_mut().explicit_details = true;
                error
            }
            Error::TooMany(_) => {
                let message = format!("Request entity too large: {text}");
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
            }
            Error::Other(text) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "", text),
        }
    }
}

/// Reads an object that was patched strategically; `patch` is what the error quotes. Returns the object and the warnings
/// for the client.
pub fn decode_strategic(
    value: Value,
    patch: &Value,
    ty: Ty<'_>,
    mode: Mode,
    findings: Vec<String>,
) -> Result<(Value, Vec<String>), ApiError> {
    let value = unstructured::convert(value, ty).map_err(|why| {
        ApiError::invalid("", "", "", &[FieldError::invalid(&Path::new("patch"), go_map(patch), why)])
    })?;
    read(normalize_converted(value, ty, mode), &|| go_map(patch), mode, findings)
}

/// Brings the numbers of an object that was put together from an applied configuration into the form of the type.
///
/// # Errors
/// The first thing that does not fit, in upstream's words.
pub fn convert(value: Value, ty: Ty<'_>) -> Result<Value, String> {
    unstructured::convert(value, ty)
}

/// Reads a patched object. `shown` is what the error quotes: the patched object as JSON. `findings` are those of the patch itself. Returns the object and the
/// warnings for the client.
pub fn decode(
    value: Value,
    shown: &dyn Fn() -> String,
    ty: Ty<'_>,
    mode: Mode,
    findings: Vec<String>,
) -> Result<(Value, Vec<String>), ApiError> {
    read(normalize(value, ty, mode), shown, mode, findings)
}

fn read(
    normalized: Result<(Value, Vec<Finding>), DecodeError>,
    shown: &dyn Fn() -> String,
    mode: Mode,
    mut findings: Vec<String>,
) -> Result<(Value, Vec<String>), ApiError> {
    let refuse = |why: String| {
        ApiError::invalid("", "", "", &[FieldError::invalid(&Path::new("patch"), shown(), why)])
    };
    let (value, more) = normalized.map_err(|e| refuse(e.to_string()))?;
    findings.extend(more.into_iter().map(|f| f.0));
    match mode {
        Mode::Ignore => Ok((value, Vec::new())),
        Mode::Strict if !findings.is_empty() => {
            Err(refuse(format!("strict decoding error: {}", findings.join(", "))))
        }
        _ => Ok((value, findings)),
    }
}

/// A value as Go's `%v` prints it: `map[a:1 b:[x y]]`.
pub fn go_map(v: &Value) -> String {
    match v {
        Value::Object(m) => {
            let mut members: Vec<_> = m.iter().collect();
            members.sort_by_key(|(k, _)| *k);
            let texts: Vec<String> = members.iter().map(|(k, v)| format!("{k}:{}", go_map(v))).collect();
            format!("map[{}]", texts.join(" "))
        }
        Value::Array(a) => format!("[{}]", a.iter().map(go_map).collect::<Vec<_>>().join(" ")),
        Value::String(s) => s.to_string(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// Go's name of a value's type when it is decoded into an interface.
pub fn go_type(v: &Value) -> &'static str {
    match v {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests;
