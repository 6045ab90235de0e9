//! From a Service to the address that is dialled.

use std::sync::Arc;

use api::{Value, field};
use rand::Rng;

use super::Backend;
use crate::resources::TABLE;
use crate::storage::{Storage, Stored};

/// The label by which EndpointSlices belong to a Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where a Service is: one of its ready endpoints, or its cluster address.
///
/// # Errors
/// Says why there is no address.
pub(super) fn resolve(
    storage: &Storage,
    backend: &Backend,
    endpoints: bool,
) -> Result<(String, u16), String> {
    let key = format!("{}/{}", backend.namespace, backend.service);
    let service = storage.cache(TABLE.store("", "services")).get(&key).map(|s| s.object());
    let quoted = field::go_quote(&backend.service);
    let service = service.ok_or_else(|| format!("service {quoted} not found"))?;
    if endpoints {
        let port = service_port(&service, backend)?;
        let slices: Vec<Value> = slices(storage, backend).iter().map(|s| s.object()).collect();
        return endpoint(&slices, &service, port.str_at(&["name"]))
            .ok_or_else(|| format!("no endpoints available for service {quoted}"));
    }
    cluster_address(&service, backend)
}

fn cluster_address(service: &Value, backend: &Backend) -> Result<(String, u16), String> {
    let number = u16::try_from(backend.port).map_err(|_| format!("invalid port {}", backend.port))?;
    let spec = service.get("spec");
    match (spec.str_at(&["type"]), spec.str_at(&["clusterIP"])) {
        ("ExternalName", _) => Ok((spec.str_at(&["externalName"]).to_owned(), number)),
        ("ClusterIP", "None") => Err("cannot route to service with ClusterIP \"None\"".to_owned()),
        ("ClusterIP" | "LoadBalancer" | "NodePort", address) => {
            service_port(service, backend)?;
            Ok((address.to_owned(), number))
        }
        (other, _) => Err(format!("unsupported service type {}", field::go_quote(other))),
    }
}

/// The port of the Service that an APIService names.
pub(super) fn service_port<'s>(service: &'s Value, backend: &Backend) -> Result<&'s Value, String> {
    let ports = service.array_at(&["spec", "ports"]).iter();
    ports.clone().find(|p| p.get("port").as_i64() == Some(backend.port)).ok_or_else(|| {
        format!("no service port {} found for service {}", backend.port, field::go_quote(&backend.service))
    })
}

/// The EndpointSlices of a Service.
pub(super) fn slices(storage: &Storage, backend: &Backend) -> Vec<Arc<Stored>> {
    let snapshot = storage.cache(TABLE.store("discovery.k8s.io", "endpointslices")).snapshot();
    let prefix = format!("{}/", backend.namespace);
    snapshot.below(&prefix).filter(|s| s.label(SERVICE_NAME) == Some(&backend.service)).cloned().collect()
}

/// True unless an endpoint says that it is not ready.
pub(super) fn is_ready(endpoint: &Value) -> bool {
    endpoint.at(&["conditions", "ready"]).as_bool() != Some(false)
}

/// A ready endpoint; those of the Service's first address family come first.
fn endpoint(slices: &[Value], service: &Value, port_name: &str) -> Option<(String, u16)> {
    let family = service.array_at(&["spec", "ipFamilies"]).first().and_then(Value::as_str);
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for slice in slices {
        let ports = slice.array_at(&["ports"]).iter();
        let number = ports.filter(|p| p.str_at(&["name"]) == port_name).find_map(|p| p.get("port").as_i64());
        let Some(number) = number.and_then(|n| u16::try_from(n).ok()) else { continue };
        let ready = slice.array_at(&["endpoints"]).iter().filter(|e| is_ready(e));
        let addresses = ready.filter_map(|e| e.array_at(&["addresses"]).first().and_then(Value::as_str));
        let own = family.is_none_or(|f| f == slice.str_at(&["addressType"]));
        let list = if own { &mut first } else { &mut others };
        list.extend(addresses.map(|a| (a.to_owned(), number)));
    }
    let mut list = if first.is_empty() { others } else { first };
    (!list.is_empty()).then(|| list.swap_remove(rand::rng().random_range(0..list.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn service(kind: &str) -> Value {
        object!({"spec": {"type": kind, "clusterIP": "10.0.0.1", "externalName": "e.example.com",
            "ipFamilies": ["IPv4"], "ports": [{"name": "https", "port": 443}]}})
    }

    #[test]
    fn addresses_are_of_the_kind_of_the_service() {
        let check = |kind: &str, port: i64, want: Result<&str, &str>| {
            let spec = object!({"service": {"name": "s", "namespace": "n", "port": port}});
            let backend = super::super::service::Backend::of(&spec);
            let got = cluster_address(&service(kind), &backend).map(|(host, port)| format!("{host}:{port}"));
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{kind} {port}");
        };
        check("ClusterIP", 443, Ok("10.0.0.1:443"));
        check("NodePort", 443, Ok("10.0.0.1:443"));
        check("ClusterIP", 444, Err("no service port 444 found for service \"s\""));
        check("ExternalName", 444, Ok("e.example.com:444"));
    }

    #[test]
    fn endpoints_are_ready_and_of_the_first_family() {
        let slice = |family: &str, address: &str, ready: bool| {
            object!({"addressType": family, "ports": [{"name": "https", "port": 8443}],
                "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}]})
        };
        let check = |slices: &[Value], want: Option<&str>| {
            let got =
                endpoint(slices, &service("ClusterIP"), "https").map(|(host, port)| format!("{host}:{port}"));
            assert_eq!(got.as_deref(), want);
        };
        check(&[slice("IPv6", "::1", true), slice("IPv4", "1.1.1.1", true)], Some("1.1.1.1:8443"));
        check(&[slice("IPv6", "::1", true), slice("IPv4", "1.1.1.1", false)], Some("::1:8443"));
        check(&[slice("IPv4", "1.1.1.1", false)], None);
        assert_eq!(endpoint(&[slice("IPv4", "1.1.1.1", true)], &service("ClusterIP"), "other"), None);
    }
}
