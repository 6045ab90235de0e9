//! Giving devices to the containers of a pod.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::Value;
use api::quantity::Quantity;

use super::api::{
    ALLOCATE, AllocateRequest, AllocateResponse, ContainerPreferredRequest, DeviceIds, Empty, PRE_START,
    PREFERRED, PreferredRequest, PreferredResponse,
};
use super::state::{Candidates, Endpoint, Ids, Wish};
use super::{Devices, Options};
use crate::pods::spec;

/// How long a plug-in may take before a container starts.
const PRE_START_LIMIT: Duration = Duration::from_secs(30);

/// The resources that a container is limited to, with how much: nobody gets more devices than that, or fewer.
pub(super) fn limits(container: &Value) -> impl Iterator<Item = (&str, usize)> {
    let limits =
        container.at(&["resources", "limits"]).as_object().into_iter().flat_map(|limits| limits.iter());
    limits.filter(|(name, _)| name.contains('/')).filter_map(|(name, amount)| {
        let amount: Quantity = amount.as_str()?.parse().ok()?;
        Some((name, usize::try_from(amount.units()).ok()?))
    })
}

/// What init containers of a pod leave to those that come after them, by resource.
#[derive(Debug, Default)]
pub(crate) struct Reusable(pub(super) BTreeMap<String, Ids>);

impl Devices {
    /// Whether a container wants devices.
    pub(crate) fn concerns(&self, pod: &Value) -> bool {
        spec::all_containers(pod).flat_map(limits).any(|(resource, _)| self.manages(resource))
    }

    /// Gives a container of a new pod its devices: those that are left to it first, then those of some nodes. One that
    /// runs has them already, whatever is known here. The error is a sentence.
    pub(crate) async fn allocate(
        &self,
        pod: &Value,
        container: &Value,
        running: bool,
        reusable: &mut Reusable,
        affinity: Option<BTreeSet<i64>>,
    ) -> Result<(), String> {
        let name = container.str_at(&["name"]);
        if !running {
            self.allocate_to(pod, container, &mut reusable.0, affinity).await?;
        }
        let given = self.state.lock().of(pod.uid(), name).cloned().unwrap_or_default();
        let ends = spec::is_init(pod, name) && !spec::is_sidecar(container);
        for (resource, given) in given {
            let free = reusable.0.entry(resource).or_default();
            for id in given.ids() {
                if ends {
                    free.insert(id)
                } else {
                    free.remove(&id)
                };
            }
        }
        Ok(())
    }

    async fn allocate_to(
        &self,
        pod: &Value,
        container: &Value,
        reusable: &mut BTreeMap<String, Ids>,
        affinity: Option<BTreeSet<i64>>,
    ) -> Result<(), String> {
        let (uid, name) = (pod.uid(), container.str_at(&["name"]));
        let _turn = self.turn.lock().await;
        let mut changed = false;
        for (resource, count) in limits(container) {
            if !self.manages(resource) {
                continue;
            }
            let wish = Wish { uid, container: name, resource, count };
            let free = reusable.entry(resource.to_owned()).or_default();
            let (candidates, endpoint) = {
                let state = self.state.lock();
                let candidates = state.candidates(&wish, free, affinity.as_ref())?;
                (candidates, state.resources.get(resource).and_then(|entry| entry.endpoint.clone()))
            };
            let Some(candidates) = candidates else { continue };
            let endpoint = endpoint.ok_or_else(|| format!("unknown Device Plugin {resource}"))?;
            let ids = self.choose(&endpoint, candidates, count).await?;
            if ids.is_empty() {
                continue;
            }
            let began = Instant::now();
            let request =
                AllocateRequest { containers: vec![DeviceIds { ids: ids.iter().cloned().collect() }] };
            let answer: Result<AllocateResponse, _> =
                endpoint.plugin.call(ALLOCATE, request, self.patience).await;
            self.durations.with_label_values(&[resource]).observe(began.elapsed().as_secs_f64());
            let mut answer = answer.map_err(|error| error.to_string())?;
            if answer.containers.is_empty() {
                return Err(format!("no containers return in allocation response of {resource}"));
            }
            self.state.lock().give(&wish, &ids, answer.containers.swap_remove(0));
            changed = true;
        }
        if changed {
            self.write();
        }
        Ok(())
    }

