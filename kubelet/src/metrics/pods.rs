//! What becomes of pods and their containers.

use std::sync::OnceLock;
use std::time::Duration;

use api::Value;
use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::startup::Started;
use super::{Maker, SECONDS, STARTS};
use crate::pods::spec;

/// What a round of work on a pod is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worker {
    /// The first one.
    Create,
    /// The pod is wanted otherwise.
    Update,
    /// Something happened, or time went by.
    Sync,
    /// The pod is to end.
    Kill,
}

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContainerType {
    Main,
    Init,
    Ephemeral,
}

const KINDS: [&str; 3] = ["container", "init_container", "ephemeral_container"];

impl ContainerType {
    /// The kind of the container of this name.
    pub(crate) fn of(pod: &Value, name: &str) -> Self {
        match (spec::is_init(pod, name), spec::is_ephemeral(pod, name)) {
            (true, _) => Self::Init,
            (_, true) => Self::Ephemeral,
            _ => Self::Main,
        }
    }
}

/// Where a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// It is from a file or a URL.
    pub(crate) is_static: bool,
    /// Somebody wants it.
    pub(crate) wanted: bool,
    /// It was found here, and nobody has ever wanted it.
    pub(crate) found: bool,
    /// It succeeded or failed.
    pub(crate) ended: bool,
    /// It is to end.
    pub(crate) ends: bool,
    /// It has let go of everything.
    pub(crate) over: bool,
}

/// How many pods stand where.
pub(crate) struct States {
    desired: [IntGauge; 2],
    active: [IntGauge; 2],
    working: IntGaugeVec,
}

const LIFECYCLES: [&str; 3] = ["sync", "terminating", "terminated"];
const CONFIGS: [(&str, &str); 5] =
    [("desired", "true"), ("desired", ""), ("orphan", "true"), ("orphan", ""), ("runtime_only", "unknown")];

impl States {
    fn new(maker: &Maker<'_>) -> Self {
        let desired = maker.gauges(
            "desired_pods",
            "The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.",
            &["static"],
        );
        let active = maker.gauges(
            "active_pods",
            "The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.",
            &["static"],
        );
        let by_source = |family: &IntGaugeVec| ["", "true"].map(|label| family.with_label_values(&[label]));
        Self {
            desired: by_source(&desired),
            active: by_source(&active),
            working: maker.gauges(
                "working_pods",
                "Number of pods the kubelet is actually running, broken down by lifecycle phase, whether the pod is desired, orphaned, or runtime only (also orphaned), and whether the pod is static. An orphaned pod has been removed from local configuration or force deleted in the API and consumes resources that are not otherwise visible.",
                &["lifecycle", "config", "static"],
            ),
        }
    }

    /// Shows where the pods stand now.
    pub(crate) fn show(&self, places: &[Place]) {
        let count = |which: &dyn Fn(&Place) -> bool| {
            i64::try_from(places.iter().filter(|place| which(place)).count()).unwrap_or(i64::MAX)
        };
        for (slot, is_static) in [false, true].into_iter().enumerate() {
            self.desired[slot].set(count(&|place| place.wanted && place.is_static == is_static));
            let active = |place: &Place| place.wanted && !place.ended && place.is_static == is_static;
            self.active[slot].set(count(&active));
        }
        for lifecycle in LIFECYCLES {
            for (config, is_static) in CONFIGS {
                let of =
                    |place: &Place| place.lifecycle() == lifecycle && place.config() == (config, is_static);
                self.working.with_label_values(&[lifecycle, config, is_static]).set(count(&of));
            }
        }
    }
}

impl Place {
    fn lifecycle(&self) -> &'static str {
        match self {
            Self { over: true, .. } => LIFECYCLES[2],
            Self { ends: true, .. } | Self { wanted: false, .. } | Self { ended: true, .. } => LIFECYCLES[1],
            _ => LIFECYCLES[0],
        }
    }

    fn config(&self) -> (&'static str, &'static str) {
        match (self.found, self.wanted, self.is_static) {
            (true, ..) => CONFIGS[4],
            (_, true, true) => CONFIGS[0],
            (_, true, false) => CONFIGS[1],
            (_, false, true) => CONFIGS[2],
            (_, false, false) => CONFIGS[3],
        }
    }
}

