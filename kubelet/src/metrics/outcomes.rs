//! What comes of pods and containers besides their start: refusals, ends, other resources, users and images of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Value;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Maker;
use crate::pods::{resources, spec};

/// How long changes of resources take, in milliseconds.
const RESIZES: [f64; 14] = [
    10.0, 50.0, 100.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0, 30_000.0, 60_000.0, 120_000.0,
    300_000.0, 600_000.0,
];

/// The reasons for which pods are turned away that are told apart.
const REASONS: [&str; 21] = [
    "AppArmor",
    "PodOSSelectorNodeLabelDoesNotMatch",
    "PodOSNotSupported",
    "InvalidNodeInfo",
    "InitContainerRestartPolicyForbidden",
    "SupplementalGroupsPolicyNotSupported",
    "UnexpectedAdmissionError",
    "UnknownReason",
    "UnexpectedPredicateFailureType",
    "OutOfcpu",
    "OutOfmemory",
    "OutOfephemeral-storage",
    "OutOfpods",
    "PodLevelResourcesNotSupported",
    "PodFeatureUnsupported",
    "node(s) had taints that the pod didn't tolerate",
    "Evicted",
    "SysctlForbidden",
    "TopologyAffinityError",
    "NodeShutdown",
    "VolumeAttachmentLimitExceeded",
];

/// The lists of statuses, and what their containers are called.
const LISTS: [(&str, &str); 3] = [
    ("initContainerStatuses", "init_container"),
    ("containerStatuses", "container"),
    ("ephemeralContainerStatuses", "ephemeral_container"),
];

/// What is counted.
pub(crate) struct Outcomes {
    rejections: IntCounterVec,
    terminations: IntCounterVec,
    asked: IntCounterVec,
    resizes: HistogramVec,
    pending: IntGaugeVec,
    infeasible: IntCounterVec,
    accepted: IntCounterVec,
    in_progress: IntGauge,
    /// Containers that were added to look into pods, as many as there are now.
    pub(crate) ephemeral: IntGauge,
    /// Pods with users of their own: begun with, and those that failed.
    own_users: [IntCounter; 2],
    /// Images that are volumes: wanted, mounted, and not mounted.
    images: [IntCounter; 3],
    /// Hooks that ask for HTTPS where HTTP is spoken.
    pub(crate) http_fallbacks: IntCounter,
    /// Hooks that were to wait, and could not wait for so long.
    pub(crate) cut_sleeps: IntCounter,
    /// Requests for streams over WebSockets.
    pub(crate) websockets: IntCounterVec,
}

