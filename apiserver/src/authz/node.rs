//! The Node authorizer: a kubelet may read what the pods bound to its node need, and write what is its own.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/node/>.

use std::sync::Arc;

use api::Value;

use super::{Attributes, Decision};
use crate::authn::UserInfo;
use crate::resources::TABLE;
use crate::storage::{Storage, Stored};

/// What every node may do, whatever runs on it: group, resource and verbs.
const EVERY_NODE: &[(&str, &str, &[&str])] = &[
    ("authentication.k8s.io", "tokenreviews", &["create"]),
    ("authorization.k8s.io", "subjectaccessreviews", &["create"]),
    ("authorization.k8s.io", "localsubjectaccessreviews", &["create"]),
    ("", "services", READ),
    ("", "endpoints", &["get"]),
    ("", "events", &["create", "update", "patch"]),
    ("events.k8s.io", "events", &["create", "update", "patch"]),
    ("certificates.k8s.io", "certificatesigningrequests", &["create", "get", "list", "watch"]),
    ("storage.k8s.io", "csidrivers", READ),
    ("node.k8s.io", "runtimeclasses", READ),
];

const READ: &[&str] = &["get", "list", "watch"];
const OWN: &[&str] = &["get", "create", "update", "patch", "delete"];

/// What may be, as far as the question alone tells.
#[derive(Debug, PartialEq)]
enum Answer {
    Yes,
    /// Only when something of the node leads to the object.
    IfRelated,
}

/// The answer, or why not.
type Answered = Result<Answer, String>;

/// A question of a kubelet.
struct Question<'q> {
    node: &'q str,
    what: &'q Attributes<'q>,
}

/// What a kubelet may do.
pub(super) fn authorize(storage: &Storage, user: &UserInfo, what: &Attributes<'_>) -> Decision {
    let Some(node) = user.node_name() else { return Decision::NoOpinion(String::new()) };
    if node.is_empty() {
        return Decision::NoOpinion(format!("unknown node for user {}", api::field::go_quote(&user.name)));
    }
    let question = Question { node, what };
    match question.answer() {
        Ok(Answer::Yes) => Decision::Allow(String::new()),
        Ok(Answer::IfRelated) if what.name.is_empty() => {
            Decision::NoOpinion("No Object name found".to_owned())
        }
        Ok(Answer::IfRelated) if related(storage, node, what) => Decision::Allow(String::new()),
        Ok(Answer::IfRelated) => {
            Decision::NoOpinion(format!("no relationship found between node '{node}' and this object"))
        }
        Err(why) => Decision::NoOpinion(why),
    }
}

/// Refuses with these words unless it is so.
fn must(is_so: bool, why: &str) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(why.to_owned()) }
}

