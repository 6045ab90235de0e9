//! Values that may be absent.

use super::call::{Builtin, Call, fail, no_overload};
use crate::value::{Outcome, Val};

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "optional.of" => |_, args| args.first().map_or_else(no_overload, |v| Ok(v.clone().some())),
        "optional.ofNonZeroValue" => |_, args| match args {
            [v] if v.is_zero() => Ok(Val::Optional(None)),
            [v] => Ok(v.clone().some()),
            _ => no_overload(),
        },
        "optional.none" => |_, _| Ok(Val::Optional(None)),
        "value" => |_, args| match args {
            [Val::Optional(Some(v))] => Ok(v.as_ref().clone()),
            [Val::Optional(None)] => fail("optional.none() dereference"),
            _ => no_overload(),
        },
        "hasValue" => |_, args| match args {
            [Val::Optional(v)] => Ok(Val::Bool(v.is_some())),
            _ => no_overload(),
        },
        "first" => |_, args| end(args, false),
        "last" => |_, args| end(args, true),
        "optional.unwrap" | "unwrapOpt" => unwrap,
        _ => return None,
    })
}

fn end<'a>(args: &[Val<'a>], last: bool) -> Outcome<'a> {
    let [Val::List(list)] = args else { return no_overload() };
    match list.get(if last { list.len().saturating_sub(1) } else { 0 }) {
        Some(item) => item.map(Val::some),
        None => Ok(Val::Optional(None)),
    }
}

fn unwrap<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::List(list)] = args else { return no_overload() };
    let mut found = Vec::new();
    for item in list.iter() {
        match item? {
            Val::Optional(None) => {}
            Val::Optional(Some(v)) => found.push(v.as_ref().clone()),
            other => return fail(format!("value {other} is not optional")),
        }
    }
    Ok(Val::list(found))
}