impl Outcomes {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            rejections: maker.counters(
                "admission_rejections_total",
                "Cumulative number pod admission rejections by the Kubelet.",
                &["reason"],
            ),
            terminations: maker.counters(
                "terminated_containers_total",
                "Cumulative number of container terminations.",
                &["container_type", "exit_code", "reason"],
            ),
            asked: maker.counters(
                "container_requested_resizes_total",
                "Number of requested resizes, counted at the container level. Different resources on the same container are counted separately. The 'requirement' label refers to 'memory' or 'limits'; the 'operation' label can be one of 'add', 'remove', 'increase' or 'decrease'.",
                &["resource", "requirement", "operation"],
            ),
            resizes: maker.histograms(
                "pod_resize_duration_milliseconds",
                "Duration in milliseconds to actuate a pod resize",
                &["success"],
                RESIZES.to_vec(),
            ),
            pending: maker.gauges("pod_pending_resizes", "Number of pending resizes for pods.", &["reason"]),
            infeasible: maker.counters(
                "pod_infeasible_resizes_total",
                "Number of infeasible resizes for pods.",
                &["reason_detail"],
            ),
            accepted: maker.counters(
                "pod_deferred_accepted_resizes_total",
                "Cumulative number of resizes that were accepted after being deferred.",
                &["retry_trigger"],
            ),
            in_progress: maker
                .gauge("pod_in_progress_resizes", "Number of in-progress resizes for pods."),
            ephemeral: maker.gauge(
                "managed_ephemeral_containers",
                "Current number of ephemeral containers in pods managed by this kubelet.",
            ),
            own_users: [
                maker.counter(
                    "started_user_namespaced_pods_total",
                    "Cumulative number of pods with user namespaces started. This metric will only be collected on Linux.",
                ),
                maker.counter(
                    "started_user_namespaced_pods_errors_total",
                    "Cumulative number of errors when starting pods with user namespaces. This metric will only be collected on Linux.",
                ),
            ],
            images: [
                maker.counter("image_volume_requested_total", "[BETA] Number of requested image volumes."),
                maker.counter("image_volume_mounted_succeed_total", "[BETA] Number of successful image volume mounts."),
                maker.counter("image_volume_mounted_errors_total", "[BETA] Number of failed image volume mounts."),
            ],
            http_fallbacks: maker.counter(
                "lifecycle_handler_http_fallbacks_total",
                "The number of times lifecycle handlers successfully fell back to http from https.",
            ),
            cut_sleeps: maker.counter(
                "sleep_action_terminated_early_total",
                "The number of times lifecycle sleep handler got terminated before it finishes",
            ),
            websockets: maker.counters(
                "websocket_streaming_requests_total",
                "Total number of WebSocket streaming requests (exec/attach/portforward) received by the kubelet.",
                &["subresource"],
            ),
        }
    }

    /// A pod was turned away.
    pub(crate) fn rejected(&self, reason: &str) {
        let label = match reason {
            reason if REASONS.contains(&reason) => reason,
            reason if reason.starts_with("OutOf") => "OutOfExtendedResources",
            _ => "Other",
        };
        self.rejections.with_label_values(&[label]).inc();
    }

    /// A pod's status becomes another: containers that have ended since then count.
    pub(crate) fn became(&self, before: &Value, now: &Value) {
        for (list, kind) in LISTS {
            let ended_before = |name: &str| {
                let mut all = before.array_at(&[list]).iter();
                let found = all.find(|status| status.str_at(&["name"]) == name);
                found.is_some_and(|status| !status.at(&["state", "terminated"]).is_null())
            };
            for status in now.array_at(&[list]) {
                let ended = status.at(&["state", "terminated"]);
                if ended.is_null() || ended_before(status.str_at(&["name"])) {
                    continue;
                }
                let code = ended.get("exitCode").as_i64().unwrap_or_default().to_string();
                self.terminations.with_label_values(&[kind, &code, ended.str_at(&["reason"])]).inc();
            }
        }
    }

    /// A pod becomes another: what its containers ask for differently is counted.
    pub(crate) fn asks(&self, before: &Value, now: &Value) {
        let generation = |pod: &Value| pod.at(&["metadata", "generation"]).as_i64();
        if generation(before) == generation(now) {
            return;
        }
        for (old, new) in spec::all_containers(before).zip(spec::all_containers(now)) {
            for (resource, requirement) in
                [("memory", "requests"), ("memory", "limits"), ("cpu", "requests"), ("cpu", "limits")]
            {
                let amount = |container| resources::of_container(container, requirement, resource);
                let operation = match (amount(old).unwrap_or_default(), amount(new).unwrap_or_default()) {
                    (old, new) if old == new => continue,
                    (0, _) => "add",
                    (_, 0) => "remove",
                    (old, new) if old < new => "increase",
                    _ => "decrease",
                };
                self.asked.with_label_values(&[resource, requirement, operation]).inc();
            }
        }
    }

    /// The resources of a pod's containers were changed, or could not be.
    pub(crate) fn resized(&self, took: Duration, success: bool) {
        let success = if success { "true" } else { "false" };
        self.resizes.with_label_values(&[success]).observe(took.as_millis() as f64);
    }

    /// A pod asks for other resources than it can ever be given in place.
    pub(crate) fn resize_refused(&self, detail: &str) {
        self.infeasible.with_label_values(&[detail]).inc();
    }

    /// A pod that waited for other resources is given them, after this has happened.
    pub(crate) fn resize_follows(&self, trigger: &str) {
        self.accepted.with_label_values(&[trigger]).inc();
    }

    /// How many pods wait for other resources, by why, and how many are getting them.
    pub(crate) fn show_resizes(&self, pending: &BTreeMap<String, i64>, in_progress: i64) {
        self.pending.reset();
        for (reason, count) in pending {
            self.pending.with_label_values(&[&reason.to_lowercase()]).set(*count);
        }
        self.in_progress.set(in_progress);
    }

    /// A pod with users of its own was begun with.
    pub(crate) fn own_users(&self, made: bool) {
        self.own_users[0].inc();
        if !made {
            self.own_users[1].inc();
        }
    }

    /// A container was made that has so many images as volumes, of which so many are mounted; or could not be mounted.
    pub(crate) fn images(&self, wanted: usize, mounted: usize, success: bool) {
        self.images[0].inc_by(wanted as u64);
        self.images[if success { 1 } else { 2 }].inc_by(mounted as u64);
    }
}

#[cfg(test)]
mod tests {
    use api::object;
    use prometheus::Registry;

