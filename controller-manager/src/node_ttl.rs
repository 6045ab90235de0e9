//! Nodes are told how long they may believe their copies of Secrets and ConfigMaps: the longer, the more nodes there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::{Value, object};
use client::resource::NODES;
use client::{Change, Key, Next, Patch, Queue};

use crate::act::{Action, head};
use crate::context::Context;

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// A range of cluster sizes and the seconds in it. Neighbours overlap, so that a size at an edge does not flap.
struct Step {
    min: usize,
    max: usize,
    seconds: u32,
}

const STEPS: [Step; 5] = [
    Step { min: 0, max: 100, seconds: 0 },
    Step { min: 90, max: 500, seconds: 15 },
    Step { min: 450, max: 1000, seconds: 30 },
    Step { min: 900, max: 2000, seconds: 60 },
    Step { min: 1800, max: usize::MAX, seconds: 300 },
];

/// The step for a number of nodes, coming from another.
fn step(mut current: usize, nodes: usize) -> usize {
    while nodes > STEPS[current].max {
        current += 1;
    }
    while nodes < STEPS[current].min {
        current -= 1;
    }
    current
}

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let nodes = cx.informers.nodes();
    let current = Arc::new(AtomicUsize::new(0));
    let (changed, store, at) = (queue.clone(), nodes.clone(), Arc::clone(&current));
    nodes.on_change(move |change| {
        changed.add(Key::of(change.object()));
        if matches!(change, Change::Updated(..)) {
            return;
        }
        let before = at.load(Ordering::Relaxed);
        let now = step(before, store.store().len());
        if now != before {
            at.store(now, Ordering::Relaxed);
            store.store().keys().into_iter().for_each(|key| changed.add(key));
        }
    });
    cx.work(queue, 5, &[nodes], move |cx, key| {
        let seconds = STEPS[current.load(Ordering::Relaxed)].seconds;
        async move {
            let Some(node) = cx.informers.nodes().store().get(&key) else { return Ok(Next::Done) };
            cx.apply(plan(&node, seconds).into_iter().collect()).await
        }
    });
}

fn plan(node: &Value, seconds: u32) -> Option<Action> {
    if node.annotation(ANNOTATION).and_then(|t| t.parse().ok()) == Some(seconds) {
        return None;
    }
    let patch =
        object!({"metadata": {"annotations": {"node.alpha.kubernetes.io/ttl": (seconds.to_string())}}});
    Some(Action::Patch(NODES, head(node), "", Patch::Strategic, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_overlap() {
        for (current, nodes, want) in [
            (0, 1, 0),
            (0, 100, 0),
            (0, 101, 1),
            (1, 90, 1),
            (1, 89, 0),
            (0, 5000, 4),
            (4, 1, 0),
            (2, 450, 2),
        ] {
            assert_eq!(step(current, nodes), want, "{nodes} nodes from step {current}");
        }
    }

    #[test]
    fn a_node_is_told_once() {
        let mut node = object!({"metadata": {"name": "n"}});
        let Some(Action::Patch(.., patch)) = plan(&node, 15) else { panic!() };
        assert_eq!(patch.annotation(ANNOTATION), Some("15"));
        node.set(&["metadata", "annotations", ANNOTATION], "15");
        assert!(plan(&node, 15).is_none());
        assert!(plan(&node, 0).is_some());
    }
}
