//! On which NUMA nodes a container's resources could be, and which of these ways is taken. Pure.

mod merge;

use std::collections::{BTreeMap, BTreeSet};

use super::machine::Machine;
use super::options::TopologyOptions;

/// The reason with which pods are turned away whose resources do not lie together.
pub(crate) const REASON: &str = "TopologyAffinityError";
/// What is said about that.
pub(crate) const MESSAGE: &str = "Resources cannot be allocated with Topology locality";

/// A set of NUMA nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mask(u64);

impl Mask {
    /// The nodes, in ascending order.
    pub(crate) fn nodes(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |node| self.has(*node))
    }

    pub(crate) fn has(self, node: usize) -> bool {
        node < 64 && self.0 >> node & 1 == 1
    }

    pub(crate) fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether it has fewer nodes, or as many of lower numbers.
    pub(crate) fn narrower(self, than: Self) -> bool {
        (self.count(), self) < (than.count(), than)
    }

    /// All sets of some nodes, the smallest first.
    pub(crate) fn all(nodes: &BTreeSet<usize>) -> Vec<Self> {
        let mut masks = vec![Self::default()];
        for node in nodes.iter().filter(|node| **node < 64) {
            let with: Vec<_> = masks.iter().map(|mask| Self(mask.0 | 1 << node)).collect();
            masks.extend(with);
        }
        masks.retain(|mask| mask.0 != 0);
        // Among sets of one size those whose first nodes have lower numbers come first.
        masks.sort_by_key(|mask| (mask.count(), mask.nodes().collect::<Vec<_>>()));
        masks
    }
}

impl FromIterator<usize> for Mask {
    fn from_iter<I: IntoIterator<Item = usize>>(nodes: I) -> Self {
        // Machines with more are not managed.
        Self(nodes.into_iter().filter(|node| *node < 64).fold(0, |mask, node| mask | 1 << node))
    }
}

/// One way in which a resource could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hint {
    /// From these nodes; none when it does not matter.
    pub(crate) affinity: Option<Mask>,
    /// It cannot be had from fewer.
    pub(crate) preferred: bool,
}

/// The ways in which each resource could be had; a resource for which that does not matter has none.
pub(crate) type Hints = BTreeMap<String, Option<Vec<Hint>>>;

/// What becomes of pods whose resources do not lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strictness {
    BestEffort,
    Restricted,
    SingleNode,
}

/// Whether the containers of a pod are looked at one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Container,
    Pod,
}

/// A policy other than none.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    strictness: Strictness,
    pub(crate) scope: Scope,
    prefer_closest: bool,
    all: Mask,
    distances: BTreeMap<usize, Vec<u64>>,
}

impl Policy {
    /// The policy of a name, for a machine; none for the policy none. The error is a sentence.
    pub(crate) fn new(
        policy: &str,
        scope: &str,
        options: impl FnOnce() -> Result<TopologyOptions, String>,
        machine: &Machine,
    ) -> Result<Option<Self>, String> {
        let strictness = match policy {
            "none" => return Ok(None),
            "best-effort" => Strictness::BestEffort,
            "restricted" => Strictness::Restricted,
            "single-numa-node" => Strictness::SingleNode,
            _ => return Err(format!("unknown policy: {policy:?}")),
        };
        let scope = match scope {
            "container" => Scope::Container,
            "pod" => Scope::Pod,
            _ => return Err(format!("unknown scope: {scope:?}")),
        };
        let options = options()?;
        let distances: BTreeMap<_, _> =
            machine.nodes.iter().map(|node| (node.id, node.distances.clone())).collect();
        if options.prefer_closest && distances.values().any(Vec::is_empty) {
            return Err(
                "cannot discover NUMA topology: error getting NUMA distances from cadvisor".to_owned()
            );
        }
        if machine.nodes.len() > options.max_nodes {
            return Err(format!("unsupported on machines with more than {} NUMA Nodes", options.max_nodes));
        }
        let all = machine.nodes.iter().map(|node| node.id).collect();
        Ok(Some(Self { strictness, scope, prefer_closest: options.prefer_closest, all, distances }))
    }

    /// Whether every container gets everything from one node or does not run.
    pub(crate) fn guarantees(&self) -> bool {
        self.strictness == Strictness::SingleNode
    }

    /// The best way in which all resources can be had, if the policy lets it pass.
    pub(crate) fn decide(&self, providers: &[Hints]) -> Option<Hint> {
        let hint = self.merge(providers);
        (hint.preferred || self.strictness == Strictness::BestEffort).then_some(hint)
    }
}

#[cfg(test)]
mod tests;
