//! The rules of one Service.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{EXTERNAL, FIREWALL, MARK_MASQ, NODE_PORTS, Rules, SERVICES, Settings, add, hash, host};
use crate::service::{Port, Service};
use crate::topology::{Choice, Target, choose};

/// One Service port with everything its rules are made of.
struct Work<'w> {
    service: &'w Service,
    port: &'w Port,
    /// `namespace/name:port`.
    name: String,
    settings: &'w Settings,
    choice: Choice<'w>,
    cluster_ip: IpAddr,
    suffix: String,
}

/// Adds the rules of all ports of a Service.
pub(super) fn plan(
    service: &Service,
    targets: &HashMap<(String, &'static str), Vec<Target>>,
    settings: &Settings,
    rules: &mut Rules,
) {
    let Some(cluster_ip) = service.cluster_ips.iter().find(|ip| ip.is_ipv6() == settings.v6) else { return };
    for port in &service.ports {
        let name = service.port_name(port);
        let found = targets.get(&(name.clone(), port.protocol)).map_or(&[][..], Vec::as_slice);
        let suffix = hash(&[&name, port.protocol]);
        let exposed = port.node_port != 0
            || !ips(&service.external_ips, settings.v6).is_empty()
            || !ips(&service.load_balancer_ips, settings.v6).is_empty();
        // Pods of this node reach even external addresses of a `Local` Service by way of all endpoints.
        let uses_cluster = !service.internal_local || exposed;
        let uses_local = service.internal_local || (exposed && service.external_local);
        let choice = choose(found, &settings.zone, uses_cluster, uses_local);
        let work = Work { service, port, name, settings, choice, cluster_ip: *cluster_ip, suffix };
        work.destinations(rules);
        work.external(exposed, rules);
        work.endpoints(rules);
    }
}

fn ips(all: &[IpAddr], v6: bool) -> Vec<IpAddr> {
    all.iter().copied().filter(|ip| ip.is_ipv6() == v6).collect()
}

impl Work<'_> {
    fn chain(&self, kind: &str) -> String {
        format!("KUBE-{kind}-{}", self.suffix)
    }

    /// Where the `Cluster` (or `Local`) policy leads.
    fn policy_chain(&self, local: bool) -> String {
        self.chain(if local { "SVL" } else { "SVC" })
    }

    fn has_endpoints(&self, local: bool) -> bool {
        if local { !self.choice.local.is_empty() } else { self.choice.any }
    }

    /// A match on destination address and port, with a comment.
    fn to(&self, ip: Option<IpAddr>, comment: &str, port: u16) -> String {
        let destination = ip.map(|ip| format!("-d {} ", host(ip))).unwrap_or_default();
        let (name, p) = (&self.name, self.port.protocol);
        format!("{destination}-p {p} -m comment --comment \"{name}{comment}\" -m {p} --dport {port}")
    }

    /// Why traffic is not let in when a policy has no endpoints: the comment and the target.
    fn refusal(&self) -> (&'static str, String) {
        if self.choice.any {
            return (" has no local endpoints", "DROP".to_owned());
        }
        let answer = if self.settings.v6 { "icmp6-port-unreachable" } else { "icmp-port-unreachable" };
        (" has no endpoints", format!("REJECT --reject-with {answer}"))
    }

    /// The rules in the shared chains: cluster IP, external IPs, load balancer IPs, NodePort.
    fn destinations(&self, rules: &mut Rules) {
        let port = self.port.port;
        let (service, v6) = (self.service, self.settings.v6);
        let (why, refuse) = self.refusal();
        if self.has_endpoints(service.internal_local) {
            let chain = self.policy_chain(service.internal_local);
            let rule = format!("{} -j {chain}", self.to(Some(self.cluster_ip), " cluster IP", port));
            add(&mut rules.nat, SERVICES, rule);
        } else {
            let rule = format!("{} -j {refuse}", self.to(Some(self.cluster_ip), why, port));
            add(&mut rules.filter, SERVICES, rule);
        }
        let has_external = self.has_endpoints(service.external_local);
        let external = ips(&service.external_ips, v6);
        let balanced = ips(&service.load_balancer_ips, v6);
        let ways = [
            (external, " external IP", self.chain("EXT")),
            (balanced, " loadbalancer IP", self.chain(if self.firewalled() { "FW" } else { "EXT" })),
        ];
        for (addresses, comment, chain) in ways {
            for ip in addresses {
                if self.choice.any {
                    let rule = format!("{} -j {chain}", self.to(Some(ip), comment, port));
                    add(&mut rules.nat, SERVICES, rule);
                }
                if !has_external {
                    let rule = format!("{} -j {refuse}", self.to(Some(ip), why, port));
                    add(&mut rules.filter, EXTERNAL, rule);
                }
            }
        }
        self.node_port(rules, has_external, why, &refuse);
    }

    fn node_port(&self, rules: &mut Rules, has_external: bool, why: &str, refuse: &str) {
        let port = self.port.node_port;
        if port != 0 && self.choice.any {
            let rule = format!("{} -j {}", self.to(None, "", port), self.chain("EXT"));
            add(&mut rules.nat, NODE_PORTS, rule);
        }
        if port != 0 && !has_external {
            let (name, p) = (&self.name, self.port.protocol);
            let rule = format!(
                "-p {p} -m comment --comment \"{name}{why}\" -m addrtype --dst-type LOCAL -m {p} --dport {port} -j {refuse}"
            );
            add(&mut rules.filter, EXTERNAL, rule);
        }
        let check = self.service.health_check_node_port;
        if check != 0 {
            let rule = format!(
                "-p tcp -m comment --comment \"{} health check node port\" -m tcp --dport {check} -j ACCEPT",
                self.name
            );
            add(&mut rules.filter, NODE_PORTS, rule);
        }
    }

    /// The ranges that may use the load balancer's addresses; none for everybody.
    fn ranges(&self) -> Vec<ipnet::IpNet> {
        let v6 = self.settings.v6;
        let ranges: Vec<_> =
            self.service.source_ranges.iter().filter(|r| r.addr().is_ipv6() == v6).copied().collect();
        if ranges.iter().any(|r| r.prefix_len() == 0) { Vec::new() } else { ranges }
    }

    fn firewalled(&self) -> bool {
        let balanced = ips(&self.service.load_balancer_ips, self.settings.v6);
        self.choice.any && !balanced.is_empty() && !self.ranges().is_empty()
    }

    /// The chains for traffic from outside: KUBE-EXT and KUBE-FW.
    fn external(&self, exposed: bool, rules: &mut Rules) {
        if !self.choice.any || !exposed {
            return;
        }
        let (name, ext, svc) = (&self.name, self.chain("EXT"), self.policy_chain(false));
        let local = self.service.external_local;
        if local {
            if let Some(pods) = self.settings.if_local() {
                let rule = format!(
                    "{pods} -m comment --comment \"pod traffic for {name} external destinations\" -j {svc}"
                );
                add(&mut rules.nat, &ext, rule);
            }
            for (verb, to) in [("masquerade", MARK_MASQ), ("route", &svc)] {
                let rule = format!(
                    "-m comment --comment \"{verb} LOCAL traffic for {name} external destinations\" -m addrtype --src-type LOCAL -j {to}"
                );
                add(&mut rules.nat, &ext, rule);
            }
        } else {
            let rule = format!(
                "-m comment --comment \"masquerade traffic for {name} external destinations\" -j {MARK_MASQ}"
            );
            add(&mut rules.nat, &ext, rule);
        }
        if self.has_endpoints(local) {
            add(&mut rules.nat, &ext, format!("-j {}", self.policy_chain(local)));
        }
        if self.firewalled() {
            self.firewall(&ext, rules);
        }
    }

    fn firewall(&self, ext: &str, rules: &mut Rules) {
        let (name, chain) = (&self.name, self.chain("FW"));
        let balanced = ips(&self.service.load_balancer_ips, self.settings.v6);
        let ranges = self.ranges();
        let from =
            |source: String| format!("-s {source} -m comment --comment \"{name} loadbalancer IP\" -j {ext}");
        for range in &ranges {
            add(&mut rules.nat, &chain, from(range.trunc().to_string()));
        }
        // The node may use the address, and is seen with the address itself as its source.
        if ranges.iter().any(|r| self.settings.node_ips.iter().any(|ip| r.contains(ip))) {
            for ip in &balanced {
                add(&mut rules.nat, &chain, from(host(*ip)));
            }
        }
        let rest = format!(
            "-m comment --comment \"other traffic to {name} will be dropped by KUBE-PROXY-FIREWALL\""
        );
        add(&mut rules.nat, &chain, rest);
        for ip in balanced {
            let comment = format!(" traffic not accepted by {chain}");
            let rule = format!("{} -j DROP", self.to(Some(ip), &comment, self.port.port));
            add(&mut rules.filter, FIREWALL, rule);
        }
    }

    /// The chains of the policies and of the endpoints.
    fn endpoints(&self, rules: &mut Rules) {
        let masquerade = self.settings.masquerade_what();
        let internal_local = self.service.internal_local;
        for (local, targets) in [(false, &self.choice.cluster), (true, &self.choice.local)] {
            if targets.is_empty() {
                continue;
            }
            let chain = self.policy_chain(local);
            if let (Some(what), true) = (&masquerade, local == internal_local) {
                let to = self.to(Some(self.cluster_ip), " cluster IP", self.port.port);
                add(&mut rules.nat, &chain, format!("{what}{to} -j {MARK_MASQ}"));
            }
            self.balance(&chain, targets, rules);
            for target in targets {
                self.endpoint(target, rules);
            }
        }
    }

    fn endpoint_chain(&self, target: &Target) -> String {
        format!("KUBE-SEP-{}", hash(&[&self.name, self.port.protocol, &target.to_string()]))
    }

    fn recent(&self, what: &str, chain: &str) -> String {
        let mask =
            if self.settings.v6 { "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" } else { "255.255.255.255" };
        format!("-m recent {what} --name {chain} --mask {mask} --rsource")
    }

    fn balance(&self, chain: &str, targets: &[&Target], rules: &mut Rules) {
        let comment = |t: &Target| format!("-m comment --comment \"{} -> {t}\"", self.name);
        if let Some(seconds) = self.service.affinity {
            for target in targets {
                let to = self.endpoint_chain(target);
                let recent = self.recent(&format!("--rcheck --seconds {seconds} --reap"), &to);
                add(&mut rules.nat, chain, format!("{} {recent} -j {to}", comment(target)));
            }
        }
        for (i, target) in targets.iter().enumerate() {
            let to = self.endpoint_chain(target);
            let left = targets.len() - i;
            let chance = match left {
                1 => String::new(),
                _ => format!(" -m statistic --mode random --probability {:.11}", 1.0 / left as f64),
            };
            add(&mut rules.nat, chain, format!("{}{chance} -j {to}", comment(target)));
        }
    }

    fn endpoint(&self, target: &Target, rules: &mut Rules) {
        let chain = self.endpoint_chain(target);
        // Both policies may lead to the same endpoint.
        if rules.nat.contains_key(&chain) {
            return;
        }
        let comment = format!("-m comment --comment \"{}\"", self.name);
        let hairpin = format!("-s {} {comment} -j {MARK_MASQ}", host(target.endpoint.ip));
        add(&mut rules.nat, &chain, hairpin);
        let p = self.port.protocol;
        let recent = match self.service.affinity {
            Some(_) => format!(" {}", self.recent("--set", &chain)),
            None => String::new(),
        };
        let rule = format!("-p {p} {comment}{recent} -m {p} -j DNAT --to-destination {target}");
        add(&mut rules.nat, &chain, rule);
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::SocketAddr::new(self.endpoint.ip, self.port).fmt(f)
    }
}
