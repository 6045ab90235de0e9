//! What the server keeps of Services and EndpointSlices.

use std::net::IpAddr;

use api::Value;

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Empty for a headless Service.
    pub(crate) ips: Vec<IpAddr>,
    /// Where an ExternalName leads; else empty.
    pub(crate) external_name: String,
    pub(crate) ports: Vec<Port>,
    pub(crate) publish_not_ready: bool,
}

/// A named port.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: String,
    pub(crate) number: u16,
}

fn ports(object: &Value, path: &[&str]) -> Vec<Port> {
    let port = |p: &Value| Port {
        name: p.str_at(&["name"]).to_lowercase(),
        protocol: match p.str_at(&["protocol"]) {
            "" => "tcp".to_owned(),
            other => other.to_lowercase(),
        },
        number: p.get("port").as_i64().and_then(|n| u16::try_from(n).ok()).unwrap_or(0),
    };
    object.array_at(path).iter().map(port).collect()
}

impl Service {
    pub(crate) fn of(object: &Value) -> Self {
        let spec = object.get("spec");
        let list = spec.array_at(&["clusterIPs"]).iter().filter_map(Value::as_str);
        let mut ips: Vec<IpAddr> = list.filter_map(|ip| ip.parse().ok()).collect();
        if ips.is_empty() {
            ips.extend(spec.str_at(&["clusterIP"]).parse::<IpAddr>().ok());
        }
        let external = spec.str_at(&["type"]) == "ExternalName";
        Self {
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            ips,
            external_name: if external { spec.str_at(&["externalName"]).to_owned() } else { String::new() },
            ports: ports(object, &["spec", "ports"]),
            publish_not_ready: spec.get("publishNotReadyAddresses").as_bool().unwrap_or(false),
        }
    }
}

/// An EndpointSlice of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) ports: Vec<Port>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// An address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) ip: IpAddr,
    /// The host name, or the address with dashes.
    pub(crate) label: String,
    pub(crate) ready: bool,
}

impl Slice {
    pub(crate) fn of(object: &Value) -> Option<Self> {
        let service = object.label("kubernetes.io/service-name").filter(|s| !s.is_empty())?;
        let mut endpoints = Vec::new();
        for endpoint in object.array_at(&["endpoints"]) {
            let ready = endpoint.at(&["conditions", "ready"]).as_bool().unwrap_or(true);
            let host = endpoint.str_at(&["hostname"]).to_lowercase();
            for ip in endpoint.array_at(&["addresses"]).iter().filter_map(Value::as_str) {
                let Ok(ip) = ip.parse::<IpAddr>() else { continue };
                let label = if host.is_empty() { dashed(ip) } else { host.clone() };
                endpoints.push(Endpoint { ip, label, ready });
            }
        }
        Some(Self {
            namespace: object.namespace().to_owned(),
            service: service.to_owned(),
            ports: ports(object, &["ports"]),
            endpoints,
        })
    }
}

/// An address as a label: dots and colons become dashes.
pub(crate) fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}
