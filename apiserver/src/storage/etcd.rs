//! The transactions on etcd that storage needs, and nothing else of etcd's interface.

mod connection;

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use api::ApiError;
use api::error::Result;
use etcd_client::{
    Client, Compare, CompareOp, GetOptions, KvClient, PutOptions, Txn, TxnOp, TxnOpResponse, WatchClient,
    WatchOptions, WatchStream,
};

use super::measured::Measured;
use super::together::Together;

/// Answers of etcd may be this large: a page of the first load, or a burst of events.
const MESSAGE_LIMIT: usize = 256 << 20;
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How many keys a page of the first load has.
pub(super) const PAGE: i64 = 2000;

/// Where etcd is and how to talk to it.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// URLs of the members.
    pub endpoints: Vec<String>,
    /// Prefix of all keys, `/registry` by default.
    pub prefix: String,
    /// CA that signed the members' certificates.
    pub ca_file: Option<PathBuf>,
    /// Client certificate.
    pub cert_file: Option<PathBuf>,
    /// Key of the client certificate.
    pub key_file: Option<PathBuf>,
    /// How long a lease is given to further objects.
    pub lease_reuse: Duration,
}

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The key does not exist.
    Absent,
    /// The key's last change was at this revision.
    Revision(i64),
}

/// What became of a guarded write.
pub enum Outcome {
    /// It happened at this revision.
    Done(i64),
    /// The precondition did not hold; this is what is there instead, if anything.
    Changed(Option<KeyValue>),
}

/// A key as it is in etcd.
pub struct KeyValue {
    /// Revision of the last change.
    pub revision: i64,
    /// Value, as stored.
    pub value: Vec<u8>,
}

impl From<etcd_client::KeyValue> for KeyValue {
    fn from(kv: etcd_client::KeyValue) -> Self {
        Self { revision: kv.mod_revision(), value: kv.into_key_value().1 }
    }
}

/// A connection to etcd.
pub struct Etcd {
    kv: KvClient,
    watch: WatchClient,
    client: Client,
    endpoints: String,
    config: EtcdConfig,
    measured: Measured,
    prefix: String,
    revision: AtomicI64,
    reads: Together<Result<i64>>,
    lease_reuse: Duration,
    event_lease: tokio::sync::Mutex<Option<(i64, Instant)>>,
}

impl Etcd {
    /// Connects; waits for no answer, so that a daemon can start before its etcd.
    pub async fn connect(config: EtcdConfig) -> anyhow::Result<Self> {
        let client = connection::open(&config).await?;
        Ok(Self {
            kv: client
                .kv_client()
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
            watch: client.watch_client().max_decoding_message_size(MESSAGE_LIMIT),
            client,
            endpoints: config.endpoints.join(","),
            prefix: config.prefix.trim_end_matches('/').to_owned(),
            revision: AtomicI64::new(0),
            reads: Together::new(),
            lease_reuse: config.lease_reuse,
            config,
            measured: Measured::new()?,
            event_lease: tokio::sync::Mutex::new(None),
        })
    }

    /// The URLs of the members.
    pub fn endpoints(&self) -> &str {
        &self.endpoints
    }

    /// The full key of `key` below a resource's prefix.
    pub fn full_key(&self, prefix: &str, key: &str) -> String {
        format!("{}/{prefix}/{key}", self.prefix)
    }

