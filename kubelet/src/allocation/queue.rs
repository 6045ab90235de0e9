//! The order in which pods that wait for room are looked at.

use api::Value;

use crate::pods::{resources, spec};

/// The smaller, the earlier: who needs no more than before, then by priority and quality of service, then who has waited
/// longest. `since` is when the waiting began, as the API writes it; who has not waited yet comes last.
pub(super) fn rank(pod: &Value, allocated: &Value, since: Option<&str>) -> (bool, i64, u8, bool, String) {
    let more = |resource| resources::request(pod, resource) > resources::request(allocated, resource);
    let priority = pod.at(&["spec", "priority"]).as_i64().unwrap_or_default();
    let class = u8::from(spec::qos(pod) != "Guaranteed");
    (more("cpu") || more("memory"), -priority, class, since.is_none(), since.unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    fn pod(cpu: &str, priority: i64, class: &str) -> Value {
        object!({
            "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
            "status": {"qosClass": class},
        })
    }

    #[test]
    fn who_waits_is_served_by_need_priority_class_and_time() {
        let old = pod("1", 0, "Burstable");
        let (early, late) = (Some("2026-01-01T00:00:00Z"), Some("2026-01-02T00:00:00Z"));
        let ranks = [
            rank(&pod("500m", 0, "Burstable"), &old, None),
            rank(&pod("2", 10, "Burstable"), &old, late),
            rank(&pod("2", 0, "Guaranteed"), &old, late),
            rank(&pod("2", 0, "Burstable"), &old, early),
            rank(&pod("2", 0, "Burstable"), &old, late),
            rank(&pod("2", 0, "Burstable"), &old, None),
        ];
        assert!(ranks.is_sorted(), "{ranks:?}");
    }
}
