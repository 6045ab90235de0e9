//! KubeletConfiguration, `kubelet.config.k8s.io/v1beta1`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::images::Verification;
use anyhow::{Context, bail};
use client::Bucket;
use daemon::GoDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::managers::ManagerSettings;
use super::reserved::{self, ReservedSettings};

pub(crate) const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
pub(crate) const KIND: &str = "KubeletConfiguration";

/// The fields that this kubelet acts upon, with upstream's defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of upstream's API")]
pub struct KubeletConfiguration {
    pub enable_server: bool,
    pub static_pod_path: String,
    #[serde(rename = "staticPodURL")]
    pub static_pod_url: String,
    #[serde(rename = "staticPodURLHeader")]
    pub static_pod_url_header: BTreeMap<String, Vec<String>>,
    pub http_check_frequency: GoDuration,
    pub pod_logs_dir: String,
    pub sync_frequency: GoDuration,
    pub file_check_frequency: GoDuration,
    pub address: String,
    pub port: u16,
    pub read_only_port: u16,
    pub tls_cert_file: String,
    pub tls_private_key_file: String,
    pub tls_cipher_suites: Vec<String>,
    pub tls_min_version: String,
    pub authentication: Authentication,
    pub authorization: Authorization,
    #[serde(rename = "registryPullQPS")]
    pub registry_pull_qps: i32,
    pub registry_burst: i32,
    #[serde(rename = "eventRecordQPS")]
    pub event_record_qps: i32,
    pub event_burst: i32,
    pub enable_debugging_handlers: bool,
    pub enable_system_log_handler: bool,
    pub enable_system_log_query: bool,
    pub healthz_port: u16,
    pub healthz_bind_address: String,
    pub cluster_domain: String,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    pub node_status_update_frequency: GoDuration,
    pub node_status_report_frequency: GoDuration,
    pub node_lease_duration_seconds: u32,
    #[serde(rename = "imageMinimumGCAge")]
    pub image_minimum_gc_age: GoDuration,
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: bool,
    pub cgroup_driver: String,
    pub cgroup_root: String,
    pub runtime_request_timeout: GoDuration,
    pub max_pods: u32,
    pub pod_pids_limit: i64,
    pub resolv_conf: String,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: bool,
    #[serde(rename = "cpuCFSQuotaPeriod")]
    pub cpu_cfs_quota_period: GoDuration,
    pub node_status_max_images: i32,
    pub serialize_image_pulls: bool,
    pub max_parallel_image_pulls: Option<u32>,
    pub image_pull_credentials_verification_policy: String,
    pub preloaded_images_verification_allowlist: Vec<String>,
    pub eviction_hard: BTreeMap<String, String>,
    pub crash_loop_back_off: CrashLoopBackOff,
    pub eviction_soft: BTreeMap<String, String>,
    pub eviction_soft_grace_period: BTreeMap<String, GoDuration>,
    pub eviction_max_pod_grace_period: i64,
    pub eviction_pressure_transition_period: GoDuration,
    pub eviction_minimum_reclaim: BTreeMap<String, String>,
    pub merge_default_eviction_settings: bool,
    #[serde(rename = "imageMaximumGCAge")]
    pub image_maximum_gc_age: GoDuration,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: i32,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: i32,
    #[serde(rename = "makeIPTablesUtilChains")]
    pub make_iptables_util_chains: bool,
    pub fail_swap_on: bool,
    pub memory_swap: MemorySwap,
    pub container_log_max_size: String,
    pub container_log_max_workers: i32,
    pub container_log_max_files: u32,
    pub container_log_monitor_interval: GoDuration,
    pub shutdown_grace_period: GoDuration,
    pub shutdown_grace_period_critical_pods: GoDuration,
    pub shutdown_grace_period_by_pod_priority: Vec<crate::shutdown::Period>,
    pub system_reserved: BTreeMap<String, String>,
    pub kube_reserved: BTreeMap<String, String>,
    pub feature_gates: BTreeMap<String, bool>,
    pub register_node: bool,
    pub register_with_taints: Vec<Json>,
    pub container_runtime_endpoint: String,
    pub image_service_endpoint: String,
    pub fail_cgroup_v1: bool,
    #[serde(rename = "singleProcessOOMKill")]
    pub single_process_oom_kill: Option<bool>,
    pub seccomp_default: bool,
    pub allowed_unsafe_sysctls: Vec<String>,
    #[serde(rename = "providerID")]
    pub provider_id: String,
    pub local_storage_capacity_isolation: bool,
    pub rotate_certificates: bool,
    #[serde(rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: bool,
    pub user_namespaces: UserNamespaces,
    #[serde(flatten)]
    pub managers: ManagerSettings,
    #[serde(flatten)]
    pub reserved: ReservedSettings,
}

