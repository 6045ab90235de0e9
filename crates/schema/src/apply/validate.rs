//! Whether a configuration fits its type, with the messages of structured-merge-diff.

use std::fmt;

use api::Value;

use super::element::Element;
use super::tree::{Atom, Scalar, Shaped};
use crate::patch::go_map;
use crate::types::Ty;

/// What does not fit, each with its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Errors(Vec<String>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => f.write_str(one),
            many => write!(f, "errors:\n  {}", many.join("\n  ")),
        }
    }
}

pub(super) fn validate(value: &Value, ty: Ty<'_>, allow_duplicates: bool) -> Result<(), Errors> {
    let mut walker = Walker { errors: Errors::default(), path: Vec::new(), allow_duplicates };
    walker.visit(value, Shaped::Of(ty));
    if walker.errors.0.is_empty() { Ok(()) } else { Err(walker.errors) }
}

struct Walker {
    errors: Errors,
    path: Vec<Element>,
    allow_duplicates: bool,
}

impl Walker {
    fn fail(&mut self, what: impl fmt::Display) {
        let path: String = self.path.iter().map(ToString::to_string).collect();
        self.errors.0.push(if path.is_empty() { what.to_string() } else { format!("{path}: {what}") });
    }

    fn visit(&mut self, value: &Value, shape: Shaped<'_>) {
        match (shape.atom(Some(value)), value) {
            (_, Value::Null) => {}
            (Atom::Scalar(Scalar::Numeric), Value::Int(_) | Value::Float(_))
            | (Atom::Scalar(Scalar::String), Value::String(_))
            | (Atom::Scalar(Scalar::Boolean), Value::Bool(_)) => {}
            (Atom::Scalar(Scalar::Numeric), v) => {
                self.fail(format!("expected numeric (int or float), got {}", crate::patch::go_type(v)));
            }
            (Atom::Scalar(Scalar::String), v) => {
                self.fail(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(v)));
            }
            (Atom::Scalar(Scalar::Boolean), v) => {
                self.fail(format!("expected boolean, got &{{{}}}", go_map(v)))
            }
            (Atom::Scalar(Scalar::Untyped), Value::Array(_) | Value::Object(_)) => {
                self.fail(format!("expected any scalar, got &{{{}}}", go_map(value)));
            }
            (Atom::Scalar(Scalar::Untyped), _) => {}
            (Atom::List(l), Value::Array(items)) => {
                let mut seen = Vec::new();
                for (i, item) in items.iter().enumerate() {
                    let element = if l.atomic() {
                        Element::Index(i as i64)
                    } else {
                        match l.element(item) {
                            Ok(element) => element,
                            Err(e) => return self.fail(format!("element {i}: {e}")),
                        }
                    };
                    if !l.atomic() && !self.allow_duplicates {
                        if seen.contains(&element) {
                            self.fail(format!("duplicate entries for key {element}"));
                        }
                        seen.push(element.clone());
                    }
                    self.step(element, item, l.item);
                }
            }
            (Atom::List(_), v) => self.fail(format!("expected list, got &{{{}}}", go_map(v))),
            (Atom::Map(m), Value::Object(members)) => {
                for (name, value) in members.iter() {
                    let element = Element::Field(name.into());
                    match m.member(name) {
                        Some(shape) => self.step(element, value, shape),
                        None => {
                            self.path.push(element);
                            self.fail("field not declared in schema");
                            self.path.pop();
                            return;
                        }
                    }
                }
            }
            (Atom::Map(_), v) => self.fail(format!("expected map, got &{{{}}}", go_map(v))),
        }
    }

    fn step(&mut self, element: Element, value: &Value, shape: Shaped<'_>) {
        self.path.push(element);
        self.visit(value, shape);
        self.path.pop();
    }
}

/// A value as Go's `%#v` prints it.
fn go_syntax(v: &Value) -> String {
    match v {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(s) => api::field::go_quote(s),
        Value::Array(a) => {
            format!("[]interface {{}}{{{}}}", a.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(m) => {
            let mut members: Vec<_> = m.iter().collect();
            members.sort_by_key(|(k, _)| *k);
            let texts: Vec<String> = members
                .iter()
                .map(|(k, v)| format!("{}:{}", api::field::go_quote(k), go_syntax(v)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", texts.join(", "))
        }
        other => other.to_string(),
    }
}
