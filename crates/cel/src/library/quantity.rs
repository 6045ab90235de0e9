//! Resource quantities.

use std::cmp::Ordering;

use api::quantity::{Format, Quantity};

use super::call::{Builtin, fail, no_overload};
use crate::value::{Outcome, Val};

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "quantity" => |_, args| match args {
            [Val::String(s)] => match s.parse::<Quantity>() {
                Ok(q) => Ok(Val::Quantity(q, is_whole(s))),
                Err(e) => fail(e.to_string()),
            },
            _ => no_overload(),
        },
        "isQuantity" => |_, args| match args {
            [Val::String(s)] => Ok(Val::Bool(s.parse::<Quantity>().is_ok())),
            _ => no_overload(),
        },
        "sign" => |_, args| match args {
            [Val::Quantity(q, _)] => {
                Ok(Val::Int(if q.is_zero() { 0 } else { 1 - 2 * i64::from(q.is_negative()) }))
            }
            _ => no_overload(),
        },
        "isGreaterThan" => |_, args| ordered(args, |o| Val::Bool(o.is_gt())),
        "isLessThan" => |_, args| ordered(args, |o| Val::Bool(o.is_lt())),
        "compareTo" => |_, args| ordered(args, |o| Val::Int(o as i64)),
        "asApproximateFloat" => |_, args| match args {
            [Val::Quantity(q, _)] => Ok(Val::Double(q.as_f64())),
            _ => no_overload(),
        },
        "isInteger" => |_, args| match args {
            [Val::Quantity(_, whole)] => Ok(Val::Bool(*whole)),
            _ => no_overload(),
        },
        "asInteger" => |_, args| match args {
            [Val::Quantity(q, true)] => Ok(Val::Int(q.units())),
            [Val::Quantity(..)] => fail("cannot convert value to integer"),
            _ => no_overload(),
        },
        "add" => |_, args| combined(args, Quantity::plus),
        "sub" => |_, args| combined(args, Quantity::minus),
        _ => return None,
    })
}

/// The order of two quantities or of two semantic versions.
fn ordered<'a>(args: &[Val<'a>], show: fn(Ordering) -> Val<'a>) -> Outcome<'a> {
    match args {
        [Val::Quantity(a, _), Val::Quantity(b, _)] => Ok(show(a.cmp(b))),
        [Val::Semver(a), Val::Semver(b)] => Ok(show(a.cmp_precedence(b))),
        _ => no_overload(),
    }
}

fn combined<'a>(args: &[Val<'a>], f: fn(Quantity, Quantity) -> Quantity) -> Outcome<'a> {
    match args {
        [Val::Quantity(a, x), Val::Quantity(b, y)] => Ok(Val::Quantity(f(*a, *b), *x && *y)),
        [Val::Quantity(a, whole), Val::Int(n)] => {
            Ok(Val::Quantity(f(*a, Quantity::from_units(*n, Format::DecimalExponent)), *whole))
        }
        _ => no_overload(),
    }
}

/// True for quantities without a fraction, as they are written: `1000m` is one, but not written as one. What is too big for
/// 64 bits has no whole number either.
pub(crate) fn is_whole(text: &str) -> bool {
    let text = text.trim_start_matches(['+', '-']);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter().position(|s| *s == suffix);
    let power = match (suffix, binary) {
        (_, Some(_)) => 0,
        ("n", _) => -9,
        ("u", _) => -6,
        ("m", _) => -3,
        ("", _) => 0,
        ("k", _) => 3,
        ("M", _) => 6,
        ("G", _) => 9,
        ("T", _) => 12,
        ("P", _) => 15,
        ("E", _) => 18,
        (exponent, _) => exponent[1..].parse().unwrap_or(-1),
    };
    let Ok(power) = u32::try_from(power - fraction.len() as i32) else { return false };
    let digits = format!("{whole}{fraction}");
    let value = match digits.trim_start_matches('0') {
        "" => Some(0),
        digits => digits.parse::<i64>().ok(),
    };
    let value =
        value.and_then(|v| v.checked_mul(1_i64.checked_shl(binary.map_or(0, |n| 10 * (n as u32 + 1)))?));
    value.and_then(|v| v.checked_mul(10_i64.checked_pow(power)?)).is_some()
}
