//! Services.

use std::collections::HashSet;
use std::net::IpAddr;

use api::field::{FieldError, Path};
use api::{Value, names, object};

use super::pod_validation::{check_port, port_name};
use super::{Entry, Errors, Field, Strategy, check_name, default_if_empty, default_to, one_of};

pub(super) const STRATEGIES: &[Entry] = &[("", "services", &SERVICE)];

static SERVICE: Strategy = Strategy {
    fields: &[
        Field::text("spec.clusterIP", &["spec", "clusterIP"]),
        Field::text("spec.type", &["spec", "type"]),
    ],
    name: names::dns1035_label,
    default,
    prepare_create: |s| s.set(&["status"], object!({"loadBalancer": {}})),
    prepare_update: |new, old| {
        new.set(&["status"], old.get("status"));
        keep_allocations(new, old);
    },
    validate,
    validate_update,
    ..Strategy::NEUTRAL
};

fn default(service: &mut Value) {
    let spec = service.make_object().entry("spec");
    default_if_empty(spec, "sessionAffinity", "None");
    if spec.str_at(&["sessionAffinity"]) == "ClientIP" {
        let config = spec.make_object().entry("sessionAffinityConfig").make_object().entry("clientIP");
        default_to(config, "timeoutSeconds", 10_800);
    } else {
        spec.make_object().remove("sessionAffinityConfig");
    }
    default_if_empty(spec, "type", "ClusterIP");
    let kind = spec.str_at(&["type"]).to_owned();
    for port in spec.make_object().get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        default_if_empty(port, "protocol", "TCP");
        let number = port.get("port").clone();
        let target = port.make_object().entry("targetPort");
        if target.is_empty() {
            *target = number;
        }
    }
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    if external || !spec.array_at(&["externalIPs"]).is_empty() {
        default_if_empty(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        default_to(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true);
    }
    default_to(service.make_object().entry("status"), "loadBalancer", Value::object());
}

/// What was allocated stays when the client leaves it out.
fn keep_allocations(new: &mut Value, old: &Value) {
    let has_address = |s: &Value| s.str_at(&["spec", "type"]) != "ExternalName";
    if !has_address(new) || !has_address(old) {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if new.at(&["spec", field]).is_empty() && !old.at(&["spec", field]).is_empty() {
            new.set(&["spec", field], old.at(&["spec", field]));
        }
    }
    drop_unused_ports(new, old);
    let uses_ports = |s: &Value| matches!(s.str_at(&["spec", "type"]), "NodePort" | "LoadBalancer");
    if uses_ports(new) && uses_ports(old) {
        let before = old.array_at(&["spec", "ports"]).to_vec();
        let ports = new.at_mut(&["spec", "ports"]).and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten().filter(|p| p.get("nodePort").is_empty()) {
            let same =
                |b: &&Value| b.get("port") == port.get("port") && b.get("protocol") == port.get("protocol");
            if let Some(number) =
                before.iter().find(same).map(|b| b.get("nodePort")).filter(|n| !n.is_empty())
            {
                port.set(&["nodePort"], number);
            }
        }
    }
}

/// Ports of nodes go with the type that used them, unless the client changed them.
fn drop_unused_ports(new: &mut Value, old: &Value) {
    let needs = |s: &Value| matches!(s.str_at(&["spec", "type"]), "NodePort" | "LoadBalancer");
    let numbers = |s: &Value| -> Vec<Value> {
        s.array_at(&["spec", "ports"]).iter().map(|p| p.get("nodePort").clone()).collect()
    };
    if !needs(old) || needs(new) || numbers(old) != numbers(new) {
        return;
    }
    for port in new.at_mut(&["spec", "ports"]).and_then(Value::as_array_mut).into_iter().flatten() {
        port.make_object().remove("nodePort");
    }
    if old.at(&["spec", "externalTrafficPolicy"]) == new.at(&["spec", "externalTrafficPolicy"]) {
        new.remove_at(&["spec", "externalTrafficPolicy"]);
    }
}

