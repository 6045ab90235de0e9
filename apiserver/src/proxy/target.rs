//! Where a proxied request goes: to a node, a pod, or a pod behind a Service.

use std::net::IpAddr;

use api::error::Result;
use api::field::go_quote;
use api::{ApiError, Value};
use rand::Rng;

use crate::http::Exchange;
use crate::registry::Call;
use crate::render;
use crate::resources::{Row, TABLE};
use crate::storage::Storage;

/// Where a proxied request goes.
pub(super) struct Target {
    pub(super) scheme: &'static str,
    pub(super) host: String,
    pub(super) port: u16,
    /// It is the kubelet that answers there.
    pub(super) kubelet: bool,
}

/// `[scheme:]name[:port]`.
struct Parts<'n> {
    scheme: &'n str,
    name: &'n str,
    port: &'n str,
}

impl<'n> Parts<'n> {
    fn read(text: &'n str) -> Option<Self> {
        let pieces: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match pieces[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let valid = !name.is_empty() && matches!(scheme, "" | "http" | "https");
        valid.then_some(Self { scheme, name, port })
    }

    fn scheme(&self) -> &'static str {
        if self.scheme == "https" { "https" } else { "http" }
    }
}

impl Target {
    /// The target that the name in the path means.
    pub(super) async fn of(exchange: &Exchange, row: &Row) -> Result<Self> {
        let text = &exchange.info.name;
        let parts = Parts::read(text).ok_or_else(|| {
            ApiError::bad_request(format!(
                "invalid {} request {}",
                row.plural.trim_end_matches('s'),
                go_quote(text)
            ))
        })?;
        match row.plural {
            "nodes" => of_node(exchange, &parts).await,
            "pods" => of_pod(exchange, row, &parts).await,
            _ => of_service(exchange, &parts),
        }
    }
}

async fn of_node(exchange: &Exchange, parts: &Parts<'_>) -> Result<Target> {
    let (host, kubelet_port) = exchange.server.kubelets.locate(exchange, parts.name)?;
    let found = tokio::net::lookup_host((host.as_str(), 0)).await;
    for address in found.map_err(|e| ApiError::bad_request(format!("lookup {host}: {e}")))? {
        check_reachable(Some(address.ip()))?;
    }
    match parts.port {
        "" => Ok(Target { scheme: "https", host, port: kubelet_port, kubelet: true }),
        port if port == kubelet_port.to_string() => {
            Ok(Target { scheme: "https", host, port: kubelet_port, kubelet: true })
        }
        port => Ok(Target { scheme: parts.scheme(), host, port: port_number(port)?, kubelet: false }),
    }
}

async fn of_pod(exchange: &Exchange, row: &Row, parts: &Parts<'_>) -> Result<Target> {
    let mut call = Call::new(exchange.server.clone(), row, exchange.user.clone());
    call.namespace.clone_from(&exchange.info.namespace);
    call.name = parts.name.to_owned();
    let pod = render::object_of(row, &*call.get(None).await?);
    let mut ports = pod.array_at(&["spec", "containers"]).iter().flat_map(|c| c.array_at(&["ports"]));
    let first = ports.next().and_then(|p| p.get("containerPort").as_i64()).map(|n| n.to_string());
    let ip = pod.array_at(&["status", "podIPs"]).first().map_or("", |ip| ip.str_at(&["ip"]));
    check_reachable(ip.parse().ok())?;
    let scheme = parts.scheme();
    let usual = || if scheme == "https" { 443 } else { 80 };
    let port = match parts.port {
        "" => first.as_deref().map_or_else(|| Ok(usual()), port_number)?,
        port => port_number(port)?,
    };
    Ok(Target { scheme, host: ip.to_owned(), port, kubelet: false })
}

