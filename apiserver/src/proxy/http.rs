//! HTTP to nodes, pods and Services.

use api::ApiError;
use api::error::Result;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use serve::{Body, BoxError};
use streaming::upgrade::{self, Kind};

use super::links::Place;
use super::target::Target;
use super::{authority, inbound, passed, unreached};
use crate::http::Exchange;
use crate::resources::Row;

/// HTTP to a node, a pod or a Service.
pub async fn proxy(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let target = Target::of(&exchange, row).await?;
    let server = exchange.server.clone();
    let kubelets = &server.kubelets;
    let (prefix, rest) = at_proxy(&exchange.info.path, row.namespaced);
    let query = exchange.head.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let upgrades = upgrade::requested(exchange.headers()) != Kind::None;
    if rest.is_empty() && !upgrades && [Method::GET, Method::HEAD].contains(&exchange.head.method) {
        // Links that are relative to a page need the slash.
        return redirect(&format!("{}/{query}", exchange.info.path));
    }
    let rest = if rest.is_empty() { "/" } else { rest };
    let path: PathAndQuery =
        format!("{rest}{query}").parse().map_err(|_| ApiError::bad_request("the path is malformed"))?;
    let authority = authority(&target.host, target.port);
    if upgrades {
        let tls = match (target.scheme, target.kubelet) {
            ("https", true) => Some(&kubelets.tls),
            ("https", false) => Some(&kubelets.any_tls),
            _ => None,
        };
        let outbound = kubelets.dial(&target.host, target.port, tls).await?;
        return passed(&mut exchange, outbound, &authority, &path).await;
    }
    let asked = exchange.headers().get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned();
    let place = Place { prefix: prefix.to_owned(), hosts: [authority.clone(), asked] };
    let forwarded = HeaderValue::try_from(exchange.head.uri.path()).map_err(ApiError::internal)?;
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
    for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
        request.headers_mut().remove(name);
    }
    request.headers_mut().insert("x-forwarded-uri", forwarded);
    let client = if target.kubelet { &kubelets.client } else { &kubelets.any };
    let answer = client.request(request).await.map_err(|e| {
        ApiError::unavailable(format!("error trying to reach service: {}", unreached(&e, &authority)))
    })?;
    let (mut head, body) = answer.into_parts();
    head.headers.remove(CONNECTION);
    head.headers.remove(TRANSFER_ENCODING);
    let foreign: Vec<HeaderName> =
        head.headers.keys().filter(|k| k.as_str().starts_with("access-control-allow-")).cloned().collect();
    for name in foreign {
        head.headers.remove(name);
    }
    let body = body.map_err(|e| Box::new(e) as BoxError).boxed_unsync();
    let (head, body) = place.answer(head, body)?;
    Ok(Response::from_parts(head, body))
}

/// A path cut behind its `proxy`, which follows the name of the object.
pub(crate) fn at_proxy(path: &str, namespaced: bool) -> (&str, &str) {
    let before = if namespaced { 7 } else { 5 };
    let end = path.match_indices('/').nth(before).map_or(path.len(), |(i, _)| i);
    path.split_at(end)
}

fn redirect(to: &str) -> Result<Response<Body>> {
    let mut response = Response::new(serve::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, HeaderValue::try_from(to).map_err(ApiError::internal)?);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_cut_behind_the_name_whatever_it_is() {
        let path = "/api/v1/namespaces/proxy-1/services/proxy:x/proxy/a/proxy";
        assert_eq!(at_proxy(path, true), ("/api/v1/namespaces/proxy-1/services/proxy:x/proxy", "/a/proxy"));
        assert_eq!(at_proxy("/api/v1/nodes/proxy/proxy", false), ("/api/v1/nodes/proxy/proxy", ""));
        assert_eq!(at_proxy("/api/v1/nodes/n/proxy/", false), ("/api/v1/nodes/n/proxy", "/"));
    }
}
