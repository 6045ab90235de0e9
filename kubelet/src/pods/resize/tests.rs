use api::object;

use super::*;

fn container(cpu: &str, memory: &str, policies: Value) -> Value {
    object!({"name": "c", "resizePolicy": policies, "resources": {
        "requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory},
    }})
}

fn actuated(container: &Value) -> Info {
    Info {
        container_resources: [("c".to_owned(), container.get("resources").clone())].into(),
        pod_level_resources: Value::Null,
    }
}

fn running(id: &str) -> Container {
    Container { id: id.to_owned(), state: State::Running, ..Container::named("c") }
}

#[test]
fn what_differs_is_changed_or_the_container_starts_over() {
    let policy = |cpu: &str, memory: &str| {
        object!([
            {"resourceName": "cpu", "restartPolicy": cpu},
            {"resourceName": "memory", "restartPolicy": memory},
        ])
    };
    let (keep, restart) = ("NotRequired", "RestartContainer");
    for (policies, cpu, memory, kept, changed) in [
        (Value::Null, "1", "64Mi", true, (0, 0)),
        (Value::Null, "2", "64Mi", true, (1, 0)),
        (policy(keep, keep), "2", "128Mi", true, (1, 1)),
        (policy(restart, keep), "1", "128Mi", true, (0, 1)),
        (policy(restart, keep), "2", "64Mi", false, (0, 0)),
        (policy(keep, restart), "2", "128Mi", false, (0, 0)),
    ] {
        let before = actuated(&container("1", "64Mi", Value::Null));
        let after = container(cpu, memory, policies.clone());
        let mut changes = Changes::default();
        assert_eq!(
            changes.consider(&Value::Null, &after, &running("id"), &before),
            kept,
            "{policies} {cpu} {memory}"
        );
        assert_eq!((changes.cpu.len(), changes.memory.len()), changed, "{policies} {cpu} {memory}");
        assert_eq!(changes.restarts, !kept);
    }
}

#[test]
fn who_gets_less_comes_first() {
    let before = actuated(&container("1", "64Mi", Value::Null));
    let mut changes = Changes::default();
    for (id, cpu) in [("more", "2"), ("less", "500m"), ("most", "3")] {
        assert!(changes.consider(&Value::Null, &container(cpu, "64Mi", Value::Null), &running(id), &before));
    }
    let order: Vec<_> = changes.cpu.iter().map(|update| update.id.as_str()).collect();
    assert_eq!(order, ["less", "more", "most"]);
}

#[test]
fn it_is_in_progress_until_all_that_runs_has_what_was_given() {
    let before = actuated(&container("1", "64Mi", Value::Null));
    let observed = Observed { sandboxes: Vec::new(), containers: vec![running("id")] };
    for list in ["containers", "initContainers"] {
        let pod = |cpu: &str| {
            let mut pod = Value::object();
            pod.set(&["spec", list], object!([(container(cpu, "64Mi", Value::Null))]));
            pod
        };
        assert!(!in_progress(&pod("1000m"), &observed, &before), "{list}");
        assert!(in_progress(&pod("2"), &observed, &before), "{list}");
        assert!(!in_progress(&pod("2"), &Observed::default(), &before), "{list}");
    }
}

#[test]
fn resources_of_the_whole_pod_reach_containers_without_limits() {
    let mut before = actuated(&object!({"resources": {}}));
    before.pod_level_resources = object!({"limits": {"cpu": "1"}});
    let pod = object!({"spec": {"resources": {"limits": {"cpu": "2"}}}});
    let mut changes = Changes::default();
    changes.consider_pod(&pod, &before);
    assert!(changes.whole && changes.consider(&pod, &object!({"name": "c"}), &running("id"), &before));
    assert_eq!((changes.cpu[0].current.cpu_limit, changes.cpu[0].desired.cpu_limit), (1000, 2000));
}
