//! `kubelet_http_*`: what the endpoints are asked for.

use std::time::Instant;

use http::{Method, Response};
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};
use serve::Body;

use crate::metrics::{Maker, SECONDS};

/// The first parts of paths that are told apart.
const PATHS: [&str; 19] = [
    "attach",
    "checkpoint",
    "configz",
    "containerLogs",
    "debug",
    "exec",
    "flagz",
    "healthz",
    "logs",
    "metrics",
    "metrics/cadvisor",
    "metrics/probes",
    "metrics/resource",
    "pods",
    "portForward",
    "run",
    "runningpods",
    "stats",
    "statusz",
];
/// Those of requests that last as long as the caller likes, as far as upstream knows them by these paths.
const LONG: [&str; 3] = ["attach", "debug", "exec"];
const METHODS: [&str; 8] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE"];
const OTHER: &str = "other";

/// What is counted of requests. Those that go on with a stream count until it begins.
pub(super) struct Metrics {
    /// What a scrape is answered from.
    pub(super) registry: Registry,
    total: IntCounterVec,
    durations: HistogramVec,
    inflight: IntGaugeVec,
}

impl Metrics {
    /// Nothing asked yet.
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let maker = Maker(&registry);
        let labels = &["method", "path", "server_type", "long_running"];
        let provider = maker.gauges(
            "metrics_provider",
            "Metrics provider used by kubelet to collect container stats. Values can be 'cadvisor' and 'cri'",
            &["provider"],
        );
        provider.with_label_values(&["cadvisor"]).set(1);
        Self {
            total: maker.counters(
                "http_requests_total",
                "Number of the http requests received since the server started",
                labels,
            ),
            durations: maker.histograms(
                "http_requests_duration_seconds",
                "Duration in seconds to serve http requests",
                labels,
                SECONDS.to_vec(),
            ),
            inflight: maker.gauges("http_inflight_requests", "Number of the inflight http requests", labels),
            registry,
        }
    }

    /// Waits for the answer to a request and counts it. `server`: `readonly` or `readwrite`.
    pub(super) async fn watch(
        &self,
        server: &str,
        (method, path): (&Method, &str),
        answer: impl Future<Output = Response<Body>>,
    ) -> Response<Body> {
        let path = bucket(path);
        let long = if LONG.contains(&path) { "true" } else { "false" };
        let method = METHODS.into_iter().find(|known| method == known).unwrap_or(OTHER);
        let labels = [method, path, server, long];
        self.total.with_label_values(&labels).inc();
        // Callers may go before they are answered.
        let _asking = Asking::of(self.inflight.with_label_values(&labels));
        let began = Instant::now();
        let answer = answer.await;
        self.durations.with_label_values(&labels).observe(began.elapsed().as_secs_f64());
        answer
    }
}

/// A request that is being answered.
struct Asking(prometheus::IntGauge);

impl Asking {
    fn of(gauge: prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn bucket(path: &str) -> &'static str {
    let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let of_two = |known: &&str| known.split_once('/') == second.map(|second| (first, second));
    let found = match (first, second) {
        ("metrics", Some(_)) => PATHS.into_iter().find(of_two),
        _ => PATHS.into_iter().find(|known| *known == first),
    };
    found.unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::text;

    #[test]
    fn paths_are_told_apart_by_their_beginning() {
        for (path, expected) in [
            ("/metrics", "metrics"),
            ("/metrics/cadvisor", "metrics/cadvisor"),
            ("/metrics/nothing", "other"),
            ("/exec/n/p/c", "exec"),
            ("/healthz/syncloop", "healthz"),
            ("/", "other"),
            ("/favicon.ico", "other"),
        ] {
            assert_eq!(bucket(path), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn requests_are_counted_and_those_that_go_early_are_not_under_way() {
        let metrics = Metrics::new();
        let answer = async { serve::text(http::StatusCode::OK, "") };
        metrics.watch("readwrite", (&Method::POST, "/exec/n/p/c"), answer).await;
        let never = metrics.watch("readonly", (&Method::PATCH, "/pods"), std::future::pending());
        let mut never = Box::pin(never);
        assert!(futures::poll!(&mut never).is_pending());
        let under_way = r#"kubelet_http_inflight_requests{long_running="false",method="other",path="pods",server_type="readonly"}"#;
        assert!(text(&metrics.registry).contains(&format!("{under_way} 1\n")));
        drop(never);
        let text = text(&metrics.registry);
        assert!(text.contains(&format!("{under_way} 0\n")));
        let labels = r#"{long_running="true",method="POST",path="exec",server_type="readwrite"}"#;
        assert!(text.contains(&format!("kubelet_http_requests_total{labels} 1\n")));
        assert!(text.contains(&format!("kubelet_http_requests_duration_seconds_count{labels} 1\n")));
    }
}
