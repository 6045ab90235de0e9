//! The node's status.

use std::path::Path;
use std::sync::atomic::Ordering;

use api::quantity::{Format, Quantity};
use api::{Map, Value, object};
use k8s_cri::v1 as cri;
use linux::hugepages::HugePages;

use crate::Kubelet;
use crate::config::Config;
use crate::cri::Abilities;
use crate::devices::Amounts;
use crate::eviction::Pressure;
use crate::managers::Kept;
use crate::pods::manager::Allocatable;

/// What this node can do that older ones cannot, as schedulers and API servers call it, in the order of the alphabet: resources
/// of a whole pod and those of its init containers can change, all containers can be started over, and callers may speak over
/// WebSockets.
const DECLARED: [&str; 4] = [
    "ExtendWebSocketsToKubelet",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
];

/// What can change from one report to the next.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What keeps the node from being ready.
    pub not_ready: Vec<String>,
    /// `containerd://1.6.20`.
    pub runtime_version: String,
    /// The images with their size, the biggest first.
    pub images: Vec<Value>,
    /// What plug-ins have.
    pub devices: Amounts,
}

impl Findings {
    /// Asks the runtime.
    pub(crate) async fn collect(kubelet: &Kubelet) -> Self {
        let mut findings = Self::default();
        match kubelet.runtime.version().await {
            Ok(version) => {
                findings.runtime_version =
                    format!("{}://{}", version.runtime_name, shown_version(&version.runtime_version));
            }
            Err(error) => findings.not_ready.push(format!("container runtime is down: {}", error.message)),
        }
        if let Ok((conditions, abilities)) = kubelet.runtime.status().await {
            *kubelet.abilities.write() = Some(abilities);
            findings.not_ready.extend(conditions.iter().filter_map(complaint));
        }
        if let Err(why) = kubelet.relisted.check() {
            findings.not_ready.push(format!("PLEG is not healthy: {why}"));
        }
        if kubelet.shutting_down.load(Ordering::Relaxed) {
            findings.not_ready.push("node is shutting down".to_owned());
        }
        findings.images = images(kubelet).await;
        findings.devices = kubelet.devices.amounts();
        findings
    }
}

/// A runtime's version as the API shows it: the numbers alone, unless all of it is a semantic version.
fn shown_version(version: &str) -> &str {
    let version = version.trim();
    let version = version.strip_prefix('v').unwrap_or(version);
    if semver::Version::parse(version).is_ok() {
        return version;
    }
    let numbers =
        version.find(|c: char| !c.is_ascii_digit() && c != '.').map_or(version, |end| &version[..end]);
    match numbers.trim_end_matches('.') {
        "" => version,
        numbers => numbers,
    }
}

/// What a condition of the runtime says against the node. Runtimes have others than these two, which do not count.
fn complaint(condition: &cri::RuntimeCondition) -> Option<String> {
    let what = match condition.r#type.as_str() {
        "RuntimeReady" => "container runtime not ready",
        "NetworkReady" => "container runtime network not ready",
        _ => return None,
    };
    let (kind, reason, message) = (&condition.r#type, &condition.reason, &condition.message);
    (!condition.status).then(|| format!("{what}: {kind}=false reason:{reason} message:{message}"))
}

async fn images(kubelet: &Kubelet) -> Vec<Value> {
    let mut images = kubelet.runtime.images().await.unwrap_or_default();
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    let limit = usize::try_from(kubelet.config.file.node_status_max_images).unwrap_or(usize::MAX);
    let shown = images.into_iter().take(limit).map(|image| {
        let names = image.repo_digests.into_iter().chain(image.repo_tags).take(5).map(Value::from);
        object!({"names": (Value::Array(names.collect())), "sizeBytes": (image.size as i64)})
    });
    shown.collect()
}

/// What the node has in all and what pods may use of it.
#[derive(Debug, Clone)]
pub(crate) struct Capacity {
    cpu: i64,
    memory: i64,
    storage: i64,
    pods: i64,
    allocatable_storage: i64,
    /// The huge pages.
    pub huge_pages: Vec<HugePages>,
    /// What pods may use.
    pub allocatable: Allocatable,
}

impl Capacity {
    /// Measures the machine.
    pub(crate) fn of(config: &Config, facts: &linux::facts::Facts) -> Self {
        let (cpu, memory) = (facts.cpus as i64 * 1000, facts.memory as i64);
        let storage = disk(&config.root);
        let huge_pages = linux::hugepages::read(Path::new(HugePages::ROOT));
        // What is set aside for them cannot be used otherwise.
        let huge: u64 = huge_pages.iter().map(HugePages::bytes).sum();
        let kept = kept(config, facts);
        let free = memory - kept.memory - huge as i64;
        let disk_free = storage
            - reserved(config, "ephemeral-storage", Quantity::units)
            - evicted_at(config, "nodefs.available", storage);
        let allocatable = Allocatable { cpu: (cpu - kept.cpu).max(0), memory: free.max(0) };
        let pods = i64::from(config.file.max_pods);
        Self { cpu, memory, storage, pods, allocatable_storage: disk_free.max(0), huge_pages, allocatable }
    }
}

