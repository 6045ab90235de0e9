//! The proxy's metrics, by upstream's names.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, Opts, Registry};

#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) sync_seconds: Histogram,
    pub(crate) last_sync: Gauge,
    pub(crate) last_queued: Gauge,
    pub(crate) rules: GaugeVec,
    pub(crate) restore_failures: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let name = |n: &str| format!("kubeproxy_sync_proxy_rules_{n}");
        let buckets = prometheus::exponential_buckets(0.001, 2.0, 15).expect("valid buckets");
        let seconds = HistogramOpts::new(name("duration_seconds"), "SyncProxyRules latency in seconds");
        let metrics = Self {
            sync_seconds: Histogram::with_opts(seconds.buckets(buckets)).expect("valid metric"),
            last_sync: Gauge::new(
                name("last_timestamp_seconds"),
                "The last time proxy rules were successfully synced",
            )
            .expect("valid metric"),
            last_queued: Gauge::new(
                name("last_queued_timestamp_seconds"),
                "The last time a sync of proxy rules was queued",
            )
            .expect("valid metric"),
            rules: GaugeVec::new(
                Opts::new(name("iptables_total"), "Total number of iptables rules owned by kube-proxy"),
                &["table", "ip_family"],
            )
            .expect("valid metric"),
            restore_failures: IntCounter::new(
                name("iptables_restore_failures_total"),
                "Cumulative proxy iptables restore failures",
            )
            .expect("valid metric"),
        };
        serve::metrics::register(registry, metrics.sync_seconds.clone());
        serve::metrics::register(registry, metrics.last_sync.clone());
        serve::metrics::register(registry, metrics.last_queued.clone());
        serve::metrics::register(registry, metrics.rules.clone());
        serve::metrics::register(registry, metrics.restore_failures.clone());
        metrics
    }
}
