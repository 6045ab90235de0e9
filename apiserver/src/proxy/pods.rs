//! Logs and streams of pods, from their kubelets.

use api::error::Result;
use api::{ApiError, Value};
use http::header::{CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serve::outbound::Stream;
use serve::{Body, BoxError};
use streaming::upgrade::{self, Kind};
use streaming::{port_forward, remote_command, spdy, websocket};

use super::{authority, backend, inbound, passed, refused, unreached};
use crate::http::Exchange;
use crate::render;
use crate::resources::Row;

/// The pod of the request.
async fn pod_of(exchange: &Exchange, row: &Row) -> Result<Value> {
    let mut call = crate::registry::Call::new(exchange.server.clone(), row, exchange.user.clone());
    call.namespace.clone_from(&exchange.info.namespace);
    call.name.clone_from(&exchange.info.name);
    Ok(render::object_of(row, &*call.get(None).await?))
}

/// The container that is meant: the one named, or the only one.
fn container_of(wanted: &str, pod: &Value) -> Result<String> {
    const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
    let named =
        |list: &'static str| pod.array_at(&["spec", list]).iter().map(|c| c.str_at(&["name"]).to_owned());
    let all: Vec<String> = LISTS.into_iter().flat_map(named).collect();
    let refuse = |why: String| Err(ApiError::bad_request(why));
    if !wanted.is_empty() {
        return match all.iter().any(|name| name == wanted) {
            true => Ok(wanted.to_owned()),
            false => refuse(format!("container {wanted} is not valid for pod {}", pod.name())),
        };
    }
    let asked = format!("a container name must be specified for pod {}", pod.name());
    match pod.array_at(&["spec", "containers"]) {
        [only] => Ok(only.str_at(&["name"]).to_owned()),
        [] => refuse(asked),
        _ => refuse(format!("{asked}, choose one of: [{}]", all.join(" "))),
    }
}

fn node_of(pod: &Value) -> Result<String> {
    match pod.str_at(&["spec", "nodeName"]) {
        "" => Err(ApiError::bad_request(format!("pod {} does not have a host assigned", pod.name()))),
        node => Ok(node.to_owned()),
    }
}

/// The log of a container, with these options.
pub async fn log(exchange: Exchange, row: &Row, options: &Value) -> Result<Response<Body>> {
    let pod = pod_of(&exchange, row).await?;
    let container = container_of(options.str_at(&["container"]), &pod)?;
    if pod.str_at(&["spec", "nodeName"]).is_empty() {
        // A pod that runs nowhere has said nothing yet.
        let mut nothing = Response::new(serve::empty());
        *nothing.status_mut() = StatusCode::NO_CONTENT;
        return Ok(nothing);
    }
    let kubelets = &exchange.server.kubelets;
    let (host, port) = kubelets.locate(&exchange, &node_of(&pod)?)?;
    let authority = authority(&host, port);
    let path = format!("/containerLogs/{}/{}/{container}", pod.namespace(), pod.name());
    let uri = format!("https://{authority}{path}{}", log_query(options));
    let request = Request::get(&uri).body(serve::empty()).map_err(ApiError::internal)?;
    let client = match options.get("insecureSkipTLSVerifyBackend").as_bool() {
        Some(true) => &kubelets.trusting,
        _ => &kubelets.client,
    };
    let failed = |why: String| ApiError::plain(format!("Get {}: {why}", api::field::go_quote(&uri)));
    let answer = client.request(request).await.map_err(|e| failed(unreached(&e, &authority)))?;
    let code = answer.status();
    if !matches!(code.as_u16(), 200..=206) {
        const SHOWN: usize = 50_000;
        let body = answer.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]).into_owned();
        return Err(backend::refusal(code, &text, "log", pod.name()));
    }
    let body = answer.into_body().map_err(|e| Box::new(e) as BoxError).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    sent(exchange, response)
}

/// The options of a log as a kubelet takes them, with their question mark.
fn log_query(options: &Value) -> String {
    const PASSED: [&str; 7] =
        ["follow", "limitBytes", "previous", "sinceSeconds", "sinceTime", "tailLines", "timestamps"];
    let text = |value: &Value| match value {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) => Some(escaped(text)),
        other => Some(other.to_string()),
    };
    let pairs = PASSED.iter().filter_map(|key| Some(format!("{key}={}", text(options.get(key))?)));
    let pairs: Vec<String> = pairs.collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

fn escaped(text: &str) -> String {
    const SPECIAL: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, &SPECIAL).to_string()
}

/// A log as the client wants it.
fn sent(exchange: Exchange, log: Response<Body>) -> Result<Response<Body>> {
    if crate::websocket::is_wanted(&exchange) { crate::websocket::bytes(exchange, log) } else { Ok(log) }
}

