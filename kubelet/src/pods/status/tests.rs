use api::object;

use super::super::observed::{Container, Given, Sandbox, State};
use super::*;

const NOW: &str = "2026-01-02T03:04:05Z";

fn container(name: &str, state: State, exit_code: i32) -> Container {
    Container {
        state,
        created: 1_000_000_000,
        started: 1_000_000_000,
        finished: if state == State::Exited { 2_000_000_000 } else { 0 },
        exit_code,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
        image: "x".to_owned(),
        image_ref: "sha256:1".to_owned(),
        ..Container::named(name)
    }
}

#[test]
fn a_pod_that_starts_over_runs_on_and_counts_it_once() {
    let rule = object!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}});
    let mut pod = object!({
        "metadata": {"name": "p", "namespace": "d", "uid": "u"},
        "spec": {"restartPolicy": "Never", "containers": [
            {"name": "m", "image": "x"},
            {"name": "w", "image": "x", "restartPolicy": "Never", "restartPolicyRules": [(rule)]},
        ]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Initialized", "status": "True", "lastTransitionTime": NOW}],
            "containerStatuses": [
                {"name": "m", "state": {"running": {}}, "restartCount": 0, "containerID": "containerd://m"},
                {"name": "w", "state": {"running": {}}, "restartCount": 0, "containerID": "containerd://w"},
            ],
        },
    });
    let ended = Container { state: State::Exited, exit_code: 88, ..Container::named("w") };
    let running = Container { state: State::Running, ..Container::named("m") };
    let condition = |status: &Value| {
        let all = status.array_at(&["conditions"]);
        let found = all.iter().find(|condition| condition.str_at(&["type"]) == "AllContainersRestarting");
        found.map(|found| found.str_at(&["status"]).to_owned())
    };
    let shown = status(&pod, vec![ended, running], false);
    assert_eq!((shown.str_at(&["phase"]), condition(&shown).as_deref()), ("Running", Some("True")));
    pod.set(&["status"], shown);
    // Then all of them are gone; what is reported now stays until each of them runs again.
    for _ in 0..2 {
        let now = status(&pod, Vec::new(), false);
        assert_eq!((now.str_at(&["phase"]), condition(&now).as_deref()), ("Running", Some("False")));
        for shown in now.array_at(&["containerStatuses"]) {
            assert_eq!(shown.str_at(&["state", "waiting", "reason"]), RESTARTING_ALL);
            assert_eq!(shown.at(&["lastState", "terminated", "exitCode"]).as_i64(), Some(137));
            assert_eq!(shown.get("restartCount").as_i64(), Some(1));
        }
        pod.set(&["status"], now);
    }
}

fn pod(policy: &str) -> Value {
    object!({
        "metadata": {"name": "p", "generation": 1},
        "spec": {
            "restartPolicy": policy,
            "initContainers": [{"name": "i", "image": "x"}],
            "containers": [{"name": "m", "image": "x"}],
        },
    })
}

fn status(pod: &Value, containers: Vec<Container>, ending: bool) -> Value {
    let ips = vec!["10.42.0.2".to_owned()];
    let sandbox =
        Sandbox { id: "s".to_owned(), ready: true, attempt: 0, created: 1, ips, host_network: false };
    let observed = Observed { sandboxes: vec![sandbox], containers };
    let mut verdicts = Verdicts::default();
    for container in observed.running() {
        verdicts.started.insert(container.id.clone(), true);
        verdicts.ready.insert(container.id.clone(), true);
    }
    generate(&Context {
        pod,
        observed: &observed,
        verdicts: &verdicts,
        waiting: &|_| None,
        verdict: None,
        disruption: None,
        ending,
        resize: &Conditions::default(),
        devices: &|_| Vec::new(),
        recursive_read_only: false,
        limits: &Limits::default,
        host_ips: &["192.0.2.1".to_owned()],
        now: NOW,
    })
}

fn condition<'s>(status: &'s Value, kind: &str) -> &'s Value {
    status.array_at(&["conditions"]).iter().find(|c| c.str_at(&["type"]) == kind).unwrap()
}

