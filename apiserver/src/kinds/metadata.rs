//! Validation of `metadata`, the same for every kind.

use api::field::{FieldError, Path};
use api::names;
use api::{Map, Value};

use super::{Errors, check_name};
use crate::resources::Resource;

const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Checks the metadata of a new object.
pub fn validate_metadata(row: &Resource, object: &Value, errors: &mut Errors) {
    let path = Path::new("metadata");
    let metadata = object.get("metadata");
    let generate = metadata.str_at(&["generateName"]);
    if !generate.is_empty() {
        // What the server appends ends in a letter or digit, so a trailing dash is fine.
        let masked = match generate.char_indices().nth_back(1) {
            Some((at, _)) if generate.ends_with('-') => format!("{}a", &generate[..at]),
            _ => generate.to_owned(),
        };
        check_prefix(&path.child("generateName"), generate, &masked, row.strategy.name, errors);
    }
    let name = object.name();
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    } else {
        check_name(&path.child("name"), name, row.strategy.name, errors);
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
    validate_labels(&path.child("labels"), metadata.get("labels"), errors);
    validate_annotations(&path.child("annotations"), metadata.get("annotations"), errors);
    validate_owners(&path.child("ownerReferences"), metadata.array_at(&["ownerReferences"]), errors);
    let finalizers = metadata.array_at(&["finalizers"]);
    validate_finalizers(row, &path.child("finalizers"), finalizers, errors);
}

fn check_prefix(
    path: &Path<'_>,
    value: &str,
    masked: &str,
    rule: fn(&str) -> Vec<String>,
    errors: &mut Errors,
) {
    errors.extend(rule(masked).into_iter().map(|e| FieldError::invalid(path, value, e)));
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
        if version.is_empty() || version.ends_with('/') {
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

fn validate_finalizers(row: &Resource, path: &Path<'_>, finalizers: &[Value], errors: &mut Errors) {
    validate_finalizer_names(path, finalizers, errors);
    if row.custom.is_some() || row.group == "apiextensions.k8s.io" {
        return;
    }
    for (i, finalizer) in finalizers.iter().enumerate() {
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

/// Checks what may not change about an object's metadata.
pub fn validate_metadata_update(row: &Resource, new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("metadata");
    let (new_meta, old_meta) = (new.get("metadata"), old.get("metadata"));
    if new.is_terminating() && old.is_terminating() {
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
        if new != old && !(new.is_empty() && old.is_empty()) {
            errors.push(FieldError::invalid(&path.child(field), new.clone(), "field is immutable"));
        }
    }
    validate_labels(&path.child("labels"), new_meta.get("labels"), errors);
    validate_annotations(&path.child("annotations"), new_meta.get("annotations"), errors);
    validate_owners(&path.child("ownerReferences"), new_meta.array_at(&["ownerReferences"]), errors);
    let finalizers = new_meta.array_at(&["finalizers"]);
    validate_finalizers(row, &path.child("finalizers"), finalizers, errors);
}

fn quoted(texts: &[&str]) -> String {
    texts.iter().map(|t| api::field::go_quote(t)).collect::<Vec<_>>().join(", ")
}
