//! PersistentVolumes.

use api::field::{FieldError, Path};
use api::{Value, names, object};
use jiff::Timestamp;

use super::check::{At, difference};
use super::claim::validate_access_modes;
use super::pod::{default_volume_source, validate_node_selector};
use super::volume_sources::{self, Owner};
use super::{Entry, Errors, Part, Strategy, default_if_empty, default_to};

pub(super) const STRATEGIES: &[Entry] = &[("", "persistentvolumes", &VOLUME)];

static VOLUME: Strategy = Strategy {
    default: |volume| {
        let spec = volume.make_object().entry("spec");
        default_to(spec, "volumeMode", "Filesystem");
        default_if_empty(spec, "persistentVolumeReclaimPolicy", "Retain");
        default_volume_source(spec);
        default_if_empty(volume.make_object().entry("status"), "phase", "Pending");
    },
    prepare_create: |volume| {
        let now = api::time::format(Timestamp::now());
        volume.set(&["status"], object!({"phase": "Pending", "lastPhaseTransitionTime": now}));
    },
    validate: |volume, errors| {
        validate_spec(&At::of(volume, "spec"), Some(volume.name()), errors);
    },
    validate_update,
    warn: warnings,
    parts: &[STATUS],
    ..Strategy::NEUTRAL
};

/// Sources that work no more, with what became of them.
const GONE: [(&str, &str); 6] = [
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Annotations that fields have replaced.
const REPLACED: [(&str, &str); 2] = [
    (
        "volume.beta.kubernetes.io/storage-class",
        "deprecated since v1.8; use \"storageClassName\" attribute instead",
    ),
    (
        "volume.beta.kubernetes.io/mount-options",
        "deprecated since v1.31; use \"mountOptions\" attribute instead",
    ),
];

fn warnings(volume: &Value) -> Vec<String> {
    let mut out: Vec<String> = REPLACED
        .iter()
        .filter(|(key, _)| volume.annotation(key).is_some())
        .map(|(key, why)| format!("metadata.annotations[{key}]: {why}"))
        .collect();
    if volume.str_at(&["spec", "persistentVolumeReclaimPolicy"]) == "Recycle" {
        out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_owned());
    }
    let required = At::of(volume, "spec.nodeAffinity.required.nodeSelectorTerms");
    for term in required.items() {
        super::pod::warnings_of_term(&term, &mut out);
    }
    for (field, why) in GONE.iter().filter(|(field, _)| !volume.at(&["spec", field]).is_null()) {
        let shown = if *field == "storageos" { "storageOS" } else { field };
        out.push(format!("spec.{shown}: {why}"));
    }
    out
}

/// The time of the last change of phase goes with the phase.
const STATUS: Part = Part {
    name: "status",
    fixed: &[&["spec"]],
    prepare: |new, old| {
        const TIME: [&str; 2] = ["status", "lastPhaseTransitionTime"];
        let same = new.at(&["status", "phase"]) == old.at(&["status", "phase"]);
        if !same && new.at(&TIME) == old.at(&TIME) {
            new.set(&TIME, api::time::format(Timestamp::now()));
        } else if new.at(&TIME).is_null() && !old.at(&TIME).is_null() {
            new.set(&TIME, old.at(&TIME));
        }
    },
    validate: |_, _, _| {},
};

/// The kinds of sources in the order of the checks, with what errors call them when there is more than one and when
/// something inside is wrong.
const SOURCES: [(&str, &str, &str); 22] = [
    ("hostPath", "hostPath", "hostPath"),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore"),
    ("glusterfs", "glusterfs", "glusterfs"),
    ("flocker", "flocker", "flocker"),
    ("nfs", "nfs", "nfs"),
    ("rbd", "rbd", "rbd"),
    ("quobyte", "quobyte", "quobyte"),
    ("cephfs", "cephFS", "cephfs"),
    ("iscsi", "iscsi", "iscsi"),
    ("cinder", "cinder", "cinder"),
    ("fc", "fc", "fc"),
    ("flexVolume", "flexVolume", "flexVolume"),
    ("azureFile", "azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk", "azureDisk"),
    ("scaleIO", "scaleIO", "scaleIO"),
    ("local", "local", "local"),
    ("storageos", "storageos", "storageos"),
    ("csi", "csi", "csi"),
];

