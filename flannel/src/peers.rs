//! What other nodes say about themselves, and what this node needs to reach them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use api::{Value, object};
use ipnet::Ipv4Net;

use crate::config::Backend;

const PREFIX: &str = "flannel.alpha.coreos.com/";

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// What matters of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) subnet: Option<Ipv4Net>,
    pub(crate) backend: String,
    pub(crate) public_ip: Option<Ipv4Addr>,
    pub(crate) vni: u32,
    pub(crate) mac: Option<Mac>,
}

fn parse_mac(text: &str) -> Option<Mac> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|b| u8::from_str_radix(b, 16).ok()).collect();
    bytes?.try_into().ok()
}

fn print_mac(mac: Mac) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

impl Peer {
    pub(crate) fn of(node: &Value) -> Self {
        let annotation = |name: &str| node.annotation(&format!("{PREFIX}{name}")).unwrap_or_default();
        let ours = annotation("kube-subnet-manager") == "true";
        let data: serde_json::Value = serde_json::from_str(annotation("backend-data")).unwrap_or_default();
        Self {
            name: node.name().to_owned(),
            subnet: node.str_at(&["spec", "podCIDR"]).parse().ok(),
            backend: if ours { annotation("backend-type").to_owned() } else { String::new() },
            public_ip: annotation("public-ip").parse().ok(),
            vni: data["VNI"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            mac: data["VtepMAC"].as_str().and_then(parse_mac),
        }
    }
}

/// The patch that tells the others about this node.
pub(crate) fn announcement(backend: Backend, public_ip: Ipv4Addr, mac: Option<Mac>) -> Value {
    let data = match (backend, mac) {
        (Backend::Vxlan { vni, .. }, Some(mac)) => {
            format!("{{\"VNI\":{vni},\"VtepMAC\":\"{}\"}}", print_mac(mac))
        }
        _ => "null".to_owned(),
    };
    let mut annotations = api::Map::new();
    for (name, value) in [
        ("backend-data", data),
        ("backend-type", backend.name().to_owned()),
        ("public-ip", public_ip.to_string()),
        ("kube-subnet-manager", "true".to_owned()),
    ] {
        annotations.insert(format!("{PREFIX}{name}"), value);
    }
    object!({"metadata": {"annotations": (annotations)}})
}

/// The way to the pods of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The next hop: the peer's end of the tunnel, or the peer itself.
    pub(crate) gateway: Ipv4Addr,
    /// For tunnels: where the peer's end is, and its hardware address.
    pub(crate) tunnel: Option<(Ipv4Addr, Mac)>,
}

/// The ways this node needs, by the subnet they lead to.
pub(crate) fn plan(peers: &[Arc<Peer>], this: &str, backend: Backend) -> BTreeMap<Ipv4Net, Way> {
    let others = peers.iter().filter(|p| p.name != this && p.backend == backend.name());
    others.filter_map(|peer| Some((peer.subnet?.trunc(), way(peer, backend)?))).collect()
}

fn way(peer: &Peer, backend: Backend) -> Option<Way> {
    let public_ip = peer.public_ip?;
    match backend {
        Backend::HostGw => Some(Way { gateway: public_ip, tunnel: None }),
        Backend::Vxlan { vni, .. } if vni == peer.vni => {
            let gateway = peer.subnet?.network();
            Some(Way { gateway, tunnel: Some((public_ip, peer.mac?)) })
        }
        Backend::Vxlan { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, backend: &str, data: &str) -> Value {
        let mut node = object!({
            "metadata": {"name": (name), "annotations": {
                "flannel.alpha.coreos.com/backend-data": (data),
                "flannel.alpha.coreos.com/public-ip": "192.0.2.7",
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
            }},
            "spec": {"podCIDR": "10.42.7.0/24"},
        });
        node.set(&["metadata", "annotations", "flannel.alpha.coreos.com/backend-type"], backend);
        node
    }

    const DATA: &str = r#"{"VNI":1,"VtepMAC":"0e:01:02:03:04:ff"}"#;
    const MAC: Mac = [0x0e, 1, 2, 3, 4, 0xff];

    #[test]
    fn peers_are_reached_by_the_backend_both_sides_use() {
        let vxlan = Backend::Vxlan { vni: 1, port: 8472 };
        let tunnel = Way { gateway: [10, 42, 7, 0].into(), tunnel: Some(([192, 0, 2, 7].into(), MAC)) };
        let direct = Way { gateway: [192, 0, 2, 7].into(), tunnel: None };
        for (backend, peer, want) in [
            (vxlan, node("n2", "vxlan", DATA), Some(tunnel)),
            (vxlan, node("n1", "vxlan", DATA), None),
            (vxlan, node("n2", "host-gw", "null"), None),
            (vxlan, node("n2", "vxlan", "null"), None),
            (vxlan, node("n2", "vxlan", r#"{"VNI":2,"VtepMAC":"0e:01:02:03:04:ff"}"#), None),
            (Backend::HostGw, node("n2", "host-gw", "null"), Some(direct)),
            (Backend::HostGw, object!({"metadata": {"name": "n3"}}), None),
        ] {
            let ways = plan(&[Arc::new(Peer::of(&peer))], "n1", backend);
            assert_eq!(ways.values().next().copied(), want, "{peer:?}");
        }
    }

    #[test]
    fn what_a_node_announces_is_read_back() {
        let patch = announcement(Backend::Vxlan { vni: 1, port: 8472 }, [192, 0, 2, 7].into(), Some(MAC));
        let annotation = |name: &str| patch.annotation(&format!("{PREFIX}{name}")).unwrap().to_owned();
        assert_eq!(annotation("backend-data"), DATA);
        let peer = Peer::of(&patch);
        assert_eq!((peer.backend.as_str(), peer.mac), ("vxlan", Some(MAC)));
    }
}
