//! `kubernetes_feature_enabled`: made when it is asked for, so that hundreds of gauges need not be kept.

use daemon::features::FeatureGates;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

/// Which feature gates are on.
pub(super) struct Enabled {
    gates: FeatureGates,
    empty: IntGaugeVec,
}

impl Enabled {
    pub(super) fn of(gates: FeatureGates) -> Self {
        Self { gates, empty: family() }
    }
}

fn family() -> IntGaugeVec {
    let help = "[BETA] This metric records the data about the stage and enablement of a k8s feature.";
    let options = Opts::new("kubernetes_feature_enabled", help);
    IntGaugeVec::new(options, &["name", "stage"]).expect("the names are valid")
}

impl Collector for Enabled {
    fn desc(&self) -> Vec<&Desc> {
        self.empty.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let family = family();
        for (name, stage, on) in self.gates.all() {
            family.with_label_values(&[name, stage]).set(on.into());
        }
        family.collect()
    }
}
