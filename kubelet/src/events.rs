//! Events about pods and their containers.

use api::Value;
use client::Recorder;
use client::events::{Event, Kind, reference};

use crate::pods::spec;

/// An event about one container of a pod.
pub(crate) fn of_container(
    recorder: &Recorder,
    pod: &Value,
    container: &str,
    kind: Kind,
    reason: &str,
    message: &str,
) {
    let mut regarding = of(pod);
    let field = match container {
        name if spec::is_init(pod, name) => "initContainers",
        name if spec::is_ephemeral(pod, name) => "ephemeralContainers",
        _ => "containers",
    };
    regarding.set(&["fieldPath"], format!("spec.{field}{{{container}}}"));
    record(recorder, regarding, kind, reason, message);
}

/// An event about a whole pod.
pub(crate) fn of_pod(recorder: &Recorder, pod: &Value, kind: Kind, reason: &str, message: &str) {
    record(recorder, of(pod), kind, reason, message);
}

fn record(recorder: &Recorder, regarding: Value, kind: Kind, reason: &str, message: &str) {
    recorder.record(Event {
        regarding,
        kind,
        reason: reason.to_owned(),
        message: message.to_owned(),
        action: "",
    });
}

/// Objects in a list may lack their own type.
fn of(pod: &Value) -> Value {
    let mut regarding = reference(pod);
    regarding.set(&["kind"], "Pod");
    regarding.set(&["apiVersion"], "v1");
    regarding
}
