//! Validation of `metadata`, the same for every kind.

use api::field::{FieldError, Path};
use api::names;
use api::{Map, Value};

use super::{Errors, check_name};
use crate::resources::Resource;

const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Checks the metadata of a new object.
pub fn validate_metadata(row: &Resource, object: &Value, errors: &mut Errors) {
    validate_whole(row, object, row.strategy.name, errors);
    let path = Path::new("metadata");
    validate_system_finalizers(row, &path.child("finalizers"), object, errors);
}

/// Checks all metadata, with one rule for names.
fn validate_whole(row: &Resource, object: &Value, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    let path = Path::new("metadata");
    let metadata = object.get("metadata");
    let generate = metadata.str_at(&["generateName"]);
    if !generate.is_empty() {
        // What the server appends ends in a letter or digit, so a trailing dash is fine.
        let masked = match generate.char_indices().nth_back(1) {
            Some((at, _)) if generate.ends_with('-') => format!("{}a", &generate[..at]),
            _ => generate.to_owned(),
        };
        let at = path.child("generateName");
        let rule = row.strategy.prefix.unwrap_or(rule);
        errors.extend(rule(&masked).into_iter().map(|e| FieldError::invalid(&at, generate, e)));
    }
    let name = object.name();
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    } else {
        check_name(&path.child("name"), name, rule, errors);
    }
    if row.namespaced {
        let namespace = object.namespace();
        if namespace.is_empty() {
            errors.push(FieldError::required(&path.child("namespace"), ""));
        } else {
            check_name(&path.child("namespace"), namespace, names::dns_label, errors);
        }
    } else if !object.namespace().is_empty() {
        errors.push(FieldError::forbidden(&path.child("namespace"), "not allowed on this type"));
    }
    validate_beside_names(&path, metadata, errors);
}

fn validate_beside_names(path: &Path<'_>, metadata: &Value, errors: &mut Errors) {
    super::check::At { value: metadata.get("generation"), path: path.child("generation") }
        .not_negative(errors);
    validate_labels(&path.child("labels"), metadata.get("labels"), errors);
    validate_annotations(&path.child("annotations"), metadata.get("annotations"), errors);
    validate_owners(&path.child("ownerReferences"), metadata.array_at(&["ownerReferences"]), errors);
    validate_finalizer_names(&path.child("finalizers"), metadata.array_at(&["finalizers"]), errors);
}

/// Checks the metadata of an object within a custom resource: its names are what paths can hold.
pub fn validate_embedded_metadata(path: &str, object: &Value, errors: &mut Errors) {
    let metadata = object.get("metadata");
    let path = Path::new(path);
    let path = path.child("metadata");
    for field in ["generateName", "name", "namespace"] {
        let given = metadata.str_at(&[field]);
        let rule = if field == "namespace" { names::dns_label } else { names::path_segment };
        if !given.is_empty() {
            check_name(&path.child(field), given, rule, errors);
        }
    }
    validate_beside_names(&path, metadata, errors);
}

/// Checks that an object has the one name that it can have, and would have it if it were generated.
pub(super) fn check_wanted_name(object: &Value, wanted: &str, why: &str, errors: &mut Errors) {
    for field in ["generateName", "name"] {
        let name = object.str_at(&["metadata", field]);
        if !name.is_empty() && name != wanted {
            errors.push(FieldError::invalid(&Path::new("metadata").child(field), name, why));
        }
    }
}

/// Checks the labels and annotations of some metadata.
pub fn validate_labels_and_annotations(path: &Path<'_>, metadata: &Value, errors: &mut Errors) {
    validate_labels(&path.child("labels"), metadata.get("labels"), errors);
    validate_annotations(&path.child("annotations"), metadata.get("annotations"), errors);
}

