//! Jobs and CronJobs.

mod cron;
mod job;
mod policy;
mod status;

use api::field::Path;
use api::{Value, object};

use super::pod::default_pod_template;
use super::{Entry, Field, Part, Strategy, default_if_empty, default_to, is_desired_anew};

pub(super) const STRATEGIES: &[Entry] = &[("batch", "jobs", &JOB), ("batch", "cronjobs", &CRON_JOB)];

static JOB: Strategy = Strategy {
    fields: &[Field::number("status.successful", &["status", "succeeded"])],
    default: default_job,
    prepare_create: prepare_job,
    validate: job::validate,
    validate_update: job::validate_update,
    warn: job::warnings,
    warn_change: Some(|new, old| {
        if is_desired_anew(new, old) {
            job::spec_warnings(&Path::new("spec"), new.get("spec"))
        } else {
            Vec::new()
        }
    }),
    generation: true,
    orphans_by_default: true,
    parts: &[Part { name: "status", fixed: &[&["spec"]], prepare: |_, _| {}, validate: status::validate }],
    ..Strategy::NEUTRAL
};

fn default_job(job: &mut Value) {
    let labels = job.at(&["spec", "template", "metadata", "labels"]).clone();
    if job.at(&["metadata", "labels"]).is_empty() && !labels.is_empty() {
        job.set(&["metadata", "labels"], labels);
    }
    let spec = job.make_object().entry("spec");
    default_to(spec, "manualSelector", false);
    default_job_spec(spec);
}

fn default_job_spec(spec: &mut Value) {
    if spec.get("completions").is_null() && spec.get("parallelism").is_null() {
        default_to(spec, "completions", 1);
    }
    default_to(spec, "parallelism", 1);
    let unlimited = !spec.get("backoffLimitPerIndex").is_null();
    default_to(spec, "backoffLimit", if unlimited { i32::MAX } else { 6 });
    default_to(spec, "completionMode", "NonIndexed");
    default_to(spec, "suspend", false);
    let replacement = if spec.get("podFailurePolicy").is_null() { "TerminatingOrFailed" } else { "Failed" };
    default_to(spec, "podReplacementPolicy", replacement);
    default_failure_policy(spec);
    default_pod_template(spec);
}

fn default_failure_policy(spec: &mut Value) {
    let rules = spec.at_mut(&["podFailurePolicy", "rules"]).and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        let patterns = rule.make_object().get_mut("onPodConditions").and_then(Value::as_array_mut);
        for pattern in patterns.into_iter().flatten() {
            default_if_empty(pattern, "status", "True");
        }
    }
}

const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// A Job selects its pods by its own UID, unless the user chose the selector.
fn prepare_job(job: &mut Value) {
    job.set(&["status"], Value::object());
    if job.at(&["spec", "manualSelector"]).as_bool() == Some(true) {
        return;
    }
    let (uid, name) = (job.uid().to_owned(), job.name().to_owned());
    let shared = job.at(&["metadata", "labels"]) == job.at(&["spec", "template", "metadata", "labels"]);
    let labels = UID_LABELS.iter().map(|l| (l, &uid)).chain(NAME_LABELS.iter().map(|l| (l, &name)));
    for (key, value) in labels {
        // A Job without labels of its own has those of its pods.
        if !job.at(&["spec", "template", "metadata", "labels", key]).is_null() {
            continue;
        }
        if shared {
            job.set(&["metadata", "labels", key], value);
        }
        job.set(&["spec", "template", "metadata", "labels", key], value);
    }
    if job.at(&["spec", "selector"]).is_null() {
        job.set(&["spec", "selector"], object!({}));
    }
    let labels = job.at_mut(&["spec", "selector"]).map(|s| s.make_object().entry("matchLabels"));
    if let Some(labels) = labels {
        default_to(labels, UID_LABELS[0], uid);
    }
}

static CRON_JOB: Strategy = Strategy {
    default: |c| {
        let spec = c.make_object().entry("spec");
        default_if_empty(spec, "concurrencyPolicy", "Allow");
        default_to(spec, "suspend", false);
        default_to(spec, "successfulJobsHistoryLimit", 3);
        default_to(spec, "failedJobsHistoryLimit", 1);
        // The template's Job gets its own defaults only when it is made.
        if let Some(job) = spec.at_mut(&["jobTemplate", "spec"]) {
            default_failure_policy(job);
            default_pod_template(job);
        }
    },
    validate: |c, errors| cron::validate(c, None, errors),
    validate_update: |new, old, errors| cron::validate(new, Some(old), errors),
    revalidates: false,
    warn: cron::warnings,
    warn_change: Some(
        |new, old| if is_desired_anew(new, old) { cron::job_warnings(new) } else { Vec::new() },
    ),
    generation: true,
    ..Strategy::NEUTRAL
};
