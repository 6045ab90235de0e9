//! Workloads: Deployments, ReplicaSets, StatefulSets, DaemonSets and their revisions.

mod status;
mod validate;

use api::Value;
use api::field::Path;

use super::check::At;
use super::pod::default_pod_template;
use super::{Entry, StatusMetadata, Strategy, default_if_empty, default_to, is_desired_anew};

pub(super) use status::{part as status_part, validate_replicas as validate_replica_status};
pub(super) use validate::validate_template as validate_workload_template;

pub(super) const STRATEGIES: &[Entry] = &[
    ("apps", "deployments", &DEPLOYMENT),
    ("apps", "replicasets", &REPLICA_SET),
    ("apps", "statefulsets", &STATEFUL_SET),
    ("apps", "daemonsets", &DAEMON_SET),
    ("apps", "controllerrevisions", &REVISION),
];

/// Advice about the template of a workload.
pub(super) fn warn_template(workload: &Value) -> Vec<String> {
    let spec = Path::new("spec");
    super::pod::warnings_of_template(&spec.child("template"), workload.at(&["spec", "template"]))
}

/// Advice about the name of a workload that its pods are called after, and about its template.
pub(super) fn warn_name_and_template(workload: &Value) -> Vec<String> {
    super::pod::warning_of_name_for_pods(workload).into_iter().chain(warn_template(workload)).collect()
}

/// Advice about the template of a workload whose desired state is another now.
fn warn_new_template(new: &Value, old: &Value) -> Vec<String> {
    if is_desired_anew(new, old) { warn_template(new) } else { Vec::new() }
}

fn warn_history(set: &Value) -> Vec<String> {
    const ADVICE: &str = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";
    let limit = set.at(&["spec", "revisionHistoryLimit"]).as_i64();
    limit.filter(|limit| *limit < 0).map(|_| ADVICE.to_owned()).into_iter().collect()
}

static DEPLOYMENT: Strategy = Strategy {
    desired_metadata: &["annotations"],
    status_metadata: StatusMetadata::AllBut("labels"),
    default: |d| {
        let spec = d.make_object().entry("spec");
        default_to(spec, "replicas", 1);
        default_to(spec, "revisionHistoryLimit", 10);
        default_to(spec, "progressDeadlineSeconds", 600);
        let strategy = spec.make_object().entry("strategy");
        default_if_empty(strategy, "type", "RollingUpdate");
        if strategy.str_at(&["type"]) == "RollingUpdate" {
            let rolling = strategy.make_object().entry("rollingUpdate");
            default_to(rolling, "maxUnavailable", "25%");
            default_to(rolling, "maxSurge", "25%");
        }
        default_pod_template(spec);
    },
    validate: validate::deployment,
    validate_update: |new, old, errors| validate::selector_is_immutable(new, old, errors),
    warn: warn_name_and_template,
    warn_change: Some(warn_new_template),
    generation: true,
    parts: &[status_part(status::deployment)],
    ..Strategy::NEUTRAL
};

static REPLICA_SET: Strategy = Strategy {
    default: |rs| {
        let spec = rs.make_object().entry("spec");
        default_to(spec, "replicas", 1);
        default_pod_template(spec);
    },
    validate: validate::replica_set,
    validate_update: |new, old, errors| validate::selector_is_immutable(new, old, errors),
    warn: warn_name_and_template,
    warn_change: Some(warn_new_template),
    generation: true,
    parts: &[status_part(|status, _, errors| status::validate_replicas(status, errors))],
    ..Strategy::NEUTRAL
};

static STATEFUL_SET: Strategy = Strategy {
    name: api::names::dns_label,
    default: default_stateful_set,
    validate: |set, errors| validate::stateful_set(set, None, errors),
    validate_update: validate::stateful_set_update,
    revalidates: false,
    warn: |set| [warn_template(set), warn_history(set)].concat(),
    warn_change: Some(|new, old| [warn_new_template(new, old), warn_history(new)].concat()),
    generation: true,
    parts: &[status_part(status::stateful_set)],
    ..Strategy::NEUTRAL
};

