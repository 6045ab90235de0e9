//! Watching: a cursor into the log of changes, turned into a stream of events.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::error::Result;
use api::{ApiError, Value};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::{Call, ListOptions};
use crate::request::Query;
use crate::resources::Resource;
use crate::storage::{Cache, Event, Stored, Waited};

/// Events taken from the log at a time.
const BATCH: usize = 200;
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// What a watch shows.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// Selectors and the revision to start after.
    pub list: ListOptions,
    /// Tell the revision now and then.
    pub bookmarks: bool,
    /// Start with all objects, and say when they were all.
    pub initial: Option<bool>,
    /// How long the watch lasts.
    pub timeout: Option<Duration>,
}

impl WatchOptions {
    /// Reads the query of a watch.
    pub fn parse(query: &Query, row: &Resource) -> Result<Self> {
        let asked = query.has("sendInitialEvents").then(|| query.is_true("sendInitialEvents"));
        // Who begins with whatever there is, in the older way, is told where that ends as well.
        let older =
            query.get("resourceVersionMatch").is_empty() && matches!(query.get("resourceVersion"), "" | "0");
        let initial = asked.or(older.then_some(true));
        let list = ListOptions::parse(query, row)?;
        // What is less than nothing is over at once; nothing leaves it to the server.
        let seconds = list.seconds.filter(|s| *s != 0).map(|s| u64::try_from(s).unwrap_or(0));
        Ok(Self {
            list,
            bookmarks: query.is_true("allowWatchBookmarks"),
            initial,
            timeout: seconds.map(Duration::from_secs),
        })
    }
}

/// One event of a watch.
pub enum Change {
    /// The object is new to the watcher.
    Added(Arc<Stored>),
    /// The object changed.
    Modified(Arc<Stored>),
    /// The object is gone, or no longer selected.
    Deleted(Arc<Stored>),
    /// Nothing more happened up to this revision. True at the end of the initial events.
    Bookmark(i64, bool),
    /// The watch cannot go on.
    Error(ApiError),
}

impl Change {
    /// The object that changed.
    pub fn stored(&self) -> Option<&Arc<Stored>> {
        match self {
            Change::Added(s) | Change::Modified(s) | Change::Deleted(s) => Some(s),
            Change::Bookmark(..) | Change::Error(_) => None,
        }
    }
}

struct Cursor {
    call: Call,
    cache: Arc<Cache>,
    options: WatchOptions,
    prefix: String,
    revision: i64,
    initial: std::vec::IntoIter<Arc<Stored>>,
    initial_bookmark: bool,
    changed: watch::Receiver<()>,
    /// Ready when the watch is over.
    over: BoxFuture<'static, ()>,
    next_bookmark: Pin<Box<Sleep>>,
    ended: bool,
}

impl Call {
    /// Starts a watch. An error here is the answer; later ones come in the stream.
    pub async fn watch(
        self,
        options: WatchOptions,
    ) -> Result<impl Stream<Item = Vec<Change>> + Send + use<>> {
        let cursor = self.start(options).await?;
        Ok(futures::stream::unfold(cursor, |mut cursor| async move {
            let batch = cursor.next().await?;
            Some((cursor.views(batch).await, cursor))
        }))
    }

    async fn start(self, options: WatchOptions) -> Result<Cursor> {
        let storage = self.server.storage.clone();
        let cache = self.cache()?;
        let asked = options.list.revision;
        let from_now = matches!(asked, None | Some(0));
        let mut revision = asked.unwrap_or(0);
        let mut initial = Vec::new();
        let wants_initial = options.initial == Some(true) || (options.initial.is_none() && from_now);
        if wants_initial {
            let list = ListOptions { exact: false, limit: 0, from: None, ..options.list.clone() };
            let page = self.page(&list).await?;
            revision = page.revision;
            initial = page.items;
        } else if from_now {
            revision = if asked.is_none() { storage.catch_up().await? } else { storage.revision() };
        } else {
            // A revision of the future is waited for, like upstream does, until the caches have it.
            storage.reach(revision).await?;
        }
        if cache.first_unreadable("").is_some() {
            // The client is to list again, and learns then what is wrong.
            return Err(ApiError::too_many_requests("storage is (re)initializing", 1));
        }
        if revision < cache.oldest() && !wants_initial {
            return Err(too_old(revision, cache.oldest()));
        }
        let minimum = self.server.config.min_request_timeout;
        let timeout = options.timeout.unwrap_or_else(|| minimum.mul_f64(1.0 + rand::rng().random::<f64>()));
        let (stopping, closed) = (self.server.stopping.clone(), cache.closed().clone());
        let over = async move {
            tokio::select! {
                () = tokio::time::sleep(timeout) => {}
                () = stopping.cancelled() => {}
                () = closed.cancelled() => {}
            }
        };
        Ok(Cursor {
            prefix: if self.row.namespaced && !self.namespace.is_empty() {
                format!("{}/", self.namespace)
            } else {
                String::new()
            },
            initial_bookmark: options.initial == Some(true) && options.bookmarks,
            initial: initial.into_iter(),
            changed: cache.subscribe(),
            cache,
            call: self,
            options,
            revision,
            over: over.boxed(),
            next_bookmark: Box::pin(tokio::time::sleep(BOOKMARK_EVERY)),
            ended: false,
        })
    }
}

