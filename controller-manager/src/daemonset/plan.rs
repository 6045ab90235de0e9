//! What a DaemonSet does next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Value, object};
use client::DeleteOptions;
use client::resource::{DAEMON_SETS, PODS};
use jiff::Timestamp;
use placement::{Effect, NodeView, PodView, matches_affinity, tolerates, untolerated};

use crate::act::{Action, Note, head};
use crate::objects::{
    created, int, int_or_percent, is_finished, is_ready, pod_from_template, until_available,
};
use crate::revisions::{self, LABEL};

/// Taints that daemons live with: they are there for the node's sake.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

struct Round<'s> {
    set: &'s Value,
    now: Timestamp,
    pod: Value,
    view: PodView,
    update: Value,
}

/// A node, whether a daemon should start and may stay there, and the daemons it has.
struct Place<'s> {
    name: &'s str,
    start: bool,
    stay: bool,
    pods: Vec<&'s Arc<Value>>,
}

pub(super) fn plan(
    set: &Value,
    pods: &[Arc<Value>],
    nodes: &[Arc<Value>],
    revisions: &[Arc<Value>],
    now: Timestamp,
) -> Vec<Action> {
    let (update, mut actions) = revisions::current(set, revisions);
    let pod = daemon(set, &update);
    let round = Round { set, now, view: PodView::of(&pod), pod, update };
    let places = round.places(pods, nodes);
    if !set.is_terminating() {
        let work = round.manage(&places, pods, nodes);
        if work.is_empty() {
            actions.extend(round.rolling(&places));
        }
        actions.extend(work);
    }
    actions.extend(round.status(&places));
    let used =
        |name: &str| name == round.update.name() || pods.iter().any(|p| hash_of(p) == hash_in(set, name));
    actions.extend(revisions::truncate(set, revisions, used));
    let waits = pods.iter().filter_map(|p| until_available(p, round.min_ready(), now));
    if let Some(soonest) = waits.filter(|w| *w > 0).min() {
        actions.push(Action::Later(Duration::from_secs(u64::try_from(soonest).unwrap_or(1))));
    }
    actions
}

fn hash_of(pod: &Value) -> &str {
    pod.label(LABEL).unwrap_or_default()
}

/// The hash in a revision's name: pods of a DaemonSet carry only that.
fn hash_in<'n>(set: &Value, revision: &'n str) -> &'n str {
    revision.strip_prefix(set.name()).and_then(|r| r.strip_prefix('-')).unwrap_or(revision)
}