    /// Chooses devices: those of init containers, then those that are near, among them what the plug-in would take.
    async fn choose(&self, endpoint: &Endpoint, from: Candidates, count: usize) -> Result<Ids, String> {
        let mut chosen = from.chosen.clone();
        let take = |chosen: &mut Ids, from: &Ids| {
            for id in from {
                if chosen.len() < count {
                    chosen.insert(id.clone());
                }
            }
            chosen.len() >= count
        };
        if chosen.len() >= count {
            return Ok(chosen);
        }
        if count - chosen.len() < from.aligned.len() {
            let preferred = self.preferred(endpoint, &from.aligned, &chosen, count).await?;
            let preferred = preferred.intersection(&from.aligned).cloned().collect();
            if take(&mut chosen, &preferred) || take(&mut chosen, &from.aligned) {
                return Ok(chosen);
            }
        } else if take(&mut chosen, &from.aligned) {
            return Ok(chosen);
        }
        let preferred = self.preferred(endpoint, &from.available, &chosen, count).await?;
        let preferred: Ids = preferred.intersection(&from.available).cloned().collect();
        for side in [&preferred, &from.unaligned, &from.anywhere] {
            if take(&mut chosen, side) {
                return Ok(chosen);
            }
        }
        Err(format!(
            "unexpectedly allocated less resources than required. Requested: {count}, Got: {}",
            chosen.len()
        ))
    }

    async fn preferred(
        &self,
        endpoint: &Endpoint,
        from: &Ids,
        chosen: &Ids,
        count: usize,
    ) -> Result<Ids, String> {
        if !endpoint.options.get_preferred_allocation_available {
            return Ok(Ids::new());
        }
        let request = ContainerPreferredRequest {
            available: from.union(chosen).cloned().collect(),
            must_include: chosen.iter().cloned().collect(),
            size: i32::try_from(count).unwrap_or(i32::MAX),
        };
        let request = PreferredRequest { containers: vec![request] };
        let answer: Result<PreferredResponse, _> =
            endpoint.plugin.call(PREFERRED, request, self.patience).await;
        let answer = answer
            .map_err(|error| format!("device plugin GetPreferredAllocation rpc failed with err: {error}"))?;
        Ok(answer.containers.into_iter().next().map(|ids| ids.ids.into_iter().collect()).unwrap_or_default())
    }

    /// What a container that is about to start needs for its devices; plug-ins that want to know of it are told. The error
    /// is a sentence.
    pub(crate) async fn options(&self, pod: &Value, container: &Value) -> Result<Options, String> {
        let (uid, name) = (pod.uid(), container.str_at(&["name"]));
        let mut lacking = false;
        for (resource, count) in limits(container) {
            if count == 0 || !self.manages(resource) {
                continue;
            }
            let (endpoint, ids) = {
                let state = self.state.lock();
                let ids = state.of(uid, name).and_then(|given| given.get(resource)).map(|given| given.ids());
                (state.resources.get(resource).map(|entry| entry.endpoint.clone()), ids)
            };
            let endpoint = endpoint.ok_or_else(|| {
                format!("endpoint not found in cache for a registered resource: {resource}")
            })?;
            lacking |= ids.is_none();
            let Some(endpoint) = endpoint.filter(|endpoint| endpoint.options.pre_start_required) else {
                continue;
            };
            let ids = ids.ok_or_else(|| {
                format!(
                    "no devices found allocated in local cache for pod {uid}, container {name}, resource {resource}"
                )
            })?;
            let request = DeviceIds { ids: ids.into_iter().collect() };
            let told: Result<Empty, _> = endpoint.plugin.call(PRE_START, request, PRE_START_LIMIT).await;
            told.map_err(|error| format!("device plugin PreStartContainer rpc failed with err: {error}"))?;
        }
        if lacking {
            // The pod was let in before its plug-in had made itself known.
            self.allocate_to(pod, container, &mut BTreeMap::new(), None).await?;
        }
        let mut options = Options::default();
        for given in self.state.lock().of(uid, name).into_iter().flat_map(BTreeMap::values) {
            options.add(&given.response);
        }
        Ok(options)
    }
}
