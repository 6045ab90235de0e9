//! Pods.

mod affinity;
mod container;
mod environment;
mod mounts;
mod paths;
mod prepare;
mod probes;
mod projected;
mod qos;
mod resize;
mod resources;
mod security;
mod spec;
mod status;
mod update;
mod volumes;
mod warnings;
mod windows;

use api::field::{FieldError, Path};
use api::{Value, object};

use super::check::At;
use super::{Entry, Errors, Field, Part, StatusMetadata, Strategy};

pub(super) use api::pod::{default_pod_spec, default_pod_template, default_volume_source};
pub(crate) use qos::qos_class;

pub(super) use affinity::{validate_node_selector, validate_taints, validate_tolerations};
pub(super) use mounts::no_back_steps;
pub(super) use resources::{validate_limits, validate_quantity};
pub(super) use spec::{validate_template, validate_template_labels};
pub(super) use volumes::validate_template_metadata;
pub(super) use warnings::{
    of_name_for_pods as warning_of_name_for_pods, of_template as warnings_of_template,
    of_term as warnings_of_term,
};

pub(super) const STRATEGIES: &[Entry] = &[("", "pods", &POD)];

/// Says that a kubelet shows a pod of its own here.
const MIRROR: &str = "kubernetes.io/config.mirror";

static POD: Strategy = Strategy {
    status_metadata: StatusMetadata::AllBut("ownerReferences"),
    fields: &[
        Field::text("spec.nodeName", &["spec", "nodeName"]),
        Field::text("spec.restartPolicy", &["spec", "restartPolicy"]),
        Field::text("spec.schedulerName", &["spec", "schedulerName"]),
        Field::text("spec.serviceAccountName", &["spec", "serviceAccountName"]),
        Field::flag("spec.hostNetwork", &["spec", "hostNetwork"]),
        Field::text("status.phase", &["status", "phase"]),
        Field::text("status.podIP", &["status", "podIP"]),
        // A field that upstream takes, and by which it finds nothing.
        Field::text("status.podIPs", &["status", ""]),
        Field::text("status.nominatedNodeName", &["status", "nominatedNodeName"]),
    ],
    default: api::pod::default_pod,
    prepare_create: prepare::create,
    prepare_update: |new, old| new.set(&["status"], old.get("status")),
    parts: &[STATUS, EPHEMERAL_CONTAINERS, RESIZE],
    validate: validate_create,
    validate_update: |new, old, errors| {
        validate(new, errors);
        update::validate(new, old, errors);
    },
    revalidates: false,
    warn: warnings::of_pod,
    generation: true,
    ..Strategy::NEUTRAL
};

/// What holds for a pod at any time.
fn validate(pod: &Value, errors: &mut Errors) {
    let metadata = Path::new("metadata");
    let annotations = At { value: pod.at(&["metadata", "annotations"]), path: metadata.child("annotations") };
    let spec = spec::spec_of(pod);
    security::validate_annotations(&annotations, &spec, errors);
    spec::validate_spec(&spec, &spec::Subject { metadata: Some(pod.get("metadata")) }, errors);
    if spec.get("serviceAccountName").text().is_empty() {
        for volume in spec.get("volumes").items() {
            for source in volume.get("projected.sources").items() {
                let token = source.get("serviceAccountToken");
                if token.is_set() {
                    token.forbidden(errors, "must not be specified when serviceAccountName is not set");
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get(list).items() {
            container::validate_image_spaces(&container, errors);
        }
    }
}

fn validate_create(pod: &Value, errors: &mut Errors) {
    validate(pod, errors);
    let spec = spec::spec_of(pod);
    if spec.get("ephemeralContainers").len() > 0 {
        spec.get("ephemeralContainers").forbidden(errors, "cannot be set on create");
    }
    if !spec.get("nodeName").text().is_empty() && spec.get("schedulingGates").len() != 0 {
        let why = "cannot be set until all schedulingGates have been cleared";
        spec.get("nodeName").forbidden(errors, why);
    }
    security::annotations_match_fields(pod.at(&["metadata", "annotations"]), &spec, errors);
}

const STATUS: Part = Part {
    name: "status",
    fixed: &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]],
    prepare: prepare::status,
    validate: status::validate,
};

const EPHEMERAL_CONTAINERS: Part = Part {
    name: "ephemeralcontainers",
    fixed: &[],
    prepare: prepare::ephemeral_containers,
    validate: |new, old, errors| {
        validate(new, errors);
        update::validate_annotations(new, old, errors);
        update::validate_ephemeral_containers(new, old, errors);
    },
};

const RESIZE: Part = Part {
    name: "resize",
    fixed: &[],
    prepare: prepare::resize,
    validate: |new, old, errors| {
        validate(new, errors);
        resize::validate(new, old, errors);
    },
};

/// A refusal of the whole pod.
fn refuse(errors: &mut Errors, why: &str) {
    errors.clear();
    // Upstream's path of nothing.
    errors.push(FieldError::forbidden(&Path::new("[]"), why));
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
    pod.remove_at(&["status", "nominatedNodeName"]);
    for field in ["annotations", "labels"] {
        for (key, value) in binding.at(&["metadata", field]).as_object().into_iter().flat_map(|m| m.iter()) {
            pod.set(&["metadata", field, key], value);
        }
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
