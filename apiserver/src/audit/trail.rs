//! What is gathered of one request while it passes.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use api::Value;
use bytes::Bytes;
use http::HeaderMap;
use http::Response;
use http::header::USER_AGENT;
use http::request::Parts;
use http_body_util::BodyExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use serve::{Body, RemoteAddr};

use super::Auditor;
use super::event::{Json, ObjectReference, Record};
use super::policy::{Decision, Level, Stage};
use crate::authn::UserInfo;
use crate::authz::Attributes;
use crate::metrics::Streaming;

/// Longer names of clients are cut.
const USER_AGENT_LIMIT: usize = 1024;

/// What is gathered of a request; empty when nothing is recorded. Clones share it.
#[derive(Clone, Default)]
pub struct Trail(Option<Arc<Inner>>);

struct Inner {
    auditor: Arc<Auditor>,
    decision: OnceLock<Decision>,
    /// Nobody was authenticated.
    anonymous: AtomicBool,
    /// The last event was made.
    ended: AtomicBool,
    record: Mutex<Record>,
}

/// What an answer shows, for those who record it. An extension of responses.
#[derive(Clone)]
pub struct Answer {
    /// The `Status` that it is, if it is one.
    pub status: Option<Value>,
    /// The answer as JSON, where that is recorded.
    pub json: Option<Bytes>,
}

/// The end of a stream: its last clone to go tells that the answer is complete.
#[derive(Clone, Default)]
pub struct Completion {
    recorded: Option<Arc<Last>>,
    counted: Option<Arc<Streaming>>,
}

struct Last(Trail);

impl Completion {
    /// Ends with the body of the response, if not later.
    pub fn follow(self, response: Response<Body>) -> Response<Body> {
        if self.recorded.is_none() && self.counted.is_none() {
            return response;
        }
        let held = move |frame| {
            let _ = &self;
            frame
        };
        response.map(|body| body.map_frame(held).boxed_unsync())
    }

    /// Counts the stream for as long as it lasts.
    pub fn counting(self, streaming: Streaming) -> Self {
        Self { counted: Some(Arc::new(streaming)), ..self }
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        let trail = std::mem::take(&mut self.0);
        let Some(inner) = &trail.0 else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let late = inner.auditor.late.clone();
            late.spawn_on(async move { trail.stage(Stage::ResponseComplete).await }, &runtime);
        }
    }
}

impl Trail {
    /// The trail of a request that came just now.
    pub fn begin(auditor: &Arc<Auditor>, id: &str) -> Self {
        let record = Record { id: id.to_owned(), received: Timestamp::now(), ..Record::default() };
        Self(Some(Arc::new(Inner {
            auditor: auditor.clone(),
            decision: OnceLock::new(),
            anonymous: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            record: Mutex::new(record),
        })))
    }

    /// How much of the request is recorded.
    pub fn level(&self) -> Level {
        self.decision().map_or(Level::None, |d| d.level)
    }

    fn decision(&self) -> Option<&Decision> {
        self.0.as_ref()?.decision.get()
    }

