//! The vocabulary of validation: a value together with where it stands, and what is found wrong with it.
//!
//! `spec.get("replicas").not_negative(errors)` reads as the rule does. An absent field of a Go struct has its zero
//! value: an absent text is empty, an absent number zero. What is meant is told by the method that looks.

mod address;
mod count;
mod domain;
mod labels;

use api::field::{FieldError, Path, Problem};
use api::quantity::Quantity;
use api::{Map, Value};

use super::Errors;

/// A value and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub value: &'a Value,
    pub path: Path<'a>,
}

impl<'a> At<'a> {
    /// The member `name` of an object; name may hold dots.
    pub(crate) fn of(object: &'a Value, name: &'a str) -> Self {
        Self { value: below(object, name), path: Path::new(name) }
    }

    /// The member `name`; name may hold dots.
    pub(crate) fn get(&'a self, name: &'a str) -> At<'a> {
        At { value: below(self.value, name), path: self.path.child(name) }
    }

    /// The items of a list.
    pub(crate) fn items(&'a self) -> impl ExactSizeIterator<Item = At<'a>> {
        let items = self.value.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(|(i, value)| At { value, path: self.path.index(i) })
    }

    /// The members of a map, in order of their keys.
    pub(crate) fn entries(&'a self) -> impl Iterator<Item = (&'a str, At<'a>)> {
        let mut members: Vec<(&str, &Value)> =
            self.value.as_object().into_iter().flat_map(Map::iter).collect();
        members.sort_by_key(|(key, _)| *key);
        members.into_iter().map(|(key, value)| (key, At { value, path: self.path.key(key) }))
    }

    /// Another value at the same place.
    pub(crate) fn with(&self, value: &'a Value) -> At<'a> {
        At { value, path: self.path }
    }

    /// The text; empty when absent.
    pub(crate) fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The number; zero when absent.
    pub(crate) fn int(&self) -> i64 {
        self.value.as_i64().unwrap_or(0)
    }

    /// True when it is there and true.
    pub(crate) fn is_true(&self) -> bool {
        self.value.as_bool() == Some(true)
    }

    /// True when it is there.
    pub(crate) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// The number of items or members.
    pub(crate) fn len(&self) -> usize {
        match self.value {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    /// The texts of a list.
    pub(crate) fn texts(&self) -> Vec<&'a str> {
        self.value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The quantity, if it is there.
    pub(crate) fn quantity(&self) -> Option<Quantity> {
        self.value.as_str().and_then(|q| q.parse().ok())
    }

    /// It must be given.
    pub(crate) fn required(&self, errors: &mut Errors, why: impl Into<String>) {
        errors.push(FieldError::required(&self.path, why));
    }

    /// It is not acceptable.
    pub(crate) fn invalid(&self, errors: &mut Errors, why: impl Into<String>) {
        errors.push(FieldError::invalid(&self.path, self.value, why));
    }

    /// It is not acceptable; the message shows another value.
    pub(crate) fn invalid_as(&self, errors: &mut Errors, shown: impl Into<Value>, why: impl Into<String>) {
        errors.push(FieldError::invalid(&self.path, shown, why));
    }

    /// It is not acceptable; the message shows the struct `ty` that it is.
    pub(crate) fn invalid_struct(&self, errors: &mut Errors, ty: &str, why: impl Into<String>) {
        self.invalid_as(errors, view(self.value, ty), why);
    }

    /// It is not acceptable; the message does not show it.
    pub(crate) fn invalid_unshown(&self, errors: &mut Errors, why: impl Into<String>) {
        errors.push(FieldError::new(&self.path, Problem::InvalidPart, why));
    }

    /// It may not be given.
    pub(crate) fn forbidden(&self, errors: &mut Errors, why: impl Into<String>) {
        errors.push(FieldError::forbidden(&self.path, why));
    }

    /// It occurs twice.
    pub(crate) fn duplicate(&self, errors: &mut Errors) {
        errors.push(FieldError::duplicate(&self.path, self.value));
    }

    /// It names nothing.
    pub(crate) fn not_found(&self, errors: &mut Errors) {
        errors.push(FieldError::not_found(&self.path, self.text()));
    }

    /// It is none of the supported values.
    pub(crate) fn unsupported(&self, errors: &mut Errors, supported: &[&str]) {
        let shown = if self.value.is_null() { "".into() } else { self.value.clone() };
        errors.push(FieldError::not_supported(&self.path, shown, supported));
    }

    /// It must be one of `supported`, if it is there.
    pub(crate) fn one_of(&self, errors: &mut Errors, supported: &[&str]) {
        if self.is_set() && !supported.contains(&self.text()) {
            self.unsupported(errors, supported);
        }
    }

    /// It must be there and one of `supported`.
    pub(crate) fn required_one_of(&self, errors: &mut Errors, supported: &[&str]) {
        if self.text().is_empty() {
            self.required(errors, "");
        } else {
            self.one_of(errors, supported);
        }
    }

    /// It must not be empty; true when it is not.
    pub(crate) fn not_empty(&self, errors: &mut Errors) -> bool {
        let empty = self.value.is_empty();
        if empty {
            self.required(errors, "");
        }
        !empty
    }

    /// It must follow a rule for names.
    pub(crate) fn named(&self, errors: &mut Errors, rule: fn(&str) -> Vec<String>) {
        let text = self.text();
        errors.extend(rule(text).into_iter().map(|e| FieldError::invalid(&self.path, text, e)));
    }

    /// It must follow a rule for names unless it is empty.
    pub(crate) fn named_if_any(&self, errors: &mut Errors, rule: fn(&str) -> Vec<String>) {
        if !self.text().is_empty() {
            self.named(errors, rule);
        }
    }

    /// It must be there and follow a rule for names.
    pub(crate) fn required_name(&self, errors: &mut Errors, rule: fn(&str) -> Vec<String>) {
        if self.not_empty(errors) {
            self.named(errors, rule);
        }
    }

    /// It must not be longer than `max` bytes.
    pub(crate) fn not_longer(&self, errors: &mut Errors, max: usize) {
        if self.text().len() > max {
            errors.push(FieldError::too_long(&self.path, max));
        }
    }

    /// It must not have more than `max` items; true when it has not.
    pub(crate) fn not_more(&self, errors: &mut Errors, max: usize) -> bool {
        let len = self.len();
        if len > max {
            errors.push(FieldError::too_many(&self.path, len, max));
        }
        len <= max
    }

    /// It may not differ from `old`.
    pub(crate) fn immutable(&self, errors: &mut Errors, old: &Value) {
        if self.value != old {
            self.invalid(errors, "field is immutable");
        }
    }

    /// The text, which is empty when it is not there, may not differ from `old`.
    pub(crate) fn immutable_text(&self, errors: &mut Errors, old: &Value) {
        if self.text() != old.as_str().unwrap_or_default() {
            self.invalid_as(errors, self.text(), "field is immutable");
        }
    }

    /// The struct of type `ty` may not differ from `old`.
    pub(crate) fn immutable_struct(&self, errors: &mut Errors, old: &Value, ty: &str) {
        if self.value != old {
            self.invalid_struct(errors, ty, "field is immutable");
        }
    }
}

fn below<'v>(value: &'v Value, name: &str) -> &'v Value {
    match name.bytes().position(|b| b == b'.') {
        Some(dot) => below(value.get(&name[..dot]), &name[dot + 1..]),
        None => value.get(name),
    }
}

/// A value as the internal type prints.
pub(crate) fn view(value: &Value, ty: &str) -> Value {
    match schema::named(ty) {
        _ if value.is_null() => Value::Null,
        Some(known) => schema::internal::view(value, known),
        None => value.clone(),
    }
}

/// How two values differ, as upstream's messages show it.
pub(super) fn difference(old: &Value, new: &Value, ty: &str) -> String {
    schema::named(ty).map(|known| schema::internal::difference(old, new, known)).unwrap_or_default()
}
