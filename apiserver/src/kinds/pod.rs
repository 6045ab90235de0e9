//! Pods.

use api::field::{FieldError, Path};
use api::{Value, object};

use super::pod_defaults::{default_pod, qos_class};
use super::pod_validation::validate_pod_spec;
use super::{Entry, Errors, Field, Strategy};

pub(super) const STRATEGIES: &[Entry] = &[("", "pods", &POD)];

static POD: Strategy = Strategy {
    fields: &[
        Field::text("spec.nodeName", &["spec", "nodeName"]),
        Field::text("spec.restartPolicy", &["spec", "restartPolicy"]),
        Field::text("spec.schedulerName", &["spec", "schedulerName"]),
        Field::text("spec.serviceAccountName", &["spec", "serviceAccountName"]),
        Field::flag("spec.hostNetwork", &["spec", "hostNetwork"]),
        Field::text("status.phase", &["status", "phase"]),
        Field::text("status.podIP", &["status", "podIP"]),
        Field::text("status.podIPs", &["status", "podIP"]),
        Field::text("status.nominatedNodeName", &["status", "nominatedNodeName"]),
    ],
    default: default_pod,
    prepare_create,
    prepare_update,
    prepare_status,
    validate: |pod, errors| {
        let path = Path::new("spec");
        validate_pod_spec(&path, pod.get("spec"), errors);
    },
    validate_update,
    generation: true,
    ..Strategy::NEUTRAL
};

fn prepare_create(pod: &mut Value) {
    let class = qos_class(pod.get("spec"));
    pod.set(&["status"], object!({"phase": "Pending", "qosClass": class}));
}

fn prepare_update(new: &mut Value, old: &Value) {
    new.set(&["status"], old.get("status"));
}

fn prepare_status(new: &mut Value, old: &Value) {
    new.set(&["spec"], old.get("spec"));
    let class = old.at(&["status", "qosClass"]).clone();
    let status = new.make_object().entry("status").make_object();
    if !class.is_null() && status.get("qosClass").is_none_or(Value::is_empty) {
        status.insert("qosClass", class);
    }
    // Finalizers and owners belong to the writers of the object itself.
    new.set(&["metadata", "deletionTimestamp"], old.at(&["metadata", "deletionTimestamp"]));
    if old.at(&["metadata", "deletionTimestamp"]).is_null() {
        new.remove_at(&["metadata", "deletionTimestamp"]);
    }
}

const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (new_spec, old_spec) = (new.get("spec"), old.get("spec"));
    let (is, was) = (new_spec.array_at(&["tolerations"]), old_spec.array_at(&["tolerations"]));
    if was.iter().any(|t| !is.contains(t)) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(&path.child("tolerations"), why));
    }
    let mut masked = new_spec.clone();
    for list in ["containers", "initContainers"] {
        let before = old_spec.array_at(&[list]);
        let after = masked.make_object().get_mut(list).and_then(Value::as_array_mut);
        for (container, was) in after.into_iter().flatten().zip(before) {
            container.set(&["image"], was.get("image"));
        }
    }
    let gated = old_spec
        .array_at(&["schedulingGates"])
        .iter()
        .all(|g| !old_spec.get("schedulingGates").is_empty() && !g.is_null());
    for field in ["tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds"] {
        restore(&mut masked, old_spec, field);
    }
    if gated && !old_spec.get("schedulingGates").is_empty() {
        for field in ["schedulingGates", "nodeSelector", "affinity"] {
            restore(&mut masked, old_spec, field);
        }
    }
    if masked != *old_spec {
        errors.push(FieldError::forbidden(&path, MUTABLE));
    }
}

fn restore(spec: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Value::Null => {
            spec.make_object().remove(field);
        }
        value => spec.set(&[field], value),
    }
}

/// Binds a pod to a node: the body of `pods/binding`.
pub fn bind(pod: &mut Value, binding: &Value, now: &str) -> Result<(), String> {
    let bound = pod.str_at(&["spec", "nodeName"]);
    let name = pod.name().to_owned();
    if pod.is_terminating() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if !bound.is_empty() {
        return Err(format!("pod {name} is already assigned to node \"{bound}\""));
    }
    if !pod.array_at(&["spec", "schedulingGates"]).is_empty() {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod.set(&["spec", "nodeName"], binding.at(&["target", "name"]));
    for (key, value) in
        binding.at(&["metadata", "annotations"]).as_object().into_iter().flat_map(|m| m.iter())
    {
        pod.set(&["metadata", "annotations", key], value);
    }
    set_condition(
        pod,
        object!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}),
    );
    Ok(())
}

/// Replaces the condition of the same type, keeping its time when the status stays.
pub fn set_condition(object: &mut Value, mut condition: Value) {
    let conditions = object.make_object().entry("status").make_object().entry("conditions").make_array();
    match conditions.iter_mut().find(|c| c.get("type") == condition.get("type")) {
        Some(present) => {
            if present.get("status") == condition.get("status") {
                condition.set(&["lastTransitionTime"], present.get("lastTransitionTime"));
            }
            *present = condition;
        }
        None => conditions.push(condition),
    }
}
