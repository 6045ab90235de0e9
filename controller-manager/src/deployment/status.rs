//! The status of a Deployment: counts, and the conditions that `kubectl rollout status` reads.

use std::time::Duration;

use api::{Value, object, time};
use client::resource::DEPLOYMENTS;
use jiff::Timestamp;

use super::{View, scale, sum, wanted};
use crate::act::Action;
use crate::objects::{condition, int, time_at};

const NO_DEADLINE: i64 = i32::MAX as i64;

/// Writes the status, if it changed, and comes back when the deadline may have passed.
pub(super) fn update(view: &View, now: Timestamp) -> Vec<Action> {
    let d = &view.deployment;
    let status = status(view, now);
    let mut actions = Vec::new();
    if let Some(wait) = until_deadline(d, &status, now) {
        actions.push(Action::Later(wait));
    }
    if &status != d.get("status") {
        let mut updated = (**d).clone();
        updated.set(&["status"], status);
        actions.push(Action::UpdateStatus(DEPLOYMENTS, updated));
    }
    actions
}

/// Whether every pod is of the present template and available, and none of another is left.
pub(super) fn is_complete(d: &Value, status: &Value) -> bool {
    let wanted = int(d, &["spec", "replicas"], 1);
    ["updatedReplicas", "replicas", "availableReplicas"].iter().all(|f| int(status, &[f], 0) == wanted)
        && int(status, &["observedGeneration"], 0) >= int(d, &["metadata", "generation"], 0)
}

fn status(view: &View, now: Timestamp) -> Value {
    let d = &view.deployment;
    let total = |field: &'static str| sum(view.all(), move |s| int(s, &["status", field], 0));
    let available = total("availableReplicas");
    let updated = view.new.as_deref().map_or(0, |s| int(s, &["status", "replicas"], 0));
    let mut status = object!({
        "observedGeneration": (d.at(&["metadata", "generation"])),
        "replicas": (total("replicas")),
        "updatedReplicas": updated,
        "readyReplicas": (total("readyReplicas")),
        "availableReplicas": available,
        "unavailableReplicas": ((sum(view.all(), wanted) - available).max(0)),
        "terminatingReplicas": (total("terminatingReplicas")),
        "collisionCount": (d.at(&["status", "collisionCount"])),
    });
    let mut conditions = Conditions { list: d.array_at(&["status", "conditions"]).to_vec(), now };
    if available >= view.replicas() - scale::max_unavailable(view) {
        let text = "Deployment has minimum availability.";
        conditions.set("Available", "True", "MinimumReplicasAvailable", text);
    } else {
        let text = "Deployment does not have minimum availability.";
        conditions.set("Available", "False", "MinimumReplicasUnavailable", text);
    }
    progress(view, &status, &mut conditions);
    match view.all().map(|s| condition(s, "ReplicaFailure")).find(|c| !c.is_null()) {
        Some(c) => {
            let field = |f| c.str_at(&[f]);
            conditions.set("ReplicaFailure", field("status"), field("reason"), field("message"));
        }
        None => conditions.list.retain(|c| c.str_at(&["type"]) != "ReplicaFailure"),
    }
    status.set(&["conditions"], conditions.list);
    if let Value::Object(map) = &mut status {
        map.retain(|k, v| k == "terminatingReplicas" || !v.is_empty());
    }
    status
}

