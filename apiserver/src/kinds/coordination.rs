//! Leases.

use api::Value;

use super::check::At;
use super::{Entry, Errors, Strategy};

pub(super) const STRATEGIES: &[Entry] = &[("coordination.k8s.io", "leases", &LEASE)];

static LEASE: Strategy =
    Strategy { validate, create_on_update: true, unconditional_update: false, ..Strategy::NEUTRAL };

fn validate(lease: &Value, errors: &mut Errors) {
    let spec = At::of(lease, "spec");
    let duration = spec.get("leaseDurationSeconds");
    if duration.is_set() && duration.int() <= 0 {
        duration.invalid(errors, "must be greater than 0");
    }
    spec.get("leaseTransitions").not_negative(errors);
    let strategy = spec.get("strategy");
    if strategy.is_set() {
        let inner = strategy.get("strategy");
        let at = inner.with(strategy.value);
        if strategy.text().contains('/') {
            at.qualified(errors);
        } else {
            at.one_of(errors, &["OldestEmulationVersion"]);
        }
    }
    let holder = spec.get("preferredHolder");
    if !holder.text().is_empty() && strategy.text().is_empty() {
        holder.forbidden(errors, "may only be specified if `strategy` is defined");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn leases_last() {
        let check = |spec: Value, want: &[&str]| {
            let mut errors = Vec::new();
            validate(&object!({"spec": spec}), &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
        };
        check(object!({"leaseDurationSeconds": 10}), &[]);
        check(
            object!({"leaseDurationSeconds": 0}),
            &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
        );
        check(
            object!({"strategy": "x"}),
            &[
                "spec.strategy.strategy: Unsupported value: \"x\": supported values: \"OldestEmulationVersion\"",
            ],
        );
    }
}
