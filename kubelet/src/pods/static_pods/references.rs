//! What static pods may not name: objects of the API server, which a node alone cannot look up.

use api::Value;

use crate::pods::spec;

/// Sources of volumes that stand for an object, and what upstream calls them.
const VOLUMES: [(&str, &str); 7] = [
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];

/// The same of what projected volumes are put together from.
const PROJECTED: [(&str, &str); 5] = [
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

/// Where a source of a volume may name a secret beside what it is.
const SECRETS: [(&str, &str); 9] = [
    ("cephfs", "secretRef"),
    ("cinder", "secretRef"),
    ("flexVolume", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("iscsi", "secretRef"),
    ("storageos", "secretRef"),
    ("csi", "nodePublishSecretRef"),
    ("azureFile", "secretName"),
];

/// The first kind of object that a pod names, if it names any.
pub(super) fn first(pod: &Value) -> Option<&'static str> {
    if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        return Some("serviceaccounts");
    }
    if names_secret(pod) {
        return Some("secrets");
    }
    if names_config_map(pod) {
        return Some("configmaps");
    }
    if !pod.array_at(&["spec", "resourceClaims"]).is_empty() {
        return Some("resourceclaims");
    }
    spec::volumes(pod).iter().find_map(of_volume)
}

fn of_volume(volume: &Value) -> Option<&'static str> {
    let of = |object: &Value, table: &[(&str, &'static str)]| {
        table.iter().find(|(field, _)| !object.get(field).is_null()).map(|(_, what)| *what)
    };
    let sources = volume.at(&["projected"]).array_at(&["sources"]);
    of(volume, &VOLUMES).or_else(|| sources.iter().find_map(|source| of(source, &PROJECTED)))
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    spec::all_containers(pod).chain(spec::ephemeral_containers(pod))
}

fn names_secret(pod: &Value) -> bool {
    let env = |container: &Value| named(container, "secretRef", "secretKeyRef");
    let volume = |volume: &Value| {
        !volume.at(&["secret", "secretName"]).is_empty()
            || SECRETS.iter().any(|(source, field)| !volume.at(&[source, field]).is_null())
            || projects(volume, "secret")
    };
    !pod.array_at(&["spec", "imagePullSecrets"]).is_empty()
        || containers(pod).any(env)
        || spec::volumes(pod).iter().any(volume)
}

fn names_config_map(pod: &Value) -> bool {
    let volume = |volume: &Value| !volume.get("configMap").is_null() || projects(volume, "configMap");
    containers(pod).any(|container| named(container, "configMapRef", "configMapKeyRef"))
        || spec::volumes(pod).iter().any(volume)
}

fn projects(volume: &Value, kind: &str) -> bool {
    volume.array_at(&["projected", "sources"]).iter().any(|source| !source.get(kind).is_null())
}

/// Whether the environment of a container comes from such an object, as a whole or in part.
fn named(container: &Value, whole: &str, part: &str) -> bool {
    container.array_at(&["envFrom"]).iter().any(|from| !from.get(whole).is_null())
        || container.array_at(&["env"]).iter().any(|env| !env.at(&["valueFrom", part]).is_null())
}
