//! Operators and the functions of the language itself.

use std::cmp::Ordering;

use super::call::{Builtin, Call, fail, fits, list_fits, no_overload};
use super::time::{add_to_timestamp, difference};
use crate::value::compare::{compare, equal, join};
use crate::value::{EvalError, Outcome, Val};

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "!_" => |_, args| match args {
            [Val::Bool(b)] => Ok(Val::Bool(!b)),
            _ => no_overload(),
        },
        "_+_" => add,
        "_-_" => subtract,
        "_*_" => multiply,
        "_/_" => divide,
        "_%_" => modulo,
        "-_" => negate,
        "_<_" => |_, args| order(args, Ordering::is_lt),
        "_<=_" => |_, args| order(args, Ordering::is_le),
        "_>_" => |_, args| order(args, Ordering::is_gt),
        "_>=_" => |_, args| order(args, Ordering::is_ge),
        "@in" => contains,
        "size" => |_, args| match args {
            [v @ (Val::String(_) | Val::Bytes(_) | Val::List(_) | Val::Map(_))] => {
                Ok(Val::Int(v.size().map_or(0, |n| n as i64)))
            }
            _ => no_overload(),
        },
        "contains" => |_, args| strings(args, |s, t| s.contains(t)),
        "startsWith" => |_, args| strings(args, |s, t| s.starts_with(t)),
        "endsWith" => |_, args| strings(args, |s, t| s.ends_with(t)),
        // What builds maps up is planned as a step of its own.
        "cel.@mapInsert" => |_, _| no_overload(),
        _ => return None,
    })
}

fn order<'a>(args: &[Val<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    match args {
        [a, b] => compare(a, b).map(|order| Val::Bool(holds(order))),
        _ => no_overload(),
    }
}

fn strings<'a>(args: &[Val<'a>], test: fn(&str, &str) -> bool) -> Outcome<'a> {
    match args {
        [Val::String(s), Val::String(t)] => Ok(Val::Bool(test(s, t))),
        _ => no_overload(),
    }
}

fn int<'a>(result: Option<i64>) -> Outcome<'a> {
    result.map(Val::Int).ok_or_else(|| EvalError::new("integer overflow"))
}

fn uint<'a>(result: Option<u64>) -> Outcome<'a> {
    result.map(Val::Uint).ok_or_else(|| EvalError::new("unsigned integer overflow"))
}

fn duration<'a>(result: Option<i64>) -> Outcome<'a> {
    result.map(Val::Duration).ok_or_else(|| EvalError::new("duration overflow"))
}

pub(crate) fn add<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Int(a), Val::Int(b)] => int(a.checked_add(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_add(*b)),
        [Val::Double(a), Val::Double(b)] => Ok(Val::Double(a + b)),
        [Val::String(a), Val::String(b)] => {
            fits(a.len() + b.len())?;
            Ok(Val::string([&**a, &**b].concat()))
        }
        [Val::Bytes(a), Val::Bytes(b)] => {
            fits(a.len() + b.len())?;
            Ok(Val::Bytes([&**a, &**b].concat().into()))
        }
        [Val::List(a), Val::List(b)] => {
            list_fits(a.len().saturating_add(b.len()))?;
            join(a.clone(), b.clone()).map(Val::List)
        }
        [Val::Duration(a), Val::Duration(b)] => duration(a.checked_add(*b)),
        [Val::Timestamp(t), Val::Duration(d)] | [Val::Duration(d), Val::Timestamp(t)] => {
            add_to_timestamp(*t, i128::from(*d))
        }
        _ => no_overload(),
    }
}

fn subtract<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Int(a), Val::Int(b)] => int(a.checked_sub(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_sub(*b)),
        [Val::Double(a), Val::Double(b)] => Ok(Val::Double(a - b)),
        [Val::Duration(a), Val::Duration(b)] => duration(a.checked_sub(*b)),
        [Val::Timestamp(t), Val::Duration(d)] => add_to_timestamp(*t, -i128::from(*d)),
        [Val::Timestamp(a), Val::Timestamp(b)] => duration(difference(*a, *b)),
        _ => no_overload(),
    }
}

fn multiply<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Int(a), Val::Int(b)] => int(a.checked_mul(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_mul(*b)),
        [Val::Double(a), Val::Double(b)] => Ok(Val::Double(a * b)),
        _ => no_overload(),
    }
}

fn divide<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Int(_), Val::Int(0)] | [Val::Uint(_), Val::Uint(0)] => fail("division by zero"),
        [Val::Int(a), Val::Int(b)] => int(a.checked_div(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_div(*b)),
        [Val::Double(a), Val::Double(b)] => Ok(Val::Double(a / b)),
        _ => no_overload(),
    }
}

fn modulo<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Int(_), Val::Int(0)] | [Val::Uint(_), Val::Uint(0)] => fail("modulus by zero"),
        [Val::Int(a), Val::Int(b)] => int(a.checked_rem(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_rem(*b)),
        _ => no_overload(),
    }
}

fn negate<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [Val::Int(a)] => int(a.checked_neg()),
        [Val::Double(a)] => Ok(Val::Double(-a)),
        [Val::Duration(a)] => duration(a.checked_neg()),
        _ => no_overload(),
    }
}

fn contains<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    match args {
        [wanted, Val::List(list)] => {
            for item in list.iter() {
                if equal(&item?, wanted) {
                    return Ok(Val::Bool(true));
                }
            }
            Ok(Val::Bool(false))
        }
        [key, Val::Map(map)] => map.contains(key).map(Val::Bool),
        _ => no_overload(),
    }
}
