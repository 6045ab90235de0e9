//! Expressions of policies and webhooks, which are compiled when they are written.

use std::collections::HashSet;

use api::Value;
use cel::admission::{Compiler, Scope};
use cel::{Type, Version};

use crate::kinds::Errors;
use crate::kinds::check::At;

/// Members whose texts are expressions.
const MEMBERS: [&str; 3] = ["expression", "messageExpression", "valueExpression"];

/// The expressions of one policy or webhook. Those that were written before may use what new ones may not yet.
pub(super) struct Expressions<'o> {
    /// What most expressions may use.
    pub(super) scope: Scope,
    compiler: Compiler,
    known: HashSet<&'o str>,
}

impl<'o> Expressions<'o> {
    /// Compiles expressions of an object that replaces `old`.
    pub(super) fn new(scope: Scope, old: Option<&'o Value>) -> Self {
        let mut known = HashSet::new();
        old.into_iter().for_each(|old| collect(old, &mut known));
        Self { scope, compiler: Compiler::new(scope, Version::NEW), known }
    }

    fn compiler(&mut self, scope: Scope, expression: &str) -> &mut Compiler {
        let version = if self.known.contains(expression) { Version::STORED } else { Version::NEW };
        self.compiler.set(scope, version)
    }

    /// Checks the expression `source`, which stands at `at` and is shown as `shown`.
    pub(super) fn check(
        &mut self,
        at: &At<'_>,
        (source, shown): (&str, &str),
        scope: Scope,
        returns: &[Type],
        errors: &mut Errors,
    ) {
        if let Err(why) = self.compiler(scope, source).compile(source, returns) {
            at.invalid_as(errors, shown, why);
        }
    }

    /// Checks a condition, which knows no variables.
    pub(super) fn check_condition(&mut self, at: &At<'_>, errors: &mut Errors) {
        let (source, scope) = (at.text().trim(), Scope { variables: false, patches: false, ..self.scope });
        self.check(at, (source, source), scope, &[Type::Bool], errors);
    }

    /// Checks the expression of a variable, and lets later ones use it.
    pub(super) fn declare(&mut self, name: &str, at: &At<'_>, errors: &mut Errors) {
        let scope = Scope { patches: false, ..self.scope };
        if let Err(why) = self.compiler(scope, at.text()).declare(name, at.text()) {
            at.invalid(errors, why);
        }
    }
}

fn collect<'v>(value: &'v Value, known: &mut HashSet<&'v str>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter() {
                match value.as_str() {
                    Some(text) if MEMBERS.contains(&key) => {
                        known.extend([text, text.trim()]);
                    }
                    _ => collect(value, known),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, known)),
        _ => {}
    }
}
