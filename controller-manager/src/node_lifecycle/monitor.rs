//! The task that looks at all nodes now and then, and evicts those whose turn it is in between.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::Value;
use client::Patch;
use client::events::Kind;
use client::resource::NODES;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::act::{Action, head};
use crate::context::Context;

use super::evictions::{Evictions, Review};
use super::health::{Beat, Health, gone_silent};
use super::metrics::Metrics;
use super::taints;
use super::zones::{Turn, zone};

const LEASES: &str = "kube-node-lease";
/// Nodes looked at, and written, at a time.
const AT_ONCE: usize = 8;
/// Tries to write a node that others write at the same time.
const TRIES: usize = 5;

/// What is remembered of nodes from one look to the next.
pub(super) struct Monitor {
    cx: Context,
    metrics: Metrics,
    evictions: Evictions,
    health: HashMap<String, Health>,
    /// Nodes that events told about, by their names.
    known: BTreeMap<String, Value>,
}

/// A node as a look left it.
struct Looked {
    node: Arc<Value>,
    health: Health,
}

impl Monitor {
    pub(super) fn new(cx: Context) -> Self {
        let (metrics, evictions) = (Metrics::new(&cx.metrics), Evictions::new(cx.config.eviction));
        Self { cx, metrics, evictions, health: HashMap::new(), known: BTreeMap::new() }
    }

    /// Looks after nodes for ever.
    pub(super) async fn run(mut self) {
        let mut look = Instant::now();
        loop {
            sleep_until(self.evictions.due().map_or(look, |due| due.min(look))).await;
            if Instant::now() >= look {
                self.look().await;
                look = Instant::now() + self.cx.config.node_monitor_period;
            }
            while let Some(name) = self.evictions.next(Instant::now()) {
                self.evict(&name).await;
            }
        }
    }

    async fn look(&mut self) {
        let started = Instant::now();
        let nodes = self.cx.informers.nodes().store().list();
        if let Err(e) = self.cx.apply(greetings(&mut self.known, &nodes)).await {
            warn!(err = format!("{e:#}"), "Cannot tell of nodes that came or went");
        }
        let mut health = std::mem::take(&mut self.health);
        let this = &*self;
        let looks = nodes.into_iter().map(|node| {
            let before = health.remove(node.name());
            async move {
                let started = Instant::now();
                let looked = this.look_at(node, before).await;
                this.metrics.looked_at_one(started.elapsed());
                looked
            }
        });
        // All are collected before the first is awaited, for they take their share of `health`.
        let looks: Vec<_> = looks.collect();
        let looked: Vec<Looked> =
            stream::iter(looks).buffer_unordered(AT_ONCE).filter_map(|l| async { l }).collect().await;
        let mut nodes: Vec<_> = looked.iter().map(|looked| Arc::clone(&looked.node)).collect();
        nodes.sort_by(|a, b| a.name().cmp(b.name()));
        self.health = looked.into_iter().map(|l| (l.node.name().to_owned(), l.health)).collect();
        let review = self.evictions.review(&nodes, Instant::now());
        self.metrics.show(&review);
        self.follow(review).await;
        self.metrics.looked_at_all(started.elapsed());
    }

    /// Looks at one node, and says of it that it is silent when it is. None when it is gone.
    async fn look_at(&self, mut node: Arc<Value>, mut before: Option<Health>) -> Option<Looked> {
        for tries in 1.. {
            let (now, wall) = (Instant::now(), self.cx.now());
            let lease = self.cx.informers.leases().store().find(LEASES, node.name());
            let beat = Beat::of(&node, lease.as_deref());
            let mut health = match before.take() {
                Some(mut health) => {
                    health.observe(beat, now);
                    health
                }
                None => Health::first(&node, beat, wall, now),
            };
            let unposted = taints::ready(&node).is_empty();
            let config = &self.cx.config;
            let grace =
                if unposted { config.node_startup_grace_period } else { config.node_monitor_grace_period };
            let updated = if health.is_silent(grace, now) { gone_silent(&node, wall) } else { None };
            let Some(updated) = updated else { return Some(Looked { node, health }) };
            let Err(e) = self.cx.apply(silence(&node, &updated)).await else {
                health.wrote(&updated);
                return Some(Looked { node: Arc::new(updated), health });
            };
            let error = e.downcast_ref::<client::Error>();
            if error.is_some_and(client::Error::is_not_found) {
                return None;
            }
            if tries < TRIES && error.is_some_and(client::Error::is_conflict) {
                match self.cx.client.get_opt(&NODES, "", node.name()).await {
                    Ok(Some(fresh)) => {
                        (node, before) = (Arc::new(fresh), Some(health));
                        continue;
                    }
                    Ok(None) => return None,
                    Err(e) => warn!(node = node.name(), err = %e, "Cannot read the node again"),
                }
            }
            warn!(node = node.name(), err = format!("{e:#}"), "Cannot say that the node is silent");
            // It is silent all the same.
            return Some(Looked { node: Arc::new(updated), health });
        }
        None
    }

