//! The status of workloads: counts that fit each other.

use api::Value;

use crate::kinds::check::At;
use crate::kinds::{Errors, Part};

/// The status as a part of its own, checked by `validate` with the new and the old object.
pub(in crate::kinds) const fn part(validate: fn(&Value, &Value, &mut Errors)) -> Part {
    Part { name: "status", fixed: &[&["spec"]], prepare: |_, _| {}, validate }
}

fn not_negative(status: &At<'_>, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        status.get(field).not_negative(errors);
    }
}

/// A part of the replicas is no more than the whole.
fn not_above(status: &At<'_>, pairs: &[(&str, &str, &str)], errors: &mut Errors) {
    for (part, whole, shown) in pairs {
        if status.get(part).int() > status.get(whole).int() {
            status.get(part).invalid_as(
                errors,
                status.get(part).int(),
                format!("cannot be greater than {shown}"),
            );
        }
    }
}

fn not_decremented(new: &Value, old: &Value, errors: &mut Errors) {
    let count = At::of(new, "status.collisionCount");
    let before = old.at(&["status", "collisionCount"]).as_i64();
    if before.is_some_and(|before| !count.is_set() || count.int() < before) {
        count.invalid_as(errors, count.int(), "cannot be decremented");
    }
}

pub(super) fn deployment(new: &Value, old: &Value, errors: &mut Errors) {
    let status = At::of(new, "status");
    let counts = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    not_negative(&status, &counts, errors);
    let pairs = [
        ("updatedReplicas", "replicas", "status.replicas"),
        ("readyReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "readyReplicas", "readyReplicas"),
    ];
    not_above(&status, &pairs, errors);
    not_decremented(new, old, errors);
}

/// Checks the status of a ReplicaSet or a ReplicationController.
pub(in crate::kinds) fn validate_replicas(new: &Value, errors: &mut Errors) {
    let status = At::of(new, "status");
    let counts = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ];
    not_negative(&status, &counts, errors);
    let pairs = [
        ("fullyLabeledReplicas", "replicas", "status.replicas"),
        ("readyReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "readyReplicas", "readyReplicas"),
    ];
    not_above(&status, &pairs, errors);
}

pub(super) fn stateful_set(new: &Value, old: &Value, errors: &mut Errors) {
    let status = At::of(new, "status");
    let counts = [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    not_negative(&status, &counts, errors);
    let pairs = [
        ("readyReplicas", "replicas", "status.replicas"),
        ("currentReplicas", "replicas", "status.replicas"),
        ("updatedReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "replicas", "status.replicas"),
        ("availableReplicas", "readyReplicas", "status.readyReplicas"),
    ];
    not_above(&status, &pairs, errors);
    not_decremented(new, old, errors);
}

pub(super) fn daemon_set(new: &Value, old: &Value, errors: &mut Errors) {
    let counts = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    not_negative(&At::of(new, "status"), &counts, errors);
    not_decremented(new, old, errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn ready_replicas_are_replicas() {
        let new = object!({"status": {"replicas": 1, "readyReplicas": 2}});
        let old = object!({"status": {"collisionCount": 1}});
        let mut errors = Vec::new();
        deployment(&new, &old, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.collisionCount: Invalid value: 0: cannot be decremented",
            ]
        );
    }
}