/// Checks a map of labels.
pub(super) fn validate_labels(path: &Path<'_>, labels: &Value, errors: &mut Errors) {
    for (key, value) in members(labels) {
        check_name(path, key, names::qualified_name, errors);
        let value = value.as_str().unwrap_or_default();
        errors.extend(names::label_value(value).into_iter().map(|e| FieldError::invalid(path, value, e)));
    }
}

/// Checks a map of annotations.
pub(super) fn validate_annotations(path: &Path<'_>, annotations: &Value, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in members(annotations) {
        let lower = key.to_ascii_lowercase();
        errors.extend(names::qualified_name(&lower).into_iter().map(|e| FieldError::invalid(path, key, e)));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_MAX));
    }
}

fn members(map: &Value) -> impl Iterator<Item = (&str, &Value)> {
    map.as_object().into_iter().flat_map(Map::iter)
}

fn validate_owners(path: &Path<'_>, owners: &[Value], errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners {
        let version = owner.str_at(&["apiVersion"]);
        if version.is_empty() || version.ends_with('/') || version.matches('/').count() > 1 {
            errors.push(FieldError::invalid(&path.child("apiVersion"), version, "version must not be empty"));
        }
        for field in ["kind", "name", "uid"] {
            if owner.str_at(&[field]).is_empty() {
                errors.push(FieldError::invalid(&path.child(field), "", "must not be empty"));
            }
        }
        if version == "v1" && owner.kind() == "Event" {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, shown(owner), why));
        }
        if owner.get("controller").as_bool() != Some(true) {
            continue;
        }
        let name = format!("{}/{}", owner.kind(), owner.str_at(&["name"]));
        let Some(first) = &controller else {
            controller = Some(name);
            continue;
        };
        let why = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
        );
        errors.push(FieldError::invalid(path, owners.iter().map(shown).collect::<Vec<_>>(), why));
    }
}

fn shown(owner: &Value) -> Value {
    super::check::view(owner, "meta/v1.OwnerReference")
}

/// Finalizers of built-in kinds without a domain are the system's.
fn validate_system_finalizers(row: &Resource, path: &Path<'_>, object: &Value, errors: &mut Errors) {
    const UNAWARE: [&str; 6] = [
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "coordination.k8s.io",
        "node.k8s.io",
        "policy",
    ];
    if row.custom.is_some() || UNAWARE.contains(&row.group) {
        return;
    }
    for (i, finalizer) in object.array_at(&["metadata", "finalizers"]).iter().enumerate() {
        validate_standard_finalizer(&path.index(i), finalizer, errors);
    }
}

/// Checks the names of finalizers, and that they do not contradict each other.
pub(super) fn validate_finalizer_names(path: &Path<'_>, finalizers: &[Value], errors: &mut Errors) {
    for finalizer in finalizers.iter().filter_map(Value::as_str) {
        check_name(path, finalizer, names::qualified_name, errors);
    }
    let has = |name: &str| finalizers.iter().any(|f| f.as_str() == Some(name));
    if has("orphan") && has("foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(path, finalizers.to_vec(), why));
    }
}

/// A finalizer without a domain is one of the system's.
pub(super) fn validate_standard_finalizer(path: &Path<'_>, finalizer: &Value, errors: &mut Errors) {
    const BARE: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    let name = finalizer.as_str().unwrap_or_default();
    if !name.contains('/') && !BARE.contains(&name) {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, name, why));
    }
}

/// What a kind checks of the metadata of a changed object, after everything was checked for all kinds alike. Clients
/// see it: what is wrong is told once for each time that it is found.
#[derive(Clone, Copy, PartialEq)]
enum Again {
    Nothing,
    Changes,
    /// The metadata by itself, but not what changed about it.
    Whole,
    Everything,
}

