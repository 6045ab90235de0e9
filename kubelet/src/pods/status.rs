//! A pod's status from its spec and what the runtime has: a pure function, worded as upstream words it.

mod conditions;
mod containers;
mod resources;
mod restart;

use api::{Map, Value, object};

pub(crate) use restart::RESTARTING_ALL;

use super::observed::Observed;
use super::plan::Verdicts;
use super::spec;
use crate::allocation::Conditions;
use crate::shutdown;
use containers::Kind;
use linux::cgroup::Limits;

/// What else goes into a status.
pub(crate) struct Context<'a> {
    /// The pod; its status is the one reported last.
    pub pod: &'a Value,
    /// What the runtime has.
    pub observed: &'a Observed,
    /// What the probes say.
    pub verdicts: &'a Verdicts,
    /// Why a container waits, by its name: reason and message.
    pub waiting: &'a dyn Fn(&str) -> Option<(String, String)>,
    /// Why the whole pod failed, when something else than its containers decided that: reason and message.
    pub verdict: Option<&'a (String, String)>,
    /// Why the node, which runs short, made the pod go.
    pub disruption: Option<&'a str>,
    /// Nothing of the pod will be started any more.
    pub ending: bool,
    /// Conditions of a change of resources.
    pub resize: &'a Conditions,
    /// How the devices of a container are, by its name.
    pub devices: &'a dyn Fn(&str) -> Vec<Value>,
    /// The limits of the pod's control group.
    pub limits: &'a dyn Fn() -> Limits,
    /// Whether the pod's runtime makes mounts read-only all the way down.
    pub recursive_read_only: bool,
    /// The node's addresses.
    pub host_ips: &'a [String],
    /// The time, as the API writes it.
    pub now: &'a str,
}

/// The status to report.
pub(crate) fn generate(context: &Context<'_>) -> Value {
    let pod = context.pod;
    let old = pod.get("status");
    let mut status = Map::new();
    let generation = pod.at(&["metadata", "generation"]).as_i64().unwrap_or_default();
    if generation > 0 {
        status.push("observedGeneration", generation.into());
    }
    let mut init = containers::statuses(context, Kind::Init);
    let mut main = containers::statuses(context, Kind::Main);
    let phase = phase(context, &init, &main);
    status.push("phase", shown(context, phase).into());
    if phase == "Failed" && never_was(context) {
        // A pod that was turned away has nothing to show but the reason.
        init.clear();
        main.clear();
    } else {
        let conditions = conditions::all(context, phase, &init, &main);
        status.push("conditions", Value::Array(conditions));
    }
    match context.verdict.filter(|_| is_over(context)) {
        Some((reason, message)) => {
            status.push("message", message.as_str().into());
            status.push("reason", reason.as_str().into());
        }
        // What once failed the pod stays on record.
        None if phase == "Failed" => {
            for field in ["message", "reason"].into_iter().filter(|field| !old.get(field).is_empty()) {
                status.push(field, old.get(field).clone());
            }
        }
        None => {}
    }
    addresses(context, old, &mut status);
    let started = match old.str_at(&["startTime"]) {
        "" => context.now,
        before => before,
    };
    status.push("startTime", started.into());
    if !init.is_empty() {
        status.push(Kind::Init.field(), Value::Array(init));
    }
    if !main.is_empty() {
        status.push(Kind::Main.field(), Value::Array(main));
    }
    let ephemeral = containers::statuses(context, Kind::Ephemeral);
    if !ephemeral.is_empty() {
        status.push(Kind::Ephemeral.field(), Value::Array(ephemeral));
    }
    if !(phase == "Failed" && never_was(context)) {
        resources::of_pod(context, &mut status);
    }
    status.push("qosClass", spec::qos(pod).into());
    Value::Object(status)
}

/// The phase to show: a pod whose end is decided stays what it was as long as anything of it runs, a sidecar for example,
/// because what a pod had that has ended is given to others.
fn shown(context: &Context<'_>, phase: &'static str) -> &'static str {
    if !matches!(phase, "Succeeded" | "Failed") || spec::is_terminal(context.pod) || is_over(context) {
        return phase;
    }
    match context.pod.str_at(&["status", "phase"]) {
        "Running" => "Running",
        _ => "Pending",
    }
}

/// Whether nothing runs any more: only then is a verdict shown, because a pod that has failed uses nothing.
fn is_over(context: &Context<'_>) -> bool {
    context.observed.running().next().is_none()
}

/// Whether nothing was ever made for the pod.
fn never_was(context: &Context<'_>) -> bool {
    let observed = context.observed;
    observed.sandboxes.is_empty()
        && observed.containers.is_empty()
        && context.pod.array_at(&["status", "containerStatuses"]).is_empty()
}

