//! What the server measures of itself, by upstream's names and labels, so that its dashboards and alerts fit.
//!
//! Metrics of priority and fairness, of the audit log and of aggregation stand with what they measure.

mod access;
mod admission;
mod objects;
mod pod_security;
mod requests;
mod tokens;

pub use access::Access;
pub use admission::{Admission, Step};
pub use pod_security::PodSecurity;
pub use requests::{Asked, Requests, Streaming};
pub use tokens::Tokens;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daemon::features::FeatureGates;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::storage::Storage;

/// All metrics of the process.
pub struct Metrics {
    /// What a scrape shows.
    pub registry: Registry,
    /// What a scrape of the checks of health shows.
    pub slis: Registry,
    /// Requests.
    pub requests: Requests,
    /// Admission.
    pub admission: Admission,
    /// Authentication and authorization.
    pub access: Access,
    /// What PodSecurity decided.
    pub pod_security: PodSecurity,
    /// Tokens of ServiceAccounts.
    pub tokens: Tokens,
    streams: IntCounterVec,
    /// Handshakes that failed.
    pub handshake_errors: IntCounter,
}

impl Metrics {
    /// Registers all.
    ///
    /// # Errors
    /// A metric cannot be made.
    pub fn new(registry: Registry, storage: &Arc<Storage>, gates: &FeatureGates) -> anyhow::Result<Self> {
        let make = Make(&registry);
        let features = make.gauges(
            "kubernetes_feature_enabled",
            "[BETA] This metric records the data about the stage and enablement of a k8s feature.",
            &["name", "stage"],
        )?;
        for (name, stage, on) in gates.all() {
            features.with_label_values(&[name, stage]).set(on.into());
        }
        let streams = make.counters(
            "apiserver_websocket_streaming_requests_total",
            "[ALPHA] Total number of WebSocket streaming requests (exec/attach/portforward) routed by the API server, labeled by subresource and proxy_type. proxy_type is proxied_to_kubelet when the kubelet handles the request directly; otherwise translated_at_apiserver.",
            &["proxy_type", "subresource"],
        )?;
        let handshake_errors = make.counter(
            "apiserver_tls_handshake_errors_total",
            "[ALPHA] Number of requests dropped with 'TLS handshake error from' error",
        )?;
        serve::metrics::register(&registry, objects::Objects::of(storage)?);
        storage.etcd().register(&registry);
        Ok(Self {
            requests: Requests::new(&make)?,
            admission: Admission::new(&make)?,
            access: Access::new(&make)?,
            pod_security: PodSecurity::new(&make)?,
            tokens: Tokens::new(&make)?,
            streams,
            handshake_errors,
            registry,
            slis: Registry::new(),
        })
    }
}

impl Metrics {
    /// Notes a stream to a pod, and whether its kubelet speaks with WebSockets itself.
    pub fn stream(&self, subresource: &str, by_kubelet: bool) {
        let by = if by_kubelet { "proxied_to_kubelet" } else { "translated_at_apiserver" };
        self.streams.with_label_values(&[by, subresource]).inc();
    }
}

/// Makes families and registers them.
struct Make<'r>(&'r Registry);

impl Make<'_> {
    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        let counter = IntCounter::new(name, help)?;
        serve::metrics::register(self.0, counter.clone());
        Ok(counter)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        let family = IntCounterVec::new(Opts::new(name, help), labels)?;
        serve::metrics::register(self.0, family.clone());
        Ok(family)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
        serve::metrics::register(self.0, family.clone());
        Ok(family)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let family = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
        serve::metrics::register(self.0, family.clone());
        Ok(family)
    }
}

/// Time that a request spends with others, for which this server is not to blame: in queues, and with webhooks. Clones
/// count together.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere(Arc<AtomicU64>);

impl Elsewhere {
    /// Adds some time.
    pub fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// All time so far.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}
