//! `rest_client_*`: what this process asks of API servers, by upstream's names. All clients of a process count together.

use std::sync::LazyLock;
use std::time::Instant;

use http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

const SECONDS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
const BYTES: [f64; 11] =
    [64.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

struct Families {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    asked: HistogramVec,
    answered: HistogramVec,
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let valid = "the names are valid";
    let histogram = |name: &str, help: &str, buckets: &[f64]| {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        HistogramVec::new(options, &["verb", "host"]).expect(valid)
    };
    let requests = Opts::new(
        "rest_client_requests_total",
        "Number of HTTP requests, partitioned by status code, method, and host.",
    );
    let families = Families {
        registry: Registry::new(),
        requests: IntCounterVec::new(requests, &["code", "method", "host"]).expect(valid),
        durations: histogram(
            "rest_client_request_duration_seconds",
            "Request latency in seconds. Broken down by verb, and host.",
            &SECONDS,
        ),
        asked: histogram(
            "rest_client_request_size_bytes",
            "Request size in bytes. Broken down by verb and host.",
            &BYTES,
        ),
        answered: histogram(
            "rest_client_response_size_bytes",
            "Response size in bytes. Broken down by verb and host.",
            &BYTES,
        ),
    };
    serve::metrics::register(&families.registry, families.requests.clone());
    for family in [&families.durations, &families.asked, &families.answered] {
        serve::metrics::register(&families.registry, family.clone());
    }
    families
});

/// What a scrape is answered from.
pub fn registry() -> &'static Registry {
    &FAMILIES.registry
}

/// A request under way.
pub(crate) struct Asked<'a> {
    method: Method,
    host: &'a str,
    since: Instant,
}

impl<'a> Asked<'a> {
    /// Of a server, by its URL.
    pub(crate) fn of(server: &'a str, method: &Method) -> Self {
        let host = server.split_once("://").map_or(server, |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or_default();
        Self { method: method.clone(), host, since: Instant::now() }
    }

    /// The head of the answer is here, or there will be none.
    pub(crate) fn answered(&self, code: Option<StatusCode>) {
        let Families { requests, durations, .. } = &*FAMILIES;
        let method = self.method.as_str();
        durations.with_label_values(&[method, self.host]).observe(self.since.elapsed().as_secs_f64());
        let code = code.as_ref().map_or("<error>", StatusCode::as_str);
        requests.with_label_values(&[code, method, self.host]).inc();
    }
}

/// A whole exchange took so many bytes each way.
pub(crate) fn exchanged(server: &str, method: &Method, (asked, answered): (usize, usize)) {
    let host = Asked::of(server, method).host;
    let labels = &[method.as_str(), host];
    if asked > 0 {
        FAMILIES.asked.with_label_values(labels).observe(asked as f64);
    }
    FAMILIES.answered.with_label_values(labels).observe(answered as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_code_method_and_host() {
        // No other test asks this one.
        let server = "https://counted.example:6443/base";
        let asked = Asked::of(server, &Method::POST);
        asked.answered(Some(StatusCode::CREATED));
        asked.answered(None);
        exchanged(server, &Method::POST, (300, 70));
        let text = prometheus::TextEncoder::new().encode_to_string(&registry().gather()).unwrap();
        let host = r#"host="counted.example:6443""#;
        for line in [
            format!(r#"rest_client_requests_total{{code="201",{host},method="POST"}} 1"#),
            format!(r#"rest_client_requests_total{{code="<error>",{host},method="POST"}} 1"#),
            format!(r#"rest_client_request_duration_seconds_count{{{host},verb="POST"}} 2"#),
            format!(r#"rest_client_request_size_bytes_sum{{{host},verb="POST"}} 300"#),
            format!(r#"rest_client_response_size_bytes_bucket{{{host},verb="POST",le="256"}} 1"#),
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
