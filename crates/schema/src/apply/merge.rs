//! Merging a configuration into an object.

use std::collections::BTreeMap;

use api::{Map, Value};

use super::element::Element;
use super::tree::{Atom, ListAtom, Shaped, items, members};
use crate::types::Ty;

/// The object with everything the configuration sets.
pub(super) fn merge(live: &Value, config: &Value, ty: Ty<'_>) -> Result<Value, String> {
    Ok(visit(Some(live), Some(config), Shaped::Of(ty))?.unwrap_or_default())
}

type Side<'v> = Option<&'v Value>;

fn visit(live: Side<'_>, config: Side<'_>, shape: Shaped<'_>) -> Result<Option<Value>, String> {
    let atom = shape.atom(if config.is_some() { config } else { live });
    let keep = || Ok(config.or(live).cloned());
    match atom {
        Atom::Scalar(_) => keep(),
        Atom::List(l) => {
            let (a, b) = (items(live).unwrap_or_default(), items(config).unwrap_or_default());
            if l.atomic() || (a.is_empty() && b.is_empty()) {
                return keep();
            }
            let out = list(l, a, b)?;
            Ok((!out.is_empty()).then_some(Value::Array(out)))
        }
        Atom::Map(m) => {
            let (a, b) = (members(live), members(config));
            if m.atomic || (a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty)) {
                return keep();
            }
            let mut out = Map::new();
            for (name, value) in a.into_iter().flat_map(Map::iter) {
                let merged = visit(Some(value), b.and_then(|m| m.get(name)), m.member_or_any(name))?;
                if let Some(merged) = merged {
                    out.push(name, merged);
                }
            }
            for (name, value) in b.into_iter().flat_map(Map::iter) {
                if a.is_none_or(|m| !m.contains_key(name))
                    && let Some(merged) = visit(None, Some(value), m.member_or_any(name))?
                {
                    out.push(name, merged);
                }
            }
            Ok((!out.is_empty()).then_some(Value::Object(out)))
        }
    }
}

/// The items of a list by identity. Of items that appear twice none is merged with.
struct Index<'v> {
    order: Vec<Element>,
    values: BTreeMap<Element, Option<&'v Value>>,
}

fn index<'v>(atom: ListAtom<'_>, list: &'v [Value], allow_duplicates: bool) -> Result<Index<'v>, String> {
    let mut out = Index { order: Vec::with_capacity(list.len()), values: BTreeMap::new() };
    for (i, item) in list.iter().enumerate() {
        let element = atom.element(item).map_err(|e| format!("element {i}: {e}"))?;
        match out.values.get_mut(&element) {
            Some(_) if !allow_duplicates => return Err(format!("duplicate entries for key {element}")),
            Some(value) => *value = None,
            None => {
                out.values.insert(element.clone(), Some(item));
            }
        }
        out.order.push(element);
    }
    Ok(out)
}

/// Live items keep their places, configured ones come in their own order, between the live ones they follow there.
fn list(atom: ListAtom<'_>, live: &[Value], config: &[Value]) -> Result<Vec<Value>, String> {
    let right = index(atom, config, false)?;
    let left = index(atom, live, true)?;
    let mut shared = right.order.iter().filter(|e| left.values.contains_key(e));
    let mut next = shared.next();
    let mut merged = std::collections::BTreeSet::new();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let both = |e: &Element| {
        visit(left.values.get(e).copied().flatten(), right.values.get(e).copied().flatten(), atom.item)
    };
    let (mut l, mut r) = (0, 0);
    while l < live.len() || r < config.len() {
        if let (Some(a), Some(b)) = (left.order.get(l), right.order.get(r)) {
            if a == b {
                merged.insert(a);
                out.extend(both(a)?);
                (l, r) = (l + 1, r + 1);
                next = shared.next();
                continue;
            }
            if right.values.contains_key(a) && next.is_some_and(|n| n != a) {
                l += 1;
                continue;
            }
        }
        if let Some(a) = left.order.get(l) {
            if !right.values.contains_key(a) {
                out.extend(visit(Some(&live[l]), None, atom.item)?);
                l += 1;
                continue;
            }
            if merged.contains(a) {
                l += 1;
            }
        }
        if let Some(b) = right.order.get(r) {
            merged.insert(b);
            out.extend(both(b)?);
            r += 1;
            if next == Some(b) {
                next = shared.next();
            }
        }
    }
    Ok(out)
}
