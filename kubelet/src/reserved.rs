//! What is kept for the machine and for Kubernetes itself: pods as a whole are held to the rest, and, where the
//! configuration asks for it, the groups of the machine's and Kubernetes' own processes to what is kept for them.

mod places;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use api::quantity::{Format, Quantity};
use linux::cgroup::{Cgroups, Limits, Missing};

use crate::Kubelet;
use crate::config::{KubeletConfiguration, reserved as keys};
use crate::eviction;
use crate::groups::Existing;
use crate::pods::resources;

pub(crate) use places::keep;

/// How long a limit waits that could not be set.
const PAUSE: Duration = Duration::from_secs(60);
const ENFORCED: &str = "NodeAllocatableEnforced";
const FAILED: &str = "FailedNodeAllocatableEnforcement";

type Amounts = BTreeMap<String, String>;

/// An amount of a resource: thousandths of a processor, or units of everything else.
fn amount(amounts: &Amounts, resource: &str) -> Option<i64> {
    let quantity: Quantity = amounts.get(resource)?.parse().ok()?;
    Some(if resource == "cpu" { quantity.millis() } else { quantity.units() })
}

/// The limits of a group that has these amounts. `compressible`: of what can be taken away again alone.
fn limits(amounts: &Amounts, compressible: bool) -> Limits {
    let cpu_shares = amount(amounts, "cpu").map(resources::shares);
    if compressible {
        return Limits { cpu_shares, ..Limits::default() };
    }
    let (memory, pids) = (amount(amounts, "memory"), amount(amounts, "pid"));
    Limits { cpu_shares, memory, pids, ..Limits::default() }
}

/// What the machine has.
#[derive(Clone, Copy)]
struct Machine {
    /// Thousandths of a processor.
    cpu: i64,
    memory: i64,
    pids: Option<i64>,
}

/// The limits of all pods together: what the machine has, or the rest of it when they are held to that.
fn of_pods(file: &KubeletConfiguration, machine: Machine) -> Limits {
    let held = file.cgroups_per_qos && file.reserved.enforces(keys::PODS);
    let rest = |all: i64, resource: &str| {
        let kept = [&file.system_reserved, &file.kube_reserved];
        let kept: i64 = kept.iter().filter_map(|amounts| amount(amounts, resource)).sum();
        if held { (all - kept).max(0) } else { all }
    };
    Limits {
        cpu_shares: Some(resources::shares(rest(machine.cpu, "cpu"))),
        memory: Some(rest(machine.memory, "memory")),
        pids: machine.pids.map(|pids| rest(pids, "pid")),
        ..Limits::default()
    }
}

/// The limits of all pods together on this machine.
pub(crate) fn for_pods(kubelet: &Kubelet) -> Limits {
    let (cpu, memory) = (kubelet.facts.cpus as i64 * 1000, kubelet.facts.memory as i64);
    of_pods(&kubelet.config.file, Machine { cpu, memory, pids: eviction::most_processes() })
}

/// A group that is held to what is kept for it.
#[derive(Debug, PartialEq, Eq)]
struct Held<'a> {
    /// What it is called where it fails.
    what: &'static str,
    /// What it is called where it is done.
    whose: &'static str,
    group: &'a str,
    amounts: &'a Amounts,
    compressible: bool,
}

/// The groups that the configuration wants to be held to what is kept for them.
fn held(file: &KubeletConfiguration) -> Vec<Held<'_>> {
    let settings = &file.reserved;
    let (system, kube) = (
        ("system", settings.system_reserved_cgroup.as_str(), &file.system_reserved),
        ("kube", settings.kube_reserved_cgroup.as_str(), &file.kube_reserved),
    );
    [
        (keys::SYSTEM, "System Reserved", system, false),
        (keys::KUBE, "Kube Reserved", kube, false),
        (keys::SYSTEM_COMPRESSIBLE, "System Reserved Compressible", system, true),
        (keys::KUBE_COMPRESSIBLE, "Kube Reserved Compressible", kube, true),
    ]
    .into_iter()
    .filter(|(key, ..)| settings.enforces(key))
    .map(|(_, what, (whose, group, amounts), compressible)| Held {
        what,
        whose,
        group,
        amounts,
        compressible,
    })
    .collect()
}

