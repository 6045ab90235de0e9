//! Follows etcd: loads every cache from one consistent snapshot, then applies one watch over the whole prefix.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{EventType, KeyValue};

use super::Storage;
use super::cache::{Cache, Objects, Stored, Unreadable, set_resource_version};
use super::etcd::range_end;
use crate::custom::{Served, definitions_store};

/// Pause after the first failure; it doubles with each one after that.
const RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// The same failure is told of this often.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// How long one value may take to be decrypted, while others wait for it.
const PATIENCE: Duration = Duration::from_secs(1);
/// What cannot be decrypted is tried again this often.
const TRY_AGAIN: Duration = Duration::from_secs(5);
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

async fn load(storage: &Storage) -> Result<i64, FeedError> {
    let router = Router::new(storage);
    let mut loaded: HashMap<Box<str>, (Objects, Unreadable)> = HashMap::new();
    let (mut start, mut revision) = (storage.etcd.root().into_bytes(), 0);
    let end = range_end(&start);
    loop {
        let (kvs, more, at) = storage.etcd.page(start, end.clone(), revision).await?;
        if revision == 0 {
            revision = at;
        }
        let next = kvs.last().map(|kv| [kv.key(), b"\0"].concat());
        for kv in kvs {
            let Some((cache, read)) = read(storage, &router, &kv).await else { continue };
            let (objects, unreadable) = loaded.entry(cache.prefix.clone()).or_default();
            match read {
                Ok(stored) => drop(objects.insert(stored.key.clone(), Arc::new(stored).into())),
                Err((key, why)) => drop(unreadable.insert(key, why)),
            }
        }
        match next {
            Some(next) if more => start = next,
            _ => break,
        }
    }
    for cache in storage.caches.iter().chain(router.custom.caches()) {
        let (objects, unreadable) = loaded.remove(&cache.prefix).unwrap_or_default();
        cache.load(objects, unreadable, revision);
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
    let (mut objects, mut unreadable) = (Objects::new(), Unreadable::new());
    loop {
        let (kvs, more, at) = storage.etcd.page(start, end.clone(), revision).await?;
        if revision == 0 {
            revision = at;
        }
        for kv in &kvs {
            let key = std::str::from_utf8(kv.key()).ok().and_then(|k| k.strip_prefix(&root));
            let Some(key) = key else { continue };
            match read_one(storage, cache, key, kv).await {
                Some(Ok(stored)) => drop(objects.insert(stored.key.clone(), Arc::new(stored).into())),
                Some(Err((key, why))) => drop(unreadable.insert(key, why)),
                None => {}
            }
        }
        match kvs.last() {
            Some(last) if more => start = [last.key(), b"\0"].concat(),
            _ => break,
        }
    }
    cache.load(objects, unreadable, revision);
    Ok(())
}

/// An object, or the key of one that cannot be decrypted, and why.
type Read = Result<Stored, (Arc<str>, String)>;

async fn read(storage: &Storage, router: &Router<'_>, kv: &KeyValue) -> Option<(Arc<Cache>, Read)> {
    let (cache, key) = router.route(kv.key())?;
    let read = read_one(storage, &cache, key, kv).await?;
    Some((cache, read))
}

async fn read_one(storage: &Storage, cache: &Cache, key: &str, kv: &KeyValue) -> Option<Read> {
    let full = std::str::from_utf8(kv.key()).ok()?;
    if let Some(mut object) = storage.written.take(full, kv.value()) {
        set_resource_version(&mut object, kv.mod_revision());
        return Some(Ok(cache.stored(key, &object, kv.mod_revision())));
    }
    let opened = tokio::time::timeout(PATIENCE, storage.open(cache, full, kv.value())).await;
    let late = || Err("the key management service did not answer in time".to_owned());
    let value = match opened.unwrap_or_else(|_| late()) {
        Ok((value, _)) => value,
        Err(why) => {
            tracing::error!(
                key = full,
                why,
                "an object cannot be decrypted; its resource is not served whole"
            );
            return Some(Err((key.into(), why)));
        }
    };
    let stored = cache.encode(key, &value, kv.mod_revision());
    if stored.is_none() {
        tracing::error!(
            prefix = &*cache.prefix,
            key,
            "etcd holds something that is no object; it is not served"
        );
    }
    stored.map(Ok)
}

async fn follow(storage: &Storage, revision: &mut i64) -> Result<(), FeedError> {
    let mut router = Router::new(storage);
    let mut stream = storage.etcd.watch(*revision + 1).await?;
    let mut pending = Vec::new();
    let mut again = tokio::time::interval(TRY_AGAIN);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let answer = tokio::select! {
            answer = stream.message() => answer?,
            _ = again.tick() => {
                read_again(storage, &router).await?;
                continue;
            }
        };
        let Some(answer) = answer else { return Err(FeedError::Ended("closed by etcd".to_owned())) };
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
        apply(storage, &router, &pending).await;
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
}

/// Loads the resources again of which something could not be decrypted.
async fn read_again(storage: &Storage, router: &Router<'_>) -> Result<(), FeedError> {
    for cache in storage.caches.iter().chain(router.custom.caches()) {
        if cache.first_unreadable("").is_some() {
            load_one(storage, cache).await?;
        }
    }
    Ok(())
}

/// A key and what is there now, if anything.
type KeyedChange = (Arc<str>, Option<Arc<Stored>>);

/// Publishes events, one revision and one resource at a time.
async fn apply(storage: &Storage, router: &Router<'_>, events: &[etcd_client::Event]) {
    let mut rest = events;
    while let Some(revision) = rest.first().and_then(etcd_client::Event::kv).map(KeyValue::mod_revision) {
        let end = rest.partition_point(|e| e.kv().is_some_and(|kv| kv.mod_revision() <= revision));
        let (now, later) = rest.split_at(end.max(1));
        rest = later;
        let mut changes: Vec<(Arc<Cache>, Vec<KeyedChange>)> = Vec::new();
        let mut lost = Vec::new();
        for event in now {
            let Some(kv) = event.kv() else { continue };
            let change = match event.event_type() {
                EventType::Delete => router.route(kv.key()).map(|(c, key)| (c, (Arc::from(key), None))),
                EventType::Put => match read(storage, router, kv).await {
                    Some((cache, Ok(stored))) => Some((cache, (stored.key.clone(), Some(Arc::new(stored))))),
                    Some((cache, Err((key, why)))) => {
                        lost.push((cache, key, why));
                        None
                    }
                    None => None,
                },
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
        for (cache, key, why) in lost {
            cache.lose(&key, why, revision);
        }
    }
}
