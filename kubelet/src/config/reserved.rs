//! Settings of who is held to what is reserved, and of the groups of those who are no pods.

use std::collections::BTreeSet;

use anyhow::bail;
use serde::{Deserialize, Serialize};

/// The fields, with upstream's defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of upstream's API")]
pub struct ReservedSettings {
    pub enforce_node_allocatable: Vec<String>,
    pub system_reserved_cgroup: String,
    pub kube_reserved_cgroup: String,
    pub kubelet_cgroups: String,
    pub system_cgroups: String,
    pub oom_score_adj: i32,
}

impl Default for ReservedSettings {
    fn default() -> Self {
        Self {
            enforce_node_allocatable: vec![PODS.to_owned()],
            system_reserved_cgroup: String::new(),
            kube_reserved_cgroup: String::new(),
            kubelet_cgroups: String::new(),
            system_cgroups: String::new(),
            oom_score_adj: -999,
        }
    }
}

pub(crate) const PODS: &str = "pods";
pub(crate) const SYSTEM: &str = "system-reserved";
pub(crate) const KUBE: &str = "kube-reserved";
pub(crate) const SYSTEM_COMPRESSIBLE: &str = "system-reserved-compressible";
pub(crate) const KUBE_COMPRESSIBLE: &str = "kube-reserved-compressible";
const NONE: &str = "none";
const FLAG: &str = "enforceNodeAllocatable (--enforce-node-allocatable)";

/// What of the rest of the configuration matters here.
pub(super) struct Around<'a> {
    pub(super) cgroups_per_qos: bool,
    pub(super) cgroup_root: &'a str,
    pub(super) reserved_cpus: &'a str,
}

impl ReservedSettings {
    /// Whether someone is held to what is reserved.
    pub(crate) fn enforces(&self, whom: &str) -> bool {
        self.enforce_node_allocatable.iter().any(|enforced| enforced == whom)
    }

    /// Refuses what makes no sense on any machine.
    pub(super) fn validate(&self, around: &Around<'_>) -> anyhow::Result<()> {
        if !self.system_cgroups.is_empty() && around.cgroup_root.is_empty() {
            bail!(
                "invalid configuration: systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was \
                 not specified"
            );
        }
        if self.system_cgroups == "/" {
            bail!("system container cannot be root (\"/\")");
        }
        if !(-1000..=1000).contains(&self.oom_score_adj) {
            bail!(
                "invalid configuration: oomScoreAdj (--oom-score-adj) {} must be between -1000 and 1000, inclusive",
                self.oom_score_adj
            );
        }
        let grouped = !self.system_reserved_cgroup.is_empty() || !self.kube_reserved_cgroup.is_empty();
        if !around.reserved_cpus.is_empty() && grouped {
            bail!(
                "invalid configuration: can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup \
                 (--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)"
            );
        }
        for (whole, part) in [(SYSTEM, SYSTEM_COMPRESSIBLE), (KUBE, KUBE_COMPRESSIBLE)] {
            if self.enforces(whole) && self.enforces(part) {
                bail!(
                    "invalid configuration: both {whole:?} and {part:?} cannot be specified together in {FLAG}"
                );
            }
        }
        let mut seen = BTreeSet::new();
        for whom in &self.enforce_node_allocatable {
            if !seen.insert(whom) {
                bail!("invalid configuration: duplicated enforcements {whom:?} in {FLAG}");
            }
            self.validate_one(whom, around)?;
        }
        Ok(())
    }

