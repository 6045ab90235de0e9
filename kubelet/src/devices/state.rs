//! Which devices there are, and who has which: decisions alone, no calls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use api::Value;

use super::api::{Allocated, Device, HEALTHY, Options};
use crate::grpc::Plugin;

/// A plug-in that is gone keeps its resource for this long: it may only be started over.
const GRACE: Duration = Duration::from_secs(300);
/// Stands for no node in particular.
pub(super) const NOWHERE: i64 = -1;

/// Ids of devices.
pub(super) type Ids = BTreeSet<String>;

/// The devices of one resource that a container has.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Given {
    /// Ids by the nodes that they belong to.
    pub(super) devices: BTreeMap<i64, Vec<String>>,
    /// What the plug-in says that the container needs.
    pub(super) response: Allocated,
}

impl Given {
    pub(super) fn ids(&self) -> Ids {
        self.devices.values().flatten().cloned().collect()
    }
}

/// Devices by pod, container and resource.
pub(super) type Pods = BTreeMap<String, BTreeMap<String, BTreeMap<String, Given>>>;

/// The plug-in of a resource.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) plugin: Plugin,
    pub(super) options: Options,
    /// Tells one connection of a plug-in from the next.
    pub(super) generation: u64,
}

/// One resource.
#[derive(Debug, Default)]
pub(super) struct Resource {
    /// None until a plug-in makes itself known.
    pub(super) endpoint: Option<Endpoint>,
    /// Since when the plug-in is gone.
    pub(super) stopped: Option<Instant>,
    pub(super) devices: BTreeMap<String, Device>,
    pub(super) healthy: Ids,
    pub(super) unhealthy: Ids,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) resources: HashMap<String, Resource>,
    pub(super) pods: Pods,
}

/// How much of each resource there is.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Amounts {
    /// All devices, by resource.
    pub capacity: BTreeMap<String, usize>,
    /// Those that can be used.
    pub allocatable: BTreeMap<String, usize>,
    /// Resources that there were until now.
    pub removed: Vec<String>,
}

impl Amounts {
    /// Takes away what an older list of resources shows and nobody speaks of any more.
    pub(crate) fn forget(&mut self, before: &Value) {
        let names = before.as_object().into_iter().flat_map(|map| map.iter()).map(|(name, _)| name);
        let gone = names.filter(|name| name.contains('/') && !self.capacity.contains_key(*name));
        self.removed.extend(gone.map(str::to_owned).collect::<Vec<_>>());
    }
}

/// Devices that a container could get.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Candidates {
    /// Chosen already: they were those of the pod's init containers.
    pub(super) chosen: Ids,
    /// All that are free.
    pub(super) available: Ids,
    /// On the nodes that the container is to be on.
    pub(super) aligned: Ids,
    /// On other nodes.
    pub(super) unaligned: Ids,
    /// On no node in particular.
    pub(super) anywhere: Ids,
}

impl State {
    /// Whether a resource is one of devices.
    pub(super) fn manages(&self, resource: &str) -> bool {
        self.resources.contains_key(resource) || self.given().any(|(name, _)| name == resource)
    }

    fn given(&self) -> impl Iterator<Item = (&str, &Given)> {
        let containers = self.pods.values().flat_map(BTreeMap::values);
        containers.flatten().map(|(resource, given)| (resource.as_str(), given))
    }

    /// The devices of a resource that containers have.
    pub(super) fn used(&self, resource: &str) -> Ids {
        self.given().filter(|(name, _)| *name == resource).flat_map(|(_, given)| given.ids()).collect()
    }

    /// What a container has.
    pub(super) fn of(&self, uid: &str, container: &str) -> Option<&BTreeMap<String, Given>> {
        self.pods.get(uid)?.get(container)
    }

    /// Takes over what a plug-in says about its devices; returns the pods that have a device whose health is another now.
    pub(super) fn update(&mut self, resource: &str, devices: Vec<Device>) -> Vec<String> {
        let entry = self.resources.entry(resource.to_owned()).or_default();
        let before = std::mem::take(&mut entry.devices);
        entry.healthy.clear();
        entry.unhealthy.clear();
        let mut changed = Ids::new();
        for device in devices {
            if before.get(&device.id).is_none_or(|old| old.health != device.health) {
                changed.insert(device.id.clone());
            }
            let side = if device.health == HEALTHY { &mut entry.healthy } else { &mut entry.unhealthy };
            side.insert(device.id.clone());
            entry.devices.insert(device.id.clone(), device);
        }
        let has = |containers: &BTreeMap<String, BTreeMap<String, Given>>| {
            let mut given = containers.values().filter_map(|resources| resources.get(resource));
            given.any(|given| given.devices.values().flatten().any(|id| changed.contains(id)))
        };
        self.pods.iter().filter(|(_, containers)| has(containers)).map(|(uid, _)| uid.clone()).collect()
    }

