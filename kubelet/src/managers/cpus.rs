//! Processors that containers have for themselves: who has which. Decisions alone; files are `checkpoint`'s.

pub(crate) mod checkpoint;
mod hints;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Value;
use api::quantity::Quantity;

use super::Refusal;
use super::cpuset::CpuSet;
use super::machine::{Level, Machine};
use super::options::CpuOptions;
use super::take::take;
use super::topology::Mask;
use crate::pods::spec;

/// Sets by pod and container.
pub(crate) type Assignments = BTreeMap<String, BTreeMap<String, CpuSet>>;

/// Who has which processors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Those that containers share which have none of their own.
    pub(crate) shared: CpuSet,
    pub(crate) pods: Assignments,
}

impl State {
    /// What a container has for itself.
    pub(crate) fn of(&self, uid: &str, container: &str) -> Option<&CpuSet> {
        self.pods.get(uid)?.get(container)
    }

    /// All that containers have for themselves.
    pub(crate) fn exclusive(&self) -> CpuSet {
        self.pods.values().flat_map(BTreeMap::values).fold(CpuSet::new(), |all, cpus| all.union(cpus))
    }

    /// Takes back what the containers of a pod have; false when they had nothing.
    pub(crate) fn forget(&mut self, uid: &str) -> bool {
        let Some(containers) = self.pods.remove(uid) else { return false };
        self.shared = containers.values().fold(self.shared.clone(), |all, cpus| all.union(cpus));
        true
    }
}

/// The static policy: containers that ask for whole processors get some for themselves.
#[derive(Debug, Clone)]
pub(crate) struct Static {
    machine: Arc<Machine>,
    pub(crate) options: CpuOptions,
    /// What nobody gets for itself.
    reserved: CpuSet,
    /// The cores of these.
    reserved_cores: CpuSet,
}

/// How many processors of a pod's container are its own: none unless it asks for whole ones in a guaranteed pod. Pods with
/// resources of their own have no such containers.
pub(crate) fn wanted(pod: &Value, container: &Value) -> usize {
    if spec::qos(pod) != "Guaranteed" || super::has_own_resources(pod) {
        return 0;
    }
    let of = |kind: &str| container.at(&["resources", kind, "cpu"]).as_str()?.parse::<Quantity>().ok();
    let millis = of("requests").or_else(|| of("limits")).map_or(0, |cpu| cpu.millis());
    if millis % 1000 == 0 { usize::try_from(millis / 1000).unwrap_or_default() } else { 0 }
}

/// How many a pod has at any one time.
fn wanted_by_pod(pod: &Value) -> usize {
    let (mut init, mut sidecars) = (0, 0);
    for container in spec::init_containers(pod) {
        let own = wanted(pod, container);
        match spec::is_sidecar(container) {
            true => sidecars += own,
            false => init = init.max(sidecars + own),
        }
    }
    let mains: usize = spec::containers(pod).iter().map(|container| wanted(pod, container)).sum();
    init.max(mains + sidecars)
}

impl Static {
    /// The policy for a machine of which so many processors, or just these, are reserved. The error is a sentence.
    pub(crate) fn new(
        machine: Arc<Machine>,
        options: CpuOptions,
        count: usize,
        reserved: &CpuSet,
    ) -> Result<Self, String> {
        if options.align_by_socket && machine.ids(Level::Socket).len() > machine.ids(Level::Node).len() {
            return Err("Align by socket is not compatible with hardware where number of sockets are more than number of NUMA".to_owned());
        }
        let reserved = match reserved.is_empty() {
            true => take(&machine, &options, &machine.all(), count).unwrap_or_default(),
            false => reserved.clone(),
        };
        if reserved.len() != count {
            return Err(format!(
                "[cpumanager] unable to reserve the required amount of CPUs (size of {reserved} did not equal {count})"
            ));
        }
        let mut reserved_cores = CpuSet::new();
        for cpu in reserved.iter() {
            let place = machine.cpus.get(&cpu).ok_or_else(|| {
                format!("[cpumanager] unable to build the reserved physical CPUs from the reserved set: unknown CPU ID: {cpu}")
            })?;
            reserved_cores = reserved_cores.union(&machine.of(Level::Core, place.core));
        }
        Ok(Self { machine, options, reserved, reserved_cores })
    }

    /// What can be given away in all.
    pub(crate) fn allocatable(&self) -> CpuSet {
        self.machine.all().difference(&self.reserved)
    }

    /// What can be given away by now.
    pub(crate) fn available(&self, state: &State) -> CpuSet {
        state.shared.difference(&self.reserved)
    }

