use super::*;

fn job(spec: Value) -> Value {
    let mut job = object!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"namespace": "d", "name": "j", "uid": "u"},
        "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 6,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        "status": {},
    });
    for (key, value) in spec.as_object().unwrap().iter() {
        job.set(&["spec", key], value);
    }
    job
}

/// Plays the cluster: every pod ends as `outcome` says for its number, until the job ends.
fn play(mut job: Value, outcome: impl Fn(usize) -> &'static str) -> (Value, usize) {
    let mut pods: Vec<Arc<Value>> = Vec::new();
    let (mut made, mut clock) = (0, 1000);
    for _ in 0..100 {
        let actions = plan(&job, &pods, Timestamp::from_second(clock).unwrap());
        for action in actions {
            match action {
                Action::Create(_, mut pod, _) => {
                    let name = format!("p{made}");
                    pod.set(&["metadata", "name"], name.as_str());
                    pod.set(&["metadata", "uid"], name.as_str());
                    let end = time::format(Timestamp::from_second(clock).unwrap());
                    pod.set(&["status"], object!({
                        "phase": (outcome(made)),
                        "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 1, "finishedAt": end}}}],
                    }));
                    made += 1;
                    pods.push(Arc::new(pod));
                }
                Action::Patch(_, of, ..) => {
                    let at = pods.iter().position(|p| p.name() == of.name()).unwrap();
                    let mut pod = (*pods[at]).clone();
                    pod.remove_at(&["metadata", "finalizers"]);
                    pods[at] = Arc::new(pod);
                }
                Action::UpdateStatus(_, updated) => job = updated,
                Action::Delete(_, of, ..) => pods.retain(|p| p.name() != of.name()),
                Action::Later(d) => clock += i64::try_from(d.as_secs()).unwrap(),
                Action::Event(..) => {}
                other @ Action::Update(..) => panic!("{other:?}"),
            }
        }
        if condition_true(&job, "Complete") || condition_true(&job, "Failed") {
            return (job, made);
        }
    }
    panic!("never ends: {job}");
}

#[test]
fn a_job_ends_when_enough_pods_have_succeeded() {
    let (done, made) = play(job(object!({"completions": 3, "parallelism": 2})), |_| "Succeeded");
    assert!(condition_true(&done, "Complete") && condition_true(&done, "SuccessCriteriaMet"));
    assert_eq!((int(&done, &["status", "succeeded"], 0), made), (3, 3));
    assert!(!done.str_at(&["status", "completionTime"]).is_empty());
}

#[test]
fn failures_are_tried_again_up_to_the_limit() {
    let (done, made) = play(job(object!({"backoffLimit": 2})), |_| "Failed");
    assert!(condition_true(&done, "Failed"));
    assert_eq!((int(&done, &["status", "failed"], 0), made), (3, 3));
    let (done, made) =
        play(job(object!({"backoffLimit": 2})), |n| if n < 2 { "Failed" } else { "Succeeded" });
    assert!(condition_true(&done, "Complete"));
    assert_eq!((int(&done, &["status", "failed"], 0), made), (2, 3));
}

#[test]
fn every_index_completes_once() {
    let spec = object!({"completionMode": "Indexed", "completions": 3, "parallelism": 3});
    let (done, made) = play(job(spec), |n| if n == 1 { "Failed" } else { "Succeeded" });
    assert_eq!(done.str_at(&["status", "completedIndexes"]), "0-2");
    assert_eq!(made, 4, "index 1 was tried twice");
}

#[test]
fn every_index_has_a_limit_of_its_own() {
    let spec = object!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimitPerIndex": 1,
        "backoffLimit": 2147483647});
    // The pods of index 1 fail: the second and the fourth.
    let (done, made) = play(job(spec.clone()), |n| if n == 1 || n == 3 { "Failed" } else { "Succeeded" });
    let failed = crate::objects::condition(&done, "Failed");
    assert_eq!(failed.str_at(&["reason"]), "FailedIndexes");
    let status = |field| done.str_at(&["status", field]);
    assert_eq!((status("completedIndexes"), status("failedIndexes"), made), ("0,2", "1", 4));
    assert_eq!((int(&done, &["status", "failed"], 0), int(&done, &["status", "succeeded"], 0)), (2, 2));
    let (done, made) = play(job(spec), |n| if n == 1 { "Failed" } else { "Succeeded" });
    assert!(condition_true(&done, "Complete"));
    assert_eq!((done.str_at(&["status", "failedIndexes"]), made), ("", 4));
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let spec = object!({"completionMode": "Indexed", "completions": 4, "parallelism": 1, "backoffLimitPerIndex": 0,
        "backoffLimit": 2147483647, "maxFailedIndexes": 1});
    let (done, made) = play(job(spec), |_| "Failed");
    let failed = crate::objects::condition(&done, "Failed");
    assert_eq!(failed.str_at(&["reason"]), "MaxFailedIndexesExceeded");
    assert_eq!((done.str_at(&["status", "failedIndexes"]), made), ("0,1", 2));
}

#[test]
fn a_success_policy_ends_the_job_early() {
    let spec = object!({"completionMode": "Indexed", "completions": 5, "parallelism": 1,
        "successPolicy": {"rules": [{"succeededIndexes": "0-3", "succeededCount": 2}]}});
    let (done, made) = play(job(spec), |_| "Succeeded");
    let met = crate::objects::condition(&done, "SuccessCriteriaMet");
    assert_eq!(
        (met.str_at(&["reason"]), met.str_at(&["message"])),
        ("SuccessPolicy", "Matched rules at index 0")
    );
    assert!(condition_true(&done, "Complete"));
    assert_eq!((done.str_at(&["status", "completedIndexes"]), made), ("0,1", 2));
}

#[test]
fn a_pod_that_is_let_go_is_not_tracked_from_the_same_write_on() {
    let job = object!({"kind": "Job", "metadata": {"name": "j", "namespace": "d", "uid": "u"}});
    let pod = object!({"metadata": {"name": "p", "namespace": "d", "uid": "p", "finalizers": [FINALIZER]}});
    let finalizers = ["metadata", "$deleteFromPrimitiveList/finalizers"];
    let mut release = crate::claim::release(PODS, &job, &pod);
    untrack_released(&mut release);
    let mut adopt = crate::claim::adopt(PODS, &job, &pod);
    untrack_released(&mut adopt);
    let patch = |action: &Action| match action {
        Action::Patch(.., patch) => patch.at(&finalizers).clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(patch(&release), Value::from(vec![FINALIZER]));
    assert!(patch(&adopt).is_null());
}
