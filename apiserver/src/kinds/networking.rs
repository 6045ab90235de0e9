//! Ingresses, network policies, endpoint slices, addresses.

use std::net::IpAddr;

use api::field::{FieldError, Path};
use api::{Value, names};

use super::{Entry, Errors, Field, Strategy, check_name, default_if_empty, default_to, immutable, one_of};

pub(super) const STRATEGIES: &[Entry] = &[
    ("networking.k8s.io", "ingresses", &INGRESS),
    ("networking.k8s.io", "ingressclasses", &INGRESS_CLASS),
    ("networking.k8s.io", "networkpolicies", &POLICY),
    ("networking.k8s.io", "ipaddresses", &ADDRESS),
    ("discovery.k8s.io", "endpointslices", &SLICE),
];

static INGRESS: Strategy = Strategy { validate: validate_ingress, generation: true, ..Strategy::NEUTRAL };

fn validate_ingress(ingress: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = ingress.get("spec");
    let rules = spec.array_at(&["rules"]);
    if rules.is_empty() && spec.get("defaultBackend").is_null() {
        errors.push(FieldError::invalid(
            &path,
            rules.to_vec(),
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    let class = spec.str_at(&["ingressClassName"]);
    if !class.is_empty() {
        check_name(&path.child("ingressClassName"), class, names::dns_subdomain, errors);
    }
    if !spec.get("defaultBackend").is_null() {
        validate_backend(&path.child("defaultBackend"), spec.get("defaultBackend"), errors);
    }
    let list = path.child("rules");
    for (i, rule) in rules.iter().enumerate() {
        let rule_path = list.index(i);
        let host = rule.str_at(&["host"]);
        if !host.is_empty() {
            let checked = host.strip_prefix("*.").unwrap_or(host);
            errors.extend(
                names::dns_subdomain(checked)
                    .into_iter()
                    .map(|e| FieldError::invalid(&rule_path.child("host"), host, e)),
            );
        }
        let http = rule_path.child("http");
        let list = http.child("paths");
        let paths = rule.array_at(&["http", "paths"]);
        if !rule.get("http").is_null() && paths.is_empty() {
            errors.push(FieldError::required(&list, ""));
        }
        for (i, p) in paths.iter().enumerate() {
            validate_path(&list.index(i), p, errors);
        }
    }
}

fn validate_path(path: &Path<'_>, p: &Value, errors: &mut Errors) {
    let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
    let text = p.str_at(&["path"]);
    match p.get("pathType") {
        Value::Null => {
            errors.push(FieldError::required(&path.child("pathType"), "pathType must be specified"))
        }
        kind => one_of(&path.child("pathType"), kind, &kinds, errors),
    }
    if matches!(p.str_at(&["pathType"]), "Exact" | "Prefix") && !text.starts_with('/') {
        errors.push(FieldError::invalid(&path.child("path"), text, "must be an absolute path"));
    }
    validate_backend(&path.child("backend"), p.get("backend"), errors);
}

fn validate_backend(path: &Path<'_>, backend: &Value, errors: &mut Errors) {
    let (service, resource) = (backend.get("service"), backend.get("resource"));
    match (service.is_null(), resource.is_null()) {
        (true, true) => errors.push(FieldError::required(path, "resource or service backend is required")),
        (false, false) => {
            errors.push(FieldError::invalid(path, "", "cannot set both resource and service backends"))
        }
        (false, true) => {
            let at = path.child("service");
            let name = service.str_at(&["name"]);
            if name.is_empty() {
                errors.push(FieldError::required(&at.child("name"), ""));
            } else {
                check_name(&at.child("name"), name, names::dns1035_label, errors);
            }
            let port = service.get("port");
            let number = port.get("number").as_i64().unwrap_or(0);
            if number == 0 && port.str_at(&["name"]).is_empty() {
                errors.push(FieldError::required(path, "port name or number is required"));
            } else if number != 0 {
                super::pod_validation::check_port(&at.child("port").child("number"), number, errors);
            }
        }
        (true, false) => {}
    }
}

static INGRESS_CLASS: Strategy = Strategy {
    default: |c| {
        if let Some(parameters) = c.at_mut(&["spec", "parameters"]).filter(|p| !p.is_null()) {
            default_to(parameters, "scope", "Cluster");
        }
    },
    validate: |c, errors| {
        let path = Path::new("spec");
        let controller = c.str_at(&["spec", "controller"]);
        if controller.is_empty() {
            errors.push(FieldError::required(&path.child("controller"), ""));
        }
    },
    validate_update: |new, old, errors| {
        let path = Path::new("spec");
        immutable(
            &path.child("controller"),
            new.at(&["spec", "controller"]),
            old.at(&["spec", "controller"]),
            errors,
        );
    },
    generation: true,
    ..Strategy::NEUTRAL
};

static POLICY: Strategy = Strategy {
    default: |p| {
        let spec = p.make_object().entry("spec");
        let egress = !spec.array_at(&["egress"]).is_empty();
        if spec.array_at(&["policyTypes"]).is_empty() {
            let types = if egress { vec!["Ingress", "Egress"] } else { vec!["Ingress"] };
            spec.set(&["policyTypes"], types);
        }
        for rules in ["ingress", "egress"] {
            for rule in spec.make_object().get_mut(rules).and_then(Value::as_array_mut).into_iter().flatten()
            {
                for port in
                    rule.make_object().get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten()
                {
                    default_if_empty(port, "protocol", "TCP");
                }
            }
        }
    },
    validate: validate_policy,
    generation: true,
    ..Strategy::NEUTRAL
};

fn validate_policy(policy: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        let list = spec.child(rules);
        for (i, rule) in policy.array_at(&["spec", rules]).iter().enumerate() {
            let rule_path = list.index(i);
            let list = rule_path.child(peers);
            for (i, peer) in rule.array_at(&[peers]).iter().enumerate() {
                let block = peer.get("ipBlock");
                if !block.is_null() {
                    let at = list.index(i);
                    let at = at.child("ipBlock");
                    let cidr = block.str_at(&["cidr"]);
                    if cidr.is_empty() {
                        errors.push(FieldError::required(&at.child("cidr"), ""));
                    } else {
                        check_cidr(&at.child("cidr"), cidr, errors);
                    }
                }
            }
        }
    }
}

/// Checks an address range.
pub(super) fn check_cidr(path: &Path<'_>, cidr: &str, errors: &mut Errors) {
    if cidr.parse::<ipnet::IpNet>().is_err() {
        let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(FieldError::invalid(path, cidr, why));
    }
}

static ADDRESS: Strategy = Strategy {
    name: |name| match name.parse::<IpAddr>() {
        Ok(ip) if ip.to_string() == name => Vec::new(),
        Ok(_) => vec!["must be in canonical form".to_owned()],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    },
    fields: &[Field::text("spec.parentRef.resource", &["spec", "parentRef", "resource"])],
    validate: |a, errors| {
        let path = Path::new("spec");
        if a.at(&["spec", "parentRef"]).is_null() {
            errors.push(FieldError::required(&path.child("parentRef"), ""));
        }
    },
    ..Strategy::NEUTRAL
};

static SLICE: Strategy = Strategy {
    default: |s| {
        for port in s.make_object().get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            default_to(port, "name", "");
            default_to(port, "protocol", "TCP");
        }
    },
    validate: validate_slice,
    validate_update: |new, old, errors| {
        immutable(&Path::new("addressType"), new.get("addressType"), old.get("addressType"), errors);
    },
    generation: true,
    ..Strategy::NEUTRAL
};

fn validate_slice(slice: &Value, errors: &mut Errors) {
    let kind = slice.str_at(&["addressType"]);
    let path = Path::new("addressType");
    if kind.is_empty() {
        errors.push(FieldError::required(&path, ""));
    } else {
        one_of(&path, slice.get("addressType"), &["FQDN", "IPv4", "IPv6"], errors);
    }
    let list = Path::new("endpoints");
    for (i, endpoint) in slice.array_at(&["endpoints"]).iter().enumerate() {
        let at = list.index(i);
        let addresses = at.child("addresses");
        let values = endpoint.array_at(&["addresses"]);
        if values.is_empty() {
            errors.push(FieldError::required(&addresses, "must contain at least 1 address"));
        }
        for (i, address) in values.iter().filter_map(Value::as_str).enumerate() {
            let (fits, why) = match (kind, address.parse::<IpAddr>()) {
                ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) | ("FQDN", _) => (true, ""),
                (_, Err(_)) => (false, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
                ("IPv4", _) => (false, "must be an IPv4 address"),
                _ => (false, "must be an IPv6 address"),
            };
            if !fits {
                errors.push(FieldError::invalid(&addresses.index(i), address, why));
            }
        }
    }
}
