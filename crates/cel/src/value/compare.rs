//! Equality and order.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use super::{EvalError, Key, List, Map, Val};
use crate::decl::{ListKind, Shape};

/// Are the two equal? Numbers compare across their types; values of different kinds are never equal.
pub(crate) fn equal(a: &Val<'_>, b: &Val<'_>) -> bool {
    match (a, b) {
        (Val::Null, Val::Null) => true,
        (Val::Bool(a), Val::Bool(b)) => a == b,
        (Val::String(a), Val::String(b)) => **a == **b,
        (Val::Bytes(a), Val::Bytes(b)) => a == b,
        (Val::Timestamp(a), Val::Timestamp(b)) => a == b,
        (Val::Duration(a), Val::Duration(b)) => a == b,
        (Val::List(a), Val::List(b)) => equal_lists(a, b),
        (Val::Map(a), Val::Map(b)) => equal_maps(a, b),
        (Val::Struct(a), Val::Struct(b)) => a.0 == b.0 && equal_maps(&a.1, &b.1),
        (Val::Type(a), Val::Type(b)) => a.name() == b.name(),
        (Val::Optional(None), Val::Optional(None)) => true,
        (Val::Optional(Some(a)), Val::Optional(Some(b))) => equal(a, b),
        (Val::Url(a), Val::Url(b)) => a.to_string() == b.to_string(),
        (Val::Quantity(a, _), Val::Quantity(b, _)) => a == b,
        (Val::Ip(a), Val::Ip(b)) => a == b,
        (Val::Cidr(a), Val::Cidr(b)) => a == b,
        // Build metadata says nothing about precedence.
        (Val::Semver(a), Val::Semver(b)) => a.cmp_precedence(b) == Ordering::Equal,
        (Val::Format(a), Val::Format(b)) => a.name == b.name,
        (Val::Authz(a), Val::Authz(b)) => a == b,
        _ => compare_numbers(a, b) == Some(Some(Ordering::Equal)),
    }
}

fn equal_lists(a: &List<'_>, b: &List<'_>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (Ok(a_items), Ok(b_items)) = (a.to_vec(), b.to_vec()) else { return false };
    match a.kind() {
        ListKind::Atomic => a_items.iter().zip(&b_items).all(|(a, b)| equal(a, b)),
        ListKind::Set => {
            let set = Set::of(&a_items);
            b_items.iter().all(|b| set.contains(b))
        }
        ListKind::Map(keys) => {
            let by_key: HashMap<String, &Val<'_>> = a_items.iter().map(|a| (key_of(a, keys), a)).collect();
            b_items.iter().all(|b| by_key.get(&key_of(b, keys)).is_some_and(|a| equal(a, b)))
        }
    }
}

/// Values to look others up in.
struct Set<'a> {
    keys: HashSet<Key>,
    /// Those that cannot be keys.
    others: Vec<Val<'a>>,
}