/// What is counted of pods.
pub(crate) struct Pods {
    /// Where they stand.
    pub(crate) states: States,
    /// The mirrors of static pods.
    pub(crate) mirrors: IntGauge,
    /// Pods that were found running and are not wanted.
    pub(crate) orphans: IntCounter,
    /// What the last look for pods that are gone came to: those whose volumes are taken down, and those with which that had
    /// failed.
    swept: [IntGauge; 2],
    /// From when a pod came until the work on it began.
    pub(crate) worker_starts: Histogram,
    workers: [Histogram; 4],
    /// From when a pod came until it runs.
    pub(crate) starts: Histogram,
    start_totals: Histogram,
    own_starts: Histogram,
    /// Shown once there was one.
    first_network: OnceLock<()>,
    registry: Registry,
    /// From a change of a status until the API server has it.
    pub(crate) reports: Histogram,
    containers: Histogram,
    started: IntCounter,
    not_started: IntCounter,
    started_containers: [IntCounter; 3],
    not_started_containers: IntCounterVec,
    restarted: [IntCounter; 2],
}

impl Pods {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        let workers = maker.histograms(
            "pod_worker_duration_seconds",
            "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
            &["operation_type"],
            SECONDS.to_vec(),
        );
        let started = maker.counters(
            "started_containers_total",
            "Cumulative number of containers started",
            &["container_type"],
        );
        let restarted = maker.counters(
            "restarted_pods_total",
            "Number of pods that have been restarted because they were deleted and recreated with the same UID while the kubelet was watching them (common for static pods, extremely uncommon for API pods)",
            &["static"],
        );
        Self {
            states: States::new(maker),
            first_network: OnceLock::new(),
            registry: maker.0.clone(),
            mirrors: maker.gauge(
                "mirror_pods",
                "The number of mirror pods the kubelet will try to create (one per admitted static pod)",
            ),
            orphans: maker.counter(
                "orphaned_runtime_pods_total",
                "Number of pods that have been detected in the container runtime without being already known to the pod worker. This typically indicates the kubelet was restarted while a pod was force deleted in the API or in the local configuration, which is unusual.",
            ),
            swept: [
                maker.gauge(
                    "orphan_pod_cleaned_volumes",
                    "The total number of orphaned Pods whose volumes were cleaned in the last periodic sweep.",
                ),
                maker.gauge(
                    "orphan_pod_cleaned_volumes_errors",
                    "The number of orphaned Pods whose volumes failed to be cleaned in the last periodic sweep.",
                ),
            ],
            worker_starts: maker.histogram(
                "pod_worker_start_duration_seconds",
                "Duration in seconds from kubelet seeing a pod to starting a worker.",
                SECONDS.to_vec(),
            ),
            workers: ["create", "update", "sync", "kill"].map(|kind| workers.with_label_values(&[kind])),
            starts: maker.histogram(
                "pod_start_duration_seconds",
                "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
                STARTS.to_vec(),
            ),
            start_totals: maker.histogram(
                "pod_start_total_duration_seconds",
                "Duration in seconds to start a pod since creation, including time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch",
                STARTS.to_vec(),
            ),
            own_starts: maker.histogram(
                "pod_start_sli_duration_seconds",
                "Duration in seconds to start a pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch",
                STARTS.to_vec(),
            ),
            reports: maker.histogram(
                "pod_status_sync_duration_seconds",
                "Duration in seconds to sync a pod status update. Measures time from detection of a change to pod status until the API is successfully updated for that pod, even if multiple intevening changes to pod status occur.",
                vec![0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0],
            ),
            containers: maker.histogram(
                "containers_per_pod_count",
                "The number of containers per pod.",
                vec![1.0, 2.0, 4.0, 8.0, 16.0],
            ),
            started: maker.counter("started_pods_total", "Cumulative number of pods started"),
            not_started: maker
                .counter("started_pods_errors_total", "Cumulative number of errors when starting pods"),
            started_containers: KINDS.map(|kind| started.with_label_values(&[kind])),
            not_started_containers: maker.counters(
                "started_containers_errors_total",
                "Cumulative number of errors when starting containers",
                &["container_type", "code"],
            ),
            restarted: ["", "true"].map(|label| restarted.with_label_values(&[label])),
        }
    }

    /// The last look for pods that are gone found so many with volumes, and so many that were to be gone by then.
    pub(crate) fn swept(&self, found: usize, left: usize) {
        for (gauge, count) in self.swept.iter().zip([found, left]) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// The work on a pod begins, this long after it came.
    pub(crate) fn began(&self, pod: &Value, since: Duration) {
        self.worker_starts.observe(since.as_secs_f64());
        self.containers.observe(spec::containers(pod).len() as f64);
    }

    /// A round of work took so long.
    pub(crate) fn worked(&self, worker: Worker, took: Duration) {
        self.workers[worker as usize].observe(took.as_secs_f64());
    }

    /// A pod has started.
    pub(crate) fn has_started(&self, started: &Started) {
        self.start_totals.observe(started.total.as_secs_f64());
        if let Some(own) = started.own {
            self.own_starts.observe(own.as_secs_f64());
            if started.network {
                self.first_network.get_or_init(|| first_network(&self.registry, own));
            }
        }
    }

    /// A sandbox is made, which succeeds or not.
    pub(crate) fn sandbox(&self, made: bool) {
        self.started.inc();
        if !made {
            self.not_started.inc();
        }
    }

    /// A container is started, which may fail for a reason.
    pub(crate) fn container(&self, kind: ContainerType, failure: Option<&str>) {
        self.started_containers[kind as usize].inc();
        if let Some(code) = failure {
            self.not_started_containers.with_label_values(&[KINDS[kind as usize], code]).inc();
        }
    }

    /// A pod begins again.
    pub(crate) fn restarted(&self, pod: &Value) {
        self.restarted[usize::from(spec::is_static(pod))].inc();
    }
}

