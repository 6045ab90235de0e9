//! Workloads: Deployments, ReplicaSets, StatefulSets, DaemonSets and their revisions.

use api::field::{FieldError, Path};
use api::selector::LabelSelector;
use api::{Value, object};

use super::pod_defaults::default_pod_template;
use super::pod_validation::validate_template;
use super::{Entry, Errors, Field, Strategy, default_if_empty, default_to, immutable, not_negative};

pub(super) const STRATEGIES: &[Entry] = &[
    ("apps", "deployments", &DEPLOYMENT),
    ("apps", "replicasets", &REPLICA_SET),
    ("apps", "statefulsets", &STATEFUL_SET),
    ("apps", "daemonsets", &DAEMON_SET),
    ("apps", "controllerrevisions", &REVISION),
];

static DEPLOYMENT: Strategy = Strategy {
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
    validate: validate_deployment,
    validate_update: selector_is_immutable,
    generation: true,
    ..Strategy::NEUTRAL
};

static REPLICA_SET: Strategy = Strategy {
    fields: &[Field::number("status.replicas", &["status", "replicas"])],
    default: |rs| {
        let spec = rs.make_object().entry("spec");
        default_to(spec, "replicas", 1);
        default_pod_template(spec);
    },
    validate: |rs, errors| {
        validate_replicas(rs, errors);
        validate_selector(rs, errors);
        validate_pods(rs, &["Always"], errors);
    },
    validate_update: selector_is_immutable,
    generation: true,
    ..Strategy::NEUTRAL
};

static STATEFUL_SET: Strategy = Strategy {
    default: |set| {
        let spec = set.make_object().entry("spec");
        default_if_empty(spec, "podManagementPolicy", "OrderedReady");
        let strategy = spec.make_object().entry("updateStrategy");
        default_if_empty(strategy, "type", "RollingUpdate");
        if strategy.str_at(&["type"]) == "RollingUpdate" {
            default_to(strategy.make_object().entry("rollingUpdate"), "partition", 0);
        }
        let retention = spec.make_object().entry("persistentVolumeClaimRetentionPolicy");
        default_if_empty(retention, "whenDeleted", "Retain");
        default_if_empty(retention, "whenScaled", "Retain");
        default_to(spec, "replicas", 1);
        default_to(spec, "revisionHistoryLimit", 10);
        for claim in spec
            .make_object()
            .get_mut("volumeClaimTemplates")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            default_if_empty(claim, "kind", "PersistentVolumeClaim");
            default_if_empty(claim, "apiVersion", "v1");
            default_to(claim.make_object().entry("spec"), "volumeMode", "Filesystem");
            default_if_empty(claim.make_object().entry("status"), "phase", "Pending");
        }
        default_pod_template(spec);
    },
    validate: |set, errors| {
        let spec = Path::new("spec");
        let policies = ["OrderedReady", "Parallel"];
        super::one_of(
            &spec.child("podManagementPolicy"),
            set.at(&["spec", "podManagementPolicy"]),
            &policies,
            errors,
        );
        validate_replicas(set, errors);
        validate_selector(set, errors);
        validate_pods(set, &["Always"], errors);
    },
    validate_update: validate_stateful_set_update,
    generation: true,
    ..Strategy::NEUTRAL
};

static DAEMON_SET: Strategy = Strategy {
    default: |set| {
        let spec = set.make_object().entry("spec");
        let strategy = spec.make_object().entry("updateStrategy");
        default_if_empty(strategy, "type", "RollingUpdate");
        if strategy.str_at(&["type"]) == "RollingUpdate" {
            let rolling = strategy.make_object().entry("rollingUpdate");
            default_to(rolling, "maxUnavailable", 1);
            default_to(rolling, "maxSurge", 0);
        }
        default_to(spec, "revisionHistoryLimit", 10);
        default_pod_template(spec);
    },
    validate: |set, errors| {
        validate_selector(set, errors);
        validate_pods(set, &["Always"], errors);
    },
    validate_update: selector_is_immutable,
    generation: true,
    ..Strategy::NEUTRAL
};

static REVISION: Strategy = Strategy {
    validate: |r, errors| {
        not_negative(&Path::new("revision"), r.get("revision"), errors);
    },
    validate_update: |new, old, errors| {
        immutable(&Path::new("data"), new.get("data"), old.get("data"), errors)
    },
    ..Strategy::NEUTRAL
};

fn validate_replicas(object: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        not_negative(&spec.child(field), object.at(&["spec", field]), errors);
    }
}

