//! Ingresses, network policies, and the addresses of Services.

mod ingress;
mod policy;

use std::net::IpAddr;

use api::{Value, names};

use super::check::At;
use super::{Entry, Errors, Part, StatusMetadata, Strategy, default_to};

const GROUP: &str = "networking.k8s.io";

pub(super) const STRATEGIES: &[Entry] = &[
    (GROUP, "ingresses", &ingress::INGRESS),
    (GROUP, "ingressclasses", &CLASS),
    (GROUP, "networkpolicies", &policy::POLICY),
    (GROUP, "ipaddresses", &ADDRESS),
    (GROUP, "servicecidrs", &RANGE),
];

static CLASS: Strategy = Strategy {
    default: |c| {
        if let Some(parameters) = c.at_mut(&["spec", "parameters"]).filter(|p| !p.is_null()) {
            default_to(parameters, "scope", "Cluster");
        }
    },
    validate: validate_class,
    validate_update: |new, old, errors| {
        let mut found = Vec::new();
        let controller = old.at(&["spec", "controller"]);
        At::of(new, "spec.controller").immutable_text(&mut found, controller);
        validate_class(new, &mut found);
        errors.append(&mut found);
    },
    revalidates: false,
    generation: true,
    ..Strategy::NEUTRAL
};

fn validate_class(class: &Value, errors: &mut Errors) {
    let spec = At::of(class, "spec");
    let controller = spec.get("controller");
    controller.not_longer(errors, 250);
    controller.domain_path(errors);
    let parameters = spec.get("parameters");
    if !parameters.is_set() {
        return;
    }
    validate_reference(&parameters, errors);
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    match scope.text() {
        _ if !scope.is_set() => scope.required(errors, ""),
        "Namespace" if !namespace.is_set() => {
            namespace.required(errors, "`parameters.scope` is set to 'Namespace'");
        }
        "Namespace" => namespace.named(errors, names::dns_label),
        "Cluster" if namespace.is_set() => {
            namespace.forbidden(errors, "`parameters.scope` is set to 'Cluster'");
        }
        "Cluster" => {}
        _ => scope.unsupported(errors, &["Cluster", "Namespace"]),
    }
}

/// A reference to an object by group, kind and name.
fn validate_reference(reference: &At<'_>, errors: &mut Errors) {
    let group = reference.get("apiGroup");
    if group.is_set() {
        group.named(errors, names::dns_subdomain);
    }
    reference.get("kind").required_name(errors, names::path_segment);
    reference.get("name").required_name(errors, names::path_segment);
}

static ADDRESS: Strategy = Strategy {
    name: |name| match name.parse::<IpAddr>() {
        Ok(ip) if ip.to_string() == name => Vec::new(),
        Ok(ip) => vec![format!("must be in canonical form (\"{ip}\")")],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    },
    validate: |address, errors| {
        let parent = At::of(address, "spec.parentRef");
        if !parent.is_set() {
            return parent.required(errors, "");
        }
        parent.get("group").named_if_any(errors, names::dns_subdomain);
        parent.get("resource").required_name(errors, names::path_segment);
        parent.get("name").required_name(errors, names::path_segment);
        parent.get("namespace").named_if_any(errors, names::path_segment);
    },
    validate_update: |new, old, errors| {
        let before = old.at(&["spec", "parentRef"]);
        let parent = At::of(new, "spec.parentRef");
        parent.immutable_struct(errors, before, "networking/v1.ParentReference");
    },
    ..Strategy::NEUTRAL
};

static RANGE: Strategy = Strategy {
    status_metadata: StatusMetadata::Managers,
    validate: validate_range,
    validate_update: |new, old, errors| {
        let list = At::of(new, "spec.cidrs");
        let before = old.array_at(&["spec", "cidrs"]);
        match (before.len(), list.len()) {
            (was, is) if was == is => {
                for (item, before) in list.items().zip(before) {
                    item.immutable(errors, before);
                }
            }
            (1, 2) => {
                for item in list.items().take(1) {
                    item.immutable(errors, &before[0]);
                }
                validate_range(new, errors);
            }
            _ => list.invalid(errors, "field is immutable"),
        }
    },
    revalidates: false,
    parts: &[Part { name: "status", fixed: &[&["spec"]], prepare: |_, _| {}, validate: |_, _, _| {} }],
    ..Strategy::NEUTRAL
};

fn validate_range(range: &Value, errors: &mut Errors) {
    let list = At::of(range, "spec.cidrs");
    if list.len() == 0 {
        return list.required(errors, "at least one CIDR required");
    }
    if list.len() > 2 {
        let shown = super::check::view(range.get("spec"), "networking/v1.ServiceCIDRSpec");
        return list.invalid_as(errors, shown, "may only hold up to 2 values");
    }
    let mut families = Vec::new();
    for item in list.items() {
        item.strict_cidr(errors);
        families.extend(item.cidr().map(|c| c.addr().is_ipv4()));
    }
    if let [first, second] = families.as_slice()
        && first == second
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        list.invalid(errors, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn ranges_have_one_of_each_family() {
        let count = |list: Value| {
            let mut errors = Vec::new();
            validate_range(&object!({"spec": {"cidrs": list}}), &mut errors);
            errors.len()
        };
        assert_eq!(count(object!([])), 1);
        assert_eq!(count(object!(["10.0.0.0/8", "fd00::/64"])), 0);
        assert_eq!(count(object!(["10.0.0.0/8", "11.0.0.0/8"])), 1);
    }

    #[test]
    fn parameters_of_classes_have_a_fitting_namespace() {
        let count = |parameters: Value| {
            let mut errors = Vec::new();
            let spec = object!({"controller": "a.b/c", "parameters": parameters});
            validate_class(&object!({"spec": spec}), &mut errors);
            errors.len()
        };
        assert_eq!(count(object!({"kind": "K", "name": "n", "scope": "Cluster"})), 0);
        assert_eq!(count(object!({"kind": "K", "name": "n", "scope": "Namespace"})), 1);
    }
}
