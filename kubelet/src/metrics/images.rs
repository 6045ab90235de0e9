//! What is done about images.

use prometheus::{HistogramVec, IntCounterVec, IntGauge};

use super::Maker;

/// The buckets of pulls, in seconds.
const PULLS: [f64; 18] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0,
    2700.0, 3600.0,
];
/// The sizes of images that are told apart: the words for those that are not smaller than this.
const SIZES: [(u64, &str); 12] = [
    (0, "0-10MB"),
    (10 << 20, "10MB-100MB"),
    (100 << 20, "100MB-500MB"),
    (500 << 20, "500MB-1GB"),
    (1 << 30, "1GB-5GB"),
    (5 << 30, "5GB-10GB"),
    (10 << 30, "10GB-20GB"),
    (20 << 30, "20GB-30GB"),
    (30 << 30, "30GB-40GB"),
    (40 << 30, "40GB-60GB"),
    (60 << 30, "60GB-100GB"),
    (100 << 30, "GT100GB"),
];

/// What is counted.
pub(crate) struct Images {
    pulls: HistogramVec,
    collected: IntCounterVec,
    requests: IntCounterVec,
    checks: IntCounterVec,
    /// Pulls that were begun, and images that were pulled, as files.
    pub(crate) intents: IntGauge,
    pub(crate) records: IntGauge,
}

/// What came of the question whether a pod may use an image that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Everybody may.
    ByPolicy,
    /// The pod has credentials that it was pulled with.
    ByCredentials,
    /// It has to be pulled with the pod's own.
    MustPull,
    /// Nobody knows.
    Error,
}

impl Check {
    /// Whether the image has to be pulled.
    pub(crate) fn must_pull(self) -> bool {
        matches!(self, Self::MustPull | Self::Error)
    }

    fn name(self) -> &'static str {
        match self {
            Self::ByPolicy => "credentialPolicyAllowed",
            Self::ByCredentials => "credentialRecordFound",
            Self::MustPull => "mustAuthenticate",
            Self::Error => "error",
        }
    }
}

impl Images {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            pulls: maker.histograms(
                "image_pull_duration_seconds",
                "Duration in seconds to pull an image.",
                &["image_size_in_bytes"],
                PULLS.to_vec(),
            ),
            collected: maker.counters(
                "image_garbage_collected_total",
                "Total number of images garbage collected by the kubelet, whether through disk usage or image age.",
                &["reason"],
            ),
            requests: maker.counters(
                "image_manager_ensure_image_requests_total",
                "Number of ensure-image requests processed by the kubelet.",
                &["pull_policy", "present_locally", "pull_required"],
            ),
            checks: maker.counters(
                "imagemanager_image_mustpull_checks_total",
                "Counter for how many times kubelet checked whether credentials need to be re-verified to access an image",
                &["result"],
            ),
            intents: maker.gauge(
                "imagemanager_ondisk_pullintents",
                "Number of ImagePullIntents stored on disk.",
            ),
            records: maker.gauge(
                "imagemanager_ondisk_pulledrecords",
                "Number of ImagePulledRecords stored on disk.",
            ),
        }
    }

    /// An image of so many bytes was pulled in so many seconds.
    pub(crate) fn pulled(&self, bytes: u64, seconds: f64) {
        let size = SIZES.iter().rev().find(|(least, _)| bytes >= *least).map_or("", |(_, words)| words);
        self.pulls.with_label_values(&[size]).observe(seconds);
    }

    /// An image was removed: for its `age`, or for `space`.
    pub(crate) fn collected(&self, reason: &str) {
        self.collected.with_label_values(&[reason]).inc();
    }

    /// An image was asked for: whether it was here, and whether it had to be pulled, as far as that was found out.
    pub(crate) fn requested(&self, policy: &str, present: Option<bool>, pull: Option<bool>) {
        let word = |known| match known {
            None => "unknown",
            Some(true) => "true",
            Some(false) => "false",
        };
        self.requests.with_label_values(&[policy.to_lowercase().as_str(), word(present), word(pull)]).inc();
    }

    /// It was asked whether a pod may use an image.
    pub(crate) fn checked(&self, access: Check) {
        self.checks.with_label_values(&[access.name()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::metrics::tests::text;

    #[test]
    fn images_are_told_apart_by_size() {
        let registry = Registry::new();
        let images = Images::new(&Maker(&registry));
        for (bytes, words) in
            [(0, "0-10MB"), ((10 << 20) - 1, "0-10MB"), (10 << 20, "10MB-100MB"), (u64::MAX, "GT100GB")]
        {
            let series =
                format!(r#"kubelet_image_pull_duration_seconds_count{{image_size_in_bytes="{words}"}}"#);
            let count = || {
                let text = text(&registry);
                let line = text.lines().find(|line| line.starts_with(&series));
                line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).unwrap_or_default()
            };
            let before = count();
            images.pulled(bytes, 1.0);
            assert_eq!(count(), before + 1, "{bytes}");
        }
    }

    #[test]
    fn requests_say_what_was_found_out() {
        let registry = Registry::new();
        let images = Images::new(&Maker(&registry));
        images.requested("IfNotPresent", Some(true), Some(false));
        images.requested("Always", None, Some(true));
        images.checked(Check::MustPull);
        let text = text(&registry);
        for line in [
            "# HELP kubelet_image_manager_ensure_image_requests_total [ALPHA] Number of ensure-image requests processed by the kubelet.",
            r#"kubelet_image_manager_ensure_image_requests_total{present_locally="true",pull_policy="ifnotpresent",pull_required="false"} 1"#,
            r#"kubelet_image_manager_ensure_image_requests_total{present_locally="unknown",pull_policy="always",pull_required="true"} 1"#,
            r#"kubelet_imagemanager_image_mustpull_checks_total{result="mustAuthenticate"} 1"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