    /// Sets up a state that is new, and refuses one that does not fit the machine. The error is a sentence.
    pub(crate) fn check(&self, state: &mut State) -> Result<(), String> {
        let strict = self.options.strict_cpu_reservation;
        let all = if strict { self.allocatable() } else { self.machine.all() };
        if state.shared.is_empty() {
            if !state.pods.is_empty() {
                return Err("default cpuset cannot be empty".to_owned());
            }
            state.shared = all;
            return Ok(());
        }
        let shared = &state.shared;
        let kept = self.reserved.intersection(shared);
        if strict && !kept.is_empty() {
            return Err(format!(
                "some of strictly reserved cpus: \"{kept}\" are present in defaultCpuSet: \"{shared}\""
            ));
        }
        if !strict && kept != self.reserved {
            return Err(format!(
                "not all reserved cpus: \"{}\" are present in defaultCpuSet: \"{shared}\"",
                self.reserved
            ));
        }
        for (pod, containers) in &state.pods {
            for (container, cpus) in containers {
                if !cpus.intersection(shared).is_empty() {
                    return Err(format!(
                        "pod: {pod}, container: {container} cpuset: \"{cpus}\" overlaps with default cpuset \"{shared}\""
                    ));
                }
            }
        }
        let known = shared.union(&state.exclusive());
        match known == all {
            true => Ok(()),
            false => Err(format!(
                "current set of available CPUs \"{all}\" doesn't match with CPUs in state \"{known}\""
            )),
        }
    }

    /// Refuses what cannot be whole cores.
    fn check_cores(&self, state: &State, count: usize, reusable: &CpuSet) -> Result<(), Refusal> {
        let threads = self.machine.per(Level::Core).max(1);
        if !count.is_multiple_of(threads) {
            return Err(Refusal::Alignment(format!(
                "SMT Alignment Error: requested {count} cpus not multiple cpus per core = {threads}"
            )));
        }
        // DIVERGES: those that init containers of the pod leave to it count as free, as they are.
        let free = state.shared.union(reusable).difference(&self.reserved_cores).len();
        if count > free {
            return Err(Refusal::Alignment(format!(
                "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = {free}, requested CPUs = \
                 {count}, CPUs per core = {threads}"
            )));
        }
        Ok(())
    }

    /// Gives a container processors of its own if it is to have some: those that init containers leave to it, and those of
    /// the nodes that it is to be on. Returns them when they are new. What it has already it keeps, whatever is asked of
    /// others by now.
    pub(crate) fn allocate(
        &self,
        state: &mut State,
        pod: &Value,
        container: &Value,
        affinity: Option<Mask>,
        reusable: &mut CpuSet,
    ) -> Result<Option<CpuSet>, Refusal> {
        let (uid, name) = (pod.uid(), container.str_at(&["name"]));
        let count = wanted(pod, container);
        if count == 0 {
            return Ok(None);
        }
        let given = match state.of(uid, name) {
            Some(has) => Err(has.clone()),
            None => {
                if self.options.full_pcpus_only {
                    self.check_cores(state, count, reusable)?;
                }
                Ok(self.choose(state, count, affinity, reusable).map_err(Refusal::Unexpected)?)
            }
        };
        let cpus = given.as_ref().unwrap_or_else(|has| has).clone();
        *reusable = match spec::is_init(pod, name) && !spec::is_sidecar(container) {
            true => reusable.union(&cpus),
            false => reusable.difference(&cpus),
        };
        let Ok(cpus) = given else { return Ok(None) };
        state.shared = state.shared.difference(&cpus);
        state.pods.entry(uid.to_owned()).or_default().insert(name.to_owned(), cpus.clone());
        Ok(Some(cpus))
    }

    fn choose(
        &self,
        state: &State,
        count: usize,
        affinity: Option<Mask>,
        reusable: &CpuSet,
    ) -> Result<CpuSet, String> {
        let available = self.available(state).union(reusable);
        let near = match affinity {
            None => CpuSet::new(),
            Some(mask) => {
                let near = self.near(mask).intersection(&available);
                take(&self.machine, &self.options, &near, count.min(near.len()))?
            }
        };
        let rest = available.difference(&near);
        let rest = take(&self.machine, &self.options, &rest, count - near.len())?;
        Ok(near.union(&rest))
    }

    /// The processors of nodes, or of their packages.
    fn near(&self, mask: Mask) -> CpuSet {
        let level = if self.options.align_by_socket { Level::Socket } else { Level::Node };
        let inside = self.machine.cpus.values().filter(|place| mask.has(place.node));
        let ids: std::collections::BTreeSet<_> = inside.map(|place| place.at(level)).collect();
        ids.into_iter().fold(CpuSet::new(), |all, id| all.union(&self.machine.of(level, id)))
    }

    /// Whether they all share a cache.
    pub(crate) fn share_a_cache(&self, cpus: &CpuSet) -> bool {
        let mut caches = cpus.iter().filter_map(|cpu| self.machine.cpus.get(&cpu)).map(|place| place.uncore);
        let first = caches.next();
        caches.all(|cache| Some(cache) == first)
    }

    /// How many of some processors each node has.
    pub(crate) fn by_node(&self, cpus: &CpuSet) -> BTreeMap<usize, usize> {
        let none = self.machine.ids(Level::Node).into_iter().map(|node| (node, 0)).collect();
        cpus.iter().filter_map(|cpu| self.machine.cpus.get(&cpu)).fold(
            none,
            |mut all: BTreeMap<_, _>, place| {
                *all.entry(place.node).or_default() += 1;
                all
            },
        )
    }
}

#[cfg(test)]
mod tests;
