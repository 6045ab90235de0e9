//! The answers for names of the cluster (the DNS specification of Kubernetes, version 1.1.0): a pure function over the caches.

use std::net::IpAddr;
use std::sync::Arc;

use client::Store;
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, PTR, SRV, TXT};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};

use crate::records::{Endpoint, Port, Service, Slice};

/// The caches.
pub(crate) struct Objects<'o> {
    pub(crate) services: &'o Store<Service>,
    /// Indexed by `service` (namespace/name) and `ip`.
    pub(crate) slices: &'o Store<Slice>,
    pub(crate) namespaces: &'o Store<()>,
}

/// How the plug-in is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The zones answered for, the cluster's first.
    pub(crate) zones: Vec<String>,
    pub(crate) ttl: u32,
    /// Answer `1-2-3-4.namespace.pod` without looking.
    pub(crate) pods_insecure: bool,
    /// Zones whose unknown names go to the next plug-in.
    pub(crate) fallthrough: Vec<String>,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// False for a name that does not exist.
    pub(crate) exists: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
}

impl Answer {
    fn existing(answers: Vec<Record>) -> Self {
        Self { exists: true, answers, additionals: Vec::new() }
    }
}

/// Whether a name is in a zone.
pub(crate) fn in_zone(name: &str, zone: &str) -> bool {
    zone == "." || name == zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'))
}

fn record(name: &Name, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name.clone(), ttl, data)
}

fn address(name: &Name, ttl: u32, ip: IpAddr, kind: RecordType) -> Option<Record> {
    match (ip, kind) {
        (IpAddr::V4(ip), RecordType::A) => Some(record(name, ttl, RData::A(A(ip)))),
        (IpAddr::V6(ip), RecordType::AAAA) => Some(record(name, ttl, RData::AAAA(AAAA(ip)))),
        _ => None,
    }
}

fn any_address(name: &Name, ttl: u32, ip: IpAddr) -> Option<Record> {
    address(name, ttl, ip, if ip.is_ipv6() { RecordType::AAAA } else { RecordType::A })
}

/// Answers a question for `text` (lower case, with a final dot) in `zone`, one of the options' zones.
pub(crate) fn answer(
    objects: &Objects<'_>,
    options: &Options,
    zone: &str,
    name: &Name,
    text: &str,
    kind: RecordType,
) -> Answer {
    if zone.ends_with("arpa.") {
        return reverse(objects, options, name, text, kind);
    }
    let inner = text.strip_suffix(zone).unwrap_or_default().trim_end_matches('.');
    let labels: Vec<&str> = inner.split('.').filter(|l| !l.is_empty()).rev().collect();
    let ask = Ask { objects, options, zone, name, kind };
    match labels.as_slice() {
        [] => Answer { exists: true, ..Answer::default() },
        ["dns-version"] if kind == RecordType::TXT => {
            let text = TXT::new(vec!["1.1.0".to_owned()]);
            Answer::existing(vec![record(name, options.ttl, RData::TXT(text))])
        }
        ["dns-version"] | ["svc"] | ["pod"] => Answer { exists: true, ..Answer::default() },
        ["svc", namespace] | ["pod", namespace] => {
            Answer { exists: objects.namespaces.find("", namespace).is_some(), ..Answer::default() }
        }
        ["pod", namespace, pod] => ask.pod(namespace, pod),
        ["svc", namespace, service, rest @ ..] => ask.service(namespace, service, rest),
        _ => Answer::default(),
    }
}

struct Ask<'a> {
    objects: &'a Objects<'a>,
    options: &'a Options,
    zone: &'a str,
    name: &'a Name,
    kind: RecordType,
}

