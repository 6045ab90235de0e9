//! Which processors to take of those that are free: whole nodes, packages, caches and cores first, so that what is left
//! stays whole. Pure: the same question has the same answer, which is upstream's.

mod spread;

use std::collections::BTreeSet;

use super::cpuset::CpuSet;
use super::machine::{Level, Machine};
use super::options::CpuOptions;

/// Takes so many of the free processors. The error is a sentence.
pub(crate) fn take(
    machine: &Machine,
    options: &CpuOptions,
    free: &CpuSet,
    count: usize,
) -> Result<CpuSet, String> {
    if options.distribute_cpus_across_numa {
        let group = if options.full_pcpus_only { machine.per(Level::Core) } else { 1 };
        return spread::take(machine, options, free, count, group.max(1));
    }
    let caches = options.prefer_align_cpus_by_uncorecache;
    packed(machine, options, free, count, caches)
}

fn lacking(free: &CpuSet, count: usize) -> Result<(), String> {
    match count > free.len() {
        true => Err(format!(
            "not enough cpus available to satisfy request: requested={count}, available={}",
            free.len()
        )),
        false => Ok(()),
    }
}

/// Takes as few nodes, packages, caches and cores as it can be.
fn packed(
    machine: &Machine,
    options: &CpuOptions,
    free: &CpuSet,
    count: usize,
    caches: bool,
) -> Result<CpuSet, String> {
    lacking(free, count)?;
    let free = free.intersection(&machine.all());
    let mut taking = Taking { machine, free, taken: CpuSet::new(), needed: count };
    for level in taking.outer() {
        taking.whole(level);
    }
    if caches {
        taking.caches();
    }
    let by_core = !options.distribute_cpus_across_cores;
    if by_core {
        taking.whole(Level::Core);
    }
    let level = if by_core { Level::Core } else { Level::Socket };
    let rest: Vec<_> = taking
        .sorted(level)
        .into_iter()
        .flat_map(|id| taking.free_of(level, id).iter().collect::<Vec<_>>())
        .collect();
    let needed = taking.needed;
    taking.take(&rest.into_iter().take(needed).collect());
    match taking.needed {
        0 => Ok(taking.taken),
        _ => Err("failed to allocate cpus".to_owned()),
    }
}

/// Processors being taken.
struct Taking<'m> {
    machine: &'m Machine,
    free: CpuSet,
    taken: CpuSet,
    needed: usize,
}

impl Taking<'_> {
    /// Nodes and packages, the wider first.
    fn outer(&self) -> [Level; 2] {
        let nodes_hold_sockets = self.machine.ids(Level::Socket).len() >= self.machine.ids(Level::Node).len();
        if nodes_hold_sockets { [Level::Node, Level::Socket] } else { [Level::Socket, Level::Node] }
    }

    fn take(&mut self, cpus: &CpuSet) {
        self.free = self.free.difference(cpus);
        self.taken = self.taken.union(cpus);
        self.needed = self.needed.saturating_sub(cpus.len());
    }

    /// The free ones of one of a level.
    fn free_of(&self, level: Level, id: usize) -> CpuSet {
        self.free.iter().filter(|cpu| self.machine.cpus[cpu].at(level) == id).collect()
    }

    /// Those of a level that have free processors, within another: the fullest first.
    fn within(&self, level: Level, outer: Option<(Level, usize)>) -> Vec<usize> {
        let places = self.free.iter().map(|cpu| self.machine.cpus[&cpu]);
        let inside = places.filter(|place| outer.is_none_or(|(level, id)| place.at(level) == id));
        let ids: BTreeSet<_> = inside.map(|place| place.at(level)).collect();
        let mut ids: Vec<_> = ids.into_iter().collect();
        ids.sort_by_key(|id| (self.free_of(level, *id).len(), *id));
        ids
    }

    /// Those of a level in the order in which they are taken: by what they are in, the fullest first.
    fn sorted(&self, level: Level) -> Vec<usize> {
        let [first, second] = self.outer();
        let outer = match level {
            level if level == first => return self.within(level, None),
            Level::Core => second,
            Level::Uncore => Level::Node,
            Level::Node | Level::Socket => first,
        };
        let outers = self.sorted(outer).into_iter();
        outers.flat_map(|id| self.within(level, Some((outer, id)))).collect()
    }

    /// Whether nobody has a part of it.
    fn is_whole(&self, level: Level, id: usize) -> bool {
        let free = self.free_of(level, id).len();
        match level {
            Level::Node | Level::Uncore => free == self.machine.of(level, id).len(),
            Level::Socket | Level::Core => free == self.machine.per(level),
        }
    }

    /// Takes all of a level that nobody has a part of and that are not too big.
    fn whole(&mut self, level: Level) {
        let whole: Vec<_> = self.sorted(level).into_iter().filter(|id| self.is_whole(level, *id)).collect();
        for id in whole {
            // A package may have been taken with another node by now.
            let cpus = self.free_of(level, id);
            if !cpus.is_empty() && self.needed >= cpus.len() {
                self.take(&cpus);
            }
        }
    }

    /// Takes whole caches, then what is left of cores that share one.
    fn caches(&mut self) {
        let size = self.machine.per(Level::Uncore);
        for id in self.sorted(Level::Uncore) {
            if self.needed >= size {
                self.whole(Level::Uncore);
            }
            if self.needed == 0 {
                return;
            }
            self.part_of_cache(id);
        }
    }

    /// Takes all that is needed of one cache, if it can be had there.
    fn part_of_cache(&mut self, id: usize) {
        let threads = self.machine.per(Level::Core).max(1);
        let places = self.free.iter().map(|cpu| self.machine.cpus[&cpu]);
        let cores: BTreeSet<_> = places.filter(|place| place.uncore == id).map(|place| place.core).collect();
        let cores = cores.into_iter().take(self.needed.div_ceil(threads));
        let mut cpus: Vec<_> =
            cores.flat_map(|core| self.free_of(Level::Core, core).iter().collect::<Vec<_>>()).collect();
        cpus.sort_unstable();
        if !self.needed.is_multiple_of(2) && threads > 1 && cpus.len() > self.needed {
            cpus.pop();
        }
        if cpus.len() == self.needed {
            self.take(&cpus.into_iter().collect());
        }
    }
}

#[cfg(test)]
mod tests;
