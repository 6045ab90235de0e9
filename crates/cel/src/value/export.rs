//! From values of the language to values of an object.

use api::Value;

use super::{EvalError, Val};
use crate::decl::escape;

impl Val<'_> {
    /// The value as it is written into an object: bytes in base64, times and durations as text.
    ///
    /// # Errors
    /// The value has no such form.
    pub fn to_value(&self) -> Result<Value, EvalError> {
        let text = || Ok(Value::from(self.to_string()));
        Ok(match self {
            Val::Null | Val::Optional(None) => Value::Null,
            Val::Bool(b) => (*b).into(),
            Val::Int(n) => (*n).into(),
            Val::Uint(n) => i64::try_from(*n).map_or(Value::Float(*n as f64), Value::Int),
            Val::Double(d) if d.is_finite() => (*d).into(),
            Val::String(s) => Value::from(&**s),
            Val::Bytes(b) => {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD.encode(b).into()
            }
            Val::Timestamp(_)
            | Val::Duration(_)
            | Val::Quantity(..)
            | Val::Ip(_)
            | Val::Cidr(_)
            | Val::Url(_) => {
                return text();
            }
            Val::Semver(_) => return text(),
            Val::Optional(Some(v)) => return v.to_value(),
            Val::List(list) => {
                list.iter().map(|item| item?.to_value()).collect::<Result<Vec<Value>, EvalError>>()?.into()
            }
            Val::Map(map) => {
                let mut object = api::Map::with_capacity(map.len());
                for (key, value) in map.iter() {
                    object.insert(key.as_str().ok_or_else(EvalError::no_overload)?, value?.to_value()?);
                }
                object.into()
            }
            // Fields are named as expressions name them.
            Val::Struct(made) => {
                let mut object = api::Map::with_capacity(made.1.len());
                for (key, value) in made.1.iter() {
                    let name = key.as_str().and_then(escape::unescape).ok_or_else(EvalError::no_overload)?;
                    object.insert(name.as_ref(), value?.to_value()?);
                }
                object.into()
            }
            Val::Double(_) | Val::Type(_) | Val::Format(_) | Val::Authz(_) => {
                let message =
                    format!("a value of type {} cannot be part of an object", self.runtime_type().name());
                return Err(EvalError::new(message));
            }
        })
    }
}
