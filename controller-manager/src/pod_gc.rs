//! Pods that nobody else will clear away: ended ones beyond a limit, those of nodes that are gone, and those that were deleted
//! before they had a node.

use std::sync::Arc;
use std::time::Duration;

use api::{Value, object, time};
use client::resource::{NODES, PODS};
use client::{DeleteOptions, Key, Next, Patch, Queue};
use jiff::Timestamp;

use crate::act::{Action, head};
use crate::context::Context;
use crate::objects::{created, is_finished};

const EVERY: Duration = Duration::from_secs(20);
/// The one key: all pods are looked at together.
const ALL: &str = "all";

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let (pods, nodes) = (cx.informers.pods(), cx.informers.nodes());
    queue.add(Key::new("", ALL));
    let gone = queue.clone();
    nodes.on_change(move |change| {
        if matches!(change, client::Change::Deleted(_)) {
            // A node that is only being replaced is back by then.
            gone.add_after(Key::new("", ALL), EVERY * 2);
        }
    });
    let unassigned = queue.clone();
    pods.on_change(move |change| {
        let pod = change.object();
        if pod.is_terminating() && pod.str_at(&["spec", "nodeName"]).is_empty() {
            unassigned.add(Key::new("", ALL));
        }
        if is_finished(pod) {
            unassigned.add_after(Key::new("", ALL), EVERY);
        }
    });
    cx.work(queue, 1, &[pods, nodes], |cx, _| reconcile(cx));
}

async fn reconcile(cx: Context) -> anyhow::Result<Next> {
    let pods = cx.informers.pods().store().list();
    let nodes = cx.informers.nodes().store();
    let mut orphaned = Vec::new();
    for pod in &pods {
        let node = pod.str_at(&["spec", "nodeName"]);
        // The cache may be behind: only the API server knows that a node is gone.
        if !node.is_empty()
            && nodes.find("", node).is_none()
            && cx.client.get_opt(&NODES, "", node).await?.is_none()
        {
            orphaned.push(Arc::clone(pod));
        }
    }
    let mut actions = surplus(&pods, cx.config.terminated_pod_gc_threshold);
    for pod in &orphaned {
        actions.extend(orphan(pod, cx.now()));
    }
    let stuck = pods.iter().filter(|p| p.is_terminating() && p.str_at(&["spec", "nodeName"]).is_empty());
    actions.extend(stuck.map(|p| force(p)));
    cx.apply(actions).await
}

fn force(pod: &Value) -> Action {
    let options = DeleteOptions { grace_period: Some(0), ..DeleteOptions::uid(pod.uid()) };
    Action::Delete(PODS, head(pod), options, None)
}

/// A pod whose node is gone has failed, whatever it says.
fn orphan(pod: &Value, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    if !is_finished(pod) {
        let patch = object!({"status": {"phase": "Failed", "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "lastTransitionTime": (time::format(now)),
        }]}});
        actions.push(Action::Patch(PODS, head(pod), "status", Patch::Strategic, patch));
    }
    actions.push(force(pod));
    actions
}

/// Ended pods beyond the threshold, the oldest first.
fn surplus(pods: &[Arc<Value>], threshold: usize) -> Vec<Action> {
    let mut ended: Vec<_> = pods.iter().filter(|p| is_finished(p) && !p.is_terminating()).collect();
    if threshold == 0 || ended.len() <= threshold {
        return Vec::new();
    }
    ended.sort_by_key(|p| created(p));
    let too_many = ended.len() - threshold;
    ended.into_iter().take(too_many).map(|p| force(p)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ended_pods_go_first() {
        let pod = |name: &str, day: u8| {
            let stamp = format!("2026-01-0{day}T00:00:00Z");
            Arc::new(object!({
                "metadata": {"name": name, "creationTimestamp": stamp}, "status": {"phase": "Succeeded"},
            }))
        };
        let pods = [pod("young", 3), pod("old", 1), pod("middle", 2)];
        let [Action::Delete(_, gone, ..)] = &surplus(&pods, 2)[..] else { panic!() };
        assert_eq!(gone.name(), "old");
        assert!(surplus(&pods, 0).is_empty());
    }
}
