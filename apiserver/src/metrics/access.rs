//! Who asked, and who was allowed to.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec};

use super::Make;
use crate::authz::Decision;

/// Lifetimes of certificates, from none to a year.
const LIFETIMES: [f64; 14] = [
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

/// What a request passes on its way.
const FILTERS: [&str; 4] =
    ["authentication", "authorization", "constrainedimpersonation", "priorityandfairness"];
const FILTERED: [f64; 13] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0];

/// Families of authentication and authorization, by what came of them.
pub struct Access {
    users: [(&'static str, IntCounter); 7],
    succeeded: Outcome,
    failed: Outcome,
    allowed: Outcome,
    denied: Outcome,
    no_opinion: Outcome,
    error: Outcome,
    lifetimes: Histogram,
    filters: [(&'static str, Histogram); 4],
}

struct Outcome {
    count: IntCounter,
    duration: Histogram,
}

impl Outcome {
    fn of(counts: &IntCounterVec, durations: &HistogramVec, result: &str) -> Self {
        Self { count: counts.with_label_values(&[result]), duration: durations.with_label_values(&[result]) }
    }

    fn note(&self, took: Duration) {
        self.count.inc();
        self.duration.observe(took.as_secs_f64());
    }
}

impl Access {
    pub(super) fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        let buckets = prometheus::exponential_buckets(0.001, 2.0, 15)?;
        let lifetimes = HistogramOpts::new(
            "apiserver_client_certificate_expiration_seconds",
            "[ALPHA] Distribution of the remaining lifetime on the certificate used to authenticate a request.",
        );
        let lifetimes = Histogram::with_opts(lifetimes.buckets(LIFETIMES.to_vec()))?;
        serve::metrics::register(make.0, lifetimes.clone());
        let filters = make.histograms(
            "apiserver_request_filter_duration_seconds",
            "[ALPHA] Request filter latency distribution in seconds, for each filter type",
            &["filter"],
            &FILTERED,
        )?;
        let users = make.counters(
            "authenticated_user_requests",
            "[ALPHA] Counter of authenticated requests broken out by username.",
            &["username"],
        )?;
        let authentications = make.counters(
            "authentication_attempts",
            "[ALPHA] Counter of authenticated attempts.",
            &["result"],
        )?;
        let authenticated = make.histograms(
            "authentication_duration_seconds",
            "[ALPHA] Authentication duration in seconds broken out by result.",
            &["result"],
            &buckets,
        )?;
        let authorizations = make.counters(
            "authorization_attempts_total",
            "[ALPHA] Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.",
            &["result"],
        )?;
        let authorized = make.histograms(
            "authorization_duration_seconds",
            "[ALPHA] Authorization duration in seconds broken out by result.",
            &["result"],
            &buckets,
        )?;
        let authentication = |result| Outcome::of(&authentications, &authenticated, result);
        let authorization = |result| Outcome::of(&authorizations, &authorized, result);
        Ok(Self {
            users: USERS.map(|user| (user, users.with_label_values(&[user]))),
            succeeded: authentication("success"),
            failed: authentication("failure"),
            allowed: authorization("allowed"),
            denied: authorization("denied"),
            no_opinion: authorization("no-opinion"),
            error: authorization("error"),
            lifetimes,
            filters: FILTERS.map(|filter| (filter, filters.with_label_values(&[filter]))),
        })
    }

    /// Notes how long a part of the chain took, one of [`FILTERS`].
    pub fn filtered(&self, filter: &str, took: Duration) {
        if let Some((_, durations)) = self.filters.iter().find(|(known, _)| *known == filter) {
            durations.observe(took.as_secs_f64());
        }
    }

    /// Notes who was found to ask, if anybody.
    pub fn authenticated(&self, user: Option<&str>, took: Duration) {
        self.filtered("authentication", took);
        let Some(user) = user else { return self.failed.note(took) };
        let shown = shown(user);
        if let Some((_, count)) = self.users.iter().find(|(known, _)| *known == shown) {
            count.inc();
        }
        self.succeeded.note(took);
    }

    /// Notes what was decided of a request.
    pub fn authorized(&self, decision: &Decision, took: Duration) {
        let outcome = match decision {
            Decision::Allow(_) => &self.allowed,
            Decision::Deny(_) => &self.denied,
            Decision::NoOpinion(_) => &self.no_opinion,
            Decision::Failed { .. } => &self.error,
        };
        outcome.note(took);
        self.filtered("authorization", took);
    }

    /// Notes the second in which the certificate of a client ends to be valid.
    pub fn certificate(&self, end: i64) {
        let left = end.saturating_sub(jiff::Timestamp::now().as_second());
        #[expect(clippy::cast_precision_loss, reason = "seconds of a lifetime are far below where it shows")]
        self.lifetimes.observe(left as f64);
    }
}

/// Metrics show no users, but for some that every cluster used to have.
const USERS: [&str; 7] = [
    "admin",
    "client",
    "kube_proxy",
    "kubelet",
    "system:serviceaccount:kube-system:default",
    "email_id",
    "other",
];

fn shown(user: &str) -> &str {
    match user {
        known if USERS[..5].contains(&known) => known,
        address if address.contains('@') => "email_id",
        _ => "other",
    }
}