    async fn follow(&mut self, review: Review) {
        if review.turn == Turn::Resume {
            // Nobody could be heard while all were silent: the time of each begins anew.
            let now = Instant::now();
            self.health.values_mut().for_each(|health| health.heard = now);
        }
        for name in review.spare {
            self.retaint(&name, taints::spared).await;
        }
        for name in review.swap {
            self.retaint(&name, |node| taints::evicting(node, Timestamp::now())).await;
        }
    }

    async fn evict(&self, name: &str) {
        if let Some(node) = self.retaint(name, |node| taints::evicting(node, Timestamp::now())).await {
            info!(node = name, "Evicting the pods of a node that is not ready");
            self.metrics.evicted(&zone(&node));
        }
    }

    /// Writes the taints of a node that `change` finds, from its newest state when another writer was faster. None when there is
    /// nothing to change, or it cannot be written: the next look decides anew.
    async fn retaint(&self, name: &str, change: impl Fn(&Value) -> Option<Vec<Value>>) -> Option<Arc<Value>> {
        let mut node = self.cx.informers.nodes().store().find("", name)?;
        for tries in 1.. {
            let taints = change(&node)?;
            let Err(e) = self.cx.apply(vec![taints::patch(&node, taints)]).await else { return Some(node) };
            let conflict = e.downcast_ref::<client::Error>().is_some_and(client::Error::is_conflict);
            if !conflict || tries >= TRIES {
                warn!(node = name, err = format!("{e:#}"), "Cannot change the taints of the node");
                return None;
            }
            match self.cx.client.get_opt(&NODES, "", name).await {
                Ok(fresh) => node = Arc::new(fresh?),
                Err(e) => {
                    warn!(node = name, err = %e, "Cannot read the node again");
                    return None;
                }
            }
        }
        None
    }
}

/// Events about nodes that came and went since the last look.
fn greetings(known: &mut BTreeMap<String, Value>, nodes: &[Arc<Value>]) -> Vec<Action> {
    let event = |about: Value, reason, text: String| {
        let text = format!("Node {} event: {text}", about.name());
        Action::Event(about, Kind::Normal, reason, text)
    };
    let mut events = Vec::new();
    let mut present = BTreeMap::new();
    for node in nodes {
        let name = node.name();
        if known.remove(name).is_none() {
            events.push(event(head(node), "RegisteredNode", format!("Registered Node {name} in Controller")));
        }
        present.insert(name.to_owned(), head(node));
    }
    for (name, gone) in std::mem::replace(known, present) {
        events.push(event(gone, "RemovingNode", format!("Removing Node {name} from Controller")));
    }
    events
}

/// Writes what has become of a silent node, if nobody has written it meanwhile.
fn silence(node: &Value, updated: &Value) -> Vec<Action> {
    let patch = api::object!({
        "metadata": {"resourceVersion": (node.resource_version())},
        "status": {"conditions": (updated.at(&["status", "conditions"]))},
    });
    let mut actions = vec![Action::Patch(NODES, head(node), "status", Patch::Strategic, patch)];
    if taints::ready(node) == "True" {
        let text = format!("Node {} status is now: NodeNotReady", node.name());
        actions.push(Action::Event(head(node), Kind::Normal, "NodeNotReady", text));
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::super::taints::tests::node;
    use super::*;

    fn events(actions: &[Action]) -> Vec<(&str, &str)> {
        let events = actions.iter().filter_map(|action| match action {
            Action::Event(_, Kind::Normal, reason, text) => Some((*reason, text.as_str())),
            _ => None,
        });
        events.collect()
    }

    #[test]
    fn events_tell_of_nodes_that_come_and_go_once() {
        let nodes = [Arc::new(node("True", &[]))];
        let mut known = BTreeMap::new();
        let came = [("RegisteredNode", "Node n event: Registered Node n in Controller")];
        let went = [("RemovingNode", "Node n event: Removing Node n from Controller")];
        assert_eq!(events(&greetings(&mut known, &nodes)), came);
        assert_eq!(events(&greetings(&mut known, &nodes)), []);
        assert_eq!(events(&greetings(&mut known, &[])), went);
        assert_eq!(events(&greetings(&mut known, &[])), []);
        assert_eq!(events(&greetings(&mut known, &nodes)), came);
    }

    #[test]
    fn an_event_tells_of_a_node_that_was_ready_and_falls_silent() {
        for (ready, want) in [
            ("True", &[("NodeNotReady", "Node n status is now: NodeNotReady")][..]),
            ("False", &[]),
            ("", &[]),
        ] {
            let node = node(ready, &[]);
            let updated = gone_silent(&node, Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(events(&silence(&node, &updated)), want, "{ready}");
        }
    }

    #[test]
    fn a_node_that_speaks_meanwhile_is_not_called_silent() {
        let mut node = node("True", &[]);
        node.set(&["metadata", "resourceVersion"], "7");
        let updated = gone_silent(&node, Timestamp::UNIX_EPOCH).unwrap();
        let [Action::Patch(.., patch), _] = &silence(&node, &updated)[..] else { panic!() };
        assert_eq!(patch.resource_version(), "7");
    }
}
