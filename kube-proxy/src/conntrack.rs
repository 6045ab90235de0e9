//! Forgetting UDP flows that lead to endpoints which are gone: UDP has no end of its own, so a client that keeps its port
//! would be sent there for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use linux::conntrack::{Conntrack, Flow};

use crate::endpoint::Slice;
use crate::rules::targets;
use crate::service::Service;

const UDP: u8 = 17;

/// Where UDP Services send packets, by the address (none for the node's own) and port that clients use.
pub(crate) type Destinations = BTreeMap<(Option<IpAddr>, u16), BTreeSet<(IpAddr, u16)>>;

/// The destinations of all UDP Services.
pub(crate) fn destinations(services: &[Arc<Service>], slices: &[Arc<Slice>], v6: bool) -> Destinations {
    let targets = targets(slices, v6);
    let mut found = Destinations::new();
    for service in services {
        for port in service.ports.iter().filter(|p| p.protocol == "udp") {
            let list = targets.get(&(service.port_name(port), "udp"));
            let usable = list.into_iter().flatten().filter(|t| t.endpoint.ready || t.endpoint.serving);
            let endpoints: BTreeSet<_> = usable.map(|t| (t.endpoint.ip, t.port)).collect();
            let ips = [&service.cluster_ips, &service.external_ips, &service.load_balancer_ips];
            for ip in ips.into_iter().flatten().filter(|ip| ip.is_ipv6() == v6) {
                found.insert((Some(*ip), port.port), endpoints.clone());
            }
            if port.node_port != 0 {
                found.insert((None, port.node_port), endpoints);
            }
        }
    }
    found
}

/// Whether a flow was sent to one of these destinations, but does not end at one of its endpoints.
fn is_stale(flow: &Flow, destinations: &Destinations) -> bool {
    let (to, port) = (flow.original.destination, flow.original.destination_port);
    let endpoints = destinations.get(&(Some(to), port)).or_else(|| {
        // A flow to a node port that was not translated is somebody's own server.
        destinations.get(&(None, port)).filter(|_| flow.reply.source != to)
    });
    let end = (flow.reply.source, flow.reply.source_port);
    flow.original.protocol == UDP && endpoints.is_some_and(|e| !e.contains(&end))
}

/// Deletes stale flows and says how many. Blocks.
pub(crate) fn clean(v6: bool, destinations: &Destinations) -> io::Result<usize> {
    Conntrack::open()?.delete_where(v6, |flow| is_stale(flow, destinations))
}
