//! What of the node's processors and memory each pod has been given.
//!
//! A pod is given what its spec asks for when it is let in. When the spec changes later, the pod keeps what it has until
//! there is room for what it asks for; who waits for room is looked at again, the most important first, whenever some
//! may have become free. What was given, and what containers really run with, is kept in two files of upstream's.

mod checkpoint;
mod decide;
mod queue;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use api::{Map, Value};
use parking_lot::Mutex;

use crate::pods::{amounts, spec};

pub(crate) use checkpoint::Info;
use checkpoint::{Checkpoint, Keeper};
pub(crate) use decide::{Infeasible, Trigger, keep_trying};

const ALLOCATED: &str = "allocated_pods_state";
const ACTUATED: &str = "actuated_pods_state";

/// One of the two conditions of a pod whose resources change; it is there while it is true.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    reason: String,
    message: String,
    generation: i64,
    since: String,
    probed: String,
}

/// The conditions of a pod whose resources change.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Conditions {
    pending: Option<Condition>,
    in_progress: Option<Condition>,
}

impl Conditions {
    /// The types, in the order of the status.
    pub(crate) const TYPES: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

    /// The conditions as the API has them.
    pub(crate) fn to_values(&self) -> impl Iterator<Item = Value> {
        let both = Self::TYPES.into_iter().zip([&self.pending, &self.in_progress]);
        both.filter_map(|(kind, condition)| Some(value(kind, condition.as_ref()?)))
    }

    /// Whether the pod waits for room.
    fn is_deferred(&self) -> bool {
        self.pending.as_ref().is_some_and(|condition| condition.reason == words::DEFERRED)
    }

    fn of(pod: &Value) -> Self {
        let find = |kind: &str| {
            let mut all = pod.array_at(&["status", "conditions"]).iter();
            let found = all.find(|condition| condition.str_at(&["type"]) == kind)?;
            let text = |field: &str| found.str_at(&[field]).to_owned();
            Some(Condition {
                reason: text("reason"),
                message: text("message"),
                generation: found.get("observedGeneration").as_i64().unwrap_or_default(),
                since: text("lastTransitionTime"),
                probed: text("lastProbeTime"),
            })
        };
        Self { pending: find(Self::TYPES[0]), in_progress: find(Self::TYPES[1]) }
    }
}

fn value(kind: &str, condition: &Condition) -> Value {
    let mut out = Map::new();
    out.push("type", kind.into());
    if condition.generation > 0 {
        out.push("observedGeneration", condition.generation.into());
    }
    out.push("status", "True".into());
    out.push(
        "lastProbeTime",
        if condition.probed.is_empty() { Value::Null } else { condition.probed.as_str().into() },
    );
    out.push("lastTransitionTime", condition.since.as_str().into());
    for (field, text) in [("reason", &condition.reason), ("message", &condition.message)] {
        if !text.is_empty() {
            out.push(field, text.as_str().into());
        }
    }
    Value::Object(out)
}

struct State {
    allocated: Checkpoint,
    actuated: Checkpoint,
    conditions: HashMap<String, Conditions>,
    /// Who waits for room, and for which generation of the spec, the most important first.
    pending: Vec<(String, i64)>,
}

/// What all pods have been given.
pub(crate) struct Allocations {
    /// Held while it is decided who gets what.
    turn: Mutex<()>,
    state: Mutex<State>,
    allocated: Arc<Keeper>,
    actuated: Arc<Keeper>,
}

impl Allocations {
    /// Reads what was given before from the kubelet's folder.
    pub(crate) fn load(root: &Path) -> anyhow::Result<Self> {
        let (allocated, actuated) = (root.join(ALLOCATED), root.join(ACTUATED));
        let state = State {
            allocated: Checkpoint::load(&allocated)?,
            actuated: Checkpoint::load(&actuated)?,
            conditions: HashMap::new(),
            pending: Vec::new(),
        };
        Ok(Self {
            turn: Mutex::default(),
            state: Mutex::new(state),
            allocated: Keeper::new(allocated),
            actuated: Keeper::new(actuated),
        })
    }