/// Kinds that check the metadata of changed objects as of new ones, and no changes.
const WHOLE: &[(&str, &[&str])] = &[
    ("", &["limitranges", "persistentvolumes"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("flowcontrol.apiserver.k8s.io", &["flowschemas", "prioritylevelconfigurations"]),
    ("storage.k8s.io", &["csinodes", "volumeattachments"]),
];

/// Kinds that check the metadata of changed objects as of new ones.
const EVERYTHING: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "configmaps",
            "endpoints",
            "namespaces",
            "nodes",
            "persistentvolumeclaims",
            "pods",
            "secrets",
            "serviceaccounts",
        ],
    ),
    ("apiregistration.k8s.io", &["apiservices"]),
    ("apps", &["controllerrevisions"]),
    ("batch", &["jobs"]),
    ("certificates.k8s.io", &["certificatesigningrequests"]),
    ("networking.k8s.io", &["ingressclasses", "ingresses", "ipaddresses"]),
    ("node.k8s.io", &["runtimeclasses"]),
    ("rbac.authorization.k8s.io", &["clusterrolebindings", "clusterroles", "rolebindings", "roles"]),
    ("resource.k8s.io", &["deviceclasses", "resourceclaims", "resourceclaimtemplates"]),
    ("storage.k8s.io", &["csistoragecapacities", "storageclasses", "volumeattributesclasses"]),
];

impl Again {
    fn of(row: &Resource, subresource: &str) -> Self {
        let status = subresource == "status";
        match (row.group, row.plural) {
            ("policy", "poddisruptionbudgets") | ("", "events") => Self::Nothing,
            ("batch", "cronjobs") if status => Self::Nothing,
            ("certificates.k8s.io", _) => Self::Everything,
            _ if !subresource.is_empty() => Self::Changes,
            ("admissionregistration.k8s.io", _) => Self::Whole,
            (group, plural) => {
                let among = |list: &[(&str, &[&str])]| {
                    list.iter().any(|(g, plurals)| *g == group && plurals.contains(&plural))
                };
                match (among(EVERYTHING), among(WHOLE)) {
                    (true, _) => Self::Everything,
                    (_, true) => Self::Whole,
                    _ => Self::Changes,
                }
            }
        }
    }
}

/// Checks the metadata of a changed object.
pub fn validate_metadata_update(
    row: &Resource,
    subresource: &str,
    new: &Value,
    old: &Value,
    errors: &mut Errors,
) {
    validate_whole(row, new, names::path_segment, errors);
    validate_changes(new, old, errors);
    let again = Again::of(row, subresource);
    if matches!(again, Again::Changes | Again::Everything) {
        validate_changes(new, old, errors);
        validate_system_finalizers(row, &Path::new("metadata").child("finalizers"), new, errors);
    }
    if matches!(again, Again::Whole | Again::Everything) {
        validate_metadata(row, new, errors);
    }
}

/// Checks what may not change about an object's metadata.
fn validate_changes(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("metadata");
    let (new_meta, old_meta) = (new.get("metadata"), old.get("metadata"));
    if old.is_terminating() {
        let before = old_meta.array_at(&["finalizers"]);
        let added: Vec<&str> = new_meta
            .array_at(&["finalizers"])
            .iter()
            .filter(|f| !before.contains(f))
            .filter_map(Value::as_str)
            .collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                quoted(&added)
            );
            errors.push(FieldError::forbidden(&path.child("finalizers"), why));
        }
    }
    for field in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let (new, old) = (new_meta.get(field), old_meta.get(field));
        let empty = |v: &Value| v.is_null() || v.as_str() == Some("");
        if new != old && !(empty(new) && empty(old)) {
            errors.push(FieldError::invalid(&path.child(field), new.clone(), "field is immutable"));
        }
    }
    validate_labels(&path.child("labels"), new_meta.get("labels"), errors);
    validate_annotations(&path.child("annotations"), new_meta.get("annotations"), errors);
    validate_owners(&path.child("ownerReferences"), new_meta.array_at(&["ownerReferences"]), errors);
}

fn quoted(texts: &[&str]) -> String {
    texts.iter().map(|t| api::field::go_quote(t)).collect::<Vec<_>>().join(", ")
}