const INLINE: &str = "in the context of inline volumes";

/// Checks the spec of the volume `name`, or of one inside an attachment.
pub(super) fn validate_spec(spec: &At<'_>, name: Option<&str>, errors: &mut Errors) {
    let inline = name.is_none();
    if inline {
        for field in ["claimRef", "capacity"] {
            if !spec.get(field).value.is_empty() {
                spec.get(field).forbidden(errors, format!("may not be specified {INLINE}"));
            }
        }
        if !spec.get("csi").is_set() {
            spec.get("csi").required(errors, format!("has to be specified {INLINE}"));
        }
    }
    spec.get("accessModes").not_empty(errors);
    validate_access_modes(&spec.get("accessModes"), errors);
    if !inline {
        validate_capacity(&spec.get("capacity"), errors);
    }
    let reclaim = spec.get("persistentVolumeReclaimPolicy");
    if inline && !matches!(reclaim.text(), "" | "Retain") {
        reclaim.forbidden(errors, format!("may only be Retain {INLINE}"));
    } else if !reclaim.text().is_empty() {
        reclaim.one_of(errors, &["Delete", "Recycle", "Retain"]);
    }
    validate_affinity(&spec.get("nodeAffinity"), inline, errors);
    validate_sources(spec, name.unwrap_or_default(), errors);
    let at_root = spec.get("hostPath.path").text().split('/').all(|p| p.is_empty() || p == ".");
    if spec.get("hostPath.path").text().starts_with('/') && at_root && reclaim.text() == "Recycle" {
        reclaim.forbidden(errors, "may not be 'recycle' for a hostPath mount of '/'");
    }
    validate_classes(spec, inline, errors);
}

fn validate_capacity(capacity: &At<'_>, errors: &mut Errors) {
    capacity.not_empty(errors);
    if capacity.value.get("storage").is_null() || capacity.len() > 1 {
        let shown = capacity.value.clone();
        errors.push(FieldError::not_supported(&capacity.path, shown, &["storage"]));
    }
    for (_, amount) in capacity.entries() {
        if amount.quantity().is_some_and(|q| q.is_negative()) {
            let shown = amount.quantity().map_or(0, |q| q.units());
            amount.invalid_as(errors, shown, "must be a valid resource quantity");
        }
        amount.quantity_positive(errors);
    }
}

fn validate_affinity(affinity: &At<'_>, inline: bool, errors: &mut Errors) {
    if !affinity.is_set() {
        return;
    }
    if inline {
        return affinity.forbidden(errors, format!("may not be specified {INLINE}"));
    }
    let required = affinity.get("required");
    if required.is_set() {
        validate_node_selector(&required, errors);
    } else {
        required.required(errors, "must specify required node constraints");
    }
}

fn validate_sources(spec: &At<'_>, name: &str, errors: &mut Errors) {
    let mut any = false;
    for (field, again, shown) in SOURCES {
        let value = spec.value.get(field);
        if value.is_null() {
            continue;
        }
        if any && field != "flexVolume" {
            spec.get(again).forbidden(errors, "may not specify more than 1 volume type");
            continue;
        }
        any = true;
        let at = spec.get(shown);
        volume_sources::validate(field, &at.with(value), Owner::Persistent(name), errors);
        if field == "local" && !spec.get("nodeAffinity").is_set() {
            spec.get("nodeAffinity").required(errors, "Local volume requires node affinity");
        }
    }
    if !any {
        spec.required(errors, "must specify a volume type");
    }
}

fn validate_classes(spec: &At<'_>, inline: bool, errors: &mut Errors) {
    let (class, mode) = (spec.get("storageClassName"), spec.get("volumeMode"));
    if inline && !class.text().is_empty() {
        class.forbidden(errors, format!("may not be specified {INLINE}"));
    } else {
        class.named_if_any(errors, names::dns_subdomain);
    }
    if inline && mode.is_set() && mode.text() != "Filesystem" {
        mode.forbidden(errors, format!("may not specify volumeMode other than Filesystem {INLINE}"));
    } else if !inline {
        mode.one_of(errors, &["Block", "Filesystem"]);
    }
    let attributes = spec.get("volumeAttributesClassName");
    if attributes.is_set() {
        if attributes.text().is_empty() {
            attributes.required(errors, "an empty string is disallowed");
        } else {
            attributes.named(errors, names::dns_subdomain);
        }
        if !spec.get("csi").is_set() {
            let why = "has to be specified when using volumeAttributesClassName";
            spec.get("csi").required(errors, why);
        }
    }
}

