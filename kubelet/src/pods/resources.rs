//! From resource requests and limits to control groups and OOM scores.

use api::Value;
use api::quantity::Quantity;
use linux::cgroup::Limits;

use super::spec;

const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const MIN_QUOTA: i64 = 1000;
/// From this priority on a pod is one that the node cannot do without.
const CRITICAL: i64 = 2_000_000_000;

/// A container's request or limit: thousandths of a core for `cpu`, bytes for `memory`.
pub(crate) fn amount(container: &Value, kind: &str, resource: &str) -> Option<i64> {
    parse(container.at(&["resources", kind, resource]), resource)
}

fn parse(value: &Value, resource: &str) -> Option<i64> {
    let quantity: Quantity = value.as_str()?.parse().ok()?;
    Some(if resource == "cpu" { quantity.millis() } else { quantity.units() })
}

/// Thousandths of a core as shares.
pub(crate) fn shares(millis: i64) -> u64 {
    (millis.max(0).unsigned_abs() * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Thousandths of a core as microseconds of each period.
pub(crate) fn quota(millis: i64, period_us: u64) -> i64 {
    (millis * period_us as i64 / 1000).max(MIN_QUOTA)
}

/// What a pod takes of a resource: the sum of its containers, or its hungriest init container if that is more.
fn of_pod(pod: &Value, kind: &str, resource: &str) -> Option<i64> {
    let own = parse(pod.at(&["spec", "resources", kind, resource]), resource);
    if own.is_some() {
        return own;
    }
    let mut sidecars = 0;
    let mut init = 0;
    for container in spec::init_containers(pod) {
        let amount = amount(container, kind, resource).unwrap_or_default();
        if spec::is_sidecar(container) {
            sidecars += amount;
            init = init.max(sidecars);
        } else {
            init = init.max(sidecars + amount);
        }
    }
    let mains = spec::containers(pod).iter().map(|container| amount(container, kind, resource));
    let main: i64 = mains.flatten().sum();
    Some(init.max(main + sidecars))
}

/// What a pod requests of a resource.
pub(crate) fn request(pod: &Value, resource: &str) -> i64 {
    let overhead = parse(pod.at(&["spec", "overhead", resource]), resource).unwrap_or_default();
    of_pod(pod, "requests", resource).unwrap_or_default() + overhead
}

/// What a pod is limited to, when every one of its containers has a limit.
fn limit(pod: &Value, resource: &str) -> Option<i64> {
    let own = parse(pod.at(&["spec", "resources", "limits", resource]), resource);
    if own.is_some() {
        return own;
    }
    let all = spec::all_containers(pod)
        .all(|container| amount(container, "limits", resource).is_some_and(|n| n > 0));
    let overhead = parse(pod.at(&["spec", "overhead", resource]), resource).unwrap_or_default();
    if all { of_pod(pod, "limits", resource).map(|limit| limit + overhead) } else { None }
}

/// The limits of a pod's own control group.
pub(crate) fn pod_limits(pod: &Value, period_us: u64, enforce_quota: bool, pids: i64) -> Limits {
    if spec::qos(pod) == "BestEffort" {
        return Limits {
            cpu_shares: Some(MIN_SHARES),
            pids: (pids > 0).then_some(pids),
            ..Limits::default()
        };
    }
    let cpu = limit(pod, "cpu").filter(|_| enforce_quota);
    Limits {
        cpu_shares: Some(shares(request(pod, "cpu"))),
        cpu_quota_us: cpu.map(|millis| quota(millis, period_us)),
        cpu_period_us: cpu.map(|_| period_us),
        memory: limit(pod, "memory"),
        pids: (pids > 0).then_some(pids),
    }
}

/// The name of a pod's control group, below the root of the hierarchy.
pub(crate) fn cgroup(root: &str, pod: &Value) -> String {
    let kubepods = kubepods(root);
    match spec::qos(pod) {
        "Guaranteed" => format!("{kubepods}/pod{}", pod.uid()),
        "Burstable" => format!("{kubepods}/burstable/pod{}", pod.uid()),
        _ => format!("{kubepods}/besteffort/pod{}", pod.uid()),
    }
}

/// The name of the group of all pods.
pub(crate) fn kubepods(root: &str) -> String {
    match root.trim_matches('/') {
        "" => "kubepods".to_owned(),
        root => format!("{root}/kubepods"),
    }
}

/// Whether the node cannot do without the pod.
pub(crate) fn is_critical(pod: &Value) -> bool {
    spec::is_static(pod)
        || spec::is_mirror(pod)
        || pod.at(&["spec", "priority"]).as_i64().is_some_and(|priority| priority >= CRITICAL)
}

/// How willingly the kernel kills a container when memory runs out.
pub(crate) fn oom_score(pod: &Value, container: &Value, capacity: i64) -> i64 {
    if is_critical(pod) {
        return -997;
    }
    match spec::qos(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let request = amount(container, "requests", "memory").unwrap_or_default();
            let score = 1000 - i128::from(request) * 1000 / i128::from(capacity.max(1));
            // Always more than a guaranteed container's and less than a best-effort one's.
            score.clamp(3, 999) as i64
        }
    }
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    fn pod() -> Value {
        object!({"metadata": {"uid": "u"}, "spec": {
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "2", "memory": "10Mi"}}}],
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "64Mi"}, "limits": {"cpu": "1"}}},
                {"name": "b", "resources": {"requests": {"cpu": "500m", "memory": "64Mi"}}},
            ],
        }})
    }

    #[test]
    fn a_pod_requests_its_sum_or_its_hungriest_init_container() {
        assert_eq!(request(&pod(), "cpu"), 2000);
        assert_eq!(request(&pod(), "memory"), 128 << 20);
    }

    #[test]
    fn a_pod_is_limited_only_when_all_its_containers_are() {
        let limits = pod_limits(&pod(), 100_000, true, -1);
        assert_eq!(limits, Limits { cpu_shares: Some(2048), ..Limits::default() });
        let all = object!({"spec": {"containers": [
            {"name": "a", "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}, "requests": {"cpu": "1"}}},
        ]}});
        let limits = pod_limits(&all, 100_000, true, 100);
        assert_eq!((limits.cpu_quota_us, limits.memory), (Some(150_000), Some(1 << 30)));
        assert_eq!(pod_limits(&all, 100_000, false, 100).cpu_quota_us, None);
    }

    #[test]
    fn groups_are_named_by_quality_of_service() {
        assert_eq!(cgroup("", &pod()), "kubepods/burstable/podu");
        assert_eq!(cgroup("/x/", &object!({"metadata": {"uid": "u"}})), "x/kubepods/besteffort/podu");
    }

    #[test]
    fn small_burstable_containers_go_before_big_ones() {
        let container = |memory: &str| object!({"resources": {"requests": {"memory": memory}}});
        for (memory, score) in [("1", 999), ("512Mi", 500), ("1Gi", 3)] {
            assert_eq!(oom_score(&pod(), &container(memory), 1 << 30), score, "{memory}");
        }
    }
}
