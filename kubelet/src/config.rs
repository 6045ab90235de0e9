//! The validated configuration: the file (KubeletConfiguration v1beta1), then the flags.

mod file;
mod managers;
pub(crate) mod reserved;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::args::Args;
use crate::groups::GroupNames;
use crate::managers::cpuset::CpuSet;

pub use file::KubeletConfiguration;
pub(crate) use file::{API_VERSION, KIND};
pub use managers::{ManagerSettings, MemoryReservation};
pub use reserved::ReservedSettings;

/// Everything the kubelet was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name.
    pub node_name: String,
    /// The host's own name.
    pub hostname: String,
    /// The node's addresses, the most important first.
    pub node_ips: Vec<IpAddr>,
    /// The kubeconfig file, unless the kubelet stands alone.
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig file to ask for a client certificate with, when the first has none that counts.
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// The runtime's socket, without `unix://`.
    pub runtime_socket: PathBuf,
    /// The image service's socket.
    pub image_socket: PathBuf,
    /// The kubelet's files.
    pub root: PathBuf,
    /// The folder of certificates.
    pub cert_dir: PathBuf,
    /// Where :10250 is served.
    pub address: SocketAddr,
    /// Where :10248 is served.
    pub healthz: Option<SocketAddr>,
    /// Labels to register with.
    pub labels: Vec<(String, String)>,
    /// The configuration of credential providers; empty when there are none.
    pub credential_providers: PathBuf,
    /// The folder of their programs.
    pub credential_provider_dir: PathBuf,
    /// An outside cloud controller finishes the node.
    pub external_cloud: bool,
    /// What :10250 offers in the handshake.
    pub tls_policy: serve::tls::Policy,
    /// The runtime's own control group, for figures; empty when it is not known.
    pub runtime_group: String,
    /// What control groups are called.
    pub groups: GroupNames,
    /// The file's own fields, flags merged in.
    pub file: KubeletConfiguration,
}

impl Config {
    /// Reads the file that the flags name and checks everything.
    pub fn load(args: &Args) -> anyhow::Result<Self> {
        args.fixed.check().map_err(anyhow::Error::msg)?;
        let mut document = file::read(&args.config, &args.config_dir)?;
        args.fields.apply(&mut document).map_err(anyhow::Error::msg)?;
        let mut file = file::decode(document)?;
        file.validate()?;
        reserve(&mut file, Path::new(crate::managers::machine::SYS))?;
        if !matches!(args.cloud_provider.as_str(), "" | "external") {
            bail!("--cloud-provider={} is not supported: only \"external\" is", args.cloud_provider);
        }
        let tls_policy = serve::tls::Policy::parse(&file.tls_min_version, &file.tls_cipher_suites);
        let tls_policy = tls_policy.map_err(|why| anyhow::anyhow!("invalid configuration: {why}"))?;
        let kubeconfig = kubeconfig(args)?;
        let hostname = linux::facts::read().context("cannot read the machine's facts")?.hostname;
        let name = if args.hostname_override.is_empty() { &hostname } else { &args.hostname_override };
        let runtime_socket = socket(&file.container_runtime_endpoint)?;
        let image_socket = match file.image_service_endpoint.as_str() {
            "" => runtime_socket.clone(),
            endpoint => socket(endpoint)?,
        };
        let ip = |text: &str| text.parse::<IpAddr>().with_context(|| format!("invalid address {text:?}"));
        let address = SocketAddr::new(ip(&file.address)?, file.port);
        let healthz_ip = ip(&file.healthz_bind_address)?;
        Ok(Self {
            node_name: name.trim().to_lowercase(),
            node_ips: node_ips(&args.node_ip)?,
            kubeconfig,
            bootstrap_kubeconfig: (!args.bootstrap_kubeconfig.is_empty())
                .then(|| PathBuf::from(&args.bootstrap_kubeconfig)),
            runtime_socket,
            image_socket,
            root: args.root_dir.clone(),
            cert_dir: args.cert_dir.clone(),
            address,
            healthz: (file.healthz_port != 0).then(|| SocketAddr::new(healthz_ip, file.healthz_port)),
            labels: args.node_labels.0.clone().into_iter().collect(),
            credential_providers: PathBuf::from(&args.image_credential_provider_config),
            credential_provider_dir: PathBuf::from(&args.image_credential_provider_bin_dir),
            tls_policy,
            runtime_group: args.runtime_cgroups.clone(),
            groups: GroupNames::new(&file.cgroup_driver, &file.cgroup_root),
            external_cloud: args.cloud_provider == "external",
            file,
            hostname,
        })
    }

