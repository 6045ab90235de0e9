//! What a Service may be.

use std::collections::HashSet;

use api::field::Path;
use api::{Value, names, object};

use super::{is_external, is_headless, kind, needs_health_check};
use crate::kinds::Errors;
use crate::kinds::check::{At, view};

const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const AFFINITY_MAX: i64 = 86_400;

/// Checks a Service; `old` is what it was.
pub(super) fn validate(service: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::of(service, "spec");
    let kind = kind(service);
    validate_topology(service, errors);
    let ports = spec.get("ports");
    let headless = is_headless(service);
    if ports.len() == 0 && !headless && kind != "ExternalName" {
        ports.required(errors, "");
    }
    validate_type(service, &spec, errors);
    let mut seen = HashSet::new();
    for port in ports.items() {
        validate_port(&port, ports.len() > 1, &mut seen, errors);
    }
    spec.get("selector").labels(errors);
    validate_affinity(&spec, errors);
    validate_addresses(service, old, errors);
    let known = strings(old.map(|o| o.at(&["spec", "externalIPs"])));
    for address in spec.get("externalIPs").items() {
        if address.legacy_ip(errors, &known) {
            address.endpoint_ip(errors);
        }
    }
    spec.get("type").required_one_of(errors, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    validate_unique_ports(&ports, kind, errors);
    validate_source_ranges(service, old, &spec, errors);
    let allocates = spec.get("allocateLoadBalancerNodePorts");
    if allocates.is_set() && kind != "LoadBalancer" {
        allocates.forbidden(errors, "may only be used when `type` is 'LoadBalancer'");
    }
    if !allocates.is_set() && kind == "LoadBalancer" {
        let at = At { value: &Value::Null, path: Path::new("allocateLoadBalancerNodePorts") };
        at.required(errors, "");
    }
    validate_class(&spec, errors);
    validate_traffic(service, &spec, errors);
}

fn strings(list: Option<&Value>) -> Vec<&str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn validate_topology(service: &Value, errors: &mut Errors) {
    let (hints, mode) = (service.annotation(HINTS), service.annotation(TOPOLOGY_MODE));
    if let (Some(hints), Some(mode)) = (hints, mode)
        && hints != mode
    {
        let annotations = At::of(service, "metadata.annotations");
        let at = At { value: service, path: annotations.path.key(TOPOLOGY_MODE) };
        at.invalid_as(errors, mode, format!("must match annotations[{HINTS}] when both are specified"));
    }
}

fn validate_type(service: &Value, spec: &At<'_>, errors: &mut Errors) {
    let addresses = spec.get("clusterIPs");
    match kind(service) {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(service) => {
            let at = At { value: addresses.value, path: addresses.path.index(0) };
            at.invalid_as(errors, "None", format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies"] {
                if spec.get(field).len() > 0 {
                    spec.get(field).forbidden(errors, "may not be set for ExternalName services");
                }
            }
            if spec.get("ipFamilyPolicy").is_set() {
                spec.get("ipFamilyPolicy").forbidden(errors, "may not be set for ExternalName services");
            }
            let name = spec.get("externalName");
            let bare = Value::from(name.text().strip_suffix('.').unwrap_or(name.text()));
            name.with(&bare).required_name(errors, names::dns_subdomain);
        }
        _ => {}
    }
}

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

fn validate_port(port: &At<'_>, named: bool, seen: &mut HashSet<String>, errors: &mut Errors) {
    let name = port.get("name");
    if name.text().is_empty() {
        if named {
            name.required(errors, "");
        }
    } else {
        name.named(errors, names::dns_label);
        if !seen.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
    }
    port.get("port").port(errors);
    port.get("protocol").required_one_of(errors, &PROTOCOLS);
    port.get("targetPort").port_or_name(errors);
    let application = port.get("appProtocol");
    if application.is_set() {
        application.qualified(errors);
    }
}

fn validate_unique_ports(ports: &At<'_>, kind: &str, errors: &mut Errors) {
    for port in ports.items().filter(|_| kind == "ClusterIP") {
        if port.get("nodePort").int() != 0 {
            port.get("nodePort").forbidden(errors, "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut taken = HashSet::new();
    for port in ports.items() {
        let number = port.get("nodePort");
        if number.int() != 0 && !taken.insert((number.int(), port.get("protocol").text().to_owned())) {
            number.duplicate(errors);
        }
    }
    let mut taken = HashSet::new();
    for port in ports.items() {
        let (number, protocol) = (port.get("port").int(), port.get("protocol").text());
        if !taken.insert((number, protocol.to_owned())) {
            let shown = view(&object!({"protocol": protocol, "port": number}), "core/v1.ServicePort");
            port.with(&shown).duplicate(errors);
        }
    }
}

fn validate_affinity(spec: &At<'_>, errors: &mut Errors) {
    let (affinity, config) = (spec.get("sessionAffinity"), spec.get("sessionAffinityConfig"));
    affinity.required_one_of(errors, &["ClientIP", "None"]);
    match affinity.text() {
        "ClientIP" => {
            let client = config.get("clientIP");
            let seconds = client.get("timeoutSeconds");
            let missing = [&config, &client, &seconds].into_iter().find(|at| !at.is_set());
            if let Some(missing) = missing {
                missing.required(errors, "when session affinity type is ClientIP");
            } else if !(1..=AFFINITY_MAX).contains(&seconds.int()) {
                seconds.invalid(errors, format!("must be greater than 0 and less than {AFFINITY_MAX}"));
            }
        }
        "None" if config.is_set() => {
            config.forbidden(errors, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// Checks the addresses and their families.
pub(super) fn validate_addresses(service: &Value, old: Option<&Value>, errors: &mut Errors) {
    if kind(service) == "ExternalName" {
        return;
    }
    let spec = At::of(service, "spec");
    let (one, all) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    let first = all.value.as_array().and_then(|a| a.first()).and_then(Value::as_str);
    if one.text().is_empty() {
        if all.len() != 0 {
            all.invalid(errors, "must be empty when `clusterIP` is not specified");
        }
    } else if all.len() == 0 {
        all.required(errors, "");
    } else if first != Some(one.text()) {
        all.invalid(errors, "first value must match `clusterIP`");
    }
    let mut seen = HashSet::new();
    for family in spec.get("ipFamilies").items() {
        family.one_of(errors, &FAMILIES);
        if !seen.insert(family.text().to_owned()) {
            family.duplicate(errors);
        }
    }
    spec.get("ipFamilyPolicy").one_of(errors, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    let known = strings(old.map(|o| o.at(&["spec", "clusterIPs"])));
    let found = errors.len();
    for (i, address) in all.items().enumerate() {
        if i == 0 && address.text() == "None" {
            if all.len() > 1 {
                all.invalid(errors, "'None' must be the first and only value");
            }
            continue;
        }
        address.legacy_ip(errors, &known);
    }
    let unreadable = errors.len() > found;
    if all.len() > 2 {
        all.invalid(errors, "may only hold up to 2 values");
    }
    if unreadable {
        return;
    }
    let six: Vec<bool> = all.items().map(|a| a.ip().is_some_and(|a| a.is_ipv6())).collect();
    if six.len() > 1 && six.iter().all(|s| *s == six[0]) {
        all.invalid(errors, "may specify no more than one IP for each IP family");
    }
    if is_headless(service) {
        return;
    }
    for (i, ((address, family), six)) in all.items().zip(spec.get("ipFamilies").items()).zip(six).enumerate()
    {
        if (family.text() == "IPv4" && six) || (family.text() == "IPv6" && !six) {
            let why = format!("expected an {} value as indicated by `ipFamilies[{i}]`", family.text());
            address.invalid(errors, why);
        }
    }
}

fn validate_source_ranges(service: &Value, old: Option<&Value>, spec: &At<'_>, errors: &mut Errors) {
    let ranges = spec.get("loadBalancerSourceRanges");
    let balanced = kind(service) == "LoadBalancer";
    let why = "may only be used when `type` is 'LoadBalancer'";
    if ranges.len() > 0 {
        let shown = spec.get("LoadBalancerSourceRanges");
        if !balanced {
            shown.forbidden(errors, why);
        }
        let known = strings(old.map(|o| o.at(&["spec", "loadBalancerSourceRanges"])));
        let known: Vec<&str> = known.into_iter().map(str::trim).collect();
        for range in shown.with(ranges.value).items() {
            range.legacy_cidr(errors, &known);
        }
    } else if let Some(text) = service.annotation(SOURCE_RANGES) {
        let annotations = At::of(service, "metadata.annotations");
        let at = At { value: &Value::Null, path: annotations.path.key(SOURCE_RANGES) };
        if !balanced {
            at.forbidden(errors, why);
        }
        if old.and_then(|o| o.annotation(SOURCE_RANGES)) != Some(text) && !text.trim().is_empty() {
            for range in text.trim().split(',') {
                at.with(&Value::from(range.trim())).legacy_cidr(errors, &[]);
            }
        }
    }
}

fn validate_class(spec: &At<'_>, errors: &mut Errors) {
    let class = spec.get("loadBalancerClass");
    if !class.is_set() {
        return;
    }
    if spec.get("type").text() == "LoadBalancer" {
        class.qualified(errors);
    } else {
        class.forbidden(errors, "may only be used when `type` is 'LoadBalancer'");
    }
}

fn validate_traffic(service: &Value, spec: &At<'_>, errors: &mut Errors) {
    let external = spec.get("externalTrafficPolicy");
    if is_external(spec.value) {
        external.required_one_of(errors, &["Cluster", "Local"]);
    } else if !external.text().is_empty() {
        external.invalid(errors, "may only be set for externally-accessible services");
    }
    let health = spec.get("healthCheckNodePort");
    if needs_health_check(service) {
        if health.not_empty(errors) {
            health.port(errors);
        }
    } else if health.int() != 0 {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        health.invalid(errors, why);
    }
    let internal = spec.get("internalTrafficPolicy");
    if !internal.is_set() && matches!(kind(service), "NodePort" | "LoadBalancer" | "ClusterIP") {
        internal.required(errors, "");
    }
    internal.one_of(errors, &["Cluster", "Local"]);
    let distribution = spec.get("trafficDistribution");
    distribution.one_of(errors, &["PreferClose", "PreferSameZone", "PreferSameNode"]);
}

/// Checks the points where traffic comes in, of the status of a Service or an Ingress.
pub(super) fn validate_ingress_points(points: &At<'_>, before: &Value, modes: bool, errors: &mut Errors) {
    let before = before.as_array().into_iter().flatten();
    let known: Vec<&str> = before.map(|p| p.str_at(&["ip"])).filter(|a| !a.is_empty()).collect();
    for point in points.items() {
        let (address, mode, name) = (point.get("ip"), point.get("ipMode"), point.get("hostname"));
        if !address.text().is_empty() {
            address.legacy_ip(errors, &known);
        }
        if modes {
            if !mode.is_set() {
                if !address.text().is_empty() {
                    mode.required(errors, "must be specified when `ip` is set");
                }
            } else if address.text().is_empty() {
                mode.forbidden(errors, "may not be specified when `ip` is not set");
            } else {
                mode.one_of(errors, &["Proxy", "VIP"]);
            }
        }
        if !name.text().is_empty() {
            name.named(errors, names::dns_subdomain);
            if name.ip().is_some() {
                name.invalid(errors, "must be a DNS name, not an IP address");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: Value, want: &[&str]) {
        let mut service = object!({"metadata": {"name": "s"}, "spec": spec});
        super::super::default(&mut service);
        let mut errors = Vec::new();
        validate(&service, None, &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
    }

    #[test]
    fn services_say_how_they_are_reached() {
        check(object!({"ports": [{"port": 80}]}), &[]);
        check(object!({}), &["spec.ports: Required value"]);
        check(
            object!({"ports": [{"port": 80}, {"port": 80}]}),
            &[
                "spec.ports[0].name: Required value",
                "spec.ports[1].name: Required value",
                r#"spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}"#,
            ],
        );
        check(
            object!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 1}]}),
            &["spec.healthCheckNodePort: Required value"],
        );
        check(
            object!({"ports": [{"port": 1}], "externalIPs": ["127.0.0.1"]}),
            &[
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ],
        );
        check(object!({"type": "ExternalName"}), &["spec.externalName: Required value"]);
    }
}
