//! HTTP upgrades: the handshakes of WebSocket and SPDY, and an upgrade handed through to another server.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures::FutureExt;
use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The `Upgrade` token of SPDY.
pub const SPDY: &str = "SPDY/3.1";
/// The header with which SPDY peers agree on a channel protocol.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// How much of the answer of a server that refuses to upgrade is read.
const MAX_REFUSAL: usize = 1 << 20;
/// How long a server may take to answer: kubelets ask a runtime first, which may take two minutes.
const ANSWERS_WITHIN: Duration = Duration::from_secs(180);

/// Why an upgrade did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is not the upgrade that the endpoint offers.
    #[error("{0}")]
    BadRequest(String),
    /// HTTP with the other server failed.
    #[error("the upgrade request failed")]
    Http(#[from] hyper::Error),
    /// The other server answered something else than 101.
    #[error("the upgrade was refused with {}: {}", .0.status(), String::from_utf8_lossy(.0.body()).trim())]
    Refused(Box<Response<Bytes>>),
    /// The connection ended in the middle of the handshake.
    #[error("the connection ended during the upgrade")]
    Ended,
    /// The other server took too long.
    #[error("the upgrade request was not answered within {} seconds", ANSWERS_WITHIN.as_secs())]
    Unanswered,
}

/// What a request asks to be upgraded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No upgrade at all.
    None,
    /// SPDY/3.1.
    Spdy,
    /// A WebSocket.
    WebSocket,
    /// Something else.
    Other,
}

/// Which upgrade, if any, the headers ask for.
pub fn requested(headers: &HeaderMap) -> Kind {
    if !tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return Kind::None;
    }
    let mut kind = Kind::None;
    for token in tokens(headers, &UPGRADE) {
        kind = match token {
            token if token.eq_ignore_ascii_case(SPDY) => return Kind::Spdy,
            token if token.eq_ignore_ascii_case("websocket") => return Kind::WebSocket,
            _ => Kind::Other,
        };
    }
    kind
}

/// The comma-separated items of all occurrences of a header.
pub fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim)
}

/// The protocol both sides know; the order of preference is the client's.
pub fn negotiate<'s>(offered: &HeaderMap, name: &HeaderName, supported: &[&'s str]) -> Option<&'s str> {
    tokens(offered, name).find_map(|offer| supported.iter().copied().find(|known| *known == offer))
}

/// Answers a WebSocket handshake. Without any offer from the client the first of `supported` is assumed.
///
/// The response carries the agreed protocol, which is returned beside it.
pub fn accept_websocket<'s>(
    headers: &HeaderMap,
    supported: &[&'s str],
) -> Result<(Response<Full<Bytes>>, &'s str), Error> {
    let bad = |why: &str| Error::BadRequest(why.to_owned());
    if requested(headers) != Kind::WebSocket {
        return Err(bad("not a WebSocket upgrade request"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| bad("missing Sec-WebSocket-Key"))?;
    let offers = headers.contains_key(SEC_WEBSOCKET_PROTOCOL);
    let protocol = match negotiate(headers, &SEC_WEBSOCKET_PROTOCOL, supported) {
        Some(protocol) => protocol,
        None if offers => return Err(bad("requested protocol(s) are not supported")),
        None => supported.first().copied().unwrap_or_default(),
    };
    let mut response = switching("websocket");
    let accept = derive_accept_key(key.as_bytes());
    let accept = HeaderValue::from_str(&accept).expect("base64 is a legal header value");
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if offers {
        let value = HeaderValue::from_str(protocol).expect("protocol names are legal header values");
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok((response, protocol))
}

/// Answers a SPDY upgrade, agreeing on a channel protocol by `X-Stream-Protocol-Version`.
pub fn accept_spdy<'s>(
    headers: &HeaderMap,
    supported: &[&'s str],
) -> Result<(Response<Full<Bytes>>, &'s str), Error> {
    if requested(headers) != Kind::Spdy {
        return Err(Error::BadRequest("unable to upgrade: missing upgrade headers in request".to_owned()));
    }
    let Some(protocol) = negotiate(headers, &PROTOCOL_VERSION, supported) else {
        return Err(Error::BadRequest("unable to upgrade: no protocol in common".to_owned()));
    };
    let mut response = switching(SPDY);
    let value = HeaderValue::from_str(protocol).expect("protocol names are legal header values");
    response.headers_mut().insert(PROTOCOL_VERSION, value);
    Ok((response, protocol))
}

fn switching(upgrade: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(upgrade));
    response
}

/// A request that asks `host` for SPDY with one of `protocols`, the most wanted first.
pub fn spdy_request(
    host: &str,
    target: &str,
    protocols: &[&str],
) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(target)
        .header(HOST, host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, SPDY);
    for protocol in protocols {
        request = request.header(PROTOCOL_VERSION, *protocol);
    }
    request.body(Full::default())
}

/// A request that asks `host` for a WebSocket with one of `protocols`, the most wanted first.
pub fn websocket_request(
    host: &str,
    target: &str,
    protocols: &[&str],
) -> Result<Request<Full<Bytes>>, http::Error> {
    let key = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 16]>());
    Request::builder()
        .method(Method::GET)
        .uri(target)
        .header(HOST, host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header(SEC_WEBSOCKET_KEY, key)
        .header(SEC_WEBSOCKET_PROTOCOL, protocols.join(", "))
        .body(Full::default())
}