    /// Whether the pod has been let in.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.state.lock().allocated.get(uid).is_some()
    }

    /// The pod with the resources that it has been given in place of those that it asks for.
    pub(crate) fn allocated(&self, pod: &Arc<Value>) -> Arc<Value> {
        let state = self.state.lock();
        let Some(info) = state.allocated.get(pod.uid()) else { return pod.clone() };
        match differs(pod, info) {
            true => Arc::new(with_resources(pod, info)),
            false => pod.clone(),
        }
    }

    /// Whether the pod asks for something else than it has.
    pub(crate) fn wants_other(&self, pod: &Value) -> bool {
        self.state.lock().allocated.get(pod.uid()).is_some_and(|info| differs(pod, info))
    }

    /// Gives the pod what it asks for. Nothing may come of it before it is saved.
    fn allocate(&self, pod: &Value) {
        let given = of_pod(pod);
        self.state.lock().allocated.change(pod.uid(), |info| *info = given);
    }

    /// Waits until all that was given and noted so far is in the files.
    pub(crate) async fn save(&self) {
        let (allocated, actuated) = {
            let state = self.state.lock();
            (state.allocated.changes(), state.actuated.changes())
        };
        let saved = tokio::join!(
            self.allocated.keep(allocated, || self.state.lock().allocated.newest()),
            self.actuated.keep(actuated, || self.state.lock().actuated.newest()),
        );
        for (saved, file) in [(saved.0, ALLOCATED), (saved.1, ACTUATED)] {
            if let Err(error) = saved {
                tracing::error!(file, err = %error, "Cannot write the checkpoint");
            }
        }
    }

    /// What the pod's containers run with.
    pub(crate) fn actuated(&self, uid: &str) -> Info {
        self.state.lock().actuated.get(uid).cloned().unwrap_or_default()
    }

    /// Notes what a container runs with from now on.
    pub(crate) fn actuate(&self, pod: &Value, container: &str, resources: Value) {
        self.state.lock().actuated.change(pod.uid(), |info| {
            info.container_resources.insert(container.to_owned(), resources);
        });
    }

    /// Notes what the pod as a whole runs with from now on.
    pub(crate) fn actuate_pod(&self, pod: &Value) {
        let resources = pod.at(&["spec", "resources"]);
        if !resources.is_empty() {
            let mut state = self.state.lock();
            state.actuated.change(pod.uid(), |info| info.pod_level_resources = resources.clone());
        }
    }

    /// Takes over the conditions that an earlier kubelet reported.
    pub(crate) fn take_over(&self, pod: &Value) {
        let conditions = Conditions::of(pod);
        if conditions != Conditions::default() {
            self.state.lock().conditions.entry(pod.uid().to_owned()).or_insert(conditions);
        }
    }

    /// The pod's conditions.
    pub(crate) fn conditions(&self, uid: &str) -> Conditions {
        self.state.lock().conditions.get(uid).cloned().unwrap_or_default()
    }

    /// How many pods wait for other resources, by why, and how many are getting them.
    pub(crate) fn count_conditions(&self) -> (BTreeMap<String, i64>, i64) {
        let state = self.state.lock();
        let mut pending = BTreeMap::new();
        for condition in state.conditions.values().filter_map(|both| both.pending.as_ref()) {
            *pending.entry(condition.reason.clone()).or_default() += 1;
        }
        let in_progress = state.conditions.values().filter(|both| both.in_progress.is_some()).count();
        (pending, i64::try_from(in_progress).unwrap_or(i64::MAX))
    }

    /// Takes back both conditions, of a pod that has ended.
    pub(crate) fn clear_conditions(&self, uid: &str) {
        self.state.lock().conditions.remove(uid);
    }

    /// Notes that the pod waits for room; true when that was not known.
    fn set_pending(&self, pod: &Value, reason: &str, message: &str, now: &str) -> bool {
        let reason = if reason == words::INFEASIBLE { reason } else { words::DEFERRED };
        let generation = pod.at(&["metadata", "generation"]).as_i64().unwrap_or_default();
        let mut state = self.state.lock();
        let slot = &mut state.conditions.entry(pod.uid().to_owned()).or_default().pending;
        let new = slot.as_ref().is_none_or(|old| old.reason != reason || old.generation != generation);
        *slot = Some(updated(slot.as_ref(), reason, message, generation, now));
        new
    }

    /// Notes that what was given is not in effect yet; true when the condition changed. An empty reason leaves the last
    /// error in place. The generation stays the one that was given.
    pub(crate) fn set_in_progress(&self, pod: &Value, reason: &str, message: &str, now: &str) -> bool {
        let generation = pod.at(&["metadata", "generation"]).as_i64().unwrap_or_default();
        let mut state = self.state.lock();
        let slot = &mut state.conditions.entry(pod.uid().to_owned()).or_default().in_progress;
        let (mut reason, mut message, mut generation) = (reason.to_owned(), message.to_owned(), generation);
        if let Some(old) = slot.as_ref() {
            if reason.is_empty() && message.is_empty() {
                (reason, message) = (old.reason.clone(), old.message.clone());
            }
            generation = old.generation;
            if old.reason == reason && old.message == message {
                return false;
            }
        }
        *slot = Some(updated(slot.as_ref(), &reason, &message, generation, now));
        true
    }

    /// Takes back that something is in progress; the generation that it was about.
    pub(crate) fn clear_in_progress(&self, uid: &str) -> Option<i64> {
        let mut state = self.state.lock();
        let condition = state.conditions.get_mut(uid)?.in_progress.take()?;
        Some(condition.generation)
    }

    fn clear_pending(&self, uid: &str) {
        if let Some(conditions) = self.state.lock().conditions.get_mut(uid) {
            conditions.pending = None;
        }
    }

    /// Forgets a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        let mut state = self.state.lock();
        state.allocated.forget(uid);
        state.actuated.forget(uid);
        state.conditions.remove(uid);
        state.pending.retain(|(pending, _)| pending != uid);
    }

    /// Forgets all pods but some.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        let mut state = self.state.lock();
        state.allocated.retain(&keep);
        state.actuated.retain(&keep);
    }
}

