//! The kubelet's own figures, by upstream's names, labels and buckets. What is counted often is looked up once.

mod certificates;
mod features;
mod images;
mod node_start;
mod outcomes;
mod pods;
mod startup;
mod storage;

use std::sync::Arc;
use std::time::Duration;

use daemon::features::FeatureGates;
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

pub(crate) use certificates::Rotation;
pub(crate) use images::{Check, Images};
pub(crate) use node_start::NodeStart;
pub(crate) use outcomes::Outcomes;
pub(crate) use pods::{ContainerType, Place, Worker};
pub(crate) use startup::Startup;
pub(crate) use storage::Storage;

/// Upstream's buckets for what takes no longer than seconds.
pub(crate) const SECONDS: &[f64] = prometheus::DEFAULT_BUCKETS;
/// The buckets of what takes until a pod runs, in seconds.
const STARTS: [f64; 25] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0,
    480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
/// The help of a metric that upstream promises nothing about, as of nearly all of a kubelet.
pub(crate) fn alpha(help: &str) -> String {
    format!("[ALPHA] {help}")
}

/// Makes families of `kubelet_*` and shows them at an endpoint. They are alpha unless their help says something else.
pub(crate) struct Maker<'r>(pub(crate) &'r Registry);

impl Maker<'_> {
    fn shown<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let family = made.expect("the names are valid");
        serve::metrics::register(self.0, family.clone());
        family
    }

    fn options(name: &str, help: &str) -> Opts {
        let help = if help.starts_with('[') { help.to_owned() } else { alpha(help) };
        Opts::new(format!("kubelet_{name}"), help)
    }

    fn of_histogram(name: &str, help: &str, buckets: Vec<f64>) -> HistogramOpts {
        HistogramOpts::from(Self::options(name, help)).buckets(buckets)
    }

    pub(crate) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.shown(IntCounter::with_opts(Self::options(name, help)))
    }

    pub(crate) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.shown(IntCounterVec::new(Self::options(name, help), labels))
    }

    pub(crate) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.shown(IntGauge::with_opts(Self::options(name, help)))
    }

    pub(crate) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.shown(IntGaugeVec::new(Self::options(name, help), labels))
    }

    pub(crate) fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
        self.shown(Histogram::with_opts(Self::of_histogram(name, help, buckets)))
    }

    pub(crate) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Vec<f64>,
    ) -> HistogramVec {
        self.shown(HistogramVec::new(Self::of_histogram(name, help, buckets), labels))
    }
}

/// What is counted of the node and its pods.
pub(crate) struct Metrics {
    /// What a scrape is answered from.
    pub(crate) registry: Registry,
    /// What becomes of pods.
    pub(crate) pods: pods::Pods,
    /// What else comes of them.
    pub(crate) outcomes: Outcomes,
    /// What is done with volumes.
    pub(crate) storage: Arc<Storage>,
    /// How the node starts.
    pub(crate) node_start: NodeStart,
    /// The looks at all containers.
    pub(crate) relists: Relists,
    /// What is done about images.
    pub(crate) images: Images,
    evictions: IntCounterVec,
    stats_ages: HistogramVec,
    preemptions: IntCounterVec,
}

impl Metrics {
    /// Nothing counted yet.
    pub(crate) fn new(node_name: &str, cgroup_v2: bool, gates: FeatureGates) -> Self {
        let registry = Registry::new();
        serve::metrics::register(&registry, features::Enabled::of(gates));
        let maker = Maker(&registry);
        let name = maker.gauges("node_name", "The node's name. The count is always 1.", &["node"]);
        name.with_label_values(&[node_name]).set(1);
        maker.gauge("cgroup_version", "cgroup version on the hosts.").set(if cgroup_v2 { 2 } else { 1 });
        Self {
            pods: pods::Pods::new(&maker),
            outcomes: Outcomes::new(&maker),
            storage: Arc::new(Storage::new(&registry)),
            node_start: NodeStart::new(&registry),
            relists: Relists::new(&maker),
            evictions: maker.counters(
                "evictions",
                "Cumulative number of pod evictions by eviction signal",
                &["eviction_signal"],
            ),
            stats_ages: maker.histograms(
                "eviction_stats_age_seconds",
                "Time between when stats are collected, and when pod is evicted based on those stats by eviction signal",
                &["eviction_signal"],
                SECONDS.to_vec(),
            ),
            preemptions: maker.counters(
                "preemptions",
                "Cumulative number of pod preemptions by preemption resource",
                &["preemption_signal"],
            ),
            images: Images::new(&maker),
            registry,
        }
    }