impl Question<'_> {
    fn answer(&self) -> Answered {
        let (what, verb) = (self.what, self.what.verb);
        match (what.group, what.resource) {
            ("", "secrets" | "configmaps") => self.read_of_pods(),
            ("", "persistentvolumeclaims") if what.subresource == "status" => {
                must(matches!(verb, "update" | "patch"), "can only get/update/patch this type")?;
                Ok(Answer::IfRelated)
            }
            ("", "persistentvolumeclaims" | "persistentvolumes")
            | ("resource.k8s.io", "resourceclaims")
            | ("storage.k8s.io", "volumeattachments") => self.get(),
            ("", "serviceaccounts") if verb == "get" && what.subresource.is_empty() => self.read_of_pods(),
            ("", "serviceaccounts") => {
                let one = verb == "create" && !what.name.is_empty();
                must(one, "can only create tokens for individual service accounts")?;
                must(what.subresource == "token", "can only create token subresource of serviceaccount")?;
                Ok(Answer::IfRelated)
            }
            ("coordination.k8s.io", "leases") => self.lease(),
            ("storage.k8s.io", "csinodes") => {
                must(OWN.contains(&verb), "can only get, create, update, patch, or delete a CSINode")?;
                must(what.subresource.is_empty(), "cannot authorize CSINode subresources")?;
                // Whose it is when it is created admission sees.
                let own = verb == "create" || what.name == self.node;
                must(own, "can only access CSINode with the same name as the requesting node")?;
                Ok(Answer::Yes)
            }
            ("resource.k8s.io", "resourceslices") => self.slice(),
            ("", "nodes") => self.own_node(),
            ("", "pods") => self.pod(),
            _ => {
                let combined = what.combined();
                let known = |(g, r, verbs): &(&str, &str, &[&str])| {
                    *g == what.group && *r == combined && verbs.contains(&verb)
                };
                must(EVERY_NODE.iter().any(known), "")?;
                Ok(Answer::Yes)
            }
        }
    }

    /// Reading what pods of the node name.
    fn read_of_pods(&self) -> Answered {
        must(READ.contains(&self.what.verb), "can only read resources of this type")?;
        must(self.what.subresource.is_empty(), "cannot read subresource")?;
        must(!self.what.namespace.is_empty(), "can only read namespaced object of this type")?;
        Ok(Answer::IfRelated)
    }

    fn get(&self) -> Answered {
        must(self.what.verb == "get", "can only get individual resources of this type")?;
        must(self.what.subresource.is_empty(), "cannot get subresource")?;
        Ok(Answer::IfRelated)
    }

    fn lease(&self) -> Answered {
        let verb = self.what.verb;
        must(OWN.contains(&verb), "can only get, create, update, patch, or delete a node lease")?;
        let why = "can only access leases in the \"kube-node-lease\" system namespace";
        must(self.what.namespace == "kube-node-lease", why)?;
        let own = verb == "create" || self.what.name == self.node;
        must(own, "can only access node lease with the same name as the requesting node")?;
        Ok(Answer::Yes)
    }

    fn slice(&self) -> Answered {
        must(self.what.subresource.is_empty(), "cannot authorize ResourceSlice subresources")?;
        match self.what.verb {
            "create" => Ok(Answer::Yes),
            "get" | "update" | "patch" | "delete" => Ok(Answer::IfRelated),
            "watch" | "list" | "deletecollection" => {
                let why = "can only list/watch/deletecollection resourceslices with nodeName field selector";
                must(self.selects("spec.nodeName"), why)?;
                Ok(Answer::Yes)
            }
            _ => Err("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection".to_owned()),
        }
    }

    fn own_node(&self) -> Answered {
        let (node, name) = (self.node, self.what.name);
        match (self.what.subresource, self.what.verb) {
            // Which one it is admission sees.
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(Answer::Yes),
            ("", "get" | "list" | "watch") if name == node => Ok(Answer::Yes),
            ("", "get" | "list" | "watch") if name.is_empty() => {
                Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
            }
            ("", "get" | "list" | "watch") => {
                Err(format!("node '{node}' cannot read '{name}', only its own Node object"))
            }
            _ => Err(String::new()),
        }
    }

    fn pod(&self) -> Answered {
        match (self.what.subresource, self.what.verb) {
            ("", "get") => Ok(Answer::IfRelated),
            ("", "list" | "watch") if self.selects("spec.nodeName") => Ok(Answer::Yes),
            ("", "list" | "watch") if !self.what.name.is_empty() => Ok(Answer::IfRelated),
            ("", "list" | "watch") => {
                Err("can only list/watch pods with spec.nodeName field selector".to_owned())
            }
            // Mirror pods; which ones admission sees.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Ok(Answer::Yes)
            }
            _ => Err(String::new()),
        }
    }

    /// True when only objects are asked for whose `field` is the node.
    fn selects(&self, field: &str) -> bool {
        let fits = |t: &api::selector::FieldTerm| t.equal && t.field == field && t.value == self.node;
        self.what.selectors.fields.iter().any(fits)
    }
}

/// True when something of the node leads to the object.
fn related(storage: &Storage, node: &str, what: &Attributes<'_>) -> bool {
    match (what.resource, what.name) {
        ("persistentvolumes", name) => volumes_of(storage, node).any(|volume| volume == name),
        ("volumeattachments", name) => {
            names_node(storage, ("storage.k8s.io", "volumeattachments"), name, node)
        }
        ("resourceslices", name) => names_node(storage, ("resource.k8s.io", "resourceslices"), name, node),
        ("pods", name) => names_node(storage, ("", "pods"), &format!("{}/{name}", what.namespace), node),
        ("secrets", name) => {
            referenced_by_pod(storage, node, what) || secret_of_volume(storage, node, what.namespace, name)
        }
        _ => referenced_by_pod(storage, node, what),
    }
}

/// True when a pod bound to the node names the object.
fn referenced_by_pod(storage: &Storage, node: &str, what: &Attributes<'_>) -> bool {
    let in_namespace = format!("{}/", what.namespace);
    pods_of(storage, node, &in_namespace).any(|pod| names_object(&pod, what.resource, what.name))
}