fn updated(old: Option<&Condition>, reason: &str, message: &str, generation: i64, now: &str) -> Condition {
    let since = old.filter(|old| old.reason == reason).map_or(now, |old| old.since.as_str());
    Condition {
        reason: reason.to_owned(),
        message: message.to_owned(),
        generation,
        since: since.to_owned(),
        probed: now.to_owned(),
    }
}

fn of_pod(pod: &Value) -> Info {
    let containers = spec::all_containers(pod);
    let named = |container: &Value| {
        let resources = container.get("resources").as_object().cloned().unwrap_or_default();
        (container.str_at(&["name"]).to_owned(), Value::Object(resources))
    };
    Info {
        container_resources: containers.map(named).collect(),
        pod_level_resources: pod.at(&["spec", "resources"]).clone(),
    }
}

fn differs(pod: &Value, info: &Info) -> bool {
    !amounts::same(pod.at(&["spec", "resources"]), &info.pod_level_resources)
        || spec::all_containers(pod).any(|container| {
            let given = info.container_resources.get(container.str_at(&["name"]));
            given.is_some_and(|given| !amounts::same(given, container.get("resources")))
        })
}

fn with_resources(pod: &Value, info: &Info) -> Value {
    let mut pod = pod.clone();
    if info.pod_level_resources.is_null() {
        pod.remove_at(&["spec", "resources"]);
    } else {
        pod.set(&["spec", "resources"], info.pod_level_resources.clone());
    }
    for field in ["initContainers", "containers"] {
        for container in pod.at_mut(&["spec", field]).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(given) = info.container_resources.get(container.str_at(&["name"])) {
                container.set(&["resources"], given.clone());
            }
        }
    }
    pod
}

#[cfg(test)]
mod tests;
