//! Endpoints, as they were before slices.

use api::{Value, names};

use super::check::At;
use super::{Entry, Errors, Strategy, default_if_empty};

pub(super) const STRATEGIES: &[Entry] = &[("", "endpoints", &ENDPOINTS)];

static ENDPOINTS: Strategy = Strategy {
    default: |e| {
        let subsets = e.make_object().get_mut("subsets").and_then(Value::as_array_mut);
        for subset in subsets.into_iter().flatten() {
            let ports = subset.make_object().get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten() {
                default_if_empty(port, "protocol", "TCP");
            }
        }
    },
    create_on_update: true,
    validate: |e, errors| validate_subsets(e, errors),
    validate_update: |new, old, errors| {
        if new.get("subsets") != old.get("subsets") {
            validate_subsets(new, errors);
        }
    },
    revalidates: false,
    ..Strategy::NEUTRAL
};

fn validate_subsets(endpoints: &Value, errors: &mut Errors) {
    for subset in At::of(endpoints, "subsets").items() {
        let (ready, other) = (subset.get("addresses"), subset.get("notReadyAddresses"));
        if ready.len() == 0 && other.len() == 0 {
            subset.required(errors, "must specify `addresses` or `notReadyAddresses`");
        }
        for address in ready.items() {
            validate_address(&address, errors);
        }
        for address in other.items() {
            validate_address(&address, errors);
        }
        let ports = subset.get("ports");
        for port in ports.items() {
            validate_port(&port, ports.len() > 1, errors);
        }
    }
}

fn validate_address(address: &At<'_>, errors: &mut Errors) {
    let ip = address.get("ip");
    ip.legacy_ip(errors, &[]);
    address.get("hostname").named_if_any(errors, names::dns_label);
    let node = address.get("nodeName");
    if node.is_set() {
        node.named(errors, names::dns_subdomain);
    }
    ip.endpoint_ip(errors);
}

fn validate_port(port: &At<'_>, named: bool, errors: &mut Errors) {
    let name = port.get("name");
    if named {
        name.required_name(errors, names::dns_label);
    } else {
        name.named_if_any(errors, names::dns_label);
    }
    port.get("port").port(errors);
    port.get("protocol").required_one_of(errors, &["SCTP", "TCP", "UDP"]);
    let protocol = port.get("appProtocol");
    if protocol.is_set() {
        protocol.qualified(errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn several_ports_have_names() {
        let endpoints = object!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [
            {"port": 1, "protocol": "TCP"}, {"name": "b", "port": 2, "protocol": "TCP"},
        ]}]});
        let mut errors = Vec::new();
        validate_subsets(&endpoints, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["subsets[0].ports[0].name: Required value"]
        );
    }
}
