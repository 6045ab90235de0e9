//! Rules about pods as a whole.

use std::collections::BTreeSet;

use api::Value;

use super::{Pod, Violation, plural, quoted, violation};

/// Volumes that nobody is afraid of.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The other sorts of volumes, in the order in which they are looked for.
const OTHER_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

/// Kernel parameters that a pod has for itself, with the minor version since which they are safe.
const SYSCTLS: [(&str, u64); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

pub(super) fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter();
    let shared: Vec<String> = shared
        .filter(|field| pod.spec.get(field).as_bool() == Some(true))
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() { None } else { violation("host namespaces", shared.join(", ")) }
}

fn volumes<'p>(pod: &Pod<'p>, like: impl Fn(&Value) -> bool) -> Vec<&'p Value> {
    pod.spec.array_at(&["volumes"]).iter().filter(|v| like(v)).collect()
}

fn volumes_named(volumes: &[&Value]) -> String {
    let names = volumes.iter().map(|v| v.str_at(&["name"]));
    format!("{} {}", plural("volume", "volumes", volumes.len()), quoted(names))
}

pub(super) fn host_paths(pod: &Pod<'_>) -> Option<Violation> {
    let bad = volumes(pod, |v| !v.get("hostPath").is_null());
    if bad.is_empty() { None } else { violation("hostPath volumes", volumes_named(&bad)) }
}

pub(super) fn volume_types(pod: &Pod<'_>) -> Option<Violation> {
    let bad = volumes(pod, |v| VOLUMES.iter().all(|sort| v.get(sort).is_null()));
    if bad.is_empty() {
        return None;
    }
    let sort = |v: &&Value| OTHER_VOLUMES.into_iter().find(|s| !v.get(s).is_null()).unwrap_or("unknown");
    let sorts: BTreeSet<&str> = bad.iter().map(sort).collect();
    let uses = plural("uses", "use", bad.len());
    let what = plural("restricted volume type", "restricted volume types", sorts.len());
    violation("restricted volume types", format!("{} {uses} {what} {}", volumes_named(&bad), quoted(sorts)))
}

fn sysctls_at(pod: &Pod<'_>, minor: u64) -> Option<Violation> {
    let allowed = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && *since <= minor);
    let names = pod.context().array_at(&["sysctls"]).iter().map(|s| s.str_at(&["name"]));
    let bad: Vec<&str> = names.filter(|name| !allowed(name)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

pub(super) fn sysctls(pod: &Pod<'_>) -> Option<Violation> {
    sysctls_at(pod, 0)
}

pub(super) fn sysctls_27(pod: &Pod<'_>) -> Option<Violation> {
    sysctls_at(pod, 27)
}

pub(super) fn sysctls_29(pod: &Pod<'_>) -> Option<Violation> {
    sysctls_at(pod, 29)
}

pub(super) fn sysctls_32(pod: &Pod<'_>) -> Option<Violation> {
    sysctls_at(pod, 32)
}
