//! The Node authorizer: a kubelet may read what the pods bound to its node need, and write what is its own.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/node/>.

use api::Value;

use super::{Attributes, Decision};
use crate::authn::UserInfo;
use crate::resources::TABLE;
use crate::storage::Storage;

/// What every node may do, whatever runs on it: group, resource (`*` for its subresources too) and verbs.
const EVERY_NODE: &[(&str, &str, &[&str])] = &[
    ("authentication.k8s.io", "tokenreviews", &["create"]),
    ("authorization.k8s.io", "subjectaccessreviews", &["create"]),
    ("authorization.k8s.io", "localsubjectaccessreviews", &["create"]),
    ("", "services", &["get", "list", "watch"]),
    ("", "nodes", &["create", "get", "list", "watch", "update", "patch"]),
    ("", "nodes/status", &["update", "patch"]),
    ("", "events", &["create", "update", "patch"]),
    ("events.k8s.io", "events", &["create", "update", "patch"]),
    ("", "pods", &["get", "list", "watch", "create", "delete"]),
    ("", "pods/status", &["update", "patch"]),
    ("", "pods/eviction", &["create"]),
    ("certificates.k8s.io", "certificatesigningrequests", &["create", "get", "list", "watch"]),
    ("coordination.k8s.io", "leases", &["get", "create", "update", "patch", "delete"]),
    ("storage.k8s.io", "csidrivers", &["get", "list", "watch"]),
    ("storage.k8s.io", "csinodes", &["create", "delete", "get", "patch", "update"]),
    ("node.k8s.io", "runtimeclasses", &["get", "list", "watch"]),
    ("", "persistentvolumeclaims/status", &["get", "update", "patch"]),
    (
        "resource.k8s.io",
        "resourceslices",
        &["create", "get", "list", "watch", "update", "patch", "delete", "deletecollection"],
    ),
];

/// What a kubelet may do.
pub(super) fn authorize(storage: &Storage, user: &UserInfo, what: &Attributes<'_>) -> Decision {
    let Some(node) = user.node_name() else { return Decision::NoOpinion(String::new()) };
    let no = |why: String| Decision::NoOpinion(why);
    let reads = matches!(what.verb, "get" | "list" | "watch");
    let referenced = match (what.group, what.resource, what.subresource) {
        ("", "secrets" | "configmaps", "") => {
            if !reads {
                return no("can only read resources of this type".to_owned());
            }
            Some(referenced_by_pod(storage, node, what))
        }
        ("", "persistentvolumeclaims", "") if what.verb == "get" => {
            Some(referenced_by_pod(storage, node, what))
        }
        ("", "persistentvolumes", "") if what.verb == "get" => Some(volume_of_pod(storage, node, what.name)),
        ("", "serviceaccounts", "") if what.verb == "get" => Some(referenced_by_pod(storage, node, what)),
        ("", "serviceaccounts", "token") if what.verb == "create" => {
            Some(referenced_by_pod(storage, node, what))
        }
        ("storage.k8s.io", "volumeattachments", "") if what.verb == "get" => {
            Some(attachment_of_node(storage, node, what.name))
        }
        ("resource.k8s.io", "resourceclaims", "") if what.verb == "get" => {
            Some(referenced_by_pod(storage, node, what))
        }
        _ => None,
    };
    if let Some(found) = referenced {
        let why = format!("no relationship found between node '{node}' and this object");
        return if found { Decision::Allow(String::new()) } else { no(why) };
    }
    if what.group == "coordination.k8s.io" && what.resource == "leases" {
        let own = what.namespace == "kube-node-lease" && (what.verb == "create" || what.name == node);
        let why = "can only access node lease with the same name as the requesting node".to_owned();
        return if own { Decision::Allow(String::new()) } else { no(why) };
    }
    let combined = what.combined();
    let allowed = EVERY_NODE
        .iter()
        .any(|(g, r, verbs)| *g == what.group && *r == combined && verbs.contains(&what.verb));
    if allowed { Decision::Allow(String::new()) } else { no(String::new()) }
}

/// True when a pod bound to the node names the object.
fn referenced_by_pod(storage: &Storage, node: &str, what: &Attributes<'_>) -> bool {
    if what.name.is_empty() {
        return false;
    }
    let in_namespace = format!("{}/", what.namespace);
    pods_of(storage, node)
        .filter(|(key, _)| key.starts_with(&in_namespace))
        .any(|(_, pod)| names_object(&pod, what.resource, what.name))
}

