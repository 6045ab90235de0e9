//! A policy made ready, and what it says of one request.

use std::sync::Arc;

use api::Value;
use cel::admission::{Compiler, Evaluator, Inputs, Scope};
use cel::{Limits, Program, Type, Val, Version};

use super::params::ParamKind;
use crate::admission::request::Criteria;
use crate::storage::Stored;

/// What the expressions of a policy may cost for one binding; those of its conditions have an allowance of their own.
const BUDGET: u64 = 10_000_000;
const CONDITIONS_BUDGET: u64 = 2_500_000;
const MESSAGE_BYTES: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// An expression, or why it does not compile.
struct Expression {
    source: String,
    program: Result<Program, String>,
}

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
        let compile = |compiler: &Compiler, of: &Value, field: &str, returns: &[Type]| {
            let source = of.str_at(&[field]).to_owned();
            let program = compiler.compile(&source, returns);
            Expression { source, program }
        };
        let boolean = [Type::Bool];
        let each = |list: &str| spec.array_at(&[list]).iter();
        let conditions =
            each("matchConditions").map(|c| compile(&compiler, c, "expression", &boolean)).collect();
        let annotations = each("auditAnnotations")
            .map(|a| compile(&compiler, a, "valueExpression", &[Type::String, Type::Null]))
            .collect();
        let mut validations: Vec<Validation> = each("validations")
            .map(|v| Validation {
                check: compile(&compiler, v, "expression", &boolean),
                computed: None,
                message: v.str_at(&["message"]).trim().to_owned(),
                reason: v.get("reason").as_str().unwrap_or("Invalid").to_owned(),
            })
            .collect();
        compiler.set(Scope { authorizer: false, ..scope }, Version::STORED);
        for (validation, given) in validations.iter_mut().zip(each("validations")) {
            if !given.str_at(&["messageExpression"]).is_empty() {
                validation.computed = Some(compile(&compiler, given, "messageExpression", &[Type::String]));
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
        match self.conditions_hold(inputs.clone()) {
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

    /// True when all conditions hold; one that does not settles it, whatever goes wrong with the others.
    fn conditions_hold(&self, inputs: Inputs<'_>) -> Result<bool, String> {
        let inputs = Inputs { namespace: None, ..inputs };
        let evaluator = Evaluator::new(&self.compiler, inputs, Limits::default());
        let (mut budget, mut errors) = (CONDITIONS_BUDGET, Vec::new());
        let mut holds = true;
        for condition in &self.conditions {
            match evaluate(&evaluator, condition, &mut budget) {
                Ok(Ok(value)) => holds &= value.as_bool() != Some(false),
                Ok(Err(why)) if !errors.contains(&why) => errors.push(why),
                Ok(Err(_)) => {}
                Err(_) if self.ignores => return Ok(false),
                Err(why) => return Err(why.to_owned()),
            }
        }
        match errors.as_slice() {
            _ if !holds => Ok(false),
            [] => Ok(true),
            _ if self.ignores => Ok(false),
            [one] => Err(one.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
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

/// The value of an expression or what is wrong with it.
///
/// # Errors
/// When the budget is spent.
fn evaluate<'a>(
    evaluator: &Evaluator<'_, 'a>,
    expression: &Expression,
    budget: &mut u64,
) -> Result<Result<Val<'a>, String>, &'static str> {
    let program = match &expression.program {
        Ok(program) => program,
        Err(why) => return Ok(Err(format!("compilation error: {why}"))),
    };
    let (outcome, cost) = evaluator.evaluate(program);
    *budget = budget.checked_sub(cost).ok_or(OUT_OF_BUDGET)?;
    Ok(outcome.map_err(|e| format!("expression '{}' resulted in error: {e}", expression.source)))
}
