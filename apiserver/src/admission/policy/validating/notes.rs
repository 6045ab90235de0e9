//! What policies note in audit events.

use std::collections::BTreeMap;

use api::object;

use super::judge::Denial;
use crate::admission::policy::select::Binding;
use crate::registry::Call;

/// Longest value of one binding, in bytes.
const LONGEST: usize = 10 * 1024;
const FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// The annotations of all policies; those that several bindings make have several values.
#[derive(Default)]
pub(super) struct Notes(BTreeMap<String, Vec<String>>);

impl Notes {
    /// Adds a value, once.
    pub(super) fn add(&mut self, key: String, mut value: String) {
        if value.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|i| value.is_char_boundary(*i)).unwrap_or(0);
            value.truncate(end);
        }
        let values = self.0.entry(key).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }

    /// Writes them into the audit event of a call.
    pub(super) fn write(self, call: &Call) {
        for (key, values) in self.0 {
            call.trail.annotate(key, values.join(", "));
        }
    }
}

/// Notes a denial where the binding asks for that.
pub(super) fn failed(call: &Call, policy: &str, binding: &Binding, denial: &Denial) {
    let failure = object!({
        "message": (denial.message.as_str()), "policy": policy, "binding": (binding.name.as_str()),
        "expressionIndex": (denial.index as i64), "validationActions": (binding.actions.clone()),
    });
    call.trail.annotate(FAILURE, format!("[{failure}]"));
}
