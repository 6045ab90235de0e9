//! What a running server is made of.

use std::sync::Arc;
use std::time::Duration;

use api::Value;
use http::HeaderValue;
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};
use tokio_util::sync::CancellationToken;

use crate::admission::{Policies, Webhooks};
use crate::aggregation::Aggregation;
use crate::allocate::Allocators;
use crate::audit::Auditor;
use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::discovery::Discovery;
use crate::fairness::Gate;
use crate::openapi::OpenApi;
use crate::proxy::Kubelets;
use crate::storage::Storage;

/// Settings that requests look at.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Largest request body, in bytes.
    pub max_body: usize,
    /// A watch without a timeout lasts this long at least.
    pub min_request_timeout: Duration,
    /// How long other requests may take.
    pub request_timeout: Duration,
    /// How long events are kept.
    pub event_ttl: Duration,
    /// Which plug-ins of admission run, and how.
    pub admission: Arc<crate::admission::Configuration>,
    /// Tokens of pods outlive the time that kubelets ask for, for clients that read them once.
    pub extend_tokens: bool,
    /// How long etcd may take to answer a check.
    pub etcd_check_timeout: Duration,
    /// URL of the keys that verify tokens, where it is another than this server's.
    pub jwks_uri: Option<String>,
    /// The header Strict-Transport-Security.
    pub transport_security: Option<HeaderValue>,
    /// `host:port` that clients outside should use.
    pub external_address: String,
}

/// A running server.
pub struct Server {
    /// Objects.
    pub storage: Arc<Storage>,
    /// Who sends requests.
    pub authenticator: Authenticator,
    /// What they may do.
    pub authorizer: Authorizer,
    /// Records requests; none when that is not asked for.
    pub auditor: Option<Arc<Auditor>>,
    /// Addresses and ports of Services.
    pub allocators: Allocators,
    /// Decides which requests run.
    pub gate: Arc<Gate>,
    /// Admission policies.
    pub policies: Policies,
    /// Webhooks that are asked about writes.
    pub webhooks: Webhooks,
    /// Groups that other servers serve.
    pub aggregation: Aggregation,
    /// Discovery documents.
    pub discovery: Discovery,
    /// OpenAPI documents.
    pub openapi: OpenApi,
    /// Connections to kubelets.
    pub kubelets: Kubelets,
    /// Settings.
    pub config: Settings,
    /// Health checks.
    pub health: serve::Health,
    /// Metrics.
    pub metrics: Metrics,
    /// Cancelled when the server stops: ends watches.
    pub stopping: CancellationToken,
    /// True once the objects that every cluster has are there.
    pub bootstrapped: std::sync::atomic::AtomicBool,
}

/// The metrics of requests, by upstream's names.
pub struct Metrics {
    /// All metrics of the process.
    pub registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    inflight: IntGaugeVec,
}

impl Metrics {
    /// Registers the metrics of requests.
    pub fn new(registry: Registry) -> anyhow::Result<Self> {
        let requests = IntCounterVec::new(
            prometheus::opts!(
                "apiserver_request_total",
                "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code."
            ),
            &["code", "group", "resource", "subresource", "verb", "version"],
        )?;
        let durations = HistogramVec::new(
            prometheus::histogram_opts!(
                "apiserver_request_duration_seconds",
                "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
                vec![0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0]
            ),
            &["group", "resource", "subresource", "verb", "version"],
        )?;
        let inflight = IntGaugeVec::new(
            prometheus::opts!(
                "apiserver_longrunning_requests",
                "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way."
            ),
            &["group", "resource", "verb", "version"],
        )?;
        serve::metrics::register(&registry, requests.clone());
        serve::metrics::register(&registry, durations.clone());
        serve::metrics::register(&registry, inflight.clone());
        Ok(Self { registry, requests, durations, inflight })
    }

    /// Counts a request that was answered; `known` says whether it was to a resource that is served.
    pub fn answered(&self, known: bool, info: &crate::request::RequestInfo, code: u16, seconds: f64) {
        // Unknown resources are not given series of their own: a client could make as many as it likes.
        let (group, version, resource, subresource) = match known {
            true => (
                info.group.as_str(),
                info.version.as_str(),
                info.resource.as_str(),
                info.subresource.as_str(),
            ),
            false => ("", "", "", ""),
        };
        let verb = info.verb.to_ascii_uppercase();
        let verb = if verb == "CREATE" { "POST".to_owned() } else { verb };
        self.requests
            .with_label_values(&[&code.to_string(), group, resource, subresource, &verb, version])
            .inc();
        if !info.is_long_running() {
            self.durations
                .with_label_values(&[group, resource, subresource, &verb, version])
                .observe(seconds);
        }
    }

    /// The gauge of streams of a kind.
    pub fn streams(&self, info: &crate::request::RequestInfo) -> prometheus::IntGauge {
        let verb = info.verb.to_ascii_uppercase();
        self.inflight.with_label_values(&[&info.group, &info.resource, &verb, &info.version])
    }
}

/// The answer to `/version`.
pub fn version() -> Value {
    api::object!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": (daemon::KUBERNETES_VERSION),
        "gitCommit": (option_env!("FERRITE_COMMIT").unwrap_or("unknown")),
        "gitTreeState": "",
        "buildDate": (option_env!("FERRITE_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z")),
        "goVersion": "rust",
        "compiler": "rustc",
        "platform": (format!("linux/{}", match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other })),
    })
}
