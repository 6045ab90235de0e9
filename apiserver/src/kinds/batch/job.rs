//! What a Job may be, and what may change about it.

use api::field::{FieldError, Path};
use api::selector::LabelSelector;
use api::{Value, names, object};

use super::{NAME_LABELS, UID_LABELS, policy};
use crate::kinds::Errors;
use crate::kinds::check::At;
use crate::kinds::pod;

const PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
const COMPLETIONS_SOFT_MAX: i64 = 100_000;
const PARALLELISM_OF_MANY: i64 = 10_000;
const FAILED_INDEXES_OF_MANY: i64 = 10_000;

pub(super) fn validate(job: &Value, errors: &mut Errors) {
    validate_generated_selector(job, errors);
    let spec = At::of(job, "spec");
    validate_with_selector(&spec, errors);
    let completions = spec.get("completions").int();
    if spec.get("completionMode").text() == "Indexed" && completions > 0 {
        let last = format!("{}-{}", job.name(), completions - 1);
        if !names::dns_label(&last).is_empty() {
            let why = format!("will not able to create pod with invalid DNS label: {last}");
            let at = At::of(job, "metadata.name");
            errors.push(FieldError::invalid(&at.path, job.name(), why));
        }
    }
}

fn validate_generated_selector(job: &Value, errors: &mut Errors) {
    let selector = At::of(job, "spec.selector");
    if job.at(&["spec", "manualSelector"]).as_bool() == Some(true) || !selector.is_set() {
        return;
    }
    let labels = job.at(&["spec", "template", "metadata", "labels"]);
    let path = Path::new("spec.template.metadata.labels");
    let mut expected = Value::object();
    // The old labels are asked for first.
    for i in [1, 0] {
        for (key, want) in [(UID_LABELS[i], job.uid()), (NAME_LABELS[i], job.name())] {
            expected.set(&[key], want);
            match labels.get(key).as_str() {
                None => errors.push(FieldError::required(&path.key(key), format!("must be '{want}'"))),
                Some(is) if is != want => {
                    errors.push(FieldError::invalid(&path.key(key), labels, format!("must be '{want}'")));
                }
                Some(_) => {}
            }
        }
    }
    if selector.is_readable_selector()
        && let Ok(Some(parsed)) = LabelSelector::from_object(selector.value)
        && !parsed.matches_labels(&expected)
    {
        selector.invalid(errors, "`selector` not auto-generated");
    }
}

fn validate_with_selector(spec: &At<'_>, errors: &mut Errors) {
    validate_spec(spec, errors);
    let selector = spec.get("selector");
    if selector.is_set() {
        selector.label_selector(errors);
    } else {
        selector.required(errors, "");
    }
    let labels = spec.get("template.metadata.labels");
    let parsed = LabelSelector::from_object(selector.value);
    if selector.is_readable_selector()
        && parsed.is_ok_and(|s| !s.is_some_and(|s| s.matches_labels(labels.value)))
    {
        labels.invalid(errors, "`selector` does not match template `labels`");
    }
}

/// Checks a Job's spec but for its selector.
pub(super) fn validate_spec(spec: &At<'_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(field).not_negative(errors);
    }
    let per_index = spec.get("backoffLimitPerIndex");
    if spec.get("maxFailedIndexes").is_set() && !per_index.is_set() {
        per_index.required(errors, "when maxFailedIndexes is specified");
    }
    let manager = spec.get("managedBy");
    if manager.is_set() {
        manager.domain_path(errors);
        manager.not_longer(errors, 63);
    }
    spec.get("completionMode").one_of(errors, &["NonIndexed", "Indexed"]);
    if spec.get("completionMode").text() == "Indexed" {
        validate_indexed(spec, errors);
    } else if matches!(spec.get("completionMode").text(), "" | "NonIndexed") {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if spec.get(field).is_set() {
                spec.get(field).invalid(errors, "requires indexed completion mode");
            }
        }
    }
    if spec.get("podFailurePolicy").is_set() {
        policy::validate_failure(spec, errors);
    }
    let success = spec.get("successPolicy");
    if success.is_set() {
        if spec.get("completionMode").text() == "Indexed" {
            policy::validate_success(spec, errors);
        } else {
            success.invalid_struct(errors, "batch/v1.SuccessPolicy", "requires indexed completion mode");
        }
    }
    let replacement = spec.get("podReplacementPolicy");
    let fails = spec.get("podFailurePolicy").is_set();
    replacement.one_of(errors, if fails { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] });
    let template = spec.get("template");
    pod::validate_template(&template, errors);
    let restart = template.get("spec.restartPolicy");
    match restart.text() {
        "" | "Always" => restart.required(errors, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if fails => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            restart.invalid(errors, why);
        }
        "OnFailure" | "Never" => {}
        _ => restart.unsupported(errors, &["OnFailure", "Never"]),
    }
}

