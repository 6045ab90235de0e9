//! Rules held against an object, part by part.

use api::Value;
use api::field::{FieldError, Path, Problem};

use super::{Node, OBJECT_BUDGET, Rule, error};
use crate::eval::{Activation, Limits, Program};
use crate::value::{EvalError, Outcome, Val};

/// Longest message that an expression makes, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// A value and what it was.
#[derive(Clone, Copy)]
struct Change<'v> {
    new: &'v Value,
    old: &'v Value,
}

impl Change<'_> {
    fn is_none(self) -> bool {
        self.new == self.old
    }
}

/// Tells whether an error was there before: by the old value, or, where a value has none, by that of what contains it.
#[derive(Clone, Copy, Default)]
struct Ratchet<'v> {
    here: Option<Change<'v>>,
    around: Option<Change<'v>>,
}

impl<'v> Ratchet<'v> {
    fn unchanged(self) -> bool {
        self.here.or(self.around).is_some_and(Change::is_none)
    }

    fn member(self, name: &str) -> Self {
        let Some(here) = self.here else { return self };
        if self.around.is_none() && matches!(name, "apiVersion" | "kind") {
            return Self::default();
        }
        let of = |v: &'v Value| v.as_object().and_then(|m| m.get(name));
        let inner = of(here.new).zip(of(here.old)).map(|(new, old)| Change { new, old });
        Self { here: inner, around: self.here }
    }

    fn item(self, new: &'v Value, old: Option<&'v Value>) -> Self {
        let Some(here) = self.here else { return self };
        Self { here: old.map(|old| Change { new, old }), around: Some(here) }
    }
}

/// The variables of a rule.
struct Selves<'a> {
    this: Outcome<'a>,
    old: Option<Outcome<'a>>,
}

impl<'a> Activation<'a> for Selves<'a> {
    fn variable(&self, name: &str) -> Option<Outcome<'a>> {
        match name {
            "self" => Some(self.this.clone()),
            "oldSelf" => self.old.clone(),
            _ => None,
        }
    }
}

/// Nothing more is evaluated.
struct Stop;

struct Walk<'w> {
    budget: u64,
    errors: Vec<FieldError>,
    warn: &'w mut dyn FnMut(String),
}

/// Everything about an object that its rules do not let pass.
pub(super) fn validate(
    node: &Node,
    object: &Value,
    old: Option<&Value>,
    warn: &mut dyn FnMut(String),
) -> Vec<FieldError> {
    let mut walk = Walk { budget: OBJECT_BUDGET, errors: Vec::new(), warn };
    let ratchet = Ratchet { here: old.map(|old| Change { new: object, old }), around: None };
    // Whatever ended it early has been reported.
    let _ = walk.visit(node, object, old, ratchet, None);
    walk.errors
}

fn shown(path: Option<&Path<'_>>) -> String {
    path.map_or_else(|| "<nil>".to_owned(), ToString::to_string)
}

fn message_or_rule(rule: &Value) -> &str {
    let message = rule.str_at(&["message"]).trim();
    if message.is_empty() { rule.str_at(&["rule"]).trim() } else { message }
}

