//! What is next for a migration.

use std::sync::Arc;

use api::{Value, object};
use jiff::Timestamp;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, or not yet.
    Wait,
    /// It is its turn.
    Begin,
    /// Note the revision at which it begins.
    Checkpoint,
    /// Write objects again.
    Migrate,
    /// It has ended and does not say yet that it no longer runs.
    CleanUp,
}

/// The next step of a migration, seen with all others. Of each resource one runs at a time, the oldest first.
pub(super) fn plan(migration: &Value, all: &[Arc<Value>]) -> Step {
    match (has(migration, "Running"), is_over(migration)) {
        (true, true) => Step::CleanUp,
        (false, true) => Step::Wait,
        (true, false) if migration.str_at(&["status", "resourceVersion"]).is_empty() => Step::Checkpoint,
        (true, false) => Step::Migrate,
        (false, false) => {
            let resource = migration.at(&["spec", "resource"]);
            let mut open = all.iter().filter(|m| m.at(&["spec", "resource"]) == resource && !is_over(m));
            let waits = open.any(|m| has(m, "Running") || age(m) < age(migration));
            if waits { Step::Wait } else { Step::Begin }
        }
    }
}

fn age(migration: &Value) -> (&str, &str) {
    (migration.str_at(&["metadata", "creationTimestamp"]), migration.name())
}

/// True when the condition holds.
pub(super) fn has(migration: &Value, kind: &str) -> bool {
    let conditions = migration.array_at(&["status", "conditions"]);
    conditions.iter().any(|c| c.str_at(&["type"]) == kind && c.str_at(&["status"]) == "True")
}

fn is_over(migration: &Value) -> bool {
    has(migration, "Succeeded") || has(migration, "Failed")
}

/// True when an object was last written at `checkpoint` or before.
pub(super) fn is_older(object: &Value, checkpoint: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    number(object.resource_version()) <= number(checkpoint)
}

/// The migration with one more condition that holds.
pub(super) fn with_condition(
    migration: &Value,
    kind: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Value {
    let mut updated = migration.clone();
    let mut conditions = migration.array_at(&["status", "conditions"]).to_vec();
    if !conditions.iter().any(|c| c.str_at(&["type"]) == kind) {
        conditions.push(object!({
            "type": kind, "status": "True", "lastTransitionTime": (api::time::format(now)), "reason": reason,
            "message": message,
        }));
    }
    updated.set(&["status", "conditions"], conditions);
    updated
}

/// The migration, which no longer runs.
pub(super) fn completed(migration: &Value, now: Timestamp) -> Value {
    let mut updated = migration.clone();
    let mut conditions = migration.array_at(&["status", "conditions"]).to_vec();
    for condition in conditions.iter_mut().filter(|c| c.str_at(&["type"]) == "Running") {
        condition.set(&["status"], "False");
        condition.set(&["lastTransitionTime"], api::time::format(now));
        condition.set(&["reason"], "MigrationCompleted");
        condition.set(&["message"], "Migration completed");
    }
    updated.set(&["status", "conditions"], conditions);
    updated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(name: &str, plural: &str, revision: &str, conditions: &[&str]) -> Arc<Value> {
        let mut made = object!({
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"resource": {"group": "", "resource": plural}},
            "status": {"resourceVersion": revision},
        });
        for kind in conditions {
            made = with_condition(&made, kind, "Reason", "", Timestamp::UNIX_EPOCH);
        }
        Arc::new(made)
    }

    fn check(all: &[Arc<Value>], want: &[Step]) {
        let got: Vec<Step> = all.iter().map(|m| plan(m, all)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn migrations_of_a_resource_run_one_after_another() {
        let (a, b, c) = ("a", "b", "c");
        let new = |name, plural| migration(name, plural, "", &[]);
        check(&[new(b, "pods"), new(a, "pods"), new(c, "nodes")], &[Step::Wait, Step::Begin, Step::Begin]);
        let running = |revision| migration(b, "pods", revision, &["Running"]);
        check(&[running(""), new(a, "pods")], &[Step::Checkpoint, Step::Wait]);
        check(&[running("7"), new(a, "pods")], &[Step::Migrate, Step::Wait]);
        let over = |end| migration(b, "pods", "7", &["Running", end]);
        check(&[over("Succeeded"), new(a, "pods")], &[Step::CleanUp, Step::Begin]);
        let cleaned = Arc::new(completed(&over("Failed"), Timestamp::UNIX_EPOCH));
        check(&[cleaned, new(c, "pods")], &[Step::Wait, Step::Begin]);
    }

    #[test]
    fn what_was_written_since_is_left_alone() {
        let object = |revision: &str| object!({"metadata": {"resourceVersion": revision}});
        assert!(is_older(&object("9"), "10") && is_older(&object("10"), "10"));
        assert!(!is_older(&object("11"), "10"));
    }
}