fn validate_indexed(spec: &At<'_>, errors: &mut Errors) {
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    let failed = spec.get("maxFailedIndexes");
    if !completions.is_set() {
        completions.required(errors, "when completion mode is Indexed");
    }
    if parallelism.int() > PARALLELISM_MAX {
        let why = format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed");
        parallelism.invalid(errors, why);
    }
    if completions.is_set() && failed.is_set() && failed.int() > completions.int() {
        failed.invalid(errors, "must be less than or equal to completions");
    }
    if failed.int() > FAILED_INDEXES_MAX {
        failed.invalid(errors, format!("must be less than or equal to {FAILED_INDEXES_MAX}"));
    }
    if completions.int() > COMPLETIONS_SOFT_MAX && spec.get("backoffLimitPerIndex").is_set() {
        let why = |max: i64| {
            format!(
                "must be less than or equal to {max} when completions are above {COMPLETIONS_SOFT_MAX} and used with backoff limit per index"
            )
        };
        if !failed.is_set() {
            let why = format!("must be specified when completions is above {COMPLETIONS_SOFT_MAX}");
            failed.required(errors, why);
        }
        if parallelism.int() > PARALLELISM_OF_MANY {
            parallelism.invalid(errors, why(PARALLELISM_OF_MANY));
        }
        if failed.int() > FAILED_INDEXES_OF_MANY {
            failed.invalid(errors, why(FAILED_INDEXES_OF_MANY));
        }
    }
}

pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let spec = At::of(new, "spec");
    let before = old.get("spec");
    validate_with_selector(&spec, errors);
    validate_completions(&spec, before, errors);
    spec.get("selector").immutable(errors, before.get("selector"));
    validate_template_update(new, old, errors);
    spec.get("completionMode").immutable(errors, before.get("completionMode"));
    let failure = before.get("podFailurePolicy");
    spec.get("podFailurePolicy").immutable_struct(errors, failure, "batch/v1.PodFailurePolicy");
    spec.get("backoffLimitPerIndex").immutable(errors, before.get("backoffLimitPerIndex"));
    spec.get("managedBy").immutable(errors, before.get("managedBy"));
    let success = before.get("successPolicy");
    spec.get("successPolicy").immutable_struct(errors, success, "batch/v1.SuccessPolicy");
}

fn validate_completions(spec: &At<'_>, before: &Value, errors: &mut Errors) {
    let completions = spec.get("completions");
    if spec.get("completionMode").text() != "Indexed" {
        return completions.immutable(errors, before.get("completions"));
    }
    let parallelism = spec.get("parallelism");
    if completions.value != before.get("completions")
        && completions.is_set()
        && completions.value != parallelism.value
    {
        completions.invalid(errors, "can only be modified in tandem with spec.parallelism");
    }
}

const TEMPLATE: &str = "core/v1.PodTemplateSpec";

