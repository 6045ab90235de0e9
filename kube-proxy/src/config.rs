//! The configuration in force: a KubeProxyConfiguration file, or the flags.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use daemon::GoDuration;
use ipnet::IpNet;
use serde::Deserialize;

use crate::args::Args;

/// `kubeproxy.config.k8s.io/v1alpha1`. Everything is optional: absent, null and empty mean the default, as upstream has it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    mode: Option<String>,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: Option<String>,
    bind_address: Option<String>,
    client_connection: Option<ClientConnection>,
    conntrack: Option<Conntrack>,
    detect_local_mode: Option<String>,
    detect_local: Option<DetectLocal>,
    healthz_bind_address: Option<String>,
    metrics_bind_address: Option<String>,
    hostname_override: Option<String>,
    iptables: Option<Iptables>,
    node_port_addresses: Option<Vec<String>>,
    feature_gates: Option<BTreeMap<String, bool>>,
    /// Fields that mean nothing in this mode, and those nobody knows.
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// Fields of other modes and platforms, and settings that have no counterpart here.
const WITHOUT_EFFECT: [&str; 10] = [
    "bindAddressHardFail",
    "configSyncPeriod",
    "enableProfiling",
    "ipvs",
    "logging",
    "nftables",
    "oomScoreAdj",
    "portRange",
    "showHiddenMetricsForVersion",
    "winkernel",
];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClientConnection {
    kubeconfig: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DetectLocal {
    bridge_interface: Option<String>,
    interface_name_prefix: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Conntrack {
    max_per_core: Option<u32>,
    min: Option<u32>,
    tcp_be_liberal: Option<bool>,
    tcp_established_timeout: Option<GoDuration>,
    tcp_close_wait_timeout: Option<GoDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Iptables {
    masquerade_bit: Option<u8>,
    masquerade_all: Option<bool>,
    localhost_node_ports: Option<bool>,
    sync_period: Option<GoDuration>,
    min_sync_period: Option<GoDuration>,
}

/// How to tell traffic of this node's pods from other traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LocalMode {
    /// By the cluster's pod range; without one, not at all.
    ClusterCidr(Vec<IpNet>),
    /// By the node's pod range.
    NodeCidr,
    /// By an interface; a name that ends in `+` is a prefix.
    Interface(String),
}

/// Connection tracking settings of the kernel; zero leaves one as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tracking {
    pub(crate) max_per_core: u32,
    pub(crate) min: u32,
    pub(crate) be_liberal: bool,
    pub(crate) established: Duration,
    pub(crate) close_wait: Duration,
}

/// What the proxy works by.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) kubeconfig: String,
    pub(crate) master: String,
    pub(crate) node: String,
    pub(crate) bind_address: Option<std::net::IpAddr>,
    pub(crate) local: LocalMode,
    pub(crate) masquerade_all: bool,
    pub(crate) masquerade_mark: u32,
    pub(crate) localhost_node_ports: bool,
    pub(crate) sync_period: Duration,
    pub(crate) min_sync_period: Duration,
    /// Where NodePorts listen; none for all addresses.
    pub(crate) node_port_addresses: Vec<IpNet>,
    /// Only on the node's own address.
    pub(crate) node_port_primary: bool,
    pub(crate) tracking: Tracking,
    pub(crate) healthz: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
}

impl Config {
    pub(crate) fn new(args: &Args) -> anyhow::Result<Self> {
        args.feature_gates.check(&[]).map_err(anyhow::Error::msg)?;
        let mut file = match args.config.as_str() {
            "" => from_flags(args)?,
            path => daemon::config::read(
                Path::new(path),
                &["kubeproxy.config.k8s.io/v1alpha1"],
                "KubeProxyConfiguration",
            )?,
        };
        if !args.hostname_override.is_empty() {
            file.hostname_override = Some(args.hostname_override.clone());
        }
        let mut config = Self::from_file(file)?;
        config.master.clone_from(&args.master);
        if config.node.is_empty() {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").context("host name")?;
            config.node = host.trim().to_lowercase();
        }
        Ok(config)
    }