    /// The record, if something is recorded at `least` this level.
    fn record(&self, least: Level) -> Option<parking_lot::MutexGuard<'_, Record>> {
        let inner = self.0.as_ref()?;
        // Before the decision everything is kept that may be needed.
        let level = inner.decision.get().map_or(Level::Metadata, |d| d.level);
        (level >= least && level > Level::None).then(|| inner.record.lock())
    }

    /// Decides how much is recorded, and records who asks what; `user` is none when nobody was authenticated.
    pub fn describe(&self, what: &Attributes<'_>, head: &Parts, user: Option<&UserInfo>) {
        let Some(inner) = &self.0 else { return };
        inner.anonymous.store(user.is_none(), Ordering::Relaxed);
        let decision = inner.auditor.policy.decide(what, user);
        if inner.decision.set(decision).is_err() {
            return;
        }
        inner.auditor.metrics.levels.with_label_values(&[decision.level.name()]).inc();
        let Some(mut record) = self.record(Level::Metadata) else { return };
        record.level = decision.level;
        record.verb = what.verb.to_owned();
        record.uri = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        record.user_agent = user_agent(&head.headers);
        record.source_ips = source_ips(head);
        record.user = user.map(Into::into).unwrap_or_default();
        if !what.resource.is_empty() {
            record.object = Some(ObjectReference {
                resource: what.resource.to_owned(),
                namespace: what.namespace.to_owned(),
                name: what.name.to_owned(),
                api_group: what.group.to_owned(),
                api_version: what.version.to_owned(),
                subresource: what.subresource.to_owned(),
                ..ObjectReference::default()
            });
        }
    }

    /// Records whom the user acts as, and by which constraint.
    pub fn impersonates(&self, user: &UserInfo, constraint: &str) {
        if let Some(mut record) = self.record(Level::Metadata) {
            record.impersonated = Some(user.into());
            record.constraint = constraint.to_owned();
        }
    }

    /// Adds an annotation; the first of a key stays.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        self.annotate_at(Level::Metadata, key, value);
    }

    /// Adds an annotation where at least this level is recorded.
    pub fn annotate_at(&self, least: Level, key: impl Into<String>, value: impl Into<String>) {
        if let Some(mut record) = self.record(least) {
            let (key, value) = (key.into(), value.into());
            let kept = record.annotations.entry(key.clone()).or_insert_with(|| value.clone());
            if *kept != value {
                tracing::warn!(
                    key,
                    value,
                    kept = kept.as_str(),
                    "an annotation of an audit event is set already"
                );
            }
        }
    }

    /// Records the object in the body of a request. `whole` makes it as upstream would show it; it is called where bodies
    /// are recorded.
    pub fn request_object(&self, object: &Value, whole: impl FnOnce() -> Value) {
        let Some(mut record) = self.record(Level::Metadata) else { return };
        let reference = record.object.get_or_insert_default();
        let fill = |field: &mut String, value: &str| {
            if field.is_empty() {
                value.clone_into(field);
            }
        };
        fill(&mut reference.namespace, object.namespace());
        fill(&mut reference.name, object.name());
        fill(&mut reference.uid, object.uid());
        fill(&mut reference.resource_version, object.resource_version());
        if record.level < Level::Request {
            return;
        }
        let mut object = whole();
        if self.decision().is_some_and(|d| d.omit_managed_fields) {
            forget_managed_fields(&mut object);
        }
        record.request = Json::new(object.to_json());
    }

    /// Records a patch, as JSON.
    pub fn request_patch(&self, patch: impl FnOnce() -> Vec<u8>) {
        if let Some(mut record) = self.record(Level::Request) {
            record.request = Json::new(patch());
        }
    }

    /// Records the code of the answer, and what it shows.
    pub fn answered(&self, code: u16, answer: Option<Answer>) {
        let Some(mut record) = self.record(Level::Metadata) else { return };
        let (status, json) = answer.map_or((None, None), |a| (a.status, a.json));
        let mut shown = api::object!({"metadata": {}});
        for field in ["status", "message", "reason", "details"] {
            let value = status.as_ref().map_or(&Value::Null, |s| s.get(field));
            if !value.is_empty() {
                shown.set(&[field], value);
            }
        }
        shown.set(&["code"], i64::from(code));
        record.status = Some(shown);
        if record.level < Level::RequestResponse {
            return;
        }
        let json = json.or_else(|| status.map(|s| s.to_json().into()));
        record.response = json.and_then(|json| {
            let pretty = json.trim_ascii_end().contains(&b'\n');
            let omits = self.decision().is_some_and(|d| d.omit_managed_fields);
            if !pretty && !omits {
                return Json::new(json.trim_ascii_end().to_vec());
            }
            let mut value = api::json::decode(&json).ok()?.value;
            if omits {
                forget_managed_fields(&mut value);
            }
            Json::new(value.to_json())
        });
    }

    /// Hands the event of a stage to the backends; false when it could not be recorded although it must be.
    pub async fn stage(&self, stage: Stage) -> bool {
        let Some(inner) = &self.0 else { return true };
        let Some(decision) = inner.decision.get() else { return true };
        if decision.level == Level::None || decision.omitted.contains(stage) {
            return true;
        }
        let last = matches!(stage, Stage::ResponseComplete | Stage::Panic);
        if last && inner.ended.swap(true, Ordering::Relaxed) {
            return true;
        }
        let deliveries = {
            let record = inner.record.lock();
            let at = if stage == Stage::RequestReceived { record.received } else { Timestamp::now() };
            inner.auditor.render(&record, stage, at)
        };
        inner.auditor.deliver(deliveries).await
    }

    /// True when nobody was authenticated: such a request has a beginning of an answer, and nothing else.
    pub fn is_anonymous(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.anonymous.load(Ordering::Relaxed))
    }

    /// Counts a request that is refused because it cannot be recorded.
    pub fn rejected(&self) {
        if let Some(inner) = &self.0 {
            inner.auditor.metrics.rejected.inc();
        }
    }

    /// The end of a stream: when the last clone goes, the answer is complete.
    pub fn completion(&self) -> Completion {
        let recorded = (self.level() > Level::None).then(|| Arc::new(Last(self.clone())));
        Completion { recorded, counted: None }
    }
}

