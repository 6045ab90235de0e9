//! What the API server hands through: logs and streams of pods from their kubelets, and HTTP to nodes, pods and Services.

use std::net::IpAddr;
use std::sync::Arc;

use api::error::Result;
use api::{ApiError, Value};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serve::{Body, BoxError};
use streaming::upgrade::{self, Kind};
use streaming::{port_forward, remote_command, spdy, websocket};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::http::Exchange;
use crate::render;
use crate::resources::{Row, TABLE};

const KUBELET_PORT: u16 = 10_250;

/// An upgraded or upgradable connection of any kind.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// Connections to kubelets, and to what Services and pods serve.
pub struct Kubelets {
    client: serve::outbound::HttpsClient,
    any: serve::outbound::HttpsClient,
    tls: Arc<rustls::ClientConfig>,
    any_tls: Arc<rustls::ClientConfig>,
    address_types: Vec<String>,
    streams: TaskTracker,
}

impl Kubelets {
    /// Connects with this identity and trust; `address_types` says which address of a node is preferred.
    pub fn new(options: serve::outbound::Options, address_types: Vec<String>) -> anyhow::Result<Self> {
        let upgrades = serve::outbound::Options { http1_only: true, ..options.clone() };
        let any = serve::outbound::Options { insecure: true, ..Default::default() };
        let any_upgrades = serve::outbound::Options { http1_only: true, ..any.clone() };
        Ok(Self {
            client: serve::outbound::client(&options)?,
            any: serve::outbound::client(&any)?,
            tls: Arc::new(serve::outbound::tls_config(&upgrades)?),
            any_tls: Arc::new(serve::outbound::tls_config(&any_upgrades)?),
            address_types,
            streams: TaskTracker::new(),
        })
    }

    /// Host and port of the kubelet of a node.
    fn locate(&self, exchange: &Exchange, node: &str) -> Result<(String, u16)> {
        let cache = exchange.server.storage.cache(TABLE.store("", "nodes"));
        let object = cache.get(node).ok_or_else(|| ApiError::not_found("", "nodes", node))?.object();
        let addresses = object.array_at(&["status", "addresses"]);
        let of = |kind: &String| {
            addresses.iter().find(|a| a.str_at(&["type"]) == kind).map(|a| a.str_at(&["address"]))
        };
        let host = self.address_types.iter().find_map(of).ok_or_else(|| {
            ApiError::internal(format!("no preferred addresses found; known addresses: {}", addresses.len()))
        })?;
        let port = object.at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).as_i64();
        let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(KUBELET_PORT);
        Ok((host.to_owned(), port))
    }

    /// Runs a stream for as long as it lasts.
    pub(crate) fn spawn(&self, stream: impl Future<Output = ()> + Send + 'static) {
        self.streams.spawn(stream);
    }

    async fn dial(
        &self,
        host: &str,
        port: u16,
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> Result<Box<dyn Connection>> {
        let failed = |e: &dyn std::fmt::Display| {
            ApiError::internal(format!("error dialing backend: dial tcp {host}:{port}: {e}"))
        };
        let connect = TcpStream::connect((host, port));
        let stream = match tokio::time::timeout(std::time::Duration::from_secs(10), connect).await {
            Ok(stream) => stream.map_err(|e| failed(&e))?,
            Err(_) => return Err(failed(&"i/o timeout")),
        };
        let Some(tls) = tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.to_owned()).map_err(|e| failed(&e))?;
        let stream = tokio_rustls::TlsConnector::from(tls.clone())
            .connect(name, stream)
            .await
            .map_err(|e| failed(&e))?;
        Ok(Box::new(stream))
    }
}

fn authority(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

/// The pod of the request.
async fn pod_of(exchange: &Exchange, row: &Row) -> Result<Value> {
    let mut call = crate::registry::Call::new(exchange.server.clone(), row, exchange.user.clone());
    call.namespace.clone_from(&exchange.info.namespace);
    call.name.clone_from(&exchange.info.name);
    Ok(render::object_of(row, &*call.get(None).await?))
}

/// The container that is meant: the one named, or the only one.
fn container_of(exchange: &Exchange, pod: &Value) -> Result<String> {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let names = |list: &str| {
        pod.array_at(&["spec", list]).iter().map(|c| c.str_at(&["name"]).to_owned()).collect::<Vec<_>>()
    };
    let wanted = exchange.query.get("container");
    let refuse = |why: String| Err(ApiError::bad_request(why));
    if !wanted.is_empty() {
        if lists.iter().any(|l| names(l).iter().any(|n| n == wanted)) {
            return Ok(wanted.to_owned());
        }
        return refuse(format!("container {wanted} is not valid for pod {}", pod.name()));
    }
    match names("containers").as_slice() {
        [only] => Ok(only.clone()),
        [] => refuse(format!("a container name must be specified for pod {}", pod.name())),
        all => {
            let mut text = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                pod.name(),
                all.join(" ")
            );
            let init = names("initContainers");
            if !init.is_empty() {
                text = format!("{text} or one of the init containers: [{}]", init.join(" "));
            }
            refuse(text)
        }
    }
}

