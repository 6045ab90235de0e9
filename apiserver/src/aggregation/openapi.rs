//! The OpenAPI documents of other servers: merged into version 2, listed and handed through in version 3, which is made
//! of version 2 for servers that know no other.
//!
//! They are read when a client asks for a document, and again when they are older than a minute; nobody pays for them
//! otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Map, Value};
use http::StatusCode;
use http::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::openapi_convert::convert;
use super::openapi_merge::{filter, merge};
use super::transport::Answer;
use super::{Aggregation, Remote};
use crate::authn::UserInfo;
use crate::proxy::authority;
use crate::storage::Storage;

/// How long a document is taken for what the server has.
const FRESH: Duration = Duration::from_secs(60);
/// How long an answer may take, and how large it may be.
const LIMITS: (Duration, usize) = (Duration::from_secs(10), 8 << 20);

/// What was read of each APIService.
#[derive(Default)]
pub struct Documents(Mutex<Read>, Asking);

/// One client at a time has others asked; who comes meanwhile finds what they said.
type Asking = tokio::sync::Mutex<()>;

#[derive(Default)]
struct Read {
    /// Grows whenever a document turns out to be another.
    serial: u64,
    known: BTreeMap<(String, &'static str), Known>,
}

#[derive(Clone)]
struct Known {
    revision: i64,
    at: Instant,
    etag: String,
    /// None when the server has no such document, or gave none.
    document: Option<Arc<Value>>,
    /// The server has said that it has no such document.
    absent: bool,
}

/// A version 3 document of another server.
pub enum Theirs {
    /// It is there.
    At(Arc<Remote>),
    /// It was made of the version 2 document.
    Made(Value),
}

impl Aggregation {
    /// A number that changes with the version 2 documents of the others, which are read now unless they are fresh.
    pub async fn refresh_v2(&self, storage: &Storage) -> u64 {
        self.refresh(storage, "/openapi/v2").await
    }

    async fn refresh(&self, storage: &Storage, path: &'static str) -> u64 {
        let services = self.remotes(storage);
        if services.remotes.is_empty() && self.documents.0.lock().known.is_empty() {
            return self.documents.0.lock().serial;
        }
        let _asking = self.documents.1.lock().await;
        {
            let mut read = self.documents.0.lock();
            let before = read.known.len();
            read.known.retain(|(name, _), _| services.remotes.contains_key(name));
            read.serial += u64::from(read.known.len() != before);
        }
        let available = services.remotes.values().filter(|r| r.available && !r.group.is_empty());
        futures::future::join_all(available.map(|remote| self.refresh_one(storage, remote, path))).await;
        self.documents.0.lock().serial
    }

    async fn refresh_one(&self, storage: &Storage, remote: &Remote, path: &'static str) {
        let key = (remote.name.clone(), path);
        let known = self.documents.0.lock().known.get(&key).cloned();
        let same = known.filter(|k| k.revision == remote.revision);
        if same.as_ref().is_some_and(|k| k.at.elapsed() < FRESH) {
            return;
        }
        let etag = same.as_ref().map(|k| k.etag.clone()).unwrap_or_default();
        let answer = self.ask(storage, remote, path, &etag).await;
        let absent = answer.as_ref().is_ok_and(|a| a.status == StatusCode::NOT_FOUND);
        let (etag, document) = match answer {
            Ok(a) if a.status == StatusCode::NOT_MODIFIED => (etag, same.and_then(|k| k.document)),
            Ok(a) if a.status == StatusCode::OK => {
                let tag = a.headers.get(ETAG).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
                let decoded = api::json::decode(&a.body).ok().map(|d| d.value);
                (tag, decoded.map(|d| Arc::new(own(d, remote, path))))
            }
            // What it had before is still shown while it does not answer.
            Err(why) => {
                tracing::debug!(name = remote.name, path, why, "no OpenAPI of another server");
                (etag, same.and_then(|k| k.document))
            }
            Ok(_) => (String::new(), None),
        };
        let mut read = self.documents.0.lock();
        let before = read.known.get(&key).and_then(|k| k.document.clone());
        read.serial += u64::from(before != document);
        read.known
            .insert(key, Known { revision: remote.revision, at: Instant::now(), etag, document, absent });
    }

