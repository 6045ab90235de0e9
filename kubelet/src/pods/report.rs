//! Telling the API server about a pod.

use std::sync::Arc;

use api::{Value, object};
use client::Patch;
use client::resource::PODS;

use super::actor::Actor;
use super::spec;
use crate::allocation::Conditions;

/// The conditions that are the kubelet's to write.
const OWN: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "AllContainersRestarting",
    Conditions::TYPES[0],
    Conditions::TYPES[1],
];

impl Actor {
    /// Sends the pod's status when it differs from what was sent last.
    pub(super) async fn report(&mut self, pod: &Arc<Value>, ending: bool) {
        let mirror = self.desired.borrow().mirror.clone();
        // A static pod's history is its mirror's.
        let mut shown = (**pod).clone();
        if let Some(mirror) = &mirror {
            shown.set(&["status"], mirror.get("status").clone());
        }
        // What was reported may not have come back by the watch yet.
        if let Some((_, reported)) = &self.reported {
            carry_over(&mut shown, reported);
        }
        let status = self.status(&shown, ending);
        let target = match (&mirror, spec::is_static(pod)) {
            (Some(mirror), _) => mirror.clone(),
            // There is nobody to tell before the mirror exists.
            (None, true) => {
                self.kubelet.note(pod.uid(), &status);
                return;
            }
            (None, false) => pod.clone(),
        };
        // A mirror that was deleted comes back as another object, which knows nothing yet.
        let to = target.uid().to_owned();
        if self.reported.as_ref().is_some_and(|(uid, reported)| *uid == to && *reported == status) {
            return;
        }
        self.kubelet.note(pod.uid(), &status);
        // What was reported and has not come back yet may have to be taken back.
        let patch = patch(target.uid(), shown.get("status"), &status);
        let path = (target.namespace(), target.name(), "status");
        match self.kubelet.client.patch(&PODS, path, Patch::Strategic, &patch).await {
            Ok(_) => self.reported = Some((to, status)),
            // The pod is gone, or another one has its name: there is nothing to report to.
            Err(error) if error.is_not_found() || error.is_conflict() => self.reported = Some((to, status)),
            Err(error) => {
                tracing::warn!(pod = %spec::describe(pod), err = %error, "Cannot report the pod's status");
                self.wake_later();
            }
        }
    }

    /// Looks again soon, because something could not be told.
    fn wake_later(&self) {
        let wake = self.wake.clone();
        self.kubelet.tasks.plain("status-retry", async move {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            wake.notify_one();
            Ok(())
        });
    }
}

/// What the API server is known to have, put over what the watch last showed.
fn carry_over(shown: &mut Value, reported: &Value) {
    for field in [
        "phase",
        "startTime",
        "podIP",
        "podIPs",
        "initContainerStatuses",
        "containerStatuses",
        "ephemeralContainerStatuses",
        "reason",
        "message",
    ] {
        if !reported.get(field).is_null() {
            shown.set(&["status", field], reported.get(field).clone());
        }
    }
    for field in ["resources", "allocatedResources"] {
        shown.set(&["status", field], reported.get(field).clone());
    }
    let mut conditions = shown.array_at(&["status", "conditions"]).to_vec();
    for condition in reported.array_at(&["conditions"]) {
        let kind = condition.str_at(&["type"]);
        if !is_own(condition) {
            continue;
        }
        match conditions.iter_mut().find(|old| old.str_at(&["type"]) == kind) {
            Some(old) => *old = condition.clone(),
            None => conditions.push(condition.clone()),
        }
    }
    shown.set(&["status", "conditions"], Value::Array(conditions));
}

fn is_own(condition: &Value) -> bool {
    // Whoever ends a pod says so; the kubelet does when the node made it go.
    OWN.contains(&condition.str_at(&["type"])) || condition.str_at(&["reason"]) == "TerminationByKubelet"
}

