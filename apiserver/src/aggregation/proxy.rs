//! Hands a request on to the server that a version of a group belongs to.

use std::time::Duration;

use api::ApiError;
use api::error::Result;
use http::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SEC_WEBSOCKET_PROTOCOL, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use serve::{Body, BoxError, RemoteAddr};
use streaming::upgrade::{self, Kind};

use super::transport::Transport;
use super::{Aggregation, Remote, resolve};
use crate::authn::UserInfo;
use crate::http::Exchange;
use crate::proxy::authority;
use crate::webhook::chain;

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Headers that are about one connection alone.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// Tokens that browsers send among the protocols of a WebSocket.
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";
/// Documents of discovery come fast or not at all.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(5);
/// What may stand in the name of a header as it is.
const KEY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Hands the request on, and the answer back.
pub async fn forward(mut exchange: Exchange, remote: &Remote) -> Result<Response<Body>> {
    let server = exchange.server.clone();
    let aggregation = &server.aggregation;
    if !remote.available {
        return Ok(unavailable("service unavailable"));
    }
    if comes_back(exchange.headers(), &aggregation.via) {
        return Ok(serve::text(
            StatusCode::LOOP_DETECTED,
            "the request has been handed on by this server before\n",
        ));
    }
    let transport = match remote.backend.transport(&aggregation.identity).await {
        Ok(transport) => transport,
        Err(why) => return Ok(serve::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n"))),
    };
    let address = match aggregation.address(&server.storage, remote) {
        Ok(address) => address,
        Err(why) => {
            tracing::warn!(name = remote.name, why, "the server of an APIService has no address");
            return Ok(unavailable("service unavailable"));
        }
    };
    let authority = authority(&address.0, address.1);
    let target = exchange.head.uri.path_and_query().cloned();
    let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let kind = upgrade::requested(exchange.headers());
    let headers = headers(&exchange, &aggregation.via, &authority, kind)?;
    if kind != Kind::None {
        let outbound = match remote.backend.dial(&transport, &address).await {
            Ok(outbound) => outbound,
            Err(why) => return Ok(unavailable(&why)),
        };
        let mut request = crate::proxy::inbound(&mut exchange);
        *request.headers_mut() = headers;
        let handed = crate::proxy::handed(&exchange, request, Box::new(outbound), &authority, &target).await;
        return Ok(handed.unwrap_or_else(|e| unavailable(&chain(&e))));
    }
    let limit = is_discovery(exchange.info.path.as_str()).then_some(DISCOVERY_LIMIT);
    let request = request(&mut exchange, headers, &authority, target)?;
    let answer = answer(&transport, request, limit).await;
    let response = match answer {
        Ok(response) => response,
        Err(why) => return Ok(unavailable(&format!("error trying to reach service: {why}"))),
    };
    if aggregation.options.reject_redirects
        && response.status().is_redirection()
        && response.headers().contains_key(LOCATION)
    {
        let why = "the backend attempted to redirect this request, which is not permitted";
        let mut refusal = Response::new(serve::full(why));
        *refusal.status_mut() = StatusCode::BAD_GATEWAY;
        return Ok(refusal);
    }
    Ok(response)
}

impl Aggregation {
    /// Where the server of an APIService is.
    pub(super) fn address(
        &self,
        storage: &crate::storage::Storage,
        remote: &Remote,
    ) -> std::result::Result<(String, u16), String> {
        resolve::resolve(storage, &remote.backend, self.options.endpoints)
    }
}

fn unavailable(why: &str) -> Response<Body> {
    serve::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

/// `/apis/GROUP/VERSION`.
fn is_discovery(path: &str) -> bool {
    path.trim_matches('/').split('/').count() == 3
}

/// True when this server has handed the request on already.
fn comes_back(headers: &HeaderMap, via: &str) -> bool {
    upgrade::tokens(headers, &VIA).any(|hop| hop.split_whitespace().nth(1) == Some(via))
}

fn request(
    exchange: &mut Exchange,
    headers: HeaderMap,
    authority: &str,
    target: PathAndQuery,
) -> Result<Request<Body>> {
    let uri = Uri::builder().scheme("https").authority(authority).path_and_query(target).build();
    let body = match exchange.take_body() {
        Some(body) => body.map_err(|e| Box::new(e) as BoxError).boxed_unsync(),
        None => serve::empty(),
    };
    let mut request = Request::new(body);
    *request.method_mut() = exchange.head.method.clone();
    *request.uri_mut() = uri.map_err(ApiError::internal)?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn answer(
    transport: &Transport,
    request: Request<Body>,
    limit: Option<Duration>,
) -> std::result::Result<Response<Body>, String> {
    let sent = transport.client.request(request);
    let answer = match limit {
        Some(limit) => {
            tokio::time::timeout(limit, sent).await.map_err(|_| "context deadline exceeded".to_owned())?
        }
        None => sent.await,
    };
    let (mut head, body) = answer.map_err(|e| chain(&e))?.into_parts();
    remove_hops(&mut head.headers);
    Ok(Response::from_parts(head, body.map_err(|e| Box::new(e) as BoxError).boxed_unsync()))
}

fn remove_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        upgrade::tokens(headers, &CONNECTION).filter_map(|t| HeaderName::try_from(t).ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The client's headers without what is about its connection or its credentials, and who it is.
fn headers(exchange: &Exchange, via: &str, authority: &str, kind: Kind) -> Result<HeaderMap> {
    let mut headers = exchange.headers().clone();
    if kind == Kind::None {
        remove_hops(&mut headers);
    }
    crate::proxy::remove_credentials(&mut headers);
    let proxy = &exchange.server.authenticator.front_proxy;
    for name in proxy.username_headers.iter().chain(&proxy.group_headers) {
        headers.remove(name.as_str());
    }
    let is_extra = |name: &HeaderName| {
        proxy.extra_prefixes.iter().any(|p| name.as_str().starts_with(&p.to_ascii_lowercase()))
    };
    let extras: Vec<HeaderName> = headers.keys().filter(|n| is_extra(n)).cloned().collect();
    for name in extras {
        headers.remove(name);
    }
    remove_websocket_tokens(&mut headers);
    headers.remove(HOST);
    name_user(&mut headers, &exchange.user).map_err(ApiError::internal)?;
    let value = |text: &str| HeaderValue::from_str(text).map_err(ApiError::internal);
    if let Some(RemoteAddr(address)) = exchange.head.extensions.get::<RemoteAddr>() {
        let mut hops: Vec<String> = upgrade::tokens(&headers, &FORWARDED_FOR).map(str::to_owned).collect();
        hops.push(address.ip().to_string());
        headers.insert(FORWARDED_FOR, value(&hops.join(", "))?);
    }
    headers.insert("x-forwarded-uri", value(&exchange.info.path)?);
    headers.insert("x-forwarded-host", value(authority)?);
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    headers.append(VIA, value(&format!("1.1 {via}"))?);
    Ok(headers)
}

fn remove_websocket_tokens(headers: &mut HeaderMap) {
    if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return;
    }
    let kept: Vec<&str> = upgrade::tokens(headers, &SEC_WEBSOCKET_PROTOCOL)
        .filter(|p| !p.starts_with(WEBSOCKET_TOKEN))
        .collect();
    match HeaderValue::from_str(&kept.join(", ")) {
        Ok(value) if !kept.is_empty() => headers.insert(SEC_WEBSOCKET_PROTOCOL, value),
        _ => headers.remove(SEC_WEBSOCKET_PROTOCOL),
    };
}

/// Says who asks, as the front proxy of the other server.
pub(super) fn name_user(headers: &mut HeaderMap, user: &UserInfo) -> std::result::Result<(), String> {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(|e| e.to_string());
    headers.insert(USER, value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(UID, value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(GROUP, value(group)?);
    }
    for (key, values) in &user.extra {
        let key = percent_encoding::utf8_percent_encode(key, KEY);
        let name = HeaderName::try_from(format!("{EXTRA}{key}")).map_err(|e| e.to_string())?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_with_all_that_is_known_of_them() {
        let user = UserInfo {
            name: "jane".to_owned(),
            uid: "7".to_owned(),
            groups: vec!["a".to_owned(), "b".to_owned()],
            extra: vec![("example.com/Scopes%".to_owned(), vec!["x".to_owned(), "y".to_owned()])],
        };
        let mut headers = HeaderMap::new();
        name_user(&mut headers, &user).unwrap();
        let all: Vec<String> = headers.iter().map(|(k, v)| format!("{k}={}", v.to_str().unwrap())).collect();
        let extra = "x-remote-extra-example.com%2fscopes%25";
        let want = ["x-remote-user=jane", "x-remote-uid=7", "x-remote-group=a", "x-remote-group=b"]
            .map(str::to_owned);
        assert_eq!(all[..4], want);
        assert_eq!(all[4..], [format!("{extra}=x"), format!("{extra}=y")]);
        let hostile = UserInfo { name: "a\r\nx-remote-group: system:masters".to_owned(), ..user };
        assert!(name_user(&mut HeaderMap::new(), &hostile).is_err());
    }

    #[test]
    fn what_is_about_a_connection_stays_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("connection", "x-secret, close"), ("x-secret", "1"), ("te", "trailers"), ("accept", "*/*")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        remove_hops(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn tokens_among_websocket_protocols_are_taken_out() {
        let check = |offered: &'static str, want: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offered));
            remove_websocket_tokens(&mut headers);
            assert_eq!(headers.get(SEC_WEBSOCKET_PROTOCOL).map(|v| v.to_str().unwrap()), want);
        };
        check("a, base64url.bearer.authorization.k8s.io.Zm9v, b", Some("a, b"));
        check("base64url.bearer.authorization.k8s.io.Zm9v", None);
    }

    #[test]
    fn a_request_that_was_handed_on_is_known_again() {
        let mut headers = HeaderMap::new();
        headers.append(VIA, HeaderValue::from_static("1.1 other, 1.1 me"));
        assert!(comes_back(&headers, "me"));
        assert!(!comes_back(&headers, "you"));
    }
}
