//! On which nodes the devices of a container could be.

use std::collections::BTreeSet;

use api::Value;

use super::Devices;
use super::allocate::{Reusable, limits};
use super::state::{Ids, State, nodes};
use crate::managers::topology::{Hint, Hints, Mask};
use crate::pods::spec;

impl Devices {
    /// The ways in which a container's devices could be had on a machine with these nodes.
    pub(crate) fn hints(
        &self,
        pod: &Value,
        container: &Value,
        reusable: &Reusable,
        machine: &BTreeSet<usize>,
    ) -> Hints {
        let state = self.state.lock();
        let mut hints = Hints::new();
        for (resource, count) in limits(container).filter(|(resource, _)| state.manages(resource)) {
            let has = state.of(pod.uid(), container.str_at(&["name"])).and_then(|given| given.get(resource));
            let has = has.map(|given| given.ids()).unwrap_or_default();
            let free = reusable.0.get(resource).cloned().unwrap_or_default();
            hints.insert(resource.to_owned(), state.ways(resource, count, &has, &free, machine));
        }
        hints
    }

    /// The ways in which those of a whole pod could be had.
    pub(crate) fn pod_hints(&self, pod: &Value, machine: &BTreeSet<usize>) -> Hints {
        let state = self.state.lock();
        let named = spec::all_containers(pod).flat_map(limits).map(|(resource, _)| resource);
        let resources: BTreeSet<_> = named.filter(|resource| state.manages(resource)).collect();
        let hints = |resource: &str| {
            let given = state.pods.get(pod.uid()).into_iter().flat_map(|containers| containers.values());
            let has: Ids =
                given.filter_map(|given| given.get(resource)).flat_map(|given| given.ids()).collect();
            state.ways(resource, wanted_by_pod(pod, resource), &has, &Ids::new(), machine)
        };
        resources.into_iter().map(|resource| (resource.to_owned(), hints(resource))).collect()
    }
}

/// How many devices of a resource a pod has at any one time.
fn wanted_by_pod(pod: &Value, resource: &str) -> usize {
    let of = |container: &Value| {
        limits(container).find(|(name, _)| *name == resource).map_or(0, |(_, count)| count)
    };
    let (mut init, mut sidecars) = (0, 0);
    for container in spec::init_containers(pod) {
        match spec::is_sidecar(container) {
            true => sidecars += of(container),
            false => init = init.max(sidecars + of(container)),
        }
    }
    let mains: usize = spec::containers(pod).iter().map(of).sum();
    init.max(mains + sidecars)
}

impl State {
    /// All sets of nodes that have so many devices; none where the devices are on no nodes.
    fn ways(
        &self,
        resource: &str,
        count: usize,
        has: &Ids,
        reusable: &Ids,
        machine: &BTreeSet<usize>,
    ) -> Option<Vec<Hint>> {
        let devices = self.resources.get(resource).map(|entry| &entry.devices)?;
        let nodes_of = |id: &String| -> BTreeSet<usize> {
            let nodes = devices.get(id).map(nodes).unwrap_or_default();
            nodes.into_iter().filter_map(|node| usize::try_from(node).ok()).collect()
        };
        let all: BTreeSet<usize> = devices.keys().flat_map(nodes_of).collect();
        if all.is_empty() {
            return None;
        }
        let known: BTreeSet<_> = all.intersection(machine).copied().collect();
        let known = if known.is_empty() { machine } else { &known };
        let none = Ids::new();
        let (available, reusable) = match has.len() {
            0 => (self.available(resource), reusable),
            same if same == count => (has.clone(), &none),
            _ => return Some(Vec::new()),
        };
        if available.union(reusable).count() < count {
            return Some(Vec::new());
        }
        let masks = Mask::all(known);
        let near = |id: &String, mask: Mask| nodes_of(id).into_iter().any(|node| mask.has(node));
        let holds = |mask: &&Mask| devices.keys().filter(|id| near(id, **mask)).count() >= count;
        let least = masks.iter().filter(holds).map(|mask| mask.count()).min().unwrap_or(known.len());
        let placed = |id: &&String| devices.get(*id).is_some_and(|device| device.topology.is_some());
        let can = |mask: &&Mask| {
            let again = reusable.iter().filter(placed).count();
            let fits = reusable.iter().filter(placed).all(|id| near(id, **mask));
            fits && again + available.iter().filter(|id| near(id, **mask)).count() >= count
        };
        let hint = |mask: &Mask| Hint { affinity: Some(*mask), preferred: mask.count() == least };
        Some(masks.iter().filter(can).map(hint).collect())
    }

