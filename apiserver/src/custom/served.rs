//! Which custom resources are served at the moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Value;
use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{CustomKind, compare_versions, is_true};
use crate::resources::{Resource, Row, TABLE};
use crate::storage::{Cache, Snapshot};

/// A definition whose resource is served.
#[derive(Clone)]
pub struct Definition {
    uid: String,
    generation: i64,
    accepted: Value,
    /// Shown in discovery.
    pub established: bool,
    /// On its way out: nothing is created any more.
    pub terminating: bool,
    /// Revision of the definition.
    pub revision: i64,
    /// The objects.
    pub cache: Arc<Cache>,
    /// The rows of the served versions.
    pub rows: Vec<Row>,
    /// The row of the version that is stored, served or not.
    pub stored: Row,
}

/// Everything that is served.
#[derive(Clone, Default)]
pub struct Served {
    /// Grows whenever what clients can discover changes.
    pub serial: u64,
    /// Revision of the last change of a definition.
    revision: i64,
    /// By name of the definition.
    definitions: BTreeMap<String, Definition>,
}

/// What is served now, to be replaced as a whole.
#[derive(Default)]
pub struct CustomResources {
    served: ArcSwap<Served>,
    published: watch::Sender<()>,
}

impl CustomResources {
    /// What is served now.
    pub fn load(&self) -> Arc<Served> {
        self.served.load_full()
    }

    /// Tells of each time that something else is served. That is later than the definitions' cache tells of its cause.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.published.subscribe()
    }

    /// The row at `group/version/plural`.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Row> {
        self.served.load().find(group, version, plural).cloned()
    }

    /// What is to be served, given these definitions, with the caches that must be filled before; none when nothing
    /// changed.
    pub fn plan(&self, definitions: &Snapshot) -> Option<(Served, Vec<Arc<Cache>>)> {
        let before = self.served.load();
        if before.revision == definitions.revision {
            return None;
        }
        let mut after = Served { revision: definitions.revision, ..Served::default() };
        let mut fresh = Vec::new();
        for (name, stored) in &definitions.objects {
            let known = before.definitions.get(&**name);
            if let Some(same) = known.filter(|d| d.revision == stored.revision) {
                after.definitions.insert(name.to_string(), same.clone());
                continue;
            }
            let Some(definition) = Definition::new(&stored.object(), stored.revision, known, &mut fresh)
            else {
                continue;
            };
            after.definitions.insert(name.to_string(), definition);
        }
        after.serial = before.serial + u64::from(!after.looks_like(&before));
        Some((after, fresh))
    }

    /// Serves `served` from now on; watches of what is not served any more end.
    pub fn publish(&self, served: Served) {
        let before = self.served.swap(Arc::new(served));
        let now = self.served.load();
        for (name, definition) in &before.definitions {
            let kept = now.definitions.get(name).is_some_and(|d| Arc::ptr_eq(&d.cache, &definition.cache));
            if !kept {
                definition.cache.close();
            }
        }
        self.published.send_replace(());
    }
}

impl Definition {
    fn new(object: &Value, revision: i64, known: Option<&Self>, fresh: &mut Vec<Arc<Cache>>) -> Option<Self> {
        let established = is_true(object, "Established");
        if !established && !is_true(object, "NamesAccepted") {
            return None;
        }
        let generation = object.at(&["metadata", "generation"]).as_i64().unwrap_or(0);
        let accepted = object.at(&["status", "acceptedNames"]);
        let same =
            known.filter(|d| d.uid == object.uid() && d.generation == generation && d.accepted == *accepted);
        let (cache, rows, stored) = match same {
            Some(same) => (same.cache.clone(), same.rows.clone(), same.stored.clone()),
            None => {
                let kind = CustomKind::new(object);
                if kind.versions.is_empty() || TABLE.find_any_version(kind.group, kind.plural).is_some() {
                    return None;
                }
                let storage = kind.storage;
                let (cache, rows) = Arc::new(kind).rows(object);
                fresh.push(cache.clone());
                let stored = rows.get(storage)?.clone();
                let served = |r: &Row| r.custom.as_ref().is_some_and(|c| c.version().served);
                (cache, rows.into_iter().filter(served).collect(), stored)
            }
        };
        Some(Self {
            uid: object.uid().to_owned(),
            generation,
            accepted: accepted.clone(),
            established,
            terminating: is_true(object, "Terminating"),
            revision,
            cache,
            rows,
            stored,
        })
    }
}

