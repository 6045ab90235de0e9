//! On which nodes a container's own processors could be.

use api::Value;

use super::{State, Static, wanted, wanted_by_pod};
use crate::managers::cpuset::CpuSet;
use crate::managers::machine::Level;
use crate::managers::topology::{Hint, Hints, Mask};
use crate::pods::spec;

/// The resource as hints name it.
const RESOURCE: &str = "cpu";

fn only(hints: Vec<Hint>) -> Hints {
    [(RESOURCE.to_owned(), Some(hints))].into()
}

impl Static {
    /// The ways in which a container's processors could be had.
    pub(crate) fn hints(&self, state: &State, pod: &Value, container: &Value, reusable: &CpuSet) -> Hints {
        let count = wanted(pod, container);
        match state.of(pod.uid(), container.str_at(&["name"])) {
            _ if count == 0 => Hints::new(),
            Some(has) if has.len() != count => only(Vec::new()),
            Some(has) => only(self.ways(has, &CpuSet::new(), count)),
            None => only(self.ways(&self.available(state), reusable, count)),
        }
    }

    /// The ways in which those of a whole pod could be had.
    pub(crate) fn pod_hints(&self, state: &State, pod: &Value) -> Hints {
        let count = wanted_by_pod(pod);
        if count == 0 {
            return Hints::new();
        }
        let mut has = CpuSet::new();
        for container in spec::all_containers(pod) {
            let Some(cpus) = state.of(pod.uid(), container.str_at(&["name"])) else { continue };
            if cpus.len() != wanted(pod, container) {
                return only(Vec::new());
            }
            has = has.union(cpus);
        }
        match has.len() == count {
            true => only(self.ways(&has, &CpuSet::new(), count)),
            false => only(self.ways(&self.available(state), &has, count)),
        }
    }

    /// All sets of nodes that have so many, what can be used again among them. Those are preferred that are as small as
    /// they could be on an empty machine.
    fn ways(&self, available: &CpuSet, reusable: &CpuSet, count: usize) -> Vec<Hint> {
        let nodes = self.machine.ids(Level::Node);
        let inside = |cpus: &CpuSet, mask: Mask| {
            cpus.iter().filter(|cpu| mask.has(self.machine.cpus[cpu].node)).count()
        };
        let (all, masks) = (self.machine.all(), Mask::all(&nodes));
        let enough = masks.iter().filter(|mask| inside(&all, **mask) >= count);
        let least = enough.map(|mask| mask.count()).min().unwrap_or(nodes.len());
        let can = |mask: &&Mask| {
            let again = inside(reusable, **mask);
            again == reusable.len() && again + inside(available, **mask) >= count
        };
        let hint = |mask: &Mask| {
            let by_socket = self.options.align_by_socket && self.fits_sockets(*mask, least);
            Hint { affinity: Some(*mask), preferred: by_socket || mask.count() == least }
        };
        masks.iter().filter(can).map(hint).collect()
    }

    /// Whether nodes lie in no more packages than so many nodes have to.
    fn fits_sockets(&self, mask: Mask, least: usize) -> bool {
        let (nodes, sockets) = (self.machine.ids(Level::Node), self.machine.ids(Level::Socket));
        let per_socket = nodes.len() / sockets.len().max(1);
        let places = self.machine.cpus.values().filter(|place| mask.has(place.node));
        let has: std::collections::BTreeSet<_> = places.map(|place| place.socket).collect();
        per_socket > 0 && has.len() == least.div_ceil(per_socket)
    }
}