#[test]
fn the_phase_follows_the_containers() {
    use State::{Exited, Running};
    for (policy, containers, ending, phase) in [
        ("Always", vec![], false, "Pending"),
        ("Always", vec![container("i", Running, 0)], false, "Pending"),
        ("Always", vec![container("i", Exited, 0), container("m", Running, 0)], false, "Running"),
        ("Always", vec![container("i", Exited, 0), container("m", Exited, 1)], false, "Running"),
        ("Always", vec![container("i", Exited, 0), container("m", Exited, 137)], true, "Failed"),
        ("Always", vec![container("i", Exited, 0), container("m", Exited, 0)], true, "Succeeded"),
        ("Never", vec![container("i", Exited, 1)], false, "Failed"),
        ("Never", vec![container("i", Exited, 0), container("m", Exited, 0)], false, "Succeeded"),
        ("Never", vec![container("i", Exited, 0), container("m", Exited, 2)], false, "Failed"),
        ("OnFailure", vec![container("i", Exited, 0), container("m", Exited, 2)], false, "Running"),
        ("OnFailure", vec![container("i", Exited, 0), container("m", Exited, 0)], false, "Succeeded"),
    ] {
        let status = status(&pod(policy), containers.clone(), ending);
        assert_eq!(status.str_at(&["phase"]), phase, "{policy} {containers:?}");
    }
}

#[test]
fn a_pod_ends_with_the_last_of_its_containers() {
    use State::{Exited, Running};
    let mut pod = pod("Never");
    pod.set(
        &["spec", "initContainers"],
        vec![object!({"name": "i", "image": "x", "restartPolicy": "Always"})],
    );
    for (sidecar, code, before, phase) in [
        (Running, 0, "Running", "Running"),
        (Running, 2, "Running", "Running"),
        (Running, 0, "", "Pending"),
        (Running, 0, "Succeeded", "Succeeded"),
        (Exited, 0, "Running", "Succeeded"),
        (Exited, 2, "Running", "Failed"),
    ] {
        pod.set(&["status", "phase"], before);
        let status = status(&pod, vec![container("i", sidecar, 0), container("m", Exited, code)], false);
        assert_eq!(status.str_at(&["phase"]), phase, "{sidecar:?} {code} {before}");
    }
}

#[test]
fn a_running_pod_is_ready() {
    let status = status(
        &pod("Always"),
        vec![container("m", State::Running, 0), container("i", State::Exited, 0)],
        false,
    );
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&status, kind).str_at(&["status"]), "True", "{kind}");
    }
    let main = &status.array_at(&["containerStatuses"])[0];
    assert_eq!(main.get("ready"), &Value::Bool(true));
    assert_eq!(main.str_at(&["containerID"]), "containerd://id-m");
    assert_eq!(main.str_at(&["state", "running", "startedAt"]), "1970-01-01T00:00:01Z");
    assert_eq!(status.str_at(&["podIP"]), "10.42.0.2");
    assert_eq!(status.str_at(&["hostIP"]), "192.0.2.1");
}

