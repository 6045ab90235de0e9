//! HTTP to nodes, pods and Services.

use std::net::IpAddr;

use api::error::Result;
use api::{ApiError, Value};
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use serve::{Body, BoxError};
use streaming::upgrade::{self, Kind};

use super::links::Place;
use super::{authority, inbound, passed};
use crate::http::Exchange;
use crate::render;
use crate::resources::{Row, TABLE};
use crate::storage::Storage;
use crate::webhook::chain;

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
    let answer = client
        .request(request)
        .await
        .map_err(|e| ApiError::unavailable(format!("error trying to reach service: {}", chain(&e))))?;
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
            if !is_reachable(&host) {
                return Err(ApiError::bad_request("address not allowed"));
            }
            Ok(Target { scheme, host, port: port_number(port)?, kubelet: false })
        }
        _ => service_target(exchange, scheme, &name, &port).await,
    }
}

/// False for addresses that would lead to the machine itself or to its link.
fn is_reachable(host: &str) -> bool {
    match host.parse() {
        Ok(IpAddr::V4(ip)) => {
            !(ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_unspecified()
                || ip.is_broadcast())
        }
        Ok(IpAddr::V6(ip)) => {
            !(ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast() || ip.is_unspecified())
        }
        Err(_) => false,
    }
}

/// True when an endpoint is what it says: a pod that has the address. Whoever may write endpoints must not reach others.
fn is_of_pod(storage: &Storage, namespace: &str, endpoint: &Value, address: &str) -> bool {
    let target = endpoint.get("targetRef");
    let named = target.str_at(&["namespace"]);
    let own = named.is_empty() || named == namespace;
    if target.kind() != "Pod" || !own {
        return false;
    }
    let key = format!("{namespace}/{}", target.str_at(&["name"]));
    let Some(pod) = storage.cache(TABLE.store("", "pods")).get(&key).map(|s| s.object()) else {
        return false;
    };
    pod.str_at(&["status", "podIP"]) == address
        || pod.array_at(&["status", "podIPs"]).iter().any(|ip| ip.str_at(&["ip"]) == address)
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
                    .filter(|a| is_reachable(a) && is_of_pod(storage, &exchange.info.namespace, endpoint, a))
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
