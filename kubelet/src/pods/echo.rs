//! What the kubelet tells of a pod comes back to it by the watch, and is nothing to look at the pod again for.

use std::sync::Arc;

use api::Value;

use super::actor::Desired;
use super::report::is_own;
use super::spec;

/// Whether nothing has changed that makes a difference to the work on the pod.
pub(super) fn is_echo(before: &Desired, now: &Desired) -> bool {
    let mirrored = match (&before.mirror, &now.mirror) {
        (None, None) => true,
        (Some(before), Some(now)) => is_same(before, now),
        _ => false,
    };
    mirrored && !now.ends() && is_same(&before.pod, &now.pod)
}

/// Which claims stand for those of the pod, as controllers write it.
const CLAIMS: [&[&str]; 2] =
    [&["status", "resourceClaimStatuses"], &["status", "extendedResourceClaimStatus"]];

fn is_same(before: &Arc<Value>, now: &Arc<Value>) -> bool {
    let deadline = now.at(&["spec", "activeDeadlineSeconds"]);
    Arc::ptr_eq(before, now)
        || before.get("spec") == now.get("spec")
            && metadata(before).eq(metadata(now))
            && spec::is_terminal(before) == spec::is_terminal(now)
            && conditions(before).eq(conditions(now))
            && CLAIMS.iter().all(|path| before.at(path) == now.at(path))
            // From when on the deadline counts.
            && (deadline.is_null() || before.at(&["status", "startTime"]) == now.at(&["status", "startTime"]))
}

/// What the metadata say, but for what changes with every write.
fn metadata(pod: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let all = pod.get("metadata").as_object().into_iter().flat_map(|map| map.iter());
    all.filter(|(field, _)| !matches!(*field, "managedFields" | "resourceVersion"))
}

/// The conditions that others write: the pod may be ready by them.
fn conditions(pod: &Value) -> impl Iterator<Item = &Value> {
    pod.array_at(&["status", "conditions"]).iter().filter(|condition| !is_own(condition))
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    fn pod() -> Value {
        object!({
            "metadata": {"name": "p", "uid": "u", "resourceVersion": "1"},
            "spec": {"containers": [{"name": "c"}]},
            "status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]},
        })
    }

    fn desired(pod: Value) -> Desired {
        Desired { pod: Arc::new(pod), mirror: None, removed: false }
    }

    #[test]
    fn what_the_kubelet_has_told_is_no_news() {
        let check = |path: &[&str], value: Value, expected: bool| {
            let mut other = pod();
            other.set(path, value);
            assert_eq!(is_echo(&desired(pod()), &desired(other)), expected, "{path:?}");
        };
        check(&["metadata", "resourceVersion"], "2".into(), true);
        check(&["metadata", "managedFields"], object!([{"manager": "kubelet"}]), true);
        check(&["status", "phase"], "Running".into(), true);
        check(&["status", "startTime"], "2026-01-01T00:00:00Z".into(), true);
        check(&["status", "conditions"], object!([{"type": "Ready", "status": "True"}]), true);
        check(&["status", "conditions"], object!([{"type": "example.com/gate", "status": "True"}]), false);
        check(&["status", "resourceClaimStatuses"], object!([{"name": "a"}]), false);
        check(&["status", "phase"], "Failed".into(), false);
        check(&["metadata", "labels"], object!({"a": "b"}), false);
        check(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z".into(), false);
        check(&["spec", "containers"], object!([{"name": "c", "image": "other"}]), false);
        let removed = Desired { removed: true, ..desired(pod()) };
        assert!(!is_echo(&desired(pod()), &removed));
    }

    #[test]
    fn a_deadline_counts_from_when_the_pod_started() {
        let mut before = pod();
        before.set(&["spec", "activeDeadlineSeconds"], 5);
        let mut now = before.clone();
        now.set(&["status", "startTime"], "2026-01-01T00:00:00Z");
        assert!(!is_echo(&desired(before), &desired(now)));
    }

    #[test]
    fn another_mirror_is_news_and_its_status_is_not() {
        let with = |mirror: Option<Value>| Desired { mirror: mirror.map(Arc::new), ..desired(pod()) };
        let (mut told, mut other) = (pod(), pod());
        told.set(&["status", "phase"], "Running");
        other.set(&["metadata", "uid"], "v");
        assert!(is_echo(&with(Some(pod())), &with(Some(told))));
        assert!(!is_echo(&with(Some(pod())), &with(Some(other))));
        assert!(!is_echo(&with(Some(pod())), &with(None)));
    }
}
