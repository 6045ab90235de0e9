//! What a Deployment does next to its ReplicaSets.

use std::sync::Arc;

use api::{Map, Value, object};
use client::events::Kind;
use client::resource::{DEPLOYMENTS, REPLICA_SETS};
use jiff::Timestamp;

use super::scale::{self, annotate_sizes, scaled};
use super::status;
use super::{View, sum, wanted};
use crate::act::{Action, Note, head};
use crate::objects::{hash, int, owner_reference};

pub(super) const HASH: &str = "pod-template-hash";
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotations of a Deployment that its sets don't get.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    scale::DESIRED,
    scale::MAX,
    "deprecated.deployment.rollback.to",
];

/// The whole plan: sets first, then (when there is nothing to do to them) the Deployment's own status.
pub(super) fn plan(view: &View, now: Timestamp) -> Vec<Action> {
    let d = &view.deployment;
    if d.is_terminating() {
        return status::update(view, now);
    }
    let paused = d.at(&["spec", "paused"]).as_bool() == Some(true);
    let changes = if paused || scale::is_scaling(view) {
        // Paused or resized in the middle of a roll-out: keep the proportions, and begin nothing.
        let mut changes = scale::proportional(view);
        if paused && changes.is_empty() {
            changes.extend(clean_up(view));
        }
        changes
    } else if view.rolling() {
        roll(view)
    } else {
        recreate(view)
    };
    let mut actions = changes;
    let moved = !actions.is_empty();
    actions.extend(adopt_revision(view));
    if !moved {
        actions.extend(status::update(view, now));
    }
    actions
}

/// The template without the label that tells sets apart.
pub(super) fn bare_template(object: &Value) -> Value {
    let mut template = object.at(&["spec", "template"]).clone();
    template.remove_at(&["metadata", "labels", HASH]);
    if template.at(&["metadata", "creationTimestamp"]).is_null() {
        template.remove_at(&["metadata", "creationTimestamp"]);
    }
    template
}

fn revision(object: &Value) -> i64 {
    object.annotation(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// The revision of the present template: one more than the highest of the others.
fn next_revision(view: &View) -> i64 {
    view.old.iter().map(|s| revision(s)).max().unwrap_or(0) + 1
}

fn roll(view: &View) -> Vec<Action> {
    let Some(new) = &view.new else { return vec![create_new(view)] };
    let target = scale::new_size(view);
    if target != wanted(new) {
        return scaled(view, new, target);
    }
    let down = scale_down_old(view, new);
    if !down.is_empty() {
        return down;
    }
    clean_up(view)
}

fn recreate(view: &View) -> Vec<Action> {
    let down: Vec<Action> =
        view.old.iter().filter(|s| wanted(s) > 0).flat_map(|s| scaled(view, s, 0)).collect();
    if !down.is_empty() || view.old_pods_running {
        return down;
    }
    match &view.new {
        None => vec![create_new(view)],
        Some(new) if wanted(new) != view.replicas() => scaled(view, new, view.replicas()),
        Some(_) => clean_up(view),
    }
}

/// Takes pods from old sets as far as availability allows: unhealthy ones first, then the oldest sets'.
fn scale_down_old(view: &View, new: &Value) -> Vec<Action> {
    let available = |s: &Value| int(s, &["status", "availableReplicas"], 0);
    let min_available = view.replicas() - scale::max_unavailable(view);
    let new_unavailable = (wanted(new) - available(new)).max(0);
    let mut room = sum(view.all(), wanted) - min_available - new_unavailable;
    if room <= 0 || sum(&view.old, wanted) == 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i64> = view.old.iter().map(|s| wanted(s)).collect();
    for (set, size) in view.old.iter().zip(&mut sizes) {
        let unhealthy = (*size - available(set)).clamp(0, room);
        *size -= unhealthy;
        room -= unhealthy;
    }
    let mut spare = sum(view.all(), available) - min_available;
    for (set, size) in view.old.iter().zip(&mut sizes) {
        let gone = (*size).min(spare.max(0)).min(available(set));
        *size -= gone;
        spare -= gone;
    }
    let changed = view.old.iter().zip(sizes).filter(|(s, size)| *size != wanted(s));
    changed.flat_map(|(s, size)| scaled(view, s, size)).collect()
}

/// The set of the present template.
fn create_new(view: &View) -> Action {
    let d = &view.deployment;
    let mut template = bare_template(d);
    let hash = hash(&template, int(d, &["status", "collisionCount"], 0));
    template.set(&["metadata", "labels", HASH], hash.as_str());
    let mut selector = d.at(&["spec", "selector"]).clone();
    selector.set(&["matchLabels", HASH], hash.as_str());
    let size = scale::new_size(view);
    let name = format!("{}-{hash}", d.name());
    let mut set = object!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": (&name),
            "namespace": (d.namespace()),
            "labels": (template.at(&["metadata", "labels"])),
            "annotations": (copied_annotations(d)),
            "ownerReferences": [(owner_reference(d))],
        },
        "spec": {"replicas": size, "selector": selector, "template": template},
    });
    let min_ready = d.at(&["spec", "minReadySeconds"]);
    if !min_ready.is_empty() {
        set.set(&["spec", "minReadySeconds"], min_ready);
    }
    set.set(&["metadata", "annotations", REVISION], next_revision(view).to_string());
    annotate_sizes(view, &mut set);
    let note = Note {
        about: head(d),
        done: ("ScalingReplicaSet", format!("Scaled up replica set {name} from 0 to {size}")),
        failed: ("ReplicaSetCreateError", format!("Failed to create new replica set {name:?}: ")),
    };
    Action::Create(REPLICA_SETS, set, (size > 0).then_some(note))
}

