//! What the node and its containers use: `/stats/summary` and `/metrics/resource`.

mod machine;
mod rates;
mod summary;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use api::{Value, object};
use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use linux::cgroup::Usage;
use serve::Body;

use crate::Kubelet;
use crate::cri::labels;
use crate::usage::Used;

pub(crate) use rates::Rates;
pub(super) use summary::summary;

/// What a container uses.
struct Container {
    id: String,
    name: String,
    namespace: String,
    pod: String,
    uid: String,
    cpu_nanoseconds: u64,
    working_set: u64,
    memory: u64,
    rss: u64,
    /// Nanoseconds since the epoch.
    started: i64,
    layer: Used,
}

async fn containers(kubelet: &Kubelet) -> crate::cri::Result<Vec<Container>> {
    let running = kubelet.runtime.containers(None).await?;
    let started: HashMap<_, _> =
        running.into_iter().filter(|c| c.state == 1).map(|c| (c.id, c.created_at)).collect();
    let stats = kubelet.runtime.container_stats().await?;
    let of = |stats: k8s_cri::v1::ContainerStats| {
        let attributes = stats.attributes?;
        let started = *started.get(&attributes.id)?;
        let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
        let cpu = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds);
        let memory = stats.memory.unwrap_or_default();
        let layer = stats.writable_layer.unwrap_or_default();
        let value =
            |value: Option<k8s_cri::v1::UInt64Value>| value.map(|value| value.value).unwrap_or_default();
        Some(Container {
            id: attributes.id.clone(),
            name: label(labels::CONTAINER_NAME),
            namespace: label(labels::POD_NAMESPACE),
            pod: label(labels::POD_NAME),
            uid: label(labels::POD_UID),
            cpu_nanoseconds: value(cpu),
            working_set: value(memory.working_set_bytes),
            memory: value(memory.usage_bytes),
            rss: value(memory.rss_bytes),
            started,
            layer: Used { bytes: value(layer.used_bytes) as i64, inodes: value(layer.inodes_used) as i64 },
        })
    };
    Ok(stats.into_iter().filter_map(of).collect())
}

/// The node's own use: its root group, or the kernel's figures where the root group has none.
pub(crate) fn node_usage(kubelet: &Kubelet) -> Usage {
    let mut usage = kubelet.cgroups.usage("");
    if usage.memory == 0 {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let field = |name| linux::facts::meminfo_bytes(&text, name).unwrap_or_default();
        usage.memory = field("MemTotal").saturating_sub(field("MemFree"));
        usage.working_set = field("MemTotal").saturating_sub(field("MemAvailable"));
        usage.swap = field("SwapTotal").saturating_sub(field("SwapFree"));
    }
    usage
}

/// The control group of a pod, while the pod is known.
fn group(kubelet: &Kubelet, uid: &str) -> Option<String> {
    let pod = kubelet.pods.lock().get(uid).map(|known| known.pod.clone());
    pod.map(|pod: Arc<Value>| kubelet.config.groups.pod(&pod))
}

fn pod_usage(kubelet: &Kubelet, uid: &str) -> Usage {
    group(kubelet, uid).map(|group| kubelet.cgroups.usage(&group)).unwrap_or_default()
}

/// What a group uses of the swap, and how much more it may use; no limit: no number.
#[derive(Clone, Copy)]
struct Swapped {
    used: u64,
    available: Option<u64>,
}

impl Swapped {
    fn new(used: u64, limit: Option<u64>) -> Self {
        Self { used, available: limit.map(|limit| limit.saturating_sub(used)) }
    }

    fn of_node(kubelet: &Kubelet, usage: &Usage) -> Self {
        Self::new(usage.swap, Some(kubelet.facts.swap))
    }

    fn of_container(kubelet: &Kubelet, container: &Container) -> Option<Self> {
        let group = kubelet.config.groups.container(&group(kubelet, &container.uid)?, &container.id);
        let exists = kubelet.cgroups.exists(&group);
        exists.then(|| Self::new(kubelet.cgroups.swap(&group), kubelet.cgroups.swap_limit(&group)))
    }

    fn shown(self, now: &str) -> Value {
        let mut shown = object!({"time": now});
        if let Some(available) = self.available {
            shown.set(&["swapAvailableBytes"], available as i64);
        }
        shown.set(&["swapUsageBytes"], self.used as i64);
        shown
    }
}

