//! Command line flags: upstream's names. Those that repeat a field of the configuration file win over it.

use std::path::PathBuf;

use clap::Parser;
use daemon::{Flags, KeyValues, LoggingFlags};

/// The node agent: runs the pods that are bound to this node.
#[derive(Parser, Clone, Debug)]
#[command(name = "kubelet")]
pub struct Args {
    /// The kubelet's configuration file (KubeletConfiguration, kubelet.config.k8s.io/v1beta1).
    #[arg(long, default_value = "")]
    pub config: String,
    /// How to reach the API server; without it the kubelet runs static pods only.
    #[arg(long, default_value = "")]
    pub kubeconfig: String,
    /// A kubeconfig to ask for a client certificate with; --kubeconfig is then written.
    #[arg(long, default_value = "")]
    pub bootstrap_kubeconfig: String,
    /// The node's name, instead of the host's.
    #[arg(long, default_value = "")]
    pub hostname_override: String,
    /// The node's addresses, comma-separated: one, or one of each family.
    #[arg(long, default_value = "")]
    pub node_ip: String,
    /// The container runtime's socket.
    #[arg(long, default_value = "")]
    pub container_runtime_endpoint: String,
    /// The image service's socket, when it is another.
    #[arg(long, default_value = "")]
    pub image_service_endpoint: String,
    /// Where the kubelet keeps its files.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Where certificates are kept.
    #[arg(long, default_value = "/var/lib/kubelet/pki")]
    pub cert_dir: PathBuf,
    /// Taints to register the node with: `key=value:effect,...`.
    #[arg(long, default_value = "")]
    pub register_with_taints: String,
    /// Labels to register the node with.
    #[arg(long, default_value = "")]
    pub node_labels: KeyValues,
    /// Whether to register the node at all.
    #[arg(long)]
    pub register_node: Option<bool>,
    /// The provider's name for the machine.
    #[arg(long, default_value = "")]
    pub provider_id: String,
    /// The cloud provider; only "" and "external" exist.
    #[arg(long, default_value = "")]
    pub cloud_provider: String,
    /// The address to serve on.
    #[arg(long)]
    pub address: Option<String>,
    /// The port to serve on.
    #[arg(long)]
    pub port: Option<u16>,
    /// The address of the health endpoint.
    #[arg(long)]
    pub healthz_bind_address: Option<String>,
    /// The port of the health endpoint; 0 turns it off.
    #[arg(long)]
    pub healthz_port: Option<u16>,
    /// Whether requests without credentials are let in as system:anonymous.
    #[arg(long)]
    pub anonymous_auth: Option<bool>,
    /// Whether bearer tokens are reviewed by the API server.
    #[arg(long)]
    pub authentication_token_webhook: Option<bool>,
    /// AlwaysAllow or Webhook.
    #[arg(long)]
    pub authorization_mode: Option<String>,
    /// The authority of client certificates.
    #[arg(long)]
    pub client_ca_file: Option<String>,
    /// The serving certificate.
    #[arg(long)]
    pub tls_cert_file: Option<String>,
    /// The serving certificate's key.
    #[arg(long)]
    pub tls_private_key_file: Option<String>,
    /// The cluster's DNS servers.
    #[arg(long, value_delimiter = ',')]
    pub cluster_dns: Vec<String>,
    /// The cluster's DNS domain.
    #[arg(long)]
    pub cluster_domain: Option<String>,
    /// The resolver file that pods inherit.
    #[arg(long)]
    pub resolv_conf: Option<String>,
    /// The folder of static pods.
    #[arg(long)]
    pub pod_manifest_path: Option<String>,
    /// How many pods may run here.
    #[arg(long)]
    pub max_pods: Option<u32>,
    /// Whether swap is a reason not to start.
    #[arg(long)]
    pub fail_swap_on: Option<bool>,
    /// Whether control groups of version 1 are a reason not to start.
    #[arg(long)]
    pub fail_cgroupv1: Option<bool>,
    /// The control group driver; only cgroupfs is supported.
    #[arg(long)]
    pub cgroup_driver: Option<String>,
    /// The control group of the container runtime; statistics only.
    #[arg(long, default_value = "")]
    pub runtime_cgroups: String,
    /// Feature gates.
    #[arg(long, default_value = "")]
    pub feature_gates: KeyValues,
    /// Logging.
    #[command(flatten)]
    pub logging: LoggingFlags,
}

impl Flags for Args {
    fn logging(&self) -> &LoggingFlags {
        &self.logging
    }
}