fn copied_annotations(d: &Value) -> Map {
    let all = d.at(&["metadata", "annotations"]).as_object();
    let kept = all.into_iter().flat_map(Map::iter).filter(|(k, _)| !NOT_COPIED.contains(k));
    kept.map(|(k, v)| (k, v.clone())).collect()
}

/// Brings the revision of the new set, and then of the Deployment, up to date; and what else the set copies.
fn adopt_revision(view: &View) -> Vec<Action> {
    let (d, Some(new)) = (&view.deployment, &view.new) else { return Vec::new() };
    let mut actions = Vec::new();
    let (has, due) = (revision(new), next_revision(view));
    let mut annotations = copied_annotations(d);
    let current = new.at(&["metadata", "annotations"]);
    annotations.retain(|k, v| current.get(k) != v);
    let revision = if has < due { due } else { has };
    if has < due {
        annotations.insert(REVISION, due.to_string());
        if has > 0 {
            let history = new.annotation(HISTORY).map(|h| format!("{h},")).unwrap_or_default();
            annotations.insert(HISTORY, format!("{history}{has}"));
        }
    }
    let mut patch = Value::object();
    if !annotations.is_empty() {
        patch.set(&["metadata", "annotations"], annotations);
    }
    let ready = int(d, &["spec", "minReadySeconds"], 0);
    if int(new, &["spec", "minReadySeconds"], 0) != ready {
        patch.set(&["spec", "minReadySeconds"], ready);
    }
    if !patch.is_empty() {
        actions.push(Action::merge(REPLICA_SETS, new, patch));
    }
    let text = revision.to_string();
    if d.annotation(REVISION) != Some(&text) {
        let mut updated = (**d).clone();
        updated.set(&["metadata", "annotations", REVISION], text);
        actions.push(Action::Update(DEPLOYMENTS, updated));
    }
    actions
}

/// Deletes old sets beyond the history limit, once the roll-out is complete.
fn clean_up(view: &View) -> Vec<Action> {
    let d = &view.deployment;
    let limit = d.at(&["spec", "revisionHistoryLimit"]).as_i64().unwrap_or(10);
    if !status::is_complete(d, d.get("status")) || limit == i64::from(i32::MAX) {
        return Vec::new();
    }
    let empty = |s: &&Arc<Value>| {
        !s.is_terminating()
            && wanted(s) == 0
            && int(s, &["status", "replicas"], 0) == 0
            && int(s, &["metadata", "generation"], 0) <= int(s, &["status", "observedGeneration"], 0)
    };
    let mut cleanable: Vec<_> = view.old.iter().filter(empty).collect();
    let surplus = cleanable.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    cleanable.sort_by_key(|s| revision(s));
    cleanable.into_iter().take(surplus).map(|s| Action::delete(REPLICA_SETS, s)).collect()
}

