//! What a cluster is: names, addresses, ranges, folders. Written once by `up` and read by everything else.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::args::UpOptions;

/// Where everything of the cluster but its configuration is kept.
pub const DATA: &str = "/var/lib/ferrite";
/// Sockets and process ids.
pub const RUN: &str = "/run/ferrite";
/// A log per daemon.
pub const LOGS: &str = "/var/log/ferrite";
/// Certificates and kubeconfigs, as kubeadm lays them out.
pub const KUBERNETES: &str = "/etc/kubernetes";
/// CNI configuration.
pub const CNI_CONF: &str = "/etc/cni/net.d";
/// CNI plug-ins.
pub const CNI_BIN: &str = "/opt/cni/bin";
/// Addresses of pods.
pub const POD_RANGE: &str = "10.42.0.0/16";
/// Addresses of Services.
pub const SERVICE_RANGE: &str = "10.43.0.0/16";
/// The Service of the API.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 1);
/// The Service of the cluster's DNS.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);
/// The domain of the cluster.
pub const DOMAIN: &str = "cluster.local";
/// Port of the API server.
pub const API_PORT: u16 = 6443;
/// Image of pod sandboxes.
pub const PAUSE_IMAGE: &str = "ferrite.local/pause:latest";

/// A cluster on this machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// Name of the node.
    pub node_name: String,
    /// Address of the node.
    pub node_ip: Ipv4Addr,
    /// Where the daemons are.
    pub bin_dir: PathBuf,
}

impl Cluster {
    /// The cluster that the options describe.
    pub fn new(options: &UpOptions) -> Result<Self> {
        let node_name = match &options.node_name {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname()?.to_string_lossy().to_lowercase(),
        };
        let bin_dir = bin_dir(options.bin_dir.as_deref())?;
        let node_ip = options.node_ip.map_or_else(default_address, Ok)?;
        Ok(Self { node_name, node_ip, bin_dir })
    }

    /// The cluster that `up` made, if any.
    pub fn load() -> Result<Option<Self>> {
        let path = Self::path();
        match std::fs::read(&path) {
            Ok(text) => Ok(Some(
                serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?,
            )),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Writes it down for the next start.
    pub fn save(&self) -> Result<()> {
        crate::files::write(&Self::path(), serde_json::to_vec_pretty(self)?.as_slice(), 0o644)?;
        Ok(())
    }

    fn path() -> PathBuf {
        Path::new(DATA).join("cluster.json")
    }

    /// A daemon's binary.
    pub fn binary(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }
}

/// Where the daemons are: the folder given, or that of this program.
pub fn bin_dir(given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(dir) => dir.canonicalize().with_context(|| format!("--bin-dir {} is not there", dir.display())),
        None => Ok(std::env::current_exe()?.parent().context("this program has no folder")?.to_owned()),
    }
}

/// The address that packets to others leave from. Connecting a datagram socket sends nothing.
fn default_address() -> Result<Ipv4Addr> {
    let probe = std::net::UdpSocket::bind("0.0.0.0:0")
        .and_then(|s| s.connect("192.0.2.1:9").and_then(|()| s.local_addr()))
        .map(|a| a.ip());
    match probe {
        Ok(IpAddr::V4(ip)) if !ip.is_loopback() => Ok(ip),
        _ => bail!("this machine has no address to reach others from: name one with --node-ip"),
    }
}
