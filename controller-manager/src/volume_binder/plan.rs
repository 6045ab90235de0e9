//! What happens next to a claim, and to a volume.

use std::sync::Arc;

use api::quantity::Quantity;
use api::selector::LabelSelector;
use api::{Value, object};
use client::events::Kind;
use client::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};

use crate::act::{Action, head};

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

pub(super) fn class_of(object: &Value) -> &str {
    match object.annotation("volume.beta.kubernetes.io/storage-class") {
        Some(class) => class,
        None => object.str_at(&["spec", "storageClassName"]),
    }
}

/// Whether the volume names this claim, with its uid or without one.
pub(super) fn is_reserved_for(volume: &Value, claim: &Value) -> bool {
    let reserved = volume.at(&["spec", "claimRef"]);
    reserved.str_at(&["name"]) == claim.name()
        && reserved.str_at(&["namespace"]) == claim.namespace()
        && matches!(reserved.str_at(&["uid"]), uid if uid.is_empty() || uid == claim.uid())
}

fn amount(value: &Value) -> i64 {
    value.as_str().and_then(|t| t.parse::<Quantity>().ok()).map_or(0, |q| q.units())
}

fn mode(object: &Value) -> &str {
    match object.str_at(&["spec", "volumeMode"]) {
        "" => "Filesystem",
        mode => mode,
    }
}

fn capacity(volume: &Value) -> i64 {
    amount(volume.at(&["spec", "capacity", "storage"]))
}

/// Whether the volume is large enough and of the right mode for the claim.
fn is_sound(volume: &Value, claim: &Value) -> bool {
    let asked = amount(claim.at(&["spec", "resources", "requests", "storage"]));
    capacity(volume) >= asked && mode(volume) == mode(claim) && class_of(volume) == class_of(claim)
}

/// The volume for a claim: one reserved for it, else the smallest that is free and will do.
fn find<'v>(claim: &Value, volumes: &'v [Arc<Value>], delayed: bool) -> Option<&'v Arc<Value>> {
    let reserved = volumes.iter().find(|v| is_reserved_for(v, claim) && is_sound(v, claim));
    if reserved.is_some() || delayed {
        return reserved;
    }
    let selector = LabelSelector::from_object(claim.at(&["spec", "selector"])).ok().flatten();
    let wanted = claim.array_at(&["spec", "accessModes"]);
    let fits = |v: &&Arc<Value>| {
        let modes = v.array_at(&["spec", "accessModes"]);
        v.at(&["spec", "claimRef"]).is_null()
            && v.str_at(&["status", "phase"]) == "Available"
            && !v.is_terminating()
            && is_sound(v, claim)
            && wanted.iter().all(|m| modes.contains(m))
            && selector.as_ref().is_none_or(|s| s.matches_object(v))
    };
    volumes.iter().filter(fits).min_by_key(|v| (capacity(v), v.name().to_owned()))
}

/// What to do about a claim, and whether it waits for others.
pub(super) fn claim(
    claim: &Value,
    volumes: &[Arc<Value>],
    class: Option<&Value>,
    provisioning: bool,
) -> (Vec<Action>, bool) {
    if claim.is_terminating() && claim.str_at(&["spec", "volumeName"]).is_empty() {
        return (Vec::new(), false);
    }
    let named = claim.str_at(&["spec", "volumeName"]);
    if claim.annotation(BIND_COMPLETED).is_some() {
        return (bound(claim, volumes.iter().find(|v| v.name() == named)), false);
    }
    if !named.is_empty() {
        return match volumes.iter().find(|v| v.name() == named) {
            Some(v) if v.at(&["spec", "claimRef"]).is_null() || is_reserved_for(v, claim) => {
                (bind(v, claim), false)
            }
            // Not there yet, or taken by another.
            _ => (pending(claim), true),
        };
    }
    let waits_for_pod = class.is_some_and(|c| c.str_at(&["volumeBindingMode"]) == "WaitForFirstConsumer");
    let delayed = waits_for_pod && claim.annotation(SELECTED_NODE).is_none();
    if let Some(volume) = find(claim, volumes, waits_for_pod) {
        return (bind(volume, claim), false);
    }
    let mut actions = pending(claim);
    let event = |kind, reason, text: String| Action::Event(head(claim), kind, reason, text);
    if delayed {
        let text = "waiting for first consumer to be created before binding";
        actions.push(event(Kind::Normal, "WaitForFirstConsumer", text.to_owned()));
        return (actions, true);
    }
    match class {
        None if class_of(claim).is_empty() => {
            let text = "no persistent volumes available for this claim and no storage class is set";
            actions.push(event(Kind::Normal, "FailedBinding", text.to_owned()));
        }
        None => {
            let text = format!("storageclass.storage.k8s.io {:?} not found", class_of(claim));
            actions.push(event(Kind::Warning, "ProvisioningFailed", text));
        }
        Some(class) if provisioning => actions.extend(provision(claim, class)),
        Some(_) => {}
    }
    (actions, true)
}