    fn from_file(file: File) -> anyhow::Result<Self> {
        match text(file.mode.as_deref()) {
            None | Some("iptables") => {}
            Some(mode) => bail!("proxy mode {mode:?} is not supported: only \"iptables\" is"),
        }
        for name in file.others.keys().filter(|n| !WITHOUT_EFFECT.contains(&n.as_str())) {
            tracing::warn!(field = name, "Unknown field in the configuration file");
        }
        if let Some((gate, _)) = file.feature_gates.iter().flatten().next() {
            bail!("featureGates: {gate} is not known");
        }
        let iptables = file.iptables.unwrap_or_default();
        let bit = iptables.masquerade_bit.unwrap_or(14);
        ensure!(bit < 32, "iptables.masqueradeBit: must be within the range [0, 31]");
        let addresses = file.node_port_addresses.unwrap_or_default();
        let primary = addresses.iter().any(|a| a == "primary");
        ensure!(!primary || addresses.len() == 1, "nodePortAddresses: \"primary\" must stand alone");
        let seconds = |d: Option<GoDuration>, n| d.map_or(Duration::from_secs(n), Into::into);
        let nonzero = |d: Option<GoDuration>, n| seconds(d.filter(|d| !d.is_zero()), n);
        let tracking = file.conntrack.unwrap_or_default();
        let detect = file.detect_local.unwrap_or_default();
        Ok(Self {
            kubeconfig: file.client_connection.and_then(|c| c.kubeconfig).unwrap_or_default(),
            master: String::new(),
            node: file.hostname_override.unwrap_or_default().trim().to_lowercase(),
            bind_address: text(file.bind_address.as_deref())
                .map(str::parse)
                .transpose()
                .context("bindAddress")?
                .filter(|a: &std::net::IpAddr| !a.is_unspecified()),
            local: local_mode(file.detect_local_mode, file.cluster_cidr, detect)?,
            masquerade_all: iptables.masquerade_all.unwrap_or(false),
            masquerade_mark: 1 << bit,
            localhost_node_ports: iptables.localhost_node_ports.unwrap_or(true),
            sync_period: nonzero(iptables.sync_period, 30),
            min_sync_period: nonzero(iptables.min_sync_period, 1),
            node_port_addresses: if primary { Vec::new() } else { cidrs(&addresses)? },
            node_port_primary: primary,
            tracking: Tracking {
                max_per_core: tracking.max_per_core.unwrap_or(32 * 1024),
                min: tracking.min.unwrap_or(128 * 1024),
                be_liberal: tracking.tcp_be_liberal.unwrap_or(false),
                established: seconds(tracking.tcp_established_timeout, 24 * 3600),
                close_wait: seconds(tracking.tcp_close_wait_timeout, 3600),
            },
            healthz: address(file.healthz_bind_address, "0.0.0.0:10256", 10256)
                .context("healthzBindAddress")?,
            metrics: address(file.metrics_bind_address, "127.0.0.1:10249", 10249)
                .context("metricsBindAddress")?,
        })
    }
}

fn text(value: Option<&str>) -> Option<&str> {
    value.filter(|v| !v.is_empty())
}

fn cidrs(list: &[String]) -> anyhow::Result<Vec<IpNet>> {
    list.iter().map(|c| c.trim().parse().with_context(|| format!("{c:?} is not a CIDR"))).collect()
}

/// An `ip:port` or a bare IP; the default when absent.
fn address(value: Option<String>, default: &str, port: u16) -> anyhow::Result<Option<SocketAddr>> {
    let value = value.filter(|v| !v.is_empty()).unwrap_or_else(|| default.to_owned());
    let address = value.parse().or_else(|_| value.parse().map(|ip| SocketAddr::new(ip, port)));
    Ok(Some(address.with_context(|| format!("{value:?} is not an address"))?).filter(|a| a.port() != 0))
}

fn local_mode(
    mode: Option<String>,
    cluster_cidr: Option<String>,
    detect: DetectLocal,
) -> anyhow::Result<LocalMode> {
    let named = |name: Option<String>, field| {
        text(name.as_deref()).map(str::to_owned).with_context(|| format!("{field} is required by the mode"))
    };
    Ok(match mode.as_deref().unwrap_or_default() {
        "" | "ClusterCIDR" => {
            let list: Vec<String> =
                text(cluster_cidr.as_deref()).iter().flat_map(|c| c.split(',')).map(str::to_owned).collect();
            LocalMode::ClusterCidr(cidrs(&list).context("clusterCIDR")?)
        }
        "NodeCIDR" => LocalMode::NodeCidr,
        "BridgeInterface" => {
            LocalMode::Interface(named(detect.bridge_interface, "detectLocal.bridgeInterface")?)
        }
        "InterfaceNamePrefix" => {
            let prefix = named(detect.interface_name_prefix, "detectLocal.interfaceNamePrefix")?;
            LocalMode::Interface(format!("{prefix}+"))
        }
        other => bail!("detectLocalMode: {other:?} is not known"),
    })
}