    /// The devices of a resource that nobody has.
    fn available(&self, resource: &str) -> Ids {
        let used = self.used(resource);
        let healthy = self.resources.get(resource).map(|entry| &entry.healthy);
        healthy.into_iter().flatten().filter(|id| !used.contains(*id)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::{Allocated, Device, HEALTHY, NumaNode, TopologyInfo};
    use super::super::state::Wish;
    use super::*;

    const R: &str = "example.com/x";

    fn ways(state: &State, count: usize, has: &[&str], reusable: &[&str]) -> Option<Vec<(Vec<usize>, bool)>> {
        let ids = |all: &[&str]| all.iter().map(|id| (*id).to_owned()).collect();
        let hints = state.ways(R, count, &ids(has), &ids(reusable), &[0, 1].into())?;
        Some(hints.iter().map(|hint| (hint.affinity.unwrap().nodes().collect(), hint.preferred)).collect())
    }

    #[test]
    fn devices_tell_on_which_nodes_they_can_be_had() {
        let mut state = State::default();
        let device = |(id, node): (&str, Option<i64>)| Device {
            id: id.to_owned(),
            health: HEALTHY.to_owned(),
            topology: node.map(|id| TopologyInfo { nodes: vec![NumaNode { id }] }),
        };
        state.update(R, [("a", None), ("b", None)].map(device).into());
        assert_eq!(ways(&state, 1, &[], &[]), None);
        let placed = [("a", Some(0)), ("b", Some(0)), ("c", Some(1)), ("d", Some(1)), ("e", Some(7))];
        state.update(R, placed.map(device).into());
        let (zero, one, both) = (vec![0], vec![1], vec![0, 1]);
        let wish = Wish { uid: "u", container: "c", resource: R, count: 1 };
        state.give(&wish, &["a".to_owned()].into(), Allocated::default());
        let expected = vec![(zero.clone(), true), (one.clone(), true), (both.clone(), false)];
        assert_eq!(ways(&state, 1, &[], &[]), Some(expected));
        assert_eq!(ways(&state, 2, &[], &[]), Some(vec![(one.clone(), true), (both.clone(), false)]));
        assert_eq!(ways(&state, 9, &[], &[]), Some(vec![]));
        // What a container has already, and what an init container leaves.
        assert_eq!(ways(&state, 1, &["c"], &[]), Some(vec![(one, true), (both.clone(), false)]));
        assert_eq!(ways(&state, 2, &["c"], &[]), Some(vec![]));
        assert_eq!(ways(&state, 2, &[], &["a"]), Some(vec![(zero, true), (both, false)]));
    }

    #[test]
    fn a_pod_needs_the_devices_of_its_containers_at_one_time() {
        let container =
            |count: &str| api::object!({"resources": {"limits": {"example.com/x": count, "cpu": "9"}}});
        let mut sidecar = container("1");
        sidecar.set(&["restartPolicy"], "Always");
        let pod = api::object!({"spec": {
            "initContainers": [(container("2")), (sidecar), (container("5"))],
            "containers": [(container("2")), (container("2"))],
        }});
        assert_eq!(wanted_by_pod(&pod, R), 6);
    }
}