/// The pods bound to the node whose keys begin with `prefix`.
fn pods_of(storage: &Storage, node: &str, prefix: &str) -> impl Iterator<Item = Value> {
    let cache = storage.cache(TABLE.store("", "pods"));
    let at = TABLE.find("", "v1", "pods").and_then(|row| row.field_index("spec.nodeName"));
    let snapshot = cache.snapshot();
    let is_here = |s: &&Arc<Stored>| at.and_then(|i| s.fields.get(i)).is_some_and(|n| n == node);
    let bound: Vec<Arc<Stored>> = snapshot.below(prefix).filter(is_here).cloned().collect();
    bound.into_iter().map(|s| s.object())
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
                || is(pod, &["status", "extendedResourceClaimStatus", "resourceClaimName"])
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

/// The volumes that the claims of the node's pods are bound to.
fn volumes_of(storage: &Storage, node: &str) -> impl Iterator<Item = String> {
    let claims = storage.cache(TABLE.store("", "persistentvolumeclaims")).snapshot();
    pods_of(storage, node, "").flat_map(move |pod| {
        let volumes = pod.array_at(&["spec", "volumes"]).iter();
        let names = volumes.filter_map(|v| {
            let claim = match v.get("ephemeral").is_null() {
                true => v.str_at(&["persistentVolumeClaim", "claimName"]).to_owned(),
                false => format!("{}-{}", pod.name(), v.str_at(&["name"])),
            };
            let bound = claims.objects.get(format!("{}/{claim}", pod.namespace()).as_str())?.object();
            Some(bound.str_at(&["spec", "volumeName"]).to_owned()).filter(|name| !name.is_empty())
        });
        names.collect::<Vec<_>>()
    })
}

/// True when a volume of the node's pods needs the secret to be used.
fn secret_of_volume(storage: &Storage, node: &str, namespace: &str, name: &str) -> bool {
    let cache = storage.cache(TABLE.store("", "persistentvolumes"));
    let names_it = |source: &Value| {
        let members = source.as_object().into_iter().flat_map(|m| m.iter());
        let mut references = members.filter(|(field, _)| field.ends_with("ecretRef")).map(|(_, v)| v);
        references.any(|r| r.str_at(&["name"]) == name && r.str_at(&["namespace"]) == namespace)
    };
    let volumes = volumes_of(storage, node).filter_map(|volume| cache.get(&volume)).map(|s| s.object());
    let mut volumes = volumes.into_iter();
    volumes.any(|v| v.get("spec").as_object().into_iter().flat_map(|m| m.values()).any(names_it))
}

/// True when the object at `key` says that it is of the node.
fn names_node(storage: &Storage, (group, plural): (&str, &str), key: &str, node: &str) -> bool {
    let object = storage.cache(TABLE.store(group, plural)).get(key).map(|s| s.object());
    object.is_some_and(|o| o.str_at(&["spec", "nodeName"]) == node)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::authz::Selectors;

    /// Why the node `n` may not, if it may not.
    fn said(what: &Attributes<'_>) -> Option<String> {
        Question { node: "n", what }.answer().err()
    }

    #[test]
    fn a_node_sees_itself_and_its_pods_alone() {
        let nodes = |verb, name| said(&Attributes { verb, resource: "nodes", name, ..Attributes::default() });
        assert_eq!(nodes("get", "n"), None);
        assert_eq!(nodes("create", ""), None);
        assert_eq!(nodes("list", "").unwrap(), "node 'n' cannot read all nodes, only its own Node object");
        assert_eq!(nodes("get", "m").unwrap(), "node 'n' cannot read 'm', only its own Node object");
        let pods = |fields: &str| {
            let selectors = Cow::Owned(Selectors::read(fields, ""));
            said(&Attributes { verb: "watch", resource: "pods", selectors, ..Attributes::default() })
        };
        assert_eq!(pods("spec.nodeName=n,status.phase!=Failed"), None);
        for others in ["", "spec.nodeName=m", "spec.nodeName!=n"] {
            assert_eq!(pods(others).unwrap(), "can only list/watch pods with spec.nodeName field selector");
        }
        let status =
            Attributes { verb: "patch", resource: "pods", subresource: "status", ..Attributes::default() };
        assert_eq!(said(&status), None);
        let secrets = |verb| {
            let what = Attributes { verb, resource: "secrets", namespace: "a", ..Attributes::default() };
            Question { node: "n", what: &what }.answer()
        };
        assert_eq!(secrets("list"), Ok(Answer::IfRelated));
        assert_eq!(secrets("create").unwrap_err(), "can only read resources of this type");
    }

    #[test]
    fn claims_of_a_pod_are_those_that_it_names_or_was_given() {
        let pod = api::object!({
            "spec": {"resourceClaims": [{"name": "a", "resourceClaimName": "direct"}]},
            "status": {
                "resourceClaimStatuses": [{"name": "b", "resourceClaimName": "made"}],
                "extendedResourceClaimStatus": {"resourceClaimName": "extended"},
            },
        });
        for (name, named) in [("direct", true), ("made", true), ("extended", true), ("a", false), ("", false)]
        {
            assert_eq!(names_object(&pod, "resourceclaims", name), named, "{name}");
        }
    }

    #[test]
    fn what_a_node_says_of_itself_bears_its_name() {
        let own = |group, resource, namespace, verb, name| {
            said(&Attributes { verb, group, resource, namespace, name, ..Attributes::default() })
        };
        let lease = |namespace, verb, name| own("coordination.k8s.io", "leases", namespace, verb, name);
        assert_eq!(lease("kube-node-lease", "update", "n"), None);
        assert!(lease("kube-node-lease", "update", "m").unwrap().contains("same name"));
        assert!(lease("default", "update", "n").unwrap().contains("system namespace"));
        assert!(lease("kube-node-lease", "list", "").unwrap().contains("node lease"));
        assert_eq!(own("storage.k8s.io", "csinodes", "", "patch", "n"), None);
        assert!(own("storage.k8s.io", "csinodes", "", "patch", "m").unwrap().contains("CSINode"));
        assert_eq!(own("", "deployments", "", "get", "x").unwrap(), "");
    }
}
