//! How long the node takes to start, from the start of the machine until it is ready. Only a node that is registered for the
//! first time has these figures: before they are known they are not shown.

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus::{Gauge, Registry};

/// What happened when, in seconds since the epoch.
#[derive(Debug, Default, Clone, Copy)]
struct Times {
    attempted: Option<f64>,
    registered: Option<f64>,
    ready: Option<f64>,
}

/// The start of the node.
pub(crate) struct NodeStart {
    registry: Registry,
    /// When the machine started, if that is known.
    booted: Option<f64>,
    began: f64,
    times: Mutex<Times>,
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

/// When the machine started, by the text of `/proc/stat`.
fn booted(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

impl NodeStart {
    /// The kubelet starts now.
    pub(super) fn new(registry: &Registry) -> Self {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        Self::at(registry, booted(&stat), Timestamp::now())
    }

    fn at(registry: &Registry, booted: Option<f64>, now: Timestamp) -> Self {
        Self { registry: registry.clone(), booted, began: seconds(now), times: Mutex::default() }
    }

    fn show(&self, part: &str, words: &str, duration: f64) {
        let (name, help) = (
            format!("kubelet_node_startup_{part}duration_seconds"),
            format!("[ALPHA] Duration in seconds of node startup {words}."),
        );
        let gauge = Gauge::new(name, help).expect("the names are valid");
        gauge.set(duration);
        serve::metrics::register(&self.registry, gauge);
    }

    /// The kubelet tries to register the node.
    pub(crate) fn attempts(&self, now: Timestamp) {
        self.times.lock().attempted.get_or_insert(seconds(now));
    }

    /// There was no such node, and there is one now.
    pub(crate) fn registered(&self, now: Timestamp) {
        let mut times = self.times.lock();
        let (Some(attempted), None) = (times.attempted, times.registered) else { return };
        let now = seconds(now);
        times.registered = Some(now);
        if let Some(booted) = self.booted {
            self.show("pre_kubelet_", "before kubelet starts", self.began - booted);
        }
        self.show("pre_registration_", "before registration", attempted - self.began);
        self.show("registration_", "during registration", now - attempted);
    }

    /// The node is ready.
    pub(crate) fn ready(&self, now: Timestamp) {
        let mut times = self.times.lock();
        let (Some(registered), None) = (times.registered, times.ready) else { return };
        let now = seconds(now);
        times.ready = Some(now);
        self.show("post_registration_", "after registration", now - registered);
        if let Some(booted) = self.booted {
            self.show("", "in total", now - booted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::text;

    #[test]
    fn a_new_node_shows_how_long_each_part_of_its_start_took() {
        let registry = Registry::new();
        let at = |second| Timestamp::from_second(second).unwrap();
        let start = NodeStart::at(&registry, booted("cpu 1\nbtime 900\n"), at(1000));
        start.registered(at(1001));
        start.attempts(at(1002));
        start.attempts(at(1003));
        start.ready(at(1004));
        assert!(!text(&registry).contains("kubelet_node_startup"));
        start.registered(at(1005));
        start.registered(at(1050));
        start.ready(at(1010));
        start.ready(at(1060));
        for (part, took) in [
            ("pre_kubelet_", 100),
            ("pre_registration_", 2),
            ("registration_", 3),
            ("post_registration_", 5),
            ("", 110),
        ] {
            let line = format!("kubelet_node_startup_{part}duration_seconds {took}");
            assert!(text(&registry).lines().any(|other| other == line), "{line}");
        }
    }
}
