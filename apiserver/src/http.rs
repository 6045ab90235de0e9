//! From a request to its answer: the one chain that every request passes.
//!
//! request info -> authentication -> audit -> impersonation -> priority and fairness -> authorization -> dispatch. A panic
//! in a handler costs its request and nothing else.

mod impersonation;
mod warnings;

pub use warnings::Warnings;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::error::Result;
use api::{ApiError, names};
use bytes::Bytes;
use futures::FutureExt;
use http::header::{
    CACHE_CONTROL, HOST, HeaderValue, RETRY_AFTER, STRICT_TRANSPORT_SECURITY, USER_AGENT, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serve::{Body, PeerCertificates};

use crate::audit::{Answer, Completion, Level, Stage, Trail};
use crate::authn::UserInfo;
use crate::authn::service_account::Examined;
use crate::authz::{Attributes, Decision};
use crate::fairness::Flow;
use crate::handlers;
use crate::metrics::{Asked, Elsewhere};
use crate::negotiate::{Form, Include, Offer, Shape};
use crate::render::gzip;
use crate::request::{Query, RequestInfo};
use crate::server::Server;

/// Nothing is decided from caches that are empty because etcd has not been read yet; a request waits for this long.
const LOADING_LIMIT: Duration = Duration::from_secs(5);
/// The header with the name of a request in the audit log.
const AUDIT_ID: &str = "audit-id";

/// A request on its way through the chain.
pub struct Exchange {
    /// The server.
    pub server: Arc<Server>,
    /// What is asked for.
    pub info: RequestInfo,
    /// The query.
    pub query: Query,
    /// The sender.
    pub user: UserInfo,
    /// Method, path and headers as they came.
    pub head: http::request::Parts,
    /// What the client is told besides the answer.
    pub warnings: Warnings,
    /// What is recorded of the request.
    pub trail: Trail,
    /// Held by what goes on after the head of the answer.
    pub completion: Completion,
    /// Time that the request spends with others.
    pub elsewhere: Elsewhere,
    /// A custom resource is asked for, which has no protobuf form.
    pub custom: bool,
    body: Unread,
}

/// Resources that are served but should not be used any more.
fn deprecation(info: &RequestInfo) -> Option<Deprecation> {
    let (since, until, instead) = match (info.group.as_str(), info.version.as_str(), info.resource.as_str()) {
        ("", "v1", "endpoints") => {
            ("Endpoints is deprecated in v1.33+", "", "discovery.k8s.io/v1 EndpointSlice")
        }
        ("", "v1", "componentstatuses") => ("ComponentStatus is deprecated in v1.19+", "", ""),
        ("networking.k8s.io", "v1beta1", "ipaddresses") => ("IPAddress is deprecated in v1.34+", "1.37", ""),
        ("networking.k8s.io", "v1beta1", "servicecidrs") => {
            ("ServiceCIDR is deprecated in v1.34+", "1.37", "")
        }
        ("storage.k8s.io", "v1beta1", "volumeattributesclasses") => {
            let since = "VolumeAttributesClass is deprecated in v1.34+";
            (since, "1.37", "storage.k8s.io/v1 VolumeAttributesClass")
        }
        ("admissionregistration.k8s.io", "v1alpha1", "mutatingadmissionpolicies") => {
            ("MutatingAdmissionPolicy is deprecated in v1.35+", "1.38", "")
        }
        ("admissionregistration.k8s.io", "v1alpha1", "mutatingadmissionpolicybindings") => {
            ("MutatingAdmissionPolicyBinding is deprecated in v1.35+", "1.38", "")
        }
        _ => return None,
    };
    Some(Deprecation { since, until, instead })
}

/// What is known of something that should not be used any more.
struct Deprecation {
    /// Its kind, and since when.
    since: &'static str,
    /// The release that has it no more; empty where that is not known.
    until: &'static str,
    /// What is to be used instead; may be empty.
    instead: &'static str,
}

impl Deprecation {
    fn text(&self, info: &RequestInfo) -> String {
        let group = if info.group.is_empty() { String::new() } else { format!("{}/", info.group) };
        let mut text = format!("{group}{} {}", info.version, self.since);
        if !self.until.is_empty() {
            text.push_str(&format!(", unavailable in v{}+", self.until));
        }
        if !self.instead.is_empty() {
            text.push_str(&format!("; use {}", self.instead));
        }
        text
    }
}

fn user_agent(headers: &HeaderMap) -> &str {
    headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// True when JSON is to be laid out for people: on demand, and for those who come with a browser or curl.
fn is_pretty(query: &Query, headers: &HeaderMap) -> bool {
    match query.get("pretty") {
        "" => ["curl", "Wget", "Mozilla/5.0"].iter().any(|p| user_agent(headers).starts_with(p)),
        asked => matches!(asked, "1" | "t" | "T" | "TRUE" | "true" | "True"),
    }
}

impl Exchange {
    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The form of the answer that the client wants.
    pub fn form(&self) -> Result<Form> {
        self.form_with(true)
    }

    /// The form of an answer that has no columns: of a request for an action.
    pub fn form_of_action(&self) -> Result<Form> {
        self.form_with(false)
    }

    fn form_with(&self, tables: bool) -> Result<Form> {
        let offer = Offer { protobuf: !self.custom, tables, shapes: true };
        self.form_of(offer)
    }

    /// The form of a document, which has one shape.
    pub fn form_of_document(&self) -> Result<Form> {
        self.form_of(Offer::PLAIN)
    }

    fn form_of(&self, offer: Offer) -> Result<Form> {
        let mut form = Form::negotiate(self.headers(), is_pretty(&self.query, self.headers()), offer)?;
        if form.shape == Shape::Table {
            form.include = Include::parse(self.query.get("includeObject"))?;
        }
        form.gzip = self.packs();
        form.recorded = self.trail.level();
        Ok(form)
    }

    /// True when the client takes compressed answers, and the server makes them.
    pub fn packs(&self) -> bool {
        gzip::is_accepted(self.headers()) && self.server.config.gates.enabled("APIResponseCompression")
    }

    /// The user agent.
    pub fn user_agent(&self) -> &str {
        user_agent(self.headers())
    }

    /// Tells that the resource should not be used any more, if that is so.
    pub fn warn_of_deprecation(&self) {
        if let Some(deprecation) = deprecation(&self.info) {
            self.warnings.add(deprecation.text(&self.info));
            self.trail.annotate("k8s.io/deprecated", "true");
            if !deprecation.until.is_empty() {
                self.trail.annotate("k8s.io/removed-release", deprecation.until);
            }
            self.server.metrics.requests.deprecated(&self.info, deprecation.until);
        }
    }

    /// Reads the whole body, up to the limit.
    pub async fn body(&mut self) -> Result<Bytes> {
        let Some(mut body) = self.take_body() else { return Ok(Bytes::new()) };
        let limit = self.server.config.max_body;
        let read = Limited::new(&mut body, limit).collect();
        match tokio::time::timeout(self.server.config.request_timeout, read).await {
            Ok(Ok(collected)) => {
                let body = collected.to_bytes();
                self.server.metrics.requests.body(&self.info, body.len());
                Ok(body)
            }
            Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
                // Whoever is still sending would not get to read the answer.
                discard(body, limit).await;
                Err(ApiError::too_large(limit))
            }
            Ok(Err(e)) => {
                Err(ApiError::bad_request(format!("the body of the request could not be read: {e}")))
            }
            Err(_) => Err(ApiError::timeout("the body of the request did not arrive in time", 0)),
        }
    }

    /// The body as it comes in, to be handed on.
    pub fn take_body(&mut self) -> Option<Incoming> {
        self.body.0.lock().take()
    }
}

/// The body of a request, as long as nobody reads it.
#[derive(Clone)]
struct Unread(Arc<Mutex<Option<Incoming>>>);

impl Unread {
    /// Reads what is left of a small body, so that the connection can be used again after an answer that did not need it.
    async fn drain(&self) {
        const SMALL: usize = 256 << 10;
        let body = self.0.lock().take();
        if let Some(body) = body {
            discard(body, SMALL).await;
        }
    }
}

/// Reads so much of a body and forgets it. A body that is larger, or late, costs its sender the connection.
async fn discard(mut body: Incoming, most: usize) {
    let read = async {
        let mut left = most;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = rest;
        }
    };
    drop(tokio::time::timeout(Duration::from_secs(1), read).await);
}

