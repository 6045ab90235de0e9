//! Sizes of ReplicaSets: how large the new one may be, and how a resize is shared among all.

use std::sync::Arc;

use api::{Value, object};
use client::resource::REPLICA_SETS;

use super::plan::scaling_event;
use super::{View, sum, wanted};
use crate::act::Action;
use crate::objects::{int, int_or_percent};

pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";

fn rolling_field(view: &View, field: &str, round_up: bool) -> i64 {
    let value = view.deployment.at(&["spec", "strategy", "rollingUpdate", field]);
    int_or_percent(value, view.replicas(), round_up)
}

/// Pods above the wanted number that may exist during a roll-out.
pub(super) fn max_surge(view: &View) -> i64 {
    if view.rolling() { rolling_field(view, "maxSurge", true) } else { 0 }
}

/// Pods below the wanted number that may be unavailable during a roll-out.
pub(super) fn max_unavailable(view: &View) -> i64 {
    if !view.rolling() || view.replicas() == 0 {
        return 0;
    }
    let unavailable = rolling_field(view, "maxUnavailable", false);
    // With neither to spare nothing could ever move.
    let unavailable = if unavailable == 0 && max_surge(view) == 0 { 1 } else { unavailable };
    unavailable.min(view.replicas())
}

/// How large the new set may be now.
pub(super) fn new_size(view: &View) -> i64 {
    let size = view.new.as_deref().map_or(0, wanted);
    if !view.rolling() || size >= view.replicas() {
        return view.replicas();
    }
    let room = view.replicas() + max_surge(view) - sum(view.all(), wanted);
    size + room.clamp(0, view.replicas() - size)
}

fn annotated(set: &Value, key: &str) -> Option<i64> {
    set.annotation(key)?.parse().ok()
}

/// Whether the Deployment was resized since its sets were last sized.
pub(super) fn is_scaling(view: &View) -> bool {
    view.all().filter(|s| wanted(s) > 0).any(|s| annotated(s, DESIRED).is_some_and(|d| d != view.replicas()))
}

/// Notes on a set for which size of the Deployment it was sized.
pub(super) fn annotate_sizes(view: &View, set: &mut Value) {
    set.set(&["metadata", "annotations", DESIRED], view.replicas().to_string());
    set.set(&["metadata", "annotations", MAX], (view.replicas() + max_surge(view)).to_string());
}

/// Gives a set a size, with the event that tells about it.
pub(super) fn scaled(view: &View, set: &Value, size: i64) -> Vec<Action> {
    let mut patch = object!({"spec": {"replicas": size}});
    annotate_sizes(view, &mut patch);
    let mut actions = vec![Action::merge(REPLICA_SETS, set, patch)];
    if size != wanted(set) {
        actions.push(scaling_event(view, set.name(), wanted(set), size));
    }
    actions
}

/// Shares a resize among the sets by their sizes.
pub(super) fn proportional(view: &View) -> Vec<Action> {
    let active: Vec<_> = view.all().filter(|s| wanted(s) > 0).collect();
    let resize = |set: &Arc<Value>, size: i64| {
        let noted = annotated(set, DESIRED) == Some(view.replicas());
        if size == wanted(set) && noted { Vec::new() } else { scaled(view, set, size) }
    };
    match active[..] {
        [] => {
            let latest = view.new.as_ref().or(view.old.last());
            return latest.map(|s| resize(s, view.replicas())).unwrap_or_default();
        }
        [only] => return resize(only, view.replicas()),
        _ => {}
    }
    if let Some(new) = &view.new
        && wanted(new) == view.replicas()
        && int(new, &["status", "availableReplicas"], 0) == view.replicas()
    {
        return view.old.iter().filter(|s| wanted(s) > 0).flat_map(|s| resize(s, 0)).collect();
    }
    if !view.rolling() {
        return Vec::new();
    }
    let allowed = if view.replicas() > 0 { view.replicas() + max_surge(view) } else { 0 };
    let to_add = allowed - sum(active.iter().copied(), wanted);
    let mut order = active;
    // Growing, the newest of the largest get theirs first; shrinking, the oldest lose theirs first.
    order.sort_by_cached_key(|s| (-wanted(s), crate::objects::created(s)));
    if to_add > 0 {
        order.sort_by_cached_key(|s| (-wanted(s), std::cmp::Reverse(crate::objects::created(s))));
    }
    let mut left = to_add;
    let mut sizes: Vec<i64> = Vec::new();
    for set in &order {
        let share = share(view, set);
        let share = if to_add > 0 { share.clamp(0, left) } else { share.clamp(left.min(0), 0) };
        left -= share;
        sizes.push(wanted(set) + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + left).max(0);
    }
    order.into_iter().zip(sizes).flat_map(|(s, size)| resize(s, size)).collect()
}

/// What a set's size changes by, in proportion.
fn share(view: &View, set: &Value) -> i64 {
    if view.replicas() == 0 {
        return -wanted(set);
    }
    let before = annotated(set, MAX).unwrap_or_else(|| int(&view.deployment, &["status", "replicas"], 0));
    if before <= 0 {
        return 0;
    }
    let after = (view.replicas() + max_surge(view)) as f64;
    (wanted(set) as f64 * after / before as f64).round() as i64 - wanted(set)
}
