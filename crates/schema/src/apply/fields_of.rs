//! The fields that an object sets.

use api::Value;

use super::element::Element;
use super::set::Set;
use super::tree::{Atom, Shaped};
use crate::types::Ty;

/// The fields that an object of a type sets.
pub fn fields_of(object: &Value, ty: Ty<'_>) -> Set {
    let mut set = Set::default();
    visit(object, Shaped::Of(ty), &mut Vec::new(), &mut set);
    set
}

fn visit(value: &Value, shape: Shaped<'_>, path: &mut Vec<Element>, set: &mut Set) {
    match (shape.atom(Some(value)), value) {
        (Atom::Scalar(_), _) => set.insert(path),
        (Atom::List(l), _) if l.atomic() => set.insert(path),
        (Atom::Map(m), _) if m.atomic => set.insert(path),
        (Atom::List(l), Value::Array(items)) => {
            let elements: Vec<Option<Element>> = items.iter().map(|i| l.element(i).ok()).collect();
            for (item, element) in items.iter().zip(&elements) {
                let Some(element) = element else { continue };
                let again = elements.iter().flatten().filter(|e| *e == element).count() > 1;
                path.push(element.clone());
                if !again {
                    visit(item, l.item, path, set);
                }
                set.insert(path);
                path.pop();
            }
        }
        (Atom::Map(m), Value::Object(members)) => {
            for (name, value) in members.iter() {
                path.push(Element::Field(name.into()));
                visit(value, m.member_or_any(name), path, set);
                let empty = value.is_null() || value.as_object().is_some_and(|m| m.is_empty());
                if empty || !m.declares(name) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        _ => {}
    }
}