/// Holds pods to the rest, in their own time, and the others to what is kept for them, at once.
pub(crate) async fn enforce(kubelet: &Arc<Kubelet>) -> anyhow::Result<()> {
    if kubelet.config.file.cgroups_per_qos {
        let this = kubelet.clone();
        kubelet.tasks.plain("node-allocatable", async move {
            tokio::select! {
                () = hold_pods(&this) => {}
                () = this.tasks.token().cancelled_owned() => {}
            }
            Ok(())
        });
    }
    for held in held(&kubelet.config.file) {
        let (group, node) = (held.group, kubelet.node_reference());
        if let Err(why) = hold(kubelet, &held).await {
            let message = format!("Failed to enforce {} Cgroup Limits on {group:?}: {why}", held.what);
            kubelet.recorder.warning(&node, FAILED, message.clone());
            bail!(message);
        }
        let message = format!("Updated limits on {} reserved cgroup {group}", held.whose);
        kubelet.recorder.normal(&node, ENFORCED, message);
    }
    Ok(())
}

/// Tries until it is done: pods may use more than that until some of them have been evicted.
async fn hold_pods(kubelet: &Kubelet) {
    let (group, limits) = (kubelet.config.groups.kubepods(), for_pods(kubelet));
    loop {
        let node = kubelet.node_reference();
        match kubelet.cgroups.create(&group, &limits).await {
            Ok(()) => {
                kubelet.recorder.normal(&node, ENFORCED, "Updated Node Allocatable limit across pods");
                return;
            }
            Err(error) => {
                let message =
                    format!("Failed to update Node Allocatable Limits {:?}: {error}", parts(&group));
                kubelet.recorder.warning(&node, FAILED, message);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn hold(kubelet: &Kubelet, held: &Held<'_>) -> Result<(), String> {
    let group = kubelet.config.groups.existing(held.group);
    if held.amounts.is_empty() {
        return Err(format!("{group} cgroup is not configured properly"));
    }
    check_group(&kubelet.cgroups, &group)?;
    let limits = limits(held.amounts, held.compressible);
    kubelet.cgroups.update(&group.path, &limits).await.map_err(|error| error.to_string())
}

/// Refuses a group, made by somebody else, in which there can be no limits.
fn check_group(cgroups: &Cgroups, group: &Existing) -> Result<(), String> {
    cgroups.check(&group.path).map_err(|missing| match missing {
        Missing::Paths(paths) => {
            let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
            format!("cgroup {group} has some missing paths: {}", paths.join(", "))
        }
        Missing::Controllers(controllers) => {
            format!("cgroup {group} has some missing controllers: {}", controllers.join(", "))
        }
        Missing::Unreadable(error) => format!("could not read controllers for cgroup {group}: {error}"),
    })
}

/// Refuses a group that the groups of all pods cannot be in.
pub(crate) fn check_whole(kubelet: &Kubelet) -> anyhow::Result<()> {
    let whole = kubelet.config.groups.whole();
    check_group(&kubelet.cgroups, &whole).map_err(|why| anyhow::anyhow!("invalid configuration: {why}"))
}

fn parts(group: &str) -> Vec<&str> {
    group.split('/').collect()
}

/// Refuses to keep more than the machine has. Each line: what is kept of a resource, and what there is of it.
pub(crate) fn check(kept: &[(&str, i64, i64)]) -> anyhow::Result<()> {
    let shown = |resource: &str, amount: i64| match resource {
        "cpu" => Quantity::from_millis(amount).to_string(),
        _ => Quantity::from_units(amount, Format::BinarySi).to_string(),
    };
    let over = kept.iter().filter(|(_, kept, capacity)| kept > capacity).map(|(resource, kept, capacity)| {
        format!(
            "Resource {resource:?} has a reservation of {} but capacity of {}. Expected capacity >= reservation.",
            shown(resource, *kept),
            shown(resource, *capacity)
        )
    });
    let over: Vec<_> = over.collect();
    if over.is_empty() { Ok(()) } else { bail!("invalid Node Allocatable configuration. {}", over.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(pairs: &[(&str, &str)]) -> Amounts {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn file(enforced: &[&str]) -> KubeletConfiguration {
        let mut file = KubeletConfiguration::default();
        file.system_reserved = amounts(&[("cpu", "500m"), ("memory", "1Gi"), ("pid", "100")]);
        file.kube_reserved = amounts(&[("cpu", "500m"), ("memory", "512Mi"), ("ephemeral-storage", "1Gi")]);
        file.reserved.enforce_node_allocatable = enforced.iter().map(|whom| (*whom).to_owned()).collect();
        file.reserved.system_reserved_cgroup = "/system".to_owned();
        file.reserved.kube_reserved_cgroup = "/kube".to_owned();
        file
    }

    #[test]
    fn pods_are_held_to_what_is_left() {
        let machine = Machine { cpu: 4000, memory: 4 << 30, pids: Some(1000) };
        let left = Limits {
            cpu_shares: Some(3072),
            memory: Some((4 << 30) - (3 << 29)),
            pids: Some(900),
            ..Limits::default()
        };
        assert_eq!(of_pods(&file(&["pods"]), machine), left);
        let all =
            Limits { cpu_shares: Some(4096), memory: Some(4 << 30), pids: Some(1000), ..Limits::default() };
        assert_eq!(of_pods(&file(&["none"]), machine), all);
        let small = Machine { cpu: 500, memory: 1 << 20, pids: None };
        let nothing = Limits { cpu_shares: Some(2), memory: Some(0), pids: None, ..Limits::default() };
        assert_eq!(of_pods(&file(&["pods"]), small), nothing);
    }

    #[test]
    fn others_are_held_to_what_is_kept_for_them() {
        assert!(held(&file(&["pods"])).is_empty());
        let file = file(&["kube-reserved", "system-reserved-compressible"]);
        let all: Vec<_> = held(&file).iter().map(|held| (held.what, held.group, held.compressible)).collect();
        assert_eq!(
            all,
            [("Kube Reserved", "/kube", false), ("System Reserved Compressible", "/system", true)]
        );
        let whole =
            Limits { cpu_shares: Some(512), memory: Some(1 << 30), pids: Some(100), ..Limits::default() };
        assert_eq!(limits(&file.system_reserved, false), whole);
        let part = Limits { cpu_shares: Some(512), ..Limits::default() };
        assert_eq!(limits(&file.system_reserved, true), part);
    }

    #[test]
    fn more_than_there_is_cannot_be_kept() {
        check(&[("cpu", 1000, 2000), ("memory", 5, 5)]).unwrap();
        let error = check(&[("cpu", 3500, 2000), ("memory", 2 << 30, 1 << 30), ("pods", 0, 1)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid Node Allocatable configuration. Resource \"cpu\" has a reservation of 3500m but capacity of 2. Expected \
             capacity >= reservation. Resource \"memory\" has a reservation of 2Gi but capacity of 1Gi. Expected capacity >= \
             reservation."
        );
    }

    #[test]
    fn a_group_that_is_missing_is_told_in_upstreams_words() {
        let root = tempfile::tempdir().unwrap();
        let group = Existing { path: "a/b-c".to_owned(), names: vec!["a".to_owned(), "b-c".to_owned()] };
        let controllers = [("memory".to_owned(), root.path().to_owned())].into();
        let v1 = Cgroups::V1 { controllers, others: Vec::new() };
        let path = root.path().join("a/b-c");
        let missing = format!("cgroup [\"a\" \"b-c\"] has some missing paths: {}", path.display());
        assert_eq!(check_group(&v1, &group), Err(missing));
        std::fs::create_dir_all(&path).unwrap();
        assert_eq!(check_group(&v1, &group), Ok(()));
        let v2 = Cgroups::V2 { root: root.path().to_owned() };
        std::fs::write(root.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        std::fs::write(path.join("cgroup.controllers"), "memory\n").unwrap();
        let missing = "cgroup [\"a\" \"b-c\"] has some missing controllers: cpu".to_owned();
        assert_eq!(check_group(&v2, &group), Err(missing));
    }
}