/// The selector is there, not empty, and selects the template.
fn validate_selector(object: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let selector = object.at(&["spec", "selector"]);
    let at = path.child("selector");
    if selector.is_null() {
        errors.push(FieldError::required(&at, ""));
        return;
    }
    validate_label_selector(&at, selector, errors);
    if selector.get("matchLabels").is_empty() && selector.get("matchExpressions").is_empty() {
        errors.push(FieldError::invalid(&at, selector.clone(), "empty selector is invalid for deployment"));
        return;
    }
    let labels = object.at(&["spec", "template", "metadata", "labels"]);
    if let Ok(Some(parsed)) = LabelSelector::from_object(selector)
        && !parsed.matches_labels(labels)
    {
        let template = path.child("template");
        let meta = template.child("metadata");
        let labels = if labels.is_null() { Value::Null } else { labels.clone() };
        errors.push(FieldError::invalid(
            &meta.child("labels"),
            labels,
            "`selector` does not match template `labels`",
        ));
    }
}

/// Checks a LabelSelector object.
pub(super) fn validate_label_selector(path: &Path<'_>, selector: &Value, errors: &mut Errors) {
    super::metadata::validate_labels(&path.child("matchLabels"), selector.get("matchLabels"), errors);
    let list = path.child("matchExpressions");
    for (i, e) in selector.array_at(&["matchExpressions"]).iter().enumerate() {
        let at = list.index(i);
        let values = e.array_at(&["values"]);
        match e.str_at(&["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&at.child("values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&at.child("values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                &at.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        super::check_name(&at.child("key"), e.str_at(&["key"]), api::names::qualified_name, errors);
    }
}

fn validate_pods(object: &Value, policies: &[&str], errors: &mut Errors) {
    let spec = Path::new("spec");
    let path = spec.child("template");
    let template = object.at(&["spec", "template"]);
    validate_template(&path, template, errors);
    let policy = template.str_at(&["spec", "restartPolicy"]);
    let known = ["Always", "OnFailure", "Never"].contains(&policy);
    if known && !policies.contains(&policy) {
        let pod = path.child("spec");
        errors.push(FieldError::not_supported(&pod.child("restartPolicy"), policy, policies));
    }
    if !template.at(&["spec", "activeDeadlineSeconds"]).is_null() {
        let pod = path.child("spec");
        let why = "activeDeadlineSeconds in Deployment is not Supported";
        errors.push(FieldError::forbidden(
            &pod.child("activeDeadlineSeconds"),
            why.replace("Deployment", object.kind()),
        ));
    }
}

/// Checks a ReplicationController, whose selector is a plain map.
pub(super) fn validate_replication_controller(object: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    validate_replicas(object, errors);
    let selector = object.at(&["spec", "selector"]);
    if selector.is_empty() {
        errors.push(FieldError::required(&spec.child("selector"), ""));
    }
    if object.at(&["spec", "template"]).is_null() {
        errors.push(FieldError::required(&spec.child("template"), ""));
        return;
    }
    let labels = object.at(&["spec", "template", "metadata", "labels"]);
    if !selector.is_empty() && !LabelSelector::from_map(selector).matches_labels(labels) {
        let template = spec.child("template");
        let meta = template.child("metadata");
        errors.push(FieldError::invalid(
            &meta.child("labels"),
            labels.clone(),
            "`selector` does not match template `labels`",
        ));
    }
    validate_pods(object, &["Always"], errors);
}

fn validate_deployment(d: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    validate_replicas(d, errors);
    validate_selector(d, errors);
    let strategy = d.at(&["spec", "strategy"]);
    let at = path.child("strategy");
    match strategy.str_at(&["type"]) {
        "Recreate" if !strategy.get("rollingUpdate").is_null() => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(&at.child("rollingUpdate"), why));
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let rolling = strategy.get("rollingUpdate");
            let none = |v: &Value| matches!(v, Value::Int(0)) || v.as_str() == Some("0%");
            if none(rolling.get("maxUnavailable")) && none(rolling.get("maxSurge")) {
                let at = at.child("rollingUpdate");
                let why = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(
                    &at.child("maxUnavailable"),
                    rolling.get("maxUnavailable").clone(),
                    why,
                ));
            }
        }
        other => errors.push(FieldError::not_supported(
            &at,
            object!({"type": other}),
            &["Recreate", "RollingUpdate"],
        )),
    }
    let deadline = d.at(&["spec", "progressDeadlineSeconds"]).as_i64();
    let ready = d.at(&["spec", "minReadySeconds"]).as_i64().unwrap_or(0);
    if let Some(n) = deadline.filter(|n| *n <= ready) {
        errors.push(FieldError::invalid(
            &path.child("progressDeadlineSeconds"),
            n,
            "must be greater than minReadySeconds",
        ));
    }
    validate_pods(d, &["Always"], errors);
}

fn selector_is_immutable(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    immutable(&path.child("selector"), new.at(&["spec", "selector"]), old.at(&["spec", "selector"]), errors);
}

fn validate_stateful_set_update(new: &Value, old: &Value, errors: &mut Errors) {
    const MUTABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |set: &Value| {
        let mut spec = set.get("spec").clone();
        for field in MUTABLE {
            spec.make_object().remove(field);
        }
        spec
    };
    if fixed(new) != fixed(old) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden(&Path::new("spec"), why));
    }
}
