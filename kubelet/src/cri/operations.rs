//! `kubelet_runtime_operations_*`: how often the runtime is asked for what, how long that takes, and how often it fails.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};

use crate::metrics::{Maker, SECONDS};

/// What the runtime is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Attach,
    Checkpoint,
    ContainerStats,
    ContainerStatus,
    CreateContainer,
    Exec,
    ExecSync,
    ImageFsInfo,
    ImageStatus,
    ListContainers,
    ListContainerStats,
    ListImages,
    ListSandboxes,
    PortForward,
    PullImage,
    RemoveContainer,
    RemoveImage,
    RemoveSandbox,
    ReopenLog,
    RunSandbox,
    RuntimeConfig,
    SandboxStatus,
    StartContainer,
    Status,
    StopContainer,
    StopSandbox,
    UpdateContainer,
    UpdateSandbox,
    Version,
}

/// Upstream's names, in the order of the operations.
const NAMES: [&str; 29] = [
    "attach",
    "checkpoint_container",
    "container_stats",
    "container_status",
    "create_container",
    "exec",
    "exec_sync",
    "image_fs_info",
    "image_status",
    "list_containers",
    "list_container_stats",
    "list_images",
    "list_podsandbox",
    "port_forward",
    "pull_image",
    "remove_container",
    "remove_image",
    "remove_podsandbox",
    "reopen_container_log",
    "run_podsandbox",
    "runtime_config",
    "podsandbox_status",
    "start_container",
    "status",
    "stop_container",
    "stop_podsandbox",
    "update_container",
    "update_podsandbox_resources",
    "version",
];

/// The series of one operation.
struct Series {
    total: IntCounter,
    durations: Histogram,
}

/// What is counted; clones share it.
#[derive(Clone)]
pub(crate) struct Operations(Arc<Families>);

struct Families {
    /// What a scrape is answered from.
    registry: Registry,
    total: IntCounterVec,
    durations: HistogramVec,
    errors: IntCounterVec,
    sandbox_durations: HistogramVec,
    sandbox_errors: IntCounterVec,
    /// Looked up at the first use.
    series: [OnceLock<Series>; NAMES.len()],
}

impl Operations {
    /// Nothing asked yet.
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let maker = Maker(&registry);
        let kind = &["operation_type"];
        let handler = &["runtime_handler"];
        let buckets = (0..14).map(|n| 0.005 * 2.5_f64.powi(n)).collect();
        let families = Families {
            total: maker.counters(
                "runtime_operations_total",
                "Cumulative number of runtime operations by operation type.",
                kind,
            ),
            durations: maker.histograms(
                "runtime_operations_duration_seconds",
                "Duration in seconds of runtime operations. Broken down by operation type.",
                kind,
                buckets,
            ),
            errors: maker.counters(
                "runtime_operations_errors_total",
                "Cumulative number of runtime operation errors by operation type.",
                kind,
            ),
            sandbox_durations: maker.histograms(
                "run_podsandbox_duration_seconds",
                "Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler.",
                handler,
                SECONDS.to_vec(),
            ),
            sandbox_errors: maker.counters(
                "run_podsandbox_errors_total",
                "Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler.",
                handler,
            ),
            series: [const { OnceLock::new() }; NAMES.len()],
            registry,
        };
        Self(Arc::new(families))
    }

    /// What a scrape is answered from.
    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Waits for a call, and counts it.
    pub(super) async fn watch<T, E>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let result = call.await;
        let (place, families) = (operation as usize, &*self.0);
        let label = &[NAMES[place]];
        let series = families.series[place].get_or_init(|| Series {
            total: families.total.with_label_values(label),
            durations: families.durations.with_label_values(label),
        });
        series.total.inc();
        series.durations.observe(began.elapsed().as_secs_f64());
        if result.is_err() {
            families.errors.with_label_values(label).inc();
        }
        result
    }

    /// Waits for a sandbox to run with a runtime's handler, and counts it.
    pub(super) async fn watch_sandbox<T, E>(
        &self,
        handler: &str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let result = self.watch(Operation::RunSandbox, call).await;
        let took = began.elapsed().as_secs_f64();
        self.0.sandbox_durations.with_label_values(&[handler]).observe(took);
        if result.is_err() {
            self.0.sandbox_errors.with_label_values(&[handler]).inc();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::text;

    #[tokio::test]
    async fn calls_are_counted_and_so_are_those_that_fail() {
        let operations = Operations::new();
        assert_eq!(text(operations.registry()), "", "nothing has been asked yet");
        for result in [Ok(()), Err(()), Ok(())] {
            assert_eq!(operations.watch(Operation::Version, async { result }).await, result);
        }
        operations.watch(Operation::Attach, async { Ok::<_, ()>(()) }).await.unwrap();
        let text = text(operations.registry());
        for line in [
            r#"kubelet_runtime_operations_total{operation_type="version"} 3"#,
            r#"kubelet_runtime_operations_total{operation_type="attach"} 1"#,
            r#"kubelet_runtime_operations_errors_total{operation_type="version"} 1"#,
            r#"kubelet_runtime_operations_duration_seconds_bucket{operation_type="version",le="0.005"} 3"#,
            r#"kubelet_runtime_operations_duration_seconds_bucket{operation_type="version",le="0.0125"} 3"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("list_"));
    }

    #[tokio::test]
    async fn sandboxes_are_counted_by_handler_as_well() {
        let operations = Operations::new();
        operations.watch_sandbox("", async { Ok::<_, ()>(()) }).await.unwrap();
        operations.watch_sandbox("kata", async { Err::<(), _>(()) }).await.unwrap_err();
        let text = text(operations.registry());
        for line in [
            r#"kubelet_runtime_operations_total{operation_type="run_podsandbox"} 2"#,
            r#"kubelet_run_podsandbox_duration_seconds_count{runtime_handler=""} 1"#,
            r#"kubelet_run_podsandbox_errors_total{runtime_handler="kata"} 1"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains(r#"errors_total{runtime_handler=""}"#));
    }
}
