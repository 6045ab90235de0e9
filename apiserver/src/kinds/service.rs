//! Services.

mod addresses;
mod update;
mod validate;
mod warnings;

use api::{Value, names, object};

use super::check::At;
use super::{Entry, Field, Part, Strategy, default_if_empty, default_to};

pub use addresses::{carry_over, init_families, normalize, same_dual_stack};

pub(super) const STRATEGIES: &[Entry] = &[("", "services", &SERVICE)];

static SERVICE: Strategy = Strategy {
    fields: &[
        Field::text("spec.clusterIP", &["spec", "clusterIP"]),
        Field::text("spec.type", &["spec", "type"]),
    ],
    name: names::dns_label,
    default,
    prepare_create: |s| {
        s.set(&["status"], object!({"loadBalancer": {}}));
        drop_traffic_policy(s);
    },
    prepare_update: |new, old| {
        new.set(&["status"], old.get("status"));
        update::drop_unused(new, old);
        drop_traffic_policy(new);
    },
    validate: |service, errors| validate::validate(service, None, errors),
    validate_update: |new, old, errors| {
        update::validate(new, old, errors);
        validate::validate(new, Some(old), errors);
    },
    revalidates: false,
    warn: warnings::of,
    create_on_update: true,
    parts: &[STATUS],
    ..Strategy::NEUTRAL
};

const STATUS: Part = Part {
    name: "status",
    fixed: &[&["spec"]],
    prepare: |_, _| {},
    validate: |new, old, errors| {
        let list = At::of(new, "status.loadBalancer.ingress");
        let before = old.at(&["status", "loadBalancer", "ingress"]);
        if kind(new) != "LoadBalancer" && list.len() != 0 {
            return list.forbidden(errors, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        validate::validate_ingress_points(&list, before, true, errors);
    },
};

/// A name of something outside has no traffic within the cluster.
fn drop_traffic_policy(service: &mut Value) {
    if kind(service) == "ExternalName" {
        service.remove_at(&["spec", "internalTrafficPolicy"]);
    }
}

fn default(service: &mut Value) {
    let spec = service.make_object().entry("spec");
    default_if_empty(spec, "sessionAffinity", "None");
    match spec.str_at(&["sessionAffinity"]) {
        "None" => {
            spec.make_object().remove("sessionAffinityConfig");
        }
        "ClientIP" if spec.at(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).is_null() => {
            spec.set(&["sessionAffinityConfig"], object!({"clientIP": {"timeoutSeconds": 10_800}}));
        }
        _ => {}
    }
    default_if_empty(spec, "type", "ClusterIP");
    for port in spec.make_object().get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        default_if_empty(port, "protocol", "TCP");
        let number = port.get("port").clone();
        default_if_empty(port, "targetPort", number);
    }
    let kind = spec.str_at(&["type"]).to_owned();
    if is_external(spec) {
        default_if_empty(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        default_to(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true);
    }
    let status = service.make_object().entry("status");
    default_to(status, "loadBalancer", Value::object());
    if kind == "LoadBalancer" {
        let points = status.at_mut(&["loadBalancer", "ingress"]).and_then(Value::as_array_mut);
        for point in points.into_iter().flatten().filter(|p| !p.str_at(&["ip"]).is_empty()) {
            default_to(point, "ipMode", "VIP");
        }
    }
}

fn kind(service: &Value) -> &str {
    service.str_at(&["spec", "type"])
}

/// True when it can be reached from outside the cluster.
fn is_external(spec: &Value) -> bool {
    match spec.str_at(&["type"]) {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !spec.array_at(&["externalIPs"]).is_empty(),
        _ => false,
    }
}

/// True when it has no address of its own.
fn is_headless(service: &Value) -> bool {
    matches!(service.array_at(&["spec", "clusterIPs"]), [only] if only.as_str() == Some("None"))
}

/// True when load balancers ask on a port of its own which nodes have endpoints.
pub fn needs_health_check(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && service.str_at(&["spec", "externalTrafficPolicy"]) == "Local"
}

/// True when the Service has ports of nodes.
pub fn uses_node_ports(service: &Value) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
}

/// True when the Service has an address of its own.
pub fn wants_address(service: &Value) -> bool {
    kind(service) != "ExternalName" && service.str_at(&["spec", "clusterIP"]) != "None"
}
