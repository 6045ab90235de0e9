//! JSON patch, RFC 6902, with what `evanphx/json-patch` v4 makes of its corners: an array index may be negative, and
//! replacing an absent member adds it.

use api::Value;

use super::{Error, MAX_COPIED, MAX_OPERATIONS};
use crate::decode::Mode;

/// Applies a JSON patch. Also returns what is unknown in its operations, unless `mode` is `Ignore`.
pub fn json(mut doc: Value, patch: &Value, mode: Mode) -> Result<(Value, Vec<String>), Error> {
    let operations = operations(patch, mode)?;
    let mut findings = Vec::new();
    for (i, op) in operations.iter().enumerate().filter(|_| mode != Mode::Ignore) {
        for key in op.as_object().into_iter().flat_map(|m| m.keys()) {
            if !matches!(key, "op" | "path" | "from" | "value") {
                findings.push(format!("json patch unknown field \"[{i}].{key}\""));
            }
        }
    }
    let mut copied = 0;
    for op in operations {
        apply(&mut doc, op, &mut copied)?;
    }
    // What a patch looks into is written with its keys in order.
    for op in operations {
        for key in ["path", "from"] {
            sort_along(&mut doc, op.str_at(&[key]));
        }
    }
    if let Value::Object(map) = &mut doc {
        map.sort_keys();
    }
    Ok((doc, findings))
}

fn sort_along(doc: &mut Value, path: &str) {
    let mut at = doc;
    for key in path.split('/').skip(1) {
        if let Value::Object(map) = at {
            map.sort_keys();
        }
        let key = key.replace("~1", "/").replace("~0", "~");
        let next = match at {
            Value::Object(map) => map.get_mut(&key),
            Value::Array(items) => key.parse::<usize>().ok().and_then(|i| items.get_mut(i)),
            _ => None,
        };
        let Some(next) = next else { return };
        at = next;
    }
}

fn operations(patch: &Value, mode: Mode) -> Result<&[Value], Error> {
    let (prefix, list, item) = match mode {
        Mode::Ignore => ("", "jsonpatch.Patch", "jsonpatch.Operation"),
        _ => ("error decoding patch: ", "[]handlers.jsonPatchOp", "handlers.jsonPatchOp"),
    };
    let malformed = |v: &Value, of: &str| {
        Error::Malformed(format!(
            "{prefix}json: cannot unmarshal {} into Go value of type {of}",
            v.kind_name()
        ))
    };
    let operations = match patch {
        Value::Array(items) => items.as_slice(),
        Value::Null => &[],
        other => return Err(malformed(other, list)),
    };
    for op in operations {
        let Value::Object(op) = op else { return Err(malformed(op, item)) };
        for key in ["op", "path", "from"] {
            let value = op.get(key).filter(|v| !v.is_null() && v.as_str().is_none());
            if let (Some(value), true) = (value, mode != Mode::Ignore) {
                return Err(Error::Malformed(format!(
                    "{prefix}json: cannot unmarshal {} into Go struct field jsonPatchOp.{key} of type string",
                    value.kind_name()
                )));
            }
        }
    }
    if operations.len() > MAX_OPERATIONS {
        return Err(Error::TooMany(operations.len()));
    }
    Ok(operations)
}

fn apply(doc: &mut Value, op: &Value, copies: &mut usize) -> Result<(), Error> {
    let pointer = |key: &str| {
        op.get(key).as_str().ok_or_else(|| {
            Error::DoesNotApply(format!(
                "{} operation failed to decode {key}: missing value",
                op.str_at(&["op"])
            ))
        })
    };
    let value = || op.get("value").clone();
    match op.str_at(&["op"]) {
        "add" => add(doc, pointer("path")?, value(), "add operation does not apply: doc is missing path"),
        "remove" => {
            remove(doc, pointer("path")?, "remove operation does not apply: doc is missing path").map(|_| ())
        }
        "replace" => replace(doc, pointer("path")?, value()),
        "test" => test(doc, pointer("path")?, op.get("value")),
        "move" => {
            let moved =
                remove(doc, pointer("from")?, "move operation does not apply: doc is missing from path")?;
            add(
                doc,
                pointer("path")?,
                moved,
                "move operation does not apply: doc is missing destination path",
            )
        }
        "copy" => {
            let from = pointer("from")?;
            let (parent, key) = parent(doc, from, "copy operation does not apply: doc is missing from path")?;
            let copied = get(parent, &key)?.cloned().unwrap_or_default();
            *copies += copied.to_json().len();
            if *copies > MAX_COPIED {
                return Err(Error::DoesNotApply(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copies}, exceeding the limit {MAX_COPIED}"
                )));
            }
            add(
                doc,
                pointer("path")?,
                copied,
                "copy operation does not apply: doc is missing destination path",
            )
        }
        other => Err(Error::DoesNotApply(format!("Unexpected kind: {other}"))),
    }
}