#[test]
fn what_is_not_ready_is_named() {
    let status = status(&pod("Always"), vec![container("i", State::Running, 0)], false);
    let initialized = condition(&status, "Initialized");
    assert_eq!(initialized.str_at(&["reason"]), "ContainersNotInitialized");
    assert_eq!(initialized.str_at(&["message"]), "containers with incomplete status: [i]");
    let ready = condition(&status, "Ready");
    assert_eq!(ready.str_at(&["message"]), "containers with unready status: [m]");
    let main = &status.array_at(&["containerStatuses"])[0];
    assert_eq!(main.str_at(&["state", "waiting", "reason"]), "PodInitializing");
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let mut pod = pod("Always");
    let old = object!({"conditions": [
        {"type": "Initialized", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        {"type": "example.com/gate", "status": "True"},
    ]});
    pod.set(&["status"], old);
    let status = status(&pod, vec![container("i", State::Running, 0)], false);
    assert_eq!(condition(&status, "Initialized").str_at(&["lastTransitionTime"]), "2020-01-01T00:00:00Z");
    assert_eq!(condition(&status, "Ready").str_at(&["lastTransitionTime"]), NOW);
    assert_eq!(condition(&status, "example.com/gate").str_at(&["status"]), "True");
}

#[test]
fn a_pod_that_was_turned_away_shows_the_reason_only() {
    let verdict = ("OutOfcpu".to_owned(), "Pod was rejected: no room".to_owned());
    let status = generate(&Context {
        pod: &pod("Always"),
        observed: &Observed::default(),
        verdicts: &Verdicts::default(),
        waiting: &|_| None,
        verdict: Some(&verdict),
        disruption: None,
        ending: false,
        resize: &Conditions::default(),
        devices: &|_| Vec::new(),
        recursive_read_only: false,
        limits: &Limits::default,
        host_ips: &[],
        now: NOW,
    });
    assert_eq!((status.str_at(&["phase"]), status.str_at(&["reason"])), ("Failed", "OutOfcpu"));
    assert!(status.get("containerStatuses").is_null() && status.get("conditions").is_null());
}

#[test]
fn resources_are_shown_as_given_and_as_they_are_in_effect() {
    let mut pod = pod("Always");
    let resources =
        object!({"requests": {"cpu": "2m", "memory": "64Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}});
    let main = object!({"name": "m", "image": "x", "resources": (resources.clone())});
    pod.set(&["spec", "containers"], Value::Array(vec![main]));
    let mut running = container("m", State::Running, 0);
    running.resources =
        Given { cpu_request: Some(2), cpu_limit: Some(50), memory_limit: Some(32 << 20), ..Given::default() };
    let all = vec![running.clone(), container("i", State::Exited, 0)];
    let now = status(&pod, all.clone(), false);
    let shown = &now.array_at(&["containerStatuses"])[0];
    let in_effect =
        object!({"requests": {"cpu": "2m", "memory": "64Mi"}, "limits": {"cpu": "50m", "memory": "32Mi"}});
    assert_eq!(shown.get("resources"), &in_effect);
    assert_eq!(shown.get("allocatedResources"), resources.get("requests"));
    assert_eq!(now.get("allocatedResources"), resources.get("requests"));
    assert_eq!(
        now.get("resources"),
        &object!({"requests": (resources.get("requests")), "limits": (resources.get("limits"))})
    );
    pod.set(&["status"], now);
    let mut silent = running;
    silent.resources = Given::default();
    let later = status(&pod, vec![silent, container("i", State::Exited, 0)], false);
    assert_eq!(later.array_at(&["containerStatuses"])[0].get("resources"), &in_effect);
}

#[test]
fn a_pod_that_was_made_to_go_has_failed_when_nothing_of_it_runs_any_more() {
    let verdict = ("Evicted".to_owned(), "The node was low on resource: memory. ".to_owned());
    for (state, phase, reason) in [(State::Running, "Running", ""), (State::Exited, "Failed", "Evicted")] {
        let mut pod = pod("Always");
        pod.set(&["status", "phase"], "Running");
        let containers = vec![container("m", state, 137), container("i", State::Exited, 0)];
        let ips = vec!["10.42.0.2".to_owned()];
        let sandbox =
            Sandbox { id: "s".to_owned(), ready: true, attempt: 0, created: 1, ips, host_network: false };
        let status = generate(&Context {
            pod: &pod,
            observed: &Observed { sandboxes: vec![sandbox], containers },
            verdicts: &Verdicts::default(),
            waiting: &|_| None,
            verdict: Some(&verdict),
            disruption: Some(&verdict.1),
            ending: state == State::Exited,
            resize: &Conditions::default(),
            devices: &|_| Vec::new(),
            recursive_read_only: false,
            limits: &Limits::default,
            host_ips: &[],
            now: NOW,
        });
        assert_eq!((status.str_at(&["phase"]), status.str_at(&["reason"])), (phase, reason));
        assert_eq!(condition(&status, "DisruptionTarget").str_at(&["reason"]), "TerminationByKubelet");
    }
}
