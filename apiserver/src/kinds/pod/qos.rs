//! Quality of service classes of pods.
//!
//! Source: <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>.

use api::Value;

/// The quality of service class of a pod, from its requests and limits.
pub(crate) fn qos_class(spec: &Value) -> &'static str {
    let (mut any, mut all_limited) = (false, true);
    let containers = ["containers", "initContainers"].into_iter().flat_map(|l| spec.array_at(&[l]));
    let mut consider = |resources: &Value| {
        for name in ["cpu", "memory"] {
            let quantity = |kind: &str| {
                let text = resources.at(&[kind, name]).as_str();
                text.and_then(|t| t.parse::<api::quantity::Quantity>().ok()).filter(|q| !q.is_zero())
            };
            let (request, limit) = (quantity("requests"), quantity("limits"));
            any |= request.is_some() || limit.is_some();
            all_limited &= limit.is_some() && request == limit;
        }
    };
    let pod_level = spec.get("resources");
    if pod_level.is_null() {
        containers.for_each(|c| consider(c.get("resources")));
    } else {
        consider(pod_level);
    }
    match (any, all_limited) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let pod = |resources: Value| object!({"containers": [{"name": "c", "resources": resources}]});
        let both = object!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos_class(&pod(object!({}))), "BestEffort");
        assert_eq!(qos_class(&pod(object!({"requests": {"cpu": "1"}}))), "Burstable");
        assert_eq!(qos_class(&pod(object!({"requests": (both.clone()), "limits": both}))), "Guaranteed");
    }
}
