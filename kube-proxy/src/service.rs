//! What the proxy keeps of a Service.

use std::net::IpAddr;

use api::Value;
use ipnet::IpNet;

/// A Service that has cluster IPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) cluster_ips: Vec<IpAddr>,
    pub(crate) external_ips: Vec<IpAddr>,
    /// Addresses of load balancers that leave the destination address of packets alone.
    pub(crate) load_balancer_ips: Vec<IpAddr>,
    /// Who may use these; empty for everybody.
    pub(crate) source_ranges: Vec<IpNet>,
    /// Seconds a client sticks to its endpoint.
    pub(crate) affinity: Option<u32>,
    pub(crate) internal_local: bool,
    pub(crate) external_local: bool,
    pub(crate) health_check_node_port: u16,
    pub(crate) ports: Vec<Port>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: &'static str,
    pub(crate) port: u16,
    pub(crate) node_port: u16,
}

/// The name of a protocol as iptables writes it.
pub(crate) fn protocol(name: &str) -> Option<&'static str> {
    match name {
        "" | "TCP" => Some("tcp"),
        "UDP" => Some("udp"),
        "SCTP" => Some("sctp"),
        _ => None,
    }
}

pub(crate) fn number(value: &Value) -> u16 {
    value.as_i64().and_then(|n| u16::try_from(n).ok()).unwrap_or(0)
}

fn addresses(values: &[Value]) -> Vec<IpAddr> {
    values.iter().filter_map(|v| v.as_str()?.parse().ok()).collect()
}

impl Service {
    /// None for a Service the proxy has nothing to do with: headless, an external name, or another proxy's.
    pub(crate) fn of(object: &Value) -> Option<Self> {
        let spec = object.get("spec");
        let mut cluster_ips = addresses(spec.array_at(&["clusterIPs"]));
        if cluster_ips.is_empty() {
            cluster_ips.extend(spec.str_at(&["clusterIP"]).parse::<IpAddr>().ok());
        }
        let other_proxy = object.label("service.kubernetes.io/service-proxy-name").is_some();
        let kind = spec.str_at(&["type"]);
        if other_proxy || kind == "ExternalName" || cluster_ips.is_empty() {
            return None;
        }
        let external_ips = addresses(spec.array_at(&["externalIPs"]));
        let exposed = matches!(kind, "NodePort" | "LoadBalancer") || !external_ips.is_empty();
        let external_local = exposed && spec.str_at(&["externalTrafficPolicy"]) == "Local";
        let needs_health_check = external_local && kind == "LoadBalancer";
        Some(Self {
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            cluster_ips,
            external_ips,
            load_balancer_ips: load_balancer_ips(object),
            source_ranges: source_ranges(spec),
            affinity: affinity(spec),
            internal_local: spec.str_at(&["internalTrafficPolicy"]) == "Local",
            external_local,
            health_check_node_port: if needs_health_check {
                number(spec.get("healthCheckNodePort"))
            } else {
                0
            },
            ports: spec.array_at(&["ports"]).iter().filter_map(Port::of).collect(),
        })
    }

    /// How rules and chains call one of its ports.
    pub(crate) fn port_name(&self, port: &Port) -> String {
        let colon = if port.name.is_empty() { "" } else { ":" };
        format!("{}/{}{colon}{}", self.namespace, self.name, port.name)
    }
}

fn load_balancer_ips(object: &Value) -> Vec<IpAddr> {
    let ingress = object.array_at(&["status", "loadBalancer", "ingress"]).iter();
    let ours = ingress.filter(|i| matches!(i.str_at(&["ipMode"]), "" | "VIP"));
    ours.filter_map(|i| i.str_at(&["ip"]).parse().ok()).collect()
}

fn source_ranges(spec: &Value) -> Vec<IpNet> {
    let ranges = spec.array_at(&["loadBalancerSourceRanges"]).iter();
    ranges.filter_map(|r| r.as_str()?.trim().parse().ok()).collect()
}

fn affinity(spec: &Value) -> Option<u32> {
    if spec.str_at(&["sessionAffinity"]) != "ClientIP" {
        return None;
    }
    let seconds = spec.at(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).as_i64();
    Some(seconds.and_then(|s| u32::try_from(s).ok()).unwrap_or(10800))
}

impl Port {
    fn of(port: &Value) -> Option<Self> {
        Some(Self {
            name: port.str_at(&["name"]).to_owned(),
            protocol: protocol(port.str_at(&["protocol"]))?,
            port: number(port.get("port")),
            node_port: number(port.get("nodePort")),
        })
    }
}
