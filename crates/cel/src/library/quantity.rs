//! Resource quantities.

use std::cmp::Ordering;

use api::quantity::{Format, Quantity};

use super::call::{Builtin, fail, no_overload};
use crate::value::{Outcome, Val};

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "quantity" => |_, args| match args {
            [Val::String(s)] => match s.parse::<Quantity>() {
                Ok(q) => Ok(Val::Quantity(q)),
                Err(e) => fail(e.to_string()),
            },
            _ => no_overload(),
        },
        "isQuantity" => |_, args| match args {
            [Val::String(s)] => Ok(Val::Bool(s.parse::<Quantity>().is_ok())),
            _ => no_overload(),
        },
        "sign" => |_, args| match args {
            [Val::Quantity(q)] => {
                Ok(Val::Int(if q.is_zero() { 0 } else { 1 - 2 * i64::from(q.is_negative()) }))
            }
            _ => no_overload(),
        },
        "isGreaterThan" => |_, args| ordered(args, |o| Val::Bool(o.is_gt())),
        "isLessThan" => |_, args| ordered(args, |o| Val::Bool(o.is_lt())),
        "compareTo" => |_, args| ordered(args, |o| Val::Int(o as i64)),
        "asApproximateFloat" => |_, args| match args {
            [Val::Quantity(q)] => Ok(Val::Double(q.as_f64())),
            _ => no_overload(),
        },
        "isInteger" => |_, args| match args {
            [Val::Quantity(q)] => Ok(Val::Bool(q.is_integer())),
            _ => no_overload(),
        },
        "asInteger" => |_, args| match args {
            [Val::Quantity(q)] if q.is_integer() => Ok(Val::Int(q.units())),
            [Val::Quantity(_)] => fail("cannot convert value to integer"),
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
        [Val::Quantity(a), Val::Quantity(b)] => Ok(show(a.cmp(b))),
        [Val::Semver(a), Val::Semver(b)] => Ok(show(a.cmp_precedence(b))),
        _ => no_overload(),
    }
}

fn combined<'a>(args: &[Val<'a>], f: fn(Quantity, Quantity) -> Quantity) -> Outcome<'a> {
    match args {
        [Val::Quantity(a), Val::Quantity(b)] => Ok(Val::Quantity(f(*a, *b))),
        [Val::Quantity(a), Val::Int(n)] => {
            Ok(Val::Quantity(f(*a, Quantity::from_units(*n, Format::DecimalExponent))))
        }
        _ => no_overload(),
    }
}
