//! The audit log: who asked what of the server, and what came of it.
//!
//! A [`Policy`] decides how much of a request is recorded; a [`Trail`] gathers it while the request passes; at each
//! stage the [`Auditor`] hands an event to its backends. Without a policy or a backend there is no auditor, and trails
//! are empty. Source: <https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/>.

mod backend;
mod batch;
mod event;
mod log;
pub(crate) mod policy;
mod rotate;
mod trail;
mod webhook;

pub use backend::{Backend, Mode, Output, Truncation};
pub use batch::Batching;
pub use event::Format;
pub use log::LogWriter;
pub use policy::{Level, Policy, Stage};
pub use rotate::Rotation;
pub use trail::{Answer, Completion, Trail};
pub use webhook::Sender;

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec, Opts};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long events that were accepted may take to be written when the server stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Decides what is recorded, and where it goes.
pub struct Auditor {
    policy: Policy,
    backends: Vec<Backend>,
    /// Events that nobody waits for: the ends of streams.
    late: TaskTracker,
    metrics: Metrics,
}

/// Counters by upstream's names.
struct Metrics {
    events: IntCounter,
    errors: IntCounterVec,
    levels: IntCounterVec,
    rejected: IntCounter,
}

fn counter(name: &str, help: &str) -> anyhow::Result<IntCounter> {
    Ok(IntCounter::with_opts(Opts::new(name, help))?)
}

impl Metrics {
    fn new() -> anyhow::Result<Self> {
        let labelled =
            |name: &str, help: &str, label: &str| IntCounterVec::new(Opts::new(name, help), &[label]);
        Ok(Self {
            events: counter(
                "apiserver_audit_event_total",
                "[ALPHA] Counter of audit events generated and sent to the audit backend.",
            )?,
            errors: labelled(
                "apiserver_audit_error_total",
                "[ALPHA] Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
                "plugin",
            )?,
            levels: labelled(
                "apiserver_audit_level_total",
                "[ALPHA] Counter of policy levels for audit events (1 per request).",
                "level",
            )?,
            rejected: counter(
                "apiserver_audit_requests_rejected_total",
                "[ALPHA] Counter of apiserver requests rejected due to an error in audit logging backend.",
            )?,
        })
    }
}

impl Auditor {
    /// Records what `policy` asks for in `backends`.
    ///
    /// # Errors
    /// The metrics cannot be made.
    pub fn new(policy: Policy, backends: Vec<Backend>) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self { policy, backends, late: TaskTracker::new(), metrics: Metrics::new()? }))
    }

    /// Adds the metrics to those of the server.
    pub fn register(&self, registry: &prometheus::Registry) {
        serve::metrics::register(registry, self.metrics.events.clone());
        serve::metrics::register(registry, self.metrics.errors.clone());
        serve::metrics::register(registry, self.metrics.levels.clone());
        serve::metrics::register(registry, self.metrics.rejected.clone());
    }

    /// Runs what writes in the background until `stop`, and then until what was accepted is written.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let backends = self.backends.iter().map(|b| b.run(stop.clone(), &self.metrics.errors));
        futures::future::join_all(backends).await;
        stop.cancelled().await;
        self.late.close();
        if tokio::time::timeout(DRAIN, self.late.wait()).await.is_err() {
            tracing::warn!("audit events of streams were not written before the server stopped");
        }
    }
}

impl std::fmt::Debug for Auditor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auditor").field("backends", &self.backends.len()).finish_non_exhaustive()
    }
}
