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

/// A request or limit in a `ResourceRequirements`: thousandths of a core for `cpu`, bytes for everything else.
pub(crate) fn amount(requirements: &Value, kind: &str, resource: &str) -> Option<i64> {
    parse(requirements.at(&[kind, resource]), resource)
}

/// A container's own request or limit.
pub(crate) fn of_container(container: &Value, kind: &str, resource: &str) -> Option<i64> {
    amount(container.get("resources"), kind, resource)
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

/// Shares as thousandths of a core, rounded up.
pub(crate) fn millis_of_shares(shares: i64) -> i64 {
    if shares < MIN_SHARES as i64 { 0 } else { (shares * 1000 + 1023) / 1024 }
}

/// Microseconds of each period as thousandths of a core; none when there is no limit.
pub(crate) fn millis_of_quota(quota: i64, period: i64) -> Option<i64> {
    (quota > 0 && period > 0).then(|| quota * 1000 / period).filter(|millis| *millis > 0)
}

/// What a pod takes of a resource: the sum of its containers, or its hungriest init container if that is more.
fn of_pod(pod: &Value, kind: &str, resource: &str) -> Option<i64> {
    let own = parse(pod.at(&["spec", "resources", kind, resource]), resource);
    own.or_else(|| Some(of_containers(pod, kind, resource)))
}

fn of_containers(pod: &Value, kind: &str, resource: &str) -> i64 {
    let mut sidecars = 0;
    let mut init = 0;
    for container in spec::init_containers(pod) {
        let amount = of_container(container, kind, resource).unwrap_or_default();
        if spec::is_sidecar(container) {
            sidecars += amount;
            init = init.max(sidecars);
        } else {
            init = init.max(sidecars + amount);
        }
    }
    let mains = spec::containers(pod).iter().map(|container| of_container(container, kind, resource));
    let main: i64 = mains.flatten().sum();
    init.max(main + sidecars)
}

/// What a pod needs of a resource besides its containers.
pub(crate) fn overhead(pod: &Value, resource: &str) -> i64 {
    parse(pod.at(&["spec", "overhead", resource]), resource).unwrap_or_default()
}

/// What a pod has of a resource, its overhead included.
pub(crate) fn sum(pod: &Value, kind: &str, resource: &str) -> i64 {
    of_pod(pod, kind, resource).unwrap_or_default() + overhead(pod, resource)
}

/// What a pod requests of a resource.
pub(crate) fn request(pod: &Value, resource: &str) -> i64 {
    sum(pod, "requests", resource)
}

/// What a pod is limited to, when every one of its containers has a limit.
pub(crate) fn limit(pod: &Value, resource: &str) -> Option<i64> {
    let own = parse(pod.at(&["spec", "resources", "limits", resource]), resource);
    if own.is_some() {
        return own;
    }
    let all = spec::all_containers(pod)
        .all(|container| of_container(container, "limits", resource).is_some_and(|n| n > 0));
    if all { of_pod(pod, "limits", resource).map(|limit| limit + overhead(pod, resource)) } else { None }
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
            let rest = unclaimed_memory(pod);
            let request = |container: &Value| {
                of_container(container, "requests", "memory").unwrap_or_default().saturating_add(rest)
            };
            let mut counted = request(container);
            if spec::is_sidecar(container) && spec::is_init(pod, container.str_at(&["name"])) {
                // A sidecar is not to go before the containers that it serves.
                counted = counted.max(spec::containers(pod).iter().map(request).min().unwrap_or_default());
            }
            let score = 1000 - i128::from(counted) * 1000 / i128::from(capacity.max(1));
            // Always more than a guaranteed container's and less than a best-effort one's.
            score.clamp(3, 999) as i64
        }
    }
}

/// What the pod as a whole requests beyond its containers, for each of them.
fn unclaimed_memory(pod: &Value) -> i64 {
    let Some(own) = parse(pod.at(&["spec", "resources", "requests", "memory"]), "memory") else { return 0 };
    let count = i64::try_from(spec::all_containers(pod).count()).unwrap_or(i64::MAX);
    (own - of_containers(pod, "requests", "memory")) / count.max(1)
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
    fn small_burstable_containers_go_before_big_ones() {
        let container = |memory: &str| object!({"resources": {"requests": {"memory": memory}}});
        for (memory, score) in [("1", 999), ("512Mi", 500), ("1Gi", 3)] {
            assert_eq!(oom_score(&pod(), &container(memory), 1 << 30), score, "{memory}");
        }
    }
}