/// The strategic merge patch from one status to the next. Conditions of others are left alone.
fn patch(uid: &str, old: &Value, new: &Value) -> Value {
    let mut status = new.clone();
    let before = old.array_at(&["conditions"]);
    if let Some(conditions) = status.at_mut(&["conditions"]).and_then(Value::as_array_mut) {
        conditions.retain(is_own);
        for condition in conditions.iter_mut() {
            let kind = condition.str_at(&["type"]).to_owned();
            let old = before.iter().find(|old| old.str_at(&["type"]) == kind);
            // Conditions are merged: what one does not say any more has to be taken out.
            for field in ["reason", "message"] {
                if condition.get(field).is_null() && old.is_some_and(|old| !old.get(field).is_null()) {
                    condition.set(&[field], Value::Null);
                }
            }
        }
        let has = |conditions: &[Value], kind| conditions.iter().any(|c| c.str_at(&["type"]) == kind);
        // These are there only while they are true.
        for kind in Conditions::TYPES {
            if has(before, kind) && !has(conditions, kind) {
                conditions.push(object!({"$patch": "delete", "type": kind}));
            }
        }
    }
    for field in ["podIPs", "hostIPs"] {
        // These lists are merged by default; what is not in the new one must go.
        if let Some(ips) = status.at_mut(&[field]).and_then(Value::as_array_mut)
            && old.get(field).as_array() != Some(ips)
        {
            ips.insert(0, object!({"$patch": "replace"}));
        }
    }
    for field in ["reason", "message"] {
        if status.get(field).is_null() && !old.get(field).is_null() {
            status.set(&[field], Value::Null);
        }
    }
    for field in ["resources", "allocatedResources"] {
        take_out(old.get(field), status.at_mut(&[field]));
    }
    // The class of service is decided when the pod is made.
    status.remove_at(&["qosClass"]);
    object!({"metadata": {"uid": uid}, "status": (status)})
}

/// Writes null for what is not in a merged object any more.
fn take_out(old: &Value, new: Option<&mut Value>) {
    let (Some(old), Some(new)) = (old.as_object(), new) else { return };
    for (key, value) in old.iter() {
        match new.at_mut(&[key]) {
            Some(kept) => take_out(value, Some(kept)),
            None => new.set(&[key], Value::Null),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_is_taken_out() {
        let old = object!({
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            "conditions": [{"type": "PodResizePending", "status": "True"}],
        });
        let new = object!({"resources": {"limits": {"cpu": "2"}}, "conditions": []});
        let patch = patch("u", &old, &new);
        let expected = object!({"cpu": "2", "memory": null});
        assert_eq!(patch.at(&["status", "resources", "limits"]), &expected);
        let deleted = object!({"$patch": "delete", "type": "PodResizePending"});
        assert_eq!(patch.array_at(&["status", "conditions"]), [deleted]);
    }

    #[test]
    fn a_condition_that_holds_again_has_no_reason_any_more() {
        let old = object!({"conditions": [
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m"},
        ]});
        let patch = patch("u", &old, &object!({"conditions": [{"type": "Ready", "status": "True"}]}));
        let expected = object!({"type": "Ready", "status": "True", "reason": null, "message": null});
        assert_eq!(patch.array_at(&["status", "conditions"]), [expected]);
    }

    #[test]
    fn a_patch_leaves_the_conditions_of_others_alone() {
        let old = object!({"reason": "Old", "podIPs": [{"ip": "10.42.0.1"}]});
        let new = object!({
            "phase": "Running",
            "podIPs": [{"ip": "10.42.0.2"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "example.com/x", "status": "True"}],
        });
        let patch = patch("u", &old, &new);
        assert_eq!(patch.str_at(&["metadata", "uid"]), "u");
        assert_eq!(patch.array_at(&["status", "conditions"]).len(), 1);
        assert!(patch.at(&["status"]).as_object().unwrap().contains_key("reason"));
        assert_eq!(patch.array_at(&["status", "podIPs"])[0].str_at(&["$patch"]), "replace");
    }
}
