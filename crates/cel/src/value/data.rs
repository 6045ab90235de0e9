//! From the values of an object to values of the language, as the object's schema says.

use super::{EvalError, List, Map, Outcome, Text, Val};
use crate::decl::{Decl, Format, Shape};

impl<'a> Val<'a> {
    /// The value `data`, which is declared as `decl`.
    ///
    /// # Errors
    /// The value is not what it is declared as.
    pub fn from_data(data: &'a api::Value, decl: &'a Decl) -> Outcome<'a> {
        use api::Value as V;
        if data.is_null() && !decl.nullable && decl.shape != Shape::Dyn {
            return Err(EvalError::new("invalid data, got null for schema with nullable=false"));
        }
        Ok(match (&decl.shape, data) {
            (_, V::Null) => Val::Null,
            (Shape::Dyn, V::Bool(b)) | (Shape::Bool, V::Bool(b)) => Val::Bool(*b),
            (Shape::Dyn | Shape::IntOrString | Shape::Int, V::Int(n)) => Val::Int(*n),
            (Shape::Dyn | Shape::Double, V::Float(n)) => Val::Double(*n),
            (Shape::Double, V::Int(n)) => Val::Double(*n as f64),
            (Shape::Dyn | Shape::IntOrString, V::String(s)) => Val::String(Text::Borrowed(s)),
            (Shape::String(format), V::String(s)) => return formatted(s, *format),
            (Shape::List { item, .. }, V::Array(items)) => Val::List(List::data(items, item, decl)),
            (Shape::Dyn, V::Array(items)) => Val::List(List::data(items, decl, decl)),
            (Shape::Map { .. } | Shape::Object { .. } | Shape::Dyn, V::Object(map)) => {
                Val::Map(Map::Data(map, decl))
            }
            (Shape::IntOrString, _) => {
                return Err(EvalError::new(
                    "invalid data, expected XIntOrString value to be either a string or integer",
                ));
            }
            (shape, data) => {
                let message = format!("invalid data, expected {}, got {}", shape.name(), data.kind_name());
                return Err(EvalError::new(message));
            }
        })
    }
}

fn formatted(text: &str, format: Format) -> Outcome<'_> {
    use crate::library::time::{parse_duration, parse_timestamp};
    let invalid = |what: &str| EvalError::new(format!("Invalid {what} {text}"));
    Ok(match format {
        Format::None => Val::String(Text::Borrowed(text)),
        Format::Duration => Val::Duration(parse_duration(text).ok_or_else(|| invalid("duration"))?),
        Format::DateTime => {
            Val::Timestamp(parse_timestamp(text).ok_or_else(|| invalid("date-time formatted string"))?)
        }
        Format::Date => {
            let midnight = format!("{text}T00:00:00Z");
            Val::Timestamp(parse_timestamp(&midnight).ok_or_else(|| invalid("date formatted string"))?)
        }
        Format::Byte => {
            use base64::Engine;
            let decoded = base64::engine::general_purpose::STANDARD.decode(text);
            Val::Bytes(decoded.map_err(|_| invalid("byte formatted string"))?.into())
        }
    })
}
