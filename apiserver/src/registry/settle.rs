//! The end of every write: one guarded transaction, which tells when the object turned out to be another.

use api::error::Result;
use api::{ApiError, Value};

use super::Call;
use super::convert::differs;
use crate::storage::{Cache, KeyValue, Outcome, Precondition, set_resource_version};

/// What an update makes of an object.
pub(super) enum Next {
    /// It is written.
    Put(Value),
    /// It is removed; this is its last state.
    Remove(Value),
}

/// An object as it is now, in its storage version.
pub(super) struct Current {
    /// The object, with its resourceVersion.
    pub object: Value,
    /// Revision of its last change.
    pub revision: i64,
    fresh: bool,
    /// It would be stored differently now. Only known of what was read from etcd.
    stale: bool,
}

impl Call {
    /// Writes a new object.
    pub(super) async fn insert(&self, mut object: Value) -> Result<Value> {
        let storage = &self.server.storage;
        let cache = self.cache()?;
        let key = self.row.key(object.namespace(), object.name());
        if self.write.dry_run {
            storage.catch_up().await?;
            if cache.get(&key).is_some() {
                return Err(ApiError::already_exists(self.row.group, self.row.plural, object.name()));
            }
            return Ok(object);
        }
        let lease = self.lease().await?;
        let full = storage.etcd().full_key(&cache.prefix, &key);
        let mut stored = self.stored_form(object.clone()).await?;
        stored.remove_at(&["metadata", "resourceVersion"]);
        let reads_back = self.reads_back();
        let written = self.is_stored_otherwise().then(|| stored.clone());
        match storage.put(&cache, &full, Precondition::Absent, stored, reads_back, lease).await? {
            Outcome::Done(revision) => {
                if let Some(written) = written {
                    return self.view(read_again(&cache, written, revision)).await;
                }
                set_resource_version(&mut object, revision);
                Ok(object)
            }
            Outcome::Changed(there) => {
                let mut error = ApiError::already_exists(self.row.group, self.row.plural, object.name());
                let there = match there {
                    Some(kv) => self.decoded(kv).await.ok(),
                    None => None,
                };
                let terminating = there.is_some_and(|current| current.object.is_terminating());
                if terminating {
                    let text = format!("object is being deleted: {}", error.status().message);
                    error.status_mut().message = text;
                }
                Err(error)
            }
        }
    }

    /// Whether what is written is read as the same object, whenever that is: no version is made into another, and no
    /// schema changes.
    fn reads_back(&self) -> bool {
        self.row.custom.is_none() && !differs(&self.row)
    }

    /// True for custom resources that are stored in another version, which may not have all that this one has.
    fn is_stored_otherwise(&self) -> bool {
        self.row.custom.as_ref().is_some_and(|c| c.version().api_version != c.kind.storage().api_version)
    }

    /// Reads an object from the cache, or from etcd when `fresh`.
    async fn current(&self, fresh: bool) -> Result<Current> {
        let storage = &self.server.storage;
        let cache = self.cache()?;
        let key = self.key();
        if !fresh && let Some(stored) = cache.get(&key) {
            let (object, revision) = (stored.object(), stored.revision);
            return Ok(Current { object, revision, fresh: false, stale: false });
        }
        let kv = storage.etcd().get(&storage.etcd().full_key(&cache.prefix, &key)).await?;
        self.decoded(kv.ok_or_else(|| self.not_found())?).await
    }

    async fn decoded(&self, kv: KeyValue) -> Result<Current> {
        let (storage, cache) = (&self.server.storage, self.cache()?);
        let full = storage.etcd().full_key(&cache.prefix, &self.key());
        let opened = storage.open(&cache, &full, &kv.value).await;
        let (value, stale) = opened.map_err(ApiError::internal)?;
        let read = cache.read(&value, kv.revision);
        let object = read.ok_or_else(|| ApiError::internal("etcd holds something that is no object"))?;
        let stale = stale || cache.is_outdated(&value);
        Ok(Current { object, revision: kv.revision, fresh: true, stale })
    }

    /// Begins to change the object.
    pub(super) async fn attempt(&self) -> Result<Current> {
        self.current(false).await
    }

    /// Writes what a change made of `current`. Returns the object as written, and true when it was removed; or none when
    /// the object turned out to be another, which is in `current` now, and the change must be made again.
    pub(super) async fn settle(
        &self,
        current: &mut Current,
        next: Result<Next>,
    ) -> Result<Option<(Value, bool)>> {
        let next = match next {
            // What went wrong may be due to an old copy.
            Err(e) => return if self.refresh(current).await? { Ok(None) } else { Err(e) },
            Ok(next) => next,
        };
        let storage = &self.server.storage;
        let full = storage.etcd().full_key(&self.cache()?.prefix, &self.key());
        let guard = Precondition::Revision(current.revision);
        let (mut object, outcome, removed) = match next {
            Next::Put(object) | Next::Remove(object) if self.write.dry_run => {
                return Ok(Some((object, false)));
            }
            Next::Put(object) => {
                let bare = without_version(&object);
                if bare == without_version(&current.object) {
                    if self.refresh(current).await? {
                        return Ok(None);
                    }
                    if !current.stale {
                        return Ok(Some((current.object.clone(), false)));
                    }
                }
                let lease = self.lease().await?;
                let reads_back = self.reads_back();
                let outcome = storage.put(&*self.cache()?, &full, guard, bare, reads_back, lease).await?;
                (object, outcome, false)
            }
            Next::Remove(object) => (object, storage.etcd().delete(&full, guard).await?, true),
        };
        match outcome {
            Outcome::Done(revision) if self.is_stored_otherwise() => {
                Ok(Some((read_again(&*self.cache()?, object, revision), removed)))
            }
            Outcome::Done(revision) => {
                set_resource_version(&mut object, revision);
                Ok(Some((object, removed)))
            }
            Outcome::Changed(Some(kv)) => {
                *current = self.decoded(kv).await?;
                Ok(None)
            }
            Outcome::Changed(None) => Err(self.not_found()),
        }
    }

    /// Makes sure that `current` is what etcd has; true when it was not.
    async fn refresh(&self, current: &mut Current) -> Result<bool> {
        if current.fresh {
            return Ok(false);
        }
        let newer = self.current(true).await?;
        let changed = newer.revision != current.revision;
        *current = newer;
        Ok(changed)
    }

    /// The lease of objects that do not live for ever.
    async fn lease(&self) -> Result<Option<i64>> {
        match self.row.strategy.ttl {
            Some(_) => self.server.storage.etcd().shared_lease(self.server.config.event_ttl).await.map(Some),
            None => Ok(None),
        }
    }
}

/// An object as it is read after it has been written.
fn read_again(cache: &Cache, object: Value, revision: i64) -> Value {
    cache.read(&cache.write(&object), revision).unwrap_or(object)
}

fn without_version(object: &Value) -> Value {
    let mut object = object.clone();
    object.remove_at(&["metadata", "resourceVersion"]);
    object
}
