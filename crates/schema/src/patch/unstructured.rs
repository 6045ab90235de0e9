//! What upstream's converter makes of a strategically patched object: it reads maps into structs without the JSON
//! decoder, with rules and messages of its own, and stops at the first thing that does not fit.

use api::{Map, Value};

use crate::decode::read_scalar;
use crate::types::{Shape, Struct, Ty};

/// Brings numbers into the form of the type, or says in upstream's words what does not fit.
pub(super) fn convert(value: Value, ty: Ty<'_>) -> Result<Value, String> {
    match (ty.shape(), value) {
        (_, Value::Null) => Ok(Value::Null),
        (Shape::Struct(s), Value::Object(map)) => members(map, s, ty),
        (Shape::Struct(_), other) => Err(format!("cannot restore struct from: {}", go_kind(&other))),
        (Shape::List(l), Value::Array(items)) => {
            let items: Result<_, _> = items.into_iter().map(|v| convert(v, ty.at(l.item))).collect();
            Ok(Value::Array(items?))
        }
        (Shape::Bytes, value @ Value::String(_)) => match read_scalar(&value, ty) {
            Err(why) => Err(format!("error decoding from json: {why}")),
            Ok(()) => Ok(value),
        },
        (Shape::List(_) | Shape::Bytes, other) => {
            Err(format!("cannot restore slice from {}", go_kind(&other)))
        }
        (Shape::Map(m), Value::Object(map)) => {
            let convert = |(key, v)| convert(v, ty.at(m.value)).map(|v| (key, v));
            Ok(Value::Object(map.into_iter().map(convert).collect::<Result<Map, String>>()?))
        }
        (Shape::Map(_), other) => Err(format!("cannot restore map from {}", go_kind(&other))),
        (Shape::String, value @ Value::String(_)) | (Shape::Bool, value @ Value::Bool(_)) => Ok(value),
        (Shape::Float, value @ (Value::Int(_) | Value::Float(_))) => Ok(value),
        (Shape::Int64, value @ Value::Int(_)) => Ok(value),
        // Go's conversion cuts off what is too large.
        (Shape::Int32, Value::Int(n)) => Ok(Value::Int(i64::from(wrapped(n)))),
        (Shape::Int32 | Shape::Int64, Value::Float(f)) => whole(f)
            .map(|n| if matches!(ty.shape(), Shape::Int32) { i64::from(wrapped(n)) } else { n })
            .map(Value::Int)
            .ok_or_else(|| format!("cannot convert float64 to {}", ty.go_name())),
        (Shape::String, Value::Int(_)) => Err(format!("cannot convert int64 to {}", ty.go_name())),
        (Shape::String, _) => Err("unrecognized type: string".to_owned()),
        (Shape::Bool, _) => Err("unrecognized type: bool".to_owned()),
        (Shape::Int32, _) => Err("unrecognized type: int32".to_owned()),
        (Shape::Int64, _) => Err("unrecognized type: int64".to_owned()),
        (Shape::Float, _) => Err("unrecognized type: float64".to_owned()),
        (Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime | Shape::Duration, value) => {
            read_scalar(&value, ty).map(|()| value)
        }
        (_, value) => Ok(value),
    }
}

/// The members that are declared, in the order of declaration; the others stay as they are.
fn members(mut map: Map, s: &Struct, ty: Ty<'_>) -> Result<Value, String> {
    for field in &s.fields {
        if let Some(value) = map.get_mut(&field.name) {
            *value = convert(value.take(), ty.at(field.ty))?;
        }
    }
    Ok(Value::Object(map))
}

/// The kind that Go gives a decoded value.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

#[expect(clippy::cast_possible_truncation, reason = "Go's conversion truncates, too")]
fn wrapped(n: i64) -> i32 {
    n as i32
}

#[expect(clippy::cast_possible_truncation, reason = "only whole numbers that fit are converted")]
fn whole(f: f64) -> Option<i64> {
    (f.trunc() == f && f.abs() < 9.0e18).then_some(f as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn the_first_misfit_is_told_in_the_converters_words() {
        let check = |pod: Value, want: Result<Value, &str>| {
            let got = convert(pod, crate::named("core/v1.Pod").unwrap());
            assert_eq!(got, want.map_err(str::to_owned));
        };
        check(object!({"spec": [1]}), Err("cannot restore struct from: slice"));
        check(object!({"spec": {"containers": {"a": 1}}}), Err("cannot restore slice from map"));
        check(object!({"spec": {"nodeSelector": "x"}}), Err("cannot restore map from string"));
        check(object!({"spec": {"restartPolicy": 5}}), Err("cannot convert int64 to v1.RestartPolicy"));
        check(object!({"spec": {"restartPolicy": true}}), Err("unrecognized type: string"));
        let deadline = |n: Value| object!({"spec": {"activeDeadlineSeconds": n}});
        check(deadline(20.0.into()), Ok(deadline(20.into())));
        check(deadline(1.5.into()), Err("cannot convert float64 to int64"));
    }
}