    /// A plug-in is gone: nobody knows how its devices are.
    pub(super) fn disconnect(&mut self, resource: &str, now: Instant) {
        if let Some(entry) = self.resources.get_mut(resource) {
            entry.unhealthy.append(&mut entry.healthy);
            entry.stopped = Some(now);
        }
    }

    /// How much there is. Resources whose plug-in has been gone for too long are forgotten.
    pub(super) fn amounts(&mut self, now: Instant) -> Amounts {
        let gone =
            |entry: &Resource| entry.stopped.is_some_and(|stopped| now.duration_since(stopped) > GRACE);
        let mut amounts = Amounts::default();
        for (name, entry) in &self.resources {
            if gone(entry) {
                amounts.removed.push(name.clone());
                continue;
            }
            amounts.capacity.insert(name.clone(), entry.healthy.len() + entry.unhealthy.len());
            amounts.allocatable.insert(name.clone(), entry.healthy.len());
        }
        self.resources.retain(|_, entry| !gone(entry));
        amounts
    }

    /// The devices that a container could get; none when it needs none beyond those that it has. The error is a sentence.
    pub(super) fn candidates(
        &self,
        wish: &Wish<'_>,
        reusable: &Ids,
        affinity: Option<&BTreeSet<i64>>,
    ) -> Result<Option<Candidates>, String> {
        let Wish { uid, container, resource, count } = *wish;
        let has = self.of(uid, container).and_then(|given| given.get(resource)).map(Given::ids);
        if let Some(has) = &has
            && has.len() != count
        {
            return Err(format!(
                "pod {uid:?} container {container:?} changed request for resource {resource:?} from {} to {count}",
                has.len()
            ));
        }
        let entry = self.resources.get(resource);
        let entry = entry.ok_or_else(|| format!("cannot allocate unregistered device {resource}"))?;
        if entry.healthy.is_empty() {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        }
        let has = has.unwrap_or_default();
        if !entry.healthy.is_superset(&has) {
            return Err(format!(
                "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
            ));
        }
        if has.len() == count {
            return Ok(None);
        }
        let chosen: Ids = reusable.iter().take(count).cloned().collect();
        let needed = count - chosen.len();
        let used = self.used(resource);
        let available: Ids = entry.healthy.iter().filter(|id| !used.contains(*id)).cloned().collect();
        if available.len() < needed {
            return Err(format!(
                "requested number of devices unavailable for {resource}. Requested: {needed}, Available: {}",
                available.len()
            ));
        }
        let mut candidates = Candidates { chosen, ..Candidates::default() };
        let located = entry.devices.values().any(|device| !nodes(device).is_empty());
        for id in &available {
            let nodes = entry.devices.get(id).map(nodes).unwrap_or_default();
            let side = match affinity.filter(|_| located) {
                None => &mut candidates.anywhere,
                Some(_) if nodes.is_empty() => &mut candidates.anywhere,
                Some(wanted) if nodes.iter().any(|node| wanted.contains(node)) => &mut candidates.aligned,
                Some(_) => &mut candidates.unaligned,
            };
            side.insert(id.clone());
        }
        candidates.available = available;
        Ok(Some(candidates))
    }

    /// Gives devices to a container.
    pub(super) fn give(&mut self, wish: &Wish<'_>, ids: &Ids, response: Allocated) {
        let mut devices = BTreeMap::<i64, Vec<String>>::new();
        let known = self.resources.get(wish.resource);
        for id in ids {
            let mut nodes = known.and_then(|entry| entry.devices.get(id)).map(nodes).unwrap_or_default();
            if nodes.is_empty() {
                nodes.push(NOWHERE);
            }
            for node in nodes {
                devices.entry(node).or_default().push(id.clone());
            }
        }
        let containers = self.pods.entry(wish.uid.to_owned()).or_default();
        let resources = containers.entry(wish.container.to_owned()).or_default();
        resources.insert(wish.resource.to_owned(), Given { devices, response });
    }
}

