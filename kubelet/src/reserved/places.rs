//! Where the kubelet runs, and everything else that is in no group: the configuration may have groups for them.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use linux::cgroup::Cgroups;

use crate::Kubelet;
use crate::config::ReservedSettings;

/// What has come up in the wrong place is moved this often.
const PERIOD: Duration = Duration::from_secs(60);
/// Those who start processes meanwhile are faster than one round.
const ROUNDS: usize = 10;

/// Moves processes to where the configuration has them, until the process ends.
pub(crate) async fn keep(kubelet: Arc<Kubelet>) {
    loop {
        for error in put(&kubelet.cgroups, &kubelet.config.file.reserved) {
            tracing::info!(%error, "Failed to ensure state");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Moves what is in the wrong place.
fn put(cgroups: &Cgroups, settings: &ReservedSettings) -> Vec<io::Error> {
    let mut errors = Vec::new();
    if !settings.system_cgroups.is_empty() {
        errors.extend(gather(cgroups, &settings.system_cgroups).err());
    }
    match in_host_namespace() {
        Ok(true) => {}
        // Inside of a container it is not for the kubelet to say where it runs.
        Ok(false) => return errors,
        Err(error) => {
            errors.push(error);
            return errors;
        }
    }
    let group = settings.kubelet_cgroups.as_str();
    if !group.is_empty() && cgroups.own().is_none_or(|own| own != group) {
        errors.extend(cgroups.move_process(group, own_pid()).err());
    }
    // The kernel lets few have less than they began with.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", settings.oom_score_adj.to_string()) {
        tracing::debug!(%error, score = settings.oom_score_adj, "Cannot set how willingly the kernel kills the kubelet");
    }
    errors
}

fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

fn in_host_namespace() -> io::Result<bool> {
    let namespace = |process: &str| {
        let link = format!("/proc/{process}/ns/pid");
        fs::read_link(&link).map_err(|error| io::Error::new(error.kind(), format!("{link}: {error}")))
    };
    Ok(namespace("1")? == namespace("self")?)
}

/// Moves all processes that are in no group into one, but for the first of all and the kernel's own.
fn gather(cgroups: &Cgroups, group: &str) -> io::Result<()> {
    let mut failed = Ok(());
    for _ in 0..ROUNDS {
        let lost: Vec<i32> =
            cgroups.processes("").into_iter().filter(|pid| *pid != 1 && !is_kernel(*pid)).collect();
        if lost.is_empty() {
            return Ok(());
        }
        failed = lost.into_iter().try_for_each(|pid| cgroups.move_process(group, pid));
    }
    failed
}

/// A thread of the kernel has no program.
fn is_kernel(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_without_a_group_are_moved_into_one() {
        let root = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::V2 { root: root.path().to_owned() };
        let other = testing::Process::start("sleep", &["60"], &root.path().join("log")).unwrap();
        let pid = other.id() as i32;
        fs::write(root.path().join("cgroup.procs"), format!("1\n{pid}\n")).unwrap();
        gather(&cgroups, "/misc").unwrap();
        assert_eq!(fs::read_to_string(root.path().join("misc/cgroup.procs")).unwrap(), pid.to_string());
        other.kill().unwrap();
    }

    #[test]
    fn the_kubelet_is_moved_into_its_group() {
        let root = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::V2 { root: root.path().to_owned() };
        let settings = ReservedSettings {
            kubelet_cgroups: "/kubelet".to_owned(),
            oom_score_adj: 0,
            ..Default::default()
        };
        assert_eq!(put(&cgroups, &settings).len(), usize::from(in_host_namespace().is_err()));
        let moved = fs::read_to_string(root.path().join("kubelet/cgroup.procs")).ok();
        let host = in_host_namespace().unwrap_or_default();
        assert_eq!(moved, host.then(|| own_pid().to_string()));
    }
}
