//! Groups and versions that this server or others serve.

use api::{Value, names, object};

use super::check::At;
use super::metadata::check_wanted_name;
use super::{Entry, Errors, Part, StatusMetadata, Strategy, default_to};

pub(super) const STRATEGIES: &[Entry] = &[("apiregistration.k8s.io", "apiservices", &SERVICE)];

static SERVICE: Strategy = Strategy {
    status_metadata: StatusMetadata::Managers,
    name: names::path_segment,
    default: |a| {
        if let Some(service) = a.at_mut(&["spec", "service"]).filter(|s| !s.is_null()) {
            default_to(service, "port", 443);
        }
    },
    prepare_create: |service| {
        if service.at(&["spec", "service"]).is_null() {
            // What this server serves itself nobody has to look for.
            let now = api::time::format(jiff::Timestamp::now());
            let condition = object!({
                "type": "Available", "status": "True", "lastTransitionTime": now, "reason": "Local",
                "message": "Local APIServices are always available",
            });
            service.set(&["status", "conditions"], vec![condition]);
        }
    },
    validate,
    unconditional_update: false,
    parts: &[Part {
        name: "status",
        fixed: &[&["spec"]],
        prepare: |_, _| {},
        validate: |new, _, errors| {
            for condition in At::of(new, "status.conditions").items() {
                let status = condition.get("status");
                if !["True", "False", "Unknown"].contains(&status.text()) {
                    status.unsupported(errors, &["True", "False", "Unknown"]);
                }
            }
        },
    }],
    ..Strategy::NEUTRAL
};

fn validate(service: &Value, errors: &mut Errors) {
    let spec = At::of(service, "spec");
    let (group, version) = (spec.get("group"), spec.get("version"));
    let given = ["name", "generateName"].map(|field| service.str_at(&["metadata", field]));
    if given.into_iter().all(|name| names::path_segment(name).is_empty()) {
        let want = format!("{}.{}", version.text(), group.text());
        let why = format!("must be `spec.version+\".\"+spec.group`: {want:?}");
        check_wanted_name(service, &want, &why, errors);
    }
    if group.text().is_empty() && version.text() != "v1" {
        group.required(errors, "only v1 may have an empty group and it better be legacy kube");
    }
    group.named_if_any(errors, names::dns_subdomain);
    version.named(errors, names::dns1035_label);
    for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let at = spec.get(field);
        if !(1..=max).contains(&at.int()) {
            at.invalid_as(errors, at.int(), format!("must be positive and less than {max}"));
        }
    }
    validate_backend(&spec, errors);
}

fn validate_backend(spec: &At<'_>, errors: &mut Errors) {
    let (service, bundle, insecure) =
        (spec.get("service"), spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    if !service.is_set() {
        if !bundle.text().is_empty() {
            let padding = bundle.text().bytes().rev().take_while(|b| *b == b'=').count();
            let bytes = format!("{} bytes", bundle.text().len() / 4 * 3 - padding);
            bundle.invalid_as(errors, bytes, "local APIServices may not have a caBundle");
        }
        if insecure.is_true() {
            insecure.invalid(errors, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    service.get("namespace").not_empty(errors);
    service.get("name").not_empty(errors);
    let port = service.get("port");
    if !(1..=65_535).contains(&port.int()) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        port.invalid_as(errors, port.int(), why);
    }
    if insecure.is_true() && !bundle.text().is_empty() {
        insecure.invalid(errors, "may not be true if caBundle is present");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn versions_are_named_by_group() {
        let check = |name: &str, want: &[&str]| {
            let mut errors = Vec::new();
            let spec =
                object!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1});
            validate(&object!({"metadata": {"name": name}, "spec": spec}), &mut errors);
            assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), want);
        };
        check("v1.a.b", &[]);
        check("x", &["metadata.name"]);
    }
}