fn default_stateful_set(set: &mut Value) {
    let spec = set.make_object().entry("spec");
    default_if_empty(spec, "podManagementPolicy", "OrderedReady");
    let strategy = spec.make_object().entry("updateStrategy");
    if strategy.get("type").is_empty() {
        strategy.set(&["type"], "RollingUpdate");
        default_to(strategy, "rollingUpdate", Value::object());
    }
    if strategy.str_at(&["type"]) == "RollingUpdate" && !strategy.get("rollingUpdate").is_null() {
        default_to(strategy.make_object().entry("rollingUpdate"), "partition", 0);
    }
    let retention = spec.make_object().entry("persistentVolumeClaimRetentionPolicy");
    default_if_empty(retention, "whenDeleted", "Retain");
    default_if_empty(retention, "whenScaled", "Retain");
    default_to(spec, "replicas", 1);
    default_to(spec, "revisionHistoryLimit", 10);
    let claims = spec.make_object().get_mut("volumeClaimTemplates").and_then(Value::as_array_mut);
    for claim in claims.into_iter().flatten() {
        claim.set(&["kind"], "PersistentVolumeClaim");
        claim.set(&["apiVersion"], "v1");
        super::claim::default_spec(claim.make_object().entry("spec"));
        default_if_empty(claim.make_object().entry("status"), "phase", "Pending");
    }
    default_pod_template(spec);
}

static DAEMON_SET: Strategy = Strategy {
    default: |set| {
        let spec = set.make_object().entry("spec");
        let strategy = spec.make_object().entry("updateStrategy");
        default_if_empty(strategy, "type", "RollingUpdate");
        let rolls = strategy.str_at(&["type"]) == "RollingUpdate";
        if rolls || !strategy.get("rollingUpdate").is_null() {
            let rolling = strategy.make_object().entry("rollingUpdate");
            default_to(rolling, "maxUnavailable", i32::from(rolls));
            default_to(rolling, "maxSurge", 0);
        }
        default_to(spec, "revisionHistoryLimit", 10);
        default_pod_template(spec);
        if set.annotation(TEMPLATE_GENERATION).is_none() {
            set_template_generation(set, 0);
        }
    },
    prepare_create: |set| set_template_generation(set, template_generation(set).max(1)),
    prepare_update: |new, old| {
        let changed = new.at(&["spec", "template"]) != old.at(&["spec", "template"]);
        set_template_generation(new, template_generation(old) + i64::from(changed));
    },
    validate: validate::daemon_set,
    validate_update: |new, old, errors| validate::selector_is_immutable(new, old, errors),
    changes_first: true,
    prepare_status: |new, old| set_template_generation(new, template_generation(old)),
    warn: warn_template,
    warn_change: Some(warn_new_template),
    generation: true,
    parts: &[status_part(status::daemon_set)],
    ..Strategy::NEUTRAL
};

/// Where clients see how often the template of a DaemonSet changed, a field of old.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(set: &Value) -> i64 {
    set.annotation(TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_template_generation(set: &mut Value, generation: i64) {
    set.set(&["metadata", "annotations", TEMPLATE_GENERATION], generation.to_string());
}

static REVISION: Strategy = Strategy {
    validate: |revision, errors| {
        At::of(revision, "revision").not_negative(errors);
        let data = At::of(revision, "data");
        match data.value {
            Value::Null => data.required(errors, "data is mandatory"),
            Value::Object(_) => {}
            _ => data.required(errors, "data must be a valid JSON object"),
        }
    },
    validate_update: |new, old, errors| {
        At::of(new, "revision").not_negative(errors);
        At::of(new, "data").immutable(errors, old.get("data"));
    },
    revalidates: false,
    ..Strategy::NEUTRAL
};