fn forget_managed_fields(value: &mut Value) {
    let mut forget = |object: &mut Value| {
        object.remove_at(&["metadata", "managedFields"]);
    };
    forget(value);
    for list in ["items", "rows"] {
        let Some(items) = value.at_mut(&[list]).and_then(Value::as_array_mut) else { continue };
        for item in items {
            match list {
                "items" => forget(item),
                _ => item.at_mut(&["object"]).map_or((), &mut forget),
            }
        }
    }
}

fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match agent.get(..USER_AGENT_LIMIT) {
        Some(cut) if agent.len() > USER_AGENT_LIMIT => format!("{cut}...TRUNCATED"),
        _ => agent.to_owned(),
    }
}

/// Where a request comes from: what proxies say, and last the address of the connection.
fn source_ips(head: &Parts) -> Vec<String> {
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut ips: Vec<IpAddr> =
        header("x-forwarded-for").split(',').filter_map(|part| part.trim().parse().ok()).collect();
    if let Ok(ip) = header("x-real-ip").parse()
        && !ips.contains(&ip)
    {
        ips.push(ip);
    }
    if let Some(RemoteAddr(address)) = head.extensions.get() {
        let ip = address.ip().to_canonical();
        if ips.last() != Some(&ip) {
            ips.push(ip);
        }
    }
    ips.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_of_a_request_are_told() {
        let mut request = http::Request::get("/").body(()).unwrap();
        let headers = request.headers_mut();
        headers.insert("x-forwarded-for", "10.0.0.1, nonsense, 10.0.0.2".parse().unwrap());
        headers.insert("x-real-ip", "10.0.0.1".parse().unwrap());
        request.extensions_mut().insert(RemoteAddr("[::ffff:10.0.0.3]:77".parse().unwrap()));
        assert_eq!(source_ips(&request.into_parts().0), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }

    #[test]
    fn managed_fields_are_forgotten_everywhere() {
        let object = || api::object!({"metadata": {"name": "a", "managedFields": [{}]}});
        let bare = || api::object!({"metadata": {"name": "a"}});
        let mut one = object();
        forget_managed_fields(&mut one);
        assert_eq!(one, bare());
        let mut list = api::object!({"items": [(object())], "rows": [{"object": (object())}, {}]});
        forget_managed_fields(&mut list);
        assert_eq!(list, api::object!({"items": [(bare())], "rows": [{"object": (bare())}, {}]}));
    }

    #[test]
    fn long_names_of_clients_are_cut() {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, "x".repeat(2000).parse().unwrap());
        assert_eq!(user_agent(&headers).len(), USER_AGENT_LIMIT + "...TRUNCATED".len());
    }
}
