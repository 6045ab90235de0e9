//! Expressions of policies and webhooks, and what they may cost.

use api::Value;
use cel::admission::{Compiler, Evaluator, Inputs};
use cel::{Limits, Program, Type, Val};

/// What the expressions of a policy may cost for one binding, beside its conditions.
pub(super) const BUDGET: u64 = 10_000_000;
/// What the conditions of a match may cost together.
const CONDITIONS_BUDGET: u64 = 2_500_000;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// An expression, or why it does not compile.
pub(super) struct Expression {
    pub(super) source: String,
    program: Result<Program, String>,
}

impl Expression {
    /// Compiles the member `field` of an object.
    pub(super) fn new(compiler: &Compiler, of: &Value, field: &str, returns: &[Type]) -> Self {
        let source = of.str_at(&[field]).to_owned();
        let program = compiler.compile(&source, returns);
        Self { source, program }
    }

    /// What is wrong with it, if it does not compile.
    pub(super) fn mistake(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }
}

/// The value of an expression or what is wrong with it.
///
/// # Errors
/// When the budget is spent.
pub(super) fn evaluate<'a>(
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

/// True when all conditions hold; one that does not settles it, whatever goes wrong with the others.
///
/// # Errors
/// What goes wrong, unless that is ignored: then they do not hold.
pub(super) fn hold(
    compiler: &Compiler,
    conditions: &[Expression],
    ignores: bool,
    inputs: Inputs<'_>,
) -> Result<bool, String> {
    let evaluator = Evaluator::new(compiler, Inputs { namespace: None, ..inputs }, Limits::default());
    let (mut budget, mut errors) = (CONDITIONS_BUDGET, Vec::new());
    let mut holds = true;
    for condition in conditions {
        match evaluate(&evaluator, condition, &mut budget) {
            Ok(Ok(value)) => holds &= value.as_bool() != Some(false),
            Ok(Err(why)) if !errors.contains(&why) => errors.push(why),
            Ok(Err(_)) => {}
            Err(_) if ignores => return Ok(false),
            Err(why) => return Err(why.to_owned()),
        }
    }
    match errors.as_slice() {
        _ if !holds => Ok(false),
        [] => Ok(true),
        _ if ignores => Ok(false),
        [one] => Err(one.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}
