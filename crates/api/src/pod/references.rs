//! What a pod refers to in the API: static pods, and those that mirror them, may not.

use crate::Value;

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

/// The first kind of object that a pod names, if it names any, in the words of upstream's refusals.
pub fn first(pod: &Value) -> Option<&'static str> {
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
    volumes(pod).find_map(of_volume)
}

fn of_volume(volume: &Value) -> Option<&'static str> {
    let of = |object: &Value, table: &[(&str, &'static str)]| {
        table.iter().find(|(field, _)| !object.get(field).is_null()).map(|(_, what)| *what)
    };
    let sources = volume.array_at(&["projected", "sources"]);
    of(volume, &VOLUMES).or_else(|| sources.iter().find_map(|source| of(source, &PROJECTED)))
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
    LISTS.into_iter().flat_map(|list| pod.array_at(&["spec", list]))
}

fn volumes(pod: &Value) -> impl Iterator<Item = &Value> {
    pod.array_at(&["spec", "volumes"]).iter()
}

/// True when a pod names a secret anywhere.
pub fn names_secret(pod: &Value) -> bool {
    let env = |container: &Value| named(container, "secretRef", "secretKeyRef");
    let volume = |volume: &Value| {
        !volume.get("secret").is_null()
            || SECRETS.iter().any(|(source, field)| !volume.at(&[source, field]).is_null())
            || projects(volume, "secret")
    };
    !pod.array_at(&["spec", "imagePullSecrets"]).is_empty()
        || containers(pod).any(env)
        || volumes(pod).any(volume)
}

fn names_config_map(pod: &Value) -> bool {
    let volume = |volume: &Value| !volume.get("configMap").is_null() || projects(volume, "configMap");
    containers(pod).any(|container| named(container, "configMapRef", "configMapKeyRef"))
        || volumes(pod).any(volume)
}

fn projects(volume: &Value, kind: &str) -> bool {
    volume.array_at(&["projected", "sources"]).iter().any(|source| !source.get(kind).is_null())
}

/// Whether the environment of a container comes from such an object, as a whole or in part.
fn named(container: &Value, whole: &str, part: &str) -> bool {
    container.array_at(&["envFrom"]).iter().any(|from| !from.get(whole).is_null())
        || container.array_at(&["env"]).iter().any(|env| !env.at(&["valueFrom", part]).is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pods_refer_to_is_found_wherever_it_stands() {
        for (spec, found) in [
            (
                r#"{"containers":[{"env":[{"name":"a","value":"b"}]}],"volumes":[{"hostPath":{}},{"emptyDir":{}}]}"#,
                None,
            ),
            (r#"{"volumes":[{"projected":{"sources":[{"downwardAPI":{}}]}}]}"#, None),
            (r#"{"serviceAccountName":"a"}"#, Some("serviceaccounts")),
            (r#"{"imagePullSecrets":[{"name":"a"}]}"#, Some("secrets")),
            (r#"{"initContainers":[{"envFrom":[{"secretRef":{"name":"a"}}]}]}"#, Some("secrets")),
            (r#"{"volumes":[{"cephfs":{"secretRef":{"name":"a"}}}]}"#, Some("secrets")),
            (
                r#"{"containers":[{"env":[{"valueFrom":{"configMapKeyRef":{"name":"a"}}}]}]}"#,
                Some("configmaps"),
            ),
            (r#"{"resourceClaims":[{"name":"a"}]}"#, Some("resourceclaims")),
            (r#"{"volumes":[{"csi":{"driver":"a"}}]}"#, Some("csidrivers (via CSI volumes)")),
            (
                r#"{"volumes":[{"projected":{"sources":[{"serviceAccountToken":{}}]}}]}"#,
                Some("serviceaccounts (via projected volumes)"),
            ),
        ] {
            let pod = crate::json::decode(format!(r#"{{"spec":{spec}}}"#).as_bytes()).unwrap().value;
            assert_eq!(first(&pod), found, "{spec}");
        }
    }
}
