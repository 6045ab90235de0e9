//! Kinds of the core group other than pods and services.

use api::Value;
use api::field::{FieldError, Path};
use api::names;

use super::pod_defaults::{default_pod_spec, default_pod_template};
use super::{Entry, Errors, Field, Strategy, check_name, default_if_empty, default_to, immutable, one_of};

pub(super) const STRATEGIES: &[Entry] = &[
    ("", "namespaces", &NAMESPACE),
    ("", "nodes", &NODE),
    ("", "configmaps", &CONFIG_MAP),
    ("", "secrets", &SECRET),
    ("", "events", &EVENT),
    ("events.k8s.io", "events", &EVENT),
    ("", "persistentvolumeclaims", &CLAIM),
    ("", "persistentvolumes", &VOLUME),
    ("", "replicationcontrollers", &REPLICATION_CONTROLLER),
    ("", "podtemplates", &POD_TEMPLATE),
    ("", "endpoints", &ENDPOINTS),
    ("", "limitranges", &LIMIT_RANGE),
];

static NAMESPACE: Strategy = Strategy {
    fields: &[Field::text("status.phase", &["status", "phase"])],
    name: names::dns_label,
    default: default_namespace,
    prepare_create: prepare_namespace,
    prepare_update: keep_finalizers,
    ..Strategy::NEUTRAL
};

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

fn keep_finalizers(new: &mut Value, old: &Value) {
    new.set(&["spec", "finalizers"], old.at(&["spec", "finalizers"]));
}

static NODE: Strategy = Strategy {
    fields: &[Field::flag("spec.unschedulable", &["spec", "unschedulable"])],
    keeps_status: true,
    default: default_node,
    validate_update: validate_node_update,
    ..Strategy::NEUTRAL
};

fn default_node(node: &mut Value) {
    let capacity = node.at(&["status", "capacity"]).clone();
    let status = node.make_object().entry("status");
    if !capacity.is_empty() {
        default_if_empty(status, "allocatable", capacity);
    }
}

fn validate_node_update(new: &Value, old: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let (was, is) = (old.at(&["spec", "podCIDRs"]), new.at(&["spec", "podCIDRs"]));
    if !was.is_empty() && was != is {
        errors.push(FieldError::forbidden(
            &spec.child("podCIDRs"),
            "node updates may not change podCIDR except from \"\" to valid",
        ));
    }
    let (was, is) = (old.str_at(&["spec", "providerID"]), new.str_at(&["spec", "providerID"]));
    if !was.is_empty() && was != is {
        errors.push(FieldError::forbidden(
            &spec.child("providerID"),
            "node updates may not change providerID except from \"\" to valid",
        ));
    }
}

static CONFIG_MAP: Strategy = Strategy {
    validate: validate_config_map,
    validate_update: validate_config_map_update,
    ..Strategy::NEUTRAL
};

const OBJECT_DATA_MAX: usize = 1024 * 1024;

fn validate_config_map(object: &Value, errors: &mut Errors) {
    let mut size = 0;
    for field in ["data", "binaryData"] {
        let path = Path::new(field);
        for (key, value) in object.get(field).as_object().into_iter().flat_map(|m| m.iter()) {
            errors.extend(
                names::config_key(key).into_iter().map(|e| FieldError::invalid(&path.key(key), key, e)),
            );
            if field == "binaryData" && object.at(&["data", key]) != &Value::Null {
                let why = format!("duplicate of key present in {}", "data");
                errors.push(FieldError::invalid(&path.key(key), key, why));
            }
            size += value.as_str().map_or(0, str::len);
        }
    }
    if size > OBJECT_DATA_MAX {
        errors.push(FieldError::too_long(&Path::new(""), OBJECT_DATA_MAX));
    }
}

fn validate_config_map_update(new: &Value, old: &Value, errors: &mut Errors) {
    validate_sealed(new, old, &["data", "binaryData"], errors);
}

