//! What is measured of zones, evictions and the looking after nodes, by upstream's names.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounterVec, Opts, Registry, exponential_buckets,
};
use serve::metrics::register;

use super::evictions::Review;

/// The metrics of the controller.
pub(super) struct Metrics {
    health: GaugeVec,
    size: GaugeVec,
    unhealthy: GaugeVec,
    evictions: IntCounterVec,
    one_node: Histogram,
    all_nodes: Histogram,
    /// Zones that were seen with nodes that count.
    seen: Mutex<BTreeSet<String>>,
}

const VALID: &str = "the name and label are valid";

fn gauges(registry: &Registry, name: &str, help: &str) -> GaugeVec {
    let gauges = GaugeVec::new(Opts::new(name, help), &["zone"]).expect(VALID);
    register(registry, gauges.clone());
    gauges
}

/// Eight buckets, each four times as wide as the one before.
fn durations(registry: &Registry, name: &str, help: &str, first: f64) -> Histogram {
    let buckets = exponential_buckets(first, 4.0, 8).expect("the buckets grow");
    let durations = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)).expect(VALID);
    register(registry, durations.clone());
    durations
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let evictions = Opts::new(
            "node_collector_evictions_total",
            "[STABLE] Number of Node evictions that happened since current instance of NodeController started.",
        );
        let evictions = IntCounterVec::new(evictions, &["zone"]).expect(VALID);
        register(registry, evictions.clone());
        Self {
            health: gauges(
                registry,
                "node_collector_zone_health",
                "[ALPHA] Gauge measuring percentage of healthy nodes per zone.",
            ),
            size: gauges(
                registry,
                "node_collector_zone_size",
                "[ALPHA] Gauge measuring number of registered Nodes per zones.",
            ),
            unhealthy: gauges(
                registry,
                "node_collector_unhealthy_nodes_in_zone",
                "[ALPHA] Gauge measuring number of not Ready Nodes per zones.",
            ),
            evictions,
            one_node: durations(
                registry,
                "node_collector_update_node_health_duration_seconds",
                "[ALPHA] Duration in seconds for NodeController to update the health of a single node.",
                0.001,
            ),
            all_nodes: durations(
                registry,
                "node_collector_update_all_nodes_health_duration_seconds",
                "[ALPHA] Duration in seconds for NodeController to update the health of all nodes.",
                0.01,
            ),
            seen: Mutex::default(),
        }
    }

    /// Shows the zones as they are now; one that has no nodes any more is empty and well.
    pub(super) fn show(&self, review: &Review) {
        let mut seen = self.seen.lock();
        for zone in seen.iter().filter(|zone| !review.tallies.contains_key(*zone)) {
            self.set(zone, 100.0, 0, 0);
        }
        for (zone, tally) in &review.tallies {
            let health = 100.0 * tally.healthy as f64 / tally.size() as f64;
            self.set(zone, health, tally.size(), tally.unhealthy);
        }
        for zone in &review.zones {
            // Zones show from their beginning.
            self.evictions.with_label_values(&[zone]);
        }
        *seen = review.tallies.keys().cloned().collect();
    }

    fn set(&self, zone: &str, health: f64, size: usize, unhealthy: usize) {
        let of = |gauges: &GaugeVec| -> Gauge { gauges.with_label_values(&[zone]) };
        of(&self.health).set(health);
        of(&self.size).set(size as f64);
        of(&self.unhealthy).set(unhealthy as f64);
    }

    pub(super) fn evicted(&self, zone: &str) {
        self.evictions.with_label_values(&[zone]).inc();
    }

    pub(super) fn looked_at_one(&self, took: Duration) {
        self.one_node.observe(took.as_secs_f64());
    }

    pub(super) fn looked_at_all(&self, took: Duration) {
        self.all_nodes.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::{Value, object};
    use prometheus::{Encoder, TextEncoder};
    use tokio::time::Instant;

    use super::super::evictions::Evictions;
    use super::*;
    use crate::config::EvictionLimits;

    fn node(name: &str, ready: &str) -> Arc<Value> {
        Arc::new(object!({
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "a"}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
    }

    #[test]
    fn zones_show_until_they_are_empty() {
        let (registry, now) = (Registry::new(), Instant::now());
        let metrics = Metrics::new(&registry);
        let mut evictions = Evictions::new(EvictionLimits::DEFAULT);
        let mut check = |nodes: &[Arc<Value>], want: [&str; 3]| {
            metrics.show(&evictions.review(nodes, now));
            let mut text = Vec::new();
            TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            let names = ["zone_health", "zone_size", "unhealthy_nodes_in_zone"];
            for (name, value) in names.iter().zip(want) {
                let line = format!("node_collector_{name}{{zone=\":\0:a\"}} {value}\n");
                assert!(text.contains(&line), "{line} in {text}");
            }
            assert!(text.contains("node_collector_evictions_total{zone=\":\0:a\"} 0\n"), "{text}");
        };
        check(
            &[node("x", "True"), node("y", "Unknown"), node("z", "True"), node("u", "True")],
            ["75", "4", "1"],
        );
        check(&[], ["100", "0", "0"]);
    }
}
