//! Lists: Kubernetes' functions, the extension of cel-go in its third version, and sets.

use std::cmp::Ordering;

use super::call::{Builtin, Call, fail, items, list_fits, no_overload};
use super::{standard, strings};
use crate::types::Type;
use crate::value::compare::{compare, equal};
use crate::value::{EvalError, Key, Outcome, Val};

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "isSorted" => is_sorted,
        "sum" => sum,
        "min" => |_, args| extreme(args, "min", Ordering::Greater),
        "max" => |_, args| extreme(args, "max", Ordering::Less),
        "indexOf" => |_, args| index_of(args, false),
        "lastIndexOf" => |_, args| index_of(args, true),
        "slice" => slice,
        "flatten" => flatten_call,
        "sort" => |_, args| match args {
            [Val::List(list)] => sort(items(list)?, items(list)?),
            _ => no_overload(),
        },
        "@sortByAssociatedKeys" => |_, args| match args {
            [Val::List(list), Val::List(keys)] => sort(items(list)?, items(keys)?),
            _ => no_overload(),
        },
        "lists.range" => |_, args| match args {
            [Val::Int(n)] => {
                list_fits(usize::try_from(*n).unwrap_or(0))?;
                Ok(Val::list((0..*n).map(Val::Int).collect()))
            }
            _ => no_overload(),
        },
        "reverse" => |_, args| match args {
            [Val::List(list)] => {
                let mut items = items(list)?;
                items.reverse();
                Ok(Val::list(items))
            }
            _ => no_overload(),
        },
        "distinct" => |_, args| match args {
            [Val::List(list)] => distinct(items(list)?),
            _ => no_overload(),
        },
        "sets.contains" => |_, args| sets(args, |a, b| contains_all(a, b)),
        "sets.equivalent" => |_, args| sets(args, |a, b| contains_all(a, b) && contains_all(b, a)),
        "sets.intersects" => |_, args| sets(args, |a, b| a.iter().any(|x| b.iter().any(|y| equal(x, y)))),
        _ => return None,
    })
}

fn is_sorted<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::List(list)] = args else { return no_overload() };
    let items = items(list)?;
    for pair in items.windows(2) {
        if compare(&pair[0], &pair[1])? == Ordering::Greater {
            return Ok(Val::Bool(false));
        }
    }
    Ok(Val::Bool(true))
}

fn sum<'a>(call: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::List(list)] = args else { return no_overload() };
    let items = items(list)?;
    let mut total = match (call.overload, items.first()) {
        ("list_uint_sum_uint", _) | (_, Some(Val::Uint(_))) => Val::Uint(0),
        ("list_double_sum_double", _) | (_, Some(Val::Double(_))) => Val::Double(0.0),
        ("list_duration_sum_duration", _) | (_, Some(Val::Duration(_))) => Val::Duration(0),
        _ => Val::Int(0),
    };
    for item in items {
        total = standard::add(call, &[total, item])?;
    }
    Ok(total)
}

/// The element that no other one beats, where beating is comparing as `beaten`.
fn extreme<'a>(args: &[Val<'a>], name: &str, beaten: Ordering) -> Outcome<'a> {
    let [Val::List(list)] = args else { return no_overload() };
    let mut best: Option<Val<'a>> = None;
    for item in list.iter() {
        let item = item?;
        best = Some(match best {
            Some(best) if compare(&best, &item)? != beaten => best,
            _ => item,
        });
    }
    best.map_or_else(|| fail(format!("{name} called on empty list")), Ok)
}

