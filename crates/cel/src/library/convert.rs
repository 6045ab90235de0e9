//! Conversions between types.

use super::call::{Builtin, Call, fail, no_overload, text};
use super::format::shortest;
use super::time::{format_duration, from_unix, parse_duration, parse_timestamp};
use crate::types::Type;
use crate::value::{EvalError, Outcome, Val};

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "bool" => to_bool,
        "bytes" => to_bytes,
        "double" => to_double,
        "duration" => to_duration,
        "dyn" => |_, args| args.first().cloned().map_or_else(no_overload, Ok),
        "int" => to_int,
        "string" => to_string,
        "timestamp" => to_timestamp,
        "type" => |_, args| args.first().map_or_else(no_overload, |v| Ok(Val::Type(v.runtime_type()))),
        "uint" => to_uint,
        _ => return None,
    })
}

fn cannot<'a>(args: &[Val<'a>], to: &Type) -> Outcome<'a> {
    let from = args.first().map_or(Type::Error, Val::runtime_type);
    fail(format!("type conversion error from '{}' to '{}'", from.name(), to.name()))
}

fn to_bool<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Bool(b)] => Ok(Val::Bool(*b)),
        [Val::String(s)] => match &**s {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Val::Bool(false)),
            _ => cannot(args, &Type::Bool),
        },
        _ => no_overload(),
    }
}

fn to_bytes<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Bytes(b)] => Ok(Val::Bytes(b.clone())),
        [Val::String(s)] => Ok(Val::Bytes(s.as_bytes().into())),
        _ => no_overload(),
    }
}

fn to_double<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Double(d)] => Ok(Val::Double(*d)),
        [Val::Int(n)] => Ok(Val::Double(*n as f64)),
        [Val::Uint(n)] => Ok(Val::Double(*n as f64)),
        [Val::String(s)] => match s.parse::<f64>() {
            // What is too big is an error in Go.
            Ok(d) if d.is_finite() || !s.contains(|c: char| c.is_ascii_digit()) => Ok(Val::Double(d)),
            _ => cannot(args, &Type::Double),
        },
        _ => no_overload(),
    }
}

fn to_int<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    const OVERFLOW: &str = "integer overflow";
    match args {
        [Val::Int(n)] => Ok(Val::Int(*n)),
        [Val::Uint(n)] => i64::try_from(*n).map(Val::Int).map_err(|_| EvalError::new(OVERFLOW)),
        [Val::Double(d)] if *d > i64::MIN as f64 && *d < i64::MAX as f64 => Ok(Val::Int(*d as i64)),
        [Val::Double(_)] => fail(OVERFLOW),
        [Val::Duration(d)] => Ok(Val::Int(*d)),
        [Val::Timestamp(t)] => Ok(Val::Int(t.unix_seconds())),
        [Val::String(s)] => s.parse().map_or_else(|_| cannot(args, &Type::Int), |n| Ok(Val::Int(n))),
        _ => no_overload(),
    }
}

fn to_uint<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    const OVERFLOW: &str = "unsigned integer overflow";
    match args {
        [Val::Uint(n)] => Ok(Val::Uint(*n)),
        [Val::Int(n)] => u64::try_from(*n).map(Val::Uint).map_err(|_| EvalError::new(OVERFLOW)),
        [Val::Double(d)] if *d >= 0.0 && *d < u64::MAX as f64 => Ok(Val::Uint(*d as u64)),
        [Val::Double(_)] => fail(OVERFLOW),
        [Val::String(s)] if !s.starts_with('+') => {
            s.parse().map_or_else(|_| cannot(args, &Type::Uint), |n| Ok(Val::Uint(n)))
        }
        [Val::String(_)] => cannot(args, &Type::Uint),
        _ => no_overload(),
    }
}

fn to_string<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::String(s)] => Ok(Val::String(s.clone())),
        [Val::Bool(b)] => text(b.to_string()),
        [Val::Int(n)] => text(n.to_string()),
        [Val::Uint(n)] => text(n.to_string()),
        [Val::Double(d)] => text(shortest(*d)),
        [Val::Duration(d)] => text(format_duration(*d)),
        [Val::Timestamp(t)] => text(t.to_string()),
        [Val::Bytes(b)] => match std::str::from_utf8(b) {
            Ok(s) => text(s),
            Err(_) => fail("invalid UTF-8 in bytes, cannot convert to string"),
        },
        [Val::Ip(ip)] => text(ip.to_string()),
        [Val::Cidr(c)] => text(c.to_string()),
        _ => no_overload(),
    }
}

fn to_duration<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Duration(d)] => Ok(Val::Duration(*d)),
        [Val::String(s)] => {
            parse_duration(s).map_or_else(|| cannot(args, &Type::Duration), |d| Ok(Val::Duration(d)))
        }
        [Val::Int(_)] => cannot(args, &Type::Duration),
        _ => no_overload(),
    }
}

fn to_timestamp<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Timestamp(t)] => Ok(Val::Timestamp(*t)),
        [Val::Int(n)] => from_unix(*n).map_or_else(|| fail("timestamp overflow"), |t| Ok(Val::Timestamp(t))),
        [Val::String(s)] => {
            parse_timestamp(s).map_or_else(|| cannot(args, &Type::Timestamp), |t| Ok(Val::Timestamp(t)))
        }
        _ => no_overload(),
    }
}