/// Users that pods have of their own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserNamespaces {
    /// How many ids each pod gets, a multiple of 65536.
    #[serde(rename = "idsPerPod")]
    pub ids_per_pod: u32,
}

impl Default for UserNamespaces {
    fn default() -> Self {
        Self { ids_per_pod: 65_536 }
    }
}

/// Who may use the swap of the machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemorySwap {
    /// `NoSwap`, which is the default, or `LimitedSwap`.
    pub swap_behavior: String,
}

/// How containers that crash are started again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CrashLoopBackOff {
    /// The longest pause.
    pub max_container_restart_period: GoDuration,
}

impl Default for CrashLoopBackOff {
    fn default() -> Self {
        Self { max_container_restart_period: GoDuration::from_secs(300) }
    }
}

/// Who may ask the kubelet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Authentication {
    /// Client certificates.
    pub x509: X509,
    /// Bearer tokens.
    pub webhook: Webhook,
    /// No credentials.
    pub anonymous: Anonymous,
}

/// Client certificates.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct X509 {
    /// The authority that signs them.
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: String,
}

/// Bearer tokens, reviewed by the API server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Webhook {
    /// Whether they are taken.
    pub enabled: bool,
    /// How long a review counts.
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: GoDuration,
}

impl Default for Webhook {
    fn default() -> Self {
        Self { enabled: true, cache_ttl: GoDuration::from_secs(120) }
    }
}

/// No credentials.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Anonymous {
    /// Whether they are let in.
    pub enabled: bool,
}

/// What callers may do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Authorization {
    /// `AlwaysAllow` or `Webhook`.
    pub mode: String,
    /// How long the API server's answers count.
    pub webhook: AuthorizationWebhook,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { mode: "Webhook".to_owned(), webhook: AuthorizationWebhook::default() }
    }
}

/// How long the API server's answers count.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationWebhook {
    /// A yes.
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: GoDuration,
    /// A no.
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: GoDuration,
}

impl Default for AuthorizationWebhook {
    fn default() -> Self {
        Self {
            cache_authorized_ttl: GoDuration::from_secs(300),
            cache_unauthorized_ttl: GoDuration::from_secs(30),
        }
    }
}

