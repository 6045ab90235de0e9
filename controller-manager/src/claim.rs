//! Which children belong to a parent: those it controls and still selects, and orphans that it selects and so adopts.

use std::sync::Arc;

use api::selector::LabelSelector;
use api::{Value, object};
use client::{Patch, Resource};

use crate::act::{Action, head};
use crate::objects::{controller_of, owner_reference};

/// The selector of `spec.selector`, unless it is missing, malformed or selects everything.
pub(crate) fn selector(parent: &Value) -> Option<LabelSelector> {
    let parsed = LabelSelector::from_object(parent.at(&["spec", "selector"]));
    parsed.ok().flatten().filter(|s| !s.is_everything())
}

/// Sorts candidates (children by owner, and orphans of the namespace) into the parent's own, and what to adopt and release.
pub(crate) fn claim(
    resource: &Resource,
    parent: &Value,
    selector: &LabelSelector,
    candidates: &[Arc<Value>],
) -> (Vec<Arc<Value>>, Vec<Action>) {
    let (mut owned, mut actions) = (Vec::new(), Vec::new());
    let alive = !parent.is_terminating();
    for child in candidates {
        let fits = selector.matches_object(child);
        match controller_of(child).map(|o| o.str_at(&["uid"]) == parent.uid()) {
            Some(true) if fits => owned.push(Arc::clone(child)),
            Some(true) if alive && !child.is_terminating() => {
                actions.push(release(resource.clone(), parent, child));
            }
            None if fits && alive && !child.is_terminating() => {
                actions.push(adopt(resource.clone(), parent, child));
                owned.push(Arc::clone(child));
            }
            _ => {}
        }
    }
    (owned, actions)
}

/// Makes the parent the child's controller.
pub(crate) fn adopt(resource: Resource, parent: &Value, child: &Value) -> Action {
    let patch = object!({"metadata": {"ownerReferences": [(owner_reference(parent))], "uid": (child.uid())}});
    Action::Patch(resource, head(child), "", Patch::Strategic, patch)
}

/// Takes the parent out of the child's owners.
pub(crate) fn release(resource: Resource, parent: &Value, child: &Value) -> Action {
    let gone = object!({"$patch": "delete", "uid": (parent.uid())});
    let patch = object!({"metadata": {"ownerReferences": [gone], "uid": (child.uid())}});
    Action::Patch(resource, head(child), "", Patch::Strategic, patch)
}
