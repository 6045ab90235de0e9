//! Environment variables and what they come from.

use api::names;

use super::mounts;
use crate::kinds::Errors;
use crate::kinds::check::At;

/// Fields of a pod that a variable can have as its value.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Checks the list of variables.
pub(super) fn validate(variables: &At<'_>, errors: &mut Errors) {
    for variable in variables.items() {
        variable.get("name").required_name(errors, names::environment_variable);
        let from = variable.get("valueFrom");
        if from.is_set() {
            validate_origin(&from, !variable.get("value").text().is_empty(), errors);
        }
    }
}

fn validate_origin(from: &At<'_>, has_value: bool, errors: &mut Errors) {
    let mut origins = 0;
    let mut each = |name: &str, check: &mut dyn FnMut(&At<'_>)| {
        let origin = from.get(name);
        if origin.is_set() {
            origins += 1;
            check(&origin);
        }
    };
    each("fieldRef", &mut |at| validate_field(at, &FIELDS, errors));
    each("resourceFieldRef", &mut |at| validate_resource(at, false, errors));
    each("configMapKeyRef", &mut |at| validate_key(at, errors));
    each("secretKeyRef", &mut |at| validate_key(at, errors));
    each("fileKeyRef", &mut |at| validate_file(at, errors));
    let why = if origins == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
    } else if has_value {
        "may not be specified when `value` is not empty"
    } else if origins > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    from.invalid_as(errors, "", why);
}

fn validate_key(reference: &At<'_>, errors: &mut Errors) {
    reference.get("name").named(errors, names::dns_subdomain);
    reference.get("key").required_name(errors, names::config_key);
}

fn validate_file(reference: &At<'_>, errors: &mut Errors) {
    reference.get("key").required_name(errors, names::environment_variable);
    reference.get("volumeName").required_name(errors, names::dns_label);
    let path = reference.get("path");
    if path.not_empty(errors) {
        mounts::no_back_steps(&path, errors);
    }
}

/// Checks the list of sources whose keys all become variables.
pub(super) fn validate_sources(sources: &At<'_>, errors: &mut Errors) {
    for source in sources.items() {
        source.get("prefix").named_if_any(errors, names::environment_variable);
        let mut origins = 0;
        for name in ["configMapRef", "secretRef"] {
            let origin = source.get(name);
            if origin.is_set() {
                origins += 1;
                origin.get("name").required_name(errors, names::dns_subdomain);
            }
        }
        if origins == 0 {
            sources.invalid_as(errors, "", "must specify one of: `configMapRef` or `secretRef`");
        } else if origins > 1 {
            sources.invalid_as(errors, "", "may not have more than one field specified at a time");
        }
    }
}

/// Fields that can be selected at all, without a subscript.
const LABELS: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Splits `metadata.labels['a']` into the map and the key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

/// Checks a reference to a field of the pod, one of `supported`.
pub(super) fn validate_field(reference: &At<'_>, supported: &[&str], errors: &mut Errors) {
    let version = reference.get("apiVersion");
    let field = reference.get("fieldPath");
    if !version.not_empty(errors) || !field.not_empty(errors) {
        return;
    }
    let path = field.text();
    let why = if version.text() != "v1" {
        format!("unsupported pod version: {}", version.text())
    } else {
        match subscript(path) {
            Some(("metadata.annotations", key)) => {
                let lower = api::Value::from(key.to_ascii_lowercase());
                return reference.with(&lower).qualified(errors);
            }
            Some(("metadata.labels", key)) => {
                return reference.with(&api::Value::from(key)).qualified(errors);
            }
            Some(_) => format!("field label does not support subscript: {path}"),
            None if path == "spec.host" && supported.contains(&"spec.nodeName") => return,
            None if LABELS.contains(&path) => {
                if !supported.contains(&path) {
                    field.unsupported(errors, supported);
                }
                return;
            }
            None => format!("field label not supported: {path}"),
        }
    };
    field.invalid(errors, format!("error converting fieldPath: {why}"));
}

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const DIVISORS: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// Checks a reference to a container's resources. In volumes it must name the container.
pub(super) fn validate_resource(reference: &At<'_>, in_volume: bool, errors: &mut Errors) {
    let (container, resource) = (reference.get("containerName"), reference.get("resource"));
    let name = resource.text();
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if in_volume && container.text().is_empty() {
        container.required(errors, "");
    } else if name.is_empty() {
        resource.required(errors, "");
    } else if !RESOURCES.contains(&name) && !huge {
        resource.unsupported(errors, &RESOURCES);
    }
    let divisor = reference.get("divisor");
    let Some(quantity) = divisor.quantity().filter(|q| !q.is_zero()) else { return };
    let text = quantity.to_string();
    let why = match name.split_once('.').map_or("", |(_, r)| r) {
        "cpu" if !["1m", "1"].contains(&text.as_str()) => {
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
        }
        "cpu" => return,
        _ if DIVISORS.contains(&text.as_str()) => return,
        rest => {
            let what = match rest {
                "memory" => "memory",
                "ephemeral-storage" => "local ephemeral storage",
                _ if huge => "hugepages",
                _ => return,
            };
            format!("only divisor's values {} are supported with the {what} resource", DIVISORS.join(", "))
        }
    };
    divisor.invalid_as(errors, name, why);
}
