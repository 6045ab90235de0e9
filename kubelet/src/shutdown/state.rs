//! When the node was last shut down gracefully: upstream's file `graceful_node_shutdown_state`, and metrics of it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use prometheus::{IntGauge, Registry};
use serde::{Deserialize, Serialize};

use crate::checkpoint;

const FILE: &str = "graceful_node_shutdown_state";

/// The two times as metrics, in seconds since the epoch; zero for never.
#[derive(Clone)]
pub(crate) struct Metrics {
    start: IntGauge,
    end: IntGauge,
}

impl Metrics {
    /// No shutdown yet.
    pub(crate) fn new() -> Self {
        let gauge = |name: &str, help: &str| {
            IntGauge::new(name, crate::metrics::alpha(help)).expect("the names are valid")
        };
        Self {
            start: gauge(
                "kubelet_graceful_shutdown_start_time_seconds",
                "Last graceful shutdown start time since unix epoch in seconds",
            ),
            end: gauge(
                "kubelet_graceful_shutdown_end_time_seconds",
                "Last graceful shutdown end time since unix epoch in seconds",
            ),
        }
    }

    /// Shows them at an endpoint.
    pub(crate) fn register(&self, registry: &Registry) {
        serve::metrics::register(registry, self.start.clone());
        serve::metrics::register(registry, self.end.clone());
    }

    fn set(&self, times: &Times) {
        let seconds = |time: Option<Timestamp>| time.map_or(0, Timestamp::as_second);
        self.start.set(seconds(times.start_time));
        self.end.set(seconds(times.end_time));
    }

    /// Both, for tests.
    #[cfg(test)]
    pub(super) fn values(&self) -> (i64, i64) {
        (self.start.get(), self.end.get())
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Times {
    #[serde(with = "go_time")]
    start_time: Option<Timestamp>,
    #[serde(with = "go_time")]
    end_time: Option<Timestamp>,
}

/// Times as Go writes them: no time is the first second of the first year.
mod go_time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    const NEVER: &str = "0001-01-01T00:00:00Z";

    pub(super) fn serialize<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => time.serialize(to),
            None => to.serialize_str(NEVER),
        }
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        let text = String::deserialize(from)?;
        if text == NEVER {
            return Ok(None);
        }
        text.parse().map(Some).map_err(serde::de::Error::custom)
    }
}

/// When the node was last shut down.
pub(super) struct State {
    path: PathBuf,
    metrics: Metrics,
}

impl State {
    /// Reads what an earlier kubelet noted.
    pub(super) fn load(root: &Path, metrics: Metrics) -> Self {
        let path = root.join(FILE);
        let read = checkpoint::read(&path).map_err(|error| error.to_string());
        let parse = |text: String| serde_json::from_str(&text).map_err(|error| error.to_string());
        match read.and_then(|text| text.map_or_else(|| Ok(Times::default()), parse)) {
            Ok(times) => metrics.set(&times),
            Err(error) => tracing::error!(err = error, "Failed to load graceful shutdown state"),
        }
        Self { path, metrics }
    }

    pub(super) fn note(&self, start: Timestamp, end: Option<Timestamp>) {
        let times = Times { start_time: Some(start), end_time: end };
        self.metrics.set(&times);
        let text = serde_json::to_string(&times).map_err(std::io::Error::from);
        if let Err(error) = text.and_then(|text| checkpoint::write(&self.path, &text)) {
            tracing::error!(err = %error, "Failed to store graceful shutdown state");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_in_upstreams_form_and_shown() {
        let dir = tempfile::tempdir().unwrap();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let state = State::load(dir.path(), Metrics::new());
        assert_eq!(state.metrics.values(), (0, 0));
        state.note(at(100), None);
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(text, r#"{"startTime":"1970-01-01T00:01:40Z","endTime":"0001-01-01T00:00:00Z"}"#);
        assert_eq!(State::load(dir.path(), Metrics::new()).metrics.values(), (100, 0));
        state.note(at(100), Some(at(130)));
        assert_eq!(State::load(dir.path(), Metrics::new()).metrics.values(), (100, 130));
    }
}
