//! Resources of running pods that are not changed in place, because containers have them for themselves.

use api::Value;

use crate::allocation::Infeasible;
use crate::config::ManagerSettings;
use crate::pods::{resources, spec};

const CPU_DETAIL: &str = "guaranteed_pod_cpu_manager_static_policy";
const MEMORY_DETAIL: &str = "guaranteed_pod_memory_manager_static_policy";

/// Why a pod cannot be given what it asks for in place of what it has.
pub(crate) fn infeasible(settings: &ManagerSettings, pod: &Value, allocated: &Value) -> Option<Infeasible> {
    if spec::qos(pod) != "Guaranteed" {
        return None;
    }
    let differs = |resource: &str| {
        let sidecars = spec::init_containers(pod).iter().filter(|container| spec::is_sidecar(container));
        sidecars.chain(spec::containers(pod)).any(|container| {
            let request = |container: &Value| resources::of_container(container, "requests", resource);
            let before = spec::container(allocated, container.str_at(&["name"])).and_then(request);
            request(container) != before
        })
    };
    let managed = [
        ("CPU", settings.cpu_manager_policy.as_str(), "static", "cpu", CPU_DETAIL),
        ("Memory", settings.memory_manager_policy.as_str(), "Static", "memory", MEMORY_DETAIL),
    ];
    let refused =
        managed.into_iter().find(|(_, policy, fixed, resource, _)| policy == fixed && differs(resource));
    refused.map(|(manager, policy, .., detail)| {
        let message =
            format!("Resize is infeasible for Guaranteed Pods alongside {manager} Manager policy {policy:?}");
        Infeasible { detail, message }
    })
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn what_guaranteed_pods_have_for_themselves_is_not_changed() {
        let pod = |qos: &str, cpu: &str, memory: &str| {
            let amounts = object!({"cpu": cpu, "memory": memory});
            object!({
                "spec": {"containers": [{"name": "c", "resources": {"requests": (amounts.clone()), "limits": (amounts)}}]},
                "status": {"qosClass": qos},
            })
        };
        let settings = |cpu: &str, memory: &str| ManagerSettings {
            cpu_manager_policy: cpu.to_owned(),
            memory_manager_policy: memory.to_owned(),
            ..ManagerSettings::default()
        };
        let cpu = "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"";
        let memory = "Resize is infeasible for Guaranteed Pods alongside Memory Manager policy \"Static\"";
        let before = pod("Guaranteed", "1", "1Gi");
        for (cpus, memories, after, expected) in [
            ("static", "Static", pod("Guaranteed", "2", "2Gi"), Some(cpu)),
            ("static", "Static", pod("Guaranteed", "1", "2Gi"), Some(memory)),
            ("static", "None", pod("Guaranteed", "1000m", "2Gi"), None),
            ("none", "Static", pod("Guaranteed", "2", "1Gi"), None),
            ("static", "Static", pod("Burstable", "2", "2Gi"), None),
        ] {
            let refused = infeasible(&settings(cpus, memories), &after, &before);
            assert_eq!(refused.map(|refused| refused.message).as_deref(), expected, "{cpus} {memories}");
        }
    }
}
