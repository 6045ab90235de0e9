//! Ingresses.

use api::{Value, names};

use super::validate_reference;
use crate::kinds::check::At;
use crate::kinds::{Errors, Part, Strategy};

const CLASS: &str = "kubernetes.io/ingress.class";

pub(super) static INGRESS: Strategy = Strategy {
    validate: |ingress, errors| {
        validate(ingress, None, errors);
        let class = ingress.at(&["metadata", "annotations", CLASS]);
        let named = ingress.at(&["spec", "ingressClassName"]);
        if !class.is_null() && !named.is_null() && class != named {
            let annotations = api::field::Path::new("annotations");
            let at = At { value: class, path: annotations.child(CLASS) };
            at.invalid(errors, "must match `ingressClassName` when both are specified");
        }
    },
    validate_update: |new, old, errors| validate(new, Some(old), errors),
    revalidates: false,
    warn: |ingress| {
        let old = ingress.annotation(CLASS).is_some();
        let why =
            || format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead");
        old.then(why).into_iter().collect()
    },
    generation: true,
    parts: &[Part { name: "status", fixed: &[&["spec"]], prepare: |_, _| {}, validate: validate_status }],
    ..Strategy::NEUTRAL
};

fn validate(ingress: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::of(ingress, "spec");
    let (rules, backend) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.len() == 0 && !backend.is_set() {
        spec.invalid_as(errors, rules.value, "either `defaultBackend` or `rules` must be specified");
    }
    if backend.is_set() {
        validate_backend(&backend, errors);
    }
    let lax = old.is_some_and(had_bad_wildcard);
    for rule in rules.items() {
        validate_rule(&rule, lax, errors);
    }
    let bad_secret = |tls: &Value| {
        let name = tls.str_at(&["secretName"]);
        !name.is_empty() && !names::dns_subdomain(name).is_empty()
    };
    let had_bad_secret = old.is_some_and(|o| o.array_at(&["spec", "tls"]).iter().any(bad_secret));
    for tls in spec.get("tls").items() {
        for host in tls.get("hosts").items() {
            host.named(errors, host_rule(host.text()));
        }
        if !had_bad_secret {
            tls.get("secretName").named_if_any(errors, names::dns_subdomain);
        }
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        class.named(errors, names::dns_subdomain);
    }
}

fn host_rule(host: &str) -> fn(&str) -> Vec<String> {
    if host.contains('*') { names::wildcard_subdomain } else { names::dns_subdomain }
}

fn had_bad_wildcard(old: &Value) -> bool {
    At::of(old, "spec.rules").items().filter(|r| r.get("host").text().contains('*')).any(|rule| {
        let mut errors = Vec::new();
        validate_paths(&rule, &mut errors);
        !errors.is_empty()
    })
}

fn validate_rule(rule: &At<'_>, lax: bool, errors: &mut Errors) {
    let host = rule.get("host");
    if !host.text().is_empty() {
        if host.ip().is_some() {
            host.invalid(errors, "must be a DNS name, not an IP address");
        }
        host.named(errors, host_rule(host.text()));
    }
    if !(lax && host.text().contains('*')) {
        validate_paths(rule, errors);
    }
}

fn validate_paths(rule: &At<'_>, errors: &mut Errors) {
    let http = rule.get("http");
    if !http.is_set() {
        return;
    }
    let paths = http.get("paths");
    if paths.len() == 0 {
        paths.required(errors, "");
    }
    for path in paths.items() {
        validate_path(&path, errors);
    }
}

fn validate_path(entry: &At<'_>, errors: &mut Errors) {
    let (kind, path) = (entry.get("pathType"), entry.get("path"));
    if !kind.is_set() {
        return kind.required(errors, "pathType must be specified");
    }
    let absolute = path.text().starts_with('/');
    match kind.text() {
        "Exact" | "Prefix" => {
            if !absolute {
                path.invalid_as(errors, path.text(), "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|p| path.text().contains(p)) {
                path.invalid(errors, format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].into_iter().filter(|e| path.text().ends_with(e)) {
                path.invalid(errors, format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !path.text().is_empty() && !absolute {
                path.invalid(errors, "must be an absolute path");
            }
        }
        _ => kind.unsupported(errors, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    validate_backend(&entry.get("backend"), errors);
}

fn validate_backend(backend: &At<'_>, errors: &mut Errors) {
    let (service, resource) = (backend.get("service"), backend.get("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => backend.invalid_as(errors, "", "cannot set both resource and service backends"),
        (false, false) => backend.invalid_as(errors, "", "resource or service backend is required"),
        (false, true) => validate_reference(&resource, errors),
        (true, false) => {
            service.get("name").required_name(errors, names::dns_label);
            let (name, number) = (service.get("port.name"), service.get("port.number"));
            match (!name.text().is_empty(), number.int() != 0) {
                (true, true) => {
                    backend.invalid_as(errors, "", "cannot set both port name & port number");
                }
                (true, false) => name.named(errors, names::port_name),
                (false, true) => number.port(errors),
                (false, false) => backend.required(errors, "port name or number is required"),
            }
        }
    }
}

fn validate_status(new: &Value, old: &Value, errors: &mut Errors) {
    let before = old.array_at(&["status", "loadBalancer", "ingress"]).iter();
    let before: Vec<&str> = before.map(|p| p.str_at(&["ip"])).collect();
    for point in At::of(new, "status.loadBalancer.ingress").items() {
        let (ip, hostname) = (point.get("ip"), point.get("hostname"));
        if !ip.text().is_empty() {
            ip.legacy_ip(errors, &before);
        }
        if !hostname.text().is_empty() {
            hostname.named(errors, names::dns_subdomain);
            if hostname.ip().is_some() {
                hostname.invalid(errors, "must be a DNS name, not an IP address");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn check(spec: Value, want: &[&str]) {
        let mut errors = Vec::new();
        validate(&object!({"spec": spec}), None, &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
    }

    #[test]
    fn ingresses_lead_somewhere() {
        let backend = || object!({"service": {"name": "s", "port": {"number": 80}}});
        check(object!({"defaultBackend": (backend())}), &[]);
        check(
            object!({}),
            &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
        );
        check(
            object!({"rules": [{"host": "*.a.b", "http": {"paths": [{"path": "x", "pathType": "Prefix", "backend": (backend())}]}}]}),
            &["spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path"],
        );
        check(
            object!({"defaultBackend": {"service": {"name": "s", "port": {}}}}),
            &["spec.defaultBackend: Required value: port name or number is required"],
        );
    }
}
