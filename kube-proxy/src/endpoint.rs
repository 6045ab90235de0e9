//! What the proxy keeps of an EndpointSlice, and of our Node.

use std::net::IpAddr;

use api::Value;

use crate::service::{number, protocol};

/// An EndpointSlice of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) namespace: String,
    pub(crate) service: String,
    /// Port names, protocols and numbers.
    pub(crate) ports: Vec<(String, &'static str, u16)>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) ip: IpAddr,
    /// On this node.
    pub(crate) local: bool,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    pub(crate) zone_hints: Vec<String>,
    /// Hinted for this node; none without any hint for nodes.
    pub(crate) node_hint: Option<bool>,
}

impl Slice {
    /// The part of a slice that matters on the node of that name.
    pub(crate) fn of(object: &Value, node: &str) -> Option<Self> {
        let service = object.label("kubernetes.io/service-name").filter(|s| !s.is_empty())?;
        let ports = object.array_at(&["ports"]).iter().filter_map(|port| {
            let number = number(port.get("port"));
            let protocol = protocol(port.str_at(&["protocol"]))?;
            (number != 0).then(|| (port.str_at(&["name"]).to_owned(), protocol, number))
        });
        let endpoints = object.array_at(&["endpoints"]).iter().filter_map(|e| Endpoint::of(e, node));
        Some(Self {
            namespace: object.namespace().to_owned(),
            service: service.to_owned(),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        })
    }
}

impl Endpoint {
    fn of(endpoint: &Value, node: &str) -> Option<Self> {
        let condition = |name, default| endpoint.at(&["conditions", name]).as_bool().unwrap_or(default);
        let ready = condition("ready", true);
        let hints = |kind| {
            let hints = endpoint.array_at(&["hints", kind]).iter();
            hints.map(|h| h.str_at(&["name"]).to_owned()).collect::<Vec<_>>()
        };
        let nodes = hints("forNodes");
        Some(Self {
            ip: endpoint.array_at(&["addresses"]).first()?.as_str()?.parse().ok()?,
            local: endpoint.str_at(&["nodeName"]) == node,
            ready,
            serving: condition("serving", ready),
            terminating: condition("terminating", false),
            zone_hints: hints("forZones"),
            node_hint: (!nodes.is_empty()).then(|| nodes.iter().any(|n| n == node)),
        })
    }
}

/// What matters of our own Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) zone: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) pod_cidrs: Vec<ipnet::IpNet>,
    /// Load balancers should send it nothing new.
    pub(crate) leaving: bool,
}

impl Node {
    pub(crate) fn of(object: &Value) -> Self {
        let internal = object.array_at(&["status", "addresses"]).iter();
        let internal = internal.filter(|a| a.str_at(&["type"]) == "InternalIP");
        let tainted = object.array_at(&["spec", "taints"]).iter();
        Self {
            zone: object.label("topology.kubernetes.io/zone").unwrap_or_default().to_owned(),
            addresses: internal.filter_map(|a| a.str_at(&["address"]).parse().ok()).collect(),
            pod_cidrs: object
                .array_at(&["spec", "podCIDRs"])
                .iter()
                .filter_map(|c| c.as_str()?.parse().ok())
                .collect(),
            leaving: object.is_terminating()
                || tainted.into_iter().any(|t| t.str_at(&["key"]) == "ToBeDeletedByClusterAutoscaler"),
        }
    }
}
