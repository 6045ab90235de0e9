//! Removing fields from an object.

use api::{Map, Value};

use super::element::Element;
use super::set::Set;
use super::tree::{Atom, Shaped};
use crate::types::Ty;

/// The object without these fields.
pub(super) fn remove(object: &Value, fields: &Set, ty: Ty<'_>) -> Value {
    visit(object, fields, Shaped::Of(ty)).unwrap_or_default()
}

fn visit(value: &Value, fields: &Set, shape: Shaped<'_>) -> Option<Value> {
    match (shape.atom(Some(value)), value) {
        (Atom::Scalar(_), value) => Some(value.clone()),
        (Atom::List(l), Value::Array(items)) if !l.atomic() => {
            let (mut out, mut matched) = (Vec::new(), false);
            for item in items {
                let element = l.element(item).ok();
                if element.as_ref().is_some_and(|e| fields.has(e)) {
                    continue;
                }
                match element.and_then(|e| fields.below(&e)) {
                    Some(below) => {
                        matched = true;
                        out.push(visit(item, below, l.item).unwrap_or_else(|| emptied(item)));
                    }
                    None => out.push(item.clone()),
                }
            }
            (matched || !out.is_empty()).then_some(Value::Array(out))
        }
        (Atom::Map(m), Value::Object(members)) if !m.atomic => {
            let (mut out, mut matched) = (Map::new(), false);
            for (name, value) in members.iter() {
                let element = Element::Field(name.into());
                if fields.has(&element) {
                    continue;
                }
                match fields.below(&element) {
                    Some(below) => {
                        matched = true;
                        let rest = visit(value, below, m.member_or_any(name));
                        out.push(name, rest.unwrap_or_else(|| emptied(value)));
                    }
                    None => out.push(name, value.clone()),
                }
            }
            (matched || !out.is_empty()).then_some(Value::Object(out))
        }
        _ => None,
    }
}

/// What remains of a value from which everything was taken.
fn emptied(value: &Value) -> Value {
    match value {
        Value::Object(_) => Value::object(),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    }
}
