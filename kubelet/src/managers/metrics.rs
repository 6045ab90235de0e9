//! Figures about who got what.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, exponential_buckets,
};

use super::cpus;
use super::cpuset::CpuSet;

/// What is counted, under upstream's names.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(super) cpu_requests: IntCounter,
    pub(super) cpu_errors: IntCounter,
    shared_pool: Gauge,
    exclusive: Gauge,
    by_node: GaugeVec,
    pub(super) memory_requests: IntCounter,
    pub(super) memory_errors: IntCounter,
    pub(super) admissions: IntCounter,
    pub(super) refusals: IntCounter,
    pub(super) durations: Histogram,
    aligned: IntCounterVec,
    unaligned: IntCounterVec,
}

/// Of what resources can be said to lie together, and within what.
pub(super) const CORES: [&str; 2] = ["container", "physical_cpu"];
pub(super) const CACHES: [&str; 2] = ["container", "uncore_cache"];

impl Metrics {
    /// Nothing counted yet.
    pub(super) fn new() -> Self {
        let options =
            |name: &str, help: &str| Opts::new(format!("kubelet_{name}"), crate::metrics::alpha(help));
        let counter =
            |name: &str, help: &str| IntCounter::with_opts(options(name, help)).expect("the names are valid");
        let gauge =
            |name: &str, help: &str| Gauge::with_opts(options(name, help)).expect("the names are valid");
        let pairs = |name: &str, help: &str| {
            IntCounterVec::new(options(name, help), &["scope", "boundary"]).expect("the names are valid")
        };
        let buckets = exponential_buckets(0.05, 2.0, 15).expect("the numbers are positive");
        let durations = HistogramOpts::new(
            "kubelet_topology_manager_admission_duration_ms",
            "[ALPHA] Duration in milliseconds to serve a pod admission request.",
        );
        Self {
            cpu_requests: counter(
                "cpu_manager_pinning_requests_total",
                "The number of cpu core allocations which required pinning.",
            ),
            cpu_errors: counter(
                "cpu_manager_pinning_errors_total",
                "The number of cpu core allocations which required pinning failed.",
            ),
            shared_pool: gauge(
                "cpu_manager_shared_pool_size_millicores",
                "The size of the shared CPU pool for non-guaranteed QoS pods, in millicores.",
            ),
            exclusive: gauge(
                "cpu_manager_exclusive_cpu_allocation_count",
                "The total number of CPUs exclusively allocated to containers running on this node",
            ),
            by_node: GaugeVec::new(
                options("cpu_manager_allocation_per_numa", "Number of CPUs allocated per NUMA node"),
                &["numa_node"],
            )
            .expect("the names are valid"),
            memory_requests: counter(
                "memory_manager_pinning_requests_total",
                "The number of memory pages allocations which required pinning.",
            ),
            memory_errors: counter(
                "memory_manager_pinning_errors_total",
                "The number of memory pages allocations which required pinning that failed.",
            ),
            admissions: counter(
                "topology_manager_admission_requests_total",
                "The number of admission requests where resources have to be aligned.",
            ),
            refusals: counter(
                "topology_manager_admission_errors_total",
                "The number of admission request failures where resources could not be aligned.",
            ),
            durations: Histogram::with_opts(durations.buckets(buckets)).expect("the names are valid"),
            aligned: pairs(
                "container_aligned_compute_resources_count",
                "Cumulative number of aligned compute resources allocated to containers by alignment type.",
            ),
            unaligned: pairs(
                "container_aligned_compute_resources_failure_count",
                "Cumulative number of failures to allocate aligned compute resources to containers by alignment type.",
            ),
        }
    }

    /// Shows them at an endpoint.
    pub(crate) fn register(&self, registry: &Registry) {
        let counters = [
            &self.cpu_requests,
            &self.cpu_errors,
            &self.memory_requests,
            &self.memory_errors,
            &self.admissions,
            &self.refusals,
        ];
        for counter in counters {
            serve::metrics::register(registry, counter.clone());
        }
        for gauge in [&self.shared_pool, &self.exclusive] {
            serve::metrics::register(registry, gauge.clone());
        }
        for pairs in [&self.aligned, &self.unaligned] {
            serve::metrics::register(registry, pairs.clone());
        }
        serve::metrics::register(registry, self.by_node.clone());
        serve::metrics::register(registry, self.durations.clone());
    }

    /// Has the pairs shown before anything of their kind has happened.
    pub(super) fn expect(&self, what: [&str; 2], may_fail: bool) {
        self.aligned.with_label_values(&what).inc_by(0);
        if may_fail {
            self.unaligned.with_label_values(&what).inc_by(0);
        }
    }

    /// Resources lie together, or do not.
    pub(super) fn note(&self, what: [&str; 2], together: bool) {
        let counters = if together { &self.aligned } else { &self.unaligned };
        counters.with_label_values(&what).inc();
    }

    /// Shows who has which processors by now.
    pub(super) fn show(&self, policy: &cpus::Static, state: &cpus::State) {
        let exclusive: CpuSet = state.exclusive();
        self.exclusive.set(exclusive.len() as f64);
        self.shared_pool.set((policy.available(state).len() * 1000) as f64);
        for (node, count) in policy.by_node(&exclusive) {
            self.by_node.with_label_values(&[&node.to_string()]).set(count as f64);
        }
    }
}
