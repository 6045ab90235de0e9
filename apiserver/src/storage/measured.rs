//! How long etcd takes, by what it is asked for, and how large it has become.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Instant;

use api::error::Result;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::resources::TABLE;

const DURATIONS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
const LABELS: [&str; 3] = ["operation", "group", "resource"];

/// Group and plural by the prefix of keys.
static PLACES: LazyLock<HashMap<&str, (&str, &str)>> = LazyLock::new(|| {
    let of = |(store, prefix): (usize, &&'static str)| {
        let row = TABLE.storage_row(store);
        (*prefix, (row.group, row.plural))
    };
    TABLE.prefixes.iter().enumerate().map(of).collect()
});

/// Families of requests to etcd.
pub(super) struct Measured {
    durations: HistogramVec,
    requests: IntCounterVec,
    errors: IntCounterVec,
    sizes: IntGaugeVec,
}

impl Measured {
    pub(super) fn new() -> prometheus::Result<Self> {
        let durations = HistogramOpts::new(
            "etcd_request_duration_seconds",
            "[ALPHA] Etcd request latency in seconds for each operation and object type.",
        );
        let counter = |name, help| IntCounterVec::new(Opts::new(name, help), &LABELS);
        Ok(Self {
            durations: HistogramVec::new(durations.buckets(DURATIONS.to_vec()), &LABELS)?,
            requests: counter(
                "etcd_requests_total",
                "[ALPHA] Etcd request counts for each operation and object type.",
            )?,
            errors: counter(
                "etcd_request_errors_total",
                "[ALPHA] Etcd failed request counts for each operation and object type.",
            )?,
            sizes: IntGaugeVec::new(
                Opts::new(
                    "apiserver_storage_size_bytes",
                    "[STABLE] Size of the storage database file physically allocated in bytes.",
                ),
                &["storage_cluster_id"],
            )?,
        })
    }

    pub(super) fn register(&self, registry: &Registry) {
        serve::metrics::register(registry, self.durations.clone());
        serve::metrics::register(registry, self.requests.clone());
        serve::metrics::register(registry, self.errors.clone());
        serve::metrics::register(registry, self.sizes.clone());
    }

    /// Notes a request about `key`, which stands below the prefix of all keys, and what came of it.
    pub(super) fn note<T>(&self, operation: &str, key: &str, began: Instant, outcome: &Result<T>) {
        let (group, resource) = place(key);
        let labels = [operation, group, resource];
        self.requests.with_label_values(&labels).inc();
        self.durations.with_label_values(&labels).observe(began.elapsed().as_secs_f64());
        if outcome.is_err() {
            self.errors.with_label_values(&labels).inc();
        }
    }

    /// Notes how large the database of a member is.
    pub(super) fn size(&self, member: usize, bytes: i64) {
        self.sizes.with_label_values(&[format!("etcd-{member}").as_str()]).set(bytes);
    }
}

/// What a key is of. Custom resources are kept under their group and plural.
fn place(key: &str) -> (&str, &str) {
    let mut slashes = key.match_indices('/').map(|(at, _)| at);
    let (first, second) = (slashes.next(), slashes.next());
    let one = first.map_or(key, |at| &key[..at]);
    let two = second.map_or(key, |at| &key[..at]);
    match PLACES.get(two).or_else(|| PLACES.get(one)) {
        Some(place) => *place,
        None => match two.split_once('/') {
            Some((group, plural)) if group.contains('.') => (group, plural),
            _ => ("", ""),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_they_are_of() {
        assert_eq!(place("pods/default/a"), ("", "pods"));
        assert_eq!(place("services/specs/default/a"), ("", "services"));
        assert_eq!(place("minions/a"), ("", "nodes"));
        assert_eq!(place("deployments/default/a"), ("apps", "deployments"));
        assert_eq!(place("ex.io/foos/default/a"), ("ex.io", "foos"));
        assert_eq!(place("ferrite/progress"), ("", ""));
    }
}