fn too_old(revision: i64, oldest: i64) -> ApiError {
    ApiError::expired(format!("too old resource version: {revision} ({oldest})"))
}

impl Cursor {
    /// The next changes, at least one; none at the end of the watch.
    async fn next(&mut self) -> Option<Vec<Change>> {
        if self.ended {
            return None;
        }
        let batch: Vec<Change> = self.initial.by_ref().take(BATCH).map(Change::Added).collect();
        if !batch.is_empty() {
            return Some(batch);
        }
        if std::mem::take(&mut self.initial_bookmark) {
            return Some(vec![Change::Bookmark(self.revision, true)]);
        }
        loop {
            self.changed.mark_unchanged();
            match self.cache.after(self.revision, BATCH) {
                Waited::Events(events) => {
                    self.revision = events.last().map_or(self.revision, |e| e.revision);
                    let events = match self.call.selects_views(&self.options.list) {
                        true => self.call.event_views(events).await,
                        false => Ok(events),
                    };
                    let events = match events {
                        Ok(events) => events,
                        Err(e) => return Some(self.end(e)),
                    };
                    let batch: Vec<Change> = events.iter().filter_map(|e| self.seen(e)).collect();
                    if !batch.is_empty() {
                        return Some(batch);
                    }
                    continue;
                }
                Waited::TooOld => return Some(self.end(too_old(self.revision, self.cache.oldest()))),
                Waited::Nothing => {}
            }
            tokio::select! {
                // What happened before the end is told before it.
                biased;
                _ = self.changed.changed() => {}
                () = &mut self.over => return None,
                () = &mut self.next_bookmark, if self.options.bookmarks => {
                    self.next_bookmark.as_mut().reset(Instant::now() + BOOKMARK_EVERY);
                    // Every cache is complete up to the storage's revision, so nothing between can still come.
                    self.revision = self.revision.max(self.call.server.storage.revision());
                    return Some(vec![Change::Bookmark(self.revision, false)]);
                }
            }
        }
    }

    /// The changes in the version that the watcher wants.
    async fn views(&mut self, batch: Vec<Change>) -> Vec<Change> {
        if self.call.row.custom.is_none() {
            return batch;
        }
        let objects = batch.iter().filter_map(Change::stored).cloned().collect();
        let mut views = match self.call.views(objects).await {
            Ok(views) => views.into_iter(),
            Err(e) => return self.end(e),
        };
        let mut view = |change| match change {
            Change::Added(s) => Change::Added(views.next().unwrap_or(s)),
            Change::Modified(s) => Change::Modified(views.next().unwrap_or(s)),
            Change::Deleted(s) => Change::Deleted(views.next().unwrap_or(s)),
            other => other,
        };
        batch.into_iter().map(&mut view).collect()
    }

    /// The last change of a watch that cannot go on.
    fn end(&mut self, error: ApiError) -> Vec<Change> {
        self.ended = true;
        vec![Change::Error(error)]
    }

    fn selects(&self, stored: &Stored) -> bool {
        stored.key.starts_with(&self.prefix) && self.options.list.selects(&self.call.row, stored)
    }

    /// What the watcher sees of a change: an object that enters or leaves the selection is new or gone.
    fn seen(&self, event: &Event) -> Option<Change> {
        let before = event.old.as_ref().is_some_and(|o| self.selects(o));
        match &event.new {
            Some(new) if self.selects(new) => {
                Some(if before { Change::Modified(new.clone()) } else { Change::Added(new.clone()) })
            }
            Some(new) if before => Some(Change::Deleted(self.departed(event.old.as_ref()?, new.revision))),
            None if before => event.last.clone().map(Change::Deleted),
            _ => None,
        }
    }

    /// The last state that was selected, at the revision at which it no longer was.
    fn departed(&self, old: &Arc<Stored>, revision: i64) -> Arc<Stored> {
        self.cache.encode(&old.key, &old.json, revision).map_or_else(|| old.clone(), Arc::new)
    }
}

/// The object of a bookmark.
pub fn bookmark(row: &Resource, revision: i64, initial_end: bool) -> Value {
    let mut object = api::object!({"kind": (row.kind), "apiVersion": (row.api_version()), "metadata": {"resourceVersion": (revision.to_string())}});
    if initial_end {
        object.set(&["metadata", "annotations", "k8s.io/initial-events-end"], "true");
    }
    object
}
