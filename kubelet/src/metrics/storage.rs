//! What is done with volumes, and how many there are, by the plug-ins that make them.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntGaugeVec, Opts, Registry};

const SECONDS: [f64; 13] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];

/// What is counted.
#[derive(Debug)]
pub(crate) struct Storage {
    operations: HistogramVec,
    calls: HistogramVec,
    volumes: IntGaugeVec,
}

impl Storage {
    pub(super) fn new(registry: &Registry) -> Self {
        let valid = "the names are valid";
        let operations =
            HistogramOpts::new("storage_operation_duration_seconds", "[ALPHA] Storage operation duration");
        let operations = operations.buckets(SECONDS.to_vec());
        let labels = &["volume_plugin", "operation_name", "status", "migrated"];
        let operations = HistogramVec::new(operations, labels).expect(valid);
        let calls = HistogramOpts::new(
            "csi_operations_seconds",
            "[ALPHA] Container Storage Interface operation duration with gRPC error code status total",
        );
        let labels = &["driver_name", "method_name", "grpc_status_code", "migrated"];
        let calls = HistogramVec::new(calls.buckets(SECONDS.to_vec()), labels).expect(valid);
        let volumes =
            Opts::new("volume_manager_total_volumes", "[ALPHA] Number of volumes in Volume Manager");
        let volumes = IntGaugeVec::new(volumes, &["plugin_name", "state"]).expect(valid);
        serve::metrics::register(registry, operations.clone());
        serve::metrics::register(registry, calls.clone());
        serve::metrics::register(registry, volumes.clone());
        Self { operations, calls, volumes }
    }

    /// The driver of a CSI volume was asked for something.
    pub(crate) fn called(&self, driver: &str, method: &str, code: &str, took: Duration) {
        self.calls.with_label_values(&[driver, method, code, "false"]).observe(took.as_secs_f64());
    }

    /// A volume was mounted, or could not be.
    pub(crate) fn mounted(&self, plugin: &str, success: bool, took: Duration) {
        let status = if success { "success" } else { "fail-unknown" };
        let labels = [plugin, "volume_mount", status, "false"];
        self.operations.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// How many volumes pods want, and how many are there, by plug-in.
    pub(crate) fn show(&self, wanted: &BTreeMap<String, i64>, there: &BTreeMap<String, i64>) {
        self.volumes.reset();
        for (state, counts) in [("desired_state_of_world", wanted), ("actual_state_of_world", there)] {
            for (plugin, count) in counts {
                self.volumes.with_label_values(&[plugin, state]).set(*count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::text;

    #[test]
    fn volumes_are_counted_by_plugin_and_state() {
        let registry = Registry::new();
        let storage = Storage::new(&registry);
        let one = |plugin: &str| BTreeMap::from([(plugin.to_owned(), 1)]);
        storage.show(&one("kubernetes.io/secret"), &one("kubernetes.io/secret"));
        storage.show(&one("kubernetes.io/configmap"), &BTreeMap::new());
        storage.mounted("kubernetes.io/secret", false, Duration::from_millis(200));
        storage.called("d.io", "/csi.v1.Node/NodeStageVolume", "OK", Duration::from_millis(200));
        let text = text(&registry);
        for line in [
            r#"volume_manager_total_volumes{plugin_name="kubernetes.io/configmap",state="desired_state_of_world"} 1"#,
            r#"storage_operation_duration_seconds_bucket{migrated="false",operation_name="volume_mount",status="fail-unknown",volume_plugin="kubernetes.io/secret",le="0.25"} 1"#,
            r#"csi_operations_seconds_bucket{driver_name="d.io",grpc_status_code="OK",method_name="/csi.v1.Node/NodeStageVolume",migrated="false",le="0.1"} 0"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("volume_manager_total_volumes{").count(), 1);
    }
}
