//! Storage: etcd behind a watch cache.
//!
//! Every write is one etcd transaction guarded by `mod_revision`; every read is served from memory. One watch over the
//! whole prefix feeds the caches, so that all resources advance together: when revision `r` is published, every change
//! up to `r` is in its cache. A consistent read asks etcd for its revision and waits until the caches have reached it.

mod bell;
mod cache;
pub(crate) mod encryption;
mod etcd;
mod feed;
pub(crate) mod form;
mod labels;
mod measured;
mod record;
mod together;
mod written;

pub use cache::{Cache, Counts, Event, Held, Reading, Snapshot, Stored, Waited, set_resource_version};
pub use encryption::Encryption;
pub use etcd::{EtcdConfig, KeyValue, Outcome, Precondition};
pub use labels::Sieve;
pub use record::Record;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use api::{ApiError, Value, error::Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::custom::CustomResources;
use crate::resources::{Row, TABLE, Table};

/// How long a consistent read waits for the caches before it gives up.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(3);
/// How long it waits before it writes the progress key to move the caches on.
const CATCH_UP_NUDGE: Duration = Duration::from_millis(25);

/// All caches and the connection to etcd.
pub struct Storage {
    etcd: etcd::Etcd,
    encryption: Arc<Encryption>,
    caches: Vec<Arc<Cache>>,
    custom: CustomResources,
    served: Table,
    /// Revision up to which every cache is complete; zero before the first load.
    progress: watch::Sender<i64>,
    written: written::Written,
    /// Lists of earlier revisions are not to be had any more.
    compacted: AtomicI64,
}

impl Storage {
    /// Connects to etcd; the caches are empty until [`Storage::feed`] runs.
    pub async fn connect(
        config: EtcdConfig,
        encryption: Arc<Encryption>,
        served: Table,
    ) -> anyhow::Result<Arc<Self>> {
        encryption.prime().await;
        let etcd = etcd::Etcd::connect(config).await?;
        let cache = |(store, prefix): (usize, &&str)| {
            Arc::new(Cache::new(prefix, TABLE.storage_row(store).clone(), CancellationToken::new()))
        };
        let caches = TABLE.prefixes.iter().enumerate().map(cache).collect();
        let custom = CustomResources::default();
        Ok(Arc::new(Self {
            etcd,
            encryption,
            caches,
            custom,
            served,
            progress: watch::Sender::new(0),
            written: written::Written::default(),
            compacted: AtomicI64::new(0),
        }))
    }

    /// Loads the caches and follows etcd for ever; reconnects by itself.
    pub async fn feed(self: Arc<Self>) {
        feed::run(&self).await;
    }

    /// The connection, for what is not an object: leases, compaction, health.
    pub fn etcd(&self) -> &etcd::Etcd {
        &self.etcd
    }

    /// What was stored at the full key `key`, and whether it would be written differently now.
    ///
    /// # Errors
    /// It cannot be decrypted.
    pub async fn open<'a>(
        &self,
        cache: &Cache,
        key: &str,
        bytes: &'a [u8],
    ) -> std::result::Result<(Cow<'a, [u8]>, bool), String> {
        self.encryption.open(cache.resource(), key, bytes).await
    }

    /// Writes `object`, which is in the version that is stored and has no resourceVersion, at the full key `key` if
    /// `guard` holds. Where reading it again must give the same object (`reads_back`), the caches do not read it.
    ///
    /// # Errors
    /// It cannot be encrypted, or etcd does not answer.
    pub async fn put(
        &self,
        cache: &Cache,
        key: &str,
        guard: Precondition,
        object: Value,
        reads_back: bool,
        lease: Option<i64>,
    ) -> Result<Outcome> {
        let bytes = cache.write(&object);
        debug_assert!(!reads_back || cache.reads_as(&bytes, &object), "{key} is read otherwise than written");
        let bytes = self.encryption.seal(cache.resource(), key, bytes).map_err(ApiError::internal)?;
        if !reads_back {
            return self.etcd.put(key, guard, bytes, lease).await;
        }
        let pending = self.written.keep(key, bytes.clone(), object);
        let outcome = self.etcd.put(key, guard, bytes, lease).await?;
        if matches!(outcome, Outcome::Done(_)) {
            pending.done();
        }
        Ok(outcome)
    }

    /// The custom resources that are served.
    pub fn custom(&self) -> &CustomResources {
        &self.custom
    }

    /// The built-in resources that are served.
    pub fn served(&self) -> &Table {
        &self.served
    }

    /// The resource at `group/version/plural`, built in or custom.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Row> {
        let built_in = self.served.find(group, version, plural).cloned();
        built_in.or_else(|| self.custom.find(group, version, plural))
    }

    /// The cache of a store.
    pub fn cache(&self, store: usize) -> &Arc<Cache> {
        &self.caches[store]
    }

    /// The caches of all resources, built in and custom.
    pub fn caches(&self) -> Vec<Arc<Cache>> {
        self.caches.iter().chain(self.custom.load().caches()).cloned().collect()
    }

    /// True once every cache has been loaded.
    pub fn is_loaded(&self) -> bool {
        *self.progress.borrow() > 0
    }

    /// Waits until every cache has been loaded.
    pub async fn loaded(&self) {
        let mut progress = self.progress.subscribe();
        // The sender lives as long as self, so waiting cannot fail.
        let _ = progress.wait_for(|r| *r > 0).await;
    }

    /// The revision up to which every cache is complete.
    pub fn revision(&self) -> i64 {
        *self.progress.borrow()
    }

    /// The oldest revision that lists can be had of.
    pub fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::Relaxed)
    }

    /// One round of compaction, see [`etcd::Etcd::compact`]. Lists of what etcd has forgotten end with it, as do tokens to
    /// go on with them.
    ///
    /// # Errors
    /// etcd does not answer.
    pub async fn compact(&self, version: i64, revision: i64) -> Result<(i64, i64)> {
        let next = self.etcd.compact(version, revision).await?;
        self.compacted.fetch_max(revision, Ordering::Relaxed);
        Ok(next)
    }

    /// Waits until the caches hold everything acknowledged before this call, and returns that revision.
    pub async fn catch_up(&self) -> Result<i64> {
        let revision = self.etcd.revision().await?;
        self.reach(revision).await?;
        Ok(revision)
    }

    /// Waits until the caches hold everything up to `revision`.
    pub async fn reach(&self, revision: i64) -> Result<()> {
        let mut progress = self.progress.subscribe();
        if *progress.borrow_and_update() >= revision {
            return Ok(());
        }
        if tokio::time::timeout(CATCH_UP_NUDGE, progress.wait_for(|r| *r >= revision)).await.is_ok() {
            return Ok(());
        }
        // The revision may belong to a write outside our prefix, which no event will ever tell us of.
        if self.etcd.revision().await? >= revision {
            self.etcd.touch_progress().await?;
        }
        match tokio::time::timeout(CATCH_UP_LIMIT, progress.wait_for(|r| *r >= revision)).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let current = *self.progress.borrow();
                Err(too_large(revision, current))
            }
        }
    }
}

fn too_large(revision: i64, current: i64) -> ApiError {
    let mut error =
        ApiError::timeout(format!("Timeout: Too large resource version: {revision}, current: {current}"), 1);
    error.status_mut().details.causes = vec![api::error::Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    }];
    error
}