fn index_of<'a>(args: &[Val<'a>], last: bool) -> Outcome<'a> {
    match args {
        [Val::String(s), Val::String(t)] if last => strings::last_index_of(s, t, None),
        [Val::String(s), Val::String(t), Val::Int(from)] if last => strings::last_index_of(s, t, Some(*from)),
        [Val::String(s), Val::String(t)] => strings::index_of(s, t, 0),
        [Val::String(s), Val::String(t), Val::Int(from)] => strings::index_of(s, t, *from),
        [Val::List(list), wanted] => {
            let items = items(list)?;
            let found = if last {
                items.iter().rposition(|i| equal(i, wanted))
            } else {
                items.iter().position(|i| equal(i, wanted))
            };
            Ok(Val::Int(found.map_or(-1, |at| at as i64)))
        }
        _ => no_overload(),
    }
}

fn slice<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::List(list), Val::Int(start), Val::Int(end)] = args else { return no_overload() };
    let complaint = |why: String| fail(format!("cannot slice({start}, {end}), {why}"));
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return complaint("negative indexes not supported".into());
    };
    if from > to {
        return complaint("start index must be less than or equal to end index".into());
    }
    if list.len() < to {
        return complaint(format!("list is length {}", list.len()));
    }
    let items: Result<Vec<Val<'a>>, EvalError> = list.iter().skip(from).take(to - from).collect();
    Ok(Val::list(items?))
}

fn flatten_call<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (list, depth) = match args {
        [Val::List(list)] => (list, 1),
        [Val::List(list), Val::Int(depth)] => (list, *depth),
        _ => return no_overload(),
    };
    if depth < 0 {
        return fail("level must be non-negative");
    }
    let mut flat = Vec::new();
    let mut open = vec![(list.iter(), depth)];
    while let Some((iter, depth)) = open.last_mut() {
        let depth = *depth;
        match iter.next().transpose()? {
            None => {
                open.pop();
            }
            Some(Val::List(inner)) if depth > 0 => open.push((inner.iter(), depth - 1)),
            Some(item) => {
                list_fits(flat.len())?;
                flat.push(item);
            }
        }
    }
    Ok(Val::list(flat))
}

/// The items in the order of their keys.
fn sort<'a>(list: Vec<Val<'a>>, keys: Vec<Val<'a>>) -> Outcome<'a> {
    if list.len() != keys.len() {
        return fail(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} \
             elements respectively",
            list.len(),
            keys.len()
        ));
    }
    let Some(first) = keys.first().map(Val::runtime_type) else { return Ok(Val::list(list)) };
    if !matches!(
        first,
        Type::Int
            | Type::Uint
            | Type::Double
            | Type::Bool
            | Type::Duration
            | Type::Timestamp
            | Type::String
            | Type::Bytes
    ) {
        return fail("list elements must be comparable");
    }
    if keys.iter().any(|k| k.runtime_type() != first) {
        return fail("list elements must have the same type");
    }
    let mut pairs: Vec<(Val<'a>, Val<'a>)> = keys.into_iter().zip(list).collect();
    pairs.sort_by(|a, b| compare(&a.0, &b.0).unwrap_or(Ordering::Equal));
    Ok(Val::list(pairs.into_iter().map(|(_, item)| item).collect()))
}

fn distinct<'a>(list: Vec<Val<'a>>) -> Outcome<'a> {
    let mut seen = std::collections::HashSet::new();
    let mut unique: Vec<Val<'a>> = Vec::new();
    for item in list {
        let new = match Key::of(&item) {
            Some(key) => seen.insert(key),
            None => !unique.iter().any(|have| equal(have, &item)),
        };
        if new {
            unique.push(item);
        }
    }
    Ok(Val::list(unique))
}

fn sets<'a>(args: &[Val<'a>], holds: fn(&[Val<'a>], &[Val<'a>]) -> bool) -> Outcome<'a> {
    match args {
        [Val::List(a), Val::List(b)] => Ok(Val::Bool(holds(&items(a)?, &items(b)?))),
        _ => no_overload(),
    }
}

fn contains_all(list: &[Val<'_>], part: &[Val<'_>]) -> bool {
    part.iter().all(|wanted| list.iter().any(|have| equal(have, wanted)))
}