    fn below_root<'k>(&self, key: &'k str) -> &'k str {
        key.strip_prefix(&self.prefix).map_or(key, |rest| rest.trim_start_matches('/'))
    }

    /// Shows how long requests take as metrics.
    pub fn register(&self, registry: &prometheus::Registry) {
        self.measured.register(registry);
    }

    /// Asks the members how large they are, for the metrics; who does not answer at once keeps the size last known.
    pub async fn measure_sizes(&self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let ask = async |(index, url): (usize, &String)| {
            let size = tokio::time::timeout(PATIENCE, self.size_of(url)).await;
            if let Ok(Ok(bytes)) = size {
                self.measured.size(index, bytes);
            }
        };
        futures::future::join_all(self.members().iter().enumerate().map(ask)).await;
    }

    async fn size_of(&self, url: &str) -> anyhow::Result<i64> {
        let mut client = connection::to(url, &self.config).await?;
        Ok(client.status().await?.db_size())
    }

    /// The prefix of all keys, with its closing slash.
    pub fn root(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// etcd's current revision, by a linearizable read that many may share.
    pub async fn revision(&self) -> Result<i64> {
        let read = async || {
            let options = GetOptions::new().with_count_only();
            let answer = within(self.kv.clone().get(self.progress_key(), Some(options))).await?;
            Ok(self.saw(answer.header().map_or(0, |h| h.revision())))
        };
        // In a box, which only those make who ask: most wait for an answer to others.
        self.reads.ask(|| Box::pin(read())).await
    }

    fn saw(&self, revision: i64) -> i64 {
        self.revision.fetch_max(revision, Ordering::Relaxed);
        revision
    }

    fn progress_key(&self) -> String {
        format!("{}/ferrite/progress", self.prefix)
    }

    /// Writes a key of our own so that the watch reports a revision at least as high as any before.
    pub async fn touch_progress(&self) -> Result<()> {
        within(self.kv.clone().put(self.progress_key(), "", None)).await.map(|_| ())
    }

    /// Writes `value` at `key` if the precondition holds.
    pub async fn put(
        &self,
        key: &str,
        guard: Precondition,
        value: Vec<u8>,
        lease: Option<i64>,
    ) -> Result<Outcome> {
        let options = lease.map(|id| PutOptions::new().with_lease(id));
        let operation = if guard == Precondition::Absent { "create" } else { "update" };
        self.guarded(operation, key, guard, TxnOp::put(key, value, options)).await
    }

    /// Removes `key` if the precondition holds.
    pub async fn delete(&self, key: &str, guard: Precondition) -> Result<Outcome> {
        self.guarded("delete", key, guard, TxnOp::delete(key, None)).await
    }

    async fn guarded(
        &self,
        operation: &str,
        key: &str,
        guard: Precondition,
        write: TxnOp,
    ) -> Result<Outcome> {
        let revision = match guard {
            Precondition::Absent => 0,
            Precondition::Revision(r) => r,
        };
        let txn = Txn::new()
            .when([Compare::mod_revision(key, CompareOp::Equal, revision)])
            .and_then([write])
            .or_else([TxnOp::get(key, None)]);
        let began = Instant::now();
        let answer = within(self.kv.clone().txn(txn)).await;
        self.measured.note(operation, self.below_root(key), began, &answer);
        let answer = answer?;
        let at = self.saw(answer.header().map_or(0, |h| h.revision()));
        if answer.succeeded() {
            return Ok(Outcome::Done(at));
        }
        let found = answer.op_responses().into_iter().find_map(|op| match op {
            TxnOpResponse::Get(mut got) => got.take_kvs().into_iter().next(),
            _ => None,
        });
        Ok(Outcome::Changed(found.map(KeyValue::from)))
    }

    /// Reads `key` by a linearizable read.
    pub async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        let began = Instant::now();
        let answer = within(self.kv.clone().get(key, None)).await;
        self.measured.note("get", self.below_root(key), began, &answer);
        Ok(answer?.take_kvs().into_iter().next().map(KeyValue::from))
    }

    /// One page of the keys from `start` to before `end`, as of `revision` (zero for now), with the revision it shows.
    pub(super) async fn page(
        &self,
        start: Vec<u8>,
        end: Vec<u8>,
        revision: i64,
    ) -> Result<(Vec<etcd_client::KeyValue>, bool, i64)> {
        let options = GetOptions::new().with_range(end).with_limit(PAGE).with_revision(revision);
        let (began, key) = (Instant::now(), String::from_utf8_lossy(&start).into_owned());
        let answer = within(self.kv.clone().get(start, Some(options))).await;
        self.measured.note("list", self.below_root(&key), began, &answer);
        let mut answer = answer?;
        let at = answer.header().map_or(0, |h| h.revision());
        Ok((answer.take_kvs(), answer.more(), at))
    }

    /// Opens the watch over all keys from `revision` on.
    pub(super) async fn watch(&self, revision: i64) -> std::result::Result<WatchStream, etcd_client::Error> {
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(revision)
            .with_progress_notify()
            .with_fragment();
        self.watch.clone().watch(self.root(), Some(options)).await
    }

    /// A lease that lasts `ttl`; calls within a while share one, so that keys expire in few revisions.
    pub async fn shared_lease(&self, ttl: Duration) -> Result<i64> {
        let mut current = self.event_lease.lock().await;
        if let Some((id, made)) = *current
            && made.elapsed() < self.lease_reuse
        {
            return Ok(id);
        }
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX / 2);
        let seconds = seconds + i64::try_from(self.lease_reuse.as_secs()).unwrap_or(0);
        let id = self.lease(seconds).await?;
        *current = Some((id, Instant::now()));
        Ok(id)
    }

    /// A lease of its own for `seconds`.
    pub(crate) async fn lease(&self, seconds: i64) -> Result<i64> {
        Ok(within(self.client.clone().lease_grant(seconds, None)).await?.id())
    }

    /// Checks that etcd answers: the `etcd` health check.
    pub async fn ping(&self) -> Result<()> {
        self.revision().await.map(|_| ())
    }

    /// The URLs of the members, one by one.
    pub fn members(&self) -> &[String] {
        &self.config.endpoints
    }

    /// Checks that one member answers, on a connection of its own.
    pub async fn ping_member(&self, url: &str) -> anyhow::Result<()> {
        let client = connection::to(url, &self.config).await?;
        client.kv_client().get(format!("{}/health", self.prefix), None).await?;
        Ok(())
    }

    /// One round of upstream's compaction protocol: whoever moves `compact_rev_key` first compacts. Takes and returns
    /// the version of the key and the revision seen, to be compacted in the next round.
    pub async fn compact(&self, version: i64, revision: i64) -> Result<(i64, i64)> {
        const KEY: &str = "compact_rev_key";
        let txn = Txn::new()
            .when([Compare::version(KEY, CompareOp::Equal, version)])
            .and_then([TxnOp::put(KEY, revision.to_string(), None)])
            .or_else([TxnOp::get(KEY, None)]);
        let answer = within(self.kv.clone().txn(txn)).await?;
        let now = answer.header().map_or(0, |h| h.revision());
        if !answer.succeeded() {
            let current = answer.op_responses().into_iter().find_map(|op| match op {
                TxnOpResponse::Get(got) => got.kvs().first().map(etcd_client::KeyValue::version),
                _ => None,
            });
            return Ok((current.unwrap_or(0), now));
        }
        if revision > 0 {
            within(self.kv.clone().compact(revision, None)).await?;
        }
        Ok((version + 1, now))
    }
}

/// The first key after all keys with this prefix.
pub(super) fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// Bounds a request to etcd in time and turns its failure into the API's error.
async fn within<T>(request: impl Future<Output = std::result::Result<T, etcd_client::Error>>) -> Result<T> {
    match tokio::time::timeout(REQUEST_LIMIT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(refused(&e)),
        Err(_) => Err(ApiError::timeout("etcdserver: request timed out", 1)),
    }
}

fn refused(e: &etcd_client::Error) -> ApiError {
    let text = e.to_string();
    if text.contains("database space exceeded") {
        let why = "etcdserver: mvcc: database space exceeded: compact and defragment etcd, raise its quota, then disarm the alarm";
        return ApiError::internal(why);
    }
    if let etcd_client::Error::GRpcStatus(s) = e
        && s.code() == tonic::Code::Unavailable
    {
        // The feed tells of it.
        return ApiError::unavailable(format!("etcd is not reachable: {}", s.message()));
    }
    tracing::warn!(error = %text, "etcd refused a request");
    match e {
        etcd_client::Error::GRpcStatus(s) => ApiError::internal(s.message()),
        _ => ApiError::internal(text),
    }
}