/// The nodes that a device belongs to.
pub(super) fn nodes(device: &Device) -> Vec<i64> {
    device
        .topology
        .as_ref()
        .map(|topology| topology.nodes.iter().map(|node| node.id).collect())
        .unwrap_or_default()
}

/// A container wants so many devices of a resource.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) uid: &'a str,
    pub(super) container: &'a str,
    pub(super) resource: &'a str,
    pub(super) count: usize,
}

#[cfg(test)]
mod tests {
    use super::super::api::{NumaNode, TopologyInfo};
    use super::*;

    const R: &str = "example.com/x";

    fn device(id: &str, health: &str, node: Option<i64>) -> Device {
        let topology = node.map(|id| TopologyInfo { nodes: vec![NumaNode { id }] });
        Device { id: id.to_owned(), health: health.to_owned(), topology }
    }

    fn ids(all: &[&str]) -> Ids {
        all.iter().map(|id| (*id).to_owned()).collect()
    }

    fn wish(uid: &str, count: usize) -> Wish<'_> {
        Wish { uid, container: "c", resource: R, count }
    }

    #[test]
    fn what_cannot_be_given_is_refused_in_upstreams_words() {
        let mut state = State::default();
        let refused = |state: &State, wish: &Wish<'_>| state.candidates(wish, &Ids::new(), None).unwrap_err();
        assert_eq!(refused(&state, &wish("u", 1)), "cannot allocate unregistered device example.com/x");
        state.update(R, vec![device("a", "Unhealthy", None)]);
        assert_eq!(
            refused(&state, &wish("u", 1)),
            "no healthy devices present; cannot allocate unhealthy devices example.com/x"
        );
        state.update(R, vec![device("a", HEALTHY, None), device("b", HEALTHY, None)]);
        state.give(&wish("u", 1), &ids(&["a"]), Allocated::default());
        assert_eq!(
            refused(&state, &wish("v", 2)),
            "requested number of devices unavailable for example.com/x. Requested: 2, Available: 1"
        );
        assert_eq!(
            refused(&state, &wish("u", 2)),
            "pod \"u\" container \"c\" changed request for resource \"example.com/x\" from 1 to 2"
        );
        assert_eq!(state.candidates(&wish("u", 1), &Ids::new(), None), Ok(None));
        let pods = state.update(R, vec![device("a", "Unhealthy", None), device("b", HEALTHY, None)]);
        assert_eq!(pods, ["u"]);
        assert_eq!(
            refused(&state, &wish("u", 1)),
            "previously allocated devices are no longer healthy; cannot allocate unhealthy devices example.com/x"
        );
    }

    #[test]
    fn devices_near_the_container_come_first_and_those_of_init_containers_are_used_again() {
        let mut state = State::default();
        let all = [("a", Some(0)), ("b", Some(1)), ("c", None), ("d", Some(1))];
        state.update(R, all.map(|(id, node)| device(id, HEALTHY, node)).into());
        let found = state.candidates(&wish("u", 3), &ids(&["d"]), Some(&[1].into())).unwrap().unwrap();
        assert_eq!(found.chosen, ids(&["d"]));
        assert_eq!(
            (found.aligned, found.unaligned, found.anywhere),
            (ids(&["b", "d"]), ids(&["a"]), ids(&["c"]))
        );
        state.give(&wish("u", 3), &ids(&["a", "c"]), Allocated::default());
        assert_eq!(
            state.of("u", "c").unwrap()[R].devices,
            BTreeMap::from([(-1, vec!["c".to_owned()]), (0, vec!["a".to_owned()])])
        );
        assert_eq!(state.used(R), ids(&["a", "c"]));
    }

    #[test]
    fn a_resource_outlives_its_plugin_for_a_while() {
        let (mut state, now) = (State::default(), Instant::now());
        state.update(R, vec![device("a", HEALTHY, None), device("b", "Unhealthy", None)]);
        let amounts = state.amounts(now);
        assert_eq!((amounts.capacity[R], amounts.allocatable[R]), (2, 1));
        state.disconnect(R, now);
        let amounts = state.amounts(now + GRACE);
        assert_eq!((amounts.capacity[R], amounts.allocatable[R]), (2, 0));
        let amounts = state.amounts(now + GRACE + Duration::from_secs(1));
        assert_eq!(amounts, Amounts { removed: vec![R.to_owned()], ..Amounts::default() });
        assert!(!state.manages(R));
    }
}