/// An object that was marked immutable stays so, with its data.
fn validate_sealed(new: &Value, old: &Value, data: &[&str], errors: &mut Errors) {
    if old.get("immutable").as_bool() != Some(true) {
        return;
    }
    if new.get("immutable").as_bool() != Some(true) {
        errors.push(FieldError::forbidden(
            &Path::new("immutable"),
            "field is immutable when `immutable` is set",
        ));
    }
    for field in data {
        let (new, old) = (new.get(field), old.get(field));
        if new != old && !(new.is_empty() && old.is_empty()) {
            errors
                .push(FieldError::forbidden(&Path::new(field), "field is immutable when `immutable` is set"));
        }
    }
}

static SECRET: Strategy = Strategy {
    fields: &[Field::text("type", &["type"])],
    default: default_secret,
    prepare_create: merge_string_data,
    prepare_update: merge_string_data_of,
    validate: validate_secret,
    validate_update: validate_secret_update,
    ..Strategy::NEUTRAL
};

fn default_secret(secret: &mut Value) {
    merge_string_data(secret);
    default_if_empty(secret, "type", "Opaque");
}

/// `stringData` is a way to write `data`; it is never stored.
fn merge_string_data(secret: &mut Value) {
    use base64::Engine;
    let Some(Value::Object(strings)) = secret.make_object().remove("stringData") else { return };
    for (key, value) in strings {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        secret.set(&["data", &key], encoded);
    }
}

fn merge_string_data_of(secret: &mut Value, _: &Value) {
    merge_string_data(secret);
}

/// Keys that secrets of a type must have.
const SECRET_KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

fn validate_secret(object: &Value, errors: &mut Errors) {
    let data = Path::new("data");
    let members = || object.get("data").as_object().into_iter().flat_map(|m| m.iter());
    let mut size = 0;
    for (key, value) in members() {
        errors
            .extend(names::config_key(key).into_iter().map(|e| FieldError::invalid(&data.key(key), key, e)));
        size += value.as_str().map_or(0, |v| v.len() / 4 * 3);
    }
    if size > OBJECT_DATA_MAX {
        errors.push(FieldError::too_long(&data, OBJECT_DATA_MAX));
    }
    let kind = object.str_at(&["type"]);
    for key in SECRET_KEYS.iter().filter(|(t, _)| *t == kind).flat_map(|(_, keys)| keys.iter()) {
        if object.at(&["data", key]).is_null() {
            errors.push(FieldError::required(&data.key(key), ""));
        }
    }
    if kind == "kubernetes.io/basic-auth"
        && ["username", "password"].iter().all(|k| object.at(&["data", k]).is_null())
    {
        errors.push(FieldError::required(&data.key("username"), ""));
        errors.push(FieldError::required(&data.key("password"), ""));
    }
    if kind == "kubernetes.io/service-account-token"
        && object.annotation("kubernetes.io/service-account.name").is_none_or(str::is_empty)
    {
        errors.push(FieldError::required(
            &Path::new("metadata").child("annotations").key("kubernetes.io/service-account.name"),
            "",
        ));
    }
}

fn validate_secret_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(&Path::new("type"), new.get("type"), old.get("type"), errors);
    validate_sealed(new, old, &["data"], errors);
}

static EVENT: Strategy = Strategy {
    fields: &[
        Field::text("involvedObject.kind", &["involvedObject", "kind"]),
        Field::text("involvedObject.namespace", &["involvedObject", "namespace"]),
        Field::text("involvedObject.name", &["involvedObject", "name"]),
        Field::text("involvedObject.uid", &["involvedObject", "uid"]),
        Field::text("involvedObject.apiVersion", &["involvedObject", "apiVersion"]),
        Field::text("involvedObject.resourceVersion", &["involvedObject", "resourceVersion"]),
        Field::text("involvedObject.fieldPath", &["involvedObject", "fieldPath"]),
        Field::text("reason", &["reason"]),
        Field::text("reportingComponent", &["reportingComponent"]),
        Field::text("source", &["source", "component"]),
        Field::text("type", &["type"]),
    ],
    create_on_update: true,
    ttl: Some(std::time::Duration::from_secs(3600)),
    validate: validate_event,
    ..Strategy::NEUTRAL
};

