//! The processes of a cluster: what is started, in which order, with which flags.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::cluster::{API_PORT, Cluster, DATA, DOMAIN, KUBERNETES, POD_RANGE, RUN, SERVICE_RANGE};

/// The socket of the cluster's containerd.
pub const CONTAINERD_SOCKET: &str = "/run/ferrite/containerd/containerd.sock";

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Name, also of its log and its unit.
    pub name: &'static str,
    /// Program.
    pub program: PathBuf,
    /// Flags.
    pub args: Vec<String>,
    /// Environment besides the inherited.
    pub env: Vec<(&'static str, String)>,
}

fn pki(file: &str) -> String {
    format!("{KUBERNETES}/pki/{file}")
}

/// All processes, in the order of their start.
pub fn all(cluster: &Cluster) -> Vec<Process> {
    vec![
        etcd(cluster),
        containerd(),
        apiserver(cluster),
        controller_manager(cluster),
        scheduler(cluster),
        kubelet(cluster),
        flanneld(cluster),
        kube_proxy(cluster),
    ]
}

fn system(name: &'static str, args: Vec<String>) -> Process {
    Process { name, program: PathBuf::from(name), args, env: Vec::new() }
}

fn own(cluster: &Cluster, name: &'static str, args: Vec<String>) -> Process {
    Process { name, program: cluster.binary(name), args, env: Vec::new() }
}

fn etcd(cluster: &Cluster) -> Process {
    let client = "https://127.0.0.1:2379";
    let peer = "https://127.0.0.1:2380";
    system(
        "etcd",
        vec![
            format!("--name={}", cluster.node_name),
            format!("--data-dir={DATA}/etcd"),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}={peer}", cluster.node_name),
            "--client-cert-auth=true".to_owned(),
            format!("--trusted-ca-file={}", pki("etcd/ca.crt")),
            format!("--cert-file={}", pki("etcd/server.crt")),
            format!("--key-file={}", pki("etcd/server.key")),
            "--peer-client-cert-auth=true".to_owned(),
            format!("--peer-trusted-ca-file={}", pki("etcd/ca.crt")),
            format!("--peer-cert-file={}", pki("etcd/server.crt")),
            format!("--peer-key-file={}", pki("etcd/server.key")),
            "--snapshot-count=10000".to_owned(),
        ],
    )
}

fn containerd() -> Process {
    system("containerd", vec!["--config".to_owned(), format!("{DATA}/containerd.toml")])
}

fn apiserver(cluster: &Cluster) -> Process {
    let ip = cluster.node_ip;
    own(
        cluster,
        "kube-apiserver",
        vec![
            format!("--advertise-address={ip}"),
            "--allow-privileged=true".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!("--client-ca-file={}", pki("ca.crt")),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--enable-bootstrap-token-auth=true".to_owned(),
            format!("--etcd-cafile={}", pki("etcd/ca.crt")),
            format!("--etcd-certfile={}", pki("apiserver-etcd-client.crt")),
            format!("--etcd-keyfile={}", pki("apiserver-etcd-client.key")),
            "--etcd-servers=https://127.0.0.1:2379".to_owned(),
            format!("--kubelet-client-certificate={}", pki("apiserver-kubelet-client.crt")),
            format!("--kubelet-client-key={}", pki("apiserver-kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname".to_owned(),
            format!("--proxy-client-cert-file={}", pki("front-proxy-client.crt")),
            format!("--proxy-client-key-file={}", pki("front-proxy-client.key")),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
            format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            format!("--secure-port={API_PORT}"),
            format!("--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}"),
            format!("--service-account-key-file={}", pki("sa.pub")),
            format!("--service-account-signing-key-file={}", pki("sa.key")),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
        ],
    )
}

fn kubeconfig(file: &str) -> String {
    format!("--kubeconfig={KUBERNETES}/{file}")
}

fn delegated(file: &str) -> [String; 3] {
    [
        kubeconfig(file),
        format!("--authentication-kubeconfig={KUBERNETES}/{file}"),
        format!("--authorization-kubeconfig={KUBERNETES}/{file}"),
    ]
}

fn controller_manager(cluster: &Cluster) -> Process {
    let mut args = delegated("controller-manager.conf").to_vec();
    args.extend([
        "--allocate-node-cidrs=true".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--cluster-cidr={POD_RANGE}"),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        "--leader-elect=true".to_owned(),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        "--use-service-account-credentials=true".to_owned(),
    ]);
    own(cluster, "kube-controller-manager", args)
}

fn scheduler(cluster: &Cluster) -> Process {
    let mut args = delegated("scheduler.conf").to_vec();
    args.extend(["--bind-address=127.0.0.1".to_owned(), "--leader-elect=true".to_owned()]);
    own(cluster, "kube-scheduler", args)
}

fn kubelet(cluster: &Cluster) -> Process {
    own(
        cluster,
        "kubelet",
        vec![
            "--config=/var/lib/kubelet/config.yaml".to_owned(),
            kubeconfig("kubelet.conf"),
            format!("--hostname-override={}", cluster.node_name),
            format!("--node-ip={}", cluster.node_ip),
        ],
    )
}

fn flanneld(cluster: &Cluster) -> Process {
    let mut process = own(
        cluster,
        "flanneld",
        vec![
            format!("--kubeconfig-file={KUBERNETES}/flannel.conf"),
            "--kube-subnet-mgr".to_owned(),
            "--ip-masq".to_owned(),
            format!("--net-config-path={DATA}/net-conf.json"),
        ],
    );
    process.env.push(("NODE_NAME", cluster.node_name.clone()));
    process
}

fn kube_proxy(cluster: &Cluster) -> Process {
    own(
        cluster,
        "kube-proxy",
        vec![
            format!("--config={DATA}/kube-proxy.yaml"),
            format!("--hostname-override={}", cluster.node_name),
        ],
    )
}

/// The address of the API server for this machine.
pub fn api_address(ip: Ipv4Addr) -> String {
    format!("{ip}:{API_PORT}")
}

/// Where the supervisor notes its process id.
pub fn supervisor_pid() -> PathBuf {
    Path::new(RUN).join("supervisor.pid")
}
