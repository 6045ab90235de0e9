//! ReplicaSets and ReplicationControllers: as many pods of a template as asked for.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use api::selector::LabelSelector;
use api::{Value, object};
use client::resource::{PODS, REPLICA_SETS, REPLICATION_CONTROLLERS};
use client::{DeleteOptions, Informer, Key, Next, Queue, Resource};
use jiff::Timestamp;

use crate::act::{Action, Note, head};
use crate::claim::{adopt, release};
use crate::context::Context;
use crate::informers::BY_OWNER;
use crate::objects::{
    Condition, condition, controller_of, created, int, is_active, is_ready, phase, pod_from_template,
    set_condition, time_at, until_available,
};

/// Pods created by one look at most; the next look makes the rest.
const BURST: usize = 500;

pub(crate) fn start(cx: &Context) {
    start_kind(cx, REPLICA_SETS, cx.informers.replica_sets(), cx.config.workers.replicaset);
}

/// ReplicationControllers: the same in an older form.
pub(crate) fn start_controllers(cx: &Context) {
    let workers = cx.config.workers.replication_controller;
    start_kind(cx, REPLICATION_CONTROLLERS, cx.informers.replication_controllers(), workers);
}

fn start_kind(cx: &Context, resource: Resource, sets: &Informer<Value>, workers: usize) {
    let queue = Queue::new();
    let pods = cx.informers.pods();
    Context::follow(sets, &queue);
    let kind = if resource == REPLICA_SETS { "ReplicaSet" } else { "ReplicationController" };
    Context::follow_owned(pods, kind, &queue);
    let (orphans, store) = (queue.clone(), sets.clone());
    pods.on_change(move |change| {
        let pod = change.object();
        if controller_of(pod).is_some() || pod.at(&["metadata", "labels"]).is_empty() {
            return;
        }
        for set in store.store().in_namespace(pod.namespace()) {
            if selector(&set).is_some_and(|s| s.matches_object(pod)) {
                orphans.add(Key::of(&set));
            }
        }
    });
    let cache = sets.clone();
    cx.work(queue, workers, &[sets, pods], move |cx, key| reconcile(cx, cache.clone(), key));
}

/// The labels a set selects: of a ReplicationController they are a plain map.
fn selector(set: &Value) -> Option<LabelSelector> {
    let found = set.at(&["spec", "selector"]);
    let parsed = if is_controller(set) {
        Some(LabelSelector::from_map(found))
    } else {
        LabelSelector::from_object(found).ok().flatten()
    };
    parsed.filter(|s| !s.is_everything())
}

fn is_controller(set: &Value) -> bool {
    set.kind() == "ReplicationController"
}

async fn reconcile(cx: Context, sets: Informer<Value>, key: Key) -> anyhow::Result<Next> {
    let Some(set) = sets.store().get(&key) else { return Ok(Next::Done) };
    let pods = candidates(&cx, &set);
    let owner_ranks = siblings_on_nodes(&cx, &set, &pods);
    let actions = plan(sets.resource(), &set, &pods, &owner_ranks, cx.now());
    let failed = match cx.apply(actions).await {
        Ok(next) => return Ok(next),
        Err(e) => e,
    };
    // The failure shows in the status before it is retried.
    let text = failed.to_string();
    let (pods, now) = (candidates(&cx, &set), cx.now());
    if let Some(status) = status(&set, &pods, Some(&text), now) {
        cx.apply(vec![Action::UpdateStatus(sets.resource().clone(), status)]).await?;
    }
    Err(failed)
}

/// The pods the set owns, and those without a controller that it might adopt.
fn candidates(cx: &Context, set: &Value) -> Vec<Arc<Value>> {
    let store = cx.informers.pods().store();
    let mut pods = store.by_index(BY_OWNER, set.uid());
    if let Some(selector) = selector(set) {
        let orphans = store.in_namespace(set.namespace()).into_iter();
        pods.extend(
            orphans.filter(|p| controller_of(p).is_none() && is_active(p) && selector.matches_object(p)),
        );
    }
    pods
}

/// For each pod, how many ready pods of the same Deployment run on its node: crowded nodes lose theirs first.
fn siblings_on_nodes(cx: &Context, set: &Value, pods: &[Arc<Value>]) -> Vec<usize> {
    let Some(owner) = controller_of(set) else { return vec![0; pods.len()] };
    let sets = cx.informers.replica_sets().store().by_index(BY_OWNER, owner.str_at(&["uid"]));
    let store = cx.informers.pods().store();
    let all: Vec<_> = sets.iter().flat_map(|s| store.by_index(BY_OWNER, s.uid())).collect();
    let node = |p: &Value| p.str_at(&["spec", "nodeName"]).to_owned();
    let crowd = |pod: &Value| all.iter().filter(|p| is_active(p) && node(p) == node(pod)).count();
    pods.iter().map(|p| if node(p).is_empty() { 0 } else { crowd(p) }).collect()
}