/// A ready endpoint of the Service's port.
fn of_service(exchange: &Exchange, parts: &Parts<'_>) -> Result<Target> {
    let (storage, namespace) = (&exchange.server.storage, &exchange.info.namespace);
    let get = |resource: &str| {
        let found = storage.cache(TABLE.store("", resource)).get(&format!("{namespace}/{}", parts.name));
        // What is not there is told of as what was asked for.
        found.map(|stored| stored.object()).ok_or_else(|| ApiError::not_found("", "services", parts.name))
    };
    let mut port = parts.port.to_owned();
    if let Ok(number) = parts.port.parse::<i64>() {
        let service = get("services")?;
        let declared = service.array_at(&["spec", "ports"]).iter();
        let found = declared.clone().find(|p| p.get("port").as_i64() == Some(number));
        let found = found.ok_or_else(|| {
            let name = go_quote(parts.name);
            ApiError::unavailable(format!("no service port {number} found for service {name}"))
        })?;
        port = found.str_at(&["name"]).to_owned();
    }
    let endpoints = get("endpoints")?;
    let nobody =
        |name: &str| ApiError::unavailable(format!("no endpoints available for service {}", go_quote(name)));
    let subsets = endpoints.array_at(&["subsets"]);
    if subsets.is_empty() {
        return Err(nobody(parts.name));
    }
    let mut found = Vec::new();
    for subset in subsets {
        let addresses = subset.array_at(&["addresses"]);
        let safe = |a: &&Value| check_reachable(a.str_at(&["ip"]).parse().ok()).is_ok();
        let of_pods = || addresses.iter().filter(safe).filter(|a| is_of_pod(storage, namespace, a));
        for number in subset
            .array_at(&["ports"])
            .iter()
            .filter(|p| p.str_at(&["name"]) == port)
            .filter_map(|p| p.get("port").as_i64())
        {
            found.extend(of_pods().map(|a| (a.str_at(&["ip"]).to_owned(), number)));
        }
    }
    if found.is_empty() {
        return Err(nobody(&exchange.info.name));
    }
    let (host, number) = found.swap_remove(rand::rng().random_range(0..found.len()));
    Ok(Target { scheme: parts.scheme(), host, port: port_number(&number.to_string())?, kubelet: false })
}

/// True when an endpoint is what it says: a pod that has the address. Whoever may write endpoints must not reach others.
fn is_of_pod(storage: &Storage, namespace: &str, endpoint: &Value) -> bool {
    let target = endpoint.get("targetRef");
    if target.str_at(&["namespace"]) != namespace {
        return false;
    }
    let key = format!("{namespace}/{}", target.str_at(&["name"]));
    let Some(pod) = storage.cache(TABLE.store("", "pods")).get(&key).map(|s| s.object()) else {
        return false;
    };
    let address = endpoint.str_at(&["ip"]);
    pod.array_at(&["status", "podIPs"]).iter().any(|ip| ip.str_at(&["ip"]) == address)
}

/// Refuses addresses that would lead to the machine itself or to its link.
fn check_reachable(address: Option<IpAddr>) -> Result<()> {
    match address {
        Some(ip) if is_global_unicast(ip) => Ok(()),
        _ => Err(ApiError::bad_request("address not allowed")),
    }
}

fn is_global_unicast(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let elsewhere = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(elsewhere || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

fn port_number(text: &str) -> Result<u16> {
    text.parse().map_err(|_| {
        ApiError::unavailable(format!(
            "error trying to reach service: dial tcp: lookup tcp/{text}: unknown port"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_paths_have_schemes_and_ports() {
        let check = |text: &str, want: Option<(&str, &str, &str)>| {
            let got = Parts::read(text).map(|p| (p.scheme(), p.name, p.port));
            assert_eq!(got, want, "{text}");
        };
        check("a", Some(("http", "a", "")));
        check("a:b", Some(("http", "a", "b")));
        check("https:a:b", Some(("https", "a", "b")));
        check(":a:b", Some(("http", "a", "b")));
        check("ftp:a:b", None);
        check("https::b", None);
        check("a:b:c:d", None);
    }

    #[test]
    fn the_machine_itself_is_not_reached() {
        let reachable = |text: &str| check_reachable(text.parse().ok()).is_ok();
        assert!(reachable("10.0.0.1") && reachable("fd00::1"));
        for text in
            ["127.0.0.1", "169.254.1.1", "0.0.0.0", "224.0.0.1", "::1", "fe80::1", "::ffff:127.0.0.1", ""]
        {
            assert!(!reachable(text), "{text}");
        }
    }
}
