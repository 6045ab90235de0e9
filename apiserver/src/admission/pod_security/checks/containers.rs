//! Rules about single containers.

use std::collections::BTreeSet;

use api::Value;

use super::{Pod, Violation, containers_named, of_host_users, plural, quoted, violation};

/// Capabilities that container runtimes give.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn texts<'v>(value: &'v Value, path: &[&str]) -> impl Iterator<Item = &'v str> {
    value.array_at(path).iter().filter_map(Value::as_str)
}

const ADD: [&str; 3] = ["securityContext", "capabilities", "add"];
const DROP: [&str; 3] = ["securityContext", "capabilities", "drop"];

/// The containers that add capabilities that are not `allowed`, and these.
fn added<'p>(pod: &Pod<'p>, allowed: &[&str]) -> (Vec<&'p str>, BTreeSet<&'p str>) {
    let bad = |name: &&str| !allowed.contains(name);
    let containers = pod.named(|c| texts(c, &ADD).any(|name| bad(&name)));
    (containers, pod.containers().flat_map(|c| texts(c, &ADD)).filter(bad).collect())
}

fn told_added(containers: &[&str], capabilities: &BTreeSet<&str>) -> String {
    let (who, what) = (containers_named(containers), quoted(capabilities.iter().copied()));
    format!("{who} must not include {what} in securityContext.capabilities.add")
}

pub(super) fn default_capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let (containers, capabilities) = added(pod, &DEFAULT_CAPABILITIES);
    if containers.is_empty() {
        return None;
    }
    violation("non-default capabilities", told_added(&containers, &capabilities))
}

pub(super) fn no_capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let mut told = Vec::new();
    let keep = pod.named(|c| !texts(c, &DROP).any(|name| name == "ALL"));
    if !keep.is_empty() {
        let who = containers_named(&keep);
        told.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    let (containers, capabilities) = added(pod, &["NET_BIND_SERVICE"]);
    if !containers.is_empty() {
        told.push(told_added(&containers, &capabilities));
    }
    if told.is_empty() { None } else { violation("unrestricted capabilities", told.join("; ")) }
}

pub(super) fn no_escalation(pod: &Pod<'_>) -> Option<Violation> {
    let allowed = ["securityContext", "allowPrivilegeEscalation"];
    let bad = pod.named(|c| c.at(&allowed).as_bool() != Some(false));
    if bad.is_empty() {
        return None;
    }
    let detail =
        format!("{} must set securityContext.allowPrivilegeEscalation=false", containers_named(&bad));
    violation("allowPrivilegeEscalation != false", detail)
}

pub(super) fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let bad = pod.named(|c| c.at(&["securityContext", "privileged"]).as_bool() == Some(true));
    if bad.is_empty() {
        return None;
    }
    violation(
        "privileged",
        format!("{} must not set securityContext.privileged=true", containers_named(&bad)),
    )
}

pub(super) fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let ports = |c: &Value| -> Vec<String> {
        let all = c.array_at(&["ports"]).iter().filter_map(|p| p.get("hostPort").as_i64());
        all.filter(|port| *port != 0).map(|port| port.to_string()).collect()
    };
    let bad = pod.named(|c| !ports(c).is_empty());
    if bad.is_empty() {
        return None;
    }
    let used: BTreeSet<String> = pod.containers().flat_map(ports).collect();
    let (who, uses) = (containers_named(&bad), plural("uses", "use", bad.len()));
    let what = plural("hostPort", "hostPorts", used.len());
    let used: Vec<String> = used.into_iter().collect();
    violation("hostPort", format!("{who} {uses} {what} {}", used.join(", ")))
}

/// The hosts that probes and hooks of a container name.
fn probed(container: &Value) -> Vec<&str> {
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|p| container.get(p));
    let hooks = ["postStart", "preStop"].map(|h| container.at(&["lifecycle", h]));
    let each = probes.into_iter().chain(hooks);
    let hosts = each.flat_map(|h| [h.str_at(&["httpGet", "host"]), h.str_at(&["tcpSocket", "host"])]);
    hosts.filter(|host| !host.is_empty()).collect()
}

pub(super) fn host_probes(pod: &Pod<'_>) -> Option<Violation> {
    let bad: BTreeSet<&str> = pod.named(|c| !probed(c).is_empty()).into_iter().collect();
    if bad.is_empty() {
        return None;
    }
    let bad: Vec<&str> = bad.into_iter().collect();
    let hosts: BTreeSet<&str> = pod.containers().flat_map(probed).collect();
    let (who, uses) = (containers_named(&bad), plural("uses", "use", bad.len()));
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    violation("probe or lifecycle host", format!("{who} {uses} {what} {}", quoted(hosts)))
}

pub(super) fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let of = |c: &'_ Value| -> Option<String> {
        let mount = c.at(&["securityContext", "procMount"]).as_str()?;
        (mount != "Default").then(|| mount.to_owned())
    };
    let bad = pod.named(|c| of(c).is_some());
    if bad.is_empty() {
        return None;
    }
    let mounts: BTreeSet<String> = pod.containers().filter_map(of).collect();
    let mounts = quoted(mounts.iter().map(String::as_str));
    let detail = format!("{} must not set securityContext.procMount to {mounts}", containers_named(&bad));
    violation("procMount", detail)
}

pub(super) fn proc_mount_of_host_users(pod: &Pod<'_>) -> Option<Violation> {
    of_host_users(pod, proc_mount)
}
