//! Which nodes are evicted when. Decides from the conditions of all nodes together; writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::Value;
use tokio::time::Instant;
use tracing::info;

use crate::config::EvictionLimits;

use super::line::Lines;
use super::taints::{self, Eviction};
use super::zones::{self, Tallies, Turn, Zones};

/// The evictions of a cluster.
#[derive(Debug)]
pub(super) struct Evictions {
    limits: EvictionLimits,
    zones: Zones,
    lines: Lines,
    /// Nodes that were being evicted when evictions halted, and still have the taint.
    sparing: BTreeSet<String>,
}

/// What a look at all nodes comes to.
#[derive(Debug)]
pub(super) struct Review {
    /// Zones and their nodes that count.
    pub(super) tallies: Tallies,
    /// Zones of all nodes.
    pub(super) zones: Vec<String>,
    /// What has changed for the cluster.
    pub(super) turn: Turn,
    /// Nodes that get the taint for what they are in place of another, at once.
    pub(super) swap: Vec<String>,
    /// Nodes that lose the taint although they are not ready.
    pub(super) spare: Vec<String>,
}

impl Evictions {
    pub(super) fn new(limits: EvictionLimits) -> Self {
        Self { limits, zones: Zones::default(), lines: Lines::default(), sparing: BTreeSet::new() }
    }

    /// Looks at all nodes, whose conditions are as they are now.
    pub(super) fn review(&mut self, nodes: &[Arc<Value>], now: Instant) -> Review {
        let mut tallies = Tallies::new();
        let mut waiting: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let (mut swap, mut evicted) = (Vec::new(), BTreeSet::new());
        for node in nodes {
            let (name, zone) = (node.name().to_owned(), zones::zone(node));
            if zones::counts(node) {
                tallies.entry(zone.clone()).or_default().add(taints::ready(node) == "True");
            }
            if taints::is_evicted(node) {
                evicted.insert(name.clone());
            }
            let line = waiting.entry(zone).or_default();
            match Eviction::of(node) {
                Eviction::Settled => {}
                Eviction::Swap => swap.push(name),
                Eviction::Wait => line.push(name),
            }
        }
        let turn = self.zones.observe(&tallies, &self.limits);
        self.spare(turn, &evicted);
        self.lines.update(&waiting, |zone| self.zones.rate(zone, &self.limits), now);
        swap.retain(|name| !self.sparing.contains(name));
        Review {
            tallies,
            zones: waiting.into_keys().collect(),
            turn,
            swap,
            spare: self.sparing.iter().cloned().collect(),
        }
    }

    fn spare(&mut self, turn: Turn, evicted: &BTreeSet<String>) {
        match turn {
            Turn::Halt => {
                info!("No node is ready any more: evictions halt");
                self.sparing.clone_from(evicted);
            }
            Turn::Resume => info!("Some nodes are ready again: evictions go on"),
            Turn::None => {}
        }
        if self.zones.halted() {
            self.sparing.retain(|name| evicted.contains(name));
        } else {
            self.sparing.clear();
        }
    }

    /// The node that is to be evicted now, if there is one.
    pub(super) fn next(&mut self, now: Instant) -> Option<String> {
        self.lines.next(now)
    }

    /// When to ask for the next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lines.due()
    }
}

#[cfg(test)]
mod tests;
