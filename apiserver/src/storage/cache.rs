//! The watch cache of one resource: the current objects as a persistent map, and a bounded log of changes.
//!
//! One writer (the feed) publishes whole revisions; readers take a snapshot and never wait. A watcher is a cursor into
//! the log, not a queue: it costs nothing while nothing happens, and one that falls off the end is told so.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use api::Value;
use arc_swap::ArcSwap;
use bytes::Bytes;
use compact_str::CompactString;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::bell::Bell;
use super::form;
use super::labels::{Labels, Sieve};
use crate::resources::Resource;

/// Bounds of the log of changes.
const LOG_BYTES: usize = 16 << 20;
const LOG_EVENTS: usize = 20_000;

/// An object as it is served, encoded once.
pub struct Stored {
    /// `namespace/name`, or `name`.
    pub key: Arc<str>,
    /// Revision of the last change.
    pub revision: i64,
    /// The object as JSON in its storage version, with its resourceVersion.
    pub json: Bytes,
    /// Its labels.
    pub labels: Labels,
    /// Values of the resource's selectable fields, in their order.
    pub fields: Box<[CompactString]>,
}

/// The objects of a resource in order of key.
pub(super) type Objects = imbl::OrdMap<Arc<str>, Held>;

/// An object in its place: a list by label need not follow the pointer of what it leaves out.
#[derive(Clone)]
pub struct Held {
    /// What its labels say, in short.
    pub sieve: Sieve,
    stored: Arc<Stored>,
}

impl From<Arc<Stored>> for Held {
    fn from(stored: Arc<Stored>) -> Self {
        Self { sieve: stored.labels.sieve(), stored }
    }
}

impl Deref for Held {
    type Target = Arc<Stored>;

    fn deref(&self) -> &Arc<Stored> {
        &self.stored
    }
}

/// All objects of a resource at one moment.
#[derive(Clone)]
pub struct Snapshot {
    /// Revision of the last change among them.
    pub revision: i64,
    /// The objects.
    pub objects: Objects,
}

impl Snapshot {
    /// The objects whose keys begin with `prefix`.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Stored>> {
        let from = self.objects.range(Arc::<str>::from(prefix)..);
        from.map(|(_, held)| &**held).take_while(move |stored| stored.key.starts_with(prefix))
    }
}

/// One change. With `new` alone it is a creation, with `old` alone a deletion.
#[derive(Clone)]
pub struct Event {
    /// Revision of the change.
    pub revision: i64,
    /// The object after it.
    pub new: Option<Arc<Stored>>,
    /// The object before it.
    pub old: Option<Arc<Stored>>,
    /// For a deletion: the last state, with the revision of the deletion.
    pub last: Option<Arc<Stored>>,
}

/// What a watcher got when it asked for more.
pub enum Waited {
    /// The next events, at least one.
    Events(Vec<Event>),
    /// Nothing yet.
    Nothing,
    /// The watcher's position is older than the log.
    TooOld,
}

struct Log {
    events: VecDeque<Event>,
    bytes: usize,
    /// Watching is possible from this revision on.
    start: i64,
}

/// How the objects of a cache are read, and which of their fields are kept for selectors.
pub trait Reading: Send + Sync {
    /// The object as it is kept, from what etcd holds; none when that is no object.
    fn read(&self, bytes: &[u8]) -> Option<Value>;

    /// What etcd is to hold of an object.
    fn write(&self, object: &Value) -> Vec<u8>;

    /// True when what these bytes hold would be written in another form, although it is read as the same object.
    fn is_outdated(&self, _: &[u8]) -> bool {
        false
    }

    /// Values of the selectable fields, in their order.
    fn fields(&self, object: &Value) -> Box<[CompactString]>;

    /// Group and plural.
    fn resource(&self) -> (&str, &str);
}

impl Reading for Resource {
    fn read(&self, bytes: &[u8]) -> Option<Value> {
        form::read(self, bytes)
    }

    fn write(&self, object: &Value) -> Vec<u8> {
        form::write(self, object)
    }

    fn is_outdated(&self, bytes: &[u8]) -> bool {
        form::is_outdated(self, bytes)
    }

    fn fields(&self, object: &Value) -> Box<[CompactString]> {
        self.strategy.fields.iter().map(|f| f.value_of(object)).collect()
    }

    fn resource(&self) -> (&str, &str) {
        (self.group, self.plural)
    }
}

/// Keys of what cannot be decrypted, and why.
pub(super) type Unreadable = BTreeMap<Arc<str>, String>;