/// An event of the Deployment about one of its sets.
pub(super) fn scaling_event(view: &View, set: &str, from: i64, to: i64) -> Action {
    let direction = if to > from { "up" } else { "down" };
    let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
    Action::Event(head(&view.deployment), Kind::Normal, "ScalingReplicaSet", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: i64, image: &str, strategy: &str) -> Arc<Value> {
        Arc::new(object!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": "d", "name": "web", "uid": "u", "generation": 1, "annotations": {"note": "x"}},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "progressDeadlineSeconds": 600,
                "strategy": {"type": strategy, "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": {
                    "metadata": {"labels": {"a": "b"}},
                    "spec": {"containers": [{"name": "c", "image": image}]},
                },
            },
        }))
    }

    /// The set a deployment would create, with a size and so many available pods.
    fn set_of(d: &Arc<Value>, size: i64, available: i64, revision: i64) -> Arc<Value> {
        let view = View::new(d, &[], |_| Vec::new());
        let Action::Create(_, mut set, _) = create_new(&view) else { panic!() };
        set.set(&["spec", "replicas"], size);
        set.set(&["status"], object!({
            "replicas": size, "readyReplicas": available, "availableReplicas": available, "observedGeneration": 1,
        }));
        set.set(&["metadata", "annotations", REVISION], revision.to_string());
        set.set(&["metadata", "annotations", scale::DESIRED], int(d, &["spec", "replicas"], 1).to_string());
        Arc::new(set)
    }

    fn run(d: &Arc<Value>, sets: &[Arc<Value>], pods: usize) -> Vec<String> {
        let pod = Arc::new(object!({"status": {"phase": "Running"}}));
        let view = View::new(d, sets, |_| vec![Arc::clone(&pod); pods]);
        let now = Timestamp::from_second(1000).unwrap();
        plan(&view, now).iter().map(describe).collect()
    }

    fn describe(action: &Action) -> String {
        let image = |v: &Value| {
            let containers = v.array_at(&["spec", "template", "spec", "containers"]);
            containers.first().map(|c| c.str_at(&["image"]).to_owned()).unwrap_or_default()
        };
        match action {
            Action::Create(_, set, _) => format!("create {} {}", image(set), wanted(set)),
            Action::Patch(r, _, _, _, p) if !p.at(&["spec", "replicas"]).is_null() => {
                format!("scale {} {}", r.plural, p.at(&["spec", "replicas"]))
            }
            Action::Patch(r, _, _, _, p) => {
                format!("revision {} {}", r.plural, p.at(&["metadata", "annotations"]).get(REVISION))
            }
            Action::Update(r, d) => {
                format!("revision {} {:?}", r.plural, d.annotation(REVISION).unwrap_or_default())
            }
            Action::UpdateStatus(_, d) => format!("status {}", d.at(&["status", "updatedReplicas"])),
            Action::Delete(..) => "delete".to_owned(),
            Action::Event(_, _, _, message) => {
                message.split(" replica").next().unwrap_or_default().to_owned()
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_new_deployment_gets_its_set() {
        assert_eq!(run(&deployment(3, "v1", "RollingUpdate"), &[], 0), ["create v1 3"]);
    }

    #[test]
    fn a_roll_out_goes_as_far_as_surge_and_availability_allow() {
        let (d1, d2) = (deployment(4, "v1", "RollingUpdate"), deployment(4, "v2", "RollingUpdate"));
        let first = |size, ready| set_of(&d1, size, ready, 1);
        let second = |size, ready| set_of(&d2, size, ready, 2);
        // One more than four, then one fewer available of the old.
        assert_eq!(run(&d2, &[first(4, 4)], 0), ["create v2 1"]);
        let got = run(&d2, &[first(4, 4), second(1, 0)], 0);
        assert_eq!(got[..2], ["scale replicasets 3".to_owned(), "Scaled down".to_owned()]);
        let got = run(&d2, &[first(3, 3), second(1, 0)], 0);
        assert_eq!(got[0], "scale replicasets 2");
        let got = run(&d2, &[first(0, 0), second(4, 4)], 0);
        assert_eq!(got[0], "revision deployments \"2\"");
    }

    #[test]
    fn recreate_waits_for_the_old_pods_to_end() {
        let (d1, d2) = (deployment(2, "v1", "Recreate"), deployment(2, "v2", "Recreate"));
        assert_eq!(run(&d2, &[set_of(&d1, 2, 2, 1)], 2)[0], "scale replicasets 0");
        let empty = set_of(&d1, 0, 0, 1);
        assert!(run(&d2, &[Arc::clone(&empty)], 1).iter().all(|a| !a.starts_with("create")));
        assert_eq!(run(&d2, &[empty], 0), ["create v2 2"]);
    }

    #[test]
    fn going_back_gives_an_old_set_the_next_revision() {
        let (d1, d2) = (deployment(1, "v1", "RollingUpdate"), deployment(1, "v2", "RollingUpdate"));
        let (first, second) = (set_of(&d1, 1, 1, 1), set_of(&d2, 0, 0, 2));
        let got = run(&d1, &[first, second], 0);
        assert!(got.contains(&"revision replicasets \"3\"".to_owned()), "{got:?}");
        assert!(got.contains(&"revision deployments \"3\"".to_owned()), "{got:?}");
    }
}
