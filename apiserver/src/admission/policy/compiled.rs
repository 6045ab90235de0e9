//! A policy made ready, and what it says of one request.

use std::sync::Arc;

use api::Value;
use cel::admission::{Compiler, Evaluator, Inputs, Scope};
use cel::{Limits, Type, Val, Version};

use super::params::ParamKind;
use crate::admission::expression::{Expression, evaluate, hold};
use crate::admission::request::Criteria;
use crate::storage::Stored;

/// What the expressions of a policy may cost for one binding, beside its conditions.
const BUDGET: u64 = 10_000_000;
const MESSAGE_BYTES: usize = 5 * 1024;

struct Validation {
    check: Expression,
    computed: Option<Expression>,
    message: String,
    reason: String,
}

/// A policy made ready.
pub(super) struct Policy {
    /// What it was made of.
    pub stored: Arc<Stored>,
    pub name: String,
    /// True when what cannot be decided is allowed.
    pub ignores: bool,
    pub criteria: Result<Criteria, String>,
    pub param_kind: Option<ParamKind>,
    compiler: Compiler,
    conditions: Vec<Expression>,
    validations: Vec<Validation>,
    annotations: Vec<Expression>,
}

/// Why a request is refused.
pub(super) struct Denial {
    pub message: String,
    /// Empty unless the validation says.
    pub reason: String,
}

/// What a policy says of a request.
#[derive(Default)]
pub(super) struct Verdict {
    /// What the actions of the binding are for.
    pub denials: Vec<Denial>,
    /// What refuses the request whatever the actions are.
    pub failures: Vec<Denial>,
}

impl Policy {
    /// Compiles the expressions of a policy.
    pub(super) fn new(stored: Arc<Stored>) -> Self {
        let object = stored.object();
        let spec = object.get("spec");
        let param_kind = ParamKind::new(spec.get("paramKind"));
        let scope = Scope { params: param_kind.is_some(), authorizer: true, variables: true, patches: false };
        let mut compiler = Compiler::new(scope, Version::STORED);
        for variable in spec.array_at(&["variables"]) {
            // Using one that does not compile is what fails.
            let _ = compiler.declare(variable.str_at(&["name"]), variable.str_at(&["expression"]));
        }
        let boolean = [Type::Bool];
        let each = |list: &str| spec.array_at(&[list]).iter();
        let conditions =
            each("matchConditions").map(|c| Expression::new(&compiler, c, "expression", &boolean)).collect();
        let annotations = each("auditAnnotations")
            .map(|a| Expression::new(&compiler, a, "valueExpression", &[Type::String, Type::Null]))
            .collect();
        let mut validations: Vec<Validation> = each("validations")
            .map(|v| Validation {
                check: Expression::new(&compiler, v, "expression", &boolean),
                computed: None,
                message: v.str_at(&["message"]).trim().to_owned(),
                reason: v.get("reason").as_str().unwrap_or("Invalid").to_owned(),
            })
            .collect();
        compiler.set(Scope { authorizer: false, ..scope }, Version::STORED);
        for (validation, given) in validations.iter_mut().zip(each("validations")) {
            if !given.str_at(&["messageExpression"]).is_empty() {
                validation.computed =
                    Some(Expression::new(&compiler, given, "messageExpression", &[Type::String]));
            }
        }
        Self {
            name: object.name().to_owned(),
            ignores: spec.str_at(&["failurePolicy"]) == "Ignore",
            criteria: Criteria::new(spec.get("matchConstraints")),
            param_kind,
            stored,
            compiler,
            conditions,
            validations,
            annotations,
        }
    }

    /// What the policy says of a request; conditions see `request`, the rest `matched`, which names the resource that
    /// the rules matched.
    pub(super) fn judge(&self, inputs: Inputs<'_>, matched: &Value) -> Verdict {
        match hold(&self.compiler, &self.conditions, self.ignores, inputs.clone()) {
            Ok(true) => {}
            Ok(false) => return Verdict::default(),
            Err(why) => return self.undecided(why),
        }
        let inputs = Inputs { request: Some(matched), ..inputs };
        let mut budget = BUDGET;
        let evaluator = Evaluator::new(&self.compiler, inputs.clone(), Limits::default());
        let mut results = Vec::with_capacity(self.validations.len());
        for validation in &self.validations {
            match evaluate(&evaluator, &validation.check, &mut budget) {
                Ok(result) => results.push(result.map(|v| v.as_bool() == Some(true))),
                Err(why) => return self.undecided(why.to_owned()),
            }
        }
        let mut verdict = Verdict::default();
        // Messages are computed only when one is needed.
        let mut messages = Ok(Vec::new());
        if results.iter().any(|r| matches!(r, Ok(false))) {
            messages = self.messages(Inputs { authorizer: None, ..inputs.clone() }, budget);
        }
        for (i, result) in results.into_iter().enumerate() {
            let undecided = match (result, &messages) {
                (Err(why), _) => why,
                (Ok(_), Err(why)) => format!("failed messageExpression: {why}"),
                (Ok(true), _) => continue,
                (Ok(false), Ok(messages)) => {
                    let computed = messages.get(i).cloned().unwrap_or_default();
                    verdict.denials.push(self.validations[i].denial(computed));
                    continue;
                }
            };
            verdict.denials.extend(self.undecided(undecided).denials);
        }
        match self.check_annotations(inputs) {
            Ok(failures) => verdict.failures = failures,
            Err(why) => return self.undecided(why.to_owned()),
        }
        verdict
    }

    /// What comes of an expression that has no value.
    fn undecided(&self, message: String) -> Verdict {
        let denials = if self.ignores { Vec::new() } else { vec![Denial { message, reason: String::new() }] };
        Verdict { denials, failures: Vec::new() }
    }

    /// The computed messages, empty where there is none to show.
    fn messages(&self, inputs: Inputs<'_>, mut budget: u64) -> Result<Vec<String>, &'static str> {
        let evaluator = Evaluator::new(&self.compiler, inputs, Limits::default());
        let mut messages = Vec::with_capacity(self.validations.len());
        for validation in &self.validations {
            let Some(computed) = &validation.computed else {
                messages.push(String::new());
                continue;
            };
            let value = evaluate(&evaluator, computed, &mut budget)?.ok();
            let text = value.as_ref().and_then(Val::as_str).unwrap_or_default().trim();
            let shown = text.len() <= MESSAGE_BYTES && !text.contains('\n');
            messages.push(if shown { text.to_owned() } else { String::new() });
        }
        Ok(messages)
    }

    /// What goes wrong with annotations of the audit.
    fn check_annotations(&self, inputs: Inputs<'_>) -> Result<Vec<Denial>, &'static str> {
        let evaluator = Evaluator::new(&self.compiler, inputs, Limits::default());
        let (mut budget, mut failures) = (BUDGET, Vec::new());
        for annotation in &self.annotations {
            if let Err(message) = evaluate(&evaluator, annotation, &mut budget)? {
                failures.push(Denial { message, reason: String::new() });
            }
        }
        if self.ignores {
            failures.clear();
        }
        Ok(failures)
    }
}

impl Validation {
    fn denial(&self, computed: String) -> Denial {
        let message = [computed, self.message.clone()].into_iter().find(|m| !m.is_empty());
        let message = message.unwrap_or_else(|| format!("failed expression: {}", self.check.source.trim()));
        Denial { message, reason: self.reason.clone() }
    }
}
