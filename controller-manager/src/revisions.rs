//! ControllerRevisions: the history of a StatefulSet's or DaemonSet's template.

use std::sync::Arc;

use api::{Value, object};
use client::resource::CONTROLLER_REVISIONS;

use crate::act::Action;
use crate::objects::{canonical, hash, int, owner_reference, sorted};

/// The label with the revision's name (on pods) or hash (on revisions).
pub(crate) const LABEL: &str = "controller-revision-hash";

/// What a revision remembers: a patch that brings the template back. Upstream compares its bytes, so keys are sorted as Go's.
fn data(owner: &Value) -> Value {
    let mut template = owner.at(&["spec", "template"]).clone();
    template.set(&["$patch"], "replace");
    sorted(&object!({"spec": {"template": template}}))
}

/// The revision of the present template, and what must be done so that it exists and is the newest.
pub(crate) fn current(owner: &Value, revisions: &[Arc<Value>]) -> (Value, Vec<Action>) {
    let data = data(owner);
    let text = canonical(&data);
    let newest = revisions.iter().map(|r| int(r, &["revision"], 0)).max().unwrap_or(0);
    let mut equal: Vec<_> = revisions.iter().filter(|r| canonical(r.get("data")) == text).collect();
    equal.sort_by_key(|r| int(r, &["revision"], 0));
    if let Some(found) = equal.last() {
        if int(found, &["revision"], 0) == newest {
            return ((***found).clone(), Vec::new());
        }
        // An old template is the present one again.
        let mut raised = (***found).clone();
        raised.set(&["revision"], newest + 1);
        return (raised.clone(), vec![Action::Update(CONTROLLER_REVISIONS, raised)]);
    }
    let hash = hash(&data, int(owner, &["status", "collisionCount"], 0));
    let mut labels = owner.at(&["spec", "template", "metadata", "labels"]).clone();
    labels.set(&[LABEL], hash.as_str());
    let mut fresh = object!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {
            "name": (format!("{}-{hash}", owner.name())),
            "namespace": (owner.namespace()),
            "labels": labels,
            "ownerReferences": [(owner_reference(owner))],
        },
        "data": data,
        "revision": (newest + 1),
    });
    // `kubectl rollout history` finds in them why the template was changed.
    let annotations = owner.at(&["metadata", "annotations"]);
    if !annotations.is_empty() {
        fresh.set(&["metadata", "annotations"], annotations.clone());
    }
    (fresh.clone(), vec![Action::Create(CONTROLLER_REVISIONS, fresh, None)])
}

/// The template a revision remembers.
pub(crate) fn template(revision: &Value) -> Value {
    let mut template = revision.at(&["data", "spec", "template"]).clone();
    template.remove_at(&["$patch"]);
    template
}

/// Deletes the oldest revisions beyond the limit that nobody uses.
pub(crate) fn truncate(owner: &Value, revisions: &[Arc<Value>], used: impl Fn(&str) -> bool) -> Vec<Action> {
    let limit = usize::try_from(int(owner, &["spec", "revisionHistoryLimit"], 10)).unwrap_or(0);
    let mut unused: Vec<_> = revisions.iter().filter(|r| !used(r.name())).collect();
    unused.sort_by_key(|r| int(r, &["revision"], 0));
    let surplus = unused.len().saturating_sub(limit);
    unused.into_iter().take(surplus).map(|r| Action::delete(CONTROLLER_REVISIONS, r)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(image: &str) -> Value {
        object!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "db", "namespace": "d", "uid": "u"},
            "spec": {"template": {"spec": {"image": image}}},
        })
    }

    #[test]
    fn a_revision_keeps_the_annotations_of_its_owner() {
        let mut owner = owner("v1");
        assert!(current(&owner, &[]).0.at(&["metadata", "annotations"]).is_null());
        owner.set(&["metadata", "annotations"], object!({"kubernetes.io/change-cause": "image"}));
        assert_eq!(
            current(&owner, &[]).0.at(&["metadata", "annotations"]),
            owner.at(&["metadata", "annotations"])
        );
    }

    #[test]
    fn a_template_has_one_revision_and_going_back_renews_it() {
        let (one, actions) = current(&owner("v1"), &[]);
        assert!(matches!(actions[..], [Action::Create(..)]));
        let mut known = vec![Arc::new(one.clone())];
        assert!(current(&owner("v1"), &known).1.is_empty());
        let (two, _) = current(&owner("v2"), &known);
        assert_eq!(int(&two, &["revision"], 0), 2);
        assert_ne!(one.name(), two.name());
        known.push(Arc::new(two));
        let (again, actions) = current(&owner("v1"), &known);
        assert_eq!((again.name(), int(&again, &["revision"], 0)), (one.name(), 3));
        assert!(matches!(actions[..], [Action::Update(..)]));
        assert_eq!(template(&one), owner("v1").at(&["spec", "template"]).clone());
    }
}
