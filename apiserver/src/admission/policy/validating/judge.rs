//! What a validating policy says of one request.

use api::Value;
use cel::admission::{Evaluator, Inputs};
use cel::{Limits, Val};

use super::{Validation, Validations};
use crate::admission::expression::{BUDGET, evaluate};
use crate::admission::policy::compiled::Policy;

const MESSAGE_BYTES: usize = 5 * 1024;

/// Why a request is refused.
pub(super) struct Denial {
    pub message: String,
    /// Empty unless the validation says.
    pub reason: String,
    /// Which validation it is.
    pub index: usize,
}

impl Denial {
    /// A refusal for no reason that a validation gives.
    pub(super) fn of(message: String) -> Self {
        Self { message, reason: String::new(), index: 0 }
    }
}

/// Keys and values.
type Annotations = Vec<(String, String)>;

/// What a policy says of a request.
#[derive(Default)]
pub(super) struct Verdict {
    /// What the actions of the binding are for.
    pub denials: Vec<Denial>,
    /// What refuses the request whatever the actions are.
    pub failures: Vec<Denial>,
    /// Annotations of the audit event.
    pub annotations: Annotations,
}

impl Policy<Validations> {
    /// What the policy says of a request; conditions see `request`, the rest `matched`, which names the resource that
    /// the rules matched.
    pub(super) fn judge(&self, inputs: Inputs<'_>, matched: &Value) -> Verdict {
        match self.applies(inputs.clone()) {
            Ok(true) => {}
            Ok(false) => return Verdict::default(),
            Err(why) => return self.undecided(why),
        }
        let inputs = Inputs { request: Some(matched), ..inputs };
        let mut budget = BUDGET;
        let evaluator = Evaluator::new(&self.compiler, inputs.clone(), Limits::default());
        let mut results = Vec::with_capacity(self.rules.validations.len());
        for validation in &self.rules.validations {
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
                    verdict.denials.push(Denial { index: i, ..self.rules.validations[i].denial(computed) });
                    continue;
                }
            };
            let told = self.undecided(undecided).denials;
            verdict.denials.extend(told.into_iter().map(|denial| Denial { index: i, ..denial }));
        }
        match self.annotate(inputs) {
            Ok((annotations, failures)) => (verdict.annotations, verdict.failures) = (annotations, failures),
            Err(why) => return self.undecided(why.to_owned()),
        }
        verdict
    }

    /// What comes of an expression that has no value.
    fn undecided(&self, message: String) -> Verdict {
        let denials = if self.ignores { Vec::new() } else { vec![Denial::of(message)] };
        Verdict { denials, ..Verdict::default() }
    }

    /// The computed messages, empty where there is none to show.
    fn messages(&self, inputs: Inputs<'_>, mut budget: u64) -> Result<Vec<String>, &'static str> {
        let evaluator = Evaluator::new(&self.compiler, inputs, Limits::default());
        let mut messages = Vec::with_capacity(self.rules.validations.len());
        for validation in &self.rules.validations {
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

    /// Annotations of the audit event, and what goes wrong with them.
    fn annotate(&self, inputs: Inputs<'_>) -> Result<(Annotations, Vec<Denial>), &'static str> {
        let evaluator = Evaluator::new(&self.compiler, inputs, Limits::default());
        let (mut budget, mut annotations, mut failures) = (BUDGET, Vec::new(), Vec::new());
        for (key, expression) in &self.rules.annotations {
            match evaluate(&evaluator, expression, &mut budget)? {
                Ok(value) => {
                    let text = value.as_str().unwrap_or_default().trim();
                    if !text.is_empty() {
                        annotations.push((key.clone(), text.to_owned()));
                    }
                }
                Err(message) => failures.push(Denial::of(message)),
            }
        }
        if self.ignores {
            failures.clear();
        }
        Ok((annotations, failures))
    }
}

impl Validation {
    fn denial(&self, computed: String) -> Denial {
        let message = [computed, self.message.clone()].into_iter().find(|m| !m.is_empty());
        let message = message.unwrap_or_else(|| format!("failed expression: {}", self.check.source.trim()));
        Denial { reason: self.reason.clone(), ..Denial::of(message) }
    }
}
