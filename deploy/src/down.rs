//! `ferrite down`: stops the cluster and removes what it made on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::{Cluster, DATA, KUBERNETES, LOGS, RUN};
use crate::process::CONTAINERD_SOCKET;
use crate::systemd;
use crate::up::supervisor;

/// Links that the network made.
const LINKS: [&str; 2] = ["flannel.1", "cni0"];
/// Begin of the names of packet-filter chains that belong to the cluster.
const CHAINS: [&str; 3] = ["KUBE-", "FLANNEL-", "CNI-"];

/// Takes the cluster down.
pub fn run(purge: bool) -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("only root can remove what up made: run this as root");
    }
    stop_daemons()?;
    end_pods();
    end_shims();
    // Kubelets may mount their own folder on itself.
    unmount(&[RUN, "/var/lib/kubelet", "/run/netns", "/run/flannel"], "/var/lib/kubelet");
    for link in LINKS {
        quietly("ip", &["link", "delete", link]);
    }
    for save in ["iptables", "ip6tables"] {
        remove_chains(save);
    }
    for path in [RUN, "/run/flannel", "/etc/cni/net.d/10-flannel.conflist", "/var/lib/cni"] {
        remove(path);
    }
    if purge {
        for path in [
            DATA,
            KUBERNETES,
            LOGS,
            "/var/lib/kubelet",
            "/var/log/pods",
            "/var/log/containers",
            "/opt/local-path-provisioner",
            "/etc/ferrite",
        ] {
            remove(path);
        }
    }
    println!("The cluster is down{}.", if purge { " and its data is gone" } else { "; its data is kept" });
    Ok(())
}

fn quietly(program: &str, words: &[&str]) -> bool {
    Command::new(program).args(words).output().is_ok_and(|o| o.status.success())
}

fn remove(path: &str) {
    let path = Path::new(path);
    let result = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    if let Err(e) = result
        && e.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("not removed: {}: {e}", path.display());
    }
}

/// Sends a signal; a process that is gone already is fine.
fn end(pid: Pid, signal: Signal) {
    match kill(pid, signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(e) => eprintln!("process {pid} was not ended: {e}"),
    }
}

/// The control groups of pods, in every hierarchy, the deepest first.
fn pod_groups() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut groups = Vec::new();
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().filter_map(|e| Some(e.ok()?.path()));
    for top in hierarchies.chain([root.to_owned()]) {
        collect(&top.join("kubepods"), &mut groups);
    }
    groups
}

fn collect(group: &Path, groups: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(group) else { return };
    for entry in entries.filter_map(|e| e.ok()).filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        collect(&entry.path(), groups);
    }
    groups.push(group.to_owned());
}

/// Ends every process of every pod, and removes the pods' control groups.
fn end_pods() {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let groups = pod_groups();
        let mut alive = false;
        for group in &groups {
            for pid in std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
                alive = true;
                if let Ok(pid) = pid.parse() {
                    end(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
        if !alive || Instant::now() > limit {
            for group in groups {
                drop(std::fs::remove_dir(group));
            }
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn stop_daemons() -> Result<()> {
    if systemd::is_here()
        && let Some(cluster) = Cluster::load()?
    {
        systemd::stop(&cluster);
    }
    let Some(pid) = supervisor() else { return Ok(()) };
    kill(pid, Signal::SIGTERM)?;
    let limit = Instant::now() + Duration::from_secs(120);
    while supervisor().is_some() {
        if Instant::now() > limit {
            bail!("the supervisor (process {pid}) does not end");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Ends what holds containers of this cluster: shims outlive their containerd.
fn end_shims() {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    for pid in entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok()) {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command.contains("containerd-shim-runc-v2") && command.contains(CONTAINERD_SOCKET) {
            end(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Unmounts what is mounted below folders, and on `itself`. What lies under another mount shows when that is gone.
fn unmount(folders: &[&str], itself: &str) {
    loop {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|l| l.split(' ').nth(1)).map(|p| p.replace("\\040", " "));
        let mut points: Vec<String> = points
            .filter(|p| p == itself || folders.iter().any(|f| p.starts_with(&format!("{f}/"))))
            .collect();
        points.sort_by_key(|p| std::cmp::Reverse(p.len()));
        let (mut failed, mut went) = (Vec::new(), false);
        for point in points {
            match umount2(point.as_str(), MntFlags::MNT_DETACH) {
                Ok(()) => went = true,
                Err(e) => failed.push(format!("not unmounted: {point}: {e}")),
            }
            if point.starts_with("/run/netns/") {
                remove(&point);
            }
        }
        if !went {
            failed.iter().for_each(|failure| eprintln!("{failure}"));
            return;
        }
    }
}

/// Removes the cluster's chains and the rules that lead to them, and leaves everything else as it is.
fn remove_chains(family: &str) {
    let Ok(saved) = Command::new(format!("{family}-save")).output() else { return };
    let saved = String::from_utf8_lossy(&saved.stdout).into_owned();
    let restore = without_chains(&saved);
    if restore == saved {
        return;
    }
    use std::io::Write;
    let child = Command::new(format!("{family}-restore")).stdin(std::process::Stdio::piped()).spawn();
    let done = child.and_then(|mut child| {
        if let Some(stdin) = child.stdin.take() {
            let mut stdin = stdin;
            stdin.write_all(restore.as_bytes())?;
        }
        child.wait()
    });
    if !done.is_ok_and(|s| s.success()) {
        eprintln!("the rules of {family} were not cleaned");
    }
}

fn without_chains(saved: &str) -> String {
    let ours = |line: &&str| CHAINS.iter().any(|c| line.contains(c));
    saved.lines().filter(|l| !ours(l)).map(|l| format!("{l}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clusters_chains_and_rules_go() {
        let saved = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:DOCKER - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n-A PREROUTING -j DOCKER\nCOMMIT\n";
        let left = "*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n-A PREROUTING -j DOCKER\nCOMMIT\n";
        assert_eq!(without_chains(saved), left);
    }
}