fn node_of(pod: &Value) -> Result<String> {
    match pod.str_at(&["spec", "nodeName"]) {
        "" => Err(ApiError::bad_request(format!("pod {} does not have a host assigned", pod.name()))),
        node => Ok(node.to_owned()),
    }
}

/// The log of a container.
pub async fn log(exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    const PASSED: [&str; 8] = [
        "follow",
        "previous",
        "sinceSeconds",
        "sinceTime",
        "tailLines",
        "limitBytes",
        "timestamps",
        "stream",
    ];
    let pod = pod_of(&exchange, row).await?;
    let container = container_of(&exchange, &pod)?;
    if pod.str_at(&["spec", "nodeName"]).is_empty() {
        // A pod that runs nowhere has said nothing yet.
        return sent(exchange, serve::text(StatusCode::OK, ""));
    }
    let kubelets = &exchange.server.kubelets;
    let (host, port) = kubelets.locate(&exchange, &node_of(&pod)?)?;
    let query: Vec<String> = PASSED
        .iter()
        .filter(|k| exchange.query.has(k))
        .map(|k| {
            format!(
                "{k}={}",
                percent_encoding::utf8_percent_encode(
                    exchange.query.get(k),
                    percent_encoding::NON_ALPHANUMERIC
                )
            )
        })
        .collect();
    let path = format!("/containerLogs/{}/{}/{container}?{}", pod.namespace(), pod.name(), query.join("&"));
    let uri = format!("https://{}{path}", authority(&host, port));
    let request = Request::get(uri).body(serve::empty()).map_err(ApiError::internal)?;
    let answer = kubelets.client.request(request).await.map_err(|e| ApiError::internal(chain(&e)))?;
    let code = answer.status();
    if code != StatusCode::OK {
        let body = answer.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        return Err(match code {
            StatusCode::BAD_REQUEST => ApiError::bad_request(text),
            StatusCode::NOT_FOUND => ApiError::new(
                code,
                "NotFound",
                format!("the server could not find the requested resource ({text})"),
            ),
            _ => ApiError::internal(text),
        });
    }
    let body = answer.into_body().map_err(|e| Box::new(e) as BoxError).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    sent(exchange, response)
}

/// A log as the client wants it.
fn sent(exchange: Exchange, log: Response<Body>) -> Result<Response<Body>> {
    if crate::websocket::is_wanted(&exchange) { crate::websocket::bytes(exchange, log) } else { Ok(log) }
}

fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// exec, attach and port-forward.
pub async fn stream(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let pod = pod_of(&exchange, row).await?;
    let node = node_of(&pod)?;
    let verb = exchange.info.subresource.clone();
    let base = format!("{}/{}", pod.namespace(), pod.name());
    let path = match verb.as_str() {
        "portforward" => format!("/portForward/{base}"),
        _ => format!("/{verb}/{base}/{}", container_of(&exchange, &pod)?),
    };
    let query = kubelet_query(&exchange, &verb);
    let target: PathAndQuery =
        format!("{path}?{query}").parse().map_err(|_| ApiError::bad_request("the query is malformed"))?;
    let (host, port) = exchange.server.kubelets.locate(&exchange, &node)?;
    let server = exchange.server.clone();
    let kubelets = &server.kubelets;
    let kind = upgrade::requested(exchange.headers());
    if kind == Kind::None {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let outbound = kubelets.dial(&host, port, Some(&kubelets.tls)).await?;
    let authority = authority(&host, port);
    match (kind, verb.as_str()) {
        (Kind::WebSocket, "exec" | "attach") => {
            translated(&mut exchange, outbound, &authority, &target, &query).await
        }
        (Kind::WebSocket, "portforward") if wants_tunnel(&exchange) => {
            tunnelled(&mut exchange, outbound, &authority, &target).await
        }
        _ => passed(&mut exchange, outbound, &authority, &target).await,
    }
}

/// The kubelet's endpoint takes the names of the runtime's interface.
fn kubelet_query(exchange: &Exchange, verb: &str) -> String {
    let mut pairs: Vec<(String, String)> = Vec::new();
    if verb == "portforward" {
        pairs.extend(exchange.query.all("ports").iter().map(|p| ("port".to_owned(), p.clone())));
    }
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if exchange.query.is_true(ours) {
            pairs.push((theirs.to_owned(), "1".to_owned()));
        }
    }
    pairs.extend(exchange.query.all("command").iter().map(|c| ("command".to_owned(), c.clone())));
    let encode =
        |t: &str| percent_encoding::utf8_percent_encode(t, percent_encoding::NON_ALPHANUMERIC).to_string();
    pairs.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect::<Vec<_>>().join("&")
}

