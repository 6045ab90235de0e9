//! `ferrite up`: from nothing to a Ready node with its add-ons, step by step.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::addons::{self, kubectl};
use crate::args::UpOptions;
use crate::cluster::{Cluster, KUBERNETES, LOGS};
use crate::{config, image, pki, process, systemd};

const SYSTEM_PODS: [&str; 3] =
    ["deployment/coredns", "deployment/local-path-provisioner", "daemonset/ingress-controller"];

/// Brings the cluster up.
pub fn run(options: UpOptions) -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("only root can start containers and set up networks: run this as root");
    }
    let started = Instant::now();
    let step = |text: &str| println!("[{:>5.1}s] {text}", started.elapsed().as_secs_f32());
    let cluster = Cluster::new(&options)?;
    step(&format!("node {} at {}", cluster.node_name, cluster.node_ip));
    pki::ensure(&cluster)?;
    step("certificates and kubeconfigs are in /etc/kubernetes");
    config::ensure(&cluster)?;
    cluster.save()?;
    step("configuration is written");
    if systemd::is_here() {
        systemd::start(&cluster)?
    } else {
        with_supervisor()?
    }
    step(&format!("daemons are started; their logs: {}", logs()));
    wait("containerd", Duration::from_secs(30), || Ok(Path::new(process::CONTAINERD_SOCKET).exists()))?;
    image::ensure(&cluster)?;
    step("system images are imported");
    wait("the API server", Duration::from_secs(60), || Ok(kubectl(&["get", "--raw", "/readyz"]).is_ok()))?;
    step("the API server is ready");
    addons::apply(&cluster, &options.addons)?;
    step("add-ons are applied");
    wait("the node", Duration::from_secs(120), || {
        let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        Ok(kubectl(&["get", "node", &cluster.node_name, "-o", path]).is_ok_and(|s| s.trim() == "True"))
    })?;
    step("the node is Ready");
    for workload in SYSTEM_PODS {
        kubectl(&["--namespace=kube-system", "rollout", "status", workload, "--timeout=180s"])?;
        step(&format!("{workload} is running"));
    }
    println!(
        "\nThe cluster is up.\n  use it:   export KUBECONFIG={KUBERNETES}/admin.conf; kubectl get nodes\n  stop it:  deploy/down.sh          (with --purge to remove its data too)\n"
    );
    Ok(())
}

/// Where the logs of the daemons are.
fn logs() -> &'static str {
    if systemd::is_here() { "journalctl -u 'ferrite-*'" } else { LOGS }
}

/// Waits for a condition, and says what it waited for when that does not come.
fn wait(what: &str, limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !holds()? {
        if started.elapsed() > limit {
            bail!("{what} is not ready after {} s; look into {}", limit.as_secs(), logs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// True while the supervisor of an earlier `up` runs.
pub fn supervisor() -> Option<Pid> {
    let text = std::fs::read_to_string(process::supervisor_pid()).ok()?;
    let pid = Pid::from_raw(text.trim().parse().ok()?);
    let alive = kill(pid, None).is_ok();
    let ours = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains("supervise"));
    (alive && ours).then_some(pid)
}

/// Starts the supervisor in a session of its own, unless it runs.
fn with_supervisor() -> Result<()> {
    if supervisor().is_some() {
        return Ok(());
    }
    let log = OpenOptions::new().create(true).append(true).open(Path::new(LOGS).join("supervisor.log"))?;
    Command::new(std::env::current_exe()?)
        .arg("supervise")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("starting the supervisor")?;
    wait("the supervisor", Duration::from_secs(10), || Ok(supervisor().is_some()))
}
