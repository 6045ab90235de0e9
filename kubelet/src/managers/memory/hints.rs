//! On which nodes a container's own memory could be.

use std::collections::BTreeSet;

use api::Value;

use super::{Amounts, Block, Nodes, Reusable, State, Static, concerns, wanted, wanted_by_pod};
use crate::managers::topology::{Hint, Hints, Mask};
use crate::pods::spec;

impl Static {
    /// The ways in which a container's memory could be had.
    pub(crate) fn hints(&self, state: &State, pod: &Value, container: &Value, reusable: &Reusable) -> Hints {
        if !concerns(pod) {
            return Hints::new();
        }
        // What cannot be read is refused when it is to be given.
        let Ok(wanted) = wanted(container) else { return Hints::new() };
        match state.of(pod.uid(), container.str_at(&["name"])) {
            Some(blocks) => again(blocks, &wanted),
            None => ways(&state.nodes, &wanted, reusable),
        }
    }

    /// The ways in which that of a whole pod could be had.
    pub(crate) fn pod_hints(&self, state: &State, pod: &Value) -> Hints {
        if !concerns(pod) {
            return Hints::new();
        }
        let Ok(wanted) = wanted_by_pod(pod) else { return Hints::new() };
        if wanted.is_empty() {
            return Hints::new();
        }
        let mut has = spec::all_containers(pod)
            .filter_map(|container| state.of(pod.uid(), container.str_at(&["name"])));
        match has.next() {
            Some(blocks) => again(blocks, &wanted),
            None => ways(&state.nodes, &wanted, &Reusable::default()),
        }
    }
}

/// The one way that is left for what has been given already.
fn again(blocks: &[Block], wanted: &Amounts) -> Hints {
    let fits = blocks.len() == wanted.len()
        && blocks.iter().all(|block| wanted.get(&block.kind) == Some(&block.size));
    if !fits {
        return Hints::new();
    }
    let hint = |block: &Block| {
        let affinity = Some(block.numa_affinity.iter().copied().collect());
        (block.kind.clone(), Some(vec![Hint { affinity, preferred: true }]))
    };
    blocks.iter().map(hint).collect()
}

/// All sets of nodes that have so much. Those are preferred that are as small as they could be on an empty machine.
pub(super) fn ways(nodes: &Nodes, wanted: &Amounts, reusable: &Reusable) -> Hints {
    let masks = Mask::all(&nodes.keys().copied().collect());
    let holds = |mask: &Mask| {
        wanted.iter().all(|(kind, amount)| {
            let tables = mask.nodes().filter_map(|id| nodes.get(&id)?.memory_map.get(kind));
            tables.map(|table| table.allocatable).sum::<u64>() >= *amount
        })
    };
    let big_enough: Vec<_> = masks.into_iter().filter(holds).collect();
    let least = big_enough.iter().map(|mask| mask.count()).min().unwrap_or(nodes.len());
    let mut hints = Hints::new();
    for mask in big_enough {
        let has =
            |(kind, amount): (&String, &u64)| free(nodes, mask, kind) + reusable.of(mask, kind) >= *amount;
        if !may_be_grouped(nodes, mask) || !wanted.iter().all(has) {
            continue;
        }
        let hint = Hint { affinity: Some(mask), preferred: mask.count() == least };
        for kind in wanted.keys() {
            hints.entry(kind.clone()).or_default().get_or_insert_default().push(hint);
        }
    }
    hints
}

/// What nodes have left.
pub(super) fn free(nodes: &Nodes, mask: Mask, kind: &str) -> u64 {
    mask.nodes().filter_map(|id| nodes.get(&id)?.memory_map.get(kind)).map(|table| table.free).sum()
}

/// Whether memory of these nodes may be given away together: a node is in one group at a time.
fn may_be_grouped(nodes: &Nodes, mask: Mask) -> bool {
    let alone = mask.count() == 1;
    mask.nodes().filter_map(|id| nodes.get(&id)).all(|node| match alone {
        true => node.cells.len() <= 1,
        false => !is_taken_otherwise(nodes, mask),
    })
}

/// Whether one of several nodes is in use, but not together with just the others.
pub(super) fn is_taken_otherwise(nodes: &Nodes, mask: Mask) -> bool {
    let wanted: BTreeSet<_> = mask.nodes().collect();
    mask.count() > 1
        && mask.nodes().filter_map(|id| nodes.get(&id)).any(|node| {
            node.number_of_assignments > 0 && node.cells.iter().copied().collect::<BTreeSet<_>>() != wanted
        })
}
