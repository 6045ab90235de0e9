//! Settings of those who give processors and memory to containers for themselves.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use api::quantity::Quantity;
use daemon::GoDuration;
use serde::{Deserialize, Serialize};

use crate::managers::cpuset::CpuSet;

/// The fields, with upstream's defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are those of upstream's API")]
pub struct ManagerSettings {
    pub cpu_manager_policy: String,
    pub cpu_manager_policy_options: BTreeMap<String, String>,
    pub cpu_manager_reconcile_period: GoDuration,
    #[serde(rename = "reservedSystemCPUs")]
    pub reserved_system_cpus: String,
    pub memory_manager_policy: String,
    pub reserved_memory: Vec<MemoryReservation>,
    pub topology_manager_policy: String,
    pub topology_manager_scope: String,
    pub topology_manager_policy_options: BTreeMap<String, String>,
}

/// What a NUMA node keeps of its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemoryReservation {
    /// The number of the node.
    pub numa_node: i32,
    /// Quantities of memory and huge pages.
    pub limits: BTreeMap<String, String>,
}

impl Default for ManagerSettings {
    fn default() -> Self {
        Self {
            cpu_manager_policy: "none".to_owned(),
            cpu_manager_policy_options: BTreeMap::new(),
            cpu_manager_reconcile_period: GoDuration::from_secs(10),
            reserved_system_cpus: String::new(),
            memory_manager_policy: "None".to_owned(),
            reserved_memory: Vec::new(),
            topology_manager_policy: "none".to_owned(),
            topology_manager_scope: "container".to_owned(),
            topology_manager_policy_options: BTreeMap::new(),
        }
    }
}

const POLICIES: [&str; 4] = ["none", "best-effort", "restricted", "single-numa-node"];
const SCOPES: [&str; 2] = ["container", "pod"];

impl ManagerSettings {
    /// Whether nobody gives anything away.
    pub(crate) fn are_none(&self) -> bool {
        self.cpu_manager_policy == "none"
            && self.memory_manager_policy == "None"
            && self.topology_manager_policy == "none"
    }

    /// Refuses what makes no sense on any machine.
    pub(super) fn validate(&self) -> anyhow::Result<()> {
        let (policy, scope) = (self.topology_manager_policy.as_str(), self.topology_manager_scope.as_str());
        if !POLICIES.contains(&policy) {
            bail!(
                "invalid configuration: topologyManagerPolicy (--topology-manager-policy) {policy:?} must be one of: \
                 [\"none\" \"best-effort\" \"restricted\" \"single-numa-node\"]"
            );
        }
        if !SCOPES.contains(&scope) {
            bail!(
                "invalid configuration: topologyManagerScope (--topology-manager-scope) {scope:?} must be one of: \
                 \"container\", or \"pod\""
            );
        }
        let cpus = &self.reserved_system_cpus;
        if let Err(error) = cpus.parse::<CpuSet>() {
            bail!(
                "invalid configuration: unable to parse reservedSystemCPUs (--reserved-cpus) {cpus}, error: {error}"
            );
        }
        if self.cpu_manager_reconcile_period.0.is_zero() {
            bail!(
                "invalid configuration: cpuManagerReconcilePeriod (--cpu-manager-reconcile-period) must not be zero"
            );
        }
        self.validate_memory()
    }

    fn validate_memory(&self) -> anyhow::Result<()> {
        let mut seen = BTreeSet::new();
        for MemoryReservation { numa_node, limits } in &self.reserved_memory {
            for (resource, amount) in limits {
                if resource != "memory" && !resource.starts_with("hugepages-") {
                    bail!(
                        "invalid configuration: the limit type {resource:?} for NUMA node {numa_node} is not supported, \
                         only [memory hugepages-<HugePageSize>] is accepted"
                    );
                }
                let quantity: Quantity =
                    amount.parse().with_context(|| format!("invalid quantity {amount:?}"))?;
                if quantity.is_zero() {
                    bail!(
                        "invalid configuration: reserved memory may not be zero for NUMA node {numa_node} and resource \
                         {resource:?}"
                    );
                }
                if !seen.insert((numa_node, resource)) {
                    bail!(
                        "invalid configuration: the reserved memory has a duplicate value for NUMA node {numa_node} and \
                         resource {resource:?}"
                    );
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reservation(numa_node: i32, limits: &str) -> MemoryReservation {
        MemoryReservation { numa_node, limits: limits.parse::<daemon::KeyValues>().unwrap().0 }
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_upstreams_words() {
        let with = |change: &dyn Fn(&mut ManagerSettings)| {
            let mut settings = ManagerSettings::default();
            change(&mut settings);
            settings.validate().map_err(|error| error.to_string())
        };
        let memory = |all: &[MemoryReservation]| {
            let all = all.to_vec();
            with(&move |settings| settings.reserved_memory = all.clone())
        };
        assert_eq!(with(&|_| {}), Ok(()));
        assert_eq!(
            memory(&[reservation(0, "memory=1Gi,hugepages-2Mi=2Mi"), reservation(1, "memory=1Gi")]),
            Ok(())
        );
        for (result, message) in [
            (
                with(&|settings| settings.topology_manager_policy = "x".to_owned()),
                "topologyManagerPolicy (--topology-manager-policy) \"x\" must be one of: [\"none\" \"best-effort\" \"restricted\" \"single-numa-node\"]",
            ),
            (
                with(&|settings| settings.topology_manager_scope = "x".to_owned()),
                "topologyManagerScope (--topology-manager-scope) \"x\" must be one of: \"container\", or \"pod\"",
            ),
            (
                with(&|settings| settings.reserved_system_cpus = "a".to_owned()),
                "unable to parse reservedSystemCPUs (--reserved-cpus) a, error: strconv.Atoi: parsing \"a\": invalid syntax",
            ),
            (
                memory(&[reservation(0, "cpu=1")]),
                "the limit type \"cpu\" for NUMA node 0 is not supported, only [memory hugepages-<HugePageSize>] is accepted",
            ),
            (
                memory(&[reservation(0, "memory=0")]),
                "reserved memory may not be zero for NUMA node 0 and resource \"memory\"",
            ),
            (
                memory(&[reservation(0, "memory=1"), reservation(0, "memory=1")]),
                "the reserved memory has a duplicate value for NUMA node 0 and resource \"memory\"",
            ),
        ] {
            assert_eq!(result.unwrap_err(), format!("invalid configuration: {message}"));
        }
    }
}
