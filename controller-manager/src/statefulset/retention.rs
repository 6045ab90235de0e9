//! `spec.persistentVolumeClaimRetentionPolicy`: what becomes of the claims made for a StatefulSet's pods.
//!
//! Nothing is deleted here. A claim that is to go with the set is owned by the set, one that is to go with a pod which
//! is scaled away by that pod; the garbage collector does the rest.

use api::Value;

use crate::objects::owner_reference;

/// What a claim is held against: its set, the pod it was made for, and whether that pod is to stay.
pub(super) struct Claimed<'v> {
    pub(super) set: &'v Value,
    pub(super) pod: &'v Value,
    pub(super) stays: bool,
}

fn deletes(set: &Value, when: &str) -> bool {
    set.str_at(&["spec", "persistentVolumeClaimRetentionPolicy", when]) == "Delete"
}

fn names(reference: &Value, owner: &Value) -> bool {
    let same = |field: &str, of: &str| reference.str_at(&[field]) == of;
    same("apiVersion", owner.api_version()) && same("kind", owner.kind()) && same("name", owner.name())
}

fn is(reference: &Value, owner: &Value) -> bool {
    reference.str_at(&["uid"]) == owner.uid()
}

/// True for a claim that waits to be deleted with an earlier pod of that name: the next one must not use it.
pub(super) fn is_stale(set: &Value, pod_name: &str, claim: &Value) -> bool {
    deletes(set, "whenScaled")
        && claim.array_at(&["metadata", "ownerReferences"]).iter().any(|r| {
            let names = |field: &str| r.str_at(&[field]);
            (names("apiVersion"), names("kind"), names("name")) == ("v1", "Pod", pod_name)
        })
}

impl Claimed<'_> {
    /// The owner references that a claim should have instead of those it has; none when they are right.
    pub(super) fn owners(&self, claim: &Value) -> Option<Vec<Value>> {
        let references = claim.array_at(&["metadata", "ownerReferences"]);
        let ours = |r: &&Value| names(r, self.set) || names(r, self.pod);
        let of_another =
            |r: &Value| (names(r, self.set) && !is(r, self.set)) || (names(r, self.pod) && !is(r, self.pod));
        if references.iter().any(of_another) {
            // Of an earlier set or pod: the garbage collector's business.
            return None;
        }
        let (gone_with_set, gone_with_pod) =
            (deletes(self.set, "whenDeleted"), deletes(self.set, "whenScaled"));
        let mut wanted: Vec<Value> = references.iter().filter(|r| !ours(r)).cloned().collect();
        let conflict = wanted.iter().any(|r| r.get("controller").as_bool() == Some(true));
        if !conflict {
            if gone_with_pod && !self.stays {
                wanted.push(owner_reference(self.pod));
            } else if gone_with_set {
                wanted.push(owner_reference(self.set));
            }
        }
        let key = |r: &Value| (r.str_at(&["uid"]).to_owned(), r.get("controller").as_bool() == Some(true));
        let sorted = |list: &[Value]| {
            let mut keys: Vec<_> = list.iter().map(key).collect();
            keys.sort();
            keys
        };
        (sorted(references) != sorted(&wanted)).then_some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn owner(kind: &str, name: &str, uid: &str) -> Value {
        let api_version = if kind == "Pod" { "v1" } else { "apps/v1" };
        object!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "uid": uid}})
    }

    fn set(deleted: &str, scaled: &str) -> Value {
        let mut set = owner("StatefulSet", "db", "s");
        let policy = object!({"whenDeleted": deleted, "whenScaled": scaled});
        set.set(&["spec", "persistentVolumeClaimRetentionPolicy"], policy);
        set
    }

    fn claim(owners: Vec<Value>) -> Value {
        object!({"metadata": {"name": "data-db-1", "ownerReferences": owners}})
    }

    #[test]
    fn claims_belong_to_what_they_go_with() {
        let pod = owner("Pod", "db-1", "p");
        for (deleted, scaled, stays, want) in [
            ("Retain", "Retain", true, None),
            ("Retain", "Retain", false, None),
            ("Delete", "Retain", true, Some("s")),
            ("Delete", "Retain", false, Some("s")),
            ("Retain", "Delete", true, None),
            ("Retain", "Delete", false, Some("p")),
            ("Delete", "Delete", true, Some("s")),
            ("Delete", "Delete", false, Some("p")),
        ] {
            let set = set(deleted, scaled);
            let claimed = Claimed { set: &set, pod: &pod, stays };
            let owners = claimed.owners(&claim(Vec::new()));
            let uid = owners.as_ref().map(|o| o[0].str_at(&["uid"]));
            assert_eq!(uid, want, "{deleted} {scaled} {stays}");
            // Once written they are right; the other policy takes them away again.
            if let Some(owners) = owners {
                assert_eq!(claimed.owners(&claim(owners.clone())), None);
                let retain = self::set("Retain", "Retain");
                let back = Claimed { set: &retain, pod: &pod, stays }.owners(&claim(owners));
                assert_eq!(back, Some(Vec::new()));
            }
        }
    }

    #[test]
    fn references_of_others_are_kept() {
        let (set, pod) = (set("Delete", "Delete"), owner("Pod", "db-1", "p"));
        let claimed = Claimed { set: &set, pod: &pod, stays: true };
        let other = owner_reference(&owner("Backup", "b", "o"));
        assert_eq!(claimed.owners(&claim(vec![other])), None, "another controls it");
        let earlier = owner_reference(&owner("Pod", "db-1", "before"));
        assert_eq!(claimed.owners(&claim(vec![earlier.clone()])), None, "it goes with an earlier pod");
        assert!(is_stale(&set, "db-1", &claim(vec![earlier])));
        assert!(!is_stale(&set, "db-1", &claim(Vec::new())));
    }
}
