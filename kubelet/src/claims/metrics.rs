//! The metrics `dra_*`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, IntGaugeVec, Opts, Registry};
use tonic::Code;

use super::Claims;
use crate::grpc;

/// How long things took.
#[derive(Clone)]
pub(crate) struct Metrics {
    operations: HistogramVec,
    calls: HistogramVec,
}

/// Fifteen bounds from a tenth of a second to forty, each the same multiple of the one before.
fn buckets() -> Vec<f64> {
    (0..15).map(|i| 0.1 * 400_f64.powf(f64::from(i) / 14.0)).collect()
}

impl Metrics {
    /// Nothing done yet.
    pub(super) fn new() -> Self {
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name, crate::metrics::alpha(help)).buckets(buckets());
            HistogramVec::new(options, labels).expect("the names are valid")
        };
        Self {
            operations: histogram(
                "dra_operations_duration_seconds",
                "Latency histogram in seconds for the duration of handling all ResourceClaims referenced by a pod when the pod starts or stops. Identified by the name of the operation (PrepareResources or UnprepareResources) and separated by the success of the operation. The number of failed operations is provided through the histogram's overall count.",
                &["operation_name", "is_error"],
            ),
            calls: histogram(
                "dra_grpc_operations_duration_seconds",
                "Duration in seconds of the DRA gRPC operations",
                &["driver_name", "method_name", "grpc_status_code"],
            ),
        }
    }

    pub(super) fn operation(&self, name: &str, failed: bool, took: Duration) {
        let failed = if failed { "true" } else { "false" };
        self.operations.with_label_values(&[name, failed]).observe(took.as_secs_f64());
    }

    pub(super) fn call(&self, driver: &str, method: &str, failure: Option<Code>, took: Duration) {
        let code = grpc::name(failure.unwrap_or(Code::Ok));
        self.calls.with_label_values(&[driver, method, &code]).observe(took.as_secs_f64());
    }

    /// How often an operation was done, for tests.
    #[cfg(test)]
    pub(super) fn count(&self, name: &str, failed: &str) -> u64 {
        self.operations.with_label_values(&[name, failed]).get_sample_count()
    }
}

/// Shows the metrics of these claims at an endpoint.
pub(super) fn register(claims: &Arc<Claims>, registry: &Registry) {
    serve::metrics::register(registry, claims.metrics.operations.clone());
    serve::metrics::register(registry, claims.metrics.calls.clone());
    let options = Opts::new(
        "dra_resource_claims_in_use",
        "[ALPHA] The number of ResourceClaims that are currently in use on the node, by driver name (driver_name label value) and across all drivers (special value <any> for driver_name). Note that the sum of all by-driver counts is not the total number of in-use ResourceClaims because the same ResourceClaim might use devices from different drivers. Instead, use the count for the <any> driver_name.",
    );
    let gauge = IntGaugeVec::new(options, &["driver_name"]).expect("the names are valid");
    serve::metrics::register(registry, InUse { claims: claims.clone(), gauge });
}

/// Counts the claims in use whenever somebody looks.
struct InUse {
    claims: Arc<Claims>,
    gauge: IntGaugeVec,
}

impl Collector for InUse {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.reset();
        for (driver, count) in self.claims.in_use() {
            self.gauge.with_label_values(&[&driver]).set(count);
        }
        self.gauge.collect()
    }
}

impl Claims {
    /// How many claims are prepared, by driver and altogether.
    pub(super) fn in_use(&self) -> HashMap<String, i64> {
        let mut counts = HashMap::from([("<any>".to_owned(), 0)]);
        for info in self.known.lock().values().filter(|info| info.prepared) {
            *counts.entry("<any>".to_owned()).or_default() += 1;
            for driver in info.drivers.keys() {
                *counts.entry(driver.clone()).or_default() += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn buckets_reach_from_a_tenth_of_a_second_to_forty() {
        let buckets = super::buckets();
        assert_eq!((buckets.len(), buckets[0]), (15, 0.1));
        assert!((buckets[14] - 40.0).abs() < 1e-9);
    }
}
