//! The flags of kube-apiserver, by upstream's names. None is unknown, and none is ignored: what is not supported is refused
//! with the reason.
//!
//! Source: <https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/>.

mod audit;
mod oidc;

use std::net::IpAddr;

use clap::Parser;
use daemon::{GoDuration, LoggingFlags};

pub use audit::AuditFlags;
/// The flags that must not change anything.
#[derive(Clone, Debug)]
pub struct Fixed;

impl daemon::fixed::Table for Fixed {
    const ROWS: &'static str = include_str!("../data/flags.txt");
}
pub use oidc::OidcFlags;

/// The Kubernetes API server validates and configures data for the API objects, and serves them over REST and watch.
#[derive(Clone, Debug, Parser)]
pub struct Args {
    /// IP address on which to advertise the apiserver to members of the cluster.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// Answer 502 where an aggregated server redirects, instead of handing that to the client.
    #[arg(long, default_value_t = true)]
    pub aggregator_reject_forwarding_redirect: bool,
    /// If true, allow privileged containers.
    #[arg(long)]
    pub allow_privileged: bool,
    /// Enables anonymous requests to the secure port.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub anonymous_auth: Option<bool>,
    /// Identifiers of the API, for tokens; the issuer when none is given.
    #[arg(long, value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// File that names authorizers.
    #[arg(long, default_value = "")]
    pub authorization_config: String,
    /// Ordered list of authorizers: AlwaysAllow (without any), AlwaysDeny, ABAC, Node, RBAC, Webhook.
    #[arg(long, value_delimiter = ',')]
    pub authorization_mode: Vec<String>,
    /// File of the policies of mode ABAC.
    #[arg(long, default_value = "")]
    pub authorization_policy_file: String,
    /// How long answers of the webhook are kept that allow.
    #[arg(long, default_value = "5m")]
    pub authorization_webhook_cache_authorized_ttl: GoDuration,
    /// How long other answers of the webhook are kept.
    #[arg(long, default_value = "30s")]
    pub authorization_webhook_cache_unauthorized_ttl: GoDuration,
    /// Kubeconfig file of the server of mode Webhook.
    #[arg(long, default_value = "")]
    pub authorization_webhook_config_file: String,
    /// Version of reviews of access: v1 or v1beta1.
    #[arg(long, default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    pub authorization_webhook_version: String,
    /// IP address on which to listen.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Directory where the TLS certificate is kept when no files are given.
    #[arg(long, default_value = "/var/run/kubernetes")]
    pub cert_dir: String,
    /// Bundle of authorities that vouch for client certificates.
    #[arg(long, default_value = "")]
    pub client_ca_file: String,
    /// File with the configuration of admission plug-ins.
    #[arg(long, default_value = "")]
    pub admission_control_config_file: String,
    /// Seconds that pods tolerate a node that is not ready, unless they say otherwise.
    #[arg(long, default_value_t = 300)]
    pub default_not_ready_toleration_seconds: i64,
    /// Seconds that pods tolerate a node that is unreachable, unless they say otherwise.
    #[arg(long, default_value_t = 300)]
    pub default_unreachable_toleration_seconds: i64,
    /// Admission plug-ins that should not run although they do by default.
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// Admission plug-ins that should run besides those that do by default.
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Accept secrets of type bootstrap.kubernetes.io/token in kube-system as credentials.
    #[arg(long)]
    pub enable_bootstrap_token_auth: bool,
    /// Route requests for aggregated servers to the endpoints of their Services rather than to cluster addresses.
    #[arg(long)]
    pub enable_aggregator_routing: bool,
    /// Divide the requests that run at a time among priority levels; otherwise only their number is limited.
    #[arg(long, default_value_t = true)]
    pub enable_priority_and_fairness: bool,
    /// How the endpoints of the Service kubernetes are kept: lease, master-count or none.
    #[arg(long, default_value = "lease")]
    pub endpoint_reconciler_type: String,
    /// File that says which connections go through a proxy.
    #[arg(long, default_value = "")]
    pub egress_selector_config_file: String,
    /// File that says what is encrypted before it is stored, and how.
    #[arg(long, default_value = "")]
    pub encryption_provider_config: String,
    /// Read that file again when it changes.
    #[arg(long)]
    pub encryption_provider_config_automatic_reload: bool,
    /// CA bundle of etcd.
    #[arg(long, default_value = "")]
    pub etcd_cafile: String,
    /// Client certificate for etcd.
    #[arg(long, default_value = "")]
    pub etcd_certfile: String,
    /// Interval of compaction requests; 0 disables them.
    #[arg(long, default_value = "5m")]
    pub etcd_compaction_interval: GoDuration,
    /// How long etcd may take to answer the check of health.
    #[arg(long, default_value = "2s")]
    pub etcd_healthcheck_timeout: GoDuration,
    /// How long etcd may take to answer the check of readiness.
    #[arg(long, default_value = "2s")]
    pub etcd_readycheck_timeout: GoDuration,
    /// Key of the client certificate for etcd.
    #[arg(long, default_value = "")]
    pub etcd_keyfile: String,
    /// Prefix of all keys in etcd.
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// URLs of etcd's members.
    #[arg(long, value_delimiter = ',', required = true)]
    pub etcd_servers: Vec<String>,
    /// How long events are kept.
    #[arg(long, default_value = "1h")]
    pub event_ttl: GoDuration,
    /// Host name of this server in the URLs that it publishes.
    #[arg(long, default_value = "")]
    pub external_hostname: String,
    /// Feature gates as name=true|false.
    #[arg(long, default_value = "")]
    pub feature_gates: daemon::features::FeatureGates,
    /// Requests at a time on one HTTP/2 connection; 0 for 250.
    #[arg(long, default_value_t = 0)]
    pub http2_max_streams_per_connection: u32,
    /// CA bundle of kubelets; without it their certificates are not checked.
    #[arg(long, default_value = "")]
    pub kubelet_certificate_authority: String,
    /// Client certificate for kubelets.
    #[arg(long, default_value = "")]
    pub kubelet_client_certificate: String,
    /// Key of the client certificate for kubelets.
    #[arg(long, default_value = "")]
    pub kubelet_client_key: String,
    /// Which addresses of a node are used to reach its kubelet.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"
    )]
    pub kubelet_preferred_address_types: Vec<String>,
    /// How likely a request over HTTP/2 tells its client to connect anew, to another server perhaps; 0.02 at most.
    #[arg(long, default_value_t = 0.0)]
    pub goaway_chance: f64,
    /// Seconds for which a lease of etcd is given to further objects.
    #[arg(long, default_value_t = 60)]
    pub lease_reuse_duration_seconds: i64,
    /// How long /livez takes it for granted that the server will have started well.
    #[arg(long, default_value = "0s")]
    pub livez_grace_period: GoDuration,
    /// How many requests that change something run at a time. With priority and fairness, a part of the whole.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: i64,
    /// How many requests that change nothing run at a time. With priority and fairness, a part of the whole.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: i64,
    /// Least seconds that a watch lasts which names no time.
    #[arg(long, default_value_t = 1800)]
    pub min_request_timeout: u64,
    /// Client certificate that proves this server to aggregated servers.
    #[arg(long, default_value = "")]
    pub proxy_client_cert_file: String,
    /// Key of that certificate.
    #[arg(long, default_value = "")]
    pub proxy_client_key_file: String,
    /// How long other requests may take.
    #[arg(long, default_value = "1m")]
    pub request_timeout: GoDuration,
    /// Common names that the front proxy's certificate may have; empty allows any.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// CA bundle of the front proxy.
    #[arg(long, default_value = "")]
    pub requestheader_client_ca_file: String,
    /// Prefixes of the front proxy's headers with more about the user.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// The front proxy's headers with the user's groups.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-group")]
    pub requestheader_group_headers: Vec<String>,
    /// The front proxy's headers with the user's UID.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// The front proxy's headers with the user's name.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-user")]
    pub requestheader_username_headers: Vec<String>,
    /// Levels of stability, versions and resources to switch on or off, as key=true|false.
    #[arg(long)]
    pub runtime_config: Vec<String>,
    /// Port on which to serve HTTPS.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Tokens of pods outlive the time that kubelets ask for.
    #[arg(long, default_value_t = true)]
    pub service_account_extend_token_expiration: bool,
    /// Issuers of tokens; the first is the one that signs.
    #[arg(long)]
    pub service_account_issuer: Vec<String>,
    /// URL of the keys in the discovery document of the token issuer.
    #[arg(long, default_value = "")]
    pub service_account_jwks_uri: String,
    /// Files with keys that verify tokens.
    #[arg(long)]
    pub service_account_key_file: Vec<String>,
    /// Check that what a token is for still exists. Only true is supported.
    #[arg(long, default_value_t = true)]
    pub service_account_lookup: bool,
    /// Longest life of a token.
    #[arg(long, default_value = "0s")]
    pub service_account_max_token_expiration: GoDuration,
    /// File with the key that signs tokens.
    #[arg(long, default_value = "")]
    pub service_account_signing_key_file: String,
    /// Range of Service addresses, or one of each family with a comma between them.
    #[arg(long, default_value = "10.0.0.0/24")]
    pub service_cluster_ip_range: String,
    /// Ports for Services of type NodePort.
    #[arg(long, default_value = "30000-32767")]
    pub service_node_port_range: String,
    /// How long the server goes on after it has been asked to end, while /readyz says so.
    #[arg(long, default_value = "0s")]
    pub shutdown_delay_duration: GoDuration,
    /// Storage back end. Only etcd3 is supported.
    #[arg(long, default_value = "etcd3")]
    pub storage_backend: String,
    /// Directives of the header Strict-Transport-Security; without any it is not sent.
    #[arg(long, value_delimiter = ',')]
    pub strict_transport_security_directives: Vec<String>,
    /// Certificate for HTTPS.
    #[arg(long, default_value = "")]
    pub tls_cert_file: String,
    /// Key of that certificate.
    #[arg(long, default_value = "")]
    pub tls_private_key_file: String,
    /// Cipher suites to offer with TLS 1.2, by Go's names; all good ones when none is named.
    #[arg(long, value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,
    /// The oldest version of TLS: VersionTLS12 or VersionTLS13.
    #[arg(long, default_value = "")]
    pub tls_min_version: String,
    /// Further certificates: cert,key or cert,key:name,name.
    #[arg(long)]
    pub tls_sni_cert_key: Vec<String>,
    /// File of tokens and the users that they stand for.
    #[arg(long, default_value = "")]
    pub token_auth_file: String,
    /// Serve profiles. Accepted; there are none.
    #[arg(long, default_value_t = true)]
    pub profiling: bool,
    /// What is recorded of requests.
    #[command(flatten)]
    pub audit: AuditFlags,
    /// File that names issuers of tokens, and says who may come without.
    #[arg(long, default_value = "")]
    pub authentication_config: String,
    /// How long answers about tokens are kept.
    #[arg(long, default_value = "2m")]
    pub authentication_token_webhook_cache_ttl: GoDuration,
    /// Kubeconfig file of the server that is asked about tokens.
    #[arg(long, default_value = "")]
    pub authentication_token_webhook_config_file: String,
    /// Version of reviews of tokens: v1 or v1beta1.
    #[arg(long, default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    pub authentication_token_webhook_version: String,
    /// An issuer of tokens.
    #[command(flatten)]
    pub oidc: OidcFlags,
    /// Flags that must not change anything.
    #[command(flatten)]
    pub fixed: daemon::fixed::FixedFlags<Fixed>,
    /// Logging.
    #[command(flatten)]
    pub logging: LoggingFlags,
}

impl daemon::Flags for Args {
    fn logging(&self) -> &LoggingFlags {
        &self.logging
    }
}