/// Sends an upgrade request over a fresh connection and returns the answer with the upgraded connection.
///
/// The request's URI must be in origin form and its headers complete, `Host` included.
pub async fn connect<S>(
    io: S,
    request: Request<Full<Bytes>>,
) -> Result<(Response<()>, TokioIo<Upgraded>), Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::time::timeout(ANSWERS_WITHIN, upgraded(io, request)).await.map_err(|_| Error::Unanswered)?
}

async fn upgraded<S>(io: S, request: Request<Full<Bytes>>) -> Result<(Response<()>, TokioIo<Upgraded>), Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    let mut connection = std::pin::pin!(connection.with_upgrades().fuse());
    let mut response = {
        let mut answer = std::pin::pin!(sender.send_request(request));
        tokio::select! {
            biased;
            response = &mut answer => response?,
            ended = &mut connection => {
                ended?;
                // The answer may have come together with the end of the connection.
                answer.await?
            }
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (parts, body) = response.into_parts();
        let body = tokio::select! {
            biased;
            body = collect(body) => body,
            _ = &mut connection => Bytes::new(),
        };
        return Err(Error::Refused(Box::new(Response::from_parts(parts, body))));
    }
    let mut upgraded = hyper::upgrade::on(&mut response);
    let upgraded = tokio::select! {
        upgraded = &mut upgraded => upgraded,
        _ = &mut connection => upgraded.await,
    };
    let (parts, _) = response.into_parts();
    Ok((Response::from_parts(parts, ()), TokioIo::new(upgraded?)))
}

async fn collect(body: Incoming) -> Bytes {
    match Limited::new(body, MAX_REFUSAL).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => Bytes::new(),
    }
}

/// An upgrade handed through to another server.
pub struct Passthrough {
    /// What to answer the client: the other server's own answer.
    pub response: Response<Full<Bytes>>,
    /// When the other server agreed: the copying that must run, in a task of the caller, once the response is on its way.
    pub relay: Option<Relay>,
}

/// Two upgraded connections that are to be joined.
pub struct Relay {
    inbound: OnUpgrade,
    outbound: TokioIo<Upgraded>,
}

impl Relay {
    /// Copies both ways until one side has ended; returns the bytes from and to the client.
    pub async fn run(mut self) -> io::Result<(u64, u64)> {
        let inbound = self.inbound.await.map_err(io::Error::other)?;
        let mut inbound = TokioIo::new(inbound);
        tokio::io::copy_bidirectional_with_sizes(&mut inbound, &mut self.outbound, 32 << 10, 32 << 10).await
    }
}

/// Hands the client's upgrade request through to the server at the other end of `outbound`.
///
/// Method and headers are kept, except `Host`, which becomes `authority`; the caller takes out beforehand what the
/// server must not see (`Authorization`, say). A refusal is passed on as it is.
pub async fn passthrough<B, S>(
    inbound: &mut Request<B>,
    outbound: S,
    authority: &str,
    target: &PathAndQuery,
) -> Result<Passthrough, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let host = HeaderValue::from_str(authority).map_err(|_| Error::BadRequest("bad authority".to_owned()))?;
    let mut request = Request::new(Full::default());
    *request.method_mut() = inbound.method().clone();
    *request.uri_mut() = target.clone().into();
    *request.headers_mut() = inbound.headers().clone();
    request.headers_mut().insert(HOST, host);
    request.headers_mut().remove(http::header::CONTENT_LENGTH);
    request.headers_mut().remove(http::header::TRANSFER_ENCODING);
    match connect(outbound, request).await {
        Ok((answer, outbound)) => {
            let relay = Relay { inbound: hyper::upgrade::on(inbound), outbound };
            Ok(Passthrough { response: answer.map(|()| Full::default()), relay: Some(relay) })
        }
        Err(Error::Refused(answer)) => {
            let mut response = answer.map(Full::new);
            response.headers_mut().remove(http::header::TRANSFER_ENCODING);
            response.headers_mut().remove(CONNECTION);
            Ok(Passthrough { response, relay: None })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up() {
        let (ours, _silent) = tokio::io::duplex(4096);
        let request = spdy_request("h", "/x", &["v4.channel.k8s.io"]).unwrap();
        assert!(matches!(connect(ours, request).await, Err(Error::Unanswered)));
    }
}