impl Walk<'_> {
    fn visit(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        ratchet: Ratchet<'_>,
        path: Option<&Path<'_>>,
    ) -> Result<(), Stop> {
        if value.is_null() {
            return Ok(());
        }
        let old = old.filter(|old| !old.is_null());
        self.rules(node, value, old, ratchet, path)?;
        for alternative in &node.all_of {
            let ratchet = Ratchet { here: None, around: ratchet.around };
            self.visit(alternative, value, old, ratchet, path)?;
        }
        match value {
            Value::Array(items) => self.items(node, items, old, ratchet, path),
            Value::Object(map) => self.members(node, map, old, ratchet, path),
            _ => Ok(()),
        }
    }

    fn items(
        &mut self,
        node: &Node,
        items: &[Value],
        old: Option<&Value>,
        ratchet: Ratchet<'_>,
        path: Option<&Path<'_>>,
    ) -> Result<(), Stop> {
        let Some(inner) = &node.items else { return Ok(()) };
        let root = Path::new("");
        for (i, item) in items.iter().enumerate() {
            let before = counterpart(node, item, old);
            let at = path.unwrap_or(&root).index(i);
            self.visit(inner, item, before, ratchet.item(item, before), Some(&at))?;
        }
        Ok(())
    }

    fn members(
        &mut self,
        node: &Node,
        map: &api::Map,
        old: Option<&Value>,
        ratchet: Ratchet<'_>,
        path: Option<&Path<'_>>,
    ) -> Result<(), Stop> {
        let old = old.filter(|_| node.granular).and_then(Value::as_object);
        let root = Path::new("");
        for (name, value) in map.iter() {
            let before = old.and_then(|old| old.get(name));
            if let Some(inner) = &node.additional {
                let at = path.unwrap_or(&root).key(name);
                self.visit(inner, value, before, ratchet.member(name), Some(&at))?;
            }
            if let Some(inner) = node.properties.get(name) {
                let at = match path {
                    Some(path) => path.child(name),
                    None => Path::new(name),
                };
                self.visit(inner, value, before, ratchet.member(name), Some(&at))?;
            }
        }
        Ok(())
    }

    fn rules(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        ratchet: Ratchet<'_>,
        path: Option<&Path<'_>>,
    ) -> Result<(), Stop> {
        if node.rules.is_empty() {
            return Ok(());
        }
        if self.budget == 0 {
            return Err(self.stop(node, path, OUT_OF_BUDGET.to_owned()));
        }
        let read = |value| match &node.decl {
            Some(decl) => Val::from_data(value, decl),
            None => Err(EvalError::new("the value has no declaration")),
        };
        for rule in &node.rules {
            if let Some(e) = &rule.compiled.error {
                self.errors.push(self.invalid(node, path, format!("rule compile error: {e}")));
                continue;
            }
            let Some(program) = &rule.compiled.program else { continue };
            let optional = rule.source.get("optionalOldSelf").as_bool() == Some(true);
            if rule.compiled.uses_old_self && old.is_none() && !optional {
                continue;
            }
            let old_self = old.map(read);
            let old_self = if optional {
                Some(old_self.transpose().map(|v| Val::Optional(v.map(Into::into))))
            } else {
                old_self
            };
            let selves = Selves { this: read(value), old: old_self };
            if !self.holds(node, rule, program, &selves, path)? {
                self.fail(node, rule, value, &selves, ratchet, path)?;
            }
        }
        Ok(())
    }

    fn invalid(&self, node: &Node, path: Option<&Path<'_>>, detail: String) -> FieldError {
        error(shown(path), Problem::Invalid(node.kind.as_str().into()), detail)
    }

    fn stop(&mut self, node: &Node, path: Option<&Path<'_>>, detail: String) -> Stop {
        let error = self.invalid(node, path, detail);
        self.errors.push(error);
        Stop
    }

    fn spend(&mut self, cost: u64) -> Result<(), ()> {
        self.budget = self.budget.checked_sub(cost).ok_or(())?;
        Ok(())
    }

    /// Is the rule true? What keeps it from being either is reported, and counts as true.
    fn holds(
        &mut self,
        node: &Node,
        rule: &Rule,
        program: &Program,
        selves: &Selves<'_>,
        path: Option<&Path<'_>>,
    ) -> Result<bool, Stop> {
        let (outcome, cost) = program.evaluate(selves, Limits::default());
        if self.spend(cost).is_err() {
            return Err(self.stop(node, path, OUT_OF_BUDGET.to_owned()));
        }
        let text = message_or_rule(&rule.source);
        match outcome {
            Ok(v) => Ok(v.as_bool() == Some(true)),
            Err(EvalError::Cancelled(why)) => {
                let detail = format!(
                    "'{why}': no further validation rules will be run due to call cost exceeds limit for rule: {text}"
                );
                Err(self.stop(node, path, detail))
            }
            Err(EvalError::Failed(why)) => {
                let detail = if why.starts_with("no such overload") {
                    format!(
                        "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {text}"
                    )
                } else {
                    format!("{why} evaluating rule: {text}")
                };
                let error = self.invalid(node, path, detail);
                self.errors.push(error);
                Ok(true)
            }
        }
    }

    fn fail(
        &mut self,
        node: &Node,
        rule: &Rule,
        value: &Value,
        selves: &Selves<'_>,
        ratchet: Ratchet<'_>,
        path: Option<&Path<'_>>,
    ) -> Result<(), Stop> {
        let field = match (&rule.field_path, path) {
            (None, path) => shown(path),
            (Some(below), None) => below.clone(),
            (Some(below), Some(path)) => format!("{path}.{below}"),
        };
        let ratchets = !rule.compiled.uses_old_self && ratchet.unchanged();
        let message = match &rule.compiled.message {
            Some(program) => self.message(rule, program, selves),
            None => Ok(None),
        };
        let (error, stop) = match message {
            Err(detail) => (error(field, Problem::Invalid(node.kind.as_str().into()), detail), true),
            Ok(message) => {
                let given = rule.source.str_at(&["message"]).trim();
                let detail = message.unwrap_or_else(|| match given {
                    "" => format!("failed rule: {}", message_or_rule(&rule.source)),
                    given => given.to_owned(),
                });
                (rejection(node, rule, value, field, detail), false)
            }
        };
        if ratchets {
            (self.warn)(error.to_string());
        } else {
            self.errors.push(error);
        }
        if stop { Err(Stop) } else { Ok(()) }
    }

    /// The message that an expression makes; none when it makes none that can be shown. The error ends validation.
    fn message(
        &mut self,
        rule: &Rule,
        program: &Program,
        selves: &Selves<'_>,
    ) -> Result<Option<String>, String> {
        let (outcome, cost) = program.evaluate(selves, Limits::default());
        if self.spend(cost).is_err() {
            let why = "messageExpression evaluation failed due to running out of cost budget, no further validation \
                       rules will be run";
            return Err(why.to_owned());
        }
        match outcome {
            Err(EvalError::Cancelled(_)) => {
                let text = api::field::go_quote(rule.source.str_at(&["messageExpression"]));
                Err(format!(
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression: {text}"
                ))
            }
            Err(EvalError::Failed(_)) => Ok(None),
            Ok(v) => {
                let text = v.as_str().unwrap_or_default().trim();
                let fine = !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n');
                Ok(fine.then(|| text.to_owned()))
            }
        }
    }
}

