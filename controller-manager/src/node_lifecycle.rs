//! Nodes that fall silent: their conditions become `Unknown`, they get taints, and their pods are marked not ready.
//!
//! What follows from one node alone is done whenever it changes, here. What depends on time and on the other nodes is a task
//! of its own, the [`monitor`]: who is silent, and who is evicted by a `NoExecute` taint. Those that have one when this
//! program starts keep it, unless no node is ready.

use std::sync::Arc;

use api::{Value, object, time};
use client::events::Kind;
use client::resource::{NODES, PODS};
use client::{Key, Next, Patch, Queue};
use jiff::Timestamp;

use crate::act::{Action, head};
use crate::context::Context;
use crate::informers::BY_NODE;
use crate::objects::is_ready;

mod evictions;
mod health;
mod line;
mod metrics;
mod monitor;
mod taints;
mod zones;

use monitor::Monitor;

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
    cx.work(queue, 4, &[nodes, pods], reconcile);
    let (monitor, caches, stop) =
        (Monitor::new(cx.clone()), [nodes.clone(), leases.clone()], cx.tasks.token());
    cx.tasks.critical(cx.name, async move {
        let watch = async {
            for cache in &caches {
                cache.synced().await;
            }
            monitor.run().await;
        };
        tokio::select! {
            () = watch => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    });
}

async fn reconcile(cx: Context, key: Key) -> anyhow::Result<Next> {
    let Some(node) = cx.informers.nodes().store().get(&key) else { return Ok(Next::Done) };
    let pods = cx.informers.pods().store().by_index(BY_NODE, key.name());
    cx.apply(plan(&node, &pods, cx.now())).await
}

fn plan(node: &Value, pods: &[Arc<Value>], now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    if let Some(taints) = taints::settled(node, now) {
        actions.push(taints::patch(node, taints));
    }
    actions.extend(labels(node));
    // While a kubelet speaks, it knows better which of its pods are ready.
    if taints::ready(node) == "Unknown" {
        actions.extend(pods.iter().filter(|p| is_ready(p)).flat_map(|p| not_ready(p, now)));
    }
    actions
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
mod tests;
