//! The cache behind an informer: objects by key, and keys by what the indexes make of the objects.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use compact_str::{CompactString, format_compact};
use parking_lot::RwLock;

/// `namespace/name`, or `name` for objects of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(CompactString);

impl Key {
    /// The key of an object.
    pub fn new(namespace: &str, name: &str) -> Self {
        if namespace.is_empty() { Self(name.into()) } else { Self(format_compact!("{namespace}/{name}")) }
    }

    /// The key of an object value.
    pub fn of(object: &api::Value) -> Self {
        Self::new(object.namespace(), object.name())
    }

    /// The namespace; empty for objects of the cluster.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(self.0.as_str(), |(_, name)| name)
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says under which values an object is found in an index.
pub(crate) type IndexFn<T> = Box<dyn Fn(&T) -> Vec<CompactString> + Send + Sync>;

struct Index<T> {
    name: &'static str,
    values: IndexFn<T>,
    keys: HashMap<CompactString, BTreeSet<Key>>,
}

struct Inner<T> {
    objects: HashMap<Key, Arc<T>>,
    indexes: Vec<Index<T>>,
}

/// Objects by key and by index. Reads are snapshots of shared objects.
pub struct Store<T>(RwLock<Inner<T>>);

/// The index by namespace, which every store of namespaced objects has.
pub(crate) const NAMESPACE: &str = "namespace";

impl<T> Store<T> {
    pub(crate) fn new(indexes: Vec<(&'static str, IndexFn<T>)>) -> Self {
        let indexes = indexes.into_iter().map(|(name, values)| Index { name, values, keys: HashMap::new() });
        Self(RwLock::new(Inner { objects: HashMap::new(), indexes: indexes.collect() }))
    }

    /// The object of that key.
    pub fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.0.read().objects.get(key).cloned()
    }

    /// The object of that namespace and name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.get(&Key::new(namespace, name))
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.0.read().objects.values().cloned().collect()
    }

    /// All keys, in no order.
    pub fn keys(&self) -> Vec<Key> {
        self.0.read().objects.keys().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.0.read().objects.len()
    }

    /// True without objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects an index finds under a value, by key.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<T>> {
        let inner = self.0.read();
        let Some(index) = inner.indexes.iter().find(|i| i.name == index) else { return Vec::new() };
        let keys = index.keys.get(value).into_iter().flatten();
        keys.filter_map(|key| inner.objects.get(key).cloned()).collect()
    }

    /// The objects of a namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        self.by_index(NAMESPACE, namespace)
    }

    /// Puts an object in (or takes it out, with none) and returns what was there before.
    pub(crate) fn set(&self, key: &Key, object: Option<Arc<T>>) -> Option<Arc<T>> {
        let inner = &mut *self.0.write();
        let old = match &object {
            Some(new) => inner.objects.insert(key.clone(), Arc::clone(new)),
            None => inner.objects.remove(key),
        };
        for index in &mut inner.indexes {
            let before = old.as_deref().map(&index.values).unwrap_or_default();
            let after = object.as_deref().map(&index.values).unwrap_or_default();
            if before == after {
                continue;
            }
            for value in before {
                if let Some(keys) = index.keys.get_mut(&value) {
                    keys.remove(key);
                    if keys.is_empty() {
                        index.keys.remove(&value);
                    }
                }
            }
            for value in after {
                index.keys.entry(value).or_default().insert(key.clone());
            }
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_follow_their_objects() {
        let by_len: IndexFn<String> = Box::new(|s| vec![s.len().to_string().into()]);
        let store = Store::new(vec![("len", by_len)]);
        let put = |name: &str, text: Option<&str>| {
            store.set(&Key::new("ns", name), text.map(|t| Arc::new(t.to_owned())))
        };
        let found = |n: &str| store.by_index("len", n).iter().map(|s| s.to_string()).collect::<Vec<_>>();
        put("a", Some("x"));
        put("b", Some("y"));
        assert_eq!(found("1"), ["x", "y"]);
        assert_eq!(put("a", Some("xx")).as_deref().map(String::as_str), Some("x"));
        assert_eq!((found("1"), found("2")), (vec!["y".to_owned()], vec!["xx".to_owned()]));
        put("a", None);
        assert!(found("2").is_empty());
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn keys_split_into_namespace_and_name() {
        let key = Key::new("a", "b");
        assert_eq!((key.namespace(), key.name(), key.as_str()), ("a", "b", "a/b"));
        let key = Key::new("", "n");
        assert_eq!((key.namespace(), key.name()), ("", "n"));
    }
}