/// The `Progressing` condition.
fn progress(view: &View, status: &Value, conditions: &mut Conditions) {
    let d = &view.deployment;
    let deadline = int(d, &["spec", "progressDeadlineSeconds"], NO_DEADLINE);
    if deadline == NO_DEADLINE {
        conditions.list.retain(|c| c.str_at(&["type"]) != "Progressing");
        return;
    }
    let now_is = condition(d, "Progressing");
    let reason = now_is.str_at(&["reason"]);
    if d.at(&["spec", "paused"]).as_bool() == Some(true) {
        if reason != "ProgressDeadlineExceeded" {
            conditions.set("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused");
        }
        return;
    }
    if reason == "DeploymentPaused" {
        conditions.set("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed");
    }
    let count = |s: &Value, f: &str| int(s, &[f], 0);
    let done =
        reason == "NewReplicaSetAvailable" && count(status, "replicas") == count(status, "updatedReplicas");
    if done {
        return;
    }
    let what = match &view.new {
        Some(set) => format!("ReplicaSet {:?}", set.name()),
        None => format!("Deployment {:?}", d.name()),
    };
    let old = d.get("status");
    let left_behind = |s: &Value| count(s, "replicas") - count(s, "updatedReplicas");
    let moved = count(status, "updatedReplicas") > count(old, "updatedReplicas")
        || left_behind(status) < left_behind(old)
        || count(status, "readyReplicas") > count(old, "readyReplicas")
        || count(status, "availableReplicas") > count(old, "availableReplicas");
    if is_complete(d, status) {
        let text = format!("{what} has successfully progressed.");
        conditions.set("Progressing", "True", "NewReplicaSetAvailable", &text);
    } else if moved {
        // Progress made counts anew from now.
        conditions.touch("Progressing");
        let text = format!("{what} is progressing.");
        conditions.set("Progressing", "True", "ReplicaSetUpdated", &text);
    } else if now_is.is_null() {
        let text = match &view.new {
            Some(set) => format!("Created new replica set {:?}", set.name()),
            None => format!("{what} is progressing."),
        };
        conditions.set("Progressing", "True", "NewReplicaSetCreated", &text);
    } else if timed_out(now_is, deadline, conditions.now) {
        let text = format!("{what} has timed out progressing.");
        conditions.set("Progressing", "False", "ProgressDeadlineExceeded", &text);
    } else if reason == "NewReplicaSetAvailable" {
        // A new roll-out begins.
        let text = format!("{what} is progressing.");
        conditions.set("Progressing", "True", "ReplicaSetUpdated", &text);
    }
}

fn timed_out(progressing: &Value, deadline: i64, now: Timestamp) -> bool {
    match progressing.str_at(&["reason"]) {
        "NewReplicaSetAvailable" => false,
        "ProgressDeadlineExceeded" => true,
        _ => time_at(progressing, &["lastUpdateTime"])
            .is_some_and(|t| t.as_second() + deadline < now.as_second()),
    }
}

fn until_deadline(d: &Value, status: &Value, now: Timestamp) -> Option<Duration> {
    let deadline = int(d, &["spec", "progressDeadlineSeconds"], NO_DEADLINE);
    let conditions = status.array_at(&["conditions"]);
    let progressing = conditions.iter().find(|c| c.str_at(&["type"]) == "Progressing")?;
    if matches!(
        progressing.str_at(&["reason"]),
        "NewReplicaSetAvailable" | "ProgressDeadlineExceeded" | "DeploymentPaused"
    ) {
        return None;
    }
    let since = time_at(progressing, &["lastUpdateTime"])?;
    let left = since.as_second() + deadline - now.as_second() + 1;
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(1).max(1)))
}

/// Conditions of a Deployment, which also say when they were last updated.
struct Conditions {
    list: Vec<Value>,
    now: Timestamp,
}

impl Conditions {
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let now = time::format(self.now);
        let at = self.list.iter().position(|c| c.str_at(&["type"]) == kind);
        let mut since = now.clone();
        if let Some(at) = at {
            let old = &self.list[at];
            let same_status = old.str_at(&["status"]) == status;
            let untouched = !old.str_at(&["lastUpdateTime"]).is_empty();
            if same_status && old.str_at(&["reason"]) == reason && untouched {
                return;
            }
            if same_status {
                since = old.str_at(&["lastTransitionTime"]).to_owned();
            }
        }
        let fresh = object!({
            "type": kind, "status": status, "lastUpdateTime": now, "lastTransitionTime": since,
            "reason": reason, "message": message,
        });
        match at {
            Some(at) => self.list[at] = fresh,
            None => self.list.push(fresh),
        }
    }

    /// Makes the next `set` update the time even when nothing else changes.
    fn touch(&mut self, kind: &str) {
        if let Some(c) = self.list.iter_mut().find(|c| c.str_at(&["type"]) == kind) {
            c.set(&["lastUpdateTime"], "");
        }
    }
}
