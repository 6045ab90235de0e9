//! Shared informers: a trimmed, indexed cache of one resource, and handlers that hear of every change.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api::Value;
use compact_str::CompactString;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::resource::Resource;
use crate::rest::Client;
use crate::store::{IndexFn, Key, NAMESPACE, Store};
use crate::{error, reflector};

/// How long to wait for the cache after a write.
const CATCH_UP: Duration = Duration::from_secs(5);

/// A change of the cache.
#[derive(Clone, Debug)]
pub enum Change<T> {
    /// A new object.
    Added(Arc<T>),
    /// An object, before and after.
    Updated(Arc<T>, Arc<T>),
    /// An object that is gone, as last known.
    Deleted(Arc<T>),
}

impl<T> Change<T> {
    /// The object after the change, or as last known.
    pub fn object(&self) -> &Arc<T> {
        match self {
            Change::Added(o) | Change::Updated(_, o) | Change::Deleted(o) => o,
        }
    }

    /// The object before, if there was one.
    pub fn old(&self) -> Option<&Arc<T>> {
        match self {
            Change::Updated(old, _) => Some(old),
            _ => None,
        }
    }
}

type Handler<T> = Box<dyn Fn(&Change<T>) + Send + Sync>;
type Trim<T> = Box<dyn Fn(Value) -> Option<T> + Send + Sync>;

/// An informer; clones share the cache. It fills once [`Informer::run`] runs.
pub struct Informer<T>(Arc<Inner<T>>);

impl<T> Clone for Informer<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<T> {
    source: Source,
    trim: Trim<T>,
    store: Store<T>,
    handlers: RwLock<Vec<Handler<T>>>,
    synced: watch::Sender<bool>,
    revision: watch::Sender<u64>,
}

/// What is watched.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) resource: Resource,
    pub(crate) namespace: String,
    pub(crate) labels: String,
    pub(crate) fields: String,
    pub(crate) metadata_only: bool,
}

/// An informer in the making.
pub struct Builder<T> {
    source: Source,
    trim: Trim<T>,
    indexes: Vec<(&'static str, IndexFn<T>)>,
}

impl<T: Send + Sync + 'static> Builder<T> {
    /// Only objects of this namespace.
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.source.namespace = namespace.to_owned();
        self
    }

    /// Only objects with these labels.
    pub fn labels(mut self, selector: &str) -> Self {
        self.source.labels = selector.to_owned();
        self
    }

    /// Only objects with these fields.
    pub fn fields(mut self, selector: &str) -> Self {
        self.source.fields = selector.to_owned();
        self
    }

    /// Asks for `PartialObjectMetadata` instead of whole objects.
    pub fn metadata_only(mut self) -> Self {
        self.source.metadata_only = true;
        self
    }

    /// Adds an index.
    pub fn index(
        mut self,
        name: &'static str,
        values: impl Fn(&T) -> Vec<CompactString> + Send + Sync + 'static,
    ) -> Self {
        self.indexes.push((name, Box::new(values)));
        self
    }

    /// The informer.
    pub fn build(self) -> Informer<T> {
        Informer(Arc::new(Inner {
            source: self.source,
            trim: self.trim,
            store: Store::new(self.indexes),
            handlers: RwLock::default(),
            synced: watch::Sender::new(false),
            revision: watch::Sender::new(0),
        }))
    }
}

impl Informer<Value> {
    /// An informer of object values, without what `trim` takes away. Managed fields always go. An index by namespace is there.
    pub fn of_values(
        resource: Resource,
        trim: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> Builder<Value> {
        let builder = Informer::of(resource, move |mut object| {
            object.remove_at(&["metadata", "managedFields"]);
            trim(&mut object);
            Some(object)
        });
        builder.index(NAMESPACE, |object| vec![object.namespace().into()])
    }
}

impl<T: Send + Sync + 'static> Informer<T> {
    /// An informer of what `trim` makes of the objects; those it makes nothing of are left out.
    pub fn of(resource: Resource, trim: impl Fn(Value) -> Option<T> + Send + Sync + 'static) -> Builder<T> {
        let (namespace, labels, fields) = Default::default();
        let source = Source { resource, namespace, labels, fields, metadata_only: false };
        Builder { source, trim: Box::new(trim), indexes: Vec::new() }
    }

    /// The cache.
    pub fn store(&self) -> &Store<T> {
        &self.0.store
    }

    /// The resource.
    pub fn resource(&self) -> &Resource {
        &self.0.source.resource
    }

    /// Calls `handler` on every change from now on. Handlers run in order on the informer's task and must be quick: they
    /// put keys into queues. Add them before the informer runs to hear of everything.
    pub fn on_change(&self, handler: impl Fn(&Change<T>) + Send + Sync + 'static) {
        self.0.handlers.write().push(Box::new(handler));
    }

    /// Whether the first list is in the cache.
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// Waits until the first list is in the cache.
    pub async fn synced(&self) {
        let mut synced = self.0.synced.subscribe();
        // The sender lives as long as `self`.
        let _ = synced.wait_for(|s| *s).await;
    }

    /// Waits until the cache has seen the write that left an object at `revision`, so that what is decided next does not
    /// repeat it. Gives up after a while: then a decision on old facts meets a conflict, or is mended by the next one.
    /// Only for informers without selectors, which see every write.
    pub async fn caught_up(&self, revision: &str) {
        let Ok(wanted) = revision.parse::<u64>() else { return };
        let mut seen = self.0.revision.subscribe();
        let waiting = seen.wait_for(|r| *r >= wanted);
        if tokio::time::timeout(CATCH_UP, waiting).await.is_err() {
            tracing::debug!(resource = %self.resource().plural, wanted, "The cache is behind");
        }
    }

    /// Keeps the cache up to date until `stop`.
    pub async fn run(self, client: Client, stop: CancellationToken) {
        let sink = Sink(&self);
        tokio::select! {
            () = reflector::run(&client, &self.0.source, sink) => {}
            () = stop.cancelled() => {}
        }
    }

    fn put(&self, key: Key, object: Option<T>) {
        let object = object.map(Arc::new);
        let old = self.0.store.set(&key, object.clone());
        let change = match (old, object) {
            (None, Some(new)) => Change::Added(new),
            (Some(old), Some(new)) => Change::Updated(old, new),
            (Some(old), None) => Change::Deleted(old),
            (None, None) => return,
        };
        for handler in self.0.handlers.read().iter() {
            handler(&change);
        }
    }
}

/// Where the reflector puts what it hears.
pub(crate) struct Sink<'i, T>(&'i Informer<T>);

impl<T: Send + Sync + 'static> Sink<'_, T> {
    /// An object as it is now, or (with `gone`) as it was last.
    pub(crate) fn object(&self, value: Value, gone: bool) -> Key {
        let key = Key::of(&value);
        let object = if gone { None } else { (self.0.0.trim)(value) };
        self.0.put(key.clone(), object);
        key
    }

    /// Everything up to this revision has been put in.
    pub(crate) fn reached(&self, revision: &str) {
        if let Ok(revision) = revision.parse() {
            self.0.0.revision.send_replace(revision);
        }
    }

    /// A list is complete: what it did not name is gone.
    pub(crate) fn listed(&self, keys: &HashSet<Key>) {
        for key in self.0.store().keys() {
            if !keys.contains(&key) {
                self.0.put(key, None);
            }
        }
        self.0.0.synced.send_replace(true);
    }

    pub(crate) fn failed(&self, e: &error::Error, resource: &Resource) {
        tracing::warn!(resource = %resource.plural, group = %resource.group, err = %e, "Failed to watch");
    }
}