impl Capacity {
    /// Refuses a configuration that keeps more than there is.
    pub(crate) fn check(&self, config: &Config, facts: &linux::facts::Facts) -> anyhow::Result<()> {
        let kept = kept(config, facts);
        let storage = reserved(config, "ephemeral-storage", Quantity::units)
            + evicted_at(config, "nodefs.available", self.storage);
        let isolated = config.file.local_storage_capacity_isolation;
        let mut all = vec![("cpu", kept.cpu, self.cpu), ("memory", kept.memory, self.memory)];
        all.extend(isolated.then_some(("ephemeral-storage", storage, self.storage)));
        crate::reserved::check(&all)
    }
}

fn reserved(config: &Config, resource: &str, measure: fn(&Quantity) -> i64) -> i64 {
    let both = [&config.file.system_reserved, &config.file.kube_reserved];
    both.iter().filter_map(|map| map.get(resource)?.parse().ok()).map(|q: Quantity| measure(&q)).sum()
}

/// What the node keeps of processors and memory for itself.
pub(crate) fn kept(config: &Config, facts: &linux::facts::Facts) -> Kept {
    let evicted = evicted_at(config, "memory.available", facts.memory as i64);
    Kept {
        cpu: reserved(config, "cpu", Quantity::millis),
        memory: reserved(config, "memory", Quantity::units) + evicted,
    }
}

/// The amount at which pods would be evicted: a quantity or a part of the whole.
fn evicted_at(config: &Config, signal: &str, whole: i64) -> i64 {
    let thresholds = config.file.hard_thresholds();
    let Some(text) = thresholds.get(signal) else { return 0 };
    match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map_or(0, |percent| (whole as f64 * percent / 100.0) as i64),
        None => text.parse::<Quantity>().map_or(0, |quantity| quantity.units()),
    }
}

fn disk(path: &Path) -> i64 {
    // The folder may not exist yet; its parent is on the same disk.
    let mut existing = path.ancestors().filter(|path| path.exists());
    let stat = existing.next().and_then(|path| nix::sys::statvfs::statvfs(path).ok());
    stat.map_or(0, |stat| (stat.blocks() * stat.fragment_size()) as i64)
}

fn cores(millis: i64) -> String {
    if millis % 1000 == 0 { (millis / 1000).to_string() } else { Quantity::from_millis(millis).to_string() }
}

fn kibibytes(bytes: i64) -> String {
    format!("{}Ki", bytes / 1024)
}

fn resources(capacity: &Capacity, allocatable: bool) -> Value {
    let mut out = Map::new();
    let (cpu, memory, storage) = match allocatable {
        false => (capacity.cpu, capacity.memory, kibibytes(capacity.storage)),
        true => {
            let storage = Quantity::from_units(capacity.allocatable_storage, Format::DecimalSi).to_string();
            (capacity.allocatable.cpu, capacity.allocatable.memory, storage)
        }
    };
    out.push("cpu", cores(cpu).into());
    out.push("ephemeral-storage", storage.into());
    for pages in &capacity.huge_pages {
        let bytes = Quantity::from_units(pages.bytes() as i64, Format::BinarySi);
        out.push(format!("hugepages-{}", pages.resource_size()), bytes.to_string().into());
    }
    out.push("memory", kibibytes(memory).into());
    out.push("pods", capacity.pods.to_string().into());
    Value::Object(out)
}

/// Adds what plug-ins have, and what others say that the node has. A resource that a plug-in had stays, with nothing of it.
fn extended(capacity: &mut Value, allocatable: &mut Value, before: &Value, devices: &Amounts) {
    let foreign = |name: &str| name.contains('/') && !devices.removed.iter().any(|gone| gone == name);
    for (name, amount) in before.as_object().into_iter().flat_map(|map| map.iter()) {
        if foreign(name) && !devices.capacity.contains_key(name) {
            capacity.set(&[name], amount.clone());
            allocatable.set(&[name], amount.clone());
        }
    }
    for (name, amount) in &devices.capacity {
        let usable = devices.allocatable.get(name).copied().unwrap_or_default();
        capacity.set(&[name.as_str()], amount.to_string());
        allocatable.set(&[name.as_str()], usable.to_string());
    }
    for name in &devices.removed {
        capacity.set(&[name.as_str()], "0");
        allocatable.set(&[name.as_str()], "0");
    }
}

