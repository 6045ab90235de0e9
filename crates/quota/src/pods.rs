//! What a pod asks for, exactly: quotas add up amounts that schedulers may round.

use api::Value;
use api::quantity::Quantity;
use jiff::Timestamp;

use crate::source::is_extended;
use crate::{Usage, count, quantities};

/// Whether a pod counts for more than its existence: not when it has ended, nor when it should long be gone.
pub(crate) fn is_counted(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod.str_at(&["status", "phase"]), "Failed" | "Succeeded") {
        return false;
    }
    let since = api::time::parse(pod.str_at(&["metadata", "deletionTimestamp"]));
    let grace = pod.at(&["metadata", "deletionGracePeriodSeconds"]).as_i64();
    match (since, grace) {
        (Some(since), Some(grace)) => now.as_second() <= since.as_second().saturating_add(grace),
        _ => true,
    }
}

pub(crate) fn charge(pod: &Value, usage: &mut Usage) {
    usage.insert("pods".to_owned(), count(1));
    for (name, amount) in total(pod, "requests") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            usage.insert(format!("requests.{name}"), amount);
            usage.insert(name, amount);
        } else if is_extended(&name) {
            usage.insert(format!("requests.{name}"), amount);
        }
    }
    for (name, amount) in total(pod, "limits") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), amount);
        }
    }
}

/// The containers' sum, or what is needed while one starts another where that is more; or the pod's own word; and the overhead.
fn total(pod: &Value, kind: &str) -> Usage {
    let spec = pod.get("spec");
    let of = |c: &Value| quantities(c.at(&["resources", kind])).collect::<Usage>();
    let mut total = Usage::new();
    for container in spec.array_at(&["containers"]) {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut peak) = (Usage::new(), Usage::new());
    for container in spec.array_at(&["initContainers"]) {
        let mut at_once = of(container);
        if container.str_at(&["restartPolicy"]) == "Always" {
            add(&mut total, &at_once);
            add(&mut sidecars, &at_once);
            at_once.clone_from(&sidecars);
        } else {
            add(&mut at_once, &sidecars);
        }
        raise(&mut peak, at_once);
    }
    raise(&mut total, peak);
    let own = of(spec).into_iter();
    total.extend(own.filter(|(n, _)| matches!(n.as_str(), "cpu" | "memory") || n.starts_with("hugepages-")));
    let mut overhead: Usage = quantities(spec.get("overhead")).collect();
    if kind == "limits" {
        // Without a limit there is nothing to raise.
        overhead.retain(|name, _| total.get(name).is_some_and(|q| !q.is_zero()));
    }
    add(&mut total, &overhead);
    total
}

fn add(to: &mut Usage, more: &Usage) {
    for (name, amount) in more {
        let sum = to.entry(name.clone()).or_insert(Quantity::ZERO);
        *sum = sum.plus(*amount);
    }
}

fn raise(to: &mut Usage, other: Usage) {
    for (name, amount) in other {
        let most = to.entry(name).or_insert(amount);
        *most = (*most).max(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn check(spec: Value, want: &[(&str, &str)]) {
        let mut used = Usage::new();
        charge(&object!({"spec": (&spec)}), &mut used);
        let used: Vec<String> = used.iter().map(|(k, q)| format!("{k}={q}")).collect();
        let want: Vec<String> = want.iter().map(|(k, q)| format!("{k}={q}")).collect();
        assert_eq!(used, want, "{spec}");
    }

    #[test]
    fn a_pod_counts_at_its_peak() {
        let asks = |cpu: &str| object!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar =
            |cpu: &str| object!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let cpu = |q| [("cpu", q), ("pods", "1"), ("requests.cpu", q)];
        check(object!({"containers": [(asks("1")), (asks("500m"))]}), &cpu("1500m"));
        check(object!({"containers": [(asks("1"))], "initContainers": [(asks("2"))]}), &cpu("2"));
        check(
            object!({"containers": [(asks("1"))], "initContainers": [(sidecar("1")), (asks("2"))]}),
            &cpu("3"),
        );
        check(
            object!({"containers": [(asks("1"))], "resources": {"requests": {"cpu": "4"}}, "overhead": {"cpu": "1"}}),
            &cpu("5"),
        );
    }

    #[test]
    fn resources_count_under_the_names_they_have() {
        check(
            object!({"containers": [{"resources": {
                "requests": {"memory": "1Gi", "hugepages-2Mi": "4Mi", "nvidia.com/gpu": "2"},
                "limits": {"memory": "2Gi", "hugepages-2Mi": "4Mi", "nvidia.com/gpu": "2"},
            }}]}),
            &[
                ("hugepages-2Mi", "4Mi"),
                ("limits.memory", "2Gi"),
                ("memory", "1Gi"),
                ("pods", "1"),
                ("requests.hugepages-2Mi", "4Mi"),
                ("requests.memory", "1Gi"),
                ("requests.nvidia.com/gpu", "2"),
            ],
        );
    }

    #[test]
    fn pods_that_ended_or_are_overdue_count_no_more() {
        let at = Timestamp::from_second(1000).unwrap();
        assert!(is_counted(&object!({"status": {"phase": "Running"}}), at));
        assert!(!is_counted(&object!({"status": {"phase": "Succeeded"}}), at));
        let going = |since: &str| {
            is_counted(
                &object!({"metadata": {"deletionTimestamp": since, "deletionGracePeriodSeconds": 30}}),
                at,
            )
        };
        assert!(going("1970-01-01T00:16:15Z"));
        assert!(!going("1970-01-01T00:16:05Z"));
    }
}
