//! `kubelet_volume_stats_*`: how full the volumes of drivers are, by the claims to them.

use std::collections::HashSet;

use api::Value;
use prometheus::{GaugeVec, Opts, Registry};

use crate::Kubelet;

/// The metrics: name, help, and the figure of the summary that they show.
const FAMILIES: [(&str, &str, &[&str]); 7] = [
    ("capacity_bytes", "Capacity in bytes of the volume", &["capacityBytes"]),
    ("available_bytes", "Number of available bytes in the volume", &["availableBytes"]),
    ("used_bytes", "Number of used bytes in the volume", &["usedBytes"]),
    ("inodes", "Maximum number of inodes in the volume", &["inodes"]),
    ("inodes_free", "Number of free inodes in the volume", &["inodesFree"]),
    ("inodes_used", "Number of used inodes in the volume", &["inodesUsed"]),
    (
        "health_status_abnormal",
        "Abnormal volume health status. The count is either 1 or 0. 1 indicates the volume is unhealthy, 0 indicates volume is healthy",
        &["volumeHealthStats", "abnormal"],
    ),
];

/// What pods have claims to, asked of the drivers now.
pub(super) async fn gather(kubelet: &Kubelet) -> Registry {
    let pods: Vec<_> = kubelet.pods.lock().values().map(|known| known.pod.clone()).collect();
    let mut found = Vec::new();
    let mut known = HashSet::new();
    for pod in pods {
        for (volume, figures) in kubelet.csi.stats(pod.uid(), "").await {
            let Some((_, claim)) = kubelet.volumes.names(pod.uid(), &volume) else { continue };
            // Pods may share a claim.
            if known.insert((pod.namespace().to_owned(), claim.clone())) {
                found.push((pod.namespace().to_owned(), claim, figures));
            }
        }
    }
    registry(&found)
}

/// A registry of these volumes: the namespace and name of the claim, and the figures of the summary.
fn registry(volumes: &[(String, String, Value)]) -> Registry {
    let registry = Registry::new();
    for (name, help, field) in FAMILIES {
        let options = Opts::new(format!("kubelet_volume_stats_{name}"), crate::metrics::alpha(help));
        let family = GaugeVec::new(options, &["namespace", "persistentvolumeclaim"]);
        let family = family.expect("the names are valid");
        for (namespace, claim, figures) in volumes {
            let figure = figures.at(field);
            let number = figure.as_i64().or_else(|| figure.as_bool().map(i64::from));
            if let Some(number) = number {
                family.with_label_values(&[namespace, claim]).set(number as f64);
            }
        }
        serve::metrics::register(&registry, family);
    }
    registry
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn claims_have_the_figures_that_their_driver_tells() {
        let figures = object!({"capacityBytes": 10, "usedBytes": 4, "volumeHealthStats": {"abnormal": true}});
        let registry = registry(&[("n".to_owned(), "c".to_owned(), figures)]);
        let shown: Vec<_> = registry
            .gather()
            .iter()
            .map(|f| (f.name().to_owned(), f.get_metric()[0].get_gauge().get_value()))
            .collect();
        let expected = [
            ("kubelet_volume_stats_capacity_bytes", 10.0),
            ("kubelet_volume_stats_health_status_abnormal", 1.0),
            ("kubelet_volume_stats_used_bytes", 4.0),
        ];
        assert_eq!(shown, expected.map(|(name, value)| (name.to_owned(), value)));
    }
}