impl Definition {
    /// The rows as clients discover them: what is going takes no new objects and no changes.
    fn shown(&self) -> Vec<Row> {
        const LEFT: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];
        if !self.terminating {
            return self.rows.clone();
        }
        let limited = |row: &Row| Arc::new(Resource { verbs: LEFT.to_vec(), ..Resource::clone(row) });
        self.rows.iter().map(limited).collect()
    }
}

impl Served {
    /// True when clients can discover the same.
    fn looks_like(&self, other: &Self) -> bool {
        let visible = |s: &Self| -> Vec<(*const Cache, bool)> {
            let established = s.definitions.values().filter(|d| d.established);
            established.map(|d| (Arc::as_ptr(&d.cache), d.terminating)).collect()
        };
        visible(self) == visible(other)
    }

    /// The definition of a resource.
    pub fn definition(&self, group: &str, plural: &str) -> Option<&Definition> {
        self.definitions.get(&format!("{plural}.{group}"))
    }

    /// The row at `group/version/plural`.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Row> {
        self.definition(group, plural)?.rows.iter().find(|r| r.version == version)
    }

    /// The cache of the objects below that prefix.
    pub fn cache(&self, prefix: &str) -> Option<&Arc<Cache>> {
        let (group, plural) = prefix.split_once('/')?;
        self.definition(group, plural).map(|d| &d.cache)
    }

    /// All caches.
    pub fn caches(&self) -> impl Iterator<Item = &Arc<Cache>> {
        self.definitions.values().map(|d| &d.cache)
    }

    /// The rows that clients can discover, in order of group, version and name.
    pub fn rows(&self) -> Vec<Row> {
        let established = self.definitions.values().filter(|d| d.established);
        let mut rows: Vec<Row> = established.flat_map(Definition::shown).collect();
        rows.sort_by(|a, b| {
            a.group
                .cmp(b.group)
                .then_with(|| compare_versions(a.version, b.version))
                .then_with(|| a.plural.cmp(b.plural))
        });
        rows
    }
}

