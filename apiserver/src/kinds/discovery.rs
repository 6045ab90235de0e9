//! Slices of endpoints.

use api::{Value, names};

use super::check::At;
use super::{Entry, Errors, Strategy, default_to};

pub(super) const STRATEGIES: &[Entry] = &[("discovery.k8s.io", "endpointslices", &SLICE)];

const ENDPOINTS: usize = 1000;
const ADDRESSES: usize = 100;
const PORTS: usize = 20_000;
const TOPOLOGY: usize = 16;
const HINTS: usize = 8;

static SLICE: Strategy = Strategy {
    desired_metadata: &["labels"],
    default: |s| {
        let ports = s.make_object().get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten() {
            default_to(port, "name", "");
            default_to(port, "protocol", "TCP");
        }
    },
    prepare_create: |s| drop_topology(s, None),
    prepare_update: |new, old| drop_topology(new, Some(old)),
    validate: |slice, errors| validate(slice, None, errors),
    validate_update: |new, old, errors| {
        validate(new, Some(old), errors);
        At::of(new, "addressType").immutable(errors, old.get("addressType"));
    },
    revalidates: false,
    warn: |slice| {
        let old = slice.str_at(&["addressType"]) == "FQDN";
        old.then(|| "spec.addressType: FQDN endpoints are deprecated".to_owned()).into_iter().collect()
    },
    generation: true,
    ..Strategy::NEUTRAL
};

/// The old map of topology is not written any more.
fn drop_topology(slice: &mut Value, old: Option<&Value>) {
    if old.is_some_and(|o| o.get("endpoints") == slice.get("endpoints")) {
        return;
    }
    let endpoints = slice.make_object().get_mut("endpoints").and_then(Value::as_array_mut);
    for endpoint in endpoints.into_iter().flatten() {
        endpoint.make_object().remove("deprecatedTopology");
    }
}

fn validate(slice: &Value, old: Option<&Value>, errors: &mut Errors) {
    At::of(slice, "addressType").required_one_of(errors, &["FQDN", "IPv4", "IPv6"]);
    validate_ports(&At::of(slice, "ports"), errors);
    if old.is_none_or(|o| o.get("endpoints") != slice.get("endpoints")) {
        let endpoints = At::of(slice, "endpoints");
        if endpoints.not_more(errors, ENDPOINTS) {
            for endpoint in endpoints.items() {
                validate_endpoint(&endpoint, slice.str_at(&["addressType"]), errors);
            }
        }
    }
}

fn validate_ports(ports: &At<'_>, errors: &mut Errors) {
    if !ports.not_more(errors, PORTS) {
        return;
    }
    let mut seen: Vec<String> = Vec::new();
    for port in ports.items() {
        let name = port.get("name");
        name.named_if_any(errors, names::dns_label);
        if seen.iter().any(|n| n == name.text()) {
            name.duplicate(errors);
        } else {
            seen.push(name.text().to_owned());
        }
        let protocol = port.get("protocol");
        if protocol.is_set() {
            protocol.one_of(errors, &["SCTP", "TCP", "UDP"]);
        } else {
            protocol.required(errors, "");
        }
        let application = port.get("appProtocol");
        if application.is_set() {
            application.qualified(errors);
        }
    }
}

fn validate_endpoint(endpoint: &At<'_>, kind: &str, errors: &mut Errors) {
    let addresses = endpoint.get("addresses");
    if addresses.len() == 0 {
        addresses.required(errors, "must contain at least 1 address");
    } else {
        addresses.not_more(errors, ADDRESSES);
    }
    for address in addresses.items() {
        let fits = match kind {
            "IPv4" => address.legacy_ip(errors, &[]),
            "IPv6" => address.strict_ip(errors),
            "FQDN" => {
                address.full_domain(errors);
                false
            }
            _ => false,
        };
        if !fits {
            continue;
        }
        if address.ip().is_some_and(|a| a.is_ipv4() != (kind == "IPv4")) {
            addresses.invalid_as(errors, address.text(), format!("must be an {kind} address"));
        }
        address.endpoint_ip(errors);
    }
    let node = endpoint.get("nodeName");
    if node.is_set() {
        node.named(errors, names::dns_subdomain);
    }
    let topology = endpoint.get("deprecatedTopology");
    topology.not_more(errors, TOPOLOGY);
    topology.labels(errors);
    let hostname = endpoint.get("hostname");
    if hostname.is_set() {
        hostname.named(errors, names::dns_label);
    }
    validate_hints(&endpoint.get("hints.forZones"), names::label_value, errors)
        .then(|| validate_hints(&endpoint.get("hints.forNodes"), names::dns_subdomain, errors));
}

/// True when there are not too many.
fn validate_hints(hints: &At<'_>, rule: fn(&str) -> Vec<String>, errors: &mut Errors) -> bool {
    if !hints.not_more(errors, HINTS) {
        return false;
    }
    let mut seen: Vec<String> = Vec::new();
    for hint in hints.items() {
        let name = hint.get("name");
        if seen.iter().any(|n| n == name.text()) {
            name.duplicate(errors);
        } else {
            seen.push(name.text().to_owned());
        }
        name.named(errors, rule);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn addresses_are_of_the_slices_kind() {
        let check = |kind: &str, address: &str, want: &[&str]| {
            let mut errors = Vec::new();
            let slice = object!({"addressType": kind, "endpoints": [{"addresses": [address]}]});
            validate(&slice, None, &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
        };
        check("IPv4", "10.0.0.1", &[]);
        check("FQDN", "a.b", &[]);
        check(
            "IPv4",
            "fd00::1",
            &["endpoints[0].addresses: Invalid value: \"fd00::1\": must be an IPv4 address"],
        );
        check("", "10.0.0.1", &["addressType: Required value"]);
    }
}