fn wants_tunnel(exchange: &Exchange) -> bool {
    upgrade::tokens(exchange.headers(), &HeaderName::from_static("sec-websocket-protocol"))
        .any(|p| p == websocket::PORT_FORWARD_TUNNEL)
}

/// Takes out what proves who the client is, and what it claims about itself.
pub(crate) fn remove_credentials(headers: &mut HeaderMap) {
    let secret: Vec<HeaderName> = headers
        .keys()
        .filter(|k| {
            **k == AUTHORIZATION
                || k.as_str().starts_with("impersonate-")
                || k.as_str().starts_with("x-remote-")
        })
        .cloned()
        .collect();
    for name in secret {
        headers.remove(name);
    }
}

/// The client's request without what the other side must not see.
pub(crate) fn inbound(exchange: &mut Exchange) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = exchange.head.method.clone();
    *request.headers_mut() = exchange.head.headers.clone();
    remove_credentials(request.headers_mut());
    if let Some(on) = exchange.head.extensions.remove::<hyper::upgrade::OnUpgrade>() {
        request.extensions_mut().insert(on);
    }
    request
}

pub(crate) fn refused(e: &upgrade::Error) -> ApiError {
    match e {
        upgrade::Error::BadRequest(why) => ApiError::bad_request(why.clone()),
        other => ApiError::internal(format!("error dialing backend: {}", chain(other))),
    }
}

/// The same protocol on both sides: bytes are copied.
async fn passed(
    exchange: &mut Exchange,
    outbound: Box<dyn Connection>,
    authority: &str,
    target: &PathAndQuery,
) -> Result<Response<Body>> {
    let request = inbound(exchange);
    handed(exchange, request, outbound, authority, target).await.map_err(|e| refused(&e))
}

/// Hands an upgrade to another server, with the headers that `request` has.
pub(crate) async fn handed(
    exchange: &Exchange,
    mut request: Request<()>,
    outbound: Box<dyn Connection>,
    authority: &str,
    target: &PathAndQuery,
) -> std::result::Result<Response<Body>, upgrade::Error> {
    let passthrough = upgrade::passthrough(&mut request, outbound, authority, target).await?;
    if let Some(relay) = passthrough.relay {
        let completion = exchange.completion.clone();
        exchange.server.kubelets.spawn(async move {
            let _held = completion;
            if let Err(e) = relay.run().await {
                tracing::debug!(error = %e, "a stream broke");
            }
        });
    }
    Ok(passthrough.response.map(|b| b.map_err(|never| match never {}).boxed_unsync()))
}

/// A WebSocket client of a SPDY kubelet.
async fn translated(
    exchange: &mut Exchange,
    outbound: Box<dyn Connection>,
    authority: &str,
    target: &PathAndQuery,
    query: &str,
) -> Result<Response<Body>> {
    let mut request = inbound(exchange);
    let (response, protocol) =
        upgrade::accept_websocket(request.headers(), &remote_command::WEBSOCKET_PROTOCOLS)
            .map_err(|e| refused(&e))?;
    let spdy = upgrade::spdy_request(authority, target.as_str(), &remote_command::SPDY_PROTOCOLS[..1])
        .map_err(ApiError::internal)?;
    let (_, upstream) = upgrade::connect(outbound, spdy).await.map_err(|e| refused(&e))?;
    let streams = remote_command::Streams::from_query(query);
    let protocol = protocol.to_owned();
    let completion = exchange.completion.clone();
    exchange.server.kubelets.spawn(async move {
        let _held = completion;
        let Ok(client) = hyper::upgrade::on(&mut request).await else { return };
        let client = websocket::server(TokioIo::new(client), &protocol).await;
        let session = spdy::Session::client(upstream, remote_command::upstream_config());
        if let Err(e) = remote_command::translate(client, &session, streams).await {
            tracing::debug!(error = %e, "a stream broke");
        }
        session.shutdown().await;
    });
    Ok(response.map(|b| b.map_err(|never| match never {}).boxed_unsync()))
}