fn validate_event(event: &Value, errors: &mut Errors) {
    let about = event.str_at(&["involvedObject", "namespace"]);
    let namespace = event.namespace();
    // Events about objects of the cluster are kept in the default namespace.
    let fits = about == namespace || (about.is_empty() && namespace == "default");
    if !fits {
        let path = Path::new("involvedObject.namespace");
        errors.push(FieldError::invalid(&path, about, "does not match event.namespace"));
    }
}

static CLAIM: Strategy = Strategy {
    default: default_claim,
    prepare_create: |c| {
        c.set(&["status"], api::object!({"phase": "Pending"}));
    },
    validate: validate_claim,
    validate_update: validate_claim_update,
    ..Strategy::NEUTRAL
};

const ACCESS_MODES: [&str; 4] = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];

fn default_claim(claim: &mut Value) {
    default_to(claim.make_object().entry("spec"), "volumeMode", "Filesystem");
    default_if_empty(claim.make_object().entry("status"), "phase", "Pending");
}

/// Checks the access modes of a claim or volume.
fn validate_access_modes(path: &Path<'_>, modes: &[Value], errors: &mut Errors) {
    if modes.is_empty() {
        errors.push(FieldError::required(path, "at least 1 access mode is required"));
    }
    for (i, mode) in modes.iter().enumerate() {
        one_of(&path.index(i), mode, &ACCESS_MODES, errors);
    }
}

fn validate_claim(claim: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    validate_access_modes(&spec.child("accessModes"), claim.array_at(&["spec", "accessModes"]), errors);
    let resources = spec.child("resources");
    let path = resources.child("requests");
    let path = path.key("storage");
    match claim
        .at(&["spec", "resources", "requests", "storage"])
        .as_str()
        .map(str::parse::<api::quantity::Quantity>)
    {
        None => errors.push(FieldError::required(&path, "")),
        Some(Ok(q)) if q > api::quantity::Quantity::ZERO => {}
        Some(_) => {
            let value = claim.at(&["spec", "resources", "requests", "storage"]).clone();
            errors.push(FieldError::invalid(&path, value, "must be greater than zero"));
        }
    }
    let class = claim.str_at(&["spec", "storageClassName"]);
    if !class.is_empty() {
        check_name(&spec.child("storageClassName"), class, names::dns_subdomain, errors);
    }
    one_of(&spec.child("volumeMode"), claim.at(&["spec", "volumeMode"]), &["Block", "Filesystem"], errors);
}

fn validate_claim_update(new: &Value, old: &Value, errors: &mut Errors) {
    let comparable = |claim: &Value, like: &Value| {
        let mut spec = claim.get("spec").clone();
        // A binder sets the volume once; a user may ask for more, and for another attributes class.
        if old.str_at(&["spec", "volumeName"]).is_empty() {
            spec.make_object().remove("volumeName");
        }
        if old.at(&["spec", "storageClassName"]).is_null() {
            spec.make_object().remove("storageClassName");
        }
        spec.make_object().remove("volumeAttributesClassName");
        if like.str_at(&["status", "phase"]) == "Bound" {
            spec.remove_at(&["resources", "requests", "storage"]);
        }
        spec
    };
    if comparable(new, old) != comparable(old, old) {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(FieldError::forbidden(&Path::new("spec"), why));
    }
}

static VOLUME: Strategy = Strategy {
    default: |v| {
        let spec = v.make_object().entry("spec");
        default_to(spec, "volumeMode", "Filesystem");
        default_if_empty(spec, "persistentVolumeReclaimPolicy", "Retain");
        super::pod_defaults::default_volume_source(spec);
        default_if_empty(v.make_object().entry("status"), "phase", "Pending");
    },
    prepare_create: |v| {
        v.set(&["status"], api::object!({"phase": "Pending"}));
    },
    validate: validate_volume,
    validate_update: validate_volume_update,
    ..Strategy::NEUTRAL
};