fn addresses(context: &Context<'_>, old: &Value, status: &mut Map) {
    let list = |ips: &[String]| Value::Array(ips.iter().map(|ip| object!({"ip": (ip.as_str())})).collect());
    if let Some(first) = context.host_ips.first() {
        status.push("hostIP", first.as_str().into());
        status.push("hostIPs", list(context.host_ips));
    }
    let ips = match context.observed.sandbox(context.pod) {
        Some(_) if spec::host_network(context.pod) => context.host_ips.to_vec(),
        Some(sandbox) => sandbox.ips.clone(),
        // The address stays on record after the sandbox is gone.
        None => old.array_at(&["podIPs"]).iter().map(|ip| ip.str_at(&["ip"]).to_owned()).collect(),
    };
    if let Some(first) = ips.first() {
        status.push("podIP", first.as_str().into());
        status.push("podIPs", list(&ips));
    }
}

/// How a container stands, for the phase.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Unknown,
    Running,
    /// Never started.
    Waiting,
    /// Ended, or waiting to be started again, with the last exit code.
    Stopped(i64),
    /// Removed in order to be started over together with all others.
    Reset,
}

fn standing(status: &Value) -> Standing {
    let state = status.get("state");
    if !state.get("running").is_null() {
        return Standing::Running;
    }
    if let Some(code) = state.at(&["terminated", "exitCode"]).as_i64() {
        return Standing::Stopped(code);
    }
    if state.str_at(&["waiting", "reason"]) == RESTARTING_ALL {
        return Standing::Reset;
    }
    match status.at(&["lastState", "terminated", "exitCode"]).as_i64() {
        Some(code) => Standing::Stopped(code),
        None if state.get("waiting").is_null() => Standing::Unknown,
        None => Standing::Waiting,
    }
}

fn phase(context: &Context<'_>, init: &[Value], main: &[Value]) -> &'static str {
    match context.verdict.filter(|_| is_over(context)) {
        None => phase_of_containers(context, init, main),
        // A pod that ended well while the node shuts down has succeeded.
        Some((reason, _))
            if reason == shutdown::REASON && phase_of_containers(context, init, main) == "Succeeded" =>
        {
            "Succeeded"
        }
        Some(_) => "Failed",
    }
}

fn phase_of_containers(context: &Context<'_>, init: &[Value], main: &[Value]) -> &'static str {
    let pod = context.pod;
    match pod.str_at(&["status", "phase"]) {
        "Failed" => return "Failed",
        "Succeeded" => return "Succeeded",
        _ => {}
    }
    let mut pending = false;
    for (container, status) in spec::init_containers(pod).iter().zip(init) {
        match standing(status) {
            _ if spec::is_sidecar(container) => {
                let started = status.get("started").as_bool().unwrap_or_default();
                pending |= !started && !matches!(standing(status), Standing::Stopped(_));
            }
            Standing::Stopped(0) | Standing::Reset => {}
            Standing::Stopped(code) => {
                let again = spec::should_restart(pod, container, code as i32);
                if !again {
                    return "Failed";
                }
            }
            _ => pending = true,
        }
    }
    let initialized = main.iter().any(|status| {
        status.get("started").as_bool().unwrap_or_default()
            || matches!(standing(status), Standing::Stopped(_) | Standing::Reset)
    });
    let standings: Vec<_> = main.iter().map(standing).collect();
    let count = |wanted: fn(&Standing) -> bool| standings.iter().filter(|standing| wanted(standing)).count();
    let stopped = count(|standing| matches!(standing, Standing::Stopped(_) | Standing::Reset));
    let succeeded = count(|standing| matches!(standing, Standing::Stopped(0)));
    let restartable =
        spec::containers(pod).iter().zip(&standings).any(|(container, standing)| match standing {
            Standing::Stopped(code) => spec::should_restart(pod, container, *code as i32),
            Standing::Reset => true,
            _ => false,
        });
    if (pending && !initialized) || standings.contains(&Standing::Waiting) && !context.ending {
        return "Pending";
    }
    match standings.contains(&Standing::Running) {
        _ if standings.contains(&Standing::Unknown) => "Pending",
        true => "Running",
        false if stopped == 0 => "Pending",
        false if !context.ending && restartable => "Running",
        // A pod that is deleted before all of it ever ran has not succeeded.
        false if stopped == succeeded && stopped == standings.len() => "Succeeded",
        false => "Failed",
    }
}

#[cfg(test)]
mod tests;