const SOURCE: &str = "core/v1.PersistentVolumeSource";

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    // Upstream finds what is wrong with the volume itself twice.
    validate_spec(&At::of(new, "spec"), Some(new.name()), errors);
    let spec = At::of(new, "spec");
    let before = old.get("spec");
    let source = |spec: &Value| -> Value {
        let present = SOURCES.iter().filter(|(s, ..)| !spec.get(s).is_null());
        Value::Object(present.map(|(s, ..)| (*s, spec.get(s))).collect())
    };
    let (mut is, was) = (source(spec.value), source(before));
    // A secret for growing may be added later.
    if !was.get("csi").is_null() && was.at(&["csi", "controllerExpandSecretRef"]).is_null() {
        is.remove_at(&["csi", "controllerExpandSecretRef"]);
    }
    if is != was {
        let why = format!(
            "spec.persistentvolumesource is immutable after creation\n{}",
            difference(&was, &is, SOURCE)
        );
        spec.get("persistentvolumesource").forbidden(errors, why);
    }
    let mode = At { value: spec.value.get("volumeMode"), path: Path::new("volumeMode") };
    mode.immutable(errors, before.get("volumeMode"));
    validate_affinity_update(spec.value.get("nodeAffinity"), before.get("nodeAffinity"), errors);
    let class = spec.get("volumeAttributesClassName");
    if !before.get("volumeAttributesClassName").is_null() && !class.is_set() {
        class.forbidden(errors, "update from non-nil value to nil is forbidden");
    }
}

/// Labels of nodes and what became of them.
const RENAMED: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

fn validate_affinity_update(new: &Value, old: &Value, errors: &mut Errors) {
    if old.is_null() || new == old {
        return;
    }
    let mut was = old.clone();
    let terms = was.at_mut(&["required", "nodeSelectorTerms"]).and_then(Value::as_array_mut);
    for (i, term) in terms.into_iter().flatten().enumerate() {
        for list in ["matchExpressions", "matchFields"] {
            let is = new.array_at(&["required", "nodeSelectorTerms"]).get(i).map(|t| t.array_at(&[list]));
            let before = term.make_object().get_mut(list).and_then(Value::as_array_mut);
            for (was, is) in before.into_iter().flatten().zip(is.unwrap_or_default()) {
                let renamed = RENAMED
                    .iter()
                    .any(|(beta, stable)| was.str_at(&["key"]) == *beta && is.str_at(&["key"]) == *stable);
                if renamed {
                    was.set(&["key"], is.get("key"));
                }
            }
        }
    }
    if *new != was {
        let at = At { value: new, path: Path::new("nodeAffinity") };
        let why = "field is immutable, except for updating from beta label to GA";
        at.invalid_struct(errors, "core/v1.VolumeNodeAffinity", why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: Value, want: &[&str]) {
        let mut errors = Vec::new();
        let volume = object!({"metadata": {"name": "v"}, "spec": spec});
        validate_spec(&At::of(&volume, "spec"), Some("v"), &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
    }

    #[test]
    fn a_volume_has_one_source_and_a_size() {
        let modes = object!(["ReadWriteOnce"]);
        check(
            object!({"accessModes": (modes.clone()), "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/a"}}),
            &[],
        );
        check(
            object!({"accessModes": (modes.clone()), "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/a"}, "local": {"path": "/b"}}),
            &["spec.local: Forbidden: may not specify more than 1 volume type"],
        );
        check(
            object!({"accessModes": modes}),
            &[
                "spec.capacity: Required value",
                "spec.capacity: Unsupported value: null: supported values: \"storage\"",
                "spec: Required value: must specify a volume type",
            ],
        );
    }
}