/// The status to report; `node` holds the one before.
pub(crate) fn generate(kubelet: &Kubelet, node: &Value, findings: &Findings, now: &str) -> Value {
    let facts = &kubelet.facts;
    let mut status = Map::new();
    let (mut capacity, mut allocatable) =
        (resources(&kubelet.capacity, false), resources(&kubelet.capacity, true));
    extended(&mut capacity, &mut allocatable, node.at(&["status", "capacity"]), &findings.devices);
    status.push("capacity", capacity);
    status.push("allocatable", allocatable);
    status.push("conditions", Value::Array(conditions(node, findings, &kubelet.pressures.read(), now)));
    if !kubelet.config.external_cloud || !node.array_at(&["status", "addresses"]).is_empty() {
        status.push("addresses", addresses(kubelet, node));
    }
    let port = i64::from(kubelet.config.address.port());
    status.push("daemonEndpoints", object!({"kubeletEndpoint": {"Port": port}}));
    let mut info = object!({
            "machineID": (facts.machine_id.as_str()),
            "systemUUID": (facts.system_uuid.as_str()),
            "bootID": (facts.boot_id.as_str()),
            "kernelVersion": (facts.kernel_version.as_str()),
            "osImage": (facts.os_image.as_str()),
            "containerRuntimeVersion": (findings.runtime_version.as_str()),
            "kubeletVersion": (daemon::KUBERNETES_VERSION),
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": (facts.architecture.as_str()),
    });
    if facts.swap > 0 {
        info.set(&["swap"], object!({"capacity": (facts.swap as i64)}));
    }
    status.push("nodeInfo", info);
    status.push("images", Value::Array(findings.images.clone()));
    let (handlers, features) = kubelet.abilities.read().as_ref().map(Abilities::shown).unwrap_or_default();
    for (name, shown) in [("runtimeHandlers", handlers), ("features", features)] {
        if !shown.is_null() || !node.at(&["status", name]).is_null() {
            status.push(name, shown);
        }
    }
    status.push("declaredFeatures", Value::Array(DECLARED.map(Value::from).into()));
    let in_use = kubelet.csi.in_use();
    if !in_use.is_empty() || !node.array_at(&["status", "volumesInUse"]).is_empty() {
        status.push("volumesInUse", Value::Array(in_use.into_iter().map(Value::from).collect()));
    }
    Value::Object(status)
}

/// The volumes that a status says are in use.
pub(crate) fn in_use(status: &Value) -> Vec<String> {
    status.array_at(&["volumesInUse"]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn addresses(kubelet: &Kubelet, node: &Value) -> Value {
    if kubelet.config.external_cloud {
        return node.at(&["status", "addresses"]).clone();
    }
    let ips = kubelet.host_ips.iter().map(|ip| object!({"type": "InternalIP", "address": (ip.as_str())}));
    let name = object!({"type": "Hostname", "address": (kubelet.config.node_name.as_str())});
    Value::Array(ips.chain([name]).collect())
}

fn conditions(node: &Value, findings: &Findings, pressures: &[Pressure], now: &str) -> Vec<Value> {
    let old = node.array_at(&["status", "conditions"]);
    let (ready, reason, message) = match findings.not_ready.is_empty() {
        true => ("True", "KubeletReady", "kubelet is posting ready status".to_owned()),
        false => ("False", "KubeletNotReady", format!("[{}]", findings.not_ready.join(", "))),
    };
    let message = match findings.not_ready.as_slice() {
        [one] => one.clone(),
        _ => message,
    };
    let pressed = |pressure: Pressure, good: (&'static str, &str), bad: (&'static str, &str)| {
        let is = pressures.contains(&pressure);
        let (reason, message) = if is { bad } else { good };
        (pressure.name(), if is { "True" } else { "False" }, reason, message.to_owned())
    };
    let all = [
        pressed(
            Pressure::Memory,
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ),
        pressed(
            Pressure::Disk,
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ),
        pressed(
            Pressure::Pid,
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ),
        ("Ready", ready, reason, message),
    ];
    let stamped = all.into_iter().map(|(kind, status, reason, message)| {
        let before =
            old.iter().find(|old| old.str_at(&["type"]) == kind && old.str_at(&["status"]) == status);
        let since = before.map_or(now, |before| before.str_at(&["lastTransitionTime"]));
        object!({
            "type": kind,
            "status": status,
            "lastHeartbeatTime": now,
            "lastTransitionTime": since,
            "reason": reason,
            "message": message,
        })
    });
    stamped.collect()
}

/// Whether two statuses say the same, leaving out when it was said and what others say.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    let plain = |status: &Value| {
        let fields =
            ["capacity", "allocatable", "addresses", "daemonEndpoints", "nodeInfo", "images", "volumesInUse"];
        let mut out: Vec<Value> = fields.iter().map(|field| sorted(status.get(field))).collect();
        for kind in ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"] {
            let mut conditions = status.array_at(&["conditions"]).iter();
            let condition = conditions.find(|condition| condition.str_at(&["type"]) == kind);
            let part = |field: &str| condition.map(|c| c.get(field).clone()).unwrap_or_default();
            out.extend([part("status"), part("reason"), part("message")]);
        }
        out
    };
    plain(one) == plain(other)
}