    async fn ask(
        &self,
        storage: &Storage,
        remote: &Remote,
        path: &str,
        etag: &str,
    ) -> Result<Answer, String> {
        let (host, port) = self.address(storage, remote)?;
        let transport = remote.backend.transport(&self.identity).await?;
        let mut headers = vec![(ACCEPT, "application/json")];
        if !etag.is_empty() {
            headers.push((IF_NONE_MATCH, etag));
        }
        let user = UserInfo { name: "system:aggregator".to_owned(), ..UserInfo::default() };
        transport.ask(&format!("https://{}{path}", authority(&host, port)), &user, &headers, LIMITS).await
    }

    fn known(&self, remote: &Remote, path: &'static str) -> Option<Arc<Value>> {
        self.documents.0.lock().known.get(&(remote.name.clone(), path))?.document.clone()
    }

    /// Adds what others serve to the version 2 document of this server; of paths and definitions that are there already
    /// those of the more important group stay.
    pub fn merge_v2(&self, storage: &Storage, document: &mut Value) {
        let services = self.remotes(storage);
        let mut remotes: Vec<&Arc<Remote>> = services.remotes.values().collect();
        remotes.sort_by(|a, b| {
            let by_group = b.group_priority.cmp(&a.group_priority).then_with(|| a.group.cmp(&b.group));
            by_group
                .then_with(|| b.version_priority.cmp(&a.version_priority))
                .then_with(|| a.name.cmp(&b.name))
        });
        for remote in remotes {
            if let Some(theirs) = self.known(remote, "/openapi/v2") {
                merge(document, &theirs);
            }
        }
    }

    /// Adds the version 3 documents of others to the list of documents.
    // DIVERGES: upstream lists whatever another server lists, also documents of groups that are not its own.
    pub async fn list_v3(&self, storage: &Storage, paths: &mut Map) {
        self.refresh(storage, "/openapi/v3").await;
        for remote in self.remotes(storage).remotes.values().filter(|r| r.available && !r.group.is_empty()) {
            if self.has_no_v3(remote) {
                self.refresh_one(storage, remote, "/openapi/v2").await;
                if let Some(theirs) = self.known(remote, "/openapi/v2") {
                    let path = format!("apis/{}/{}", remote.group, remote.version);
                    let hash = crate::openapi::tag(&theirs.to_json());
                    let url = format!("/openapi/v3/{path}?hash={hash}");
                    paths.insert(path, api::object!({"serverRelativeURL": url}));
                }
                continue;
            }
            let Some(theirs) = self.known(remote, "/openapi/v3") else { continue };
            for (path, value) in theirs.as_object().into_iter().flat_map(|m| m.iter()) {
                paths.insert(path, value);
            }
        }
    }

    fn has_no_v3(&self, remote: &Remote) -> bool {
        let key = (remote.name.clone(), "/openapi/v3");
        self.documents.0.lock().known.get(&key).is_some_and(|k| k.absent)
    }

    /// The version 3 document of `apis/GROUP/VERSION` or `apis/GROUP` of another server.
    pub async fn v3(&self, storage: &Storage, path: &str) -> Option<Theirs> {
        let remote = self.behind(storage, path)?;
        if remote.available {
            self.refresh_one(storage, &remote, "/openapi/v3").await;
        }
        if !self.has_no_v3(&remote) {
            return Some(Theirs::At(remote));
        }
        self.refresh_one(storage, &remote, "/openapi/v2").await;
        let theirs = self.known(&remote, "/openapi/v2")?;
        Some(Theirs::Made(convert(&theirs)))
    }

    fn behind(&self, storage: &Storage, path: &str) -> Option<Arc<Remote>> {
        let services = self.remotes(storage);
        let mut segments = path.strip_prefix("apis/")?.split('/');
        let (group, version) = (segments.next()?, segments.next());
        if segments.next().is_some() {
            return None;
        }
        let mut all = services.remotes.values();
        all.find(|r| r.group == group && version.is_none_or(|v| r.version == v)).cloned()
    }
}

/// What of a document is about the version that is registered.
fn own(document: Value, remote: &Remote, path: &str) -> Value {
    if path == "/openapi/v2" {
        return filter(document, |p| p.starts_with(&format!("/apis/{}/{}/", remote.group, remote.version)));
    }
    let group = format!("apis/{}", remote.group);
    let version = format!("{group}/{}", remote.version);
    let mut out = Map::new();
    for (path, value) in document.get("paths").as_object().into_iter().flat_map(|m| m.iter()) {
        // Addresses lead to this server, which knows where to ask.
        let here = value.str_at(&["serverRelativeURL"]).starts_with(&format!("/openapi/v3/{path}"));
        if (path == group || path == version) && here {
            out.insert(path, api::object!({"serverRelativeURL": (value.str_at(&["serverRelativeURL"]))}));
        }
    }
    Value::Object(out)
}
