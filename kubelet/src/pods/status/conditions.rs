//! The conditions of a pod.

use api::{Map, Value};

use super::{Context, restart};
use crate::allocation::Conditions;
use crate::pods::spec;

/// Tells that not its own doing ended the pod.
const DISRUPTION: &str = "DisruptionTarget";
/// Tells that all containers are being removed to be started over.
const RESTARTING: &str = "AllContainersRestarting";

/// A condition before it is compared with the last one.
struct Condition {
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

impl Condition {
    fn of(kind: &'static str, status: bool) -> Self {
        Self { kind, status, reason: "", message: String::new() }
    }

    fn because(kind: &'static str, status: bool, reason: &'static str, message: String) -> Self {
        Self { kind, status, reason, message }
    }
}

/// The kubelet's own conditions first, then those of others.
pub(super) fn all(context: &Context<'_>, phase: &str, init: &[Value], main: &[Value]) -> Vec<Value> {
    let old = context.pod.array_at(&["status", "conditions"]);
    let containers_ready = containers_ready(context, phase, init, main);
    let conditions = [
        Condition::of("PodReadyToStartContainers", context.observed.sandbox(context.pod).is_some()),
        initialized(context, phase, init, main),
        ready(&containers_ready, context.pod),
        containers_ready,
    ];
    let generation = context.pod.at(&["metadata", "generation"]).as_i64().unwrap_or_default();
    let mut out: Vec<Value> =
        conditions.iter().map(|condition| stamped(condition, old, generation, context.now)).collect();
    let scheduled = old.iter().find(|condition| condition.str_at(&["type"]) == "PodScheduled");
    match scheduled {
        Some(scheduled) => out.push(scheduled.clone()),
        // Nobody scheduled a static pod, or one that was bound by hand.
        None => out.push(stamped(&Condition::of("PodScheduled", true), old, generation, context.now)),
    }
    if spec::may_restart_all(context.pod) {
        out.push(stamped(&restarting_all(context, phase), old, 0, context.now));
    }
    if !matches!(phase, "Succeeded" | "Failed") {
        out.extend(context.resize.to_values());
    }
    if let Some(message) = context.disruption {
        let condition = Condition::because(DISRUPTION, true, "TerminationByKubelet", message.to_owned());
        out.push(stamped(&condition, old, generation, context.now));
    }
    let shown =
        |condition: &&Value| context.disruption.is_none() || condition.str_at(&["type"]) != DISRUPTION;
    let own = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
        RESTARTING,
        Conditions::TYPES[0],
        Conditions::TYPES[1],
    ];
    out.extend(
        old.iter().filter(shown).filter(|condition| !own.contains(&condition.str_at(&["type"]))).cloned(),
    );
    out
}

fn stamped(condition: &Condition, old: &[Value], generation: i64, now: &str) -> Value {
    let text = if condition.status { "True" } else { "False" };
    let before = old.iter().find(|old| old.str_at(&["type"]) == condition.kind);
    let since = before.filter(|before| before.str_at(&["status"]) == text);
    let since = since.map(|before| before.str_at(&["lastTransitionTime"])).filter(|since| !since.is_empty());
    let mut out = Map::new();
    out.push("type", condition.kind.into());
    if generation > 0 {
        out.push("observedGeneration", generation.into());
    }
    out.push("status", text.into());
    out.push("lastProbeTime", Value::Null);
    out.push("lastTransitionTime", since.unwrap_or(now).into());
    if !condition.reason.is_empty() {
        out.push("reason", condition.reason.into());
    }
    if !condition.message.is_empty() {
        out.push("message", condition.message.as_str().into());
    }
    Value::Object(out)
}

/// Names as Go prints a list: `[a b]`.
fn listed(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn names<'v>(statuses: impl Iterator<Item = &'v Value>, wanted: impl Fn(&Value) -> bool) -> Vec<&'v str> {
    statuses.filter(|status| wanted(status)).map(|status| status.str_at(&["name"])).collect()
}