/// The watch cache of one resource.
pub struct Cache {
    /// Prefix of its keys in etcd, below the prefix of the cluster.
    pub prefix: Box<str>,
    reading: Arc<dyn Reading>,
    closed: CancellationToken,
    /// Revision at which it was loaded.
    loaded: AtomicI64,
    snapshot: ArcSwap<Snapshot>,
    log: RwLock<Log>,
    /// Objects that cannot be decrypted, and why.
    unreadable: RwLock<Unreadable>,
    changed: Bell,
    /// What has been done.
    pub counts: Counts,
}

/// How often something was done with a cache since it was made.
#[derive(Default)]
pub struct Counts {
    /// It was filled anew.
    pub fillings: AtomicU64,
    /// A change was published.
    pub events: AtomicU64,
    /// A list was read.
    pub lists: AtomicU64,
    /// An object was looked at for a list.
    pub fetched: AtomicU64,
    /// An object became part of a list.
    pub returned: AtomicU64,
}

impl Counts {
    /// Notes a list of `returned` objects, for which `fetched` were looked at.
    pub fn list(&self, fetched: usize, returned: usize) {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.fetched.fetch_add(fetched as u64, Ordering::Relaxed);
        self.returned.fetch_add(returned as u64, Ordering::Relaxed);
    }
}

impl Cache {
    /// An empty cache of the objects below `prefix`; watches of it end when it is closed.
    pub fn new(prefix: &str, reading: Arc<dyn Reading>, closed: CancellationToken) -> Self {
        Self {
            prefix: prefix.into(),
            reading,
            closed,
            loaded: AtomicI64::new(0),
            snapshot: ArcSwap::from_pointee(Snapshot { revision: 0, objects: Objects::new() }),
            log: RwLock::new(Log { events: VecDeque::new(), bytes: 0, start: i64::MAX }),
            unreadable: RwLock::default(),
            changed: Bell::new(),
            counts: Counts::default(),
        }
    }

    /// Ends all watches: the resource is not served any more, or in another form.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Cancelled when the cache is closed.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// The current objects.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The object at `key`.
    pub fn get(&self, key: &str) -> Option<Arc<Stored>> {
        self.snapshot.load().objects.get(key).map(|held| held.stored.clone())
    }

    /// Wakes when the cache has changed.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The first revision that can be watched from.
    pub fn oldest(&self) -> i64 {
        self.log.read().start
    }

    /// At most `limit` changes after `revision`, whole revisions only.
    pub fn after(&self, revision: i64, limit: usize) -> Waited {
        let log = self.log.read();
        if revision < log.start {
            return Waited::TooOld;
        }
        let from = log.events.partition_point(|e| e.revision <= revision);
        let mut events: Vec<Event> = Vec::new();
        for e in log.events.iter().skip(from) {
            if events.len() >= limit && events.last().is_some_and(|l| l.revision != e.revision) {
                break;
            }
            events.push(e.clone());
        }
        if events.is_empty() { Waited::Nothing } else { Waited::Events(events) }
    }

    /// The objects as they were at `revision`, by undoing later changes; none when the log does not reach back.
    pub fn at(&self, revision: i64) -> Option<Snapshot> {
        let log = self.log.read();
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        if snapshot.revision <= revision {
            return Some(snapshot);
        }
        if revision < log.start {
            return None;
        }
        for e in log.events.iter().rev().take_while(|e| e.revision > revision) {
            match (&e.old, &e.new) {
                (Some(old), _) => {
                    snapshot.objects.insert(old.key.clone(), old.clone().into());
                }
                (None, Some(new)) => {
                    snapshot.objects.remove(&new.key);
                }
                (None, None) => {}
            }
        }
        snapshot.revision = revision;
        Some(snapshot)
    }

    /// Group and plural of the resource.
    pub fn resource(&self) -> (&str, &str) {
        self.reading.resource()
    }

    /// Why the object at `key` cannot be read, if it cannot.
    pub fn unreadable(&self, key: &str) -> Option<String> {
        self.unreadable.read().get(key).cloned()
    }

    /// The first of the keys that begin with `prefix` whose object cannot be read, and why.
    pub fn first_unreadable(&self, prefix: &str) -> Option<(Arc<str>, String)> {
        let all = self.unreadable.read();
        let first = all.iter().find(|(key, _)| key.starts_with(prefix));
        first.map(|(key, why)| (key.clone(), why.clone()))
    }