fn validate(service: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = service.get("spec");
    let kind = spec.str_at(&["type"]);
    let headless = spec.str_at(&["clusterIP"]) == "None";
    let ports = spec.array_at(&["ports"]);
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(&path.child("ports"), ""));
    }
    one_of(
        &path.child("type"),
        spec.get("type"),
        &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"],
        errors,
    );
    one_of(&path.child("sessionAffinity"), spec.get("sessionAffinity"), &["ClientIP", "None"], errors);
    for field in ["externalTrafficPolicy", "internalTrafficPolicy"] {
        if !spec.str_at(&[field]).is_empty() {
            one_of(&path.child(field), spec.get(field), &["Cluster", "Local"], errors);
        }
    }
    if kind == "ExternalName" {
        let name = spec.str_at(&["externalName"]).trim_end_matches('.');
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("externalName"), ""));
        } else {
            check_name(&path.child("externalName"), name, names::dns_subdomain, errors);
        }
    }
    super::metadata::validate_labels(&path.child("selector"), spec.get("selector"), errors);
    validate_ports(&path.child("ports"), ports, kind, errors);
    let list = path.child("clusterIPs");
    for (i, address) in spec.array_at(&["clusterIPs"]).iter().filter_map(Value::as_str).enumerate() {
        if address != "None" && address.parse::<IpAddr>().is_err() {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(FieldError::invalid(&list.index(i), address, why));
        }
    }
}

fn validate_ports(path: &Path<'_>, ports: &[Value], kind: &str, errors: &mut Errors) {
    let (mut names, mut numbers, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = port.str_at(&["name"]);
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else if !name.is_empty() {
            check_name(&at.child("name"), name, names::dns_label, errors);
            if !names.insert(name) {
                errors.push(FieldError::duplicate(&at.child("name"), name));
            }
        }
        check_port(&at.child("port"), port.get("port").as_i64().unwrap_or(0), errors);
        one_of(&at.child("protocol"), port.get("protocol"), &["TCP", "UDP", "SCTP"], errors);
        match port.get("targetPort") {
            Value::Int(n) => check_port(&at.child("targetPort"), *n, errors),
            Value::String(s) => {
                let found = port_name(s);
                errors.extend(
                    found.into_iter().map(|e| FieldError::invalid(&at.child("targetPort"), s.as_str(), e)),
                );
            }
            _ => {}
        }
        let node_port = port.get("nodePort").as_i64().unwrap_or(0);
        if node_port != 0 && !matches!(kind, "NodePort" | "LoadBalancer") {
            let why = format!("may not be used when `type` is '{kind}'");
            errors.push(FieldError::forbidden(&at.child("nodePort"), why));
        }
        let protocol = port.str_at(&["protocol"]);
        if node_port != 0 && !node_ports.insert((node_port, protocol)) {
            errors.push(FieldError::duplicate(&at.child("nodePort"), node_port));
        }
        if !numbers.insert((port.get("port").as_i64(), protocol)) {
            let key = object!({"port": (port.get("port")), "protocol": protocol});
            errors.push(FieldError::duplicate(&at, key));
        }
    }
}

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let external = |s: &Value| s.str_at(&["spec", "type"]) == "ExternalName";
    if external(new) || external(old) {
        return;
    }
    let path = Path::new("spec");
    let list = path.child("clusterIPs");
    let (is, was) = (new.array_at(&["spec", "clusterIPs"]), old.array_at(&["spec", "clusterIPs"]));
    if !was.is_empty() && was.first() != is.first() {
        let why =
            if is.is_empty() { "primary clusterIP can not be unset" } else { "may not change once set" };
        errors.push(FieldError::invalid(&list.index(0), is.to_vec(), why));
    }
}

/// True when the Service has an address of its own.
pub fn wants_address(service: &Value) -> bool {
    service.str_at(&["spec", "type"]) != "ExternalName" && service.str_at(&["spec", "clusterIP"]) != "None"
}
