//! Roles and bindings.

use api::Value;
use api::field::{FieldError, Path};

use super::{Entry, Errors, Strategy, default_if_empty};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) const STRATEGIES: &[Entry] = &[
    (GROUP, "roles", &ROLE),
    (GROUP, "clusterroles", &ROLE),
    (GROUP, "rolebindings", &BINDING),
    (GROUP, "clusterrolebindings", &BINDING),
];

static ROLE: Strategy =
    Strategy { name: api::names::path_segment, validate: validate_role, ..Strategy::NEUTRAL };

fn validate_role(role: &Value, errors: &mut Errors) {
    let list = Path::new("rules");
    for (i, rule) in role.array_at(&["rules"]).iter().enumerate() {
        let at = list.index(i);
        let empty = |field: &str| rule.array_at(&[field]).is_empty();
        if empty("verbs") {
            errors.push(FieldError::required(&at.child("verbs"), "verbs must contain at least one value"));
        }
        if !empty("nonResourceURLs") {
            let namespaced = role.kind() == "Role";
            if namespaced {
                let why = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(
                    &at.child("nonResourceURLs"),
                    rule.get("nonResourceURLs").clone(),
                    why,
                ));
            }
            if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(
                    &at.child("nonResourceURLs"),
                    rule.get("nonResourceURLs").clone(),
                    why,
                ));
            }
            continue;
        }
        if empty("apiGroups") {
            let why = "resource rules must supply at least one api group";
            errors.push(FieldError::required(&at.child("apiGroups"), why));
        }
        if empty("resources") {
            let why = "resource rules must supply at least one resource";
            errors.push(FieldError::required(&at.child("resources"), why));
        }
    }
}

static BINDING: Strategy = Strategy {
    name: api::names::path_segment,
    default: |b| {
        default_if_empty(b.make_object().entry("roleRef"), "apiGroup", GROUP);
        for subject in b.make_object().get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten()
        {
            if matches!(subject.kind(), "User" | "Group") {
                default_if_empty(subject, "apiGroup", GROUP);
            }
        }
    },
    validate: validate_binding,
    validate_update: |new, old, errors| {
        if new.get("roleRef") != old.get("roleRef") {
            let error = FieldError::invalid(
                &Path::new("roleRef"),
                new.get("roleRef").clone(),
                "cannot change roleRef",
            );
            errors.push(error);
        }
    },
    ..Strategy::NEUTRAL
};

fn validate_binding(binding: &Value, errors: &mut Errors) {
    let role = Path::new("roleRef");
    let reference = binding.get("roleRef");
    if reference.str_at(&["apiGroup"]) != GROUP {
        errors.push(FieldError::not_supported(
            &role.child("apiGroup"),
            reference.str_at(&["apiGroup"]),
            &[GROUP],
        ));
    }
    let kinds: &[&str] =
        if binding.kind() == "RoleBinding" { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&reference.kind()) {
        errors.push(FieldError::not_supported(&role.child("kind"), reference.kind(), kinds));
    }
    let name = reference.str_at(&["name"]);
    if name.is_empty() {
        errors.push(FieldError::required(&role.child("name"), ""));
    }
    let list = Path::new("subjects");
    for (i, subject) in binding.array_at(&["subjects"]).iter().enumerate() {
        let at = list.index(i);
        if subject.str_at(&["name"]).is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        }
        match subject.kind() {
            "ServiceAccount"
                if subject.str_at(&["namespace"]).is_empty() && binding.kind() == "ClusterRoleBinding" =>
            {
                errors.push(FieldError::required(&at.child("namespace"), ""));
            }
            "ServiceAccount" | "User" | "Group" => {}
            other => {
                errors.push(FieldError::not_supported(
                    &at.child("kind"),
                    other,
                    &["ServiceAccount", "User", "Group"],
                ));
            }
        }
    }
}