fn plan(
    resource: &Resource,
    set: &Value,
    pods: &[Arc<Value>],
    crowds: &[usize],
    now: Timestamp,
) -> Vec<Action> {
    let Some(selector) = selector(set) else { return Vec::new() };
    let mut actions = Vec::new();
    let mut owned: Vec<(&Value, usize)> = Vec::new();
    for (pod, crowd) in pods.iter().zip(crowds) {
        let (ours, fits) = (controller_of(pod).is_some(), selector.matches_object(pod));
        match (ours, fits) {
            (true, true) if is_active(pod) => owned.push((pod, *crowd)),
            (true, false) if !pod.is_terminating() && !set.is_terminating() => {
                actions.push(release(PODS, set, pod));
            }
            (false, true) if !set.is_terminating() => {
                actions.push(adopt(PODS, set, pod));
                owned.push((pod, *crowd));
            }
            _ => {}
        }
    }
    if !set.is_terminating() {
        actions.extend(scale(set, owned, now));
    }
    if actions.is_empty() {
        if let Some(status) = status(set, pods, None, now) {
            actions.push(Action::UpdateStatus(resource.clone(), status));
        }
        actions.extend(next_available(set, pods, now));
    }
    actions
}

fn wanted(set: &Value) -> usize {
    usize::try_from(int(set, &["spec", "replicas"], 1)).unwrap_or(0)
}

/// Creates what is missing, deletes what is too many.
fn scale(set: &Value, mut owned: Vec<(&Value, usize)>, now: Timestamp) -> Vec<Action> {
    let wanted = wanted(set);
    if owned.len() < wanted {
        let pod = pod_from_template(set.at(&["spec", "template"]), set, set.name());
        let missing = (wanted - owned.len()).min(BURST);
        return (0..missing)
            .map(|_| Action::Create(PODS, pod.clone(), Some(Note::pod_created(set))))
            .collect();
    }
    let surplus = (owned.len() - wanted).min(BURST);
    owned.sort_by_cached_key(|(pod, crowd)| keep_rank(pod, *crowd, now));
    let doomed = owned.into_iter().take(surplus);
    let delete = |pod: &Value| {
        let options = DeleteOptions::uid(pod.uid());
        Action::Delete(PODS, head(pod), options, Some(Note::pod_deleted(set)))
    };
    doomed.map(|(pod, _)| delete(pod)).collect()
}

type Rank = (bool, u8, bool, i64, Reverse<usize>, Reverse<i64>, Reverse<i64>, Reverse<Timestamp>);

/// Pods with a lower rank go first: unassigned, pending, not ready, cheap to delete, on crowded nodes, ready for a shorter time (by
/// magnitudes), restarted more often, younger.
fn keep_rank(pod: &Value, crowd: usize, now: Timestamp) -> Rank {
    let running = match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = pod.annotation("controller.kubernetes.io/pod-deletion-cost");
    let cost = cost.and_then(|c| c.parse().ok()).unwrap_or(0);
    let ready_for = if is_ready(pod) {
        let since = time_at(condition(pod, "Ready"), &["lastTransitionTime"]);
        since.map_or(0, |t| (now.as_second() - t.as_second()).max(1).ilog2()).into()
    } else {
        0
    };
    let restarts: i64 =
        pod.array_at(&["status", "containerStatuses"]).iter().map(|s| int(s, &["restartCount"], 0)).sum();
    (
        !pod.str_at(&["spec", "nodeName"]).is_empty(),
        running,
        is_ready(pod),
        cost,
        Reverse(crowd),
        Reverse(-ready_for),
        Reverse(restarts),
        Reverse(created(pod)),
    )
}

/// The set with its new status, if that differs.
fn status(set: &Value, pods: &[Arc<Value>], failure: Option<&str>, now: Timestamp) -> Option<Value> {
    let min_ready = int(set, &["spec", "minReadySeconds"], 0);
    let labels = LabelSelector::from_map(set.at(&["spec", "template", "metadata", "labels"]));
    let mine = |p: &&Arc<Value>| controller_of(p).is_some_and(|o| o.str_at(&["uid"]) == set.uid());
    let owned: Vec<_> = pods.iter().filter(mine).collect();
    let active: Vec<_> = owned.iter().filter(|p| is_active(p)).collect();
    let terminating = owned.iter().filter(|p| p.is_terminating() && !crate::objects::is_finished(p)).count();
    let count = |test: &dyn Fn(&Value) -> bool| active.iter().filter(|p| test(p)).count();
    let mut conditions = set.array_at(&["status", "conditions"]).to_vec();
    match failure {
        Some(message) => {
            let reason = if active.len() < wanted(set) { "FailedCreate" } else { "FailedDelete" };
            // The first message stays: the next one is the same but for a pod's name, and a status that changes is looked
            // at again at once, without any back-off.
            let told = condition(set, "ReplicaFailure");
            if (told.str_at(&["status"]), told.str_at(&["reason"])) != ("True", reason) {
                let c = Condition { kind: "ReplicaFailure", status: "True", reason, message };
                set_condition(&mut conditions, now, &c);
            }
        }
        None => conditions.retain(|c| c.str_at(&["type"]) != "ReplicaFailure"),
    }
    let mut status = object!({
        "replicas": (active.len()),
        "fullyLabeledReplicas": (count(&|p| labels.matches_object(p))),
        "readyReplicas": (count(&is_ready)),
        "availableReplicas": (count(&|p| until_available(p, min_ready, now) == Some(0))),
        "terminatingReplicas": terminating,
        "observedGeneration": (set.at(&["metadata", "generation"])),
        "conditions": conditions,
    });
    if let Value::Object(map) = &mut status {
        let older = is_controller(set);
        map.retain(|k, v| match k {
            "replicas" => true,
            "terminatingReplicas" => !older,
            _ => !v.is_empty(),
        });
    }
    if &status == set.get("status") {
        return None;
    }
    let mut updated = set.clone();
    updated.set(&["status"], status);
    Some(updated)
}

