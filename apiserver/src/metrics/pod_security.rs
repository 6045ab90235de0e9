//! What PodSecurity decided.

use prometheus::IntCounterVec;

use super::Make;

/// Families of the plug-in.
pub struct PodSecurity {
    evaluations: IntCounterVec,
    exemptions: IntCounterVec,
    errors: IntCounterVec,
}

/// What was asked: the operation, whether about a `pod`, a `namespace` or a `controller` of pods, and the subresource.
type Subject<'a> = [&'a str; 3];

impl PodSecurity {
    pub(super) fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        const SUBJECT: [&str; 3] = ["request_operation", "resource", "subresource"];
        let labels = |own: &[&'static str]| [own, &SUBJECT].concat();
        Ok(Self {
            evaluations: make.counters(
                "pod_security_evaluations_total",
                "[ALPHA] Number of policy evaluations that occurred, not counting ignored or exempt requests.",
                &labels(&["decision", "policy_level", "policy_version", "mode"]),
            )?,
            exemptions: make.counters(
                "pod_security_exemptions_total",
                "[ALPHA] Number of exempt requests, not counting ignored or out of scope requests.",
                &SUBJECT,
            )?,
            errors: make.counters(
                "pod_security_errors_total",
                "[ALPHA] Number of errors preventing normal evaluation. Non-fatal errors may result in the latest restricted profile being used for evaluation.",
                &labels(&["fatal"]),
            )?,
        })
    }

    /// Notes whether a standard, its level and its version, allows what was asked, in one of the modes.
    pub fn evaluated(&self, allowed: bool, (level, version): (&str, &str), mode: &str, asked: Subject<'_>) {
        let decision = if allowed { "allow" } else { "deny" };
        let own = [decision, level, version, mode];
        self.evaluations.with_label_values(&[&own[..], &asked].concat()).inc();
    }

    /// Notes that nothing is asked of this request.
    pub fn exempted(&self, asked: Subject<'_>) {
        self.exemptions.with_label_values(&asked).inc();
    }

    /// Notes that it could not be found out what holds, which refuses the request if that is `fatal`.
    pub fn failed(&self, fatal: bool, asked: Subject<'_>) {
        let own = [if fatal { "true" } else { "false" }];
        self.errors.with_label_values(&[&own[..], &asked].concat()).inc();
    }
}