const VOLUME_SOURCES: [&str; 22] = [
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "hostPath",
    "glusterfs",
    "nfs",
    "rbd",
    "iscsi",
    "cinder",
    "cephfs",
    "fc",
    "flocker",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

fn validate_volume(volume: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = volume.get("spec");
    validate_access_modes(&path.child("accessModes"), spec.array_at(&["accessModes"]), errors);
    let capacity = path.child("capacity");
    if spec.get("capacity").is_empty() {
        errors.push(FieldError::required(&capacity, ""));
    } else if spec.at(&["capacity", "storage"]).is_null() {
        errors.push(FieldError::not_supported(&capacity, spec.get("capacity").clone(), &["storage"]));
    }
    let sources: Vec<&str> = VOLUME_SOURCES.into_iter().filter(|s| !spec.get(s).is_null()).collect();
    match sources.as_slice() {
        [] => errors.push(FieldError::required(&path, "must specify a volume type")),
        [_] => {}
        [_, more @ ..] => errors.extend(
            more.iter()
                .map(|s| FieldError::forbidden(&path.child(s), "may not specify more than 1 volume type")),
        ),
    }
    let local = spec.get("local");
    if !local.is_null() {
        if local.str_at(&["path"]).is_empty() {
            errors.push(FieldError::required(&path.child("local").child("path"), ""));
        }
        if spec.at(&["nodeAffinity", "required"]).is_null() {
            errors.push(FieldError::required(
                &path.child("nodeAffinity"),
                "Local volume requires node affinity",
            ));
        }
    }
    let reclaim = spec.get("persistentVolumeReclaimPolicy");
    one_of(&path.child("persistentVolumeReclaimPolicy"), reclaim, &["Delete", "Recycle", "Retain"], errors);
}

fn validate_volume_update(new: &Value, old: &Value, errors: &mut Errors) {
    let source = |v: &Value| VOLUME_SOURCES.map(|s| v.at(&["spec", s]).clone());
    if source(new) != source(old) {
        let why = "spec.persistentvolumesource is immutable after creation";
        errors.push(FieldError::forbidden(&Path::new("spec").child("persistentvolumesource"), why));
    }
    immutable(
        &Path::new("spec.volumeMode"),
        new.at(&["spec", "volumeMode"]),
        old.at(&["spec", "volumeMode"]),
        errors,
    );
}

static REPLICATION_CONTROLLER: Strategy = Strategy {
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
    validate: super::apps::validate_replication_controller,
    ..Strategy::NEUTRAL
};

static POD_TEMPLATE: Strategy = Strategy {
    generation: true,
    default: |t| {
        if !t.get("template").is_null() {
            default_pod_spec(t.make_object().entry("template").make_object().entry("spec"));
        }
    },
    validate: |t, errors| {
        let path = Path::new("template");
        super::pod_validation::validate_template(&path, t.get("template"), errors);
    },
    ..Strategy::NEUTRAL
};

static ENDPOINTS: Strategy = Strategy {
    default: |e| {
        for subset in e.make_object().get_mut("subsets").and_then(Value::as_array_mut).into_iter().flatten() {
            for port in
                subset.make_object().get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten()
            {
                default_if_empty(port, "protocol", "TCP");
            }
        }
    },
    create_on_update: true,
    ..Strategy::NEUTRAL
};

static LIMIT_RANGE: Strategy = Strategy {
    default: |l| {
        let limits = l.at_mut(&["spec", "limits"]).and_then(Value::as_array_mut);
        for limit in limits.into_iter().flatten().filter(|l| l.str_at(&["type"]) == "Container") {
            // Limits default to the maximum, requests to the limits, then to the minimum.
            for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
                let values = limit.get(from).clone();
                for (name, value) in values.as_object().into_iter().flat_map(|m| m.iter()) {
                    default_to(limit.make_object().entry(to), name, value);
                }
            }
        }
    },
    ..Strategy::NEUTRAL
};
