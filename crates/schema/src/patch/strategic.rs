//! Strategic merge patch: a merge patch that knows, by the type, which lists are merged and by which key; with
//! directives in the patch: `$patch`, `$retainKeys`, `$deleteFromPrimitiveList/x`, `$setElementOrder/x`.
//!
//! Source: <https://git.k8s.io/community/contributors/devel/sig-api-machinery/strategic-merge-patch.md>.

use api::{Map, Value};

use super::{Error, go_map, go_type};
use crate::types::{Patch, Shape, Ty};

mod lists;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

/// Applies a strategic merge patch to an object of type `ty`.
pub fn strategic(doc: Value, patch: Value, ty: Ty<'_>) -> Result<Value, Error> {
    let (Value::Object(doc), Value::Object(patch)) = (doc, patch) else {
        return Err(Error::Malformed("invalid JSON document".into()));
    };
    merge_map(doc, patch, Some(ty)).map(Value::Object)
}

fn malformed(what: &str) -> Error {
    Error::Malformed(format!("invalid patch format of {what} list").replace("retainKeys list", "retainKeys"))
}

/// The type of a member, and how it is patched.
struct Member<'a> {
    ty: Option<Ty<'a>>,
    patch: &'a Patch,
}

static LIKE_ANY_OTHER: Patch = Patch { merge: false, retain_keys: false, replace: false, key: None };

fn member<'a>(ty: Option<Ty<'a>>, name: &str) -> Result<Member<'a>, Error> {
    let found = match ty.map(|t| (t, t.shape())) {
        Some((t, Shape::Struct(_))) => t
            .field(name)
            .map(|f| Member { ty: Some(t.at(f.ty)), patch: f.patch.as_deref().unwrap_or(&LIKE_ANY_OTHER) }),
        Some((t, Shape::Map(m))) => Some(Member { ty: Some(t.at(m.value)), patch: &LIKE_ANY_OTHER }),
        _ => None,
    };
    found.ok_or_else(|| {
        let of = ty.map_or("Unknown", |t| t.short_name());
        Error::Other(format!("unable to find api field in struct {of} for the json field {name:?}"))
    })
}

fn merge_map(mut original: Map, mut patch: Map, ty: Option<Ty<'_>>) -> Result<Map, Error> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::new()),
            _ => Err(bad_directive(&directive, patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_orders(&mut original, &mut patch, ty)?;
    let mut gone = Vec::new();
    for (key, mut value) in patch {
        let deletes = key.strip_prefix(DELETE_FROM);
        let key = match deletes {
            Some(rest) => rest.strip_prefix('/').ok_or_else(|| malformed("primitive"))?,
            None => key.as_str(),
        };
        if value.is_null() {
            gone.push(key.into());
            continue;
        }
        let old = match original.get_mut(key) {
            Some(old) if go_type(old) == go_type(&value) => old,
            old => {
                if deletes.is_none() {
                    discard_nulls(&mut value);
                    match (remove_directives(value), old) {
                        (Some(value), _) => {
                            original.insert(key, value);
                        }
                        (None, Some(_)) => gone.push(key.into()),
                        (None, None) => {}
                    }
                }
                continue;
            }
        };
        *old = match (old.take(), value) {
            (Value::Object(old), Value::Object(value)) => {
                let m = member(ty, key)?;
                Value::Object(if m.patch.replace { value } else { merge_map(old, value, m.ty)? })
            }
            (Value::Array(old), Value::Array(value)) => {
                let m = member(ty, key)?;
                Value::Array(if m.patch.merge || deletes.is_some() {
                    lists::merge(old, value, item(m.ty), m.patch.key.as_deref(), deletes.is_some())?
                } else {
                    value
                })
            }
            (_, value) => value,
        };
    }
    original.remove_all(&gone);
    Ok(original)
}

fn item(ty: Option<Ty<'_>>) -> Option<Ty<'_>> {
    ty.and_then(Ty::item)
}

fn bad_directive(directive: &Value, mut of: Map) -> Error {
    of.insert(PATCH, directive.clone());
    // Go prints what is no text by its type.
    let shown = match directive {
        Value::String(text) => text.to_string(),
        Value::Null => "%!s(<nil>)".to_owned(),
        Value::Array(_) | Value::Object(_) => go_map(directive),
        other => format!("%!s({}={other})", go_type(other)),
    };
    Error::Other(format!("unknown patch type: {shown} in map: {}", go_map(&Value::Object(of))))
}

/// `$retainKeys`: what the patch does not list is dropped from the original.
fn retain_keys(original: &mut Map, patch: &mut Map) -> Result<(), Error> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else { return Err(malformed("retainKeys")) };
    let listed = |key: &str| keys.iter().any(|k| k.as_str() == Some(key));
    for (key, value) in patch.iter() {
        if !value.is_null() && !key.starts_with(DELETE_FROM) && !key.starts_with(SET_ORDER) && !listed(key) {
            return Err(malformed("retainKeys"));
        }
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

/// `$setElementOrder/x`: the list x, merged, is brought into this order.
fn set_orders(original: &mut Map, patch: &mut Map, ty: Option<Ty<'_>>) -> Result<(), Error> {
    let directives: Vec<String> =
        patch.keys().filter(|k| k.starts_with(SET_ORDER)).map(str::to_owned).collect();
    for directive in directives {
        let order = match patch.remove(&directive) {
            Some(Value::Array(order)) => order,
            other => return Err(bad_argument(&other.unwrap_or_default())),
        };
        let key = directive.strip_prefix(SET_ORDER).and_then(|k| k.strip_prefix('/'));
        let key = key.ok_or_else(|| malformed("setElementOrder"))?;
        let old = match original.get(key) {
            Some(Value::Array(old)) => Some(old.clone()),
            Some(other) => return Err(bad_argument(other)),
            None => None,
        };
        let new = match patch.get(key) {
            Some(Value::Array(new)) => Some(new.clone()),
            Some(other) => return Err(bad_argument(other)),
            None => None,
        };
        let m = member(ty, key)?;
        let merge_key = m.patch.key.as_deref();
        lists::check_order(new.as_deref().unwrap_or_default(), &order, merge_key)?;
        let server = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (Some(old), None) => old,
            (None, Some(new)) => match remove_directives(Value::Array(new)) {
                Some(Value::Array(new)) => new,
                _ => continue,
            },
            (Some(old), Some(new)) if m.patch.merge => lists::merge(old, new, item(m.ty), merge_key, false)?,
            (Some(_), Some(new)) => new,
            (None, None) => continue,
        };
        original.insert(key, Value::Array(lists::order(merged, &order, &server, merge_key)?));
        patch.remove(key);
    }
    Ok(())
}

fn bad_argument(value: &Value) -> Error {
    Error::Other(format!("expected a []interface {{}}, but received a {}", go_type(value)))
}

/// The value without the parts that carry `$patch`; none if it does itself.
fn remove_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(m) if m.contains_key(PATCH) => None,
        Value::Object(m) => {
            Some(Value::Object(m.into_iter().filter_map(|(k, v)| Some((k, remove_directives(v)?))).collect()))
        }
        Value::Array(a) => Some(Value::Array(a.into_iter().filter_map(remove_directives).collect())),
        other => Some(other),
    }
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(m) => m.retain(|_, v| {
            discard_nulls(v);
            !v.is_null()
        }),
        Value::Array(a) => a.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}
