//! From Services and EndpointSlices to packet rules: a pure function. Rules are written the way `iptables-save` prints them.

mod port;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::endpoint::Slice;
use crate::service::Service;
use crate::topology::Target;

/// Chains of a table, each with its rules (without the leading `-A CHAIN`).
pub(crate) type Table = BTreeMap<String, Vec<String>>;

/// A whole rule set of one IP family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) filter: Table,
    pub(crate) nat: Table,
}

/// How to tell pods of this node apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    /// Not at all.
    Unknown,
    /// By source address.
    Source(IpNet),
    /// By interface.
    Interface(String),
}

/// Everything besides Services and endpoints that rules depend on.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) v6: bool,
    pub(crate) local: Local,
    pub(crate) masquerade_all: bool,
    pub(crate) mark: u32,
    pub(crate) localhost_node_ports: bool,
    /// Addresses on which NodePorts listen; none for all of the node.
    pub(crate) node_port_ips: Option<Vec<IpAddr>>,
    pub(crate) liberal_tracking: bool,
    pub(crate) node_ips: Vec<IpAddr>,
    pub(crate) zone: String,
}

impl Settings {
    fn if_local(&self) -> Option<String> {
        match &self.local {
            Local::Unknown => None,
            Local::Source(cidr) => Some(format!("-s {cidr}")),
            Local::Interface(name) => Some(format!("-i {name}")),
        }
    }

    fn masquerade_what(&self) -> Option<String> {
        if self.masquerade_all {
            return Some(String::new());
        }
        self.if_local().map(|local| format!("! {local} "))
    }
}

pub(crate) const SERVICES: &str = "KUBE-SERVICES";
pub(crate) const NODE_PORTS: &str = "KUBE-NODEPORTS";
pub(crate) const EXTERNAL: &str = "KUBE-EXTERNAL-SERVICES";
pub(crate) const FIREWALL: &str = "KUBE-PROXY-FIREWALL";
pub(crate) const FORWARD: &str = "KUBE-FORWARD";
pub(crate) const POSTROUTING: &str = "KUBE-POSTROUTING";
pub(crate) const MARK_MASQ: &str = "KUBE-MARK-MASQ";
pub(crate) const LOCALNET: &str = "KUBE-FIREWALL";

/// Whether a chain of the nat table belongs to a Service or an endpoint.
pub(crate) fn is_service_chain(name: &str) -> bool {
    let prefixes = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-"];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// The sixteen characters that end a chain's name.
fn hash(parts: &[&str]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::digest(parts.concat());
    // 16 characters of 5 bits are the first 10 bytes.
    let bits = digest[..10].iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    (0..16).rev().map(|i| char::from(ALPHABET[(bits >> (5 * i) & 31) as usize])).collect()
}

fn add(table: &mut Table, chain: &str, rule: String) {
    table.entry(chain.to_owned()).or_default().push(rule);
}

/// `10.0.0.1/32`, as the kernel has it.
fn host(ip: IpAddr) -> String {
    IpNet::from(ip).to_string()
}

/// The endpoints of every Service port, in a fixed order: by Service, port name and protocol.
pub(crate) fn targets(slices: &[Arc<Slice>], v6: bool) -> HashMap<(String, &'static str), Vec<Target>> {
    let mut found: HashMap<(String, &'static str), Vec<Target>> = HashMap::new();
    for slice in slices {
        for (name, protocol, port) in &slice.ports {
            let colon = if name.is_empty() { "" } else { ":" };
            let key = (format!("{}/{}{colon}{name}", slice.namespace, slice.service), *protocol);
            let list = found.entry(key).or_default();
            for endpoint in slice.endpoints.iter().filter(|e| e.ip.is_ipv6() == v6) {
                list.push(Target { endpoint: endpoint.clone(), port: *port });
            }
        }
    }
    for list in found.values_mut() {
        // An endpoint can be in two slices for a moment, while it moves: its better self counts.
        list.sort_by_key(|t| (t.endpoint.ip, t.port, !t.endpoint.ready, !t.endpoint.serving));
        list.dedup_by_key(|t| (t.endpoint.ip, t.port));
    }
    found
}

/// The rule set for these objects.
pub(crate) fn plan(services: &[Arc<Service>], slices: &[Arc<Slice>], settings: &Settings) -> Rules {
    let mut rules = Rules::default();
    for chain in [SERVICES, EXTERNAL, FORWARD, NODE_PORTS, FIREWALL] {
        rules.filter.entry(chain.to_owned()).or_default();
    }
    for chain in [SERVICES, NODE_PORTS, POSTROUTING, MARK_MASQ] {
        rules.nat.entry(chain.to_owned()).or_default();
    }
    let targets = targets(slices, settings.v6);
    let mut services: Vec<&Arc<Service>> = services.iter().collect();
    services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    for service in services {
        port::plan(service, &targets, settings, &mut rules);
    }
    node_ports(settings, &mut rules);
    common(settings, &mut rules);
    rules
}

/// The way to the NodePorts: the last rule of KUBE-SERVICES.
fn node_ports(settings: &Settings, rules: &mut Rules) {
    const NOTE: &str = "-m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\"";
    let Some(ips) = &settings.node_port_ips else {
        let except = match (settings.v6, settings.localhost_node_ports) {
            (true, _) => "! -d ::1/128 ",
            (false, false) => "! -d 127.0.0.0/8 ",
            (false, true) => "",
        };
        let rule = format!("{except}{NOTE} -m addrtype --dst-type LOCAL -j {NODE_PORTS}");
        return add(&mut rules.nat, SERVICES, rule);
    };
    let loopback_too = settings.localhost_node_ports && !settings.v6;
    for ip in ips.iter().filter(|ip| ip.is_ipv6() == settings.v6 && (loopback_too || !ip.is_loopback())) {
        add(&mut rules.nat, SERVICES, format!("-d {} {NOTE} -j {NODE_PORTS}", host(*ip)));
    }
}

fn common(settings: &Settings, rules: &mut Rules) {
    let mark = format!("{:#x}", settings.mark);
    for rule in [
        format!("-m mark ! --mark {mark}/{mark} -j RETURN"),
        format!("-j MARK --set-xmark {mark}/0x0"),
        "-m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully"
            .to_owned(),
    ] {
        add(&mut rules.nat, POSTROUTING, rule);
    }
    add(&mut rules.nat, MARK_MASQ, format!("-j MARK --set-xmark {mark}/{mark}"));
    if !settings.v6 && settings.localhost_node_ports {
        let rule = "! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" \
                    -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";
        add(&mut rules.filter, LOCALNET, rule.to_owned());
    }
    if !settings.liberal_tracking {
        add(&mut rules.filter, FORWARD, "-m conntrack --ctstate INVALID -j DROP".to_owned());
    }
    for rule in [
        format!(
            "-m comment --comment \"kubernetes forwarding rules\" -m mark --mark {mark}/{mark} -j ACCEPT"
        ),
        "-m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
            .to_owned(),
    ] {
        add(&mut rules.filter, FORWARD, rule);
    }
}

#[cfg(test)]
mod tests;