/// A ready pod becomes available by time alone.
fn next_available(set: &Value, pods: &[Arc<Value>], now: Timestamp) -> Option<Action> {
    let min_ready = int(set, &["spec", "minReadySeconds"], 0);
    let waits = pods.iter().filter(|p| is_active(p)).filter_map(|p| until_available(p, min_ready, now));
    let soonest = waits.filter(|w| *w > 0).min()?;
    Some(Action::Later(Duration::from_secs(u64::try_from(soonest).unwrap_or(1))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::owner_reference;

    fn set(replicas: i64) -> Value {
        object!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"namespace": "d", "name": "s", "uid": "u", "generation": 1},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {}},
            },
        })
    }

    fn pod(name: &str, ready: bool, label: &str) -> Arc<Value> {
        let status = if ready { "True" } else { "False" };
        Arc::new(object!({
            "metadata": {
                "namespace": "d", "name": name, "uid": name, "labels": {"a": label},
                "ownerReferences": [(owner_reference(&set(1)))],
            },
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]},
        }))
    }

    fn run(set: &Value, pods: &[Arc<Value>]) -> Vec<Action> {
        plan(&REPLICA_SETS, set, pods, &vec![0; pods.len()], Timestamp::from_second(1000).unwrap())
    }

    #[test]
    fn missing_pods_are_created() {
        let actions = run(&set(3), &[pod("x", true, "b")]);
        assert_eq!(actions.len(), 2);
        let Action::Create(_, pod, _) = &actions[0] else { panic!("{actions:?}") };
        assert_eq!(pod.str_at(&["metadata", "generateName"]), "s-");
        assert_eq!(controller_of(pod).unwrap().str_at(&["uid"]), "u");
    }

    #[test]
    fn of_too_many_the_unready_go_first() {
        let actions = run(&set(1), &[pod("x", true, "b"), pod("y", false, "b")]);
        let [Action::Delete(_, gone, ..)] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(gone.name(), "y");
    }

    #[test]
    fn replication_controllers_select_by_a_plain_map() {
        let mut old = set(2);
        old.set(&["apiVersion"], "v1");
        old.set(&["kind"], "ReplicationController");
        old.set(&["spec", "selector"], object!({"a": "b"}));
        let pods = [pod("x", true, "b")];
        let actions = run(&old, &pods);
        let [Action::Create(_, made, _)] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(controller_of(made).unwrap().kind(), "ReplicationController");
        let pods = [pod("x", true, "b"), pod("y", true, "b")];
        let [Action::UpdateStatus(_, updated)] = &run(&old, &pods)[..] else { panic!() };
        assert_eq!(int(updated, &["status", "readyReplicas"], 0), 2);
        assert!(updated.at(&["status", "terminatingReplicas"]).is_null());
    }

    #[test]
    fn pods_that_no_longer_fit_are_released_and_replaced() {
        let actions = run(&set(1), &[pod("x", true, "c")]);
        assert!(matches!(actions[..], [Action::Patch(..), Action::Create(..)]), "{actions:?}");
    }

    #[test]
    fn the_status_counts_and_settles() {
        let pods = [pod("x", true, "b"), pod("y", false, "b")];
        let actions = run(&set(2), &pods);
        let [Action::UpdateStatus(_, updated)] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(int(updated, &["status", "replicas"], 0), 2);
        assert_eq!(int(updated, &["status", "readyReplicas"], 0), 1);
        assert!(run(updated, &pods).is_empty());
    }

    #[test]
    fn a_failure_is_told_once() {
        let now = Timestamp::from_second(1000).unwrap();
        let reason = |set: &Value| condition(set, "ReplicaFailure").str_at(&["reason"]).to_owned();
        let pods = [pod("x", true, "b")];
        let told = status(&set(2), &pods, Some("s-abcde is forbidden"), now).unwrap();
        assert_eq!(reason(&told), "FailedCreate");
        assert_eq!(status(&told, &pods, Some("s-fghij is forbidden"), now), None);
        assert_eq!(reason(&status(&set(0), &pods, Some("no"), now).unwrap()), "FailedDelete");
        assert_eq!(reason(&status(&told, &pods, None, now).unwrap()), "");
    }
}
