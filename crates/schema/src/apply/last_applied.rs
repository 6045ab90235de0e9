//! Moving from client-side apply: `kubectl apply` kept what it applied in an annotation, under other managers' names.

use api::Value;

use super::Request;
use super::compare::compare;
use super::conflict::Conflicts;
use super::fields_of::fields_of;
use crate::decode::sort;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
const PATH: [&str; 3] = ["metadata", "annotations", ANNOTATION];

/// The conflicts about fields that the annotation does not show to be kubectl's own.
pub(super) fn not_from_last_applied(conflicts: Conflicts, live: &Value, request: &Request<'_>) -> Conflicts {
    let Ok(last) = api::json::decode(live.str_at(&PATH).as_bytes()) else { return conflicts };
    let last = last.value;
    if last.str_at(&["apiVersion"]) != request.api_version {
        return conflicts;
    }
    let changes = compare(&last, live, request.ty);
    let own = fields_of(&last, request.ty)
        .difference(&changes.modified)
        .difference(&changes.added)
        .difference(&changes.removed);
    Conflicts(conflicts.0.into_iter().filter(|c| !own.contains(&c.path)).collect())
}

/// Brings the annotation up to date where it is used.
pub(super) fn renew(object: &mut Value, patch: &Value) {
    if object.str_at(&PATH).is_empty() {
        return;
    }
    let mut applied = patch.clone();
    applied.remove_at(&PATH);
    sort(&mut applied);
    object.set(&PATH, format!("{applied}\n"));
}
