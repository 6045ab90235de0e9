//! What a running server is made of.

use std::sync::Arc;
use std::time::Duration;

use api::Value;
use daemon::features::FeatureGates;
use http::HeaderValue;
use serve::zpages::Pages;
use tokio_util::sync::CancellationToken;

use crate::admission::{Policies, Webhooks};
use crate::aggregation::Aggregation;
use crate::allocate::Allocators;
use crate::audit::Auditor;
use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::discovery::Discovery;
use crate::fairness::Gate;
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::proxy::Kubelets;
use crate::render::Recent;
use crate::starting::Starting;
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
    /// Feature gates as they were set.
    pub gates: FeatureGates,
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
    /// What watches were sent last.
    pub recent: Arc<Recent>,
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
    /// What the process is.
    pub pages: Pages,
    /// Metrics.
    pub metrics: Metrics,
    /// Cancelled when the server stops: ends watches.
    pub stopping: CancellationToken,
    /// What has been done of what is done once.
    pub starting: Starting,
}

/// The minor version of Kubernetes 1 that is served.
pub const MINOR: u64 = 36;

/// The answer to `/version`.
pub fn version() -> Value {
    api::object!({
        "major": "1",
        "minor": (MINOR.to_string()),
        "emulationMajor": "1",
        "emulationMinor": (MINOR.to_string()),
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": ((MINOR - 1).to_string()),
        "gitVersion": (daemon::KUBERNETES_VERSION),
        "gitCommit": (option_env!("FERRITE_COMMIT").unwrap_or("unknown")),
        "gitTreeState": "",
        "buildDate": (option_env!("FERRITE_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z")),
        "goVersion": "rust",
        "compiler": "rustc",
        "platform": (format!("linux/{}", match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other })),
    })
}
