//! Answers a request from the table: picks a backend, hands the request on, hands the answer back.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use daemon::Tasks;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serve::{Body, BoxError, RemoteAddr};
use streaming::upgrade::{self, Kind};
use tokio::net::TcpStream;
use tower::Service;

use crate::routes::{Backend, Table};

/// Bodies up to this size are held, so that the request can be sent to another endpoint.
const HELD: u64 = 1 << 20;
const CONNECT: Duration = Duration::from_secs(3);
/// Headers that concern one connection only.
const HOP_BY_HOP: [HeaderName; 5] =
    [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, HeaderName::from_static("keep-alive")];

/// The proxy; shared by all connections.
pub(crate) struct Proxy {
    table: Arc<ArcSwap<Table>>,
    client: Client<HttpConnector, Body>,
    https_port: u16,
    tasks: Tasks,
}

/// The proxy as a service of one listener.
pub(crate) fn service(
    proxy: Arc<Proxy>,
    secure: bool,
) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    tower::service_fn(move |request| {
        let proxy = proxy.clone();
        async move { Ok(proxy.handle(request, secure).await) }
    })
}

fn plain(code: StatusCode) -> Response<Body> {
    serve::text(code, format!("{} {}\n", code.as_u16(), code.canonical_reason().unwrap_or_default()))
}

impl Proxy {
    pub(crate) fn new(table: Arc<ArcSwap<Table>>, https_port: u16, tasks: Tasks) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client =
            Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector);
        Self { table, client, https_port, tasks }
    }

    async fn handle(&self, mut request: Request<Incoming>, secure: bool) -> Response<Body> {
        let Some(authority) = authority(&request) else { return plain(StatusCode::BAD_REQUEST) };
        let host = authority
            .rsplit_once(':')
            .filter(|(_, p)| p.bytes().all(|b| b.is_ascii_digit()))
            .map_or(&*authority, |(h, _)| h);
        let Some(backend) = self.table.load().find(host, request.uri().path()) else {
            return plain(StatusCode::NOT_FOUND);
        };
        if backend.redirect && !secure {
            return self.redirect(host, request.uri());
        }
        let endpoints = backend.in_turn();
        if endpoints.is_empty() {
            tracing::debug!(backend = backend.name, "No ready endpoint");
            return plain(StatusCode::SERVICE_UNAVAILABLE);
        }
        if let Some(limit) = backend.body_limit
            && request.body().size_hint().lower() > limit
        {
            return plain(StatusCode::PAYLOAD_TOO_LARGE);
        }
        forward_headers(&mut request, &authority, secure);
        let Some(target) = target(request.uri(), &backend) else { return plain(StatusCode::BAD_REQUEST) };
        if upgrade::requested(request.headers()) != Kind::None {
            return self.upgrade(request, &endpoints, &authority, &target).await;
        }
        self.send(request, &endpoints, &target, &backend).await
    }

    fn redirect(&self, host: &str, uri: &Uri) -> Response<Body> {
        let port = if self.https_port == 443 { String::new() } else { format!(":{}", self.https_port) };
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let mut response = plain(StatusCode::PERMANENT_REDIRECT);
        if let Ok(location) = HeaderValue::from_str(&format!("https://{host}{port}{path}")) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }

    /// Sends the request to the first endpoint that takes it.
    async fn send(
        &self,
        request: Request<Incoming>,
        endpoints: &[SocketAddr],
        target: &PathAndQuery,
        backend: &Backend,
    ) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        for name in HOP_BY_HOP {
            head.headers.remove(name);
        }
        let small = body.size_hint().upper().is_some_and(|n| n <= HELD);
        let repeatable = matches!(
            head.method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
        );
        let limit = usize::try_from(backend.body_limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        if !small {
            let body = Limited::new(body, limit).boxed_unsync();
            return match self.client.request(outbound(&head, endpoints[0], target, body)).await {
                Ok(answer) => inbound(answer),
                Err(e) => self.failed(&e, backend),
            };
        }
        let Ok(held) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
            return plain(StatusCode::BAD_REQUEST);
        };
        let mut last = None;
        for endpoint in endpoints.iter().take(3) {
            let body = if held.is_empty() { serve::empty() } else { serve::full(held.clone()) };
            match self.client.request(outbound(&head, *endpoint, target, body)).await {
                Ok(answer) => return inbound(answer),
                Err(e) if e.is_connect() || repeatable => last = Some(e),
                Err(e) => return self.failed(&e, backend),
            }
        }
        last.map_or_else(|| plain(StatusCode::BAD_GATEWAY), |e| self.failed(&e, backend))
    }

    fn failed(&self, e: &hyper_util::client::legacy::Error, backend: &Backend) -> Response<Body> {
        tracing::warn!(backend = backend.name, err = %e, "A request failed");
        plain(StatusCode::BAD_GATEWAY)
    }

    /// WebSocket and the like: the connection itself is handed on.
    async fn upgrade(
        &self,
        mut request: Request<Incoming>,
        endpoints: &[SocketAddr],
        authority: &str,
        target: &PathAndQuery,
    ) -> Response<Body> {
        for endpoint in endpoints.iter().take(3) {
            let Ok(Ok(stream)) = tokio::time::timeout(CONNECT, TcpStream::connect(endpoint)).await else {
                continue;
            };
            return match upgrade::passthrough(&mut request, stream, authority, target).await {
                Ok(passed) => {
                    if let Some(relay) = passed.relay {
                        self.tasks.plain("upgraded connection", async move {
                            // Either side may go at any time; that is how such connections end.
                            drop(relay.run().await);
                            Ok(())
                        });
                    }
                    passed.response.map(|b| b.map_err(|never| match never {}).boxed_unsync())
                }
                Err(e) => {
                    tracing::warn!(%endpoint, err = %e, "An upgrade failed");
                    plain(StatusCode::BAD_GATEWAY)
                }
            };
        }
        plain(StatusCode::BAD_GATEWAY)
    }
}

