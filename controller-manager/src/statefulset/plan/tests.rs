use super::*;

fn claim(name: &str) -> Arc<Value> {
    Arc::new(object!({"metadata": {"namespace": "d", "name": name}}))
}

fn set(replicas: i64, image: &str, policy: &str) -> Value {
    object!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"namespace": "d", "name": "db", "uid": "u", "generation": 1},
        "spec": {
            "replicas": replicas, "serviceName": "db", "podManagementPolicy": policy,
            "selector": {"matchLabels": {"a": "b"}},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"image": image}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
        },
    })
}

/// Runs rounds, making every pod ready or gone in between, until nothing but the status changes.
fn settle(set: &mut Value, pods: &mut Vec<Arc<Value>>, revisions: &mut Vec<Arc<Value>>) -> Vec<String> {
    let mut log = Vec::new();
    for _ in 0..20 {
        let view = View { set, pods, revisions, claim_named: &|n| Some(claim(n)) };
        let actions = plan(&view, Timestamp::from_second(100).unwrap());
        if actions.is_empty() {
            return log;
        }
        for action in actions {
            match action {
                Action::Create(r, mut object, _) if r.kind == "Pod" => {
                    log.push(format!("+{}", object.name()));
                    object.set(&["metadata", "uid"], object.name().to_owned());
                    object.set(
                        &["status"],
                        object!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
                    );
                    pods.push(Arc::new(object));
                }
                Action::Create(_, revision, _) => revisions.push(Arc::new(revision)),
                Action::Delete(_, pod, ..) => {
                    log.push(format!("-{}", pod.name()));
                    pods.retain(|p| p.name() != pod.name());
                }
                Action::UpdateStatus(_, updated) => *set = updated,
                other => panic!("{other:?}"),
            }
        }
    }
    panic!("never settles: {log:?}");
}

#[test]
fn pods_come_and_go_in_order() {
    let (mut pods, mut revisions) = (Vec::new(), Vec::new());
    let mut s = set(3, "v1", "OrderedReady");
    assert_eq!(settle(&mut s, &mut pods, &mut revisions), ["+db-0", "+db-1", "+db-2"]);
    assert_eq!(int(&s, &["status", "readyReplicas"], 0), 3);
    s.set(&["spec", "replicas"], 1);
    assert_eq!(settle(&mut s, &mut pods, &mut revisions), ["-db-2", "-db-1"]);
}

#[test]
fn scaling_down_waits_for_pods_that_are_not_the_first_to_do_badly() {
    let pod = |n: i64, ready: &str| {
        let conditions = object!([{"type": "Ready", "status": ready}]);
        let status = object!({"phase": "Running", "conditions": conditions});
        Arc::new(
            object!({"metadata": {"name": (format!("db-{n}")), "uid": "p", "namespace": "d"}, "status": status}),
        )
    };
    let s = set(0, "v1", "OrderedReady");
    let deleted = |pods: &[Arc<Value>]| {
        let view = View { set: &s, pods, revisions: &[], claim_named: &|n| Some(claim(n)) };
        let actions = plan(&view, Timestamp::from_second(100).unwrap());
        let pods = actions.iter().filter_map(|a| match a {
            Action::Delete(_, pod, ..) => Some(pod.name().to_owned()),
            _ => None,
        });
        pods.collect::<Vec<_>>()
    };
    assert!(deleted(&[pod(0, "False"), pod(1, "True"), pod(2, "False")]).is_empty());
    assert_eq!(deleted(&[pod(0, "True"), pod(1, "True"), pod(2, "False")]), ["db-2"]);
    assert_eq!(deleted(&[pod(0, "False"), pod(1, "True"), pod(2, "True")]), ["db-2"]);
}

#[test]
fn a_new_template_rolls_from_the_last_pod() {
    let (mut pods, mut revisions) = (Vec::new(), Vec::new());
    let mut s = set(2, "v1", "OrderedReady");
    settle(&mut s, &mut pods, &mut revisions);
    let status = s.get("status").clone();
    let mut s = set(2, "v2", "OrderedReady");
    s.set(&["status"], status);
    assert_eq!(settle(&mut s, &mut pods, &mut revisions), ["-db-1", "+db-1", "-db-0", "+db-0"]);
    assert_eq!(s.str_at(&["status", "currentRevision"]), s.str_at(&["status", "updateRevision"]));
    assert!(pods.iter().all(|p| p.label(LABEL) == Some(s.str_at(&["status", "updateRevision"]))));
}

#[test]
fn an_unready_pod_holds_the_next_one_up() {
    let s = set(2, "v1", "OrderedReady");
    let unready = object!({"metadata": {"name": "db-0", "namespace": "d", "labels": {"a": "b"}}});
    let pods = [Arc::new(unready)];
    let view = View { set: &s, pods: &pods, revisions: &[], claim_named: &|n| Some(claim(n)) };
    let actions = plan(&view, Timestamp::UNIX_EPOCH);
    assert!(!actions.iter().any(|a| matches!(a, Action::Create(r, ..) if r.kind == "Pod")), "{actions:?}");
}

#[test]
fn pods_mount_the_claims_made_for_them() {
    let s = set(1, "v1", "Parallel");
    let view = View { set: &s, pods: &[], revisions: &[], claim_named: &|_| None };
    let actions = plan(&view, Timestamp::UNIX_EPOCH);
    let created: Vec<&Value> =
        actions.iter().filter_map(|a| if let Action::Create(_, o, _) = a { Some(o) } else { None }).collect();
    let [_, claim, pod] = &created[..] else { panic!("{actions:?}") };
    assert_eq!((claim.name(), pod.name()), ("data-db-0", "db-0"));
    let mounted = pod.array_at(&["spec", "volumes"])[0].str_at(&["persistentVolumeClaim", "claimName"]);
    assert_eq!(mounted, "data-db-0");
    assert_eq!(pod.str_at(&["spec", "subdomain"]), "db");
}

#[test]
fn claims_of_a_pod_that_is_scaled_away_go_with_it_first() {
    let (mut pods, mut revisions) = (Vec::new(), Vec::new());
    let mut s = set(2, "v1", "OrderedReady");
    settle(&mut s, &mut pods, &mut revisions);
    s.set(&["spec", "replicas"], 1);
    s.set(
        &["spec", "persistentVolumeClaimRetentionPolicy"],
        object!({"whenDeleted": "Retain", "whenScaled": "Delete"}),
    );
    let view = View { set: &s, pods: &pods, revisions: &revisions, claim_named: &|n| Some(claim(n)) };
    let actions = plan(&view, Timestamp::from_second(100).unwrap());
    let told: Vec<String> = actions
        .iter()
        .filter_map(|a| match a {
            Action::Patch(r, of, _, _, patch) if r.kind == "PersistentVolumeClaim" => {
                let owner = patch.array_at(&["metadata", "ownerReferences"])[0].str_at(&["name"]);
                Some(format!("{} goes with {owner}", of.name()))
            }
            Action::Delete(_, of, ..) => Some(format!("-{}", of.name())),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["data-db-1 goes with db-1", "-db-1"]);
}