    /// Forgets an object that cannot be read any more; watchers start again.
    pub(super) fn lose(&self, key: &str, why: String, revision: i64) {
        if revision <= self.loaded.load(Ordering::Acquire) {
            return;
        }
        let mut objects = self.snapshot().objects.clone();
        objects.remove(key);
        let mut unreadable = self.unreadable.read().clone();
        unreadable.insert(key.into(), why);
        self.load(objects, unreadable, revision);
    }

    /// Replaces everything by what was read at `revision`; watchers from before start again.
    pub(super) fn load(&self, objects: Objects, unreadable: Unreadable, revision: i64) {
        *self.unreadable.write() = unreadable;
        self.counts.fillings.fetch_add(1, Ordering::Relaxed);
        {
            let mut log = self.log.write();
            log.events.clear();
            log.bytes = 0;
            log.start = revision;
            self.loaded.store(revision, Ordering::Release);
            self.snapshot.store(Arc::new(Snapshot { revision, objects }));
        }
        self.changed.ring();
    }

    /// Publishes the changes of one revision.
    pub(super) fn publish(&self, changes: Vec<(Arc<str>, Option<Arc<Stored>>)>, revision: i64) {
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        if revision <= self.loaded.load(Ordering::Acquire) {
            // The cache was loaded at a later moment than the others.
            return;
        }
        snapshot.revision = revision;
        self.counts.events.fetch_add(changes.len() as u64, Ordering::Relaxed);
        {
            let mut log = self.log.write();
            let mut unreadable = self.unreadable.write();
            for (key, new) in changes {
                unreadable.remove(&key);
                let old = match &new {
                    Some(new) => snapshot.objects.insert(key, new.clone().into()),
                    None => snapshot.objects.remove(&key),
                };
                let old = old.map(|held| held.stored);
                let last = match (&new, &old) {
                    (None, Some(old)) => Some(Arc::new(self.tombstone(old, revision))),
                    (None, None) => continue,
                    _ => None,
                };
                log.push(Event { revision, new, old, last });
            }
            self.snapshot.store(Arc::new(snapshot));
        }
        self.changed.ring();
    }

    fn tombstone(&self, old: &Stored, revision: i64) -> Stored {
        self.encode(&old.key, &old.json, revision).unwrap_or_else(|| Stored {
            key: old.key.clone(),
            revision,
            json: old.json.clone(),
            labels: old.labels.clone(),
            fields: old.fields.clone(),
        })
    }

    /// Encodes what etcd holds at `key`; none when the bytes are no object.
    pub fn encode(&self, key: &str, bytes: &[u8], revision: i64) -> Option<Stored> {
        Some(self.stored(key, &self.read(bytes, revision)?, revision))
    }

    /// The object that etcd holds as `bytes`; none when these are no object.
    pub fn read(&self, bytes: &[u8], revision: i64) -> Option<Value> {
        let mut object = self.reading.read(bytes)?;
        set_resource_version(&mut object, revision);
        Some(object)
    }

    /// Whether `bytes` are read as this object, member by member in the same order.
    pub(super) fn reads_as(&self, bytes: &[u8], object: &Value) -> bool {
        self.reading.read(bytes).is_some_and(|read| read.to_json() == object.to_json())
    }

    /// What etcd is to hold of an object.
    pub fn write(&self, object: &Value) -> Vec<u8> {
        self.reading.write(object)
    }

    /// True when what etcd holds would be written in another form now.
    pub fn is_outdated(&self, bytes: &[u8]) -> bool {
        self.reading.is_outdated(bytes)
    }

    /// Encodes an object that has its resourceVersion already.
    pub fn stored(&self, key: &str, object: &Value, revision: i64) -> Stored {
        Stored {
            key: key.into(),
            revision,
            json: object.to_json().into(),
            labels: Labels::of(object),
            fields: self.reading.fields(object),
        }
    }
}

impl Stored {
    /// The object as a tree.
    pub fn object(&self) -> Value {
        form::json(&self.json).unwrap_or_default()
    }

    /// False when the object certainly has no such text, as it is written in JSON: most that is asked of the objects that
    /// every request meets is answered by that.
    pub fn may_say(&self, text: &str) -> bool {
        memchr::memmem::find(&self.json, text.as_bytes()).is_some()
    }

    /// The value of the label `key`.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key)
    }
}