fn rejection(node: &Node, rule: &Rule, value: &Value, field: String, detail: String) -> FieldError {
    // Objects and lists are not repeated in the message.
    let whole = matches!(node.kind.as_str(), "object" | "array");
    let shown = || if whole { None } else { Some(value.clone()) };
    match rule.source.str_at(&["reason"]) {
        "FieldValueForbidden" => error(field, Problem::Forbidden, detail),
        "FieldValueRequired" => error(field, Problem::Required, detail),
        "FieldValueDuplicate" => match shown() {
            Some(value) => error(field, Problem::Duplicate(value), ""),
            None => error(field, Problem::DuplicatePart, ""),
        },
        _ => match shown() {
            Some(value) => error(field, Problem::Invalid(value), detail),
            None => error(field, Problem::InvalidPart, detail),
        },
    }
}

/// The item of an old list that became `item`, which is known by its keys.
fn counterpart<'v>(node: &Node, item: &Value, old: Option<&'v Value>) -> Option<&'v Value> {
    let keys = node.list_keys.as_ref()?;
    let scalar = |v: &Value| !matches!(v, Value::Null | Value::Array(_) | Value::Object(_));
    let same = |other: &&Value| keys.iter().all(|k| other.get(k) == item.get(k) && scalar(item.get(k)));
    old?.as_array()?.iter().find(same)
}
