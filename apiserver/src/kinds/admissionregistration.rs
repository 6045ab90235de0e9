//! Webhook configurations and admission policies.

mod expressions;
mod policy;
mod rules;
mod webhook;

use api::Value;

use super::{Entry, default_to};

const GROUP: &str = "admissionregistration.k8s.io";

pub(super) const STRATEGIES: &[Entry] = &[
    (GROUP, "mutatingwebhookconfigurations", &webhook::MUTATING),
    (GROUP, "validatingwebhookconfigurations", &webhook::VALIDATING),
    (GROUP, "validatingadmissionpolicies", &policy::VALIDATING),
    (GROUP, "validatingadmissionpolicybindings", &policy::VALIDATING_BINDING),
    (GROUP, "mutatingadmissionpolicies", &policy::MUTATING),
    (GROUP, "mutatingadmissionpolicybindings", &policy::MUTATING_BINDING),
];

/// What happens when what is asked cannot be asked.
const FAILURES: [&str; 2] = ["Fail", "Ignore"];
const REINVOCATIONS: [&str; 2] = ["IfNeeded", "Never"];

fn default_rules(object: &mut Value, list: &str) {
    for rule in object.make_object().get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
        default_to(rule, "scope", "*");
    }
}
