//! Configuration files of the daemons, and the settings of the kernel that a node needs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cluster::{
    CNI_BIN, CNI_CONF, Cluster, DATA, DNS_SERVICE, DOMAIN, KUBERNETES, LOGS, PAUSE_IMAGE, POD_RANGE, RUN,
};
use crate::files::{folder_at, write};
use crate::process::CONTAINERD_SOCKET;

/// Writes what is missing or has changed.
pub fn ensure(cluster: &Cluster) -> Result<()> {
    for folder in [DATA, RUN, LOGS, CNI_CONF, CNI_BIN, "/var/lib/kubelet", "/etc/kubernetes/manifests"] {
        folder_at(Path::new(folder))?;
    }
    // etcd refuses a folder that others can read.
    fs::DirBuilder::new().recursive(true).create(format!("{DATA}/etcd"))?;
    set_mode(&format!("{DATA}/etcd"), 0o700)?;
    write(&Path::new(DATA).join("containerd.toml"), containerd().as_bytes(), 0o644)?;
    write(Path::new("/var/lib/kubelet/config.yaml"), kubelet().as_bytes(), 0o600)?;
    write(&Path::new(DATA).join("kube-proxy.yaml"), kube_proxy().as_bytes(), 0o644)?;
    let network = format!("{{\"Network\": \"{POD_RANGE}\", \"Backend\": {{\"Type\": \"vxlan\"}}}}\n");
    write(&Path::new(DATA).join("net-conf.json"), network.as_bytes(), 0o644)?;
    write(&Path::new(CNI_CONF).join("10-flannel.conflist"), CONFLIST.as_bytes(), 0o644)?;
    plugins(cluster)?;
    kernel()
}

const CONFLIST: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
"#;

fn set_mode(path: &str, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {path}"))
}

/// The CNI plug-ins stand in one folder: Debian's and ours.
fn plugins(cluster: &Cluster) -> Result<()> {
    let debian = Path::new("/usr/lib/cni");
    for entry in fs::read_dir(debian)
        .context("reading /usr/lib/cni: is the package containernetworking-plugins installed?")?
    {
        let entry = entry?;
        link(&entry.path(), &Path::new(CNI_BIN).join(entry.file_name()))?;
    }
    link(&cluster.binary("flannel"), &Path::new(CNI_BIN).join("flannel"))
}

fn link(target: &Path, at: &Path) -> Result<()> {
    if fs::read_link(at).is_ok_and(|t| t == target) {
        return Ok(());
    }
    if at.symlink_metadata().is_ok() {
        fs::remove_file(at).with_context(|| format!("replacing {}", at.display()))?;
    }
    std::os::unix::fs::symlink(target, at).with_context(|| format!("linking {}", at.display()))
}

/// Forwarding, and bridged packets through the packet filter.
fn kernel() -> Result<()> {
    for (file, required) in [
        ("/proc/sys/net/ipv4/ip_forward", true),
        ("/proc/sys/net/bridge/bridge-nf-call-iptables", false),
        ("/proc/sys/net/bridge/bridge-nf-call-ip6tables", false),
    ] {
        match fs::write(file, "1") {
            Ok(()) => {}
            Err(e) if !required => tracing::warn!(file, error = %e, "not set: load the module br_netfilter"),
            Err(e) => return Err(e).with_context(|| format!("setting {file}")),
        }
    }
    Ok(())
}

/// True when this process may raise limits of others; without it no container may have a negative OOM score.
fn may_adjust_oom_score() -> bool {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(str::trim);
    effective
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .is_some_and(|caps| caps & CAP_SYS_RESOURCE != 0)
}

fn containerd() -> String {
    format!(
        r#"version = 2
root = "{DATA}/containerd"
state = "{RUN}/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = {restrict}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_BIN}"
    conf_dir = "{CNI_CONF}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#,
        restrict = !may_adjust_oom_score()
    )
}

/// True where cgroup v1 is what there is.
fn cgroup_v1() -> bool {
    !Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The machine is often one that does other things too: its disk may be fuller than upstream's thresholds allow.
const DISK_PRESSURE: &str = "evictionHard:
  memory.available: 100Mi
  nodefs.available: 5%
  nodefs.inodesFree: 5%
  imagefs.available: 5%
  imagefs.inodesFree: 5%
imageGCHighThresholdPercent: 94
imageGCLowThresholdPercent: 90
";

fn kubelet() -> String {
    let fail = if cgroup_v1() { "failCgroupV1: false\n" } else { "" };
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
  x509:
    clientCAFile: {KUBERNETES}/pki/ca.crt
authorization:
  mode: Webhook
cgroupDriver: cgroupfs
clusterDNS:
- {DNS_SERVICE}
clusterDomain: {DOMAIN}
containerRuntimeEndpoint: unix://{CONTAINERD_SOCKET}
failSwapOn: false
healthzBindAddress: 127.0.0.1
healthzPort: 10248
staticPodPath: {KUBERNETES}/manifests
{fail}{DISK_PRESSURE}"
    )
}

fn kube_proxy() -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: 0.0.0.0
clientConnection:
  kubeconfig: {KUBERNETES}/kube-proxy.conf
clusterCIDR: {POD_RANGE}
mode: iptables
"
    )
}
