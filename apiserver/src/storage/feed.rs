//! Follows etcd: loads every cache from one consistent snapshot, then applies one watch over the whole prefix.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{EventType, KeyValue};

use super::Storage;
use super::cache::{Cache, Stored};
use super::etcd::range_end;
use crate::custom::{Served, definitions_store};

/// Pause after the first failure; it doubles with each one after that.
const RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// The same failure is told of this often.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// Fragments of one revision are held until it is whole; more than this is a broken stream.
const PENDING_LIMIT: usize = 1_000_000;

#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("{0}")]
    Api(#[from] api::ApiError),
    #[error("the watch on etcd broke: {0}")]
    Watch(#[from] etcd_client::Error),
    #[error("the watch on etcd ended: {0}")]
    Ended(String),
    #[error("etcd compacted revisions that were not read yet")]
    Compacted,
}

/// Runs for ever. After a break it resumes where it was, and loads anew only when etcd has compacted that away.
pub(super) async fn run(storage: &Storage) {
    let mut revision = 0;
    let mut pause = RETRY;
    let mut told: Option<(String, Instant)> = None;
    loop {
        let started = Instant::now();
        let result = async {
            if revision == 0 {
                revision = load(storage).await?;
            }
            serve_custom(storage).await?;
            storage.progress.send_replace(revision);
            follow(storage, &mut revision).await
        }
        .await;
        if let Err(e) = result {
            let text = e.to_string();
            if told.as_ref().is_none_or(|(before, at)| *before != text || at.elapsed() > TELL_EVERY) {
                let endpoints = storage.etcd.endpoints();
                tracing::warn!(error = text, endpoints, revision, "no connection to etcd, trying again");
                told = Some((text, Instant::now()));
            }
            if matches!(e, FeedError::Compacted) {
                revision = 0;
            }
        }
        if started.elapsed() > LONGEST_RETRY {
            (pause, told) = (RETRY, None);
        }
        tokio::time::sleep(pause).await;
        pause = LONGEST_RETRY.min(pause * 2);
    }
}

/// Which cache a full key belongs to, and its key there.
struct Router<'c> {
    root: String,
    by_prefix: HashMap<&'c str, &'c Arc<Cache>>,
    custom: Arc<Served>,
}

impl<'c> Router<'c> {
    fn new(storage: &'c Storage) -> Self {
        Self {
            root: storage.etcd.root(),
            by_prefix: storage.caches.iter().map(|c| (&*c.prefix, c)).collect(),
            custom: storage.custom.load(),
        }
    }

    fn route<'k>(&self, key: &'k [u8]) -> Option<(Arc<Cache>, &'k str)> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(&self.root)?;
        // A prefix has one segment, or two (`services/specs`).
        let slashes = key.match_indices('/').map(|(i, _)| i).take(2);
        slashes.into_iter().find_map(|i| {
            let cache = self.by_prefix.get(&key[..i]).copied().or_else(|| self.custom.cache(&key[..i]))?;
            Some((cache.clone(), &key[i + 1..]))
        })
    }
}

type Objects = imbl::OrdMap<Arc<str>, Arc<Stored>>;

async fn load(storage: &Storage) -> Result<i64, FeedError> {
    let router = Router::new(storage);
    let mut loaded: HashMap<Box<str>, Objects> = HashMap::new();
    let (mut start, mut revision) = (storage.etcd.root().into_bytes(), 0);
    let end = range_end(&start);
    loop {
        let (kvs, more, at) = storage.etcd.page(start, end.clone(), revision).await?;
        if revision == 0 {
            revision = at;
        }
        let next = kvs.last().map(|kv| [kv.key(), b"\0"].concat());
        for kv in kvs {
            if let Some((cache, stored)) = read(&router, &kv) {
                loaded.entry(cache.prefix.clone()).or_default().insert(stored.key.clone(), Arc::new(stored));
            }
        }
        match next {
            Some(next) if more => start = next,
            _ => break,
        }
    }
    for cache in storage.caches.iter().chain(router.custom.caches()) {
        cache.load(loaded.remove(&cache.prefix).unwrap_or_default(), revision);
    }
    tracing::info!(revision, "loaded the caches from etcd");
    Ok(revision)
}

/// Brings what is served of custom resources in line with the definitions; new caches are filled before they serve.
async fn serve_custom(storage: &Storage) -> Result<(), FeedError> {
    let definitions = storage.cache(definitions_store()).snapshot();
    let Some((served, fresh)) = storage.custom.plan(&definitions) else { return Ok(()) };
    for cache in fresh {
        load_one(storage, &cache).await?;
    }
    storage.custom.publish(served);
    Ok(())
}