/// A template may change while no pod was made from it.
fn validate_template_update(new: &Value, old: &Value, errors: &mut Errors) {
    let template = At::of(new, "spec.template");
    let suspended = |job: &Value| job.at(&["spec", "suspend"]).as_bool() == Some(true);
    let idle = |job: &Value| job.at(&["status", "active"]).as_i64().unwrap_or(0) == 0;
    let condition = |job: &Value| {
        let mut conditions = job.array_at(&["status", "conditions"]).iter();
        conditions.any(|c| c.str_at(&["type"]) == "Suspended" && c.str_at(&["status"]) == "True")
    };
    let started = !old.at(&["status", "startTime"]).is_null();
    let schedulable = suspended(old) && (!started || (suspended(new) && idle(old) && condition(old)));
    let mut was = old.at(&["spec", "template"]).clone();
    if schedulable {
        for path in [
            &["spec", "nodeSelector"][..],
            &["spec", "tolerations"],
            &["spec", "schedulingGates"],
            &["metadata", "annotations"],
            &["metadata", "labels"],
        ] {
            copy(&mut was, template.value, path);
        }
        copy_node_affinity(&mut was, template.value);
    }
    let resizable = suspended(old) && (!started || (idle(old) && condition(old)));
    if !resizable {
        return template.immutable_struct(errors, &was, TEMPLATE);
    }
    for list in ["containers", "initContainers"] {
        let is = template.value.array_at(&["spec", list]);
        let before = was.at_mut(&["spec", list]).and_then(Value::as_array_mut);
        let Some(before) = before.filter(|b| b.len() == is.len()) else { continue };
        for (before, is) in before.iter_mut().zip(is).filter(|(b, i)| b.get("name") == i.get("name")) {
            copy(before, is, &["resources"]);
        }
    }
    template.get("spec").immutable_struct(errors, was.get("spec"), "core/v1.PodSpec");
}

fn copy(to: &mut Value, from: &Value, path: &[&str]) {
    match from.at(path) {
        Value::Null => {
            to.remove_at(path);
        }
        value => to.set(path, value),
    }
}

fn copy_node_affinity(was: &mut Value, is: &Value) {
    const AFFINITY: [&str; 2] = ["spec", "affinity"];
    let node = is.at(&["spec", "affinity", "nodeAffinity"]);
    if node.is_null() {
        was.remove_at(&["spec", "affinity", "nodeAffinity"]);
    } else {
        was.set(&["spec", "affinity", "nodeAffinity"], node);
    }
    if is.at(&AFFINITY).is_null() && was.at(&AFFINITY).is_empty() {
        was.remove_at(&AFFINITY);
    } else if was.at(&AFFINITY).is_null() && !is.at(&AFFINITY).is_null() {
        was.set(&AFFINITY, object!({}));
    }
}

/// Advice about a Job.
pub(super) fn warnings(job: &Value) -> Vec<String> {
    let mut out: Vec<String> = pod::warning_of_name_for_pods(job).into_iter().collect();
    out.extend(spec_warnings(&Path::new("spec"), job.get("spec")));
    out
}

/// Advice about the spec of a Job.
pub(super) fn spec_warnings(path: &Path<'_>, spec: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let number = |field: &str| spec.get(field).as_i64().unwrap_or(0);
    if spec.str_at(&["completionMode"]) == "Indexed"
        && number("completions") > COMPLETIONS_SOFT_MAX
        && number("parallelism") > PARALLELISM_OF_MANY
    {
        out.push("In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail".to_owned());
    }
    out.extend(pod::warnings_of_template(&path.child("template"), spec.get("template")));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(suspend: bool, image: &str, cpu: &str) -> Value {
        object!({"spec": {"suspend": suspend, "template": {"spec": {"containers": [{"name": "c", "image": image, "resources": {"limits": {"cpu": cpu}}}]}}}})
    }

    #[test]
    fn templates_of_suspended_jobs_may_get_other_resources() {
        let count = |new: &Value, old: &Value| {
            let mut errors = Vec::new();
            validate_template_update(new, old, &mut errors);
            errors.len()
        };
        assert_eq!(count(&job(true, "a", "2"), &job(true, "a", "1")), 0);
        assert_eq!(count(&job(true, "b", "1"), &job(true, "a", "1")), 1);
        assert_eq!(count(&job(false, "a", "2"), &job(false, "a", "1")), 1);
    }
}