/// Asks the class's provisioner for a volume.
fn provision(claim: &Value, class: &Value) -> Vec<Action> {
    let provisioner = class.str_at(&["provisioner"]);
    if provisioner == NO_PROVISIONER {
        return Vec::new();
    }
    let mut actions = Vec::new();
    if claim.annotation(PROVISIONER) != Some(provisioner) {
        let mut asked = claim.clone();
        asked.set(&["metadata", "annotations", PROVISIONER], provisioner);
        asked.set(&["metadata", "annotations", PROVISIONER_BETA], provisioner);
        actions.push(Action::Update(PERSISTENT_VOLUME_CLAIMS, asked));
    }
    let text = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    actions.push(Action::Event(head(claim), Kind::Normal, "ExternalProvisioning", text));
    actions
}

fn pending(claim: &Value) -> Vec<Action> {
    set_phase(claim, "Pending").into_iter().collect()
}

fn set_phase(claim: &Value, phase: &str) -> Option<Action> {
    if claim.str_at(&["status", "phase"]) == phase {
        return None;
    }
    let mut updated = claim.clone();
    updated.set(&["status", "phase"], phase);
    Some(Action::UpdateStatus(PERSISTENT_VOLUME_CLAIMS, updated))
}

/// A claim that was bound: it stays so as long as its volume is there and its own.
fn bound(claim: &Value, volume: Option<&Arc<Value>>) -> Vec<Action> {
    let lost = |reason: &'static str, text: &str| {
        let mut actions: Vec<Action> = set_phase(claim, "Lost").into_iter().collect();
        if !actions.is_empty() {
            actions.push(Action::Event(head(claim), Kind::Warning, reason, text.to_owned()));
        }
        actions
    };
    let Some(volume) = volume else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    if volume.at(&["spec", "claimRef"]).is_null() || is_reserved_for(volume, claim) {
        return bind(volume, claim);
    }
    lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

/// Brings volume and claim together, whatever is missing: the volume first, so that nothing else takes it. Each step may be
/// the last one before a crash.
fn bind(volume: &Value, claim: &Value) -> Vec<Action> {
    let reserved = volume.at(&["spec", "claimRef"]);
    if reserved.str_at(&["uid"]) != claim.uid() {
        let mut updated = volume.clone();
        if reserved.is_null() {
            updated.set(&["metadata", "annotations", BY_CONTROLLER], "yes");
        }
        let reference = object!({
            "kind": "PersistentVolumeClaim", "namespace": (claim.namespace()), "name": (claim.name()),
            "uid": (claim.uid()), "apiVersion": "v1", "resourceVersion": (claim.resource_version()),
        });
        updated.set(&["spec", "claimRef"], reference);
        // The change of the volume brings the claim back here.
        return vec![Action::Update(PERSISTENT_VOLUMES, updated)];
    }
    let mut actions = Vec::new();
    actions.extend(set_volume_phase(volume, "Bound"));
    let named = claim.str_at(&["spec", "volumeName"]) == volume.name();
    if !named || claim.annotation(BIND_COMPLETED).is_none() {
        let mut updated = claim.clone();
        if !named {
            updated.set(&["spec", "volumeName"], volume.name());
            updated.set(&["metadata", "annotations", BY_CONTROLLER], "yes");
        }
        updated.set(&["metadata", "annotations", BIND_COMPLETED], "yes");
        actions.push(Action::Update(PERSISTENT_VOLUME_CLAIMS, updated));
        return actions;
    }
    let modes = volume.at(&["spec", "accessModes"]);
    let grown = claim.at(&["status", "capacity"]);
    let storage = volume.at(&["spec", "capacity", "storage"]);
    if claim.str_at(&["status", "phase"]) != "Bound"
        || claim.at(&["status", "accessModes"]) != modes
        || grown.is_null()
    {
        let mut updated = claim.clone();
        updated.set(&["status", "phase"], "Bound");
        updated.set(&["status", "accessModes"], modes);
        updated.set(&["status", "capacity"], object!({"storage": storage}));
        actions.push(Action::UpdateStatus(PERSISTENT_VOLUME_CLAIMS, updated));
    }
    actions
}

fn set_volume_phase(volume: &Value, phase: &str) -> Option<Action> {
    if volume.str_at(&["status", "phase"]) == phase {
        return None;
    }
    let mut updated = volume.clone();
    updated.set(&["status", "phase"], phase);
    Some(Action::UpdateStatus(PERSISTENT_VOLUMES, updated))
}

