//! Namespaces, nodes, ServiceAccounts, and the templates of old.

use api::field::Path;
use api::selector::LabelSelector;
use api::{Value, names};

use super::check::At;
use super::pod::{
    default_pod_spec, default_pod_template, validate_quantity, validate_taints, validate_template,
};
use super::{
    Entry, Errors, Field, Part, Strategy, apps, default_if_empty, default_to, is_desired_anew, metadata,
};

pub(super) const STRATEGIES: &[Entry] = &[
    ("", "namespaces", &NAMESPACE),
    ("", "nodes", &NODE),
    ("", "replicationcontrollers", &REPLICATION_CONTROLLER),
    ("", "serviceaccounts", &SERVICE_ACCOUNT),
    ("", "podtemplates", &POD_TEMPLATE),
];

static NAMESPACE: Strategy = Strategy {
    fields: &[Field::text("status.phase", &["status", "phase"])],
    name: names::dns_label,
    default: default_namespace,
    prepare_create: prepare_namespace,
    prepare_update: |new, old| new.set(&["spec", "finalizers"], old.at(&["spec", "finalizers"])),
    validate: |namespace, errors| {
        let path = Path::new("spec.finalizers");
        let finalizers = namespace.array_at(&["spec", "finalizers"]);
        metadata::validate_finalizer_names(&path, finalizers, errors);
        for finalizer in finalizers {
            metadata::validate_standard_finalizer(&path, finalizer, errors);
        }
    },
    revalidates: false,
    parts: &[Part { name: "status", fixed: &[&["spec"]], prepare: |_, _| {}, validate: validate_phase }],
    ..Strategy::NEUTRAL
};

fn validate_phase(new: &Value, _: &Value, errors: &mut Errors) {
    let status = At::of(new, "status");
    let phase = At { value: new.at(&["status", "phase"]), path: status.path.child("Phase") };
    let (want, state) = if new.is_terminating() { ("Terminating", "not empty") } else { ("Active", "empty") };
    if phase.text() != want {
        let why = format!("may only be '{want}' if `deletionTimestamp` is {state}");
        phase.invalid_as(errors, phase.text(), why);
    }
}

/// Every namespace carries its name as a label, and its phase.
fn default_namespace(ns: &mut Value) {
    if !ns.name().is_empty() {
        let name = ns.name().to_owned();
        ns.set(&["metadata", "labels", "kubernetes.io/metadata.name"], name);
    }
    default_if_empty(ns.make_object().entry("status"), "phase", "Active");
}

fn prepare_namespace(ns: &mut Value) {
    ns.set(&["status", "phase"], "Active");
    let finalizers = ns.make_object().entry("spec").make_object().entry("finalizers").make_array();
    if !finalizers.iter().any(|f| f.as_str() == Some("kubernetes")) {
        finalizers.push("kubernetes".into());
    }
}

static NODE: Strategy = Strategy {
    fields: &[Field::flag("spec.unschedulable", &["spec", "unschedulable"])],
    keeps_status: true,
    default: default_node,
    validate: validate_node,
    validate_update: validate_node_update,
    warn: |node| {
        let old = node.at(&["spec", "externalID"]);
        let why = "spec.externalID: this field is deprecated, and is unused by Kubernetes";
        if old.is_empty() { Vec::new() } else { vec![why.to_owned()] }
    },
    parts: &[Part {
        name: "status",
        fixed: &[&["spec"]],
        prepare: |_, _| {},
        validate: validate_node_update,
    }],
    ..Strategy::NEUTRAL
};

fn default_node(node: &mut Value) {
    let capacity = node.at(&["status", "capacity"]).clone();
    let status = node.make_object().entry("status");
    if !capacity.is_empty() {
        default_if_empty(status, "allocatable", capacity);
    }
    // The old field for one range and the new one for several say the same.
    let spec = node.make_object().entry("spec");
    let (one, all) = (spec.get("podCIDR").clone(), spec.get("podCIDRs").clone());
    let first = all.as_array().and_then(|a| a.first());
    if !one.is_empty() && first != Some(&one) {
        spec.set(&["podCIDRs"], vec![one]);
    } else if let Some(first) = all.as_array().and_then(|a| a.first()) {
        spec.set(&["podCIDR"], first);
    }
}

