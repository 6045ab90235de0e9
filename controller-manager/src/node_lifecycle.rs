//! Nodes that fall silent: their conditions become `Unknown`, they get taints, and their pods are marked not ready.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Value, object, time};
use client::events::Kind;
use client::resource::{NODES, PODS};
use client::{Key, Next, Patch, Queue};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::act::{Action, head};
use crate::context::Context;
use crate::informers::BY_NODE;
use crate::objects::{condition, created, is_ready};

const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep new pods away while they hold.
const PRESSURES: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// When each node was last heard of, by our own clock.
type Heard = Arc<Mutex<HashMap<String, (Beat, Instant)>>>;

/// What a node renews: its lease, and its status.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Beat {
    lease: String,
    status: String,
}

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let (nodes, pods, leases) = (cx.informers.nodes(), cx.informers.pods(), cx.informers.leases());
    Context::follow(nodes, &queue);
    let changed = queue.clone();
    pods.on_change(move |change| {
        // A pod bound to a silent node must be marked too.
        let node = change.object().str_at(&["spec", "nodeName"]);
        if change.old().is_none_or(|o| o.str_at(&["spec", "nodeName"]) != node) && !node.is_empty() {
            changed.add(Key::new("", node));
        }
    });
    let heard: Heard = Heard::default();
    cx.work(queue, 4, &[nodes, pods, leases], move |cx, key| reconcile(cx, Arc::clone(&heard), key));
}

async fn reconcile(cx: Context, heard: Heard, key: Key) -> anyhow::Result<Next> {
    let Some(node) = cx.informers.nodes().store().get(&key) else {
        heard.lock().remove(key.name());
        return Ok(Next::Done);
    };
    let silent = silence(&cx, &heard, &node);
    let pods = cx.informers.pods().store().by_index(BY_NODE, key.name());
    let grace = if condition(&node, "Ready").is_null() {
        cx.config.node_startup_grace_period
    } else {
        cx.config.node_monitor_grace_period
    };
    let actions = plan(&node, &pods, silent > grace, cx.now());
    cx.apply(actions).await?;
    Ok(Next::After(cx.config.node_monitor_period))
}

/// How long the node has not been heard of.
fn silence(cx: &Context, heard: &Heard, node: &Value) -> Duration {
    let lease = cx.informers.leases().store().find(LEASES, node.name());
    let beat = Beat {
        lease: lease.map(|l| l.str_at(&["spec", "renewTime"]).to_owned()).unwrap_or_default(),
        status: condition(node, "Ready").str_at(&["lastHeartbeatTime"]).to_owned(),
    };
    let mut heard = heard.lock();
    let entry = heard.entry(node.name().to_owned()).or_insert_with(|| (beat.clone(), Instant::now()));
    if entry.0 != beat {
        *entry = (beat, Instant::now());
    }
    entry.1.elapsed()
}

fn plan(node: &Value, pods: &[Arc<Value>], silent: bool, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut seen = node.clone();
    if silent && let Some(updated) = gone_silent(node, now) {
        let patch = object!({"status": {"conditions": (updated.at(&["status", "conditions"]))}});
        actions.push(Action::Patch(NODES, head(node), "status", Patch::Strategic, patch));
        if condition(node, "Ready").str_at(&["status"]) != "Unknown" {
            let text = format!("Node {} status is now: NodeNotReady", node.name());
            actions.push(Action::Event(head(node), Kind::Normal, "NodeNotReady", text));
        }
        seen = updated;
    }
    if let Some(taints) = taints(&seen, now) {
        let patch = object!({
            "metadata": {"resourceVersion": (node.resource_version())},
            "spec": {"taints": taints},
        });
        // A status patch before this one has changed the revision: then this is tried again.
        actions.push(Action::Patch(NODES, head(node), "", Patch::Merge, patch));
    }
    actions.extend(labels(node));
    if condition(&seen, "Ready").str_at(&["status"]) != "True" && !condition(&seen, "Ready").is_null() {
        actions.extend(pods.iter().filter(|p| is_ready(p)).flat_map(|p| not_ready(p, now)));
    }
    actions
}

/// The node with the conditions of one that is silent; none when it has them already.
fn gone_silent(node: &Value, now: Timestamp) -> Option<Value> {
    let mut conditions = node.array_at(&["status", "conditions"]).to_vec();
    let mut changed = false;
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let stamp = time::format(now);
        match conditions.iter_mut().find(|c| c.str_at(&["type"]) == kind) {
            None => {
                conditions.push(object!({
                    "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                    "message": "Kubelet never posted node status.",
                    "lastHeartbeatTime": (time::format(created(node))), "lastTransitionTime": stamp,
                }));
                changed = true;
            }
            Some(c) if c.str_at(&["status"]) != "Unknown" => {
                c.set(&["status"], "Unknown");
                c.set(&["reason"], "NodeStatusUnknown");
                c.set(&["message"], "Kubelet stopped posting node status.");
                c.set(&["lastTransitionTime"], stamp);
                changed = true;
            }
            Some(_) => {}
        }
    }
    let mut updated = node.clone();
    updated.set(&["status", "conditions"], conditions);
    changed.then_some(updated)
}

