//! Requests: how many, how long they took, what they were answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use parking_lot::{Mutex, RwLock};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use serve::Body;

use super::{Elsewhere, Make};
use crate::request::{Query, RequestInfo};

const COMPONENT: &str = "apiserver";
const DURATIONS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
const SIZES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const EVENT_SIZES: [f64; 8] = [1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];

/// Families of requests.
pub struct Requests {
    total: IntCounterVec,
    durations: HistogramVec,
    own_durations: HistogramVec,
    sizes: HistogramVec,
    streams: IntGaugeVec,
    terminations: IntCounterVec,
    deprecated: IntGaugeVec,
    own: IntCounterVec,
    events: IntCounterVec,
    event_sizes: HistogramVec,
    bodies: HistogramVec,
    known: RwLock<HashMap<String, Arc<Series>>>,
}

/// What requests of one kind are counted in: found once for a request, not once for each family.
struct Series {
    codes: Mutex<Vec<(StatusCode, IntCounter)>>,
    duration: Histogram,
    own_duration: Option<Histogram>,
    size: Option<Histogram>,
}

/// What metrics tell of a request.
pub struct Asked<'i> {
    verb: &'static str,
    scope: &'static str,
    dry_run: &'static str,
    /// The server itself asks.
    own: bool,
    info: &'i RequestInfo,
}

impl<'i> Asked<'i> {
    /// What is told of a request.
    pub fn of(head: &Parts, info: &'i RequestInfo, query: &Query) -> Self {
        let scope = scope(info);
        let agent = head.headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        Self {
            verb: verb(head, info, scope),
            scope,
            dry_run: dry_run(query),
            own: agent.starts_with("kube-apiserver/"),
            info,
        }
    }

    /// Group, version, resource and subresource of a resource that is served, or the path of the checks of health.
    /// Nothing else is counted: a client could make as many series as it likes.
    fn place(&self, known: bool) -> Option<[&'i str; 4]> {
        let info = self.info;
        match known {
            true => Some([&info.group, &info.version, &info.resource, &info.subresource]),
            false => self.checks().map(|path| ["", "", "", path]),
        }
    }

    /// The path, if checks of health are asked for.
    fn checks(&self) -> Option<&'static str> {
        ["/healthz", "/livez", "/readyz"].into_iter().find(|path| *path == self.info.path)
    }

    /// The labels of all that is known when the request comes.
    fn labels(&self, [group, version, resource, subresource]: [&'i str; 4]) -> [&'i str; 8] {
        let component = if self.info.is_resource { COMPONENT } else { "" };
        [self.verb, self.dry_run, group, version, resource, subresource, self.scope, component]
    }
}

fn scope(info: &RequestInfo) -> &'static str {
    if info.to_one || info.verb == "create" && info.is_resource {
        "resource"
    } else if !info.namespace.is_empty() {
        "namespace"
    } else if info.is_resource {
        "cluster"
    } else {
        ""
    }
}

fn verb(head: &Parts, info: &RequestInfo, scope: &str) -> &'static str {
    if info.is_resource
        && matches!(info.subresource.as_str(), "log" | "exec" | "portforward" | "attach" | "proxy")
    {
        return "CONNECT";
    }
    match head.method {
        Method::GET | Method::HEAD if info.verb == "watch" => "WATCH",
        Method::GET | Method::HEAD if matches!(scope, "resource" | "") => "GET",
        Method::GET | Method::HEAD => "LIST",
        Method::PATCH => match head.headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes) {
            Some(b"application/apply-patch+yaml") => "APPLY",
            _ => "PATCH",
        },
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn dry_run(query: &Query) -> &'static str {
    match query.all("dryRun") {
        [] => "",
        given if given.iter().all(|d| d == "All") => "All",
        _ => "invalid",
    }
}

/// From 50 kB to what no body may exceed, in steps of 100 kB.
fn bodies() -> Vec<f64> {
    (0..31).map(|step| 50_000.0 + 100_000.0 * f64::from(step)).collect()
}