fn pods_of(storage: &Storage, node: &str) -> impl Iterator<Item = (String, Value)> {
    let cache = storage.cache(TABLE.store("", "pods"));
    let at = TABLE.find("", "v1", "pods").and_then(|row| row.field_index("spec.nodeName"));
    let snapshot = cache.snapshot();
    let bound: Vec<_> = snapshot
        .objects
        .values()
        .filter(|s| at.and_then(|i| s.fields.get(i)).is_some_and(|n| n == node))
        .cloned()
        .collect();
    bound.into_iter().map(|s| (s.key.to_string(), s.object()))
}

/// True when a pod's spec names `name` in a place that refers to that resource.
fn names_object(pod: &Value, resource: &str, name: &str) -> bool {
    let spec = pod.get("spec");
    let is = |v: &Value, path: &[&str]| v.str_at(path) == name;
    let volumes = spec.array_at(&["volumes"]);
    let sources =
        |v: &Value, kind: &str| v.array_at(&["projected", "sources"]).iter().any(|s| is(s, &[kind, "name"]));
    let containers = || {
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|c| spec.array_at(&[c]))
    };
    let in_env = |kind: &str, key: &str| {
        containers().any(|c| {
            c.array_at(&["envFrom"]).iter().any(|e| is(e, &[kind, "name"]))
                || c.array_at(&["env"]).iter().any(|e| is(e, &["valueFrom", key, "name"]))
        })
    };
    match resource {
        "serviceaccounts" => is(spec, &["serviceAccountName"]),
        "configmaps" => {
            volumes.iter().any(|v| is(v, &["configMap", "name"]) || sources(v, "configMap"))
                || in_env("configMapRef", "configMapKeyRef")
        }
        "secrets" => {
            volumes
                .iter()
                .any(|v| is(v, &["secret", "secretName"]) || sources(v, "secret") || volume_secret(v, name))
                || spec.array_at(&["imagePullSecrets"]).iter().any(|s| is(s, &["name"]))
                || in_env("secretRef", "secretKeyRef")
        }
        "persistentvolumeclaims" => volumes.iter().any(|v| {
            is(v, &["persistentVolumeClaim", "claimName"])
                || (!v.get("ephemeral").is_null()
                    && format!("{}-{}", pod.name(), v.str_at(&["name"])) == name)
        }),
        "resourceclaims" => {
            spec.array_at(&["resourceClaims"]).iter().any(|c| is(c, &["resourceClaimName"]))
                || pod
                    .array_at(&["status", "resourceClaimStatuses"])
                    .iter()
                    .any(|c| is(c, &["resourceClaimName"]))
        }
        _ => false,
    }
}

/// Volume sources of plug-ins name a secret in one of two places.
fn volume_secret(volume: &Value, name: &str) -> bool {
    volume.as_object().into_iter().flat_map(|m| m.values()).any(|source| {
        source.str_at(&["secretRef", "name"]) == name
            || source.str_at(&["nodePublishSecretRef", "name"]) == name
    })
}

fn volume_of_pod(storage: &Storage, node: &str, volume: &str) -> bool {
    let claims = storage.cache(TABLE.store("", "persistentvolumeclaims"));
    pods_of(storage, node).any(|(_, pod)| {
        pod.at(&["spec"]).array_at(&["volumes"]).iter().any(|v| {
            let claim = v.str_at(&["persistentVolumeClaim", "claimName"]);
            let claim = if !v.get("ephemeral").is_null() {
                format!("{}-{}", pod.name(), v.str_at(&["name"]))
            } else {
                claim.to_owned()
            };
            let bound = claims.get(&format!("{}/{claim}", pod.namespace())).map(|c| c.object());
            bound.is_some_and(|c| c.str_at(&["spec", "volumeName"]) == volume)
        })
    })
}

fn attachment_of_node(storage: &Storage, node: &str, name: &str) -> bool {
    let cache = storage.cache(TABLE.store("storage.k8s.io", "volumeattachments"));
    cache.get(name).is_some_and(|a| a.object().str_at(&["spec", "nodeName"]) == node)
}
