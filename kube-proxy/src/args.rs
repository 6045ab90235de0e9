//! The flags of kube-proxy. With --config, only --hostname-override, --master and the logging flags count besides it.

use daemon::features::FeatureGates;
use daemon::{GoDuration, LoggingFlags};

/// The Kubernetes network proxy runs on each node.
#[derive(clap::Parser, Clone, Debug)]
pub struct Args {
    /// The path to the configuration file.
    #[arg(long, default_value = "")]
    pub config: String,
    /// Path to kubeconfig file with authorization information.
    #[arg(long, default_value = "")]
    pub kubeconfig: String,
    /// The address of the Kubernetes API server (overrides any value in kubeconfig).
    #[arg(long, default_value = "")]
    pub master: String,
    /// The name of this node, instead of the host name.
    #[arg(long, default_value = "")]
    pub hostname_override: String,
    /// The CIDR range of the pods in the cluster.
    #[arg(long)]
    pub cluster_cidr: Option<String>,
    /// Which proxy mode to use: only iptables.
    #[arg(long)]
    pub proxy_mode: Option<String>,
    /// Overrides the idea of what this node's primary IP is.
    #[arg(long)]
    pub bind_address: Option<String>,
    /// The address and port of the health check server; empty to disable.
    #[arg(long)]
    pub healthz_bind_address: Option<String>,
    /// The address and port of the metrics server; empty to disable.
    #[arg(long)]
    pub metrics_bind_address: Option<String>,
    /// CIDR ranges of the addresses on which NodePorts are reachable; "primary" for the node's own.
    #[arg(long, value_delimiter = ',')]
    pub nodeport_addresses: Option<Vec<String>>,
    /// Mode to detect local traffic.
    #[arg(long)]
    pub detect_local_mode: Option<String>,
    /// The bridge of pods for --detect-local-mode=BridgeInterface.
    #[arg(long)]
    pub pod_bridge_interface: Option<String>,
    /// The prefix of pods' interfaces for --detect-local-mode=InterfaceNamePrefix.
    #[arg(long)]
    pub pod_interface_name_prefix: Option<String>,
    /// SNAT all traffic sent via Service cluster IPs.
    #[arg(long)]
    pub masquerade_all: bool,
    /// The bit of the packet mark that asks for SNAT.
    #[arg(long)]
    pub iptables_masquerade_bit: Option<u8>,
    /// How often the rules are looked after without any change.
    #[arg(long)]
    pub iptables_sync_period: Option<GoDuration>,
    /// The least time between two writes of the rules.
    #[arg(long)]
    pub iptables_min_sync_period: Option<GoDuration>,
    /// If false, NodePorts are not reachable on loopback addresses.
    #[arg(long)]
    pub iptables_localhost_nodeports: Option<String>,
    /// Maximum number of tracked connections per CPU core (0 to leave the limit as is).
    #[arg(long)]
    pub conntrack_max_per_core: Option<u32>,
    /// The least limit of tracked connections.
    #[arg(long)]
    pub conntrack_min: Option<u32>,
    /// Liberal tracking of TCP packets: none is invalid.
    #[arg(long)]
    pub conntrack_tcp_be_liberal: bool,
    /// Idle timeout for established TCP connections (0 to leave as-is).
    #[arg(long)]
    pub conntrack_tcp_timeout_established: Option<GoDuration>,
    /// Timeout for TCP connections in the CLOSE_WAIT state.
    #[arg(long)]
    pub conntrack_tcp_timeout_close_wait: Option<GoDuration>,
    /// Feature gates.
    #[arg(long, default_value = "")]
    pub feature_gates: FeatureGates,
    /// Logging.
    #[command(flatten)]
    pub logging: LoggingFlags,
}

impl daemon::Flags for Args {
    fn logging(&self) -> &LoggingFlags {
        &self.logging
    }
}