/// SPDY inside a WebSocket, for port forwarding.
async fn tunnelled(
    exchange: &mut Exchange,
    outbound: Box<dyn Connection>,
    authority: &str,
    target: &PathAndQuery,
) -> Result<Response<Body>> {
    let mut request = inbound(exchange);
    let (response, _) = upgrade::accept_websocket(request.headers(), &[websocket::PORT_FORWARD_TUNNEL])
        .map_err(|e| refused(&e))?;
    let spdy = upgrade::spdy_request(authority, target.as_str(), &[port_forward::PROTOCOL])
        .map_err(ApiError::internal)?;
    let (_, upstream) = upgrade::connect(outbound, spdy).await.map_err(|e| refused(&e))?;
    let completion = exchange.completion.clone();
    exchange.server.kubelets.spawn(async move {
        let _held = completion;
        let Ok(client) = hyper::upgrade::on(&mut request).await else { return };
        if let Err(e) = port_forward::tunnel(TokioIo::new(client), upstream).await {
            tracing::debug!(error = %e, "a stream broke");
        }
    });
    Ok(response.map(|b| b.map_err(|never| match never {}).boxed_unsync()))
}

/// Where a proxied request goes.
struct Target {
    scheme: &'static str,
    host: String,
    port: u16,
    kubelet: bool,
}

/// HTTP to a node, a pod or a Service.
pub async fn proxy(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let target = target(&exchange, row).await?;
    let server = exchange.server.clone();
    let kubelets = &server.kubelets;
    let prefix_end =
        exchange.info.path.find("/proxy").map_or(exchange.info.path.len(), |i| i + "/proxy".len());
    let rest = &exchange.info.path[prefix_end..];
    let rest = if rest.is_empty() { "/" } else { rest };
    let query = exchange.head.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let path: PathAndQuery =
        format!("{rest}{query}").parse().map_err(|_| ApiError::bad_request("the path is malformed"))?;
    let authority = authority(&target.host, target.port);
    if upgrade::requested(exchange.headers()) != Kind::None {
        let tls = match (target.scheme, target.kubelet) {
            ("https", true) => Some(&kubelets.tls),
            ("https", false) => Some(&kubelets.any_tls),
            _ => None,
        };
        let outbound = kubelets.dial(&target.host, target.port, tls).await?;
        return passed(&mut exchange, outbound, &authority, &path).await;
    }
    let uri = Uri::builder()
        .scheme(target.scheme)
        .authority(authority.as_str())
        .path_and_query(path)
        .build()
        .map_err(ApiError::internal)?;
    let method = exchange.head.method.clone();
    let mut request = Request::new(match exchange.take_body() {
        Some(body) => body.map_err(|e| Box::new(e) as BoxError).boxed_unsync(),
        None => serve::empty(),
    });
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = inbound(&mut exchange).headers().clone();
    for name in [HOST, http::header::CONNECTION, http::header::TRANSFER_ENCODING] {
        request.headers_mut().remove(name);
    }
    let client = if target.kubelet { &kubelets.client } else { &kubelets.any };
    let answer = client
        .request(request)
        .await
        .map_err(|e| ApiError::unavailable(format!("error trying to reach service: {}", chain(&e))))?;
    let (mut head, body) = answer.into_parts();
    head.headers.remove(http::header::CONNECTION);
    head.headers.remove(http::header::TRANSFER_ENCODING);
    Ok(Response::from_parts(head, body.map_err(|e| Box::new(e) as BoxError).boxed_unsync()))
}

/// `[scheme:]name[:port]`.
fn parts(text: &str) -> (&'static str, String, String) {
    let pieces: Vec<&str> = text.split(':').collect();
    match pieces.as_slice() {
        [scheme @ ("http" | "https"), name, port] => {
            (if *scheme == "https" { "https" } else { "http" }, (*name).to_owned(), (*port).to_owned())
        }
        ["", name, port] => ("http", (*name).to_owned(), (*port).to_owned()),
        [name, port] => ("http", (*name).to_owned(), (*port).to_owned()),
        _ => ("http", text.to_owned(), String::new()),
    }
}

