//! Admission: how long it took and whom it refused, as a whole and webhook by webhook.

use std::sync::OnceLock;
use std::time::Instant;

use http::StatusCode;
use prometheus::{Histogram, HistogramVec, IntCounterVec};

use super::Make;
use crate::admission::{Operation, Plugin};

const DURATIONS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOK_DURATIONS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];

/// Series of one plug-in: by step, operation and outcome.
const SERIES: usize = 2 * Operation::COUNT * 2;

/// Which part of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What changes objects.
    Admit,
    /// What may only refuse them.
    Validate,
}

impl Step {
    fn word(self) -> &'static str {
        match self {
            Step::Admit => "admit",
            Step::Validate => "validate",
        }
    }

    /// What it is called where webhooks are told of.
    fn of_webhooks(self) -> &'static str {
        match self {
            Step::Admit => "admit",
            Step::Validate => "validating",
        }
    }
}

/// Families of admission.
pub struct Admission {
    steps: HistogramVec,
    plugins: HistogramVec,
    /// What plug-ins are noted in, found once: dozens of them run for each write.
    of_plugins: Box<[OnceLock<Histogram>]>,
    webhooks: HistogramVec,
    webhook_requests: IntCounterVec,
    rejections: IntCounterVec,
    fail_open: IntCounterVec,
}

impl Admission {
    pub(super) fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        const STEP: [&str; 3] = ["type", "operation", "rejected"];
        const NAMED: [&str; 4] = ["name", "type", "operation", "rejected"];
        Ok(Self {
            steps: make.histograms(
                "apiserver_admission_step_admission_duration_seconds",
                "[STABLE] Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
                &STEP,
                &DURATIONS,
            )?,
            plugins: make.histograms(
                "apiserver_admission_controller_admission_duration_seconds",
                "[STABLE] Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
                &NAMED,
                &DURATIONS,
            )?,
            of_plugins: (0..Plugin::COUNT * SERIES).map(|_| OnceLock::new()).collect(),
            webhooks: make.histograms(
                "apiserver_admission_webhook_admission_duration_seconds",
                "[STABLE] Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
                &NAMED,
                &WEBHOOK_DURATIONS,
            )?,
            webhook_requests: make.counters(
                "apiserver_admission_webhook_request_total",
                "[ALPHA] Admission webhook request total, identified by name and broken out for each admission type (validating or mutating) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
                &["name", "type", "operation", "code", "rejected"],
            )?,
            rejections: make.counters(
                "apiserver_admission_webhook_rejection_count",
                "[ALPHA] Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify an error type (calling_webhook_error or apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero rejection code if the webhook rejects the request with an HTTP status code (honored by the apiserver when the code is greater or equal to 400). Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
                &["name", "type", "operation", "error_type", "rejection_code"],
            )?,
            fail_open: make.counters(
                "apiserver_admission_webhook_fail_open_count",
                "[ALPHA] Admission webhook fail open count, identified by name and broken out for each admission type (validating or mutating).",
                &["name", "type"],
            )?,
        })
    }

    /// Notes a step of the admission of a request, which began then.
    pub fn step(&self, step: Step, operation: Operation, began: Instant, rejected: bool) {
        let labels = [step.word(), operation.name(), flag(rejected)];
        self.steps.with_label_values(&labels).observe(began.elapsed().as_secs_f64());
    }

    /// Notes what a plug-in did, which began then.
    pub fn plugin(
        &self,
        plugin: Plugin,
        (step, operation): (Step, Operation),
        began: Instant,
        rejected: bool,
    ) {
        let at = (step as usize * Operation::COUNT + operation as usize) * 2 + usize::from(rejected);
        let series = self.of_plugins[plugin as usize * SERIES + at].get_or_init(|| {
            let labels = [plugin.name(), step.word(), operation.name(), flag(rejected)];
            self.plugins.with_label_values(&labels)
        });
        series.observe(began.elapsed().as_secs_f64());
    }

    /// Notes that a webhook answered, or could not be asked (`called` is false), and what became of the request.
    pub fn webhook(
        &self,
        (name, step, operation): (&str, Step, Operation),
        began: Instant,
        refusal: Option<(StatusCode, bool)>,
    ) {
        let (kind, operation) = (step.of_webhooks(), operation.name());
        let rejected = flag(refusal.is_some());
        let code = refusal.map_or(StatusCode::OK, |(code, _)| code);
        let seconds = began.elapsed().as_secs_f64();
        self.webhooks.with_label_values(&[name, kind, operation, rejected]).observe(seconds);
        self.webhook_requests.with_label_values(&[name, kind, operation, code.as_str(), rejected]).inc();
        if let Some((code, called)) = refusal {
            let (error, code) = match called {
                true => ("no_error", code.as_str()),
                false => ("calling_webhook_error", code.as_str()),
            };
            self.rejections.with_label_values(&[name, kind, operation, error, code]).inc();
        }
    }

    /// Notes that a request went on although a webhook could not be asked.
    pub fn failed_open(&self, name: &str, step: Step) {
        self.fail_open.with_label_values(&[name, step.of_webhooks()]).inc();
    }
}

fn flag(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}
