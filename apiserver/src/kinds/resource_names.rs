//! Names of resources: which are known, and what amounts of them may be.

use api::names;

use super::Errors;
use super::check::At;

const QUOTA: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// True for pages of a size: `hugepages-2Mi`.
pub(super) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// True for resources that Kubernetes itself knows.
pub(super) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// True for resources of others, such as devices.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// True when more may be used than was asked for.
pub(super) fn can_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// True for resources that cannot be divided.
pub(super) fn is_integer(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// True for resources that a quota knows by name.
pub(super) fn is_quota(name: &str) -> bool {
    QUOTA.contains(&name) || is_huge_page(name) || name.starts_with("requests.hugepages-")
}

/// Checks the name of a resource; `at` is where it is a key.
pub(super) fn validate_resource(at: &At<'_>, name: &str, errors: &mut Errors) {
    let found = errors.len();
    let key = api::Value::from(name);
    let at = at.with(&key);
    at.qualified(errors);
    if errors.len() == found && !name.contains('/') && name != "storage" && !is_quota(name) {
        at.invalid(errors, "must be a standard resource type or fully qualified");
    }
}

/// Checks the name of a resource of a container.
pub(super) fn validate_container_resource(at: &At<'_>, name: &str, errors: &mut Errors) {
    validate_resource(at, name, errors);
    let key = api::Value::from(name);
    let at = at.with(&key);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
            at.invalid(errors, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        at.invalid(errors, "doesn't follow extended resource name standard");
    }
}

/// Checks the name of a resource of a quota.
pub(super) fn validate_quota_resource(at: &At<'_>, name: &str, errors: &mut Errors) {
    validate_resource(at, name, errors);
    if !name.contains('/') && !is_quota(name) {
        at.invalid_as(errors, name, "must be a standard resource for quota");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_resources() {
        assert!(can_overcommit("cpu") && !can_overcommit("hugepages-2Mi") && !can_overcommit("a.b/gpu"));
        assert!(is_integer("pods") && is_integer("a.b/gpu") && !is_integer("cpu"));
        assert!(is_native("kubernetes.io/x") && !is_extended("requests.a.b/c"));
        assert!(is_quota("requests.hugepages-1Gi") && !is_quota("count/pods"));
    }
}