async fn target(exchange: &Exchange, row: &Row) -> Result<Target> {
    let (scheme, name, port) = parts(&exchange.info.name);
    match row.plural {
        "nodes" => {
            let (host, kubelet_port) = exchange.server.kubelets.locate(exchange, &name)?;
            let own = port.parse().ok().filter(|p| *p != kubelet_port);
            let scheme = if own.is_none() { "https" } else { scheme };
            Ok(Target { scheme, host, port: own.unwrap_or(kubelet_port), kubelet: own.is_none() })
        }
        "pods" => {
            let mut call = crate::registry::Call::new(exchange.server.clone(), row, exchange.user.clone());
            call.namespace.clone_from(&exchange.info.namespace);
            call.name.clone_from(&name);
            let pod = render::object_of(row, &*call.get(None).await?);
            let first = || {
                pod.array_at(&["spec", "containers"])
                    .iter()
                    .flat_map(|c| c.array_at(&["ports"]))
                    .next()
                    .and_then(|p| p.get("containerPort").as_i64())
            };
            let port = if port.is_empty() {
                first().unwrap_or(80)
            } else {
                port.parse().map_err(|_| ApiError::bad_request(format!("invalid port {port:?}")))?
            };
            let host = pod.str_at(&["status", "podIP"]).to_owned();
            if host.is_empty() {
                return Err(ApiError::bad_request(format!("address not allowed: pod {name} has no address")));
            }
            Ok(Target { scheme, host, port: port_number(port)?, kubelet: false })
        }
        _ => service_target(exchange, scheme, &name, &port).await,
    }
}

fn port_number(n: i64) -> Result<u16> {
    u16::try_from(n).map_err(|_| ApiError::bad_request(format!("invalid port {n}")))
}

/// A ready endpoint of the Service's port.
async fn service_target(exchange: &Exchange, scheme: &'static str, name: &str, port: &str) -> Result<Target> {
    let storage = &exchange.server.storage;
    let key = format!("{}/{name}", exchange.info.namespace);
    let service = storage.cache(TABLE.store("", "services")).get(&key);
    let service = service.ok_or_else(|| ApiError::not_found("", "services", name))?.object();
    let unavailable = || {
        ApiError::unavailable(format!("no endpoints available for service {}", api::field::go_quote(name)))
    };
    let ports = service.array_at(&["spec", "ports"]);
    let wanted = match (port, ports) {
        ("", [only]) => Some(only),
        ("", _) => ports.iter().find(|p| p.str_at(&["name"]).is_empty()),
        (port, _) => ports.iter().find(|p| {
            p.str_at(&["name"]) == port || p.get("port").as_i64().is_some_and(|n| n.to_string() == port)
        }),
    };
    let wanted = wanted.ok_or_else(|| {
        ApiError::unavailable(format!("no service port {port:?} found for service {name:?}"))
    })?;
    let port_name = wanted.str_at(&["name"]);
    let slices = storage.cache(TABLE.store("discovery.k8s.io", "endpointslices")).snapshot();
    let prefix = format!("{}/", exchange.info.namespace);
    let mut found = Vec::new();
    for slice in slices
        .objects
        .values()
        .filter(|s| s.key.starts_with(&prefix) && s.label("kubernetes.io/service-name") == Some(name))
    {
        let slice = slice.object();
        let number = slice
            .array_at(&["ports"])
            .iter()
            .find(|p| p.str_at(&["name"]) == port_name)
            .and_then(|p| p.get("port").as_i64());
        let Some(number) = number else { continue };
        for endpoint in slice
            .array_at(&["endpoints"])
            .iter()
            .filter(|e| e.at(&["conditions", "ready"]).as_bool() != Some(false))
        {
            found.extend(
                endpoint
                    .array_at(&["addresses"])
                    .iter()
                    .filter_map(Value::as_str)
                    .map(|a| (a.to_owned(), number)),
            );
        }
    }
    if found.is_empty() {
        return Err(unavailable());
    }
    use rand::Rng;
    let (host, number) = found.swap_remove(rand::rng().random_range(0..found.len()));
    Ok(Target { scheme, host, port: port_number(number)?, kubelet: false })
}