fn from_flags(args: &Args) -> anyhow::Result<File> {
    let localhost = args.iptables_localhost_nodeports.as_deref().map(str::parse).transpose();
    Ok(File {
        mode: args.proxy_mode.clone(),
        cluster_cidr: args.cluster_cidr.clone(),
        bind_address: args.bind_address.clone(),
        client_connection: Some(ClientConnection { kubeconfig: Some(args.kubeconfig.clone()) }),
        conntrack: Some(Conntrack {
            max_per_core: args.conntrack_max_per_core,
            min: args.conntrack_min,
            tcp_be_liberal: Some(args.conntrack_tcp_be_liberal),
            tcp_established_timeout: args.conntrack_tcp_timeout_established,
            tcp_close_wait_timeout: args.conntrack_tcp_timeout_close_wait,
        }),
        detect_local_mode: args.detect_local_mode.clone(),
        detect_local: Some(DetectLocal {
            bridge_interface: args.pod_bridge_interface.clone(),
            interface_name_prefix: args.pod_interface_name_prefix.clone(),
        }),
        healthz_bind_address: args.healthz_bind_address.clone(),
        metrics_bind_address: args.metrics_bind_address.clone(),
        iptables: Some(Iptables {
            masquerade_bit: args.iptables_masquerade_bit,
            masquerade_all: Some(args.masquerade_all),
            localhost_node_ports: localhost.context("--iptables-localhost-nodeports")?,
            sync_period: args.iptables_sync_period,
            min_sync_period: args.iptables_min_sync_period,
        }),
        node_port_addresses: args.nodeport_addresses.clone(),
        ..File::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Config> {
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        let file = daemon::config::parse(
            &format!("{head}{text}"),
            &["kubeproxy.config.k8s.io/v1alpha1"],
            "KubeProxyConfiguration",
        )?;
        Config::from_file(file)
    }

    #[test]
    fn the_file_kubeadm_writes_means_the_defaults() {
        let config = read(
            "bindAddress: 0.0.0.0\nbindAddressHardFail: false\nclientConnection:\n  burst: 0\n  kubeconfig: /x\n  qps: 0\n\
             clusterCIDR: 10.42.0.0/16\nconfigSyncPeriod: 0s\nconntrack:\n  maxPerCore: null\n  tcpEstablishedTimeout: null\n  udpTimeout: 0s\n\
             detectLocal:\n  bridgeInterface: \"\"\ndetectLocalMode: \"\"\nhealthzBindAddress: \"\"\niptables:\n  localhostNodePorts: null\n  masqueradeBit: null\n  syncPeriod: 0s\n\
             ipvs:\n  strictARP: false\nmetricsBindAddress: \"\"\nmode: \"\"\nnodePortAddresses: null\noomScoreAdj: null\n",
        )
        .unwrap();
        assert_eq!(config.kubeconfig, "/x");
        assert_eq!(config.masquerade_mark, 0x4000);
        assert_eq!(config.local, LocalMode::ClusterCidr(vec!["10.42.0.0/16".parse().unwrap()]));
        assert_eq!(config.healthz, Some("0.0.0.0:10256".parse().unwrap()));
        assert_eq!((config.sync_period.as_secs(), config.min_sync_period.as_secs()), (30, 1));
        assert!(config.localhost_node_ports && config.bind_address.is_none());
        assert_eq!(config.tracking.max_per_core, 32768);
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for text in [
            "mode: ipvs\n",
            "mode: nftables\n",
            "clusterCIDR: pods\n",
            "detectLocalMode: BridgeInterface\n",
            "nodePortAddresses: [primary, 10.0.0.0/8]\n",
            "featureGates: {Magic: true}\n",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(
            read("detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth}\n")
                .unwrap()
                .local,
            LocalMode::Interface("veth+".to_owned())
        );
    }
}
