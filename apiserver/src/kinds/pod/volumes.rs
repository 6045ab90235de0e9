//! Volumes of pods.

use std::collections::{HashMap, HashSet};

use api::{Value, names};

use super::mounts::{descending, not_reserved};
use super::projected;
use super::spec::Subject;
use crate::kinds::Errors;
use crate::kinds::check::At;
use crate::kinds::volume_sources::{self, Owner, validate_mode};

/// The kinds of sources in the order of the checks, with what errors call them when there is more than one and when
/// something inside is wrong.
const SOURCES: [(&str, &str, &str); 30] = [
    ("emptyDir", "emptyDir", "emptyDir"),
    ("hostPath", "hostPath", "hostPath"),
    ("gitRepo", "gitRepo", "gitRepo"),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret", "secret"),
    ("nfs", "nfs", "nfs"),
    ("iscsi", "iscsi", "iscsi"),
    ("glusterfs", "glusterfs", "glusterfs"),
    ("flocker", "flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd", "rbd"),
    ("cinder", "cinder", "cinder"),
    ("cephfs", "cephFS", "cephfs"),
    ("quobyte", "quobyte", "quobyte"),
    ("downwardAPI", "downwarAPI", "downwardAPI"),
    ("fc", "fc", "fc"),
    ("flexVolume", "flexVolume", "flexVolume"),
    ("configMap", "configMap", "configMap"),
    ("azureFile", "azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk", "azureDisk"),
    ("storageos", "storageos", "storageos"),
    ("projected", "projected", "projected"),
    ("scaleIO", "scaleIO", "scaleIO"),
    ("csi", "csi", "csi"),
    ("ephemeral", "ephemeral", "ephemeral"),
    ("image", "image", "image"),
];

/// Checks volumes and returns the valid ones by name.
pub(super) fn validate<'a>(
    volumes: &At<'a>,
    subject: &Subject<'_>,
    errors: &mut Errors,
) -> HashMap<&'a str, &'a Value> {
    let items = volumes.value.as_array().map_or(&[][..], Vec::as_slice);
    let own_claims: HashSet<String> = items
        .iter()
        .filter(|v| !subject.name().is_empty() && !v.get("ephemeral").is_null())
        .map(|v| format!("{}-{}", subject.name(), v.str_at(&["name"])))
        .collect();
    let mut known: HashMap<&'a str, &'a Value> = HashMap::new();
    for (volume, source) in volumes.items().zip(items) {
        let name = volume.get("name");
        let mut found = Vec::new();
        validate_source(&volume, subject, &mut found);
        name.required_name(&mut found, names::dns_label);
        let text = source.str_at(&["name"]);
        if known.contains_key(text) {
            name.duplicate(&mut found);
        }
        if found.is_empty() {
            known.insert(text, source);
        }
        errors.append(&mut found);
        let claim = volume.get("persistentVolumeClaim.claimName");
        if claim.is_set() && own_claims.contains(claim.text()) {
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            claim.invalid(errors, why);
        }
    }
    known
}

fn validate_source(volume: &At<'_>, subject: &Subject<'_>, errors: &mut Errors) {
    let mut any = false;
    for (field, again, shown) in SOURCES {
        let value = volume.value.get(field);
        if value.is_null() {
            continue;
        }
        if any {
            volume.get(again).forbidden(errors, "may not specify more than 1 volume type");
        } else {
            any = true;
            let at = volume.get(shown);
            validate_kind(field, &at.with(value), volume, subject, errors);
        }
        let portal = volume.get("iscsi.targetPortal").text();
        let name = volume.get("name").text();
        if field == "iscsi" && !value.get("initiatorName").is_null() && name.len() + 1 + portal.len() > 64 {
            let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
            volume.get("name").invalid(errors, why);
        }
    }
    if !any {
        volume.required(errors, "must specify a volume type");
    }
}

fn validate_kind(kind: &str, source: &At<'_>, volume: &At<'_>, subject: &Subject<'_>, errors: &mut Errors) {
    match kind {
        "emptyDir" => {
            let limit = source.get("sizeLimit");
            if limit.quantity().is_some_and(|q| q.is_negative()) {
                limit.forbidden(errors, "SizeLimit field must be a valid resource quantity");
            }
        }
        "gitRepo" => {
            source.get("repository").not_empty(errors);
            descending(&source.get("directory"), errors);
        }
        "secret" | "configMap" => {
            source.get(if kind == "secret" { "secretName" } else { "name" }).not_empty(errors);
            validate_mode(&source.get("defaultMode"), errors);
            for item in source.get("items").items() {
                validate_key(&item, errors);
            }
        }
        "downwardAPI" => {
            validate_mode(&source.get("defaultMode"), errors);
            for item in source.get("items").items() {
                projected::validate_field_file(&source.with(item.value), errors);
            }
        }
        "projected" => projected::validate(source, errors),
        "ephemeral" => {
            validate_claim_template(source, errors);
            let (pod, name) = (subject.name(), volume.get("name"));
            if !pod.is_empty() && !name.text().is_empty() {
                let claim = format!("{pod}-{}", name.text());
                for why in names::dns_subdomain(&claim) {
                    name.invalid(errors, format!("PVC name {}: {why}", api::field::go_quote(&claim)));
                }
            }
        }
        "image" => {
            if subject.is_pod() {
                source.get("reference").not_empty(errors);
            }
            source.get("pullPolicy").required_one_of(errors, &["Always", "IfNotPresent", "Never"]);
        }
        _ => volume_sources::validate(kind, source, Owner::Pod, errors),
    }
}

/// Checks a key and the file that it becomes.
pub(super) fn validate_key(item: &At<'_>, errors: &mut Errors) {
    item.get("key").not_empty(errors);
    item.get("path").not_empty(errors);
    not_reserved(&item.get("path"), errors);
    validate_mode(&item.get("mode"), errors);
}

/// Fields of metadata that templates of claims cannot have, as Go orders them, with what errors call them when that is
/// another name.
const NOT_IN_TEMPLATES: [(&str, &str); 13] = [
    ("name", "name"),
    ("generateName", "generateName"),
    ("namespace", "namespace"),
    ("selfLink", "selfLink"),
    ("uid", "uID"),
    ("resourceVersion", "resourceVersion"),
    ("generation", "generation"),
    ("creationTimestamp", "creationTimestamp"),
    ("deletionTimestamp", "deletionTimestamp"),
    ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
    ("ownerReferences", "ownerReferences"),
    ("finalizers", "finalizers"),
    ("managedFields", "managedFields"),
];

/// Checks the metadata of a template of claims: labels and annotations alone.
pub(in crate::kinds) fn validate_template_metadata(metadata: &At<'_>, errors: &mut Errors) {
    let annotations = metadata.get("annotations");
    crate::kinds::metadata::validate_annotations(&annotations.path, annotations.value, errors);
    metadata.get("labels").labels(errors);
    for (field, shown) in NOT_IN_TEMPLATES {
        let value = metadata.value.get(field);
        let zero = match value {
            Value::Int(n) => *n == 0 && field == "generation",
            other => other.is_empty(),
        };
        if !zero {
            metadata.get(shown).forbidden(errors, "cannot be set");
        }
    }
}

fn validate_claim_template(source: &At<'_>, errors: &mut Errors) {
    let template = source.get("volumeClaimTemplate");
    if !template.is_set() {
        return template.required(errors, "");
    }
    validate_template_metadata(&template.get("metadata"), errors);
    crate::kinds::claim::validate_spec(&template.get("spec"), errors);
}