impl Ask<'_> {
    fn pod(&self, namespace: &str, pod: &str) -> Answer {
        let dotted = pod.replace('-', ".");
        let ip = dotted.parse::<IpAddr>().or_else(|_| pod.replace('-', ":").parse());
        let known = self.objects.namespaces.find("", namespace).is_some();
        match ip {
            Ok(ip) if self.options.pods_insecure && known => {
                Answer::existing(address(self.name, self.options.ttl, ip, self.kind).into_iter().collect())
            }
            _ => Answer::default(),
        }
    }

    /// `rest` is what stands before the service: nothing, an endpoint, or protocol and port.
    fn service(&self, namespace: &str, name: &str, rest: &[&str]) -> Answer {
        let Some(service) = self.objects.services.find(namespace, name) else { return Answer::default() };
        if !service.external_name.is_empty() {
            return if rest.is_empty() { self.external(&service) } else { Answer::default() };
        }
        let headless = service.ips.is_empty();
        match rest {
            [] if headless => self.endpoints(&service, None, None),
            [] => self.cluster_ip(&service, None),
            [label] if headless => self.endpoints(&service, Some(label), None),
            [protocol, port] if protocol.starts_with('_') && port.starts_with('_') => {
                let wanted = Some((port.trim_start_matches('_'), protocol.trim_start_matches('_')));
                if headless {
                    self.endpoints(&service, None, wanted)
                } else {
                    self.cluster_ip(&service, wanted)
                }
            }
            _ => Answer::default(),
        }
    }

    fn external(&self, service: &Service) -> Answer {
        let Ok(target) = Name::from_ascii(crate::corefile::absolute(&service.external_name)) else {
            return Answer::default();
        };
        let wants = matches!(self.kind, RecordType::A | RecordType::AAAA | RecordType::CNAME);
        let answers = wants.then(|| record(self.name, self.options.ttl, RData::CNAME(CNAME(target))));
        Answer::existing(answers.into_iter().collect())
    }

    fn base(&self, service: &Service) -> String {
        format!("{}.{}.svc.{}", service.name, service.namespace, self.zone)
    }

    fn cluster_ip(&self, service: &Service, wanted: Option<(&str, &str)>) -> Answer {
        let ttl = self.options.ttl;
        let ports = matching(&service.ports, wanted);
        if wanted.is_some() && ports.is_empty() {
            return Answer::default();
        }
        if self.kind != RecordType::SRV {
            let ips = service.ips.iter();
            return Answer::existing(ips.filter_map(|ip| address(self.name, ttl, *ip, self.kind)).collect());
        }
        let Ok(target) = Name::from_ascii(self.base(service)) else { return Answer::default() };
        let answers = ports.iter().map(|p| self.srv(p.number, ports.len(), &target)).collect();
        let additionals = service.ips.iter().filter_map(|ip| any_address(&target, ttl, *ip)).collect();
        Answer { exists: true, answers, additionals }
    }

    fn srv(&self, port: u16, of: usize, target: &Name) -> Record {
        let weight = u16::try_from(100 / of.max(1)).unwrap_or(1).max(1);
        record(self.name, self.options.ttl, RData::SRV(SRV::new(0, weight, port, target.clone())))
    }

    fn endpoints(&self, service: &Service, label: Option<&str>, wanted: Option<(&str, &str)>) -> Answer {
        let key = format!("{}/{}", service.namespace, service.name);
        let slices = self.objects.slices.by_index("service", &key);
        let mut answer = Answer::default();
        let mut found: Vec<(Port, &Endpoint)> = Vec::new();
        for slice in &slices {
            let ports = matching(&slice.ports, wanted);
            let usable = slice.endpoints.iter().filter(|e| e.ready || service.publish_not_ready);
            for endpoint in usable.filter(|e| label.is_none_or(|l| l == e.label)) {
                if wanted.is_none() && ports.is_empty() {
                    found.push((Port::default(), endpoint));
                }
                found.extend(ports.iter().map(|p| ((*p).clone(), endpoint)));
            }
        }
        // A headless Service exists even without endpoints; what stands before it does not.
        answer.exists = !found.is_empty() || (label.is_none() && wanted.is_none());
        let mut seen: Vec<IpAddr> = Vec::new();
        for (port, endpoint) in &found {
            let first = !seen.contains(&endpoint.ip);
            seen.push(endpoint.ip);
            if self.kind != RecordType::SRV {
                if first {
                    answer.answers.extend(address(self.name, self.options.ttl, endpoint.ip, self.kind));
                }
                continue;
            }
            let target = format!("{}.{}", endpoint.label, self.base(service));
            let Ok(target) = Name::from_ascii(target) else { continue };
            if port.number != 0 {
                answer.answers.push(self.srv(port.number, found.len(), &target));
            }
            if first {
                answer.additionals.extend(any_address(&target, self.options.ttl, endpoint.ip));
            }
        }
        answer
    }
}

fn matching<'p>(ports: &'p [Port], wanted: Option<(&str, &str)>) -> Vec<&'p Port> {
    let fits = |p: &&Port| wanted.is_none_or(|(name, protocol)| p.name == name && p.protocol == protocol);
    ports.iter().filter(fits).collect()
}

/// The address in a name under in-addr.arpa or ip6.arpa.
fn reverse_address(text: &str) -> Option<IpAddr> {
    if let Some(digits) = text.strip_suffix(".in-addr.arpa.") {
        let parts: Vec<&str> = digits.split('.').rev().collect();
        return parts.join(".").parse().ok();
    }
    let nibbles: String = text.strip_suffix(".ip6.arpa.")?.split('.').rev().collect();
    let bits = (nibbles.len() == 32).then(|| u128::from_str_radix(&nibbles, 16).ok())??;
    Some(IpAddr::V6(bits.into()))
}

fn reverse(objects: &Objects<'_>, options: &Options, name: &Name, text: &str, kind: RecordType) -> Answer {
    let Some(ip) = reverse_address(text) else { return Answer::default() };
    let zone = options.zones.first().map(String::as_str).unwrap_or_default();
    let mut targets: Vec<String> = objects
        .services
        .by_index("ip", &ip.to_string())
        .iter()
        .map(|s| format!("{}.{}.svc.{zone}", s.name, s.namespace))
        .collect();
    if targets.is_empty() {
        let slices: Vec<Arc<Slice>> = objects.slices.by_index("ip", &ip.to_string());
        for slice in &slices {
            let endpoint = slice.endpoints.iter().find(|e| e.ip == ip);
            let label = endpoint.map(|e| e.label.as_str()).unwrap_or_default();
            targets.push(format!("{label}.{}.{}.svc.{zone}", slice.service, slice.namespace));
        }
    }
    let records = targets.iter().filter_map(|target| {
        let target = Name::from_ascii(target).ok()?;
        (kind == RecordType::PTR).then(|| record(name, options.ttl, RData::PTR(PTR(target))))
    });
    Answer { exists: !targets.is_empty(), answers: records.collect(), additionals: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_are_read() {
        for (text, want) in [
            ("10.0.43.10.in-addr.arpa.", Some("10.43.0.10")),
            ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", Some("fd00::1")),
            ("43.10.in-addr.arpa.", None),
        ] {
            assert_eq!(reverse_address(text), want.map(|w| w.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn zones_contain_whole_labels() {
        assert!(in_zone("a.cluster.local.", "cluster.local.") && in_zone("x.", "."));
        assert!(!in_zone("mycluster.local.", "cluster.local."));
    }
}