/// A copy whose objects are in one order, whatever order the API server uses.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = Map::new();
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            for (key, value) in pairs {
                // Swap and other things of no interest here are left out by some servers.
                if !value.is_empty() {
                    out.push(key, sorted(value));
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// The strategic merge patch that brings the old status to the new one.
pub(crate) fn patch(old: &Value, new: &Value) -> Value {
    let mut status = new.clone();
    if sorted(old.get("addresses")) != sorted(new.get("addresses")) {
        if let Some(addresses) = status.at_mut(&["addresses"]).and_then(Value::as_array_mut) {
            addresses.insert(0, object!({"$patch": "replace"}));
        }
    } else {
        status.remove_at(&["addresses"]);
    }
    object!({"status": (status)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_conditions_of_the_runtime_count() {
        for (kind, status, expected) in [
            ("RuntimeReady", true, None),
            (
                "RuntimeReady",
                false,
                Some("container runtime not ready: RuntimeReady=false reason:R message:m"),
            ),
            (
                "NetworkReady",
                false,
                Some("container runtime network not ready: NetworkReady=false reason:R message:m"),
            ),
            ("ContainerdHasNoDeprecationWarnings", false, None),
        ] {
            let (reason, message) = ("R".to_owned(), "m".to_owned());
            let condition = cri::RuntimeCondition { r#type: kind.to_owned(), status, reason, message };
            assert_eq!(complaint(&condition).as_deref(), expected, "{kind} {status}");
        }
    }

    #[test]
    fn the_version_of_a_runtime_is_shown_without_what_a_distribution_adds() {
        for (version, expected) in [
            ("1.6.20~ds1", "1.6.20"),
            ("v2.1.0", "2.1.0"),
            ("1.33.0-dev+abc", "1.33.0-dev+abc"),
            ("20.10.5+dfsg1", "20.10.5+dfsg1"),
            ("1.7", "1.7"),
            ("1.7.x", "1.7"),
            ("unknown", "unknown"),
        ] {
            assert_eq!(shown_version(version), expected);
        }
    }

    #[test]
    fn declared_features_are_in_order() {
        assert!(DECLARED.is_sorted());
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let node = object!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        ]}});
        let ready = |findings: &Findings| {
            conditions(&node, findings, &[], "now")
                .into_iter()
                .find(|c| c.str_at(&["type"]) == "Ready")
                .unwrap()
        };
        let fine = ready(&Findings::default());
        assert_eq!(fine.str_at(&["lastTransitionTime"]), "2020-01-01T00:00:00Z");
        assert_eq!(fine.str_at(&["lastHeartbeatTime"]), "now");
        let broken = ready(&Findings { not_ready: vec!["x is down".to_owned()], ..Findings::default() });
        assert_eq!(broken.str_at(&["status"]), "False");
        assert_eq!(broken.str_at(&["message"]), "x is down");
        assert_eq!(broken.str_at(&["lastTransitionTime"]), "now");
    }

    #[test]
    fn heartbeats_alone_are_no_change() {
        let status = |beat: &str, reason: &str| object!({"conditions": [{"type": "Ready", "lastHeartbeatTime": beat, "reason": reason}]});
        assert!(same(&status("a", "x"), &status("b", "x")));
        assert!(!same(&status("a", "x"), &status("a", "y")));
    }

    #[test]
    fn resources_of_plugins_and_of_others_are_shown() {
        let mut devices = Amounts::default();
        devices.capacity.insert("example.com/x".to_owned(), 3);
        devices.allocatable.insert("example.com/x".to_owned(), 2);
        devices.removed.push("example.com/gone".to_owned());
        let before = object!({"cpu": "7", "example.com/gone": "4", "example.com/x": "1", "other.com/y": "5"});
        let (mut capacity, mut allocatable) = (object!({"cpu": "2"}), object!({"cpu": "1"}));
        extended(&mut capacity, &mut allocatable, &before, &devices);
        let shown = |cpu: &str, x: &str| object!({"cpu": cpu, "other.com/y": "5", "example.com/x": x, "example.com/gone": "0"});
        assert_eq!((capacity, allocatable), (shown("2", "3"), shown("1", "2")));
    }
}