/// Sets `metadata.resourceVersion` where upstream prints it: after the uid.
pub fn set_resource_version(object: &mut Value, revision: i64) {
    let metadata = object.make_object().entry("metadata").make_object();
    let known = metadata.contains_key("resourceVersion");
    // Custom resources have their members in order of name.
    let sorted = metadata.keys().is_sorted();
    metadata.insert("resourceVersion", revision.to_string());
    if !known && sorted {
        metadata.sort_keys();
    } else if !known {
        const BEFORE: [&str; 5] = ["name", "generateName", "namespace", "selfLink", "uid"];
        metadata.sort_by_key(|key| match key {
            key if BEFORE.contains(&key) => 0,
            "resourceVersion" => 1,
            _ => 2,
        });
    }
}

impl Log {
    fn push(&mut self, event: Event) {
        self.bytes += cost(&event);
        self.events.push_back(event);
        while self.bytes > LOG_BYTES || self.events.len() > LOG_EVENTS {
            let Some(dropped) = self.events.pop_front() else { return };
            self.bytes -= cost(&dropped);
            self.start = dropped.revision;
        }
        // Never cut a revision in two.
        while self.events.front().is_some_and(|e| e.revision <= self.start) {
            self.bytes -= self.events.pop_front().map_or(0, |e| cost(&e));
        }
    }
}

fn cost(event: &Event) -> usize {
    event.old.as_ref().map_or(0, |o| o.json.len()) + event.last.as_ref().map_or(0, |l| l.json.len()) + 200
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::TABLE;

    fn cache() -> Cache {
        Cache::new(
            "configmaps",
            TABLE.find("", "v1", "configmaps").unwrap().clone(),
            CancellationToken::new(),
        )
    }

    fn change(cache: &Cache, key: &str, revision: i64, present: bool) {
        let object = format!(r#"{{"metadata":{{"name":"{key}","uid":"u","labels":{{"r":"{revision}"}}}}}}"#);
        let new = present.then(|| Arc::new(cache.encode(key, object.as_bytes(), revision).unwrap()));
        cache.publish(vec![(key.into(), new)], revision);
    }

    #[test]
    fn a_watcher_sees_every_change_after_its_revision() {
        let cache = cache();
        cache.load(Objects::new(), Unreadable::new(), 10);
        change(&cache, "n/a", 11, true);
        change(&cache, "n/a", 12, true);
        change(&cache, "n/a", 13, false);
        let Waited::Events(events) = cache.after(11, 100) else { panic!("events are there") };
        assert_eq!(events.iter().map(|e| e.revision).collect::<Vec<_>>(), [12, 13]);
        assert!(events[1].new.is_none());
        let last = events[1].last.as_ref().unwrap().object();
        assert_eq!(last.resource_version(), "13");
        assert!(matches!(cache.after(13, 100), Waited::Nothing));
        assert!(matches!(cache.after(9, 100), Waited::TooOld));
    }

    #[test]
    fn a_cache_that_was_loaded_later_than_others_drops_what_it_has() {
        let cache = cache();
        cache.load(Objects::new(), Unreadable::new(), 10);
        change(&cache, "n/a", 10, true);
        assert!(cache.get("n/a").is_none());
        // One revision may come in two parts.
        change(&cache, "n/a", 11, true);
        change(&cache, "n/b", 11, true);
        assert!(cache.get("n/a").is_some() && cache.get("n/b").is_some());
    }

    #[test]
    fn old_snapshots_are_rebuilt_from_the_log() {
        let cache = cache();
        cache.load(Objects::new(), Unreadable::new(), 10);
        change(&cache, "n/a", 11, true);
        change(&cache, "n/b", 12, true);
        change(&cache, "n/a", 13, true);
        change(&cache, "n/b", 14, false);
        let keys = |r: i64| cache.at(r).unwrap().objects.keys().map(|k| k.to_string()).collect::<Vec<_>>();
        assert_eq!(keys(11), ["n/a"]);
        assert_eq!(keys(12), ["n/a", "n/b"]);
        assert_eq!(keys(14), ["n/a"]);
        assert_eq!(cache.at(12).unwrap().objects["n/a"].label("r"), Some("11"));
        assert!(cache.at(9).is_none());
    }

    #[test]
    fn the_log_is_bounded_and_says_where_it_starts() {
        let cache = cache();
        cache.load(Objects::new(), Unreadable::new(), 1);
        for revision in 2..(LOG_EVENTS as i64 + 100) {
            change(&cache, "n/a", revision, true);
        }
        assert!(cache.oldest() > 1);
        assert!(matches!(cache.after(1, 10), Waited::TooOld));
        assert!(matches!(cache.after(cache.oldest(), 10), Waited::Events(_)));
    }
}