/// What is wrong with a request that Go's servers refuse before anything looks at it.
fn malformed(head: &http::request::Parts) -> Option<&'static str> {
    if head.version == http::Version::HTTP_11 && !head.headers.contains_key(HOST) {
        return Some("400 Bad Request: missing required Host header");
    }
    (!crate::request::is_escaped(head.uri.path())).then_some("400 Bad Request")
}

/// Answers a request.
pub async fn handle(server: Arc<Server>, request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let (mut head, body) = request.into_parts();
    if let Some(why) = malformed(&head) {
        return crate::render::respond(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", why);
    }
    let query = Query::parse(head.uri.query());
    let info = RequestInfo::new(&head.method, head.uri.path(), &query);
    if info.is_verb_alone() {
        let path = head.uri.path();
        let why =
            format!("failed to create RequestInfo: unable to determine kind and namespace from url, {path}");
        let shown = api::field::go_quote(path);
        let told = format!("Internal Server Error: {shown}: {why}\n");
        return serve::text(StatusCode::INTERNAL_SERVER_ERROR, told);
    }
    // A client that accepts nothing of what errors are told in reads them as JSON.
    let form = Form::negotiate(&head.headers, is_pretty(&query, &head.headers), Offer::PLAIN)
        .unwrap_or(Form { pretty: true, ..Form::default() });
    let warnings = Warnings::default();
    let id = audit_id(&head.headers);
    let named = HeaderValue::from_str(&id).ok();
    if let Some(named) = &named {
        // Other servers to which the request goes record it by the same name.
        head.headers.insert(AUDIT_ID, named.clone());
    }
    let trail = server.auditor.as_ref().map_or_else(Trail::default, |a| Trail::begin(a, &id));
    let asked = Asked::of(&head, &info, &query);
    let elsewhere = Elsewhere::default();
    let exchange = Exchange {
        server: server.clone(),
        info: info.clone(),
        query,
        user: UserInfo::default(),
        head,
        warnings: warnings.clone(),
        trail: trail.clone(),
        completion: Completion::default(),
        elsewhere: elsewhere.clone(),
        custom: false,
        body: Unread(Arc::new(Mutex::new(Some(body)))),
    };
    let mut passage = Passage::default();
    let result = AssertUnwindSafe(pass(exchange, &mut passage)).catch_unwind().await;
    let panicked = result.is_err();
    let mut response = match result {
        Ok(Ok(response)) => response,
        Ok(Err(e)) => refused(&e, form, &trail),
        Err(_) => {
            tracing::error!(path = info.path, verb = info.verb, "a handler panicked");
            refused(&ApiError::internal("the server has encountered an unexpected condition"), form, &trail)
        }
    };
    let answer = response.extensions_mut().remove::<Answer>();
    trail.answered(response.status().as_u16(), answer);
    if panicked {
        trail.stage(Stage::Panic).await;
    } else if trail.is_anonymous() {
        trail.stage(Stage::ResponseStarted).await;
    } else if info.is_long_running() {
        trail.stage(Stage::ResponseStarted).await;
        response = passage.completion.follow(response);
    } else {
        trail.stage(Stage::ResponseComplete).await;
    }
    let headers = response.headers_mut();
    warnings.write(headers);
    if let Some(value) = &server.config.transport_security {
        headers.insert(STRICT_TRANSPORT_SECURITY, value.clone());
    }
    passage.flow.write(headers);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    if let Some(named) = named {
        headers.entry(AUDIT_ID).or_insert(named);
    }
    let known = is_known(&server, &info);
    let requests = &server.metrics.requests;
    response = requests.answered(&asked, known, response, started.elapsed(), &elsewhere);
    if passage.terminated {
        requests.terminated(&asked, known, response.status());
    }
    tracing::debug!(
        verb = info.verb,
        path = info.path,
        code = response.status().as_u16(),
        ms = started.elapsed().as_millis() as u64,
        "request"
    );
    response
}

/// True when a resource, or a part of one, is asked for that this server has.
fn is_known(server: &Server, info: &RequestInfo) -> bool {
    let row = server.storage.resource(&info.group, &info.version, &info.resource);
    row.is_some_and(|row| info.subresource.is_empty() || row.subresource(&info.subresource).is_some())
}

/// The name that the client gave the request, or a new one.
fn audit_id(headers: &HeaderMap) -> String {
    let given = headers.get(AUDIT_ID).and_then(|v| v.to_str().ok()).filter(|id| !id.is_empty());
    given.map_or_else(names::new_uid, str::to_owned)
}

/// The answer that tells of an error, and what is recorded of it.
fn refused(e: &ApiError, form: Form, trail: &Trail) -> Response<Body> {
    let mut response = refuse(e, form);
    if trail.level() > Level::None {
        response.extensions_mut().insert(Answer { status: Some(e.to_value()), json: None });
    }
    response
}

/// What is to be told of a request's way when it has been answered.
#[derive(Default)]
struct Passage {
    flow: Flow,
    completion: Completion,
    /// The server gave it up to save itself.
    terminated: bool,
}

async fn pass(exchange: Exchange, passage: &mut Passage) -> Result<Response<Body>> {
    let unread = exchange.body.clone();
    if exchange.info.is_long_running() {
        let answer = answer(exchange, passage, &unread).await;
        if answer.is_err() {
            unread.drain().await;
        }
        return answer;
    }
    let limit = match deadline(&exchange) {
        Ok(limit) => limit,
        Err(e) => {
            unread.drain().await;
            return Err(e);
        }
    };
    let answer = tokio::time::timeout(limit, answer(exchange, passage, &unread)).await;
    unread.drain().await;
    answer.unwrap_or_else(|_| {
        passage.terminated = true;
        Err(ApiError::timeout("request did not complete within the allotted timeout", 0))
    })
}

/// How long the request may take: what the client says, but no longer than any request.
fn deadline(exchange: &Exchange) -> Result<Duration> {
    let most = exchange.server.config.request_timeout;
    let text = exchange.query.get("timeout");
    if text.is_empty() {
        return Ok(most);
    }
    let why = "invalid timeout specified in the request URL";
    // What is over before it begins says nothing.
    let amount = text.strip_prefix('-');
    let wanted: daemon::GoDuration =
        amount.unwrap_or(text).parse().map_err(|e: String| ApiError::bad_request(format!("{why} - {e}")))?;
    Ok(if amount.is_some() || wanted.is_zero() { most } else { wanted.0.min(most) })
}

async fn answer(mut exchange: Exchange, passage: &mut Passage, unread: &Unread) -> Result<Response<Body>> {
    if let Err(e) = admit(&mut exchange).await {
        unread.drain().await;
        return Err(e);
    }
    let server = exchange.server.clone();
    let asked = (&exchange.info, &exchange.query, &exchange.user);
    let came = Instant::now();
    let permit = match server.gate.enter(&server.storage, asked, &mut passage.flow).await {
        Ok(permit) => permit,
        Err(refusal) => {
            passage.terminated = true;
            unread.drain().await;
            return Ok(refusal);
        }
    };
    exchange.elsewhere.add(came.elapsed());
    server.metrics.access.filtered("priorityandfairness", came.elapsed());
    if let Err(e) = permitted(&exchange).await {
        unread.drain().await;
        return Err(e);
    }
    if exchange.info.is_long_running() {
        passage.completion = exchange.trail.completion();
        if exchange.info.verb != "watch" && is_known(&server, &exchange.info) {
            let streaming = server.metrics.requests.stream(&exchange.head, &exchange.info);
            passage.completion = std::mem::take(&mut passage.completion).counting(streaming);
        }
        exchange.completion = passage.completion.clone();
    }
    handlers::dispatch(exchange).await.map(|response| permit.started(response))
}

/// Who asks.
async fn admit(exchange: &mut Exchange) -> Result<()> {
    let server = exchange.server.clone();
    let probe = ["/healthz", "/livez", "/readyz"].iter().any(|p| exchange.info.path.starts_with(p));
    if !probe && tokio::time::timeout(LOADING_LIMIT, server.storage.loaded()).await.is_err() {
        return Err(ApiError::too_many_requests("storage is (re)initializing", 1));
    }
    let (began, access) = (Instant::now(), &server.metrics.access);
    let certificates = exchange.head.extensions.get::<PeerCertificates>().cloned();
    let chain = certificates.as_ref().map_or(&[][..], |c| &c.0[..]);
    let asked = (exchange.headers(), exchange.info.path.as_str());
    let Examined { found: user, used } =
        server.authenticator.authenticate(&server.storage, chain, asked, access).await;
    access.authenticated(user.as_ref().map(|user| user.name.as_str()), began.elapsed());
    let what = Attributes::of(&exchange.info);
    let trail = &exchange.trail;
    trail.describe(&what, &exchange.head, user.as_ref());
    if let Some(used) = used {
        Box::pin(used.note(&server, trail, &exchange.warnings)).await;
    }
    exchange.user = user.ok_or_else(ApiError::unauthorized)?;
    if !trail.stage(Stage::RequestReceived).await {
        trail.rejected();
        return Err(ApiError::internal("failed to store audit event"));
    }
    let began = Instant::now();
    let impersonated = impersonation::impersonate(exchange).await;
    access.filtered("constrainedimpersonation", began.elapsed());
    impersonated
}

/// Refuses a request that its sender may not make.
async fn permitted(exchange: &Exchange) -> Result<()> {
    let what = Attributes::of(&exchange.info);
    let server = &exchange.server;
    let began = Instant::now();
    let decision = server.authorizer.authorize(&server.storage, &exchange.user, &what).await;
    server.metrics.access.authorized(&decision, began.elapsed());
    let (word, reason) = match &decision {
        Decision::Allow(reason) => ("allow", reason.as_str()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => ("forbid", reason.as_str()),
        Decision::Failed { .. } => ("", "internal error"),
    };
    if !word.is_empty() {
        exchange.trail.annotate("authorization.k8s.io/decision", word);
    }
    exchange.trail.annotate("authorization.k8s.io/reason", reason);
    match decision {
        Decision::Failed { why, .. } => Err(ApiError::internal(why)),
        decision => settle(decision, &exchange.user, &what),
    }
}

/// Refuses a request whose sender may not do the same with another verb.
pub async fn require(exchange: &Exchange, verb: &str) -> Result<()> {
    let asked = Attributes::of(&exchange.info);
    if asked.verb == verb {
        return Ok(());
    }
    let what = Attributes { verb, ..asked };
    let server = &exchange.server;
    match server.authorizer.authorize(&server.storage, &exchange.user, &what).await {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => {
            Err(ApiError::forbidden(what.group, what.resource, what.name, &reason))
        }
        Decision::Failed { why, .. } => Err(ApiError::plain(why)),
    }
}

/// Refuses what no authorizer allows.
async fn check(server: &Server, user: &UserInfo, what: &Attributes<'_>) -> Result<()> {
    settle(server.authorizer.authorize(&server.storage, user, what).await, user, what)
}

fn settle(decision: Decision, user: &UserInfo, what: &Attributes<'_>) -> Result<()> {
    let reason = match decision {
        Decision::Allow(_) => return Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => reason,
        Decision::Failed { why, .. } => why,
    };
    let mut why = what.refusal(user);
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    Err(ApiError::forbidden(what.group, what.resource, what.name, &why))
}

/// The answer that tells of an error.
pub fn refuse(e: &ApiError, form: Form) -> Response<Body> {
    let encoding = form.encoding;
    let body = crate::render::encode(&e.to_value(), encoding, form.pretty);
    let mut response = Response::new(serve::full(body));
    *response.status_mut() = e.code();
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(encoding.media_type()));
    let retry = e.status().details.retry_after_seconds;
    if retry > 0 {
        headers.insert(RETRY_AFTER, HeaderValue::from(retry));
    }
    if e.code() == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"kubernetes\""));
    }
    response
}
