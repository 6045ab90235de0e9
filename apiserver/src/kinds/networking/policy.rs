//! Network policies.

use api::{Value, names};

use crate::kinds::check::At;
use crate::kinds::{Errors, Strategy, default_to};

pub(super) static POLICY: Strategy = Strategy {
    default,
    validate: |policy, errors| validate(policy, &[], errors),
    validate_update: |new, old, errors| {
        let before = ranges(old);
        validate(new, &before, errors);
    },
    revalidates: false,
    generation: true,
    ..Strategy::NEUTRAL
};

fn default(policy: &mut Value) {
    let spec = policy.make_object().entry("spec");
    let egress = !spec.array_at(&["egress"]).is_empty();
    if spec.array_at(&["policyTypes"]).is_empty() {
        let types = if egress { vec!["Ingress", "Egress"] } else { vec!["Ingress"] };
        spec.set(&["policyTypes"], types);
    }
    for direction in ["ingress", "egress"] {
        let rules = spec.make_object().get_mut(direction).and_then(Value::as_array_mut);
        for rule in rules.into_iter().flatten() {
            let ports = rule.make_object().get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten() {
                default_to(port, "protocol", "TCP");
            }
        }
    }
}

const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

/// The ranges that a policy has.
fn ranges(policy: &Value) -> Vec<&str> {
    let mut out = Vec::new();
    for (direction, peers) in DIRECTIONS {
        let rules = policy.array_at(&["spec", direction]).iter();
        for block in rules.flat_map(|r| r.array_at(&[peers])).map(|p| p.get("ipBlock")) {
            out.extend(block.get("cidr").as_str());
            out.extend(block.array_at(&["except"]).iter().filter_map(Value::as_str));
        }
    }
    out
}

fn validate(policy: &Value, before: &[&str], errors: &mut Errors) {
    const TYPES: [&str; 2] = ["Ingress", "Egress"];
    let spec = At::of(policy, "spec");
    spec.get("podSelector").label_selector(errors);
    for (direction, peers) in DIRECTIONS {
        for rule in spec.get(direction).items() {
            for port in rule.get("ports").items() {
                validate_port(&port, errors);
            }
            for peer in rule.get(peers).items() {
                validate_peer(&peer, before, errors);
            }
        }
    }
    let types = spec.get("policyTypes");
    if types.len() > TYPES.len() {
        return types.invalid(errors, "may not specify more than two policyTypes");
    }
    for kind in types.items() {
        kind.one_of(errors, &TYPES);
    }
}

fn validate_port(entry: &At<'_>, errors: &mut Errors) {
    entry.get("protocol").one_of(errors, &["TCP", "UDP", "SCTP"]);
    let (port, end) = (entry.get("port"), entry.get("endPort"));
    match port.value {
        Value::Null => {
            if end.is_set() {
                end.invalid(errors, "may not be specified when `port` is not specified");
            }
        }
        Value::String(_) => {
            if end.is_set() {
                end.invalid(errors, "may not be specified when `port` is non-numeric");
            }
            port.named(errors, names::port_name);
        }
        _ => {
            port.port(errors);
            if end.is_set() {
                if end.int() < port.int() {
                    end.invalid_as(errors, port.int(), "must be greater than or equal to `port`");
                }
                end.port(errors);
            }
        }
    }
}

fn validate_peer(peer: &At<'_>, before: &[&str], errors: &mut Errors) {
    let selectors = ["podSelector", "namespaceSelector"];
    for selector in selectors {
        peer.get(selector).label_selector(errors);
    }
    let block = peer.get("ipBlock");
    if block.is_set() {
        validate_block(&block, before, errors);
    }
    let selects = selectors.iter().any(|s| peer.get(s).is_set());
    match (selects, block.is_set()) {
        (false, false) => peer.required(errors, "must specify a peer"),
        (true, true) => peer.forbidden(errors, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn validate_block(block: &At<'_>, before: &[&str], errors: &mut Errors) {
    let cidr = block.get("cidr");
    if cidr.text().is_empty() {
        return cidr.required(errors, "");
    }
    cidr.legacy_cidr(errors, before);
    let Some(whole) = cidr.cidr() else { return };
    for except in block.get("except").items() {
        except.legacy_cidr(errors, before);
        let Some(part) = except.cidr() else { continue };
        if !whole.contains(&part.network()) || whole.prefix_len() >= part.prefix_len() {
            except.invalid(errors, "must be a strict subset of `cidr`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn check(spec: Value, want: &[&str]) {
        let mut errors = Vec::new();
        validate(&object!({"spec": spec}), &[], &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
    }

    #[test]
    fn peers_are_one_thing() {
        check(object!({"ingress": [{"from": [{"podSelector": {}}]}]}), &[]);
        check(
            object!({"ingress": [{"from": [{}]}]}),
            &["spec.ingress[0].from[0]: Required value: must specify a peer"],
        );
        check(
            object!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]}),
            &[
                "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            ],
        );
    }

    #[test]
    fn ends_of_ranges_follow_their_beginning() {
        check(object!({"ingress": [{"ports": [{"port": 80, "endPort": 90}]}]}), &[]);
        check(
            object!({"ingress": [{"ports": [{"port": 80, "endPort": 79}]}]}),
            &["spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`"],
        );
    }
}