fn validate_node(node: &Value, errors: &mut Errors) {
    let metadata = At::of(node, "metadata");
    validate_taints(&metadata.get("taints").with(node.at(&["spec", "taints"])), errors);
    validate_amounts(node, errors);
    let swap = node.at(&["status", "nodeInfo", "swap", "capacity"]);
    if !swap.is_null() {
        metadata.get("nodeSwapStatus.capacity").with(swap).positive(errors);
    }
    validate_features(node, errors);
    let ranges = At::of(node, "spec.podCIDRs");
    let mut families = Vec::new();
    for range in ranges.items() {
        range.legacy_cidr(errors, &[]);
        families.extend(range.cidr().map(|r| r.addr().is_ipv4()));
    }
    if ranges.len() > 1 && (families.len() != 2 || families[0] == families[1]) {
        ranges.invalid(errors, "may specify no more than one CIDR for each IP family");
    }
}

fn validate_amounts(node: &Value, errors: &mut Errors) {
    for kind in ["capacity", "allocatable"] {
        let path = Path::new("status");
        let path = path.child(kind);
        for (name, value) in node.at(&["status", kind]).as_object().into_iter().flat_map(|m| m.iter()) {
            validate_quantity(name, &At { value, path: path.child(name) }, errors);
        }
    }
}

fn validate_features(node: &Value, errors: &mut Errors) {
    let features = At::of(node, "status.declaredFeatures");
    let mut before: Option<&str> = None;
    for feature in features.items() {
        let text = feature.value.as_str().unwrap_or_default();
        let segment = |s: &str| s.chars().all(|c| c.is_ascii_alphanumeric());
        let fits = text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.split('/').all(|s| segment(s) && s.starts_with(|c: char| c.is_ascii_alphabetic()));
        match before {
            Some(before) if before == text => feature.duplicate(errors),
            Some(before) if before > text => {
                feature.invalid(errors, "list must be sorted alphabetically");
            }
            _ => {}
        }
        if text.len() > 253 {
            let why = format!("invalid feature name \"{text}\": must be no more than 253 characters");
            feature.invalid(errors, why);
        } else if !fits {
            let why = format!(
                "invalid feature name \"{text}\": must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
            );
            feature.invalid(errors, why);
        }
        before = features
            .value
            .as_array()
            .and_then(|items| items.iter().filter_map(Value::as_str).find(|t| *t == text));
    }
}

fn validate_node_update(new: &Value, old: &Value, errors: &mut Errors) {
    validate_amounts(new, errors);
    validate_features(new, errors);
    let addresses = At::of(new, "status.addresses");
    let items: Vec<&Value> = addresses.value.as_array().into_iter().flatten().collect();
    for (i, address) in addresses.items().enumerate() {
        if items[..i].contains(&address.value) {
            let shown = super::check::view(address.value, "core/v1.NodeAddress");
            address.with(&shown).duplicate(errors);
        }
    }
    let spec = At::of(new, "spec");
    let (is, was) = (new.array_at(&["spec", "podCIDRs"]), old.array_at(&["spec", "podCIDRs"]));
    let ranges = spec.get("podCIDRs");
    let why = "node updates may not change podCIDR except from \"\" to valid";
    if !was.is_empty() && is.len() != was.len() {
        ranges.forbidden(errors, why);
    } else if !was.is_empty() {
        for _ in is.iter().zip(was).filter(|(a, b)| a != b) {
            ranges.forbidden(errors, why);
        }
    }
    let before = old.str_at(&["spec", "providerID"]);
    if !before.is_empty() && spec.get("providerID").text() != before {
        let why = "node updates may not change providerID except from \"\" to valid";
        spec.get("providerID").forbidden(errors, why);
    }
    let metadata = At::of(new, "metadata");
    validate_taints(&metadata.get("taints").with(new.at(&["spec", "taints"])), errors);
    if spec.get("externalID").value != old.at(&["spec", "externalID"]) {
        spec.get("externalID").forbidden(errors, "may not be updated");
    }
}

