//! What a StatefulSet does next.

use std::sync::Arc;
use std::time::Duration;

use api::{Value, object};
use client::resource::{PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use client::{DeleteOptions, Patch};
use jiff::Timestamp;

use super::retention::{Claimed, is_stale};
use crate::act::{Action, Note, head};
use crate::objects::{int, int_or_percent, is_finished, is_ready, phase, pod_from_template, until_available};
use crate::revisions::{self, LABEL};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// A StatefulSet and what belongs to it.
pub(super) struct View<'v> {
    pub(super) set: &'v Value,
    pub(super) pods: &'v [Arc<Value>],
    pub(super) revisions: &'v [Arc<Value>],
    pub(super) claim_named: &'v dyn Fn(&str) -> Option<Arc<Value>>,
}

/// The ordinal of a pod of this set; none of another.
pub(super) fn ordinal(set: &Value, pod: &Value) -> Option<i64> {
    pod.name().strip_prefix(set.name())?.strip_prefix('-')?.parse().ok()
}

/// What the present round works with.
struct Round<'v> {
    view: &'v View<'v>,
    now: Timestamp,
    current: Value,
    update: Value,
    in_order: bool,
    first: i64,
    end: i64,
}

pub(super) fn plan(view: &View<'_>, now: Timestamp) -> Vec<Action> {
    let set = view.set;
    let (update, mut actions) = revisions::current(set, view.revisions);
    let current = view.revisions.iter().find(|r| r.name() == set.str_at(&["status", "currentRevision"]));
    let current = current.map_or_else(|| update.clone(), |r| (**r).clone());
    let first = int(set, &["spec", "ordinals", "start"], 0);
    let round = Round {
        view,
        now,
        current,
        in_order: set.str_at(&["spec", "podManagementPolicy"]) != "Parallel",
        first,
        end: first + int(set, &["spec", "replicas"], 1),
        update,
    };
    if !set.is_terminating() {
        actions.extend(round.pods());
    }
    actions.extend(round.status());
    let used = |name: &str| {
        name == round.update.name()
            || name == round.current.name()
            || view.pods.iter().any(|p| p.label(LABEL) == Some(name))
    };
    actions.extend(revisions::truncate(set, view.revisions, used));
    actions.extend(round.wait());
    actions
}

