//! How much of what containers have in memory may be swapped out.

use std::collections::BTreeMap;

use api::Value;
use k8s_cri::v1 as cri;

use super::{resources, spec};
use crate::allocation::Infeasible;

/// What the machine has of swap, and who may use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swap {
    /// Whether the kernel limits the swap of control groups.
    pub(crate) accounted: bool,
    /// Whether containers may use any.
    pub(crate) limited: bool,
    /// All there is, in bytes.
    pub(crate) capacity: u64,
    /// The machine's memory in bytes.
    pub(crate) memory: u64,
    /// Whether it has control groups of version 2.
    pub(crate) cgroup_v2: bool,
}

impl Swap {
    /// Sets what a container may use. Of version 1 all that can be said is that there be none beyond its memory.
    pub(crate) fn apply(self, pod: &Value, container: &Value, out: &mut cri::LinuxContainerResources) {
        match (self.accounted, self.cgroup_v2) {
            (false, _) => {}
            (true, false) => out.memory_swap_limit_in_bytes = out.memory_limit_in_bytes,
            (true, true) => {
                let share = if self.swaps(pod, container) { self.share(container) } else { 0 };
                out.unified.insert("memory.swap.max".to_owned(), share.to_string());
            }
        }
    }

    /// Whether a container may swap: one of a burstable pod whose memory may become more than it asks for.
    fn swaps(self, pod: &Value, container: &Value) -> bool {
        let memory = |kind| resources::of_container(container, kind, "memory").unwrap_or_default();
        let (request, limit) = (memory("requests"), memory("limits"));
        let may = self.limited && self.accounted && self.cgroup_v2 && !resources::is_critical(pod);
        // Those who ask for nothing have both at nothing.
        may && spec::qos(pod) == "Burstable" && request != limit
    }

    /// As large a part of the swap as the container asks for of the memory.
    fn share(self, container: &Value) -> i64 {
        let request = resources::of_container(container, "requests", "memory").unwrap_or_default();
        let memory = i64::try_from(self.memory).unwrap_or(i64::MAX);
        if memory <= 0 || request > memory {
            let name = container.str_at(&["name"]);
            tracing::warn!(
                container = name,
                request,
                memory,
                "More memory is asked for than there is: no swap"
            );
            return 0;
        }
        (request as f64 / memory as f64 * self.capacity as f64) as i64
    }

    /// Why a pod cannot be given what it asks for in place of what it has: swap is not shared out anew.
    pub(crate) fn infeasible(self, pod: &Value, allocated: &Value) -> Option<Infeasible> {
        let before: BTreeMap<&str, &Value> = spec::containers(allocated)
            .iter()
            .chain(spec::init_containers(allocated))
            .map(|container| (container.str_at(&["name"]), container))
            .collect();
        let request =
            |container: &Value| resources::of_container(container, "requests", "memory").unwrap_or_default();
        let restarts = |container: &Value| {
            let mut policies = container.array_at(&["resizePolicy"]).iter();
            let of_memory = policies.find(|policy| policy.str_at(&["resourceName"]) == "memory");
            of_memory.is_some_and(|policy| policy.str_at(&["restartPolicy"]) == "RestartContainer")
        };
        let mut wanted = spec::containers(pod).iter().chain(spec::init_containers(pod));
        let swapping = wanted.any(|container| {
            let Some(had) = before.get(container.str_at(&["name"])) else { return false };
            request(container) != request(had)
                && !restarts(had)
                && (self.swaps(pod, container) || self.swaps(allocated, had))
        });
        swapping.then(|| Infeasible {
            detail: "swap_limitation",
            message: "In-place resize of containers with swap is not supported.".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    const LIMITED: Swap =
        Swap { accounted: true, limited: true, capacity: 1 << 30, memory: 4 << 30, cgroup_v2: true };

    fn container(request: &str, limit: &str) -> Value {
        let amount = |text: &str| if text.is_empty() { Value::Null } else { object!({"memory": text}) };
        object!({"name": "c", "resources": {"requests": (amount(request)), "limits": (amount(limit))}})
    }

    fn pod(qos: &str, container: &Value) -> Value {
        object!({"spec": {"containers": [(container.clone())]}, "status": {"qosClass": qos}})
    }

    fn max(swap: Swap, pod: &Value, container: &Value) -> Option<String> {
        let mut out = cri::LinuxContainerResources::default();
        swap.apply(pod, container, &mut out);
        out.unified.remove("memory.swap.max")
    }

    #[test]
    fn burstable_containers_have_a_part_of_the_swap() {
        let (quarter, fixed, none) = (container("1Gi", "2Gi"), container("1Gi", "1Gi"), container("", ""));
        let mut critical = pod("Burstable", &quarter);
        critical.set(&["spec", "priority"], 2_000_001_000_i64);
        for (pod, container, expected) in [
            (pod("Burstable", &quarter), &quarter, 1 << 28),
            (pod("Burstable", &container("2Gi", "")), &container("2Gi", ""), 1 << 29),
            (pod("Burstable", &fixed), &fixed, 0),
            (pod("Burstable", &none), &none, 0),
            (pod("Burstable", &container("5Gi", "6Gi")), &container("5Gi", "6Gi"), 0),
            (pod("BestEffort", &none), &none, 0),
            (pod("Guaranteed", &fixed), &fixed, 0),
            (critical, &quarter, 0),
        ] {
            assert_eq!(max(LIMITED, &pod, container), Some(expected.to_string()), "{pod:?}");
        }
        let burstable = pod("Burstable", &quarter);
        assert_eq!(max(Swap { limited: false, ..LIMITED }, &burstable, &quarter), Some("0".to_owned()));
        assert_eq!(max(Swap { accounted: false, ..LIMITED }, &burstable, &quarter), None);
    }

    #[test]
    fn on_version_one_there_is_no_swap_beyond_the_memory() {
        let burstable = container("1Gi", "2Gi");
        let mut out = cri::LinuxContainerResources { memory_limit_in_bytes: 2 << 30, ..Default::default() };
        let swap = Swap { cgroup_v2: false, ..LIMITED };
        swap.apply(&pod("Burstable", &burstable), &burstable, &mut out);
        assert_eq!((out.memory_swap_limit_in_bytes, out.unified.len()), (2 << 30, 0));
    }

    #[test]
    fn requests_of_containers_that_swap_are_not_changed_in_place() {
        let why = Some("In-place resize of containers with swap is not supported.");
        let before = container("1Gi", "2Gi");
        let mut restarting = before.clone();
        restarting.set(
            &["resizePolicy"],
            object!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]),
        );
        for (swap, had, wants, expected) in [
            (LIMITED, &before, container("2Gi", "3Gi"), why),
            (LIMITED, &before, container("1Gi", "3Gi"), None),
            (LIMITED, &restarting, container("2Gi", "3Gi"), None),
            (Swap { limited: false, ..LIMITED }, &before, container("2Gi", "3Gi"), None),
        ] {
            let refused = swap.infeasible(&pod("Burstable", &wants), &pod("Burstable", had));
            assert_eq!(refused.map(|refused| refused.message).as_deref(), expected);
        }
    }
}