impl Requests {
    pub(super) fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        const LABELS: [&str; 7] =
            ["verb", "group", "version", "resource", "subresource", "scope", "component"];
        const DRY: [&str; 8] =
            ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"];
        const KIND: [&str; 3] = ["group", "version", "resource"];
        let labels = |first: &[&'static str]| [first, &["code"]].concat();
        Ok(Self {
            total: make.counters(
                "apiserver_request_total",
                "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
                &labels(&DRY),
            )?,
            durations: make.histograms(
                "apiserver_request_duration_seconds",
                "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
                &DRY,
                &DURATIONS,
            )?,
            own_durations: make.histograms(
                "apiserver_request_sli_duration_seconds",
                "[ALPHA] Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
                &LABELS,
                &DURATIONS[2..],
            )?,
            sizes: make.histograms(
                "apiserver_response_sizes",
                "[STABLE] Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
                &LABELS,
                &SIZES,
            )?,
            streams: make.gauges(
                "apiserver_longrunning_requests",
                "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
                &LABELS,
            )?,
            terminations: make.counters(
                "apiserver_request_terminations_total",
                "[ALPHA] Number of requests which apiserver terminated in self-defense.",
                &labels(&LABELS),
            )?,
            deprecated: make.gauges(
                "apiserver_requested_deprecated_apis",
                "[STABLE] Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
                &["group", "version", "resource", "subresource", "removed_release"],
            )?,
            own: make.counters(
                "apiserver_selfrequest_total",
                "[ALPHA] Counter of apiserver self-requests broken out for each verb, API resource and subresource.",
                &["verb", "group", "resource", "subresource"],
            )?,
            events: make.counters(
                "apiserver_watch_events_total",
                "[ALPHA] Number of events sent in watch clients",
                &KIND,
            )?,
            event_sizes: make.histograms(
                "apiserver_watch_events_sizes",
                "[ALPHA] Watch event size distribution in bytes",
                &KIND,
                &EVENT_SIZES,
            )?,
            bodies: make.histograms(
                "apiserver_request_body_size_bytes",
                "[ALPHA] Apiserver request body size in bytes broken out by resource and verb.",
                &["group", "resource", "verb"],
                &bodies(),
            )?,
            known: RwLock::default(),
        })
    }

    /// Notes the size of the body of a request to a resource.
    pub fn body(&self, info: &RequestInfo, size: usize) {
        let verb = match info.verb {
            "deletecollection" => "delete_collection",
            verb @ ("create" | "update" | "patch" | "delete") => verb,
            _ => return,
        };
        #[expect(clippy::cast_precision_loss, reason = "bodies are far smaller than where it shows")]
        self.bodies.with_label_values(&[&info.group, &info.resource, verb]).observe(size as f64);
    }

    /// Counts a request that was answered; `known` says whether it was to a resource that is served. The answer is given
    /// back: where nobody knows yet how large it is, that is counted when it has been sent.
    pub fn answered(
        &self,
        asked: &Asked<'_>,
        known: bool,
        response: Response<Body>,
        took: Duration,
        elsewhere: &Elsewhere,
    ) -> Response<Body> {
        let Some(place) = asked.place(known) else { return response };
        let labels = asked.labels(place);
        let (series, code) = (self.series(asked, &labels), response.status());
        series.code(code, || self.total.with_label_values(&[&labels[..], &[code.as_str()]].concat()));
        if asked.own {
            let [group, _, resource, subresource] = place;
            self.own.with_label_values(&[asked.verb, group, resource, subresource]).inc();
        }
        if asked.info.is_long_running() {
            return response;
        }
        series.duration.observe(took.as_secs_f64());
        if let Some(own) = &series.own_duration {
            own.observe(took.saturating_sub(elsewhere.time()).as_secs_f64());
        }
        let Some(sizes) = &series.size else { return response };
        let size = response.body().size_hint().exact();
        let mut sent = Sent { bytes: size.unwrap_or(0), sizes: sizes.clone() };
        match size {
            Some(_) => response,
            None => response.map(|body| body.map_frame(move |frame| sent.and(frame)).boxed_unsync()),
        }
    }

    /// Counts a request that was given up to save the server.
    pub fn terminated(&self, asked: &Asked<'_>, known: bool, code: StatusCode) {
        let Some([group, version, resource, subresource]) = asked.place(known) else { return };
        let labels =
            [asked.verb, group, version, resource, subresource, asked.scope, COMPONENT, code.as_str()];
        self.terminations.with_label_values(&labels).inc();
    }

