//! Spreading processors evenly over as few NUMA nodes as there have to be (KEP-2902).

use std::collections::BTreeMap;

use super::{Level, Machine, Taking, lacking, packed};
use crate::managers::cpuset::CpuSet;
use crate::managers::options::CpuOptions;

/// Free processors by node.
type Free = BTreeMap<usize, usize>;

/// How much each of some nodes gives.
#[derive(Debug, Clone, Default)]
struct Plan {
    /// The nodes that give the same.
    nodes: Vec<usize>,
    /// What each of them gives.
    each: usize,
    /// Those of them that give a group more, one after the other.
    more: Vec<usize>,
    /// How uneven the machine is after that.
    unevenness: f64,
}

/// Takes processors in groups of so many.
pub(super) fn take(
    machine: &Machine,
    options: &CpuOptions,
    free: &CpuSet,
    count: usize,
    group: usize,
) -> Result<CpuSet, String> {
    if count == 0 {
        return Ok(CpuSet::new());
    }
    if !count.is_multiple_of(group) {
        return packed(machine, options, free, count, false);
    }
    lacking(free, count)?;
    let mut taking = Taking { machine, free: free.clone(), taken: CpuSet::new(), needed: count };
    let nodes = taking.sorted(Level::Node);
    let sizes: Free = nodes.iter().map(|id| (*id, taking.free_of(Level::Node, *id).len())).collect();
    let groups = machine.cpus.len().div_ceil(group);
    let per_node = groups.div_ceil(machine.ids(Level::Node).len().max(1)).max(1);
    let needed = count / group;
    let widths = needed.div_ceil(per_node)..=needed.min(nodes.len());
    let plan = widths.into_iter().find_map(|width| best(&nodes, &sizes, width, count, group));
    let Some(plan) = plan else { return packed(machine, options, free, count, false) };
    for node in &plan.nodes {
        taking.take_of(options, *node, plan.each)?;
    }
    while taking.needed > 0 {
        let before = taking.needed;
        for node in &plan.more {
            if taking.needed > 0 && taking.free_of(Level::Node, *node).len() >= group {
                taking.take_of(options, *node, group)?;
            }
        }
        if taking.needed == before {
            return Err(format!("accounting error, not enough CPUs allocated, remaining: {before}"));
        }
    }
    Ok(taking.taken)
}

impl Taking<'_> {
    fn take_of(&mut self, options: &CpuOptions, node: usize, count: usize) -> Result<(), String> {
        let free = self.free_of(Level::Node, node);
        let cpus = packed(self.machine, options, &free, count, false)?;
        self.take(&cpus);
        Ok(())
    }
}

/// The most even way to take processors from so many nodes, if there is one.
fn best(nodes: &[usize], sizes: &Free, width: usize, count: usize, group: usize) -> Option<Plan> {
    let mut best: Option<Plan> = None;
    for combination in combinations(nodes, width) {
        if best.as_ref().is_some_and(|best| best.unevenness == 0.0) {
            break;
        }
        let Some(plan) = of(&combination, sizes, count, group) else { continue };
        if best.as_ref().is_none_or(|best| plan.unevenness < best.unevenness) {
            best = Some(plan);
        }
    }
    best
}

/// How these nodes would give the processors, if they can.
fn of(nodes: &[usize], sizes: &Free, count: usize, group: usize) -> Option<Plan> {
    let groups: usize = nodes.iter().map(|node| sizes[node] / group).sum();
    let each = count / nodes.len() / group * group;
    if groups * group < count || nodes.iter().any(|node| sizes[node] < each) {
        return None;
    }
    let mut left = sizes.clone();
    for node in nodes {
        *left.get_mut(node)? -= each;
    }
    let rest = count - each * nodes.len();
    let mut plan = Plan { nodes: nodes.to_vec(), each, more: Vec::new(), unevenness: f64::MAX };
    if rest == 0 {
        plan.unevenness = deviation(&left);
        return Some(plan);
    }
    let able: Vec<_> = nodes.iter().copied().filter(|node| left[node] >= group).collect();
    for width in (1..=able.len()).rev() {
        for some in combinations(&able, width) {
            let Some(left) = hand_out(&some, left.clone(), rest, group) else { continue };
            let unevenness = deviation(&left);
            if unevenness < plan.unevenness {
                (plan.unevenness, plan.more) = (unevenness, some);
            }
        }
    }
    (plan.unevenness < f64::MAX).then_some(plan)
}

/// Takes a group of each node in turn until nothing is needed any more.
fn hand_out(nodes: &[usize], mut left: Free, mut rest: usize, group: usize) -> Option<Free> {
    while rest > 0 {
        let before = rest;
        for node in nodes {
            let free = left.get_mut(node)?;
            if rest > 0 && *free >= group {
                *free -= group;
                rest -= group;
            }
        }
        if rest == before {
            return None;
        }
    }
    Some(left)
}

/// The standard deviation, with three digits as upstream compares it.
fn deviation(sizes: &Free) -> f64 {
    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    let count = sizes.len() as f64;
    let mean = round(sizes.values().map(|size| *size as f64).sum::<f64>() / count);
    let squares: f64 = sizes.values().map(|size| (*size as f64 - mean).powi(2)).sum();
    round((squares / count).sqrt())
}

/// All ways to choose so many, in the order of what is given.
fn combinations(all: &[usize], width: usize) -> Vec<Vec<usize>> {
    if width == 0 {
        return vec![Vec::new()];
    }
    let mut found = Vec::new();
    for (i, first) in all.iter().enumerate() {
        for mut rest in combinations(&all[i + 1..], width - 1) {
            rest.insert(0, *first);
            found.push(rest);
        }
    }
    found
}
