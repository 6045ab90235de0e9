//! Logs and streams of pods, from their kubelets.

use api::error::Result;
use api::{ApiError, Value};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serve::outbound::Stream;
use serve::{Body, BoxError};
use streaming::upgrade::{self, Kind};
use streaming::{port_forward, remote_command, spdy, websocket};

use super::{authority, inbound, passed, refused};
use crate::http::Exchange;
use crate::render;
use crate::resources::Row;
use crate::webhook::chain;

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

/// exec, attach and port-forward.
pub async fn stream(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let pod = pod_of(&exchange, row).await?;
    let verb = exchange.info.subresource.clone();
    let base = format!("{}/{}", pod.namespace(), pod.name());
    let path = match verb.as_str() {
        "portforward" => format!("/portForward/{base}"),
        _ => format!("/{verb}/{base}/{}", container_of(&exchange, &pod)?),
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

/// A WebSocket client of a SPDY kubelet.
async fn translated(
    exchange: &mut Exchange,
    outbound: Box<dyn Stream>,
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