impl Round<'_> {
    fn set(&self) -> &Value {
        self.view.set
    }

    fn min_ready(&self) -> i64 {
        int(self.set(), &["spec", "minReadySeconds"], 0)
    }

    fn is_available(&self, pod: &Value) -> bool {
        phase(pod) == "Running"
            && !pod.is_terminating()
            && until_available(pod, self.min_ready(), self.now) == Some(0)
    }

    fn pod(&self, ordinal: i64) -> Option<&Arc<Value>> {
        self.view.pods.iter().find(|p| self::ordinal(self.set(), p) == Some(ordinal))
    }

    /// The pods there should be, then those there should not be, then those of an old revision.
    fn pods(&self) -> Vec<Action> {
        let (actions, blocked) = self.replicas();
        if blocked || !actions.is_empty() && self.in_order {
            return actions;
        }
        let (mut more, blocked) = self.condemned();
        let mut actions = actions;
        actions.append(&mut more);
        if !blocked && actions.is_empty() {
            actions.extend(self.rolling());
        }
        actions
    }

    fn replicas(&self) -> (Vec<Action>, bool) {
        let mut actions = Vec::new();
        for ordinal in self.first..self.end {
            match self.pod(ordinal) {
                None => {
                    if self.waits_for_stale_claim(ordinal) {
                        return (actions, true);
                    }
                    actions.extend(self.create(ordinal));
                    if self.in_order {
                        return (actions, true);
                    }
                }
                Some(pod) if is_finished(pod) => {
                    // Deleted now and made anew when it is gone.
                    if !pod.is_terminating() {
                        actions.push(self.delete(pod));
                    }
                    if self.in_order {
                        return (actions, true);
                    }
                }
                Some(pod) => {
                    actions.extend(self.missing_claims(ordinal));
                    actions.extend(self.identity(pod, ordinal));
                    actions.extend(self.retention(pod, ordinal, true));
                    if self.in_order && !self.is_available(pod) {
                        return (actions, true);
                    }
                }
            }
        }
        (actions, false)
    }

    fn condemned(&self) -> (Vec<Action>, bool) {
        let out = |p: &&Arc<Value>| ordinal(self.set(), p).is_some_and(|n| n < self.first || n >= self.end);
        let mut condemned: Vec<&Arc<Value>> = self.view.pods.iter().filter(out).collect();
        condemned.sort_by_key(|p| std::cmp::Reverse(ordinal(self.set(), p)));
        // Claims are told what they go with before the first pod goes.
        let retention = |pod: &&Arc<Value>| {
            ordinal(self.set(), pod).map_or_else(Vec::new, |n| self.retention(pod, n, false))
        };
        let mut actions: Vec<Action> = condemned.iter().flat_map(retention).collect();
        let told = actions.len();
        for pod in condemned {
            if pod.is_terminating() {
                if self.in_order {
                    return (actions, true);
                }
                continue;
            }
            // Of several pods that do not do well the first may go: the fault could be its.
            let waits = self.in_order && !self.is_available(pod);
            if waits && self.first_unhealthy().is_some_and(|first| first.name() != pod.name()) {
                return (actions, true);
            }
            actions.push(self.delete(pod));
            if self.in_order {
                return (actions, true);
            }
        }
        let blocked = actions.len() > told;
        (actions, blocked)
    }

    fn first_unhealthy(&self) -> Option<&Arc<Value>> {
        let healthy = |p: &Value| phase(p) == "Running" && is_ready(p) && !p.is_terminating();
        let unhealthy = self.view.pods.iter().filter(|p| !healthy(p));
        unhealthy.min_by_key(|p| ordinal(self.set(), p))
    }

    /// Replaces pods of an old revision, the last first.
    fn rolling(&self) -> Vec<Action> {
        let strategy = self.set().at(&["spec", "updateStrategy"]);
        if strategy.str_at(&["type"]) == "OnDelete" {
            return Vec::new();
        }
        let partition = self.first + int(strategy, &["rollingUpdate", "partition"], 0);
        let limit = strategy.at(&["rollingUpdate", "maxUnavailable"]);
        let limit =
            if limit.is_null() { 1 } else { int_or_percent(limit, self.end - self.first, true).max(1) };
        let mut down =
            (self.first..self.end).filter(|n| self.pod(*n).is_none_or(|p| !self.is_available(p))).count();
        let limit = usize::try_from(limit).unwrap_or(1);
        let mut actions = Vec::new();
        for ordinal in (partition.max(self.first)..self.end).rev() {
            let Some(pod) = self.pod(ordinal) else { break };
            let old = pod.label(LABEL) != Some(self.update.name());
            if old && !pod.is_terminating() {
                let available = self.is_available(pod);
                if available && down >= limit {
                    break;
                }
                actions.push(self.delete(pod));
                down += usize::from(available);
                if limit == 1 {
                    break;
                }
            } else if !self.is_available(pod) && limit == 1 {
                break;
            }
        }
        actions
    }

    /// The revision a new pod of this ordinal is made from.
    fn revision_for(&self, ordinal: i64) -> &Value {
        let strategy = self.set().at(&["spec", "updateStrategy"]);
        if strategy.str_at(&["type"]) == "OnDelete" || self.current.name() == self.update.name() {
            return &self.update;
        }
        let old = match strategy.at(&["rollingUpdate", "partition"]).as_i64() {
            Some(partition) if partition > 0 => ordinal < self.first + partition,
            // DIVERGES: upstream counts in the status how many of the old are left. The roll-out goes from the last pod to
            // the first, so it has not come this far yet as long as a later pod is of the old revision.
            _ => self.view.pods.iter().any(|p| {
                self::ordinal(self.set(), p).is_some_and(|n| n > ordinal && n < self.end)
                    && p.label(LABEL) == Some(self.current.name())
            }),
        };
        if old { &self.current } else { &self.update }
    }

    fn create(&self, ordinal: i64) -> Vec<Action> {
        let mut actions = self.missing_claims(ordinal);
        let pod = self.new_pod(ordinal, self.revision_for(ordinal));
        let (name, set) = (pod.name().to_owned(), self.set().name());
        let note = Note {
            about: head(self.set()),
            done: ("SuccessfulCreate", format!("create Pod {name} in StatefulSet {set} successful")),
            failed: ("FailedCreate", format!("create Pod {name} in StatefulSet {set} failed error: ")),
        };
        actions.push(Action::Create(PODS, pod, Some(note)));
        actions
    }

    fn delete(&self, pod: &Value) -> Action {
        let (name, set) = (pod.name(), self.set().name());
        let note = Note {
            about: head(self.set()),
            done: ("SuccessfulDelete", format!("delete Pod {name} in StatefulSet {set} successful")),
            failed: ("FailedDelete", format!("delete Pod {name} in StatefulSet {set} failed error: ")),
        };
        Action::Delete(PODS, head(pod), DeleteOptions::uid(pod.uid()), Some(note))
    }

    fn new_pod(&self, ordinal: i64, revision: &Value) -> Value {
        let set = self.set();
        let name = format!("{}-{ordinal}", set.name());
        let mut pod = pod_from_template(&revisions::template(revision), set, set.name());
        pod.remove_at(&["metadata", "generateName"]);
        pod.set(&["metadata", "name"], name.as_str());
        pod.set(&["metadata", "labels", POD_NAME], name.as_str());
        pod.set(&["metadata", "labels", POD_INDEX], ordinal.to_string());
        pod.set(&["metadata", "labels", LABEL], revision.name());
        pod.set(&["spec", "hostname"], name.as_str());
        pod.set(&["spec", "subdomain"], set.str_at(&["spec", "serviceName"]));
        let mut volumes: Vec<Value> = pod.array_at(&["spec", "volumes"]).to_vec();
        for template in set.array_at(&["spec", "volumeClaimTemplates"]) {
            let volume = object!({
                "name": (template.name()),
                "persistentVolumeClaim": {"claimName": (claim_name(set, template, ordinal))},
            });
            volumes.retain(|v| v.str_at(&["name"]) != template.name());
            volumes.push(volume);
        }
        if !volumes.is_empty() {
            pod.set(&["spec", "volumes"], volumes);
        }
        pod
    }

    fn missing_claims(&self, ordinal: i64) -> Vec<Action> {
        let set = self.set();
        let templates = set.array_at(&["spec", "volumeClaimTemplates"]).iter();
        let missing = templates.filter(|t| (self.view.claim_named)(&claim_name(set, t, ordinal)).is_none());
        let create = |template: &Value| {
            let name = claim_name(set, template, ordinal);
            let mut labels = template.at(&["metadata", "labels"]).as_object().cloned().unwrap_or_default();
            let selected = set.at(&["spec", "selector", "matchLabels"]).as_object();
            for (key, value) in selected.into_iter().flat_map(api::Map::iter) {
                labels.insert(key, value);
            }
            let mut claim = object!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": (&name), "namespace": (set.namespace()), "labels": labels},
                "spec": (template.get("spec")),
            });
            let annotations = template.at(&["metadata", "annotations"]);
            if !annotations.is_empty() {
                claim.set(&["metadata", "annotations"], annotations);
            }
            let pod = format!("{}-{ordinal}", set.name());
            let what = format!("create Claim {name} Pod {pod} in StatefulSet {}", set.name());
            let note = Note {
                about: head(set),
                done: ("SuccessfulCreate", format!("{what} success")),
                failed: ("FailedCreate", format!("{what} failed error: ")),
            };
            Action::Create(PERSISTENT_VOLUME_CLAIMS, claim, Some(note))
        };
        missing.map(create).collect()
    }

    /// The claims there are for the pod of this ordinal.
    fn claims(&self, ordinal: i64) -> impl Iterator<Item = Arc<Value>> {
        let templates = self.set().array_at(&["spec", "volumeClaimTemplates"]).iter();
        templates.filter_map(move |t| (self.view.claim_named)(&claim_name(self.set(), t, ordinal)))
    }

    /// A claim of the earlier pod is still being deleted; a pod made now would lose it.
    fn waits_for_stale_claim(&self, ordinal: i64) -> bool {
        let pod = format!("{}-{ordinal}", self.set().name());
        self.claims(ordinal).any(|claim| is_stale(self.set(), &pod, &claim))
    }

    /// Owners of the pod's claims, as the retention policy wants them.
    fn retention(&self, pod: &Value, ordinal: i64, stays: bool) -> Vec<Action> {
        let claimed = Claimed { set: self.set(), pod, stays };
        let change = |claim: Arc<Value>| {
            let owners = claimed.owners(&claim)?;
            let version = claim.resource_version();
            let patch = object!({"metadata": {"ownerReferences": owners, "resourceVersion": version}});
            Some(Action::Patch(PERSISTENT_VOLUME_CLAIMS, head(&claim), "", Patch::Merge, patch))
        };
        self.claims(ordinal).filter_map(change).collect()
    }

    /// Labels that a pod of ours must have, put back where they are missing.
    fn identity(&self, pod: &Value, ordinal: i64) -> Option<Action> {
        let index = ordinal.to_string();
        let mut missing = api::Map::new();
        for (key, value) in [(POD_NAME, pod.name()), (POD_INDEX, index.as_str())] {
            if pod.label(key) != Some(value) {
                missing.push(key, value.into());
            }
        }
        let patch = object!({"metadata": {"labels": (missing.clone())}});
        (!missing.is_empty()).then(|| Action::Patch(PODS, head(pod), "", Patch::Merge, patch))
    }

    fn status(&self) -> Option<Action> {
        let set = self.set();
        let pods: Vec<&Arc<Value>> = self.view.pods.iter().collect();
        let count = |test: &dyn Fn(&Value) -> bool| pods.iter().filter(|p| test(p)).count();
        let of = |revision: &Value, p: &Value| p.label(LABEL) == Some(revision.name());
        let live = |p: &Value| !p.is_terminating() && !is_finished(p);
        let running = |p: &Value| phase(p) == "Running" && is_ready(p);
        let mut current = count(&|p| live(p) && of(&self.current, p));
        let updated = count(&|p| live(p) && of(&self.update, p));
        let ready = count(&running);
        let mut current_name = self.current.name();
        let rolling = set.str_at(&["spec", "updateStrategy", "type"]) != "OnDelete";
        if rolling && updated == pods.len() && ready == pods.len() {
            current_name = self.update.name();
            current = updated;
        }
        let mut status = object!({
            "observedGeneration": (set.at(&["metadata", "generation"])),
            "replicas": (pods.len()),
            "readyReplicas": ready,
            "currentReplicas": current,
            "updatedReplicas": updated,
            "currentRevision": current_name,
            "updateRevision": (self.update.name()),
            "collisionCount": (int(set, &["status", "collisionCount"], 0)),
            "availableReplicas": (count(&|p| self.is_available(p))),
            "conditions": (set.at(&["status", "conditions"])),
        });
        if let Value::Object(map) = &mut status {
            let always = ["replicas", "collisionCount", "availableReplicas"];
            map.retain(|k, v| always.contains(&k) || !v.is_empty());
        }
        if &status == set.get("status") {
            return None;
        }
        let mut updated = set.clone();
        updated.set(&["status"], status);
        Some(Action::UpdateStatus(STATEFUL_SETS, updated))
    }

    /// A ready pod becomes available by time alone.
    fn wait(&self) -> Option<Action> {
        let waits = self.view.pods.iter().filter_map(|p| until_available(p, self.min_ready(), self.now));
        let soonest = waits.filter(|w| *w > 0).min()?;
        Some(Action::Later(Duration::from_secs(u64::try_from(soonest).unwrap_or(1))))
    }
}

fn claim_name(set: &Value, template: &Value, ordinal: i64) -> String {
    format!("{}-{}-{ordinal}", template.name(), set.name())
}

#[cfg(test)]
mod tests;