/// The object or array that holds what `path` points at, and the key there.
fn parent<'a>(doc: &'a mut Value, path: &str, missing: &str) -> Result<(&'a mut Value, String), Error> {
    let refuse = || Error::DoesNotApply(format!("{missing}: \"{path}\": missing value"));
    let mut keys: Vec<String> =
        path.split('/').skip(1).map(|k| k.replace("~1", "/").replace("~0", "~")).collect();
    let last = keys.pop().ok_or_else(refuse)?;
    let mut at = doc;
    for key in keys {
        at = match at {
            Value::Object(m) => m.get_mut(&key).ok_or_else(refuse)?,
            Value::Array(a) => {
                let i = index(&key, a.len()).map_err(|_| refuse())?;
                &mut a[i]
            }
            _ => return Err(refuse()),
        };
    }
    match at {
        Value::Object(_) | Value::Array(_) => Ok((at, last)),
        _ => Err(refuse()),
    }
}

/// An index below `len`; a negative one counts from the end.
fn index(key: &str, len: usize) -> Result<usize, Error> {
    let number: i64 = key.parse().map_err(|_| {
        Error::DoesNotApply(format!("strconv.Atoi: parsing {}: invalid syntax", api::field::go_quote(key)))
    })?;
    let at = if number < 0 { number + len as i64 } else { number };
    usize::try_from(at).ok().filter(|i| *i < len).ok_or_else(|| {
        Error::DoesNotApply(format!("Unable to access invalid index: {number}: invalid index referenced"))
    })
}

fn get<'a>(parent: &'a Value, key: &str) -> Result<Option<&'a Value>, Error> {
    match parent {
        Value::Array(a) => index(key, a.len()).map(|i| Some(&a[i])),
        other => Ok(other.as_object().and_then(|m| m.get(key))),
    }
}

fn add(doc: &mut Value, path: &str, value: Value, missing: &str) -> Result<(), Error> {
    let (parent, key) = parent(doc, path, missing)?;
    match parent {
        Value::Array(a) if key == "-" => a.push(value),
        Value::Array(a) => {
            let at = index(&key, a.len() + 1)?;
            a.insert(at, value);
        }
        other => {
            other.make_object().insert(key, value);
        }
    }
    Ok(())
}

fn remove(doc: &mut Value, path: &str, missing: &str) -> Result<Value, Error> {
    let (parent, key) = parent(doc, path, missing)?;
    match parent {
        Value::Array(a) => {
            let at = index(&key, a.len())?;
            Ok(a.remove(at))
        }
        other => other.make_object().remove(&key).ok_or_else(|| {
            Error::DoesNotApply(format!(
                "error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value"
            ))
        }),
    }
}

fn replace(doc: &mut Value, path: &str, value: Value) -> Result<(), Error> {
    if path.is_empty() {
        if !matches!(value, Value::Object(_) | Value::Array(_)) {
            return Err(Error::DoesNotApply("replace operation value must be object or array".into()));
        }
        *doc = value;
        return Ok(());
    }
    let (parent, key) = parent(doc, path, "replace operation does not apply: doc is missing path")?;
    match parent {
        Value::Array(a) => {
            let at = index(&key, a.len())?;
            a[at] = value;
        }
        other => {
            other.make_object().insert(key, value);
        }
    }
    Ok(())
}

fn test(doc: &mut Value, path: &str, want: &Value) -> Result<(), Error> {
    let failed = || Error::TestFailed(format!("testing value {path} failed: test failed"));
    if path.is_empty() {
        return if doc == want { Ok(()) } else { Err(failed()) };
    }
    let (parent, key) = parent(doc, path, "test operation does not apply: is missing path")?;
    let found = get(parent, &key)?.unwrap_or(&Value::Null);
    if found == want { Ok(()) } else { Err(failed()) }
}