/// Loads one cache as of now. What the watch still has to tell of the time before is dropped by the cache.
async fn load_one(storage: &Storage, cache: &Cache) -> Result<(), FeedError> {
    let root = storage.etcd.full_key(&cache.prefix, "");
    let (mut start, mut revision) = (root.clone().into_bytes(), 0);
    let end = range_end(&start);
    let mut objects = Objects::new();
    loop {
        let (kvs, more, at) = storage.etcd.page(start, end.clone(), revision).await?;
        if revision == 0 {
            revision = at;
        }
        for kv in &kvs {
            let key = std::str::from_utf8(kv.key()).ok().and_then(|k| k.strip_prefix(&root));
            if let Some(stored) = key.and_then(|key| cache.encode(key, kv.value(), kv.mod_revision())) {
                objects.insert(stored.key.clone(), Arc::new(stored));
            }
        }
        match kvs.last() {
            Some(last) if more => start = [last.key(), b"\0"].concat(),
            _ => break,
        }
    }
    cache.load(objects, revision);
    Ok(())
}

fn read(router: &Router<'_>, kv: &KeyValue) -> Option<(Arc<Cache>, Stored)> {
    let (cache, key) = router.route(kv.key())?;
    let stored = cache.encode(key, kv.value(), kv.mod_revision());
    if stored.is_none() {
        tracing::error!(
            prefix = &*cache.prefix,
            key,
            "etcd holds something that is no object; it is not served"
        );
    }
    stored.map(|s| (cache, s))
}

async fn follow(storage: &Storage, revision: &mut i64) -> Result<(), FeedError> {
    let mut router = Router::new(storage);
    let mut stream = storage.etcd.watch(*revision + 1).await?;
    let mut pending = Vec::new();
    while let Some(answer) = stream.message().await? {
        if answer.compact_revision() > 0 {
            return Err(FeedError::Compacted);
        }
        if answer.canceled() {
            return Err(FeedError::Ended(answer.cancel_reason().to_owned()));
        }
        let at = answer.header().map_or(0, |h| h.revision());
        pending.extend_from_slice(answer.events());
        if pending.len() > PENDING_LIMIT {
            return Err(FeedError::Ended("one revision has too many events".to_owned()));
        }
        // The last revision of a fragment may go on in the next one; it is whole once its header has moved past it or
        // a message without events follows. etcd sets the header to the revision of the batch's end, so a batch whose
        // last event has that revision is complete unless it was cut by size.
        let whole = pending.last().and_then(etcd_client::Event::kv).is_none_or(|kv| kv.mod_revision() <= at);
        if !whole {
            continue;
        }
        apply(&router, &pending);
        pending.clear();
        // What was applied is not asked for again, should serving what follows from it fail for now.
        *revision = at.max(*revision);
        serve_custom(storage).await?;
        router.custom = storage.custom.load();
        storage.progress.send_if_modified(|progress| {
            let moved = at > *progress;
            *progress = at.max(*progress);
            moved
        });
    }
    Err(FeedError::Ended("closed by etcd".to_owned()))
}

/// A key and what is there now, if anything.
type KeyedChange = (Arc<str>, Option<Arc<Stored>>);

/// Publishes events, one revision and one resource at a time.
fn apply(router: &Router<'_>, events: &[etcd_client::Event]) {
    let mut rest = events;
    while let Some(revision) = rest.first().and_then(etcd_client::Event::kv).map(KeyValue::mod_revision) {
        let end = rest.partition_point(|e| e.kv().is_some_and(|kv| kv.mod_revision() <= revision));
        let (now, later) = rest.split_at(end.max(1));
        rest = later;
        let mut changes: Vec<(Arc<Cache>, Vec<KeyedChange>)> = Vec::new();
        for event in now {
            let Some(kv) = event.kv() else { continue };
            let change = match event.event_type() {
                EventType::Delete => router.route(kv.key()).map(|(c, key)| (c, (Arc::from(key), None))),
                EventType::Put => read(router, kv).map(|(c, s)| (c, (s.key.clone(), Some(Arc::new(s))))),
            };
            let Some((cache, change)) = change else { continue };
            match changes.iter_mut().find(|(c, _)| Arc::ptr_eq(c, &cache)) {
                Some((_, list)) => list.push(change),
                None => changes.push((cache, vec![change])),
            }
        }
        for (cache, list) in changes {
            cache.publish(list, revision);
        }
    }
}
