//! What the server measures of itself, by upstream's names and labels, so that its dashboards and alerts fit.
//!
//! Metrics of priority and fairness, of the audit log and of aggregation stand with what they measure.

mod access;
mod admission;
mod objects;
mod requests;

pub use access::Access;
pub use admission::{Admission, Step};
pub use requests::{Asked, Requests, Streaming};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

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
}

impl Metrics {
    /// Registers all.
    ///
    /// # Errors
    /// A metric cannot be made.
    pub fn new(registry: Registry, storage: &Arc<Storage>) -> anyhow::Result<Self> {
        let make = Make(&registry);
        serve::metrics::register(&registry, objects::Objects::of(storage)?);
        storage.etcd().register(&registry);
        Ok(Self {
            requests: Requests::new(&make)?,
            admission: Admission::new(&make)?,
            access: Access::new(&make)?,
            registry,
            slis: Registry::new(),
        })
    }
}

/// Makes families and registers them.
struct Make<'r>(&'r Registry);

impl Make<'_> {
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
