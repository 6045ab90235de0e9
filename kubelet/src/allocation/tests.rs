use api::object;

use super::*;

fn pod(cpu: &str, generation: i64) -> Arc<Value> {
    Arc::new(object!({
        "metadata": {"name": "p", "uid": "u", "generation": generation},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}, {"name": "d"}]},
    }))
}

#[tokio::test]
async fn a_pod_keeps_what_it_was_given_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let allocations = Allocations::load(dir.path()).unwrap();
    assert!(!allocations.has("u"));
    allocations.allocate(&pod("1", 1));
    allocations.actuate(&pod("1", 1), "c", object!({"requests": {"cpu": "1"}}));
    allocations.save().await;
    let again = Allocations::load(dir.path()).unwrap();
    assert!(again.has("u") && again.wants_other(&pod("2", 2)) && !again.wants_other(&pod("1000m", 2)));
    let given = again.allocated(&pod("2", 2));
    assert_eq!(given.array_at(&["spec", "containers"])[0].str_at(&["resources", "requests", "cpu"]), "1");
    assert_eq!(again.actuated("u").container_resources["c"], object!({"requests": {"cpu": "1"}}));
    again.forget("u");
    assert!(!again.has("u"));
}

#[test]
fn conditions_are_kept_and_changed_as_upstream_does() {
    let dir = tempfile::tempdir().unwrap();
    let allocations = Allocations::load(dir.path()).unwrap();
    assert!(allocations.set_pending(&pod("9", 2), "OutOfcpu", "no room", "t1"));
    assert!(!allocations.set_pending(&pod("9", 2), "OutOfcpu", "still none", "t2"));
    assert!(allocations.set_pending(&pod("9", 3), "OutOfcpu", "still none", "t3"));
    assert!(allocations.set_in_progress(&pod("9", 2), "", "", "t1"));
    assert!(allocations.set_in_progress(&pod("9", 3), "Error", "why", "t2"));
    assert!(!allocations.set_in_progress(&pod("9", 3), "", "", "t3"));
    let shown: Vec<_> = allocations.conditions("u").to_values().collect();
    let pending = object!({
        "type": "PodResizePending", "observedGeneration": 3, "status": "True", "lastProbeTime": "t3",
        "lastTransitionTime": "t1", "reason": "Deferred", "message": "still none",
    });
    let in_progress = object!({
        "type": "PodResizeInProgress", "observedGeneration": 2, "status": "True", "lastProbeTime": "t2",
        "lastTransitionTime": "t2", "reason": "Error", "message": "why",
    });
    assert_eq!(shown, [pending, in_progress]);
    let mut reported = (*pod("9", 3)).clone();
    reported.set(&["status", "conditions"], Value::Array(shown));
    let other = Allocations::load(dir.path()).unwrap();
    other.take_over(&reported);
    assert_eq!(other.conditions("u"), allocations.conditions("u"));
    assert_eq!(allocations.count_conditions(), ([("Deferred".to_owned(), 1)].into(), 1));
    assert_eq!(allocations.clear_in_progress("u"), Some(2));
    assert_eq!(allocations.clear_in_progress("u"), None);
}