#[cfg(test)]
mod tests {
    use api::object;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn definitions(list: &[(&str, Value, i64)]) -> Snapshot {
        let row = TABLE.find("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap().clone();
        let cache = Cache::new("definitions", row, CancellationToken::new());
        let objects = list
            .iter()
            .map(|(name, object, revision)| {
                let stored = cache.encode(name, &object.to_json(), *revision).unwrap();
                (Arc::from(*name), Arc::new(stored))
            })
            .collect();
        Snapshot { revision: list.iter().map(|l| l.2).max().unwrap_or(0), objects }
    }

    fn widgets(generation: i64, condition: &str, default: i64) -> Value {
        object!({
            "metadata": {"name": "widgets.e.io", "uid": "u", "generation": generation},
            "spec": {
                "group": "e.io", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [
                    {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
                    {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                     "selectableFields": [{"jsonPath": ".spec.n"}],
                     "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
                        "n": {"type": "integer", "default": default}}}}}}},
                    {"name": "v2", "served": false, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
                ],
            },
            "status": {
                "acceptedNames": {"plural": "widgets", "kind": "Widget", "listKind": "WidgetList", "singular": "widget"},
                "conditions": [{"type": condition, "status": "True"}],
            },
        })
    }

    /// Brings what is served up to date; returns how many caches had to be filled.
    fn apply(custom: &CustomResources, list: &[(&str, Value, i64)]) -> usize {
        let Some((served, fresh)) = custom.plan(&definitions(list)) else { return 0 };
        custom.publish(served);
        fresh.len()
    }

    const NAME: &str = "widgets.e.io";

    #[test]
    fn versions_are_served_once_names_are_accepted_and_discovered_once_established() {
        let custom = CustomResources::default();
        assert_eq!(apply(&custom, &[(NAME, widgets(1, "Other", 1), 5)]), 0);
        assert!(custom.find("e.io", "v1", "widgets").is_none());
        assert_eq!(apply(&custom, &[(NAME, widgets(1, "NamesAccepted", 1), 6)]), 1);
        assert!(custom.find("e.io", "v1", "widgets").is_some());
        assert!(custom.find("e.io", "v2", "widgets").is_none(), "it is not served");
        assert!(custom.load().rows().is_empty());
        let serial = custom.load().serial;
        assert_eq!(apply(&custom, &[(NAME, widgets(1, "Established", 1), 7)]), 0, "the cache is kept");
        let versions: Vec<&str> = custom.load().rows().iter().map(|r| r.version).collect();
        assert_eq!(versions, ["v1", "v1beta1"]);
        assert!(custom.load().serial > serial);
        let mut going = widgets(1, "Established", 1);
        let condition = object!({"type": "Terminating", "status": "True"});
        going.at_mut(&["status", "conditions"]).unwrap().make_array().push(condition);
        assert_eq!(apply(&custom, &[(NAME, going, 8)]), 0);
        assert!(!custom.load().rows()[0].serves("create"));
        assert!(custom.load().rows()[0].serves("delete"));
    }

    #[test]
    fn whoever_waits_hears_of_what_is_served_once_it_is() {
        let custom = CustomResources::default();
        let mut published = custom.subscribe();
        assert!(!published.has_changed().unwrap());
        apply(&custom, &[(NAME, widgets(1, "Established", 1), 5)]);
        assert!(published.has_changed().unwrap());
        published.mark_unchanged();
        apply(&custom, &[(NAME, widgets(1, "Established", 1), 5)]);
        assert!(!published.has_changed().unwrap(), "nothing else is served");
    }

    #[test]
    fn watches_end_when_a_definition_changes_or_goes() {
        let custom = CustomResources::default();
        apply(&custom, &[(NAME, widgets(1, "Established", 1), 5)]);
        let cache = |c: &CustomResources| c.load().cache("e.io/widgets").cloned();
        let first = cache(&custom).unwrap();
        assert_eq!(apply(&custom, &[(NAME, widgets(2, "Established", 9), 6)]), 1);
        assert!(first.closed().is_cancelled());
        let second = cache(&custom).unwrap();
        assert!(!second.closed().is_cancelled());
        apply(&custom, &[("x", Value::object(), 7)]);
        assert!(second.closed().is_cancelled() && cache(&custom).is_none());
    }

    #[test]
    fn objects_from_etcd_are_pruned_defaulted_and_selectable() {
        let custom = CustomResources::default();
        apply(&custom, &[(NAME, widgets(1, "Established", 4), 5)]);
        let row = custom.find("e.io", "v1", "widgets").unwrap();
        let own = row.custom.as_ref().unwrap();
        let old = r#"{"apiVersion":"e.io/v1","kind":"Widget","metadata":{"name":"a","namespace":"n","labels":{"a":1}},"spec":{"gone":1}}"#;
        let stored = own.cache.encode("n/a", old.as_bytes(), 9).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&stored.json),
            r#"{"apiVersion":"e.io/v1","kind":"Widget","metadata":{"generation":1,"name":"a","namespace":"n","resourceVersion":"9"},"spec":{"n":4}}"#
        );
        let at = row.field_index("spec.n").unwrap();
        assert_eq!(stored.fields[at], "4");
        let beta = own.kind.at("e.io/v1beta1").unwrap();
        let renamed = own.kind.rename(stored.object(), beta);
        assert_eq!(renamed.api_version(), "e.io/v1beta1");
        assert!(renamed.get("spec").is_null(), "the other version knows no spec");
    }
}
