//! Who owns whom: the graph of all objects, by uid.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use api::Value;
use client::Resource;
use compact_str::CompactString;

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// What the graph keeps of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) uid: CompactString,
    pub(super) namespace: CompactString,
    pub(super) name: CompactString,
    pub(super) owners: Vec<Owner>,
    pub(super) terminating: bool,
    pub(super) foreground: bool,
    pub(super) orphan: bool,
}

/// An owner reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: CompactString,
    pub(super) api_version: CompactString,
    pub(super) kind: CompactString,
    pub(super) name: CompactString,
    /// The owner may not go before this one does.
    pub(super) blocks: bool,
}

impl Meta {
    pub(super) fn of(object: &Value) -> Self {
        let has = |name: &str| {
            object.array_at(&["metadata", "finalizers"]).iter().any(|f| f.as_str() == Some(name))
        };
        let owners = object.array_at(&["metadata", "ownerReferences"]).iter().map(|o| Owner {
            uid: o.str_at(&["uid"]).into(),
            api_version: o.api_version().into(),
            kind: o.kind().into(),
            name: o.str_at(&["name"]).into(),
            blocks: o.get("blockOwnerDeletion").as_bool() == Some(true),
        });
        Self {
            uid: object.uid().into(),
            namespace: object.namespace().into(),
            name: object.name().into(),
            owners: owners.collect(),
            terminating: object.is_terminating(),
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
        }
    }

    /// Waits for its dependents to go.
    pub(super) fn deletes_dependents(&self) -> bool {
        self.terminating && self.foreground
    }
}

/// All objects.
#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<CompactString, (Resource, Arc<Meta>)>,
    /// By owner; owners that are not (yet) known have entries too.
    dependents: HashMap<CompactString, BTreeSet<CompactString>>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<(Resource, Arc<Meta>)> {
        self.nodes.get(uid).cloned()
    }

    /// The known objects that name this owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<(Resource, Arc<Meta>)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|u| self.nodes.get(u).cloned()).collect()
    }

    /// Puts an object in. Returns the uids to look at.
    pub(super) fn set(&mut self, resource: &Resource, meta: Arc<Meta>) -> Vec<CompactString> {
        let mut affected = Vec::new();
        let old = self.nodes.insert(meta.uid.clone(), (resource.clone(), Arc::clone(&meta)));
        let before: Vec<Owner> = old.as_ref().map(|(_, m)| m.owners.clone()).unwrap_or_default();
        for owner in before.iter().filter(|o| !meta.owners.iter().any(|n| n.uid == o.uid)) {
            self.unlink(&owner.uid, &meta.uid);
        }
        for owner in &meta.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(meta.uid.clone());
        }
        let owners_changed = before != meta.owners;
        let unknown_owner = meta.owners.iter().any(|o| !self.nodes.contains_key(&o.uid));
        let started = old.is_none_or(|(_, m)| !m.terminating) && meta.terminating;
        if (owners_changed && unknown_owner)
            || (meta.terminating && (meta.foreground || meta.orphan))
            || (owners_changed && self.any_owner_leaving(&meta))
        {
            affected.push(meta.uid.clone());
        }
        // An owner that waits for its dependents may have one less to wait for.
        if owners_changed || started {
            affected.extend(before.iter().filter(|o| self.leaving(&o.uid)).map(|o| o.uid.clone()));
        }
        affected
    }

    fn leaving(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|(_, m)| m.deletes_dependents())
    }

    fn any_owner_leaving(&self, meta: &Meta) -> bool {
        meta.owners.iter().any(|o| self.leaving(&o.uid))
    }

    fn unlink(&mut self, owner: &CompactString, dependent: &CompactString) {
        if let Some(set) = self.dependents.get_mut(owner) {
            set.remove(dependent);
            if set.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// Takes an object out. Returns the uids to look at: its dependents, and owners that wait for it.
    pub(super) fn removed(&mut self, uid: &CompactString) -> Vec<CompactString> {
        let mut affected: Vec<CompactString> =
            self.dependents.get(uid).into_iter().flatten().cloned().collect();
        if let Some((_, meta)) = self.nodes.remove(uid) {
            for owner in &meta.owners {
                self.unlink(&owner.uid, uid);
                if self.leaving(&owner.uid) {
                    affected.push(owner.uid.clone());
                }
            }
        }
        affected
    }

    /// Takes all objects of a resource out that is no longer served.
    pub(super) fn forget(&mut self, resource: &Resource) {
        let gone: Vec<CompactString> =
            self.nodes.iter().filter(|(_, (r, _))| r == resource).map(|(u, _)| u.clone()).collect();
        for uid in gone {
            self.removed(&uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;
    use client::resource::{PODS, REPLICA_SETS};

    fn meta(uid: &str, owners: &[&str], finalizer: Option<&str>) -> Arc<Meta> {
        let owners: Vec<Value> =
            owners.iter().map(|u| object!({"uid": (*u), "blockOwnerDeletion": true})).collect();
        let mut object = object!({"metadata": {"uid": uid, "name": uid, "ownerReferences": owners}});
        if let Some(finalizer) = finalizer {
            object.set(&["metadata", "finalizers"], vec![finalizer]);
            object.set(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        }
        Arc::new(Meta::of(&object))
    }

    #[test]
    fn what_must_be_looked_at_is_named() {
        let mut graph = Graph::default();
        assert!(graph.set(&REPLICA_SETS, meta("set", &[], None)).is_empty());
        assert!(graph.set(&PODS, meta("pod", &["set"], None)).is_empty(), "its owner exists");
        assert_eq!(graph.set(&PODS, meta("lost", &["nobody"], None)), ["lost"]);
        assert_eq!(graph.set(&REPLICA_SETS, meta("set", &[], Some(FOREGROUND))), ["set"]);
        assert_eq!(graph.removed(&"pod".into()), ["set"], "the set waits for it");
        graph.set(&PODS, meta("pod", &["set"], None));
        assert_eq!(graph.removed(&"set".into()), ["pod"]);
        assert_eq!(graph.dependents("nobody").len(), 1);
    }
}