impl<'a> Set<'a> {
    fn of(items: &[Val<'a>]) -> Self {
        let mut set = Self { keys: HashSet::new(), others: Vec::new() };
        items.iter().for_each(|item| set.add(item));
        set
    }

    fn add(&mut self, item: &Val<'a>) {
        match Key::of(item) {
            Some(key) => {
                self.keys.insert(key);
            }
            None => self.others.push(item.clone()),
        }
    }

    fn contains(&self, item: &Val<'_>) -> bool {
        match Key::of(item) {
            Some(key) => self.keys.contains(&key),
            None => self.others.iter().any(|other| equal(other, item)),
        }
    }
}

/// What identifies an item of a list of keyed objects.
pub(crate) fn key_of(item: &Val<'_>, keys: &[String]) -> String {
    let Val::Map(map) = item else { return String::new() };
    let mut out = String::new();
    for key in keys {
        if let Ok(Some(value)) = map.find(&Val::string(key.as_str())) {
            out.push_str(value.runtime_type().name());
            out.push_str(&value.to_string());
        }
        out.push('\0');
    }
    out
}

/// `a + b` for lists, as their declaration joins them.
pub(crate) fn join<'a>(a: List<'a>, b: List<'a>) -> Result<List<'a>, EvalError> {
    let kind = a.kind().clone();
    if kind == ListKind::Atomic {
        return Ok(a.join(b));
    }
    let decl = a.decl;
    let mut items = a.to_vec()?;
    match kind {
        ListKind::Map(keys) => {
            let mut places: HashMap<String, usize> =
                items.iter().enumerate().map(|(n, item)| (key_of(item, &keys), n)).collect();
            for item in b.iter() {
                let item = item?;
                let key = key_of(&item, &keys);
                match places.get(&key) {
                    Some(at) => items[*at] = item,
                    None => {
                        places.insert(key, items.len());
                        items.push(item);
                    }
                }
            }
        }
        _ => {
            let mut set = Set::of(&items);
            for item in b.iter() {
                let item = item?;
                if !set.contains(&item) {
                    set.add(&item);
                    items.push(item);
                }
            }
        }
    }
    Ok(List::new(items).with_decl(decl))
}

fn equal_maps(a: &Map<'_>, b: &Map<'_>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if let (Map::Data(a, da), Map::Data(b, db)) = (a, b) {
        if std::ptr::eq(*da, *db) && matches!(da.shape, Shape::Dyn) {
            return a == b;
        }
        // What is not declared is preserved, and compared as it is.
        let undeclared = |(key, value): (&str, &api::Value)| {
            da.member(key).is_some() || b.get(key).is_none_or(|other| other == value)
        };
        if da.is_object() && !a.iter().all(undeclared) {
            return false;
        }
    }
    // One side is turned into a table, so that big maps are compared in reasonable time.
    let mut table: HashMap<Key, Val<'_>> = HashMap::with_capacity(b.len());
    for (key, value) in b.iter() {
        let (Some(key), Ok(value)) = (Key::of(&key), value) else { return false };
        table.insert(key, value);
    }
    a.iter().all(|(key, value)| {
        let (Some(key), Ok(value)) = (Key::of(&key), value) else { return false };
        table.get(&key).is_some_and(|other| equal(&value, other))
    })
}

/// The order of two numbers: none inside for NaN, none outside when they are no numbers.
fn compare_numbers(a: &Val<'_>, b: &Val<'_>) -> Option<Option<Ordering>> {
    Some(match (a, b) {
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
        (Val::Int(a), Val::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Val::Uint(a), Val::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (Val::Double(d), Val::Int(n)) => double_to_int(*d, *n),
        (Val::Int(n), Val::Double(d)) => double_to_int(*d, *n).map(Ordering::reverse),
        (Val::Double(d), Val::Uint(n)) => double_to_uint(*d, *n),
        (Val::Uint(n), Val::Double(d)) => double_to_uint(*d, *n).map(Ordering::reverse),
        _ => return None,
    })
}

fn double_to_int(d: f64, n: i64) -> Option<Ordering> {
    if d < i64::MIN as f64 {
        Some(Ordering::Less)
    } else if d > i64::MAX as f64 {
        Some(Ordering::Greater)
    } else {
        d.partial_cmp(&(n as f64))
    }
}

fn double_to_uint(d: f64, n: u64) -> Option<Ordering> {
    if d < 0.0 {
        Some(Ordering::Less)
    } else if d > u64::MAX as f64 {
        Some(Ordering::Greater)
    } else {
        d.partial_cmp(&(n as f64))
    }
}

/// The order of two values.
///
/// # Errors
/// They have none.
pub(crate) fn compare(a: &Val<'_>, b: &Val<'_>) -> Result<Ordering, EvalError> {
    if let Some(order) = compare_numbers(a, b) {
        return order.ok_or_else(|| EvalError::new("NaN values cannot be ordered"));
    }
    Ok(match (a, b) {
        (Val::Bool(a), Val::Bool(b)) => a.cmp(b),
        (Val::String(a), Val::String(b)) => (**a).cmp(&**b),
        (Val::Bytes(a), Val::Bytes(b)) => a.cmp(b),
        (Val::Timestamp(a), Val::Timestamp(b)) => a.cmp(b),
        (Val::Duration(a), Val::Duration(b)) => a.cmp(b),
        _ => return Err(EvalError::no_overload()),
    })
}