    /// Notes that a resource was asked for which should not be used any more.
    pub fn deprecated(&self, info: &RequestInfo, until: &str) {
        let labels = [&info.group, &info.version, &info.resource, &info.subresource, until];
        self.deprecated.with_label_values(&labels).set(1);
    }

    /// Counts a stream until it ends.
    pub fn stream(&self, head: &Parts, info: &RequestInfo) -> Streaming {
        let scope = scope(info);
        let verb = verb(head, info, scope);
        let gauge = self.streams.with_label_values(&[
            verb,
            &info.group,
            &info.version,
            &info.resource,
            &info.subresource,
            scope,
            COMPONENT,
        ]);
        gauge.inc();
        let kind = [info.group.as_str(), &info.version, &info.resource];
        Streaming {
            gauge,
            events: self.events.with_label_values(&kind),
            sizes: self.event_sizes.with_label_values(&kind),
        }
    }

    fn series(&self, asked: &Asked<'_>, labels: &[&str; 8]) -> Arc<Series> {
        let key = labels.join("\0");
        if let Some(series) = self.known.read().get(&key) {
            return series.clone();
        }
        let [verb, _, place @ ..] = labels;
        let plain = [&[*verb], &place[..]].concat();
        let reads = matches!(asked.verb, "GET" | "LIST");
        let series = Arc::new(Series {
            codes: Mutex::default(),
            duration: self.durations.with_label_values(labels),
            own_duration: asked.dry_run.is_empty().then(|| self.own_durations.with_label_values(&plain)),
            size: reads.then(|| self.sizes.with_label_values(&plain)),
        });
        self.known.write().entry(key).or_insert(series).clone()
    }
}

impl Series {
    fn code(&self, code: StatusCode, make: impl FnOnce() -> IntCounter) {
        let mut codes = self.codes.lock();
        let at = codes.iter().position(|(known, _)| *known == code).unwrap_or_else(|| {
            codes.push((code, make()));
            codes.len() - 1
        });
        codes[at].1.inc();
    }
}

/// How much of an answer was sent; counted in the end.
struct Sent {
    bytes: u64,
    sizes: Histogram,
}

impl Sent {
    fn and(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        frame
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        #[expect(clippy::cast_precision_loss, reason = "sizes of answers are far below where it shows")]
        self.sizes.observe(self.bytes as f64);
    }
}

/// Counts a stream for as long as it lasts, and the events that it sends.
pub struct Streaming {
    gauge: IntGauge,
    events: IntCounter,
    sizes: Histogram,
}

impl Streaming {
    /// Counts an event.
    pub fn sent(&self, bytes: usize) {
        self.events.inc();
        #[expect(clippy::cast_precision_loss, reason = "sizes of events are far below where it shows")]
        self.sizes.observe(bytes as f64);
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, url: &str, want: [&str; 3]) {
        let (head, ()) = http::Request::builder()
            .method(method)
            .uri(url)
            .header(CONTENT_TYPE, "application/apply-patch+yaml")
            .body(())
            .unwrap()
            .into_parts();
        let query = Query::parse(head.uri.query());
        let info = RequestInfo::new(&head.method, head.uri.path(), &query);
        let asked = Asked::of(&head, &info, &query);
        assert_eq!([asked.verb, asked.scope, asked.dry_run], want, "{url}");
    }

    #[test]
    fn requests_are_told_apart_as_upstream_does() {
        use Method as M;
        check(M::GET, "/api/v1/pods", ["LIST", "cluster", ""]);
        check(M::HEAD, "/api/v1/namespaces/a/pods", ["LIST", "namespace", ""]);
        check(M::GET, "/api/v1/pods?watch=1", ["WATCH", "cluster", ""]);
        check(M::GET, "/api/v1/namespaces/a/pods/b", ["GET", "resource", ""]);
        check(M::GET, "/api/v1/namespaces/a/pods/b/log", ["CONNECT", "resource", ""]);
        check(M::POST, "/api/v1/namespaces/a/pods?dryRun=All", ["POST", "resource", "All"]);
        check(M::PATCH, "/api/v1/namespaces/a?dryRun=x", ["APPLY", "resource", "invalid"]);
        check(M::DELETE, "/api/v1/namespaces/a/pods", ["DELETE", "namespace", ""]);
        check(M::TRACE, "/version", ["other", "", ""]);
        check(M::GET, "/version", ["GET", "", ""]);
    }
}