/// The taints the node should have, if they are not those it has.
fn taints(node: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let ready = condition(node, "Ready").str_at(&["status"]);
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match ready {
        "True" => {}
        "Unknown" => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        "False" => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        // Nothing posted yet: the taint that came with the node stays.
        _ => wanted.push((NOT_READY, "NoSchedule")),
    }
    for (kind, key) in PRESSURES {
        if condition(node, kind).str_at(&["status"]) == "True" {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.at(&["spec", "unschedulable"]).as_bool() == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let managed = |key: &str| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, k)| *k == key)
    };
    let have = node.array_at(&["spec", "taints"]);
    let is = |t: &Value, (key, effect): &(&str, &str)| {
        t.str_at(&["key"]) == *key && t.str_at(&["effect"]) == *effect
    };
    let mut list: Vec<Value> = have
        .iter()
        .filter(|t| !managed(t.str_at(&["key"])) || wanted.iter().any(|w| is(t, w)))
        .cloned()
        .collect();
    for taint in wanted.iter().filter(|w| !have.iter().any(|t| is(t, w))) {
        list.push(object!({"key": (taint.0), "effect": (taint.1), "timeAdded": (time::format(now))}));
    }
    (list != have).then_some(list)
}

/// The older labels that mirror operating system and architecture.
fn labels(node: &Value) -> Option<Action> {
    let mut missing = api::Map::new();
    for name in ["os", "arch"] {
        let (beta, stable) = (format!("beta.kubernetes.io/{name}"), format!("kubernetes.io/{name}"));
        if let Some(value) = node.label(&stable)
            && node.label(&beta) != Some(value)
        {
            missing.insert(beta, value);
        }
    }
    let patch = object!({"metadata": {"labels": (missing.clone())}});
    (!missing.is_empty()).then(|| Action::merge(NODES, node, patch))
}

/// A pod on a node that is not ready is not ready either.
fn not_ready(pod: &Value, now: Timestamp) -> [Action; 2] {
    let patch = object!({"status": {"conditions": [{
        "type": "Ready", "status": "False", "lastTransitionTime": (time::format(now)),
    }]}});
    [
        Action::Patch(PODS, head(pod), "status", Patch::Strategic, patch),
        Action::Event(head(pod), Kind::Warning, "NodeNotReady", "Node is not ready".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str, taints: &[(&str, &str)]) -> Value {
        let taints: Vec<Value> = taints.iter().map(|(k, e)| object!({"key": (*k), "effect": (*e)})).collect();
        let mut node = object!({
            "metadata": {"name": "n"}, "spec": {"taints": taints},
        });
        if !ready.is_empty() {
            node.set(&["status", "conditions"], object!([{"type": "Ready", "status": ready}]));
        }
        node
    }

    #[test]
    fn taints_follow_the_conditions() {
        let check = |node: Value, want: Option<Vec<&str>>| {
            let got = taints(&node, Timestamp::UNIX_EPOCH);
            let keys = got.map(|l| {
                l.iter()
                    .map(|t| format!("{}:{}", t.str_at(&["key"]), t.str_at(&["effect"])))
                    .collect::<Vec<_>>()
            });
            let want = want.map(|w| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
            assert_eq!(keys, want, "{node}");
        };
        check(node("True", &[]), None);
        check(
            node("True", &[(NOT_READY, "NoSchedule"), ("mine", "NoSchedule")]),
            Some(vec!["mine:NoSchedule"]),
        );
        check(node("", &[(NOT_READY, "NoSchedule")]), None);
        check(
            node("Unknown", &[]),
            Some(vec![
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute",
            ]),
        );
        let mut cordoned = node("True", &[]);
        cordoned.set(&["spec", "unschedulable"], true);
        check(cordoned, Some(vec!["node.kubernetes.io/unschedulable:NoSchedule"]));
    }

    #[test]
    fn a_silent_node_becomes_unknown_once() {
        let now = Timestamp::UNIX_EPOCH;
        let silent = gone_silent(&node("True", &[]), now).unwrap();
        assert_eq!(condition(&silent, "Ready").str_at(&["reason"]), "NodeStatusUnknown");
        assert_eq!(condition(&silent, "DiskPressure").str_at(&["reason"]), "NodeStatusNeverUpdated");
        assert!(gone_silent(&silent, now).is_none());
    }
}