fn is_true(status: &Value, field: &str) -> bool {
    status.get(field).as_bool().unwrap_or_default()
}

fn containers_ready(context: &Context<'_>, phase: &str, init: &[Value], main: &[Value]) -> Condition {
    const KIND: &str = "ContainersReady";
    match phase {
        "Succeeded" => return Condition::because(KIND, false, "PodCompleted", String::new()),
        "Failed" => return Condition::because(KIND, false, "PodFailed", String::new()),
        _ => {}
    }
    let sidecars = spec::init_containers(context.pod).iter().zip(init).filter(|(c, _)| spec::is_sidecar(c));
    let counted = sidecars.map(|(_, status)| status).chain(main);
    let unready = names(counted, |status| !is_true(status, "ready"));
    if unready.is_empty() {
        return Condition::of(KIND, true);
    }
    let message = format!("containers with unready status: {}", listed(&unready));
    Condition::because(KIND, false, "ContainersNotReady", message)
}

fn ready(containers: &Condition, pod: &Value) -> Condition {
    const KIND: &str = "Ready";
    if !containers.status {
        return Condition::because(KIND, false, containers.reason, containers.message.clone());
    }
    let mut missing = Vec::new();
    for gate in pod.array_at(&["spec", "readinessGates"]) {
        let gate = gate.str_at(&["conditionType"]);
        let conditions = pod.array_at(&["status", "conditions"]);
        match conditions.iter().find(|condition| condition.str_at(&["type"]) == gate) {
            None => missing
                .push(format!("corresponding condition of pod readiness gate {gate:?} does not exist.")),
            Some(condition) if condition.str_at(&["status"]) != "True" => missing.push(format!(
                "the status of pod readiness gate {gate:?} is not \"True\", but {}",
                condition.str_at(&["status"])
            )),
            Some(_) => {}
        }
    }
    match missing.is_empty() {
        true => Condition::of(KIND, true),
        false => Condition::because(KIND, false, "ReadinessGatesNotReady", missing.join(", ")),
    }
}

fn restarting_all(context: &Context<'_>, phase: &str) -> Condition {
    match phase {
        "Succeeded" => Condition::because(RESTARTING, false, "PodCompleted", String::new()),
        "Failed" => Condition::because(RESTARTING, false, "PodFailed", String::new()),
        _ if restart::is_going_on(context) && restart::has_rest(context) => {
            let message = "container exited with restart policy rule".to_owned();
            Condition::because(RESTARTING, true, "RestartAllContainersStarted", message)
        }
        _ => Condition::of(RESTARTING, false),
    }
}

fn initialized(context: &Context<'_>, phase: &str, init: &[Value], main: &[Value]) -> Condition {
    const KIND: &str = "Initialized";
    if phase == "Succeeded" {
        return Condition::because(KIND, true, "PodCompleted", String::new());
    }
    let began = |status: &Value| {
        is_true(status, "started")
            || !status.at(&["state", "running"]).is_null()
            || !status.at(&["state", "terminated"]).is_null()
            || !status.at(&["lastState", "terminated"]).is_null()
    };
    if main.iter().any(began) {
        return Condition::of(KIND, true);
    }
    let pairs = spec::init_containers(context.pod).iter().zip(init);
    let incomplete: Vec<&str> = pairs
        .filter(|(container, status)| {
            !is_true(status, if spec::is_sidecar(container) { "started" } else { "ready" })
        })
        .map(|(_, status)| status.str_at(&["name"]))
        .collect();
    let mut before = context.pod.array_at(&["status", "conditions"]).iter();
    // A pod that starts all its containers over stays initialized.
    let was = before.any(|old| old.str_at(&["type"]) == KIND && old.str_at(&["status"]) == "True");
    if incomplete.is_empty() || was {
        return Condition::of(KIND, true);
    }
    let message = format!("containers with incomplete status: {}", listed(&incomplete));
    Condition::because(KIND, false, "ContainersNotInitialized", message)
}
