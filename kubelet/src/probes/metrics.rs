//! `/metrics/probes`: how probes ended and how long they took.

use std::time::Duration;

use prometheus::{CounterVec, HistogramOpts, HistogramVec, Opts, Registry};

use super::{Outcome, Target};

/// The words for how a probe ended.
const RESULTS: [&str; 3] = ["successful", "failed", "unknown"];

/// The metrics of all probes.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// What a scrape is answered from.
    pub registry: Registry,
    results: CounterVec,
    durations: HistogramVec,
}

impl Metrics {
    /// Nothing probed yet.
    pub(crate) fn new() -> Self {
        let help =
            "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.";
        let labels = ["probe_type", "result", "container", "pod", "namespace", "pod_uid"];
        let results = CounterVec::new(Opts::new("prober_probe_total", help), &labels);
        let options = HistogramOpts::new(
            "prober_probe_duration_seconds",
            "[ALPHA] Duration in seconds for a probe response.",
        );
        let durations = HistogramVec::new(options, &["probe_type", "container", "pod", "namespace"]);
        let metrics = Self {
            registry: Registry::new(),
            results: results.expect("the names are valid"),
            durations: durations.expect("the names are valid"),
        };
        serve::metrics::register(&metrics.registry, metrics.results.clone());
        serve::metrics::register(&metrics.registry, metrics.durations.clone());
        metrics
    }

    /// Counts a probe.
    pub(super) fn count(&self, kind: &str, target: &Target, outcome: &Outcome, took: Duration) {
        let result = match outcome {
            Outcome::Success | Outcome::Warning(_) => RESULTS[0],
            Outcome::Failure(_) => RESULTS[1],
            Outcome::Unknown(_) => RESULTS[2],
        };
        let (kind, container, pod) =
            (super::capitalized(kind), target.container.str_at(&["name"]), &target.pod);
        let labels = [kind.as_str(), result, container, pod.name(), pod.namespace(), pod.uid()];
        self.results.with_label_values(&labels).inc();
        if result == RESULTS[0] {
            let labels = [kind.as_str(), container, pod.name(), pod.namespace()];
            self.durations.with_label_values(&labels).observe(took.as_secs_f64());
        }
    }

    /// Forgets the probes of a container that is gone.
    pub(super) fn forget(&self, kind: &str, target: &Target) {
        let (kind, container, pod) =
            (super::capitalized(kind), target.container.str_at(&["name"]), &target.pod);
        for result in RESULTS {
            // What was never counted is not there to be removed.
            let _ = self.results.remove_label_values(&[
                kind.as_str(),
                result,
                container,
                pod.name(),
                pod.namespace(),
                pod.uid(),
            ]);
        }
        let _ = self.durations.remove_label_values(&[kind.as_str(), container, pod.name(), pod.namespace()]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::object;

    use super::*;

    #[test]
    fn probes_are_counted_until_their_container_is_gone() {
        let pod = Arc::new(object!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}}));
        let container = object!({"name": "c"});
        let target = Target { pod, container, id: "id".to_owned(), ip: String::new(), started: 0 };
        let metrics = Metrics::new();
        metrics.count("liveness", &target, &Outcome::Failure("no".to_owned()), Duration::ZERO);
        let gathered = metrics.registry.gather();
        assert_eq!(gathered.len(), 1);
        assert_eq!(gathered[0].name(), "prober_probe_total");
        metrics.forget("liveness", &target);
        assert!(metrics.registry.gather().is_empty());
    }
}
