//! The flags of kube-controller-manager that are supported; the others are unknown flags.

use client::delegated::DelegationFlags;
use daemon::features::FeatureGates;
use daemon::{GoDuration, LeaderElectionFlags, LoggingFlags};
use serve::flags::ServingFlags;

/// The Kubernetes controller manager.
#[derive(clap::Parser, Clone, Debug)]
pub struct Args {
    /// Path to kubeconfig file with authorization and master location information.
    #[arg(long, default_value = "")]
    pub kubeconfig: String,
    /// The address of the Kubernetes API server (overrides any value in kubeconfig).
    #[arg(long, default_value = "")]
    pub master: String,
    /// Serving.
    #[command(flatten)]
    pub serving: ServingFlags,
    /// Who may see our endpoints.
    #[command(flatten)]
    pub delegation: DelegationFlags,
    /// Leader election.
    #[command(flatten)]
    pub election: LeaderElectionFlags,
    /// Logging.
    #[command(flatten)]
    pub logging: LoggingFlags,
    /// Feature gates.
    #[arg(long, default_value = "")]
    pub feature_gates: FeatureGates,
    /// A list of controllers to enable: '*' for all on by default, 'foo' for one, '-foo' against one.
    #[arg(long, value_delimiter = ',', default_value = "*")]
    pub controllers: Vec<String>,
    /// If true, use individual service account credentials for each controller.
    #[arg(long)]
    pub use_service_account_credentials: bool,
    /// The instance prefix for the cluster.
    #[arg(long, default_value = "kubernetes")]
    pub cluster_name: String,
    /// CIDR range for pods in the cluster.
    #[arg(long, default_value = "")]
    pub cluster_cidr: String,
    /// Should CIDRs for pods be allocated to nodes.
    #[arg(long)]
    pub allocate_node_cidrs: bool,
    /// Type of CIDR allocator to use.
    #[arg(long, default_value = "RangeAllocator", value_parser = ["RangeAllocator"])]
    pub cidr_allocator_type: String,
    /// Mask size for node CIDRs: 24 for IPv4 and 64 for IPv6 when 0.
    #[arg(long, default_value_t = 0)]
    pub node_cidr_mask_size: u8,
    /// Mask size for IPv4 node CIDRs in a dual-stack cluster.
    #[arg(long, default_value_t = 0)]
    pub node_cidr_mask_size_ipv4: u8,
    /// Mask size for IPv6 node CIDRs in a dual-stack cluster.
    #[arg(long, default_value_t = 0)]
    pub node_cidr_mask_size_ipv6: u8,
    /// CIDR range for Services; no node gets a part of it.
    #[arg(long, default_value = "")]
    pub service_cluster_ip_range: String,
    /// Root certificate authority put into every namespace's kube-root-ca.crt.
    #[arg(long, default_value = "")]
    pub root_ca_file: String,
    /// Private key that signs service account tokens kept in Secrets.
    #[arg(long, default_value = "")]
    pub service_account_private_key_file: String,
    /// Certificate authority that signs certificates for the cluster.
    #[arg(long, default_value = "")]
    pub cluster_signing_cert_file: String,
    /// Key of that authority.
    #[arg(long, default_value = "")]
    pub cluster_signing_key_file: String,
    /// The longest life of signed certificates.
    #[arg(long, default_value = "8760h")]
    pub cluster_signing_duration: GoDuration,
    /// Provider of cloud services: none, or external.
    #[arg(long, default_value = "", value_parser = ["", "external"])]
    pub cloud_provider: String,
    /// Should CIDRs be configured on the cloud provider; there is none here.
    #[arg(long, default_value_t = true)]
    pub configure_cloud_routes: bool,
    /// How often node status is checked.
    #[arg(long, default_value = "5s")]
    pub node_monitor_period: GoDuration,
    /// How long a node may be silent before it is marked unhealthy.
    #[arg(long, default_value = "50s")]
    pub node_monitor_grace_period: GoDuration,
    /// How long a starting node may be silent.
    #[arg(long, default_value = "1m")]
    pub node_startup_grace_period: GoDuration,
    /// Nodes a second from which pods are evicted when they fail, in a zone that is healthy.
    #[arg(long, default_value_t = 0.1)]
    pub node_eviction_rate: f32,
    /// The same in a zone that is not healthy; none in a zone no larger than --large-cluster-size-threshold.
    #[arg(long, default_value_t = 0.01)]
    pub secondary_node_eviction_rate: f32,
    /// Number of nodes up to which a zone is small.
    #[arg(long, default_value_t = 50)]
    pub large_cluster_size_threshold: i32,
    /// Part of the nodes of a zone, three at least, that have to be not ready for it to be unhealthy.
    #[arg(long, default_value_t = 0.55)]
    pub unhealthy_zone_threshold: f32,
    /// Number of terminated pods that may exist before the oldest are deleted; 0 for no limit.
    #[arg(long, default_value_t = 12500)]
    pub terminated_pod_gc_threshold: i32,
    /// Enables the generic garbage collector.
    #[arg(long, default_value_t = true)]
    pub enable_garbage_collector: bool,
    /// Enable dynamic provisioning for environments that support it.
    #[arg(long, default_value_t = true)]
    pub enable_dynamic_provisioning: bool,
    /// Endpoints of one slice at most.
    #[arg(long, default_value_t = 100)]
    pub max_endpoints_per_slice: usize,
    /// Deployments synced at a time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_deployment_syncs: usize,
    /// Replica sets synced at a time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_replicaset_syncs: usize,
    /// Replication controllers synced at a time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_rc_syncs: usize,
    /// Services whose endpoints are synced at a time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_endpoint_syncs: usize,
    /// Services whose slices are synced at a time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_service_endpoint_syncs: usize,
    /// Endpoints of one subset that are mirrored into a slice, at most.
    #[arg(long, default_value_t = 1000)]
    pub mirroring_max_endpoints_per_subset: usize,
    /// Endpoints that are mirrored at a time.
    #[arg(long, default_value_t = 5)]
    pub mirroring_concurrent_service_endpoint_syncs: usize,
    /// Stateful sets synced at a time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_statefulset_syncs: usize,
    /// Daemon sets synced at a time.
    #[arg(long, default_value_t = 2)]
    pub concurrent_daemonset_syncs: usize,
    /// Jobs synced at a time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_job_syncs: usize,
    /// Cron jobs synced at a time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_cron_job_syncs: usize,
    /// Namespaces synced at a time.
    #[arg(long, default_value_t = 10)]
    pub concurrent_namespace_syncs: usize,
    /// Workers of the garbage collector.
    #[arg(long, default_value_t = 20)]
    pub concurrent_gc_syncs: usize,
    /// Service account tokens synced at a time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_serviceaccount_token_syncs: usize,
    /// Resource quotas synced at a time.
    #[arg(long, default_value_t = 5)]
    pub concurrent_resource_quota_syncs: usize,
    /// How often the use of quotas is counted again although nothing was seen to change; 0 for never.
    #[arg(long, default_value = "5m")]
    pub resource_quota_sync_period: GoDuration,
    /// Accepted as upstream does; requests are not limited here, the API server's priority and fairness is.
    #[arg(long, default_value_t = 20.0)]
    pub kube_api_qps: f32,
    /// See --kube-api-qps.
    #[arg(long, default_value_t = 30)]
    pub kube_api_burst: i32,
    /// Enable profiling; there is no Go profile to serve.
    #[arg(long, default_value_t = true)]
    pub profiling: bool,
}

impl daemon::Flags for Args {
    fn logging(&self) -> &LoggingFlags {
        &self.logging
    }
}
