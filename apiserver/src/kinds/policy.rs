//! Disruption budgets.

use api::Value;

use super::check::At;
use super::{Entry, Errors, Part, Strategy, default_to};

pub(super) const STRATEGIES: &[Entry] = &[("policy", "poddisruptionbudgets", &BUDGET)];

const COUNTS: [&str; 4] = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];

static BUDGET: Strategy = Strategy {
    name: api::names::path_segment,
    default: |b| {
        let status = b.make_object().entry("status");
        for field in COUNTS {
            default_to(status, field, 0);
        }
    },
    validate,
    generation: true,
    unconditional_update: false,
    parts: &[Part {
        name: "status",
        fixed: &[&["spec"]],
        prepare: |_, _| {},
        validate: |new, _, errors| {
            let status = At::of(new, "status");
            status.get("conditions").conditions(errors);
            for count in COUNTS {
                status.get(count).not_negative(errors);
            }
        },
    }],
    ..Strategy::NEUTRAL
};

fn validate(budget: &Value, errors: &mut Errors) {
    let spec = At::of(budget, "spec");
    let bounds = ["minAvailable", "maxUnavailable"];
    if bounds.iter().all(|b| spec.get(b).is_set()) {
        let why = "minAvailable and maxUnavailable cannot be both set";
        spec.invalid_struct(errors, "policy/v1.PodDisruptionBudgetSpec", why);
    }
    for bound in bounds {
        let bound = spec.get(bound);
        if bound.is_set() {
            bound.count_or_percent(errors);
            bound.not_above_all(errors);
        }
    }
    spec.get("selector").label_selector(errors);
    spec.get("unhealthyPodEvictionPolicy").one_of(errors, &["AlwaysAllow", "IfHealthyBudget"]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn a_budget_has_one_bound() {
        let count = |spec: Value| {
            let mut errors = Vec::new();
            validate(&object!({"spec": spec}), &mut errors);
            errors.len()
        };
        assert_eq!(count(object!({"minAvailable": 1})), 0);
        assert_eq!(count(object!({"minAvailable": 1, "maxUnavailable": "10%"})), 1);
        assert_eq!(count(object!({"maxUnavailable": "110%"})), 1);
    }
}