/// The pod of a DaemonSet, for any node.
fn daemon(set: &Value, revision: &Value) -> Value {
    let mut pod = pod_from_template(set.at(&["spec", "template"]), set, set.name());
    pod.set(&["metadata", "labels", LABEL], hash_in(set, revision.name()));
    let generation = int(set, &["metadata", "generation"], 1);
    pod.set(&["metadata", "labels", "pod-template-generation"], generation.to_string());
    let mut tolerations = pod.array_at(&["spec", "tolerations"]).to_vec();
    let host = pod.at(&["spec", "hostNetwork"]).as_bool() == Some(true);
    let network = ("node.kubernetes.io/network-unavailable", "NoSchedule");
    for (key, effect) in TOLERATED.iter().chain(host.then_some(&network)) {
        let toleration = object!({"key": (*key), "operator": "Exists", "effect": (*effect)});
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    pod.set(&["spec", "tolerations"], tolerations);
    pod
}

/// The node a daemon is on, or is meant for.
fn node_of(pod: &Value) -> &str {
    let on = pod.str_at(&["spec", "nodeName"]);
    if !on.is_empty() {
        return on;
    }
    let affinity =
        pod.at(&["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"]);
    let terms = affinity.array_at(&["nodeSelectorTerms"]).iter();
    let fields = terms.flat_map(|t| t.array_at(&["matchFields"]));
    let named = fields.filter(|f| f.str_at(&["key"]) == "metadata.name");
    named.flat_map(|f| f.array_at(&["values"])).filter_map(Value::as_str).next().unwrap_or_default()
}

impl Round<'_> {
    fn min_ready(&self) -> i64 {
        int(self.set, &["spec", "minReadySeconds"], 0)
    }

    fn is_available(&self, pod: &Value) -> bool {
        !pod.is_terminating() && until_available(pod, self.min_ready(), self.now) == Some(0)
    }

    fn is_updated(&self, pod: &Value) -> bool {
        hash_of(pod) == hash_in(self.set, self.update.name())
    }

    fn places<'p>(&self, pods: &'p [Arc<Value>], nodes: &'p [Arc<Value>]) -> Vec<Place<'p>> {
        let mut by_node: BTreeMap<&str, Vec<&Arc<Value>>> = BTreeMap::new();
        for pod in pods {
            by_node.entry(node_of(pod)).or_default().push(pod);
        }
        let place = |node: &'p Arc<Value>| {
            let view = NodeView::of(node);
            let fits = matches_affinity(&self.view, &view).is_ok();
            let evicting = view.taints.iter().filter(|t| t.effect == Effect::NoExecute);
            Place {
                name: node.name(),
                start: fits && tolerates(&self.view, &view).is_ok(),
                stay: fits && untolerated(evicting, &self.view.tolerations).is_none(),
                pods: by_node.remove(node.name()).unwrap_or_default(),
            }
        };
        nodes.iter().map(place).collect()
    }

    /// Creates and deletes so that each node has what it should.
    fn manage(&self, places: &[Place<'_>], pods: &[Arc<Value>], nodes: &[Arc<Value>]) -> Vec<Action> {
        let mut actions = Vec::new();
        for place in places {
            let (ended, running): (Vec<_>, Vec<_>) = place.pods.iter().copied().partition(|p| is_finished(p));
            for pod in ended.iter().filter(|p| !p.is_terminating()) {
                actions.push(self.delete(pod));
            }
            if !place.stay {
                actions.extend(running.iter().filter(|p| !p.is_terminating()).map(|p| self.delete(p)));
            } else if place.pods.is_empty() && place.start {
                actions.push(self.create(place.name));
            } else if running.len() > 1 && self.surge() == 0 {
                // The oldest stays.
                let mut live: Vec<_> = running.into_iter().filter(|p| !p.is_terminating()).collect();
                live.sort_by_key(|p| (!is_ready(p), created(p)));
                actions.extend(live.into_iter().skip(1).map(|p| self.delete(p)));
            }
        }
        // Daemons meant for nodes that are gone.
        for pod in pods.iter().filter(|p| !p.is_terminating()) {
            if !node_of(pod).is_empty() && !nodes.iter().any(|n| n.name() == node_of(pod)) {
                actions.push(self.delete(pod));
            }
        }
        actions
    }

    fn rolling_field(&self, field: &str, default: i64, total: i64) -> i64 {
        let value = self.set.at(&["spec", "updateStrategy", "rollingUpdate", field]);
        if value.is_null() { default } else { int_or_percent(value, total, true) }
    }

    fn surge(&self) -> i64 {
        self.rolling_field("maxSurge", 0, 100)
    }

    /// Replaces daemons of an old revision, as many at a time as may be down (or doubled).
    fn rolling(&self, places: &[Place<'_>]) -> Vec<Action> {
        if self.set.str_at(&["spec", "updateStrategy", "type"]) == "OnDelete" {
            return Vec::new();
        }
        let wanted: Vec<&Place<'_>> = places.iter().filter(|p| p.start).collect();
        let total = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
        let surge = self.rolling_field("maxSurge", 0, total);
        if surge > 0 {
            return self.surging(&wanted, surge);
        }
        let limit = self.rolling_field("maxUnavailable", 1, total).max(1);
        let up = |p: &&&Place<'_>| p.pods.iter().any(|pod| self.is_available(pod));
        let mut down = total - i64::try_from(wanted.iter().filter(up).count()).unwrap_or(0);
        let mut actions = Vec::new();
        for place in wanted {
            let Some(old) = place.pods.iter().find(|p| !self.is_updated(p) && !p.is_terminating()) else {
                continue;
            };
            let available = self.is_available(old);
            if available && down >= limit {
                continue;
            }
            down += i64::from(available);
            actions.push(self.delete(old));
        }
        actions
    }

    /// New daemons start beside the old ones, which go when the new are available.
    fn surging(&self, wanted: &[&Place<'_>], limit: i64) -> Vec<Action> {
        let doubled = wanted.iter().filter(|p| p.pods.iter().filter(|p| !p.is_terminating()).count() > 1);
        let mut room = limit - i64::try_from(doubled.count()).unwrap_or(0);
        let mut actions = Vec::new();
        for place in wanted {
            let live: Vec<_> = place.pods.iter().filter(|p| !p.is_terminating()).collect();
            let new = live.iter().find(|p| self.is_updated(p));
            let old = live.iter().find(|p| !self.is_updated(p));
            match (new, old) {
                (Some(new), Some(old)) if self.is_available(new) => actions.push(self.delete(old)),
                (None, Some(_)) if room > 0 => {
                    room -= 1;
                    actions.push(self.create(place.name));
                }
                _ => {}
            }
        }
        actions
    }

    fn create(&self, node: &str) -> Action {
        let mut pod = self.pod.clone();
        let field = object!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
        let path = ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
        let mut terms: Vec<Value> = pod.at(&path).array_at(&["nodeSelectorTerms"]).to_vec();
        if terms.is_empty() {
            terms.push(field);
        } else {
            // The node's name takes the place of whatever fields were asked for, as upstream does.
            for term in &mut terms {
                term.set(&["matchFields"], field.get("matchFields"));
            }
        }
        pod.set(&path, object!({"nodeSelectorTerms": terms}));
        Action::Create(PODS, pod, Some(Note::pod_created(self.set)))
    }

    fn delete(&self, pod: &Value) -> Action {
        let note = Note::pod_deleted(self.set);
        Action::Delete(PODS, head(pod), DeleteOptions::uid(pod.uid()), Some(note))
    }

    fn status(&self, places: &[Place<'_>]) -> Option<Action> {
        let live = |p: &Place<'_>| p.pods.iter().any(|pod| !is_finished(pod));
        let wanted: Vec<&Place<'_>> = places.iter().filter(|p| p.start).collect();
        let any = |test: &dyn Fn(&Value) -> bool| {
            wanted.iter().filter(|p| p.pods.iter().any(|pod| test(pod))).count()
        };
        let available = any(&|p| self.is_available(p));
        let mut status = object!({
            "currentNumberScheduled": (wanted.iter().filter(|p| live(p)).count()),
            "numberMisscheduled": (places.iter().filter(|p| !p.start && live(p)).count()),
            "desiredNumberScheduled": (wanted.len()),
            "numberReady": (any(&is_ready)),
            "observedGeneration": (self.set.at(&["metadata", "generation"])),
            "updatedNumberScheduled": (any(&|p| self.is_updated(p))),
            "numberAvailable": available,
            "numberUnavailable": (wanted.len() - available),
            "collisionCount": (self.set.at(&["status", "collisionCount"])),
            "conditions": (self.set.at(&["status", "conditions"])),
        });
        if let Value::Object(map) = &mut status {
            let always =
                ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"];
            map.retain(|k, v| always.contains(&k) || !v.is_empty());
        }
        if &status == self.set.get("status") {
            return None;
        }
        let mut updated = self.set.clone();
        updated.set(&["status"], status);
        Some(Action::UpdateStatus(DAEMON_SETS, updated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(image: &str) -> Value {
        object!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"namespace": "d", "name": "agent", "uid": "u", "generation": 1},
            "spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {
                    "metadata": {"labels": {"a": "b"}},
                    "spec": {"nodeSelector": {"os": "linux"}, "containers": [{"image": image}]},
                },
            },
        })
    }

    fn node(name: &str, os: &str, taints: Value) -> Arc<Value> {
        Arc::new(object!({"metadata": {"name": name, "labels": {"os": os}}, "spec": {"taints": taints}}))
    }

    fn run(set: &Value, pods: &[Arc<Value>], nodes: &[Arc<Value>]) -> (Vec<String>, Vec<Arc<Value>>) {
        let (mut log, mut after) = (Vec::new(), pods.to_vec());
        for action in plan(set, pods, nodes, &[], Timestamp::UNIX_EPOCH) {
            match action {
                Action::Create(r, mut pod, _) if r.kind == "Pod" => {
                    log.push(format!("+{}", node_of(&pod)));
                    let name = format!("{}-{}", node_of(&pod), pod.label(LABEL).unwrap());
                    pod.set(&["metadata", "name"], name);
                    pod.set(
                        &["status"],
                        object!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
                    );
                    after.push(Arc::new(pod));
                }
                Action::Delete(_, pod, ..) => {
                    after.retain(|p| p.name() != pod.name());
                    log.push(format!("-{}", pod.name().split('-').next().unwrap()));
                }
                _ => {}
            }
        }
        (log, after)
    }

    #[test]
    fn every_suitable_node_gets_one() {
        let cordon = object!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
        let foreign = object!([{"key": "gpu", "effect": "NoSchedule"}]);
        let nodes = [
            node("n1", "linux", object!([])),
            node("n2", "linux", cordon),
            node("n3", "linux", foreign),
            node("n4", "windows", object!([])),
        ];
        let (log, pods) = run(&set("v1"), &[], &nodes);
        assert_eq!(log, ["+n1", "+n2"]);
        assert!(run(&set("v1"), &pods, &nodes).0.is_empty());
        assert_eq!(run(&set("v1"), &pods, &nodes[1..]).0, ["-n1"], "its node is gone");
    }

    #[test]
    fn a_new_template_replaces_one_at_a_time() {
        let nodes = [node("n1", "linux", object!([])), node("n2", "linux", object!([]))];
        let (_, pods) = run(&set("v1"), &[], &nodes);
        let (log, pods) = run(&set("v2"), &pods, &nodes);
        assert_eq!(log, ["-n1"]);
        let (log, pods) = run(&set("v2"), &pods, &nodes);
        assert_eq!(log, ["+n1"]);
        assert_eq!(run(&set("v2"), &pods, &nodes).0, ["-n2"]);
    }
}
