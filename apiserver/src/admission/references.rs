//! What a pod refers to in the API: pods that mirror files of a node may not.

use api::Value;

/// Sources of volumes that the API has a part in, and what upstream says of them.
const VOLUMES: [(&str, &str); 7] = [
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];
/// The same of sources of projected volumes.
const PROJECTED: [(&str, &str); 5] = [
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

/// The first that is found, in the words of upstream's refusals.
pub(super) fn first(pod: &Value) -> Option<&'static str> {
    let spec = pod.get("spec");
    if !spec.str_at(&["serviceAccountName"]).is_empty() {
        return Some("serviceaccounts");
    }
    if names_secrets(pod) {
        return Some("secrets");
    }
    if in_environment(spec, "configMapRef", "configMapKeyRef") || in_volumes(spec, &["configMap"]) {
        return Some("configmaps");
    }
    if !spec.array_at(&["resourceClaims"]).is_empty() {
        return Some("resourceclaims");
    }
    spec.array_at(&["volumes"]).iter().find_map(|volume| {
        let projected = volume.array_at(&["projected", "sources"]).iter();
        first_of(&VOLUMES, volume).or_else(|| projected.into_iter().find_map(|s| first_of(&PROJECTED, s)))
    })
}

fn first_of(known: &[(&str, &'static str)], source: &Value) -> Option<&'static str> {
    known.iter().find(|(member, _)| !source.get(member).is_null()).map(|(_, what)| *what)
}

/// True when a pod names a secret anywhere.
pub(super) fn names_secrets(pod: &Value) -> bool {
    let spec = pod.get("spec");
    let by_plug_in = |volume: &Value| {
        let sources = volume.as_object().into_iter().flat_map(|members| members.values());
        sources.into_iter().any(|s| !s.get("secretRef").is_null() || !s.get("nodePublishSecretRef").is_null())
            || !volume.str_at(&["azureFile", "secretName"]).is_empty()
    };
    !spec.array_at(&["imagePullSecrets"]).is_empty()
        || in_environment(spec, "secretRef", "secretKeyRef")
        || in_volumes(spec, &["secret"])
        || spec.array_at(&["volumes"]).iter().any(by_plug_in)
}

fn in_environment(spec: &Value, all: &str, one: &str) -> bool {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let mut containers = lists.iter().flat_map(|list| spec.array_at(&[list]));
    containers.any(|c| {
        c.array_at(&["envFrom"]).iter().any(|e| !e.get(all).is_null())
            || c.array_at(&["env"]).iter().any(|e| !e.at(&["valueFrom", one]).is_null())
    })
}

fn in_volumes(spec: &Value, kinds: &[&str]) -> bool {
    let names = |source: &Value| kinds.iter().any(|kind| !source.get(kind).is_null());
    let mut volumes = spec.array_at(&["volumes"]).iter();
    volumes.any(|v| names(v) || v.array_at(&["projected", "sources"]).iter().any(names))
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
            let pod = api::json::decode(format!(r#"{{"spec":{spec}}}"#).as_bytes()).unwrap().value;
            assert_eq!(first(&pod), found, "{spec}");
        }
    }
}
