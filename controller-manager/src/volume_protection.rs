//! Claims in use by pods, volumes bound to claims, and attributes classes of either stay until they are no longer.

use api::Value;
use client::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, VOLUME_ATTRIBUTES_CLASSES};
use client::{Key, Next, Queue, Resource};

use crate::act::Action;
use crate::context::Context;
use crate::informers::BY_CLAIM;
use crate::objects::{claims, is_finished};

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
const CLASS: &str = "kubernetes.io/vac-protection";

pub(crate) fn start_claims(cx: &Context) {
    let queue = Queue::new();
    let (all, pods) = (cx.informers.persistent_volume_claims(), cx.informers.pods());
    Context::follow(all, &queue);
    let freed = queue.clone();
    pods.on_change(move |change| {
        let pod = change.object();
        if matches!(change, client::Change::Deleted(_)) || is_finished(pod) {
            claims(pod).for_each(|name| freed.add(Key::new(pod.namespace(), &name)));
        }
    });
    cx.work(queue, 1, &[all, pods], |cx, key| async move {
        let Some(claim) = cx.informers.persistent_volume_claims().store().get(&key) else {
            return Ok(Next::Done);
        };
        let used = cx.informers.pods().store().by_index(BY_CLAIM, key.as_str());
        let used = used.iter().any(|p| !is_finished(p));
        cx.apply(plan(PERSISTENT_VOLUME_CLAIMS, &claim, CLAIM, used).into_iter().collect()).await
    });
}

pub(crate) fn start_volumes(cx: &Context) {
    let queue = Queue::new();
    let all = cx.informers.persistent_volumes();
    Context::follow(all, &queue);
    cx.work(queue, 1, &[all], |cx, key| async move {
        let Some(volume) = cx.informers.persistent_volumes().store().get(&key) else { return Ok(Next::Done) };
        let used = volume.str_at(&["status", "phase"]) == "Bound";
        cx.apply(plan(PERSISTENT_VOLUMES, &volume, VOLUME, used).into_iter().collect()).await
    });
}

pub(crate) fn start_classes(cx: &Context) {
    let queue = Queue::new();
    let all = cx.informers.volume_attributes_classes();
    let (claims, volumes) = (cx.informers.persistent_volume_claims(), cx.informers.persistent_volumes());
    Context::follow(all, &queue);
    for users in [claims, volumes] {
        let freed = queue.clone();
        users.on_change(move |change| {
            let before = change.old().unwrap_or(change.object());
            classes(before).for_each(|name| freed.add(Key::new("", name)));
        });
    }
    cx.work(queue, 1, &[all, claims, volumes], |cx, key| async move {
        let Some(class) = cx.informers.volume_attributes_classes().store().get(&key) else {
            return Ok(Next::Done);
        };
        let used = || {
            let mut users = cx.informers.persistent_volumes().store().list();
            users.extend(cx.informers.persistent_volume_claims().store().list());
            users.iter().any(|user| classes(user).any(|name| name == class.name()))
        };
        let used = class.is_terminating() && used();
        cx.apply(plan(VOLUME_ATTRIBUTES_CLASSES, &class, CLASS, used).into_iter().collect()).await
    });
}

/// The attributes classes that a claim or a volume has, had or is to have.
fn classes(user: &Value) -> impl Iterator<Item = &str> {
    let places: [&[&str]; 3] = [
        &["spec", "volumeAttributesClassName"],
        &["status", "currentVolumeAttributesClassName"],
        &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
    ];
    places.into_iter().map(|place| user.str_at(place)).filter(|name| !name.is_empty())
}

/// Adds the finalizer to what stays, and takes it from what may go.
fn plan(resource: Resource, object: &Value, finalizer: &str, used: bool) -> Option<Action> {
    let mut finalizers = object.array_at(&["metadata", "finalizers"]).to_vec();
    let has = finalizers.iter().any(|f| f.as_str() == Some(finalizer));
    match (object.is_terminating(), has) {
        (false, false) => finalizers.push(finalizer.into()),
        (true, true) if !used => finalizers.retain(|f| f.as_str() != Some(finalizer)),
        _ => return None,
    }
    let mut updated = object.clone();
    updated.set(&["metadata", "finalizers"], finalizers);
    Some(Action::Update(resource, updated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn users_name_the_classes_that_stay() {
        let claim = object!({
            "spec": {"volumeAttributesClassName": "new"},
            "status": {
                "currentVolumeAttributesClassName": "old",
                "modifyVolumeStatus": {"targetVolumeAttributesClassName": "next"},
            },
        });
        assert_eq!(classes(&claim).collect::<Vec<_>>(), ["new", "old", "next"]);
        assert_eq!(classes(&object!({"spec": {"volumeAttributesClassName": ""}})).count(), 0);
    }

    #[test]
    fn what_is_used_stays() {
        let check = |terminating: bool, has: bool, used: bool, want: Option<usize>| {
            let mut claim = object!({"metadata": {"name": "c"}});
            if has {
                claim.set(&["metadata", "finalizers"], vec![CLAIM]);
            }
            if terminating {
                claim.set(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
            }
            let got = plan(PERSISTENT_VOLUME_CLAIMS, &claim, CLAIM, used).map(|a| match a {
                Action::Update(_, o) => o.array_at(&["metadata", "finalizers"]).len(),
                other => panic!("{other:?}"),
            });
            assert_eq!(got, want, "{terminating} {has} {used}");
        };
        check(false, false, false, Some(1));
        check(false, true, false, None);
        check(true, true, true, None);
        check(true, true, false, Some(0));
    }
}
