//! Roles and bindings.

use api::{Value, names};

use super::check::At;
use super::{Entry, Errors, Strategy, default_if_empty};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) const STRATEGIES: &[Entry] = &[
    (GROUP, "roles", &ROLE),
    (GROUP, "clusterroles", &ROLE),
    (GROUP, "rolebindings", &BINDING),
    (GROUP, "clusterrolebindings", &BINDING),
];

static ROLE: Strategy = Strategy {
    name: names::path_segment,
    validate: validate_role,
    create_on_update: true,
    ..Strategy::NEUTRAL
};

fn validate_role(role: &Value, errors: &mut Errors) {
    for rule in At::of(role, "rules").items() {
        validate_rule(&rule, role.kind() == "Role", errors);
    }
    let aggregation = At::of(role, "aggregationRule");
    if !aggregation.is_set() {
        return;
    }
    let selectors = aggregation.get("clusterRoleSelectors");
    if selectors.len() == 0 {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        selectors.required(errors, why);
    }
    for selector in selectors.items() {
        selector.label_selector(errors);
        if !selector.is_readable_selector() {
            selector.invalid_as(errors, Value::Null, "invalid label selector.");
        }
    }
}

fn validate_rule(rule: &At<'_>, namespaced: bool, errors: &mut Errors) {
    let empty = |field: &str| rule.get(field).len() == 0;
    if empty("verbs") {
        rule.get("verbs").required(errors, "verbs must contain at least one value");
    }
    if !empty("nonResourceURLs") {
        let urls = rule.get("nonResourceURLs");
        if namespaced {
            urls.invalid(errors, "namespaced rules cannot apply to non-resource URLs");
        }
        if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
            urls.invalid(errors, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if empty("apiGroups") {
        rule.get("apiGroups").required(errors, "resource rules must supply at least one api group");
    }
    if empty("resources") {
        rule.get("resources").required(errors, "resource rules must supply at least one resource");
    }
}

static BINDING: Strategy = Strategy {
    name: names::path_segment,
    default: |b| {
        default_if_empty(b.make_object().entry("roleRef"), "apiGroup", GROUP);
        let subjects = b.make_object().get_mut("subjects").and_then(Value::as_array_mut);
        for subject in subjects.into_iter().flatten() {
            if matches!(subject.kind(), "User" | "Group") {
                default_if_empty(subject, "apiGroup", GROUP);
            }
        }
    },
    validate: validate_binding,
    validate_update: |new, old, errors| {
        let role = At::of(new, "roleRef");
        if role.value != old.get("roleRef") {
            role.invalid_struct(errors, "rbac/v1.RoleRef", "cannot change roleRef");
        }
    },
    create_on_update: true,
    ..Strategy::NEUTRAL
};

fn validate_binding(binding: &Value, errors: &mut Errors) {
    let namespaced = binding.kind() == "RoleBinding";
    let role = At::of(binding, "roleRef");
    if role.get("apiGroup").text() != GROUP {
        role.get("apiGroup").unsupported(errors, &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.get("kind").text()) {
        role.get("kind").unsupported(errors, kinds);
    }
    role.get("name").required_name(errors, names::path_segment);
    for subject in At::of(binding, "subjects").items() {
        validate_subject(&subject, namespaced, errors);
    }
}

fn validate_subject(subject: &At<'_>, namespaced: bool, errors: &mut Errors) {
    let (kind, name, group) = (subject.get("kind"), subject.get("name"), subject.get("apiGroup"));
    name.not_empty(errors);
    match kind.text() {
        "ServiceAccount" => {
            name.named_if_any(errors, names::dns_subdomain);
            if !group.text().is_empty() {
                group.unsupported(errors, &[""]);
            }
            if !namespaced {
                subject.get("namespace").not_empty(errors);
            }
        }
        "User" | "Group" => {
            if group.text() != GROUP {
                group.unsupported(errors, &[GROUP]);
            }
        }
        _ => kind.unsupported(errors, &["ServiceAccount", "User", "Group"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn check(validate: fn(&Value, &mut Errors), object: Value, want: &[&str]) {
        let mut errors = Vec::new();
        validate(&object, &mut errors);
        assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), want);
    }

    #[test]
    fn rules_are_about_resources_or_urls() {
        let role = |rule: Value| object!({"kind": "ClusterRole", "rules": [rule]});
        check(validate_role, role(object!({"verbs": ["get"], "nonResourceURLs": ["/x"]})), &[]);
        check(
            validate_role,
            role(object!({"verbs": ["get"]})),
            &["rules[0].apiGroups", "rules[0].resources"],
        );
    }

    #[test]
    fn subjects_have_fitting_groups() {
        let binding = |subject: Value| object!({"kind": "ClusterRoleBinding", "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "r"}, "subjects": [subject]});
        check(validate_binding, binding(object!({"kind": "User", "name": "u", "apiGroup": GROUP})), &[]);
        check(
            validate_binding,
            binding(object!({"kind": "ServiceAccount", "name": "s"})),
            &["subjects[0].namespace"],
        );
    }
}
