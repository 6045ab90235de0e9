//! Requests to write all objects of a resource again, so that they are stored in its newest form.

use api::{Value, names};

use super::check::{At, view};
use super::{Entry, Errors, Part, StatusMetadata, Strategy};

pub(super) const STRATEGIES: &[Entry] =
    &[("storagemigration.k8s.io", "storageversionmigrations", &MIGRATION)];

static MIGRATION: Strategy = Strategy {
    status_metadata: StatusMetadata::Managers,
    validate,
    validate_update: |new, old, errors| {
        let spec = At::of(new, "spec");
        spec.immutable_struct(
            errors,
            old.get("spec"),
            "storagemigration/v1beta1.StorageVersionMigrationSpec",
        );
    },
    unconditional_update: false,
    parts: &[Part {
        name: "status",
        fixed: &[&["metadata"], &["spec"]],
        prepare: |_, _| {},
        validate: validate_status,
    }],
    ..Strategy::NEUTRAL
};

fn validate(migration: &Value, errors: &mut Errors) {
    let resource = At::of(migration, "spec.resource");
    let (group, plural) = (resource.get("group"), resource.get("resource"));
    if plural.text().is_empty() {
        plural.required(errors, "resource is required to be set");
    } else {
        named(&plural, names::dns1035_label, errors);
    }
    if !group.text().is_empty() {
        named(&group, names::dns_subdomain, errors);
    }
}

/// All that a name breaks is told in one sentence.
fn named(at: &At<'_>, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    let broken = rule(at.text());
    if !broken.is_empty() {
        at.invalid(errors, broken.join(","));
    }
}

fn validate_status(new: &Value, old: &Value, errors: &mut Errors) {
    let status = At::of(new, "status");
    let revision = status.get("resourceVersion");
    let is_number = |text: &str| !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(revision.text()) {
        revision.invalid(errors, format!("resource version is not well formed: {}", revision.text()));
    }
    let conditions = status.get("conditions");
    conditions.conditions(errors);
    let before = old.str_at(&["status", "resourceVersion"]);
    if !before.is_empty() && before != revision.text() {
        revision.invalid_as(errors, revision.text(), "field is immutable");
    }
    let shown: Vec<Value> = conditions.items().map(|c| view(c.value, "meta/v1.Condition")).collect();
    if is_true(new, "Succeeded") && is_true(new, "Failed") {
        let why = "Both success and failed conditions cannot be true at the same time";
        conditions.invalid_as(errors, shown.clone(), why);
    }
    for (kind, name) in [("Succeeded", "Success"), ("Failed", "Failed")] {
        if is_true(old, kind) && !is_true(new, kind) {
            let why = format!("{name} condition cannot be set to false once it is true");
            conditions.invalid_as(errors, shown.clone(), why);
        }
    }
}

fn is_true(migration: &Value, kind: &str) -> bool {
    let conditions = migration.array_at(&["status", "conditions"]);
    let found = conditions.iter().find(|c| c.str_at(&["type"]) == kind);
    found.is_some_and(|c| c.str_at(&["status"]) == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn check(validate: impl FnOnce(&mut Errors), want: &[&str]) {
        let mut errors = Vec::new();
        validate(&mut errors);
        let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(got.len(), want.len(), "{got:?}");
        for (got, want) in got.iter().zip(want) {
            assert!(got.starts_with(want), "{got} is not {want}");
        }
    }

    #[test]
    fn a_resource_is_named() {
        let spec =
            |group: &str, plural: &str| object!({"spec": {"resource": {"group": group, "resource": plural}}});
        check(|e| validate(&spec("", "secrets"), e), &[]);
        check(|e| validate(&spec("apps", ""), e), &["spec.resource.resource: Required value"]);
        check(
            |e| validate(&spec("-", "1a"), e),
            &["spec.resource.resource: Invalid value: \"1a\"", "spec.resource.group: Invalid value: \"-\""],
        );
    }

    #[test]
    fn what_a_migration_came_to_stays_so() {
        let status = |revision: &str, kinds: &[&str]| {
            let conditions: Vec<Value> = kinds
                .iter()
                .map(|k| object!({"type": (*k), "status": "True", "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"}))
                .collect();
            object!({"status": {"resourceVersion": revision, "conditions": conditions}})
        };
        let running = status("7", &["Running"]);
        check(|e| validate_status(&status("7", &["Running", "Succeeded"]), &running, e), &[]);
        check(
            |e| validate_status(&status("08", &[]), &status("", &[]), e),
            &["status.resourceVersion: Invalid"],
        );
        check(
            |e| validate_status(&status("8", &[]), &running, e),
            &["status.resourceVersion: Invalid value: \"8\": field is imm"],
        );
        let done = status("7", &["Succeeded"]);
        check(|e| validate_status(&running, &done, e), &["status.conditions: Invalid value"]);
        let both = status("7", &["Succeeded", "Failed"]);
        check(|e| validate_status(&both, &done, e), &["status.conditions: Invalid value"]);
    }
}