/// What to do about a volume; `claim` is what its reference names now.
pub(super) fn volume(volume: &Value, claim: Option<&Value>) -> Vec<Action> {
    let reserved = volume.at(&["spec", "claimRef"]);
    let uid = reserved.str_at(&["uid"]);
    if uid.is_empty() {
        return set_volume_phase(volume, "Available").into_iter().collect();
    }
    match claim.filter(|c| c.uid() == uid) {
        Some(claim) if claim.str_at(&["spec", "volumeName"]) == volume.name() => {
            set_volume_phase(volume, "Bound").into_iter().collect()
        }
        // The claim has not got so far yet.
        Some(claim) if claim.str_at(&["spec", "volumeName"]).is_empty() => Vec::new(),
        Some(_) if volume.annotation(PROVISIONED_BY).is_none() => {
            // The claim took another: this one is free again, unless its user reserved it.
            if volume.annotation(BY_CONTROLLER).is_none() {
                return Vec::new();
            }
            let mut freed = volume.clone();
            freed.remove_at(&["spec", "claimRef"]);
            freed.remove_at(&["metadata", "annotations", BY_CONTROLLER]);
            vec![Action::Update(PERSISTENT_VOLUMES, freed)]
        }
        // Deleting what an external provisioner made is its own task, once the volume is released.
        _ => {
            let mut actions: Vec<Action> = set_volume_phase(volume, "Released").into_iter().collect();
            let policy = volume.str_at(&["spec", "persistentVolumeReclaimPolicy"]);
            let local = volume.annotation(PROVISIONED_BY).is_none();
            if !actions.is_empty() && local && matches!(policy, "Delete" | "Recycle") {
                let text = format!("no plugin can reclaim this volume with policy {policy}");
                actions.push(Action::Event(head(volume), Kind::Warning, "VolumeFailedDelete", text));
            }
            actions
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_claim(class: &str) -> Value {
        object!({
            "metadata": {"namespace": "d", "name": "c", "uid": "cu", "resourceVersion": "1"},
            "spec": {
                "storageClassName": class, "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        })
    }

    fn a_volume(name: &str, class: &str, size: &str) -> Value {
        object!({
            "metadata": {"name": name},
            "spec": {
                "storageClassName": class, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
                "persistentVolumeReclaimPolicy": "Retain",
            },
            "status": {"phase": "Available"},
        })
    }

    /// Runs both sides until neither changes.
    fn settle(c: &mut Value, volumes: &mut [Value], class: Option<&Value>) {
        for _ in 0..20 {
            let shared: Vec<Arc<Value>> = volumes.iter().cloned().map(Arc::new).collect();
            let (mut actions, _) = claim(c, &shared, class, true);
            for v in volumes.iter() {
                let named = v.at(&["spec", "claimRef"]).str_at(&["name"]) == c.name();
                actions.extend(volume(v, named.then_some(&*c)));
            }
            actions.retain(|a| !matches!(a, Action::Event(..)));
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Update(r, o) | Action::UpdateStatus(r, o) if r.kind == "PersistentVolume" => {
                        let at = volumes.iter().position(|v| v.name() == o.name()).unwrap();
                        volumes[at] = o;
                    }
                    Action::Update(_, o) | Action::UpdateStatus(_, o) => *c = o,
                    other => panic!("{other:?}"),
                }
            }
        }
        panic!("never settles");
    }

    #[test]
    fn a_claim_takes_the_smallest_volume_that_will_do() {
        let mut c = a_claim("");
        let mut volumes =
            [a_volume("big", "", "5Gi"), a_volume("small", "", "1Mi"), a_volume("right", "", "1Gi")];
        settle(&mut c, &mut volumes, None);
        assert_eq!(c.str_at(&["spec", "volumeName"]), "right");
        assert_eq!(c.str_at(&["status", "phase"]), "Bound");
        assert_eq!(volumes[2].str_at(&["status", "phase"]), "Bound");
        assert_eq!(volumes[0].str_at(&["status", "phase"]), "Available");
        // The volume outlives its claim.
        let released = volume(&volumes[2], None);
        let [Action::UpdateStatus(_, v)] = &released[..] else { panic!("{released:?}") };
        assert_eq!(v.str_at(&["status", "phase"]), "Released");
    }

    #[test]
    fn a_waiting_claim_is_provisioned_once_its_node_is_known() {
        let class = object!({
            "metadata": {"name": "l"}, "provisioner": "x.io/p", "volumeBindingMode": "WaitForFirstConsumer",
        });
        let mut c = a_claim("l");
        settle(&mut c, &mut [], Some(&class));
        assert_eq!(c.annotation(PROVISIONER), None);
        c.set(&["metadata", "annotations", SELECTED_NODE], "n1");
        settle(&mut c, &mut [], Some(&class));
        assert_eq!(c.annotation(PROVISIONER), Some("x.io/p"));
        // The provisioner makes the volume, reserved for the claim.
        let mut made = a_volume("pvc-cu", "l", "1Gi");
        made.set(&["spec", "claimRef"], object!({"namespace": "d", "name": "c", "uid": "cu"}));
        made.set(&["metadata", "annotations", PROVISIONED_BY], "x.io/p");
        made.set(&["status", "phase"], "Pending");
        let mut volumes = [made];
        settle(&mut c, &mut volumes, Some(&class));
        assert_eq!(c.str_at(&["spec", "volumeName"]), "pvc-cu");
        assert_eq!(c.str_at(&["status", "phase"]), "Bound");
    }

    #[test]
    fn a_claim_without_its_volume_is_lost() {
        let mut c = a_claim("");
        c.set(&["spec", "volumeName"], "gone");
        c.set(&["metadata", "annotations", BIND_COMPLETED], "yes");
        settle(&mut c, &mut [], None);
        assert_eq!(c.str_at(&["status", "phase"]), "Lost");
    }
}