fn first_network(registry: &Registry, took: Duration) {
    let gauge = Gauge::new(
        "kubelet_first_network_pod_start_sli_duration_seconds",
        "[INTERNAL] Duration in seconds to start the first network pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch",
    );
    let gauge = gauge.expect("the name is valid");
    gauge.set(took.as_secs_f64());
    serve::metrics::register(registry, gauge);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::text;
    use api::object;

    const WANTED: Place =
        Place { is_static: false, wanted: true, found: false, ended: false, ends: false, over: false };

    fn check(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|other| other == *line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn pods_are_counted_where_they_stand() {
        let registry = Registry::new();
        let pods = Pods::new(&Maker(&registry));
        pods.states.show(&[WANTED; 4]);
        pods.states.show(&[
            WANTED,
            Place { is_static: true, ..WANTED },
            Place { ends: true, ..WANTED },
            Place { ended: true, over: true, ..WANTED },
            Place { wanted: false, ..WANTED },
            Place { wanted: false, found: true, ..WANTED },
        ]);
        check(
            &text(&registry),
            &[
                r#"kubelet_desired_pods{static=""} 3"#,
                r#"kubelet_desired_pods{static="true"} 1"#,
                r#"kubelet_active_pods{static=""} 2"#,
                r#"kubelet_working_pods{config="desired",lifecycle="sync",static=""} 1"#,
                r#"kubelet_working_pods{config="desired",lifecycle="sync",static="true"} 1"#,
                r#"kubelet_working_pods{config="desired",lifecycle="terminating",static=""} 1"#,
                r#"kubelet_working_pods{config="desired",lifecycle="terminated",static=""} 1"#,
                r#"kubelet_working_pods{config="orphan",lifecycle="terminating",static=""} 1"#,
                r#"kubelet_working_pods{config="runtime_only",lifecycle="terminating",static="unknown"} 1"#,
            ],
        );
    }

    #[test]
    fn the_first_pod_with_a_network_is_shown_for_good() {
        let registry = Registry::new();
        let pods = Pods::new(&Maker(&registry));
        let name = "kubelet_first_network_pod_start_sli_duration_seconds";
        let started = |own: Option<u64>, network| Started {
            total: Duration::from_secs(9),
            own: own.map(Duration::from_secs),
            network,
        };
        pods.has_started(&started(Some(1), false));
        pods.has_started(&started(None, true));
        assert!(!text(&registry).contains(name));
        pods.has_started(&started(Some(2), true));
        pods.has_started(&started(Some(3), true));
        check(&text(&registry), &[&format!("{name} 2")]);
    }

    #[test]
    fn starts_are_counted_by_what_is_started() {
        let registry = Registry::new();
        let pods = Pods::new(&Maker(&registry));
        let pod = object!({"spec": {
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "c"}],
            "ephemeralContainers": [{"name": "e"}],
        }});
        for name in ["i", "c", "e"] {
            pods.container(ContainerType::of(&pod, name), None);
        }
        pods.container(ContainerType::of(&pod, "c"), Some("ErrImagePull"));
        pods.sandbox(true);
        pods.sandbox(false);
        pods.began(&pod, Duration::from_millis(1));
        pods.worked(Worker::Kill, Duration::from_secs(3));
        check(
            &text(&registry),
            &[
                r#"kubelet_started_containers_total{container_type="container"} 2"#,
                r#"kubelet_started_containers_total{container_type="init_container"} 1"#,
                r#"kubelet_started_containers_total{container_type="ephemeral_container"} 1"#,
                r#"kubelet_started_containers_errors_total{code="ErrImagePull",container_type="container"} 1"#,
                "kubelet_started_pods_total 2",
                "kubelet_started_pods_errors_total 1",
                "kubelet_containers_per_pod_count_count 1",
                r#"kubelet_pod_worker_duration_seconds_bucket{operation_type="kill",le="2.5"} 0"#,
                r#"kubelet_pod_worker_duration_seconds_bucket{operation_type="kill",le="5"} 1"#,
            ],
        );
    }
}
