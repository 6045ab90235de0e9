//! The flags of flanneld.

use std::net::Ipv4Addr;

use daemon::LoggingFlags;

/// The pod network daemon. Only the Kubernetes subnet manager is there.
#[derive(clap::Parser, Clone, Debug)]
pub struct Args {
    /// Contact the Kubernetes API for subnet assignment; must be true.
    #[arg(long, default_value_t = true)]
    pub kube_subnet_mgr: bool,
    /// Kubeconfig file; the pod's service account without.
    #[arg(long, default_value = "")]
    pub kubeconfig_file: String,
    /// URL of the API server, instead of the kubeconfig's.
    #[arg(long, default_value = "")]
    pub kube_api_url: String,
    /// The name of this node.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub node_name: String,
    /// Path to the network configuration file.
    #[arg(long, default_value = "/etc/kube-flannel/net-conf.json")]
    pub net_config_path: String,
    /// File in which to leave this node's subnet and MTU for the CNI plugin.
    #[arg(long, default_value = "/run/flannel/subnet.env")]
    pub subnet_file: String,
    /// Masquerade traffic from pods to outside of the network.
    #[arg(long)]
    pub ip_masq: bool,
    /// Interface (name or IP address) for traffic between nodes; that of the default route when empty.
    #[arg(long, default_value = "")]
    pub iface: String,
    /// Address under which other nodes reach this one; the interface's first when none.
    #[arg(long, env = "FLANNEL_PUBLIC_IP")]
    pub public_ip: Option<Ipv4Addr>,
    /// Set the NetworkUnavailable condition of the node to false when the network is up.
    #[arg(long, default_value_t = true)]
    pub set_node_network_unavailable: bool,
    /// How often the packet rules are looked after, in seconds.
    #[arg(long, default_value_t = 60)]
    pub iptables_resync: u64,
    /// Write the CNI configuration (flannel and portmap) to this file, such as /etc/cni/net.d/10-flannel.conflist.
    #[arg(long, default_value = "")]
    pub cni_conf_file: String,
    /// Logging.
    #[command(flatten)]
    pub logging: LoggingFlags,
}

impl daemon::Flags for Args {
    fn logging(&self) -> &LoggingFlags {
        &self.logging
    }
}