/// exec, attach and port-forward.
pub async fn stream(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    // WebSockets begin with GET; whoever may only read may not begin a stream by that.
    crate::http::require(&exchange, "create").await?;
    let pod = pod_of(&exchange, row).await?;
    let verb = exchange.info.subresource.clone();
    let base = format!("{}/{}", pod.namespace(), pod.name());
    let path = match verb.as_str() {
        "portforward" => format!("/portForward/{base}"),
        _ => format!("/{verb}/{base}/{}", container_of(exchange.query.get("container"), &pod)?),
    };
    let node = node_of(&pod)?;
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
    let authority = authority(&host, port);
    let by_kubelet = kubelets.translates(&server.storage, &node);
    server.metrics.stream(&verb, by_kubelet);
    let here = kind == Kind::WebSocket && !by_kubelet;
    if here && verb != "portforward" && exchange.offers(websocket::V5) {
        // Such clients learn of everything that goes wrong in the stream.
        return late(&mut exchange, (host, port), target, &query);
    }
    let outbound = kubelets.dial(&host, port, Some(&kubelets.tls)).await?;
    match (here, verb.as_str()) {
        (true, "exec" | "attach") => translated(&mut exchange, outbound, &authority, &target, &query).await,
        (true, "portforward") if exchange.offers(websocket::PORT_FORWARD_TUNNEL) => {
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
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs.iter().map(|(k, v)| format!("{k}={}", escaped(v))).collect::<Vec<_>>().join("&")
}

impl Exchange {
    /// True when the client offers to speak a protocol in a WebSocket.
    fn offers(&self, protocol: &str) -> bool {
        upgrade::tokens(self.headers(), &SEC_WEBSOCKET_PROTOCOL).any(|p| p == protocol)
    }
}

/// A WebSocket client of a SPDY kubelet that is connected to once the client has its WebSocket.
fn late(
    exchange: &mut Exchange,
    (host, port): (String, u16),
    target: PathAndQuery,
    query: &str,
) -> Result<Response<Body>> {
    let server = exchange.server.clone();
    let upstream = async move {
        let kubelets = &server.kubelets;
        let authority = authority(&host, port);
        let url = api::field::go_quote(&format!("https://{authority}{target}"));
        let unsent = |why: String| format!("error sending request: Post {url}: {why}");
        let outbound = kubelets.connect(&host, port, Some(&kubelets.tls)).await.map_err(unsent)?;
        begin(outbound, &authority, &target).await.map_err(|e| match e {
            upgrade::Error::Refused(answer) => {
                format!("unable to upgrade connection: {}", backend::said(answer.body()))
            }
            other => unsent(crate::webhook::chain(&other)),
        })
    };
    serve_client(exchange, query, upstream)
}

/// Asks a kubelet for a SPDY session.
async fn begin(
    outbound: Box<dyn Stream>,
    authority: &str,
    target: &PathAndQuery,
) -> std::result::Result<spdy::Session, upgrade::Error> {
    let spdy = upgrade::spdy_request(authority, target.as_str(), &remote_command::SPDY_PROTOCOLS[..1]);
    let spdy = spdy.map_err(|e| upgrade::Error::BadRequest(e.to_string()))?;
    let (_, upstream) = upgrade::connect(outbound, spdy).await?;
    Ok(spdy::Session::client(upstream, remote_command::upstream_config()))
}

/// A WebSocket client of a SPDY kubelet.
async fn translated(
    exchange: &mut Exchange,
    outbound: Box<dyn Stream>,
    authority: &str,
    target: &PathAndQuery,
    query: &str,
) -> Result<Response<Body>> {
    let session = begin(outbound, authority, target).await.map_err(|e| refused(&e))?;
    serve_client(exchange, query, std::future::ready(Ok(session)))
}

fn serve_client(
    exchange: &mut Exchange,
    query: &str,
    upstream: impl Future<Output = std::result::Result<spdy::Session, String>> + Send + 'static,
) -> Result<Response<Body>> {
    let mut request = inbound(exchange);
    let (response, protocol) =
        upgrade::accept_websocket(request.headers(), &remote_command::WEBSOCKET_PROTOCOLS)
            .map_err(|e| refused(&e))?;
    let streams = remote_command::Streams::from_query(query);
    let protocol = protocol.to_owned();
    let completion = exchange.completion.clone();
    exchange.server.kubelets.spawn(async move {
        let _held = completion;
        let Ok(client) = hyper::upgrade::on(&mut request).await else { return };
        let client = websocket::server(TokioIo::new(client), &protocol).await;
        if let Err(e) = remote_command::translate(client, upstream, streams).await {
            tracing::debug!(error = %e, "a stream broke");
        }
    });
    Ok(response.map(|b| b.map_err(|never| match never {}).boxed_unsync()))
}

/// SPDY inside a WebSocket, for port forwarding.
async fn tunnelled(
    exchange: &mut Exchange,
    outbound: Box<dyn Stream>,
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