/// The host that is asked for: of the URL in HTTP/2, of the header in HTTP/1.
fn authority(request: &Request<Incoming>) -> Option<String> {
    let header = || request.headers().get(HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
    request.uri().authority().map(ToString::to_string).or_else(header).filter(|h| !h.is_empty())
}

fn forward_headers(request: &mut Request<Incoming>, authority: &str, secure: bool) {
    let remote = request.extensions().get::<RemoteAddr>().map(|r| r.0.ip().to_string());
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
    };
    set("x-forwarded-host", authority);
    set("x-forwarded-proto", if secure { "https" } else { "http" });
    set("x-scheme", if secure { "https" } else { "http" });
    set("x-forwarded-port", if secure { "443" } else { "80" });
    if let Some(remote) = remote {
        // What a client claims about itself is not believed.
        set("x-forwarded-for", &remote);
        set("x-real-ip", &remote);
    }
    if let Ok(host) = HeaderValue::from_str(authority) {
        request.headers_mut().insert(HOST, host);
    }
}

fn target(uri: &Uri, backend: &Backend) -> Option<PathAndQuery> {
    let own = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    match &backend.rewrite {
        None => Some(own),
        Some(path) => {
            let query = own.query().map(|q| format!("?{q}")).unwrap_or_default();
            format!("{path}{query}").parse().ok()
        }
    }
}

fn outbound(
    head: &http::request::Parts,
    endpoint: SocketAddr,
    target: &PathAndQuery,
    body: Body,
) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.headers_mut() = head.headers.clone();
    let uri =
        Uri::builder().scheme("http").authority(endpoint.to_string()).path_and_query(target.clone()).build();
    *request.uri_mut() = uri.unwrap_or_default();
    request
}

fn inbound(answer: Response<Incoming>) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    strip(&mut head.headers);
    Response::from_parts(head, body.map_err(|e| Box::new(e) as BoxError).boxed_unsync())
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}