/// Prometheus' text with the few figures that metrics-server reads.
pub(super) async fn resource(kubelet: &Kubelet) -> Response<Body> {
    let now = Timestamp::now().as_millisecond();
    let (containers, failed) = match containers(kubelet).await {
        Ok(containers) => (containers, 0),
        Err(_) => (Vec::new(), 1),
    };
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, lines: Vec<(String, f64)>| {
        if lines.is_empty() {
            return;
        }
        let stability = if name.contains("_swap_") { "ALPHA" } else { "STABLE" };
        let _ = writeln!(out, "# HELP {name} [{stability}] {help}\n# TYPE {name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(out, "{name}{labels} {value} {now}");
        }
    };
    let labels = |c: &Container| {
        format!("{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}", c.name, c.namespace, c.pod)
    };
    let of_container = |value: &dyn Fn(&Container) -> f64| -> Vec<(String, f64)> {
        containers.iter().map(|c| (labels(c), value(c))).collect()
    };
    let swapped: Vec<_> =
        containers.iter().filter_map(|c| Some((labels(c), Swapped::of_container(kubelet, c)?))).collect();
    let mut pods: Vec<_> = containers.iter().map(|c| (&c.uid, &c.namespace, &c.pod)).collect();
    pods.sort();
    pods.dedup();
    let usage = |(uid, namespace, pod): (&String, &String, &String)| {
        (format!("{{namespace=\"{namespace}\",pod=\"{pod}\"}}"), pod_usage(kubelet, uid))
    };
    let pods: Vec<_> = pods.into_iter().map(usage).collect();
    let of_pod = |value: &dyn Fn(&Usage) -> f64| -> Vec<(String, f64)> {
        pods.iter().map(|(labels, usage)| (labels.clone(), value(usage))).collect()
    };
    let node = node_usage(kubelet);
    let cpu_help = "Cumulative cpu time consumed by";
    let memory_help = "Current working set of";
    family(
        "container_cpu_usage_seconds_total",
        "counter",
        &format!("{cpu_help} the container in core-seconds"),
        of_container(&|c| seconds(c.cpu_nanoseconds)),
    );
    family(
        "container_memory_working_set_bytes",
        "gauge",
        &format!("{memory_help} the container in bytes"),
        of_container(&|c| c.working_set as f64),
    );
    family(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
        of_container(&|c| c.started as f64 / 1e9),
    );
    let beyond = "Reported only on non-windows systems";
    let limit = |swapped: &Swapped| Some((swapped.available? + swapped.used) as f64);
    family(
        "container_swap_limit_bytes",
        "gauge",
        &format!("Current amount of the container swap limit in bytes. {beyond}"),
        swapped.iter().filter_map(|(labels, swapped)| Some((labels.clone(), limit(swapped)?))).collect(),
    );
    family(
        "container_swap_usage_bytes",
        "gauge",
        &format!("Current amount of the container swap usage in bytes. {beyond}"),
        swapped.iter().map(|(labels, swapped)| (labels.clone(), swapped.used as f64)).collect(),
    );
    family(
        "node_cpu_usage_seconds_total",
        "counter",
        &format!("{cpu_help} the node in core-seconds"),
        vec![(String::new(), seconds(node.cpu_nanoseconds))],
    );
    family(
        "node_memory_working_set_bytes",
        "gauge",
        &format!("{memory_help} the node in bytes"),
        vec![(String::new(), node.working_set as f64)],
    );
    family(
        "node_swap_usage_bytes",
        "gauge",
        &format!("Current swap usage of the node in bytes. {beyond}"),
        vec![(String::new(), node.swap as f64)],
    );
    family(
        "pod_cpu_usage_seconds_total",
        "counter",
        &format!("{cpu_help} the pod in core-seconds"),
        of_pod(&|usage| seconds(usage.cpu_nanoseconds)),
    );
    family(
        "pod_memory_working_set_bytes",
        "gauge",
        &format!("{memory_help} the pod in bytes"),
        of_pod(&|usage| usage.working_set as f64),
    );
    family(
        "pod_swap_usage_bytes",
        "gauge",
        &format!("Current amount of the pod swap usage in bytes. {beyond}"),
        of_pod(&|usage| usage.swap as f64),
    );
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    let _ = writeln!(
        out,
        "# HELP resource_scrape_error [STABLE] {help}\n# TYPE resource_scrape_error gauge\nresource_scrape_error {failed}"
    );
    let mut response = serve::text(StatusCode::OK, out);
    as_metrics(&mut response);
    response
}

/// Says that an answer is Prometheus' text.
pub(super) fn as_metrics(response: &mut Response<Body>) {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
}