    /// A pod has to go because of this signal.
    pub(crate) fn evicted(&self, signal: &str) {
        self.evictions.with_label_values(&[signal]).inc();
    }

    /// A pod goes in favour of another, for which there was too little of this resource.
    pub(crate) fn preempted(&self, resource: &str) {
        self.preemptions.with_label_values(&[resource]).inc();
    }

    /// Somebody is chosen to go by figures of this age.
    pub(crate) fn chosen(&self, signal: &str, age: Duration) {
        self.stats_ages.with_label_values(&[signal]).observe(age.as_secs_f64());
    }
}

/// How often all containers are looked at, and how many there are.
pub(crate) struct Relists {
    /// How long a look takes.
    pub(crate) durations: Histogram,
    /// How long a look at those of one pod takes.
    pub(crate) of_pods: Histogram,
    /// From one look to the next.
    pub(crate) intervals: Histogram,
    /// When the last successful one began, in seconds since the epoch.
    pub(crate) seen: IntGauge,
    /// Pods with a sandbox that runs.
    pub(crate) pods: IntGauge,
    /// Containers by their states, in CRI's order.
    pub(crate) containers: [IntGauge; 4],
}

impl Relists {
    fn new(maker: &Maker<'_>) -> Self {
        let containers = maker.gauges(
            "running_containers",
            "Number of containers currently running",
            &["container_state"],
        );
        Self {
            durations: maker.histogram(
                "pleg_relist_duration_seconds",
                "Duration in seconds for relisting pods in PLEG.",
                SECONDS.to_vec(),
            ),
            of_pods: maker.histogram(
                "pleg_pod_relist_duration_seconds",
                "Duration in seconds for relisting a single pod in PLEG.",
                SECONDS.to_vec(),
            ),
            intervals: maker.histogram(
                "pleg_relist_interval_seconds",
                "Interval in seconds between relisting in PLEG.",
                SECONDS.to_vec(),
            ),
            seen: maker
                .gauge("pleg_last_seen_seconds", "Timestamp in seconds when PLEG was last seen active."),
            pods: maker.gauge("running_pods", "Number of pods that have a running pod sandbox"),
            containers: ["created", "running", "exited", "unknown"]
                .map(|state| containers.with_label_values(&[state])),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a scrape would show.
    pub(crate) fn text(registry: &Registry) -> String {
        prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn the_node_is_named() {
        let gates = [("MemoryQoS".to_owned(), true)].into();
        let text = text(&Metrics::new("n1", false, FeatureGates::from_map(gates)).registry);
        assert!(text.contains("kubernetes_feature_enabled{name=\"MemoryQoS\",stage=\"ALPHA\"} 1\n"));
        assert!(text.contains("kubernetes_feature_enabled{name=\"SidecarContainers\",stage=\"\"} 1\n"));
        assert!(text.contains("# HELP kubelet_node_name [ALPHA] The node's name. The count is always 1.\n"));
        assert!(text.contains("kubelet_node_name{node=\"n1\"} 1\n"));
        assert!(text.contains("kubelet_cgroup_version 1\n"));
        assert!(text.contains("kubelet_running_containers{container_state=\"running\"} 0\n"));
    }
}
