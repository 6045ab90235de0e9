//! Claims and volumes: where bound ones can be reached, and what to do about claims that wait for their first consumer.

use std::sync::Arc;

use api::quantity::Quantity;
use api::selector::LabelSelector;
use api::{Value, object};
use client::{Informer, Key};
use placement::{NodeView, Term};

use crate::cluster::Cluster;

const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// The caches that decisions about volumes are made from.
#[derive(Clone)]
pub(crate) struct Volumes {
    pub(crate) claims: Informer<Value>,
    pub(crate) volumes: Informer<Value>,
    pub(crate) classes: Informer<Value>,
}

/// The claims of a pod, looked up once.
#[derive(Default)]
pub(crate) struct Claims {
    bound: Vec<Option<Arc<Value>>>,
    waiting: Vec<Waiting>,
    available: Vec<Arc<Value>>,
}

struct Waiting {
    claim: Arc<Value>,
    class: Option<Arc<Value>>,
}

/// What to do about a waiting claim once the node is chosen.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// Bind this volume to it.
    Bind(Arc<Value>, Arc<Value>),
    /// Ask for one to be made for the node.
    Provision(Arc<Value>),
}

/// Whether a claim is bound for good.
pub(crate) fn is_bound(claim: &Value) -> bool {
    !claim.str_at(&["spec", "volumeName"]).is_empty() && claim.annotation(BIND_COMPLETED).is_some()
}

impl Volumes {
    /// Looks up a pod's claims. The error is why the pod can go nowhere yet.
    pub(crate) fn of(&self, namespace: &str, names: &[compact_str::CompactString]) -> Result<Claims, String> {
        let mut found = Claims::default();
        for name in names {
            let Some(claim) = self.claims.store().find(namespace, name) else {
                return Err(format!("persistentvolumeclaim {name:?} not found"));
            };
            if claim.is_terminating() {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            if claim.str_at(&["status", "phase"]) == "Lost" {
                let volume = claim.str_at(&["spec", "volumeName"]);
                return Err(format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                ));
            }
            if is_bound(&claim) {
                found.bound.push(self.volumes.store().find("", claim.str_at(&["spec", "volumeName"])));
                continue;
            }
            let class = self.classes.store().find("", class_of(&claim));
            let waits =
                class.as_ref().is_some_and(|c| c.str_at(&["volumeBindingMode"]) == "WaitForFirstConsumer");
            if !waits || !claim.str_at(&["spec", "volumeName"]).is_empty() {
                return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
            found.waiting.push(Waiting { claim, class });
        }
        if !found.waiting.is_empty() {
            let free = |v: &Arc<Value>| v.str_at(&["status", "phase"]) == "Available";
            found.available = self.volumes.store().list().into_iter().filter(free).collect();
            // The smallest that will do is taken.
            found.available.sort_by_cached_key(|v| (capacity(v), v.name().to_owned()));
        }
        Ok(found)
    }
}

pub(crate) fn class_of(object: &Value) -> &str {
    match object.annotation("volume.beta.kubernetes.io/storage-class") {
        Some(class) => class,
        None => object.str_at(&["spec", "storageClassName"]),
    }
}

fn amount(value: &Value) -> i64 {
    value.as_str().and_then(|t| t.parse::<Quantity>().ok()).map_or(0, |q| q.units())
}

fn capacity(volume: &Value) -> i64 {
    amount(volume.at(&["spec", "capacity", "storage"]))
}

/// Whether the volume can be reached from the node.
fn reaches(volume: &Value, node: &NodeView) -> bool {
    let required = volume.at(&["spec", "nodeAffinity", "required"]);
    required.is_null() || Term::all(required).iter().any(|t| t.matches(node))
}

/// Whether the volume is what the claim asks for.
fn satisfies(volume: &Value, claim: &Value) -> bool {
    let mode = |o: &Value| match o.str_at(&["spec", "volumeMode"]) {
        "" => "Filesystem".to_owned(),
        mode => mode.to_owned(),
    };
    let modes = volume.array_at(&["spec", "accessModes"]);
    let reserved = volume.at(&["spec", "claimRef"]);
    let ours = reserved.str_at(&["namespace"]) == claim.namespace()
        && reserved.str_at(&["name"]) == claim.name()
        && matches!(reserved.str_at(&["uid"]), uid if uid.is_empty() || uid == claim.uid());
    let selector = LabelSelector::from_object(claim.at(&["spec", "selector"])).ok().flatten();
    (reserved.is_null() || ours)
        && !volume.is_terminating()
        && class_of(volume) == class_of(claim)
        && mode(volume) == mode(claim)
        && capacity(volume) >= amount(claim.at(&["spec", "resources", "requests", "storage"]))
        && claim.array_at(&["spec", "accessModes"]).iter().all(|m| modes.contains(m))
        && selector.is_none_or(|s| s.matches_object(volume))
}

impl Claims {
    /// What to do about the claims when the pod goes to this node, or why it cannot.
    pub(crate) fn on_node(
        &self,
        node: &NodeView,
        cluster: &Cluster,
        pod: &Key,
    ) -> Result<Vec<Choice>, &'static str> {
        for volume in &self.bound {
            match volume {
                None => return Err(NO_VOLUME),
                Some(volume) if !reaches(volume, node) => return Err(NODE_CONFLICT),
                Some(_) => {}
            }
        }
        let mut choices: Vec<Choice> = Vec::new();
        for waiting in &self.waiting {
            let taken = |v: &Value| {
                cluster.promised.get(v.name()).is_some_and(|by| by != pod)
                    || choices.iter().any(|c| matches!(c, Choice::Bind(_, o) if o.name() == v.name()))
            };
            let fit =
                self.available.iter().find(|v| satisfies(v, &waiting.claim) && reaches(v, node) && !taken(v));
            let selected = waiting.claim.annotation(SELECTED_NODE).filter(|n| !n.is_empty());
            let choice = match fit {
                Some(volume) if selected.is_none() => {
                    Choice::Bind(Arc::clone(&waiting.claim), Arc::clone(volume))
                }
                _ if selected.is_some_and(|n| n != node.name) => return Err(BIND_CONFLICT),
                _ if waiting.provisionable(node) => Choice::Provision(Arc::clone(&waiting.claim)),
                _ => return Err(BIND_CONFLICT),
            };
            choices.push(choice);
        }
        Ok(choices)
    }
}