    fn validate_one(&self, whom: &str, around: &Around<'_>) -> anyhow::Result<()> {
        let needs = |field: &str, keys: [&str; 2]| {
            let [whole, part] = keys;
            format!(
                "invalid configuration: {field} must be specified when {whole:?} or {part:?} included in {FLAG}"
            )
        };
        match whom {
            PODS => {}
            SYSTEM | SYSTEM_COMPRESSIBLE if self.system_reserved_cgroup.is_empty() => {
                let field = "systemReservedCgroup (--system-reserved-cgroup)";
                bail!(needs(field, [SYSTEM, SYSTEM_COMPRESSIBLE]))
            }
            KUBE | KUBE_COMPRESSIBLE if self.kube_reserved_cgroup.is_empty() => {
                let field = "kubeReservedCgroup (--kube-reserved-cgroup)";
                bail!(needs(field, [KUBE, KUBE_COMPRESSIBLE]))
            }
            SYSTEM | SYSTEM_COMPRESSIBLE | KUBE | KUBE_COMPRESSIBLE => {}
            NONE if self.enforce_node_allocatable.len() > 1 => bail!(
                "invalid configuration: {FLAG} may not contain additional enforcements when {NONE:?} is specified"
            ),
            NONE => return Ok(()),
            other => bail!(
                "invalid configuration: option {other:?} specified for {FLAG}. Valid options are {PODS:?}, {SYSTEM:?}, \
                 {SYSTEM_COMPRESSIBLE:?}, {KUBE:?}, {KUBE_COMPRESSIBLE:?} or {NONE:?}"
            ),
        }
        if !around.cgroups_per_qos {
            bail!(
                "invalid configuration: cgroupsPerQOS (--cgroups-per-qos) must be set to true when {whom:?} contained in {FLAG}"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AROUND: Around<'_> = Around { cgroups_per_qos: true, cgroup_root: "", reserved_cpus: "" };

    fn settings(enforced: &[&str], system: &str, kube: &str) -> ReservedSettings {
        ReservedSettings {
            enforce_node_allocatable: enforced.iter().map(|whom| (*whom).to_owned()).collect(),
            system_reserved_cgroup: system.to_owned(),
            kube_reserved_cgroup: kube.to_owned(),
            ..ReservedSettings::default()
        }
    }

    #[test]
    fn what_can_be_enforced_is_taken() {
        for settings in [
            ReservedSettings::default(),
            settings(&[], "", ""),
            settings(&["none"], "", ""),
            settings(&["pods", "system-reserved", "kube-reserved"], "/system", "/kube"),
            settings(&["system-reserved-compressible", "kube-reserved"], "/system", "/kube"),
        ] {
            settings.validate(&AROUND).unwrap();
        }
        let none = settings(&["none"], "", "");
        none.validate(&Around { cgroups_per_qos: false, ..AROUND }).unwrap();
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_upstreams_words() {
        let all = format!(
            "{FLAG}. Valid options are \"pods\", \"system-reserved\", \"system-reserved-compressible\", \
                           \"kube-reserved\", \"kube-reserved-compressible\" or \"none\""
        );
        for (settings, around, message) in [
            (settings(&["x"], "", ""), AROUND, format!("option \"x\" specified for {all}")),
            (settings(&["pods", "pods"], "", ""), AROUND, format!("duplicated enforcements \"pods\" in {FLAG}")),
            (
                settings(&["none", "pods"], "", ""),
                AROUND,
                format!("{FLAG} may not contain additional enforcements when \"none\" is specified"),
            ),
            (
                settings(&["kube-reserved"], "/system", ""),
                AROUND,
                format!(
                    "kubeReservedCgroup (--kube-reserved-cgroup) must be specified when \"kube-reserved\" or \
                     \"kube-reserved-compressible\" included in {FLAG}"
                ),
            ),
            (
                settings(&["system-reserved", "system-reserved-compressible"], "/system", ""),
                AROUND,
                format!(
                    "both \"system-reserved\" and \"system-reserved-compressible\" cannot be specified together in {FLAG}"
                ),
            ),
            (
                settings(&["pods"], "", ""),
                Around { cgroups_per_qos: false, ..AROUND },
                format!("cgroupsPerQOS (--cgroups-per-qos) must be set to true when \"pods\" contained in {FLAG}"),
            ),
            (
                settings(&[], "", "/kube"),
                Around { reserved_cpus: "0", ..AROUND },
                "can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) or \
                 kubeReservedCgroup (--kube-reserved-cgroup)"
                    .to_owned(),
            ),
            (
                ReservedSettings { system_cgroups: "/misc".to_owned(), ..ReservedSettings::default() },
                AROUND,
                "systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified".to_owned(),
            ),
        ] {
            let error = settings.validate(&around).unwrap_err().to_string();
            assert_eq!(error, format!("invalid configuration: {message}"));
        }
    }
}
