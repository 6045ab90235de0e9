//! The metrics endpoint: the Prometheus text format 0.0.4 of a registry, with facts about the process.

use std::fs;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Encoder, Gauge, Opts, Registry, TextEncoder};

use crate::body::{Body, full, text};

/// A registry that already tells about the process and the version it follows.
pub fn registry(version: &str) -> Registry {
    let registry = Registry::new();
    let build = Opts::new(
        "kubernetes_build_info",
        "[BETA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
    );
    let mut numbers = version.trim_start_matches('v').split('.');
    let build = build
        .const_label("git_version", version)
        .const_label("major", numbers.next().unwrap_or_default())
        .const_label("minor", numbers.next().unwrap_or_default());
    if let Ok(gauge) = Gauge::with_opts(build) {
        gauge.set(1.0);
        register(&registry, gauge);
    }
    register(&registry, Process::new());
    registry
}

/// Adds a collector; one registered under the same name before stays in its place.
pub fn register(registry: &Registry, collector: impl Collector + 'static) {
    if let Err(e) = registry.register(Box::new(collector)) {
        tracing::warn!(err = %e, "Metric registered twice");
    }
}

/// The answer to a scrape.
pub fn respond(registry: &Registry) -> Response<Body> {
    respond_all(&[registry])
}

/// The answer to a scrape of several registries, none of which has a family of another.
pub fn respond_all(registries: &[&Registry]) -> Response<Body> {
    let families: Vec<_> = registries.iter().flat_map(|registry| registry.gather()).collect();
    let mut lines = Vec::new();
    if let Err(e) = TextEncoder::new().encode(&families, &mut lines) {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode metrics: {e}\n"));
    }
    let mut response = Response::new(full(lines));
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}

/// The `process_*` metrics, read from /proc at every scrape.
struct Process {
    cpu: Counter,
    resident: Gauge,
    virtual_size: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    started: Gauge,
    most_virtual: Gauge,
    received: Counter,
    sent: Counter,
}

/// Clock ticks a second in /proc: always 100 on Linux for user space.
const TICKS: f64 = 100.0;
const PAGE: f64 = 4096.0;

impl Process {
    fn new() -> Self {
        let gauge =
            |name: &str, help: &str| Gauge::new(name, help).expect("the names below are valid metric names");
        let counter = |name: &str, help: &str| Counter::new(name, help).expect("a valid metric name");
        Self {
            cpu: counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds."),
            resident: gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
            virtual_size: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."),
            open_fds: gauge("process_open_fds", "Number of open file descriptors."),
            max_fds: gauge("process_max_fds", "Maximum number of open file descriptors."),
            started: gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            ),
            most_virtual: gauge(
                "process_virtual_memory_max_bytes",
                "Maximum amount of virtual memory available in bytes.",
            ),
            received: counter(
                "process_network_receive_bytes_total",
                "Number of bytes received by the process over the network.",
            ),
            sent: counter(
                "process_network_transmit_bytes_total",
                "Number of bytes sent by the process over the network.",
            ),
        }
    }

    fn all(&self) -> [&dyn Collector; 9] {
        [
            &self.cpu,
            &self.resident,
            &self.virtual_size,
            &self.open_fds,
            &self.max_fds,
            &self.started,
            &self.most_virtual,
            &self.received,
            &self.sent,
        ]
    }

    fn read(&self) {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The command, in parentheses, may hold spaces; what follows does not.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        self.cpu.inc_by(((number(11) + number(12)) / TICKS - self.cpu.get()).max(0.0));
        self.virtual_size.set(number(20));
        self.resident.set(number(21) * PAGE);
        self.started.set(boot_time() + number(19) / TICKS);
        self.open_fds.set(fs::read_dir("/proc/self/fd").map_or(0.0, |d| d.count() as f64));
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        self.max_fds.set(soft_limit(&limits, "Max open files"));
        self.most_virtual.set(soft_limit(&limits, "Max address space"));
        // As upstream's library does: what its network namespace has sent and received.
        let counts = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
        let count_up = |counter: &Counter, now: f64| counter.inc_by((now - counter.get()).max(0.0));
        count_up(&self.received, octets(&counts, "InOctets"));
        count_up(&self.sent, octets(&counts, "OutOctets"));
    }
}

fn boot_time() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0.0)
}

/// A limit that is not set is the largest number there is.
fn soft_limit(limits: &str, name: &str) -> f64 {
    let mut lines = limits.lines().filter_map(|line| line.strip_prefix(name));
    match lines.next().and_then(|rest| rest.split_whitespace().next()) {
        Some("unlimited") => u64::MAX as f64,
        number => number.and_then(|number| number.parse().ok()).unwrap_or(0.0),
    }
}

/// A figure of the line `IpExt`, whose names are in the line before.
fn octets(netstat: &str, name: &str) -> f64 {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0.0 };
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(known, _)| *known == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0.0)
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }
    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn limits_and_counts_are_read_by_name() {
        let limits = "Max open files            1024                 524288               files\n\
                      Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(soft_limit(limits, "Max open files"), 1024.0);
        assert_eq!(soft_limit(limits, "Max address space"), u64::MAX as f64);
        let netstat = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 7 8\n";
        assert_eq!((octets(netstat, "InOctets"), octets(netstat, "OutOctets")), (7.0, 8.0));
    }

    #[tokio::test]
    async fn a_scrape_tells_about_the_process() {
        let body = respond(&registry("v1.36.2")).into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        assert!(text.contains("kubernetes_build_info{git_version=\"v1.36.2\",major=\"1\",minor=\"36\"} 1"));
    }
}