impl Default for KubeletConfiguration {
    fn default() -> Self {
        Self {
            enable_server: true,
            static_pod_path: String::new(),
            static_pod_url: String::new(),
            static_pod_url_header: BTreeMap::new(),
            http_check_frequency: GoDuration::from_secs(20),
            pod_logs_dir: "/var/log/pods".to_owned(),
            sync_frequency: GoDuration::from_secs(60),
            file_check_frequency: GoDuration::from_secs(20),
            address: "0.0.0.0".to_owned(),
            port: 10250,
            read_only_port: 0,
            tls_cert_file: String::new(),
            tls_private_key_file: String::new(),
            tls_cipher_suites: Vec::new(),
            tls_min_version: String::new(),
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            registry_pull_qps: 5,
            registry_burst: REGISTRY_BURST,
            event_record_qps: 50,
            event_burst: EVENT_BURST,
            enable_debugging_handlers: true,
            enable_system_log_handler: true,
            enable_system_log_query: false,
            healthz_port: 10248,
            healthz_bind_address: "127.0.0.1".to_owned(),
            cluster_domain: String::new(),
            cluster_dns: Vec::new(),
            node_status_update_frequency: GoDuration::from_secs(10),
            node_status_report_frequency: GoDuration::from_secs(300),
            node_lease_duration_seconds: 40,
            image_minimum_gc_age: GoDuration::from_secs(120),
            cgroups_per_qos: true,
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_root: String::new(),
            runtime_request_timeout: GoDuration::from_secs(120),
            max_pods: 110,
            pod_pids_limit: -1,
            resolv_conf: "/etc/resolv.conf".to_owned(),
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: GoDuration(std::time::Duration::from_millis(100)),
            node_status_max_images: 50,
            serialize_image_pulls: true,
            max_parallel_image_pulls: None,
            image_pull_credentials_verification_policy: "NeverVerifyPreloadedImages".to_owned(),
            preloaded_images_verification_allowlist: Vec::new(),
            eviction_hard: EVICTION_HARD.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            crash_loop_back_off: CrashLoopBackOff::default(),
            eviction_soft: BTreeMap::new(),
            eviction_soft_grace_period: BTreeMap::new(),
            eviction_max_pod_grace_period: 0,
            eviction_pressure_transition_period: GoDuration::from_secs(300),
            eviction_minimum_reclaim: BTreeMap::new(),
            merge_default_eviction_settings: false,
            image_maximum_gc_age: GoDuration::from_secs(0),
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            make_iptables_util_chains: true,
            fail_swap_on: true,
            memory_swap: MemorySwap::default(),
            container_log_max_size: "10Mi".to_owned(),
            container_log_max_workers: 1,
            container_log_max_files: 5,
            container_log_monitor_interval: GoDuration::from_secs(10),
            shutdown_grace_period: GoDuration::from_secs(0),
            shutdown_grace_period_critical_pods: GoDuration::from_secs(0),
            shutdown_grace_period_by_pod_priority: Vec::new(),
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            feature_gates: BTreeMap::new(),
            register_node: true,
            register_with_taints: Vec::new(),
            container_runtime_endpoint: "unix:///run/containerd/containerd.sock".to_owned(),
            image_service_endpoint: String::new(),
            fail_cgroup_v1: true,
            single_process_oom_kill: None,
            seccomp_default: false,
            allowed_unsafe_sysctls: Vec::new(),
            provider_id: String::new(),
            local_storage_capacity_isolation: true,
            rotate_certificates: false,
            server_tls_bootstrap: false,
            user_namespaces: UserNamespaces::default(),
            managers: ManagerSettings::default(),
            reserved: ReservedSettings::default(),
        }
    }
}

/// How many images may be pulled, and events sent, at once when nothing else is said. None at all stands for that too.
const REGISTRY_BURST: i32 = 10;
const EVENT_BURST: i32 = 100;

/// What must be left of the node's resources when nothing else is said.
const EVICTION_HARD: [(&str, &str); 5] = [
    ("imagefs.available", "15%"),
    ("imagefs.inodesFree", "5%"),
    ("memory.available", "100Mi"),
    ("nodefs.available", "10%"),
    ("nodefs.inodesFree", "5%"),
];

/// Gates that can be either way.
const SWITCHABLE: [&str; 2] = ["CPUManagerPolicyAlphaOptions", "CPUManagerPolicyBetaOptions"];

/// Fields whose only effect is on things that do not exist here, or on figures that do not matter.
const WITHOUT_EFFECT: [&str; 19] = [
    "kind",
    "apiVersion",
    "streamingConnectionIdleTimeout",
    "volumeStatsAggPeriod",
    "hairpinMode",
    "podCIDR",
    "maxOpenFiles",
    "contentType",
    "kubeAPIQPS",
    "kubeAPIBurst",
    "enableControllerAttachDetach",
    "iptablesMasqueradeBit",
    "iptablesDropBit",
    "configMapAndSecretChangeDetectionStrategy",
    "volumePluginDir",
    "logging",
    "enableProfilingHandler",
    "enableDebugFlagsHandler",
    "memoryThrottlingFactor",
];