static SERVICE_ACCOUNT: Strategy = Strategy {
    prepare_create: keep_secret_names,
    prepare_update: |new, _| keep_secret_names(new),
    changes_first: true,
    warn: |account| match account.annotation(MOUNTABLE) {
        Some(_) => vec![format!(
            "metadata.annotations[{MOUNTABLE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        )],
        None => Vec::new(),
    },
    ..Strategy::NEUTRAL
};

/// Says that pods of an account may use no secrets but those that it names.
pub(crate) const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

/// Of the secrets of an account the names alone are kept.
fn keep_secret_names(account: &mut Value) {
    let secrets = account.at_mut(&["secrets"]).and_then(Value::as_array_mut);
    for secret in secrets.into_iter().flatten().filter_map(Value::as_object_mut) {
        secret.retain(|field, _| field == "name");
    }
}

static REPLICATION_CONTROLLER: Strategy = Strategy {
    name: names::long_name,
    prefix: Some(names::path_segment),
    fields: &[Field::number("status.replicas", &["status", "replicas"])],
    generation: true,
    default: |rc| {
        let labels = rc.at(&["spec", "template", "metadata", "labels"]).clone();
        if !labels.is_empty() {
            default_if_empty(rc.make_object().entry("spec"), "selector", labels.clone());
            default_if_empty(rc.make_object().entry("metadata"), "labels", labels);
        }
        default_to(rc.make_object().entry("spec"), "replicas", 1);
        default_pod_template(rc.make_object().entry("spec"));
    },
    validate: validate_replication_controller,
    warn: apps::warn_name_and_template,
    // Upstream takes the object that was for the one that is to be.
    warn_change: Some(
        |new, old| if is_desired_anew(new, old) { apps::warn_template(old) } else { Vec::new() },
    ),
    parts: &[apps::status_part(|status, _, errors| apps::validate_replica_status(status, errors))],
    orphans_by_default: true,
    ..Strategy::NEUTRAL
};

fn validate_replication_controller(rc: &Value, errors: &mut Errors) {
    let spec = At::of(rc, "spec");
    spec.get("minReadySeconds").not_negative(errors);
    let selector = spec.get("selector");
    selector.not_empty(errors);
    let replicas = spec.get("replicas");
    if replicas.is_set() {
        replicas.not_negative(errors);
    } else {
        replicas.required(errors, "");
    }
    let template = spec.get("template");
    if !template.is_set() {
        return template.required(errors, "");
    }
    let labels = template.value.at(&["metadata", "labels"]);
    if selector.len() > 0 && !LabelSelector::from_map(selector.value).matches_labels(labels) {
        let at = template.get("metadata.labels");
        at.invalid(errors, "`selector` does not match template `labels`");
    }
    apps::validate_workload_template(&template, "ReplicationController", errors);
}

static POD_TEMPLATE: Strategy = Strategy {
    generation: true,
    default: |t| {
        if !t.get("template").is_null() {
            default_pod_spec(t.make_object().entry("template").make_object().entry("spec"));
        }
    },
    validate: |t, errors| validate_template(&At::of(t, "template"), errors),
    warn: warn_template,
    warn_change: Some(|new, old| if is_desired_anew(new, old) { warn_template(new) } else { Vec::new() }),
    ..Strategy::NEUTRAL
};

fn warn_template(template: &Value) -> Vec<String> {
    super::pod::warnings_of_template(&Path::new("template"), template.get("template"))
}
