//! Merging and ordering of lists.

use api::Value;

use super::{PATCH, bad_directive, go_map, malformed, merge_map};
use crate::patch::Error;
use crate::types::Ty;

/// Merges `patch` into `original`, items by `key` if they are objects, and orders the result: what the patch names in
/// its order, the rest where the original has it.
pub(super) fn merge(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    item: Option<Ty<'_>>,
    key: Option<&str>,
    delete: bool,
) -> Result<Vec<Value>, Error> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if !all_objects(&original, &patch)? {
        if delete {
            original.retain(|v| !patch.contains(v));
            return Ok(original);
        }
        let server = original.clone();
        let mut merged = original;
        merged.extend(patch.iter().cloned());
        dedup(&mut merged);
        return order(merged, &patch, &server, key);
    }
    let Some(key) = key else {
        let of = item.map_or("struct", |t| if t.as_struct().is_some() { "struct" } else { "map" });
        return Err(Error::Other(format!("cannot merge lists without merge key for {of}")));
    };
    let (original, patch) = special_items(original, patch, key)?;
    let mut merged = original.clone();
    for new in &patch {
        let Value::Object(new) = new else { continue };
        let id = new.get(key).ok_or_else(|| no_key(new.clone().into(), key))?;
        match merged.iter_mut().find(|v| v.as_object().and_then(|m| m.get(key)) == Some(id)) {
            Some(found) => {
                let old = std::mem::take(found.make_object());
                *found = Value::Object(merge_map(old, new.clone(), item)?);
            }
            None => merged.push(Value::Object(new.clone())),
        }
    }
    order(merged, &patch, &original, Some(key))
}

/// True when the items are objects, false when they are scalars.
fn all_objects(original: &[Value], patch: &[Value]) -> Result<bool, Error> {
    let mut items = original.iter().chain(patch);
    let kind = items.next().map_or("", Value::kind_name);
    if kind == "array" {
        return Err(Error::DoesNotApply("lists of lists are not supported".into()));
    }
    if items.any(|v| v.kind_name() != kind) {
        let lists = [Value::Array(original.to_vec()), Value::Array(patch.to_vec())];
        let text = go_map(&Value::Array(lists.to_vec()));
        return Err(Error::Other(format!("list element types are not identical: {text}")));
    }
    Ok(kind == "object")
}

/// Takes the items with `$patch` out of the patch and does what they say.
fn special_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let (mut rest, mut replace) = (Vec::new(), false);
    for item in patch {
        match item.get(PATCH) {
            Value::Null => rest.push(item),
            Value::String(s) if s == "delete" => {
                let id =
                    item.as_object().and_then(|m| m.get(key)).ok_or_else(|| no_key(item.clone(), key))?;
                original.retain(|v| v.as_object().and_then(|m| m.get(key)) != Some(id));
            }
            Value::String(s) if s == "replace" => replace = true,
            Value::String(s) if s == "merge" => {
                return Err(Error::Other("merging lists cannot yet be specified in the patch".into()));
            }
            other => {
                return Err(bad_directive(&other.clone(), item.as_object().cloned().unwrap_or_default()));
            }
        }
    }
    Ok(if replace { (rest, Vec::new()) } else { (original, rest) })
}

fn no_key(of: Value, key: &str) -> Error {
    Error::Other(format!("map: {} does not contain declared merge key: {key}", go_map(&of)))
}

/// Drops what appears again, the last item taking the dropped one's place: upstream's order.
fn dedup(items: &mut Vec<Value>) {
    let mut i = 0;
    while i < items.len() {
        let mut j = i + 1;
        while j < items.len() {
            if items[i] == items[j] {
                items.swap_remove(j);
            } else {
                j += 1;
            }
        }
        i += 1;
    }
}

/// What identifies an item.
fn id<'a>(item: &'a Value, key: Option<&str>) -> &'a Value {
    match (item, key) {
        (Value::Object(_), Some(key)) => item.get(key),
        _ => item,
    }
}

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|v| id(v, key) == id(item, key))
}

/// Orders `merged`: items that `wanted` names in its order, the others in the order of `server`.
pub(super) fn order(
    merged: Vec<Value>,
    wanted: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, Error> {
    if let Some(key) = key {
        let lacks = |v: &&Value| v.as_object().is_some_and(|m| !m.contains_key(key));
        if let Some(item) = merged.iter().chain(wanted).chain(server).find(lacks) {
            return Err(no_key(item.clone(), key));
        }
    }
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|v| position(wanted, v, key).is_some());
    sort(&mut named, wanted, key);
    sort(&mut others, server, key);
    let mut out = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let from_others = match (others.peek(), named.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(l), Some(r)) => match (position(server, l, key), position(server, r, key)) {
                (Some(l), Some(r)) => l < r,
                _ => false,
            },
        };
        out.extend(if from_others { others.next() } else { named.next() });
    }
}

/// Insertion sort: the order of upstream's comparison, which is not a total one, depends on the algorithm.
fn sort(items: &mut [Value], order: &[Value], key: Option<&str>) {
    let less = |a: &Value, b: &Value| match (position(order, a, key), position(order, b, key)) {
        (Some(a), Some(b)) => a < b,
        _ => true,
    };
    for i in 1..items.len() {
        let mut j = i;
        while j > 0 && less(&items[j], &items[j - 1]) {
            items.swap(j, j - 1);
            j -= 1;
        }
    }
}

/// Refuses a patch list whose items do not come in the order that `$setElementOrder` gives.
pub(super) fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), Error> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    if order.iter().any(|v| key.is_some() && !matches!(v, Value::Object(_))) {
        return Err(malformed("setElementOrder"));
    }
    let kept: Vec<&Value> = patch.iter().filter(|v| v.get(PATCH).as_str() != Some("delete")).collect();
    let (mut at, mut rest) = (0, order.iter().peekable());
    while let (Some(item), Some(wanted)) = (kept.get(at), rest.peek()) {
        if !item.get(PATCH).is_null() {
            at += 1;
            continue;
        }
        if id(item, key) == id(wanted, key) {
            at += 1;
        }
        rest.next();
    }
    // As upstream has it, a directive after the last ordered item is one too many.
    if at < kept.len() && rest.peek().is_none() {
        let (patch, order) = (go_map(&patch.to_vec().into()), go_map(&order.to_vec().into()));
        return Err(Error::Other(format!(
            "The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n"
        )));
    }
    Ok(())
}
