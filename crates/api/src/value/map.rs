//! The members of an object.

use std::collections::{HashMap, HashSet};

use compact_str::CompactString;

use super::Value;

/// An object's members, in order; keys are unique.
#[derive(Clone, Debug, Default)]
pub struct Map(Members);

type Member = (CompactString, Value);

/// From here on a scan takes longer than a hash, and an object of a hostile client may have as many members as fit a
/// request: what looks all of them up must not take the square of their number.
const MANY: usize = 64;

#[derive(Clone, Debug)]
enum Members {
    Few(Vec<Member>),
    Many(Box<Indexed>),
}

impl Default for Members {
    fn default() -> Self {
        Members::Few(Vec::new())
    }
}

#[derive(Clone, Debug)]
struct Indexed {
    list: Vec<Member>,
    places: HashMap<CompactString, usize>,
}

impl Indexed {
    fn new(list: Vec<Member>) -> Self {
        let mut indexed = Self { places: HashMap::with_capacity(list.len() * 2), list };
        indexed.find_places();
        indexed
    }

    fn find_places(&mut self) {
        self.places.clear();
        for (at, (key, _)) in self.list.iter().enumerate() {
            self.places.entry(key.clone()).or_insert(at);
        }
    }
}

/// Maps are equal when they hold the same members in any order.
impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(k, v)| other.get(k) == Some(v))
    }
}

impl Map {
    /// An empty map; does not allocate.
    pub const fn new() -> Self {
        Self(Members::Few(Vec::new()))
    }

    /// An empty map with room for `n` members.
    pub fn with_capacity(n: usize) -> Self {
        Self(Members::Few(Vec::with_capacity(n)))
    }

    fn list(&self) -> &[Member] {
        match &self.0 {
            Members::Few(list) => list,
            Members::Many(indexed) => &indexed.list,
        }
    }

    fn list_mut(&mut self) -> &mut [Member] {
        match &mut self.0 {
            Members::Few(list) => list,
            Members::Many(indexed) => &mut indexed.list,
        }
    }

    fn place(&self, key: &str) -> Option<usize> {
        match &self.0 {
            Members::Few(list) => list.iter().position(|(k, _)| k == key),
            Members::Many(indexed) => indexed.places.get(key).copied(),
        }
    }

    /// Changes which members there are or their order.
    fn rearrange(&mut self, change: impl FnOnce(&mut Vec<Member>)) {
        match &mut self.0 {
            Members::Few(list) => change(list),
            Members::Many(indexed) => {
                change(&mut indexed.list);
                indexed.find_places();
            }
        }
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.list().len()
    }

    /// True without members.
    pub fn is_empty(&self) -> bool {
        self.list().is_empty()
    }

    /// The member named `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.place(key).map(|at| &self.list()[at].1)
    }

    /// The member named `key`, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.place(key).map(|at| &mut self.list_mut()[at].1)
    }

    /// True when there is a member named `key`.
    pub fn contains_key(&self, key: &str) -> bool {
        self.place(key).is_some()
    }

    /// Sets `key`, in its place when it is there already, else at the end. Returns the value it replaced.
    pub fn insert(&mut self, key: impl Into<CompactString>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.get_mut(&key) {
            Some(old) => Some(std::mem::replace(old, value)),
            None => {
                self.push(key, value);
                None
            }
        }
    }

    /// Appends a member the caller knows to be absent.
    pub fn push(&mut self, key: impl Into<CompactString>, value: Value) {
        let key = key.into();
        match &mut self.0 {
            Members::Few(list) => {
                list.push((key, value));
                if list.len() > MANY {
                    self.0 = Members::Many(Box::new(Indexed::new(std::mem::take(list))));
                }
            }
            Members::Many(indexed) => {
                indexed.places.entry(key.clone()).or_insert(indexed.list.len());
                indexed.list.push((key, value));
            }
        }
    }

    /// Takes the member named `key` out, keeping the order of the others. See [`Map::remove_all`] for many.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.place(key)?;
        match &mut self.0 {
            Members::Few(list) => Some(list.remove(at).1),
            Members::Many(indexed) => {
                indexed.places.remove(key);
                indexed.places.values_mut().filter(|place| **place > at).for_each(|place| *place -= 1);
                Some(indexed.list.remove(at).1)
            }
        }
    }

    /// Takes members out, keeping the order of the others.
    pub fn remove_all(&mut self, keys: &[CompactString]) {
        if let [key] = keys {
            self.remove(key);
        } else if !keys.is_empty() {
            let keys: HashSet<&str> = keys.iter().map(CompactString::as_str).collect();
            self.retain(|key, _| !keys.contains(key));
        }
    }

    /// The member named `key`, inserted as null when absent.
    pub fn entry(&mut self, key: &str) -> &mut Value {
        let at = self.place(key).unwrap_or_else(|| {
            self.push(key, Value::Null);
            self.len() - 1
        });
        &mut self.list_mut()[at].1
    }

    /// The members in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> + Clone {
        self.list().iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The members in order, values to change.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&str, &mut Value)> {
        self.list_mut().iter_mut().map(|(k, v)| (k.as_str(), v))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.list().iter().map(|(k, _)| k.as_str())
    }

    /// The values in order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Value> + Clone {
        self.list().iter().map(|(_, v)| v)
    }

    /// Keeps the members for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        self.rearrange(|list| list.retain_mut(|(k, v)| keep(k, v)));
    }

    /// Sorts the members by key, as Go prints maps.
    pub fn sort_keys(&mut self) {
        if !self.list().is_sorted_by(|a, b| a.0 <= b.0) {
            self.rearrange(|list| list.sort_by(|a, b| a.0.cmp(&b.0)));
        }
    }

    /// Sorts the members by a rank of their keys; members of equal rank keep their order.
    pub fn sort_by_key<R: Ord>(&mut self, mut rank: impl FnMut(&str) -> R) {
        self.rearrange(|list| list.sort_by_key(|(k, _)| rank(k)));
    }
}

impl IntoIterator for Map {
    type Item = (CompactString, Value);
    type IntoIter = std::vec::IntoIter<Self::Item>;
    fn into_iter(self) -> Self::IntoIter {
        match self.0 {
            Members::Few(list) => list.into_iter(),
            Members::Many(indexed) => indexed.list.into_iter(),
        }
    }
}

impl<K: Into<CompactString>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Self {
        let mut map = Map::new();
        for (key, value) in members {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_members_are_kept_like_few() {
        for n in [3, MANY, MANY + 1, 300] {
            let mut map: Map = (0..n).rev().map(|i| (format!("k{i:03}"), i as i64)).collect();
            map.insert("k001", 7);
            assert_eq!((map.len(), map.get("k001"), map.get("x")), (n, Some(&Value::Int(7)), None));
            map.sort_keys();
            assert_eq!(map.get("k002"), Some(&Value::Int(2)));
            assert_eq!(map.remove("k000"), Some(Value::Int(0)));
            assert_eq!(map.keys().next(), Some("k001"));
            *map.entry("new") = true.into();
            assert_eq!((map.len(), map.get("new")), (n, Some(&Value::Bool(true))));
            map.remove_all(&["k001".into(), "new".into(), "absent".into()]);
            assert_eq!((map.len(), map.get("k002")), (n - 2, Some(&Value::Int(2))));
            let other: Map = map.clone().into_iter().collect::<Vec<_>>().into_iter().rev().collect();
            assert_eq!(map, other);
        }
    }

    #[test]
    fn values_are_no_larger_than_their_largest_variant() {
        assert_eq!((size_of::<Map>(), size_of::<Value>()), (24, 32));
    }
}