/// Fields that are accepted with this value only.
const ONLY: [(&str, &str); 10] = [
    ("memoryReservationPolicy", r#""None""#),
    ("protectKernelDefaults", "false"),
    ("podsPerCore", "0"),
    ("runOnce", "false"),
    ("enableContentionProfiling", "false"),
    ("kernelMemcgNotification", "false"),
    ("qosReserved", "{}"),
    ("showHiddenMetricsForVersion", r#""""#),
    ("tlsCurvePreferences", "[]"),
    ("tracing", "null"),
];

/// The configuration as a file has it, with the parts of a folder laid over it; either may be left out.
pub(super) fn read(path: &str, folder: &str) -> anyhow::Result<Map<String, Json>> {
    let mut paths: Vec<PathBuf> = match path {
        "" => Vec::new(),
        path => vec![path.into()],
    };
    if !folder.is_empty() {
        paths.extend(parts(Path::new(folder)).with_context(|| format!("cannot read the folder {folder}"))?);
    }
    let mut whole = if path.is_empty() { without_file() } else { Json::Object(Map::new()) };
    for path in paths {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let part = document(&text).with_context(|| format!("in {}", path.display()))?;
        json_patch::merge(&mut whole, &Json::Object(part));
    }
    Ok(whole.as_object().cloned().unwrap_or_default())
}

/// What holds where no file is named and flags say nothing else: the defaults that flags had before there were files.
fn without_file() -> Json {
    serde_json::json!({
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "readOnlyPort": 10255,
    })
}

/// The files of a folder whose names end with `.conf`, in order, those of folders in it too.
fn parts(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            found.extend(parts(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "conf") {
            found.push(path);
        }
    }
    Ok(found)
}

fn document(text: &str) -> anyhow::Result<Map<String, Json>> {
    let raw: Json = daemon::config::parse(text, &[API_VERSION], KIND)?;
    let mut fields = raw.as_object().cloned().unwrap_or_default();
    drop_unset(&mut fields);
    Ok(fields)
}

/// Makes the configuration of what files and flags say. Unknown fields are warned of, as upstream does, those that ask for
/// something this kubelet cannot do are refused.
pub(super) fn decode(fields: Map<String, Json>) -> anyhow::Result<KubeletConfiguration> {
    let known = serde_json::to_value(KubeletConfiguration::default())?;
    for (name, value) in &fields {
        if known.get(name).is_some() || WITHOUT_EFFECT.contains(&name.as_str()) {
            continue;
        }
        match ONLY.iter().find(|(only, _)| only == name) {
            None => tracing::warn!(field = name, "Unknown field in the kubelet's configuration file"),
            Some((_, accepted)) => {
                let accepted: Json = serde_json::from_str(accepted).expect("the table holds JSON");
                if *value != accepted && !is_empty(value) {
                    bail!("{name}: {value} is not supported");
                }
            }
        }
    }
    let mut config: KubeletConfiguration =
        serde_json::from_value(Json::Object(fields)).context("invalid KubeletConfiguration")?;
    for (burst, default) in
        [(&mut config.registry_burst, REGISTRY_BURST), (&mut config.event_burst, EVENT_BURST)]
    {
        if *burst == 0 {
            *burst = default;
        }
    }
    Ok(config)
}

/// Takes out zero durations and empty texts, which stand for the default as in upstream's conversion.
fn drop_unset(fields: &mut Map<String, Json>) {
    fields.retain(|_, value| !is_zero_text(value));
    for inner in fields.values_mut().filter_map(Json::as_object_mut) {
        drop_unset(inner);
    }
}

fn is_zero_text(value: &Json) -> bool {
    matches!(value, Json::Null) || value == "" || value == "0s"
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Bool(b) => !b,
        Json::Number(n) => n.as_f64() == Some(0.0),
        Json::String(s) => s.is_empty() || s == "0s",
        Json::Array(a) => a.is_empty(),
        Json::Object(o) => o.values().all(is_empty),
    }
}

/// Only what was validated is here.
fn bucket(per_second: i32, burst: i32) -> Option<Bucket> {
    Bucket::new(f64::from(per_second), burst.max(0).unsigned_abs())
}

impl KubeletConfiguration {
    /// The hard thresholds of eviction: those of the file, over the defaults if it asks for that.
    pub(crate) fn hard_thresholds(&self) -> BTreeMap<String, String> {
        let mut all = self.eviction_hard.clone();
        for (name, value) in EVICTION_HARD.into_iter().filter(|_| self.merge_default_eviction_settings) {
            all.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        all
    }

    /// Whether pods come from a file or a URL.
    pub(crate) fn has_static_pods(&self) -> bool {
        !self.static_pod_path.is_empty() || !self.static_pod_url.is_empty()
    }

    /// How many images are pulled at a time; all when it is none.
    pub(crate) fn parallel_pulls(&self) -> Option<usize> {
        if self.serialize_image_pulls { Some(1) } else { self.max_parallel_image_pulls.map(|n| n as usize) }
    }

    /// How often images may be pulled; always when it is none.
    pub(crate) fn pull_rate(&self) -> Option<Bucket> {
        bucket(self.registry_pull_qps, self.registry_burst)
    }

    /// How often the API server may be told of events; always when it is none.
    pub(crate) fn event_rate(&self) -> Option<Bucket> {
        bucket(self.event_record_qps, self.event_burst)
    }

    /// Whose credentials have to be shown for images that are here.
    pub(crate) fn verification(&self) -> Result<Verification, String> {
        let policy = &self.image_pull_credentials_verification_policy;
        Verification::new(policy, &self.preloaded_images_verification_allowlist)
    }

    /// Refuses what this kubelet cannot do.
    pub(super) fn validate(&self) -> anyhow::Result<()> {
        if !matches!(self.cgroup_driver.as_str(), "cgroupfs" | "systemd") {
            bail!("cgroupDriver {:?} is neither cgroupfs nor systemd", self.cgroup_driver);
        }
        let gates = daemon::features::FeatureGates::from_map(self.feature_gates.clone());
        gates.check(&SWITCHABLE).map_err(anyhow::Error::msg)?;
        self.managers.validate()?;
        self.reserved.validate(&reserved::Around {
            cgroups_per_qos: self.cgroups_per_qos,
            cgroup_root: &self.cgroup_root,
            reserved_cpus: &self.managers.reserved_system_cpus,
        })?;
        if !matches!(self.authorization.mode.as_str(), "AlwaysAllow" | "Webhook") {
            bail!("authorization mode {:?} is neither AlwaysAllow nor Webhook", self.authorization.mode);
        }
        if self.enable_system_log_query && !self.enable_system_log_handler {
            bail!("invalid configuration: enableSystemLogHandler is required for enableSystemLogQuery");
        }
        let behavior = &self.memory_swap.swap_behavior;
        if !matches!(behavior.as_str(), "" | "NoSwap" | "LimitedSwap") {
            bail!(
                "invalid configuration: memorySwap.swapBehavior {behavior:?} must be one of: \"\", \"LimitedSwap\" or \
                 \"NoSwap\""
            );
        }
        crate::eviction::check(self)?;
        crate::users::check_length(self.user_namespaces.ids_per_pod)?;
        self.verification().map_err(|why| anyhow::anyhow!("invalid configuration: {why}"))?;
        match self.max_parallel_image_pulls {
            Some(0) => bail!("invalid configuration: maxParallelImagePulls 0 must be a positive number"),
            Some(most) if most > 1 && self.serialize_image_pulls => bail!(
                "invalid configuration: maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls \
                 (--serialize-image-pulls) set to false"
            ),
            _ => {}
        }
        for (field, flag, number) in [
            ("eventBurst", "event-burst", self.event_burst),
            ("eventRecordQPS", "event-qps", self.event_record_qps),
            ("registryBurst", "registry-burst", self.registry_burst),
            ("registryPullQPS", "registry-qps", self.registry_pull_qps),
        ] {
            if number < 0 {
                bail!("invalid configuration: {field} (--{flag}) {number} must not be a negative number");
            }
        }
        if self.container_log_max_workers < 1 {
            bail!("invalid configuration: containerLogMaxWorkers must be greater than or equal to 1");
        }
        crate::shutdown::check(self)?;
        let (low, high) = (self.image_gc_low_threshold_percent, self.image_gc_high_threshold_percent);
        if !(0..=100).contains(&low) || !(0..=100).contains(&high) || low >= high {
            bail!(
                "invalid configuration: imageGCLowThresholdPercent {low} must be less than imageGCHighThresholdPercent \
                 {high}, and both between 0 and 100"
            );
        }
        let longest = self.crash_loop_back_off.max_container_restart_period.0;
        if !(1000..=300_000).contains(&longest.as_millis()) {
            bail!(
                "invalid configuration: CrashLoopBackOff.MaxContainerRestartPeriod (got: {} seconds) must be set between 1s \
                 and 300s",
                longest.as_secs_f64()
            );
        }
        let (least, most) = (self.image_minimum_gc_age.0, self.image_maximum_gc_age.0);
        if !most.is_zero() && most <= least {
            bail!("invalid configuration: imageMaximumGCAge must be greater than imageMinimumGCAge");
        }
        for reserved in self.system_reserved.values().chain(self.kube_reserved.values()) {
            reserved
                .parse::<api::quantity::Quantity>()
                .with_context(|| format!("invalid quantity {reserved:?}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(fields: &str) -> String {
        format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{fields}")
    }

    fn parse(text: &str) -> anyhow::Result<KubeletConfiguration> {
        decode(document(text)?)
    }

    #[test]
    fn parts_of_a_folder_are_laid_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, fields: &str| std::fs::write(dir.path().join(name), text(fields)).unwrap();
        write(
            "kubelet.yaml",
            "maxPods: 5\nclusterDNS: [10.0.0.1]\nsystemReserved: {cpu: \"1\", memory: 1Gi}\n",
        );
        std::fs::create_dir(dir.path().join("parts")).unwrap();
        write("parts/20-later.conf", "maxPods: 7\n");
        write("parts/10-first.conf", "maxPods: 6\nclusterDNS: [10.0.0.2]\nsystemReserved: {cpu: \"2\"}\n");
        write("parts/README", "maxPods: 8\n");
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let config = decode(read(&path("kubelet.yaml"), &path("parts")).unwrap()).unwrap();
        assert_eq!(config.max_pods, 7);
        assert_eq!(config.cluster_dns, ["10.0.0.2"]);
        let reserved: Vec<_> = config.system_reserved.into_iter().collect();
        assert_eq!(reserved, [("cpu".to_owned(), "2".to_owned()), ("memory".to_owned(), "1Gi".to_owned())]);
        assert!(read(&path("none.yaml"), "").is_err());
    }

    #[test]
    fn everybody_may_ask_where_there_is_no_file() {
        let open = |config: &KubeletConfiguration| {
            let auth = &config.authentication;
            (
                auth.anonymous.enabled,
                auth.webhook.enabled,
                config.authorization.mode.clone(),
                config.read_only_port,
            )
        };
        let without = decode(read("", "").unwrap()).unwrap();
        assert_eq!(open(&without), (true, false, "AlwaysAllow".to_owned(), 10255));
        assert_eq!(open(&parse(&text("")).unwrap()), (false, true, "Webhook".to_owned(), 0));
    }

    #[test]
    fn a_file_of_kubeadm_is_read() {
        let text = text(
            "authentication:\n  anonymous:\n    enabled: false\n  webhook:\n    cacheTTL: 0s\n    enabled: true\n  \
             x509:\n    clientCAFile: /etc/kubernetes/pki/ca.crt\nclusterDNS:\n- 10.43.0.10\nclusterDomain: cluster.local\n\
             cpuManagerReconcilePeriod: 0s\ncrashLoopBackOff: {}\nfileCheckFrequency: 0s\nfailCgroupV1: false\n\
             memorySwap: {}\nsyncFrequency: 0s\nstaticPodPath: /etc/kubernetes/manifests\nlogging:\n  flushFrequency: 0\n",
        );
        let config = parse(&text).unwrap();
        assert_eq!(config.cluster_dns, ["10.43.0.10"]);
        assert_eq!(config.sync_frequency, GoDuration::from_secs(60));
        assert!(!config.fail_cgroup_v1);
    }

    #[test]
    fn every_field_that_flags_stand_for_is_known() {
        let known = serde_json::to_value(KubeletConfiguration::default()).unwrap();
        let table = include_str!("../../data/fields.txt").lines().filter(|line| !line.starts_with('#'));
        for field in
            table.filter_map(|line| Some(line.split('|').nth(2)?.trim().split('.').next()?.to_owned()))
        {
            let named =
                WITHOUT_EFFECT.contains(&field.as_str()) || ONLY.iter().any(|(only, _)| *only == field);
            assert!(known.get(&field).is_some() || named, "{field}");
        }
        assert_eq!(parse(&text("registryPullQPS: 7\n")).unwrap().registry_pull_qps, 7);
    }

    #[test]
    fn rates_of_nothing_are_no_limits_and_bursts_of_nothing_the_default() {
        let config =
            parse(&text("registryPullQPS: 0\nregistryBurst: 0\neventRecordQPS: 0\neventBurst: 0\n")).unwrap();
        assert!(config.pull_rate().is_none() && config.event_rate().is_none());
        assert_eq!((config.registry_burst, config.event_burst), (10, 100));
        let limited = parse(&text("registryBurst: 1\n")).unwrap();
        let mut rate = limited.pull_rate().unwrap();
        assert_eq!((rate.take(), rate.take()), (true, false));
        assert!(limited.event_rate().is_some());
    }

    #[test]
    fn unknown_fields_are_warned_of_and_unsupported_ones_refused() {
        assert!(parse(&text("noSuchField: 1\n")).is_ok());
        assert!(parse(&text("podsPerCore: 0\n")).is_ok());
        assert!(parse(&text("podsPerCore: 5\n")).is_err());
        let managed = parse(&text(
            "cpuManagerPolicy: static\ncpuManagerPolicyOptions:\n  full-pcpus-only: \"true\"\nreservedSystemCPUs: 0-1\n\
             memoryManagerPolicy: Static\nreservedMemory:\n- numaNode: 1\n  limits:\n    memory: 1Gi\n\
             topologyManagerPolicy: restricted\ntopologyManagerScope: pod\ncpuManagerReconcilePeriod: 5s\n",
        ));
        let managers = managed.unwrap().managers;
        assert_eq!(
            (managers.cpu_manager_policy.as_str(), managers.reserved_memory[0].numa_node),
            ("static", 1)
        );
        assert_eq!(managers.cpu_manager_policy_options["full-pcpus-only"], "true");
        assert_eq!(
            (managers.reserved_system_cpus.as_str(), managers.topology_manager_scope.as_str()),
            ("0-1", "pod")
        );
        assert_eq!(managers.cpu_manager_reconcile_period, GoDuration::from_secs(5));
        for (period, valid) in [("10s", true), ("500ms", false), ("301s", false)] {
            let text = text(&format!("crashLoopBackOff:\n  maxContainerRestartPeriod: {period}\n"));
            assert_eq!(parse(&text).unwrap().validate().is_ok(), valid, "{period}");
        }
        for (fields, valid) in [
            ("enableSystemLogQuery: true\n", true),
            ("enableSystemLogQuery: true\nenableSystemLogHandler: false\n", false),
            ("memorySwap:\n  swapBehavior: LimitedSwap\n", true),
            ("memorySwap:\n  swapBehavior: UnlimitedSwap\n", false),
        ] {
            assert_eq!(parse(&text(fields)).unwrap().validate().is_ok(), valid, "{fields}");
        }
        for (field, value, valid) in [
            ("registryPullQPS", 0, true),
            ("registryPullQPS", -1, false),
            ("registryBurst", -1, false),
            ("eventRecordQPS", -1, false),
            ("eventBurst", -1, false),
            ("containerLogMaxWorkers", 2, true),
            ("containerLogMaxWorkers", 0, false),
        ] {
            let text = text(&format!("{field}: {value}\n"));
            assert_eq!(parse(&text).unwrap().validate().is_ok(), valid, "{field}: {value}");
        }
        for (driver, valid) in [("systemd", true), ("other", false)] {
            let text = text(&format!("cgroupDriver: {driver}\n"));
            assert_eq!(parse(&text).unwrap().validate().is_ok(), valid, "{driver}");
        }
    }
}