    use super::*;
    use crate::metrics::tests::text;

    fn check(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|other| other == *line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn containers_count_once_when_they_have_ended() {
        let registry = Registry::new();
        let outcomes = Outcomes::new(&Maker(&registry));
        let ended = |name: &str, code: i64, reason: &str| object!({"name": name, "state": {"terminated": {"exitCode": code, "reason": reason}}});
        let running = object!({"containerStatuses": [{"name": "a", "state": {"running": {}}}]});
        let one = object!({
            "containerStatuses": [(ended("a", 137, "OOMKilled"))],
            "initContainerStatuses": [(ended("i", 0, "Completed"))],
        });
        outcomes.became(&running, &one);
        outcomes.became(&one, &one);
        outcomes.became(&running, &one);
        check(
            &text(&registry),
            &[
                r#"kubelet_terminated_containers_total{container_type="container",exit_code="137",reason="OOMKilled"} 2"#,
                r#"kubelet_terminated_containers_total{container_type="init_container",exit_code="0",reason="Completed"} 2"#,
            ],
        );
    }

    #[test]
    fn requests_for_other_resources_are_counted_by_what_they_are() {
        let registry = Registry::new();
        let outcomes = Outcomes::new(&Maker(&registry));
        let pod = |generation: i64, cpu: &str, limits: Value| {
            let resources = object!({"requests": {"cpu": cpu}, "limits": (limits)});
            object!({
                "metadata": {"generation": generation},
                "spec": {"containers": [{"name": "c", "resources": (resources)}]},
            })
        };
        let old = pod(1, "1", object!({"memory": "1Gi"}));
        outcomes.asks(&old, &pod(2, "500m", object!({"cpu": "1"})));
        outcomes.asks(&old, &pod(2, "1000m", object!({"memory": "1024Mi"})));
        let line = |labels: &str| format!("kubelet_container_requested_resizes_total{{{labels}}} 1");
        let lines = [
            r#"operation="decrease",requirement="requests",resource="cpu""#,
            r#"operation="add",requirement="limits",resource="cpu""#,
            r#"operation="remove",requirement="limits",resource="memory""#,
        ]
        .map(line);
        let text = text(&registry);
        check(&text, &lines.each_ref().map(String::as_str));
        assert_eq!(text.matches("kubelet_container_requested_resizes_total{").count(), 3);
    }

    #[test]
    fn only_reasons_that_are_known_are_told_apart() {
        let registry = Registry::new();
        let outcomes = Outcomes::new(&Maker(&registry));
        for reason in ["OutOfcpu", "OutOfexample.com/x", "NodeAffinity", "Evicted"] {
            outcomes.rejected(reason);
        }
        let line = |reason: &str| format!(r#"kubelet_admission_rejections_total{{reason="{reason}"}} 1"#);
        let lines = ["OutOfcpu", "OutOfExtendedResources", "Other", "Evicted"].map(line);
        check(&text(&registry), &lines.each_ref().map(String::as_str));
    }

    #[test]
    fn what_is_no_more_is_not_shown() {
        let registry = Registry::new();
        let outcomes = Outcomes::new(&Maker(&registry));
        outcomes.show_resizes(&[("Deferred".to_owned(), 2)].into(), 1);
        check(
            &text(&registry),
            &[r#"kubelet_pod_pending_resizes{reason="deferred"} 2"#, "kubelet_pod_in_progress_resizes 1"],
        );
        outcomes.show_resizes(&BTreeMap::new(), 0);
        assert!(!text(&registry).contains("kubelet_pod_pending_resizes{"));
        outcomes.resize_refused("swap_limitation");
        outcomes.resize_follows("periodic_retry");
        outcomes.images(1, 2, true);
        outcomes.images(1, 1, false);
        outcomes.own_users(false);
        outcomes.resized(Duration::from_millis(60), true);
        check(
            &text(&registry),
            &[
                r#"kubelet_pod_infeasible_resizes_total{reason_detail="swap_limitation"} 1"#,
                r#"kubelet_pod_deferred_accepted_resizes_total{retry_trigger="periodic_retry"} 1"#,
                "kubelet_image_volume_requested_total 2",
                "kubelet_image_volume_mounted_succeed_total 2",
                "kubelet_image_volume_mounted_errors_total 1",
                "kubelet_started_user_namespaced_pods_total 1",
                "kubelet_started_user_namespaced_pods_errors_total 1",
                r#"kubelet_pod_resize_duration_milliseconds_bucket{success="true",le="100"} 1"#,
            ],
        );
    }
}
