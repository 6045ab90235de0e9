//! The network configuration file, and the files written for the CNI plugin.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use ipnet::Ipv4Net;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    network: Ipv4Net,
    #[serde(default)]
    backend: BackendFile,
    #[serde(rename = "EnableIPv6", default)]
    enable_ipv6: bool,
    #[serde(rename = "EnableNFTables", default)]
    enable_nftables: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct BackendFile {
    r#type: String,
    #[serde(rename = "VNI")]
    vni: Option<u32>,
    port: Option<u16>,
    #[serde(rename = "MTU")]
    mtu: Option<u32>,
    direct_routing: bool,
    #[serde(rename = "GBP")]
    gbp: bool,
    learning: bool,
}

/// How packets travel between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// In UDP packets.
    Vxlan {
        /// The network identifier.
        vni: u32,
        /// The UDP port.
        port: u16,
    },
    /// By routes: all nodes are on one link.
    HostGw,
}

impl Backend {
    /// Its name in the node's annotation.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Backend::Vxlan { .. } => "vxlan",
            Backend::HostGw => "host-gw",
        }
    }

    /// Bytes of every packet that it takes for itself.
    pub(crate) fn overhead(self) -> u32 {
        match self {
            Backend::Vxlan { .. } => 50,
            Backend::HostGw => 0,
        }
    }
}

/// The network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) range: Ipv4Net,
    pub(crate) backend: Backend,
    pub(crate) mtu: Option<u32>,
}

/// Reads `net-conf.json`.
pub(crate) fn read(path: &str) -> anyhow::Result<Network> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    parse(&text).with_context(|| format!("in {path}"))
}

fn parse(text: &str) -> anyhow::Result<Network> {
    let file: File = serde_json::from_str(text)?;
    ensure!(!file.enable_ipv6, "EnableIPv6 is not supported");
    ensure!(!file.enable_nftables, "EnableNFTables is not supported");
    let backend = match file.backend.r#type.as_str() {
        "vxlan" => {
            let unsupported = file.backend.direct_routing || file.backend.gbp || file.backend.learning;
            ensure!(!unsupported, "DirectRouting, GBP and Learning are not supported");
            Backend::Vxlan { vni: file.backend.vni.unwrap_or(1), port: file.backend.port.unwrap_or(8472) }
        }
        "host-gw" => Backend::HostGw,
        other => bail!("backend type {other:?} is not supported: only \"vxlan\" and \"host-gw\" are"),
    };
    Ok(Network { range: file.network.trunc(), backend, mtu: file.backend.mtu })
}

/// What the CNI plugin reads.
pub(crate) fn subnet_env(network: &Network, subnet: Ipv4Net, mtu: u32, masquerade: bool) -> String {
    let first = subnet.hosts().next().unwrap_or(subnet.addr());
    format!(
        "FLANNEL_NETWORK={}\nFLANNEL_SUBNET={first}/{}\nFLANNEL_MTU={mtu}\nFLANNEL_IPMASQ={masquerade}\n",
        network.range,
        subnet.prefix_len()
    )
}

/// The CNI configuration that upstream's manifest carries.
pub(crate) const CONFLIST: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
"#;

/// Writes a file in one step, so that no reader sees half of it.
pub(crate) fn write_file(path: &str, text: &str) -> io::Result<()> {
    let path = Path::new(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let fresh = path.with_extension("new");
    fs::write(&fresh, text)?;
    fs::rename(fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_read_and_what_is_not_supported_refused() {
        let vxlan = parse(r#"{"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}}"#).unwrap();
        assert_eq!(vxlan.backend, Backend::Vxlan { vni: 1, port: 8472 });
        assert_eq!(
            subnet_env(&vxlan, "10.42.3.0/24".parse().unwrap(), 1450, true),
            "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        );
        let direct = parse(r#"{"Network":"10.42.0.0/16","Backend":{"Type":"host-gw","MTU":1400}}"#).unwrap();
        assert_eq!((direct.backend, direct.mtu), (Backend::HostGw, Some(1400)));
        for bad in [
            r#"{"Network":"10.42.0.0/16","Backend":{"Type":"wireguard"}}"#,
            r#"{"Network":"10.42.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#,
            r#"{"Network":"10.42.0.0/16","EnableIPv6":true,"Backend":{"Type":"vxlan"}}"#,
            r#"{"Backend":{"Type":"vxlan"}}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