    /// Whether there is no API server: only static pods are run.
    pub fn stands_alone(&self) -> bool {
        self.kubeconfig.is_none()
    }

    /// The folder of a pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// The folder of a pod's logs.
    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        Path::new(&self.file.pod_logs_dir).join(format!("{namespace}_{name}_{uid}"))
    }

    /// The longest pause between two looks at a pod.
    pub fn sync_frequency(&self) -> Duration {
        self.file.sync_frequency.0
    }
}

fn kubeconfig(args: &Args) -> anyhow::Result<Option<PathBuf>> {
    if args.kubeconfig.is_empty() {
        if !args.bootstrap_kubeconfig.is_empty() {
            bail!("--bootstrap-kubeconfig needs --kubeconfig, the file that is written");
        }
        return Ok(None);
    }
    let path = PathBuf::from(&args.kubeconfig);
    if !path.exists() && args.bootstrap_kubeconfig.is_empty() {
        bail!(
            "the kubeconfig file {} does not exist, and there is no --bootstrap-kubeconfig",
            path.display()
        );
    }
    Ok(Some(path))
}

fn socket(endpoint: &str) -> anyhow::Result<PathBuf> {
    match endpoint.strip_prefix("unix://") {
        Some(path) => Ok(path.into()),
        None if endpoint.starts_with('/') => Ok(endpoint.into()),
        None => bail!("the container runtime endpoint {endpoint:?} is no unix socket"),
    }
}

fn node_ips(flag: &str) -> anyhow::Result<Vec<IpAddr>> {
    let mut ips = Vec::new();
    for text in flag.split(',').filter(|text| !text.is_empty()) {
        ips.push(text.trim().parse().with_context(|| format!("--node-ip: invalid address {text:?}"))?);
    }
    if ips.is_empty() {
        ips.extend(default_ip());
    }
    Ok(ips)
}

/// The address from which this machine would reach the world; no packet is sent.
fn default_ip() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Has the processors that are reserved one by one stand in place of how many there are to be.
fn reserve(file: &mut KubeletConfiguration, sys: &Path) -> anyhow::Result<()> {
    let text = &file.managers.reserved_system_cpus;
    let cpus: CpuSet = text.parse().map_err(anyhow::Error::msg)?;
    if cpus.is_empty() {
        return Ok(());
    }
    let online = crate::managers::machine::Machine::read(sys, 0)?.all();
    if !cpus.is_subset(&online) {
        bail!("reserved-cpus: {text} is not a subset of online-cpus: {online}");
    }
    file.kube_reserved.remove("cpu");
    file.system_reserved.insert("cpu".to_owned(), cpus.len().to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_are_reserved_one_by_one_stand_for_their_number() {
        let dir = tempfile::tempdir().unwrap();
        crate::managers::machine::tests::lay(dir.path(), 1, 1, 2, 2);
        let document = serde_json::json!({
            "reservedSystemCPUs": "0,2",
            "kubeReserved": {"cpu": "1", "memory": "1Gi"},
        });
        let mut file = file::decode(document.as_object().cloned().unwrap()).unwrap();
        reserve(&mut file, dir.path()).unwrap();
        assert_eq!(file.system_reserved, [("cpu".to_owned(), "2".to_owned())].into());
        assert_eq!(file.kube_reserved, [("memory".to_owned(), "1Gi".to_owned())].into());
        file.managers.reserved_system_cpus = "3-4".to_owned();
        let error = reserve(&mut file, dir.path()).unwrap_err().to_string();
        assert_eq!(error, "reserved-cpus: 3-4 is not a subset of online-cpus: 0-3");
    }

    #[test]
    fn sockets_are_unix_sockets() {
        assert_eq!(socket("unix:///run/x.sock").unwrap(), Path::new("/run/x.sock"));
        assert_eq!(socket("/run/x.sock").unwrap(), Path::new("/run/x.sock"));
        assert!(socket("tcp://localhost:1").is_err());
    }
}
