//! Claims that ask for more than they have: the drivers' own controllers grow their volumes, and users are told so.

use api::Value;
use api::quantity::Quantity;
use client::events::Kind;
use client::{Change, Key, Next, Queue};

use crate::act::{Action, head};
use crate::context::Context;

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let (claims, volumes) = (cx.informers.persistent_volume_claims(), cx.informers.persistent_volumes());
    let changed = queue.clone();
    claims.on_change(move |change| {
        let grew = change.old().is_none_or(|old| size(old, "spec") < size(change.object(), "spec"));
        if grew && !matches!(change, Change::Deleted(_)) {
            changed.add(Key::of(change.object()));
        }
    });
    cx.work(queue, 1, &[claims, volumes], |cx, key| async move {
        let Some(claim) = cx.informers.persistent_volume_claims().store().get(&key) else {
            return Ok(Next::Done);
        };
        let volume =
            cx.informers.persistent_volumes().store().find("", claim.str_at(&["spec", "volumeName"]));
        cx.apply(volume.and_then(|volume| plan(&claim, &volume)).into_iter().collect()).await
    });
}

fn size(claim: &Value, part: &str) -> i64 {
    let path = match part {
        "spec" => ["spec", "resources", "requests", "storage"].as_slice(),
        _ => ["status", "capacity", "storage"].as_slice(),
    };
    claim.str_at(path).parse::<Quantity>().map_or(0, |quantity| quantity.units())
}

fn plan(claim: &Value, volume: &Value) -> Option<Action> {
    let bound = claim.str_at(&["status", "phase"]) == "Bound"
        && volume.str_at(&["spec", "claimRef", "uid"]) == claim.uid();
    if !bound || size(claim, "spec") <= size(claim, "status") {
        return None;
    }
    let message = "waiting for an external controller to expand this PVC".to_owned();
    Some(Action::Event(head(claim), Kind::Normal, "ExternalExpanding", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn users_are_told_whom_a_claim_waits_for() {
        let volume = object!({"spec": {"claimRef": {"uid": "u"}}});
        let claim = |asked: &str, phase: &str| {
            object!({
                "metadata": {"name": "c", "uid": "u"},
                "spec": {"resources": {"requests": {"storage": asked}}},
                "status": {"phase": phase, "capacity": {"storage": "1Gi"}},
            })
        };
        let Some(Action::Event(_, Kind::Normal, reason, _)) = plan(&claim("2Gi", "Bound"), &volume) else {
            panic!()
        };
        assert_eq!(reason, "ExternalExpanding");
        assert!(plan(&claim("1Gi", "Bound"), &volume).is_none());
        assert!(plan(&claim("2Gi", "Pending"), &volume).is_none());
        assert!(plan(&claim("2Gi", "Bound"), &object!({})).is_none());
    }
}
