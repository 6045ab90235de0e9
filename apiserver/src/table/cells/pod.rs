//! Pods.

use api::Value;
use jiff::Timestamp;

use super::{NONE, age, condition, or};

pub(super) fn pod(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec_containers = o.array_at(&["spec", "containers"]);
    let restartable = |name: &str| {
        o.array_at(&["spec", "initContainers"])
            .iter()
            .any(|c| c.str_at(&["name"]) == name && c.str_at(&["restartPolicy"]) == "Always")
    };
    let mut total = spec_containers.len();
    total += o
        .array_at(&["spec", "initContainers"])
        .iter()
        .filter(|c| c.str_at(&["restartPolicy"]) == "Always")
        .count();
    let mut reason = or(o.str_at(&["status", "reason"]), o.str_at(&["status", "phase"])).to_owned();
    if condition(o, "PodScheduled").is_some_and(|c| c.str_at(&["reason"]) == "SchedulingGated") {
        reason = "SchedulingGated".to_owned();
    }
    let (mut ready, mut restarts, mut sidecar_restarts) = (0, 0, 0);
    let mut last_restart: Option<Timestamp> = None;
    let mut note_restart = |s: &Value| {
        if let Some(t) = api::time::parse(s.str_at(&["lastState", "terminated", "finishedAt"])) {
            last_restart = Some(last_restart.map_or(t, |l| l.max(t)));
        }
    };
    let mut initializing = false;
    let init_total = o.array_at(&["spec", "initContainers"]).len();
    for (i, s) in o.array_at(&["status", "initContainerStatuses"]).iter().enumerate() {
        let count = s.get("restartCount").as_i64().unwrap_or(0);
        restarts += count;
        note_restart(s);
        let sidecar = restartable(s.str_at(&["name"]));
        if sidecar {
            sidecar_restarts += count;
        }
        let (terminated, waiting) = (s.at(&["state", "terminated"]), s.at(&["state", "waiting"]));
        if !terminated.is_null() && terminated.get("exitCode").as_i64() == Some(0) {
            continue;
        }
        if sidecar && s.get("started").as_bool() == Some(true) {
            if s.get("ready").as_bool() == Some(true) {
                ready += 1;
            }
            continue;
        }
        initializing = true;
        reason = if !terminated.is_null() {
            format!("Init:{}", ended(terminated))
        } else if !matches!(waiting.str_at(&["reason"]), "" | "PodInitializing") {
            format!("Init:{}", waiting.str_at(&["reason"]))
        } else {
            format!("Init:{i}/{init_total}")
        };
        break;
    }
    let initialized = condition(o, "Initialized").is_some_and(|c| c.str_at(&["status"]) == "True");
    if !initializing || initialized {
        restarts = sidecar_restarts;
        let mut running = false;
        for s in o.array_at(&["status", "containerStatuses"]).iter().rev() {
            restarts += s.get("restartCount").as_i64().unwrap_or(0);
            note_restart(s);
            let (waiting, terminated) = (s.at(&["state", "waiting"]), s.at(&["state", "terminated"]));
            if !waiting.str_at(&["reason"]).is_empty() {
                reason = waiting.str_at(&["reason"]).to_owned();
            } else if !terminated.is_null() {
                reason = ended(terminated);
            } else if s.get("ready").as_bool() == Some(true) && !s.at(&["state", "running"]).is_null() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            let is_ready = condition(o, "Ready").is_some_and(|c| c.str_at(&["status"]) == "True");
            reason = if is_ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if o.is_terminating() {
        if o.str_at(&["status", "reason"]) == "NodeLost" {
            reason = "Unknown".to_owned();
        } else if !matches!(o.str_at(&["status", "phase"]), "Failed" | "Succeeded") {
            reason = "Terminating".to_owned();
        }
    }
    let restarts = match last_restart {
        Some(t) if restarts > 0 => {
            format!("{restarts} ({} ago)", api::time::human_duration(now.as_second() - t.as_second()))
        }
        _ => restarts.to_string(),
    };
    let gates = o.array_at(&["spec", "readinessGates"]);
    let gates = if gates.is_empty() {
        NONE.to_owned()
    } else {
        let met = gates.iter().filter(|g| {
            condition(o, g.str_at(&["conditionType"])).is_some_and(|c| c.str_at(&["status"]) == "True")
        });
        format!("{}/{}", met.count(), gates.len())
    };
    vec![
        o.name().into(),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.into(),
        age(o, now).into(),
        or(o.str_at(&["status", "podIP"]), NONE).into(),
        or(o.str_at(&["spec", "nodeName"]), NONE).into(),
        or(o.str_at(&["status", "nominatedNodeName"]), NONE).into(),
        gates.into(),
    ]
}

fn ended(terminated: &Value) -> String {
    let reason = terminated.str_at(&["reason"]);
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match terminated.get("signal").as_i64().unwrap_or(0) {
        0 => format!("ExitCode:{}", terminated.get("exitCode").as_i64().unwrap_or(0)),
        signal => format!("Signal:{signal}"),
    }
}
