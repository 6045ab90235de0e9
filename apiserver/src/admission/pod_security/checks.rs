//! The rules of the standards, by the versions since which they hold.
//!
//! Source: <https://kubernetes.io/docs/concepts/security/pod-security-standards/>.

mod containers;
mod pods;
mod profiles;

use std::borrow::Cow;

use api::Value;

use super::level::{Level, Standard};

/// A pod, or the template of one.
#[derive(Clone, Copy)]
pub(super) struct Pod<'p> {
    metadata: &'p Value,
    pub(super) spec: &'p Value,
}

/// A rule that a pod violates.
pub(super) struct Violation {
    reason: Cow<'static, str>,
    detail: String,
}

type Rule = fn(&Pod<'_>) -> Option<Violation>;

/// A rule in all its versions.
struct Check {
    id: &'static str,
    level: Level,
    versions: &'static [Since],
}

/// A rule since a minor version.
struct Since {
    minor: u64,
    rule: Rule,
    /// The looser rule of the level below that it stands for.
    instead_of: &'static str,
}

const fn since(minor: u64, rule: Rule) -> Since {
    Since { minor, rule, instead_of: "" }
}

const fn instead(minor: u64, instead_of: &'static str, rule: Rule) -> Since {
    Since { minor, rule, instead_of }
}

const fn baseline(id: &'static str, versions: &'static [Since]) -> Check {
    Check { id, level: Level::Baseline, versions }
}

const fn restricted(id: &'static str, versions: &'static [Since]) -> Check {
    Check { id, level: Level::Restricted, versions }
}

/// All rules, in the order in which violations are told.
const CHECKS: [Check; 19] = [
    baseline("appArmorProfile", &[since(0, profiles::app_armor)]),
    baseline("capabilities_baseline", &[since(0, containers::default_capabilities)]),
    baseline("hostNamespaces", &[since(0, pods::host_namespaces)]),
    baseline("hostPathVolumes", &[since(0, pods::host_paths)]),
    baseline("hostPorts", &[since(0, containers::host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[since(34, containers::host_probes)]),
    baseline("privileged", &[since(0, containers::privileged)]),
    baseline(
        "procMount",
        &[since(0, containers::proc_mount), since(35, containers::proc_mount_of_host_users)],
    ),
    baseline("seLinuxOptions", &[since(0, profiles::se_linux), since(31, profiles::se_linux_31)]),
    baseline(
        "seccompProfile_baseline",
        &[since(0, profiles::seccomp_annotations), since(19, profiles::seccomp)],
    ),
    baseline(
        "sysctls",
        &[
            since(0, pods::sysctls),
            since(27, pods::sysctls_27),
            since(29, pods::sysctls_29),
            since(32, pods::sysctls_32),
        ],
    ),
    baseline("windowsHostProcess", &[since(0, profiles::host_process)]),
    restricted(
        "allowPrivilegeEscalation",
        &[
            since(8, containers::no_escalation),
            since(25, |pod| unless_windows(pod, containers::no_escalation)),
        ],
    ),
    restricted(
        "capabilities_restricted",
        &[
            instead(22, "capabilities_baseline", containers::no_capabilities),
            instead(25, "capabilities_baseline", |pod| unless_windows(pod, containers::no_capabilities)),
        ],
    ),
    restricted("procMount_restricted", &[instead(35, "procMount", containers::proc_mount)]),
    restricted("restrictedVolumes", &[instead(0, "hostPathVolumes", pods::volume_types)]),
    restricted(
        "runAsNonRoot",
        &[since(0, profiles::not_root), since(35, |pod| of_host_users(pod, profiles::not_root))],
    ),
    restricted(
        "runAsUser",
        &[since(23, profiles::not_user_zero), since(35, |pod| of_host_users(pod, profiles::not_user_zero))],
    ),
    restricted(
        "seccompProfile_restricted",
        &[
            instead(19, "seccompProfile_baseline", profiles::some_seccomp),
            instead(25, "seccompProfile_baseline", |pod| unless_windows(pod, profiles::some_seccomp)),
        ],
    ),
];

/// What holds on Linux only.
fn unless_windows(pod: &Pod<'_>, rule: Rule) -> Option<Violation> {
    if pod.spec.str_at(&["os", "name"]) == "windows" { None } else { rule(pod) }
}

/// What holds for pods whose users are those of the node.
fn of_host_users(pod: &Pod<'_>, rule: Rule) -> Option<Violation> {
    if pod.spec.get("hostUsers").as_bool() == Some(false) { None } else { rule(pod) }
}

impl Check {
    /// The rule that holds at a minor version.
    fn at(&self, minor: u64) -> Option<&Since> {
        self.versions.iter().rev().find(|since| since.minor <= minor)
    }
}

/// What a pod violates of a standard.
pub(super) fn evaluate(standard: &Standard, pod: &Pod<'_>) -> Vec<Violation> {
    let minor = standard.version.0.unwrap_or(u64::MAX);
    let here = CHECKS.iter().filter(|check| check.level <= standard.level);
    let active: Vec<(&str, &Since)> = here.filter_map(|check| Some((check.id, check.at(minor)?))).collect();
    let replaced = |id: &str| active.iter().any(|(_, since)| since.instead_of == id);
    active.iter().filter(|(id, _)| !replaced(id)).filter_map(|(_, since)| (since.rule)(pod)).collect()
}

/// Violations as they are told, with their details.
pub(super) fn details(violations: &[Violation]) -> String {
    let told = violations.iter().map(|v| match v.detail.as_str() {
        "" => v.reason.to_string(),
        detail => format!("{} ({detail})", v.reason),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// Violations as they are told in short.
pub(super) fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|v| v.reason.as_ref()).collect::<Vec<_>>().join(", ")
}

impl<'p> Pod<'p> {
    /// Reads a pod or a template.
    pub(super) fn new(template: &'p Value) -> Self {
        Self { metadata: template.get("metadata"), spec: template.get("spec") }
    }

    fn context(&self) -> &'p Value {
        self.spec.get("securityContext")
    }

    fn containers(&self) -> impl Iterator<Item = &'p Value> + use<'p> {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let spec = self.spec;
        lists.into_iter().flat_map(move |list| spec.array_at(&[list]))
    }

    /// The names of the containers that are like that.
    fn named(&self, like: impl Fn(&Value) -> bool) -> Vec<&'p str> {
        self.containers().filter(|c| like(c)).map(|c| c.str_at(&["name"])).collect()
    }

    fn annotations(&self) -> impl Iterator<Item = (&'p str, &'p str)> {
        let all = self.metadata.get("annotations").as_object();
        all.into_iter().flat_map(|m| m.iter()).filter_map(|(k, v)| Some((k, v.as_str()?)))
    }
}

fn violation(reason: &'static str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.into(), detail })
}

fn quoted<'t>(items: impl IntoIterator<Item = &'t str>) -> String {
    items.into_iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ")
}

fn plural<'w>(one: &'w str, more: &'w str, count: usize) -> &'w str {
    if count == 1 { one } else { more }
}

/// `container "a"`, `containers "a", "b"`.
fn containers_named(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names.iter().copied()))
}

/// `pod and containers "a", "b"`: who has set something; nothing if nobody has.
fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    match (pod, containers.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_owned()),
        (false, false) => Some(containers_named(containers)),
        (true, false) => Some(format!("pod and {}", containers_named(containers))),
    }
}

#[cfg(test)]
mod tests;