impl Waiting {
    fn provisionable(&self, node: &NodeView) -> bool {
        let Some(class) = &self.class else { return false };
        let provisioner = class.str_at(&["provisioner"]);
        if provisioner.is_empty() || provisioner == NO_PROVISIONER {
            return false;
        }
        let topologies = class.array_at(&["allowedTopologies"]);
        let allowed = |term: &Value| {
            term.array_at(&["matchLabelExpressions"]).iter().all(|e| {
                let value = node.labels.get(e.str_at(&["key"]));
                value.is_some_and(|v| e.array_at(&["values"]).iter().any(|x| x.as_str() == Some(v)))
            })
        };
        topologies.is_empty() || topologies.iter().any(allowed)
    }
}

/// The volume, promised to the claim.
pub(crate) fn promised(volume: &Value, claim: &Value) -> Value {
    let mut volume = volume.clone();
    let reference = object!({
        "kind": "PersistentVolumeClaim", "namespace": (claim.namespace()), "name": (claim.name()),
        "uid": (claim.uid()), "apiVersion": "v1", "resourceVersion": (claim.resource_version()),
    });
    if volume.at(&["spec", "claimRef"]).is_null() {
        volume.set(&["metadata", "annotations", "pv.kubernetes.io/bound-by-controller"], "yes");
    }
    volume.set(&["spec", "claimRef"], reference);
    volume
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::node;

    fn claim(class: &str, size: &str) -> Arc<Value> {
        Arc::new(object!({
            "metadata": {"namespace": "d", "name": "data", "uid": "c"},
            "spec": {
                "storageClassName": class, "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": size}},
            },
        }))
    }

    fn volume(name: &str, class: &str, size: &str, host: &str) -> Arc<Value> {
        Arc::new(object!({
            "metadata": {"name": name},
            "spec": {
                "storageClassName": class, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "host", "operator": "In", "values": [host]}]},
                ]}},
            },
            "status": {"phase": "Available"},
        }))
    }

    fn class(provisioner: &str) -> Option<Arc<Value>> {
        Some(Arc::new(object!({"provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"})))
    }

    #[test]
    fn bound_volumes_tie_a_pod_to_their_nodes() {
        let claims = Claims { bound: vec![Some(volume("v", "l", "1Gi", "n1"))], ..Claims::default() };
        let at = |name: &str| {
            let view = node(name, object!({"host": name}));
            claims.on_node(&view, &Cluster::default(), &Key::new("d", "p")).err()
        };
        assert_eq!(at("n1"), None);
        assert_eq!(at("n2"), Some(NODE_CONFLICT));
    }

    #[test]
    fn a_waiting_claim_takes_a_fitting_volume_or_asks_for_one() {
        let check = |provisioner: &str, volumes: Vec<Arc<Value>>, want: &str| {
            let claims = Claims {
                waiting: vec![Waiting { claim: claim("l", "1Gi"), class: class(provisioner) }],
                available: volumes,
                ..Claims::default()
            };
            let view = node("n1", object!({"host": "n1"}));
            let got = match claims.on_node(&view, &Cluster::default(), &Key::new("d", "p")) {
                Ok(choices) => match &choices[..] {
                    [Choice::Bind(_, v)] => v.name().to_owned(),
                    [Choice::Provision(_)] => "provision".to_owned(),
                    other => format!("{other:?}"),
                },
                Err(e) => e.to_owned(),
            };
            assert_eq!(got, want);
        };
        let (small, far) = (volume("small", "l", "1Mi", "n1"), volume("far", "l", "1Gi", "n2"));
        let (other, right) = (volume("other", "x", "1Gi", "n1"), volume("right", "l", "2Gi", "n1"));
        check(NO_PROVISIONER, vec![small.clone(), far.clone(), other, right], "right");
        check(NO_PROVISIONER, vec![small.clone(), far.clone()], BIND_CONFLICT);
        check("rancher.io/local-path", vec![small, far], "provision");
    }
}
