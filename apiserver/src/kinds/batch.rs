//! Jobs and CronJobs, and the autoscaling and policy kinds that act on workloads.

use api::field::{FieldError, Path};
use api::{Value, object};

use super::pod_defaults::default_pod_template;
use super::pod_validation::validate_template;
use super::{Entry, Errors, Field, Strategy, default_if_empty, default_to, immutable, not_negative, one_of};

pub(super) const STRATEGIES: &[Entry] = &[
    ("batch", "jobs", &JOB),
    ("batch", "cronjobs", &CRON_JOB),
    ("autoscaling", "horizontalpodautoscalers", &AUTOSCALER),
    ("policy", "poddisruptionbudgets", &BUDGET),
];

static JOB: Strategy = Strategy {
    fields: &[Field::number("status.successful", &["status", "succeeded"])],
    default: default_job,
    prepare_create: prepare_job,
    validate: |job, errors| validate_job_spec(&Path::new("spec"), job.get("spec"), errors),
    validate_update: |new, old, errors| {
        let path = Path::new("spec");
        for field in ["completions", "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"]
        {
            let indexed = field == "completions" && new.str_at(&["spec", "completionMode"]) == "Indexed";
            if !indexed {
                immutable(&path.child(field), new.at(&["spec", field]), old.at(&["spec", field]), errors);
            }
        }
        let suspended = old.at(&["spec", "suspend"]).as_bool() == Some(true)
            && old.at(&["status", "startTime"]).is_null();
        if !suspended {
            immutable(
                &path.child("template"),
                new.at(&["spec", "template"]),
                old.at(&["spec", "template"]),
                errors,
            );
        }
    },
    generation: true,
    orphans_by_default: true,
    ..Strategy::NEUTRAL
};

fn default_job(job: &mut Value) {
    let labels = job.at(&["spec", "template", "metadata", "labels"]).clone();
    if job.at(&["metadata", "labels"]).is_empty() && !labels.is_empty() {
        job.set(&["metadata", "labels"], labels);
    }
    default_to(job.make_object().entry("spec"), "manualSelector", false);
    let spec = job.make_object().entry("spec");
    default_job_spec(spec);
}

fn default_job_spec(spec: &mut Value) {
    if spec.get("completions").is_null() && spec.get("parallelism").is_null() {
        default_to(spec, "completions", 1);
    }
    default_to(spec, "parallelism", 1);
    let unlimited = !spec.get("backoffLimitPerIndex").is_null();
    default_to(spec, "backoffLimit", if unlimited { i32::MAX } else { 6 });
    default_if_empty(spec, "completionMode", "NonIndexed");
    default_to(spec, "suspend", false);
    let replacement = if spec.get("podFailurePolicy").is_null() { "TerminatingOrFailed" } else { "Failed" };
    default_to(spec, "podReplacementPolicy", replacement);
    default_pod_template(spec);
}

/// A Job selects its pods by its own UID, unless the user chose the selector.
fn prepare_job(job: &mut Value) {
    job.set(&["status"], Value::object());
    if job.at(&["spec", "manualSelector"]).as_bool() == Some(true) {
        return;
    }
    let (uid, name) = (job.uid().to_owned(), job.name().to_owned());
    let shared = job.at(&["metadata", "labels"]) == job.at(&["spec", "template", "metadata", "labels"]);
    let labels = [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ];
    for (key, value) in labels {
        // A Job without labels of its own has those of its pods.
        if shared {
            job.set(&["metadata", "labels", key], value);
        }
        job.set(&["spec", "template", "metadata", "labels", key], value);
    }
    job.set(&["spec", "selector"], object!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
}

fn validate_job_spec(path: &Path<'_>, spec: &Value, errors: &mut Errors) {
    for field in
        ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"]
    {
        not_negative(&path.child(field), spec.get(field), errors);
    }
    one_of(&path.child("completionMode"), spec.get("completionMode"), &["Indexed", "NonIndexed"], errors);
    if spec.str_at(&["completionMode"]) == "Indexed" && spec.get("completions").is_null() {
        errors.push(FieldError::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    let template = path.child("template");
    validate_template(&template, spec.get("template"), errors);
    let pod = template.child("spec");
    if spec.str_at(&["template", "spec", "restartPolicy"]) == "Always" {
        errors.push(FieldError::required(
            &pod.child("restartPolicy"),
            "valid values: \"OnFailure\", \"Never\"",
        ));
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
            default_pod_template(job);
        }
    },
    validate: validate_cron_job,
    generation: true,
    ..Strategy::NEUTRAL
};

fn validate_cron_job(c: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = c.get("spec");
    if spec.str_at(&["schedule"]).is_empty() {
        errors.push(FieldError::required(&path.child("schedule"), ""));
    }
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(&path.child(field), spec.get(field), errors);
    }
    one_of(
        &path.child("concurrencyPolicy"),
        spec.get("concurrencyPolicy"),
        &["Allow", "Forbid", "Replace"],
        errors,
    );
    let template = path.child("jobTemplate");
    validate_job_spec(&template.child("spec"), spec.at(&["jobTemplate", "spec"]), errors);
    if c.name().len() > 52 {
        errors.push(FieldError::invalid(
            &Path::new("metadata").child("name"),
            c.name(),
            "must be no more than 52 characters",
        ));
    }
}

static AUTOSCALER: Strategy = Strategy {
    default: |h| {
        let spec = h.make_object().entry("spec");
        default_to(spec, "minReplicas", 1);
    },
    validate: |h, errors| {
        let path = Path::new("spec");
        let spec = h.get("spec");
        let target = path.child("scaleTargetRef");
        for field in ["kind", "name"] {
            if spec.str_at(&["scaleTargetRef", field]).is_empty() {
                errors.push(FieldError::required(&target.child(field), ""));
            }
        }
        let (min, max) =
            (spec.get("minReplicas").as_i64().unwrap_or(1), spec.get("maxReplicas").as_i64().unwrap_or(0));
        if min < 1 {
            errors.push(FieldError::invalid(
                &path.child("minReplicas"),
                min,
                "must be greater than or equal to 1",
            ));
        }
        if max < 1 {
            errors.push(FieldError::invalid(&path.child("maxReplicas"), max, "must be greater than 0"));
        }
        if max < min {
            errors.push(FieldError::invalid(
                &path.child("maxReplicas"),
                max,
                "must be greater than or equal to `minReplicas`",
            ));
        }
    },
    ..Strategy::NEUTRAL
};

static BUDGET: Strategy = Strategy {
    default: |b| {
        let status = b.make_object().entry("status");
        for field in ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"] {
            default_to(status, field, 0);
        }
    },
    validate: |b, errors| {
        let spec = b.get("spec");
        if !spec.get("minAvailable").is_null() && !spec.get("maxUnavailable").is_null() {
            let why = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::invalid(&Path::new("spec"), spec.clone(), why));
        }
    },
    generation: true,
    ..Strategy::NEUTRAL
};
