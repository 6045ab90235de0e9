//! Giving memory to containers.

use std::collections::BTreeMap;

use api::Value;

use super::hints::{free, is_taken_otherwise, ways};
use super::{Amounts, Block, MEMORY, Nodes, State, Static, concerns, occupy, wanted};
use crate::managers::topology::{Hint, Mask};
use crate::pods::spec;

/// What init containers of a pod leave to those that come after them, by nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reusable(BTreeMap<Mask, Amounts>);

impl Reusable {
    pub(super) fn of(&self, mask: Mask, kind: &str) -> u64 {
        self.0.get(&mask).and_then(|amounts| amounts.get(kind)).copied().unwrap_or_default()
    }

    /// A container has this now: an init container leaves it, others take of it.
    fn note(&mut self, leaves: bool, blocks: &[Block]) {
        for block in blocks {
            let mask = block.numa_affinity.iter().copied().collect();
            let amount = self.0.entry(mask).or_default().entry(block.kind.clone()).or_default();
            *amount = if leaves { (*amount).max(block.size) } else { amount.saturating_sub(block.size) };
        }
    }
}

impl Static {
    /// Gives a container memory of its own if it is to have some; true when that is new. What it has already it keeps. The
    /// error is a sentence.
    pub(crate) fn allocate(
        &self,
        state: &mut State,
        pod: &Value,
        container: &Value,
        hint: Hint,
        reusable: &mut Reusable,
    ) -> Result<bool, String> {
        if !concerns(pod) {
            return Ok(false);
        }
        let (uid, name) = (pod.uid(), container.str_at(&["name"]));
        let leaves = spec::is_init(pod, name) && !spec::is_sidecar(container);
        if let Some(blocks) = state.of(uid, name) {
            reusable.note(leaves, blocks);
            return Ok(false);
        }
        let wanted = wanted(container)?;
        let mask = choose(&state.nodes, &wanted, hint, reusable)?;
        let affinity: Vec<_> = mask.nodes().collect();
        let mut blocks = Vec::new();
        for (kind, amount) in &wanted {
            blocks.push(Block { numa_affinity: affinity.clone(), kind: kind.clone(), size: *amount });
            let needed = amount.saturating_sub(reusable.of(mask, kind));
            occupy(&mut state.nodes, &affinity, kind, needed);
        }
        reusable.note(leaves, &blocks);
        hand_over(state, pod, name, &blocks);
        state.pods.entry(uid.to_owned()).or_default().insert(name.to_owned(), blocks);
        Ok(true)
    }
}

/// The nodes to take memory of: those that everything is to be on if they have enough, else more.
fn choose(nodes: &Nodes, wanted: &Amounts, hint: Hint, reusable: &Reusable) -> Result<Mask, String> {
    let failed = |what: &str| Err(format!("[memorymanager] {what}"));
    let mut mask = hint.affinity;
    let mut preferred = hint.preferred;
    if mask.is_none() {
        let hints = ways(nodes, wanted, reusable);
        let Some(best) = best(hints.get(MEMORY).cloned().flatten().unwrap_or_default()) else {
            return failed(
                "failed to get the default NUMA affinity, no NUMA nodes with enough memory is available",
            );
        };
        if preferred && !best.preferred {
            return failed("failed to find the default preferred hint");
        }
        (mask, preferred) = (best.affinity, best.preferred);
    }
    let mut mask = mask.unwrap_or_default();
    if wanted.iter().any(|(kind, amount)| free(nodes, mask, kind) < *amount) {
        let mut wider = ways(nodes, wanted, reusable).remove(MEMORY).flatten().unwrap_or_default();
        wider.retain(|hint| hint.affinity.is_some_and(|wide| mask.nodes().all(|node| wide.has(node))));
        let Some(best) = best(wider) else {
            return failed("failed to find NUMA nodes to extend the current topology hint");
        };
        if preferred && !best.preferred {
            return failed("failed to find the extended preferred hint");
        }
        mask = best.affinity.unwrap_or_default();
    }
    match is_taken_otherwise(nodes, mask) {
        true => failed("preferred hint violates NUMA node allocation"),
        false => Ok(mask),
    }
}

/// The narrowest of the preferred ways, or of all.
fn best(hints: Vec<Hint>) -> Option<Hint> {
    let mut best: Option<Hint> = None;
    for hint in hints {
        let better = best.is_none_or(|best| match (best.preferred, hint.preferred) {
            (true, false) => false,
            (false, true) => true,
            _ => hint.affinity.unwrap_or_default().narrower(best.affinity.unwrap_or_default()),
        });
        if better {
            best = Some(hint);
        }
    }
    best
}

/// What a container uses again of init containers before it is no longer theirs.
fn hand_over(state: &mut State, pod: &Value, container: &str, blocks: &[Block]) {
    let Some(containers) = state.pods.get_mut(pod.uid()) else { return };
    for block in blocks {
        let mut left = block.size;
        let before = spec::init_containers(pod).iter().take_while(|init| init.str_at(&["name"]) != container);
        for init in before.filter(|init| !spec::is_sidecar(init)) {
            for theirs in containers.get_mut(init.str_at(&["name"])).into_iter().flatten() {
                if theirs.kind == block.kind && theirs.numa_affinity == block.numa_affinity {
                    let taken = left.min(theirs.size);
                    theirs.size -= taken;
                    left -= taken;
                }
            }
        }
    }
}
