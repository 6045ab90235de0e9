//! Rules about operations and resources, and conditions beside them.

use std::collections::HashSet;

use api::names;

use super::expressions::Expressions;
use crate::kinds::Errors;
use crate::kinds::check::At;

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

fn has_all(list: &At<'_>) -> bool {
    list.texts().contains(&"*")
}

fn validate_alone(list: &At<'_>, others: &str, errors: &mut Errors) {
    if list.len() > 1 && has_all(list) {
        list.invalid(errors, format!("if '*' is present, must not specify other {others}"));
    }
}

pub(super) fn validate_rule(rule: &At<'_>, errors: &mut Errors) {
    let operations = rule.get("operations");
    operations.not_empty(errors);
    validate_alone(&operations, "operations", errors);
    for operation in operations.items() {
        operation.one_of(errors, &OPERATIONS);
    }
    let (groups, versions) = (rule.get("apiGroups"), rule.get("apiVersions"));
    groups.not_empty(errors);
    validate_alone(&groups, "API groups", errors);
    versions.not_empty(errors);
    validate_alone(&versions, "API versions", errors);
    for version in versions.items() {
        version.not_empty(errors);
    }
    validate_resources(&rule.get("resources"), errors);
    rule.get("scope").one_of(errors, &["*", "Cluster", "Namespaced"]);
}

fn validate_resources(resources: &At<'_>, errors: &mut Errors) {
    resources.not_empty(errors);
    let (mut whole, mut parts): (HashSet<&str>, HashSet<&str>) = Default::default();
    let mut plain = false;
    let names = resources.texts();
    for (at, name) in resources.items().zip(&names) {
        if name.is_empty() {
            at.required(errors, "");
            continue;
        }
        let Some((resource, part)) = name.split_once('/') else {
            plain = *name != "*";
            continue;
        };
        if whole.contains(resource) {
            at.invalid(errors, format!("if '{resource}/*' is present, must not specify {name}"));
        }
        if parts.contains(part) {
            at.invalid(errors, format!("if '*/{part}' is present, must not specify {name}"));
        }
        if part == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            parts.insert(part);
        }
    }
    if names.len() > 1 && names.contains(&"*/*") {
        resources.invalid(errors, "if '*/*' is present, must not specify other resources");
    }
    if names.contains(&"*") && plain {
        let why = "if '*' is present, must not specify other resources without subresources";
        resources.invalid(errors, why);
    }
}

/// Checks a rule that may name objects.
pub(super) fn validate_named_rule(rule: &At<'_>, errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for name in rule.get("resourceNames").items() {
        name.named(errors, names::path_segment);
        if seen.iter().any(|n| n == name.text()) {
            name.duplicate(errors);
        } else {
            seen.push(name.text().to_owned());
        }
    }
    validate_rule(rule, errors);
}

/// Checks the conditions of a match.
pub(super) fn validate_conditions(
    conditions: &At<'_>,
    expressions: &mut Expressions<'_>,
    errors: &mut Errors,
) {
    conditions.not_more(errors, 64);
    let mut seen: Vec<String> = Vec::new();
    for condition in conditions.items() {
        let (expression, name) = (condition.get("expression"), condition.get("name"));
        if expression.text().trim().is_empty() {
            expression.required(errors, "");
        } else {
            expressions.check_condition(&expression, errors);
        }
        name.required_name(errors, names::qualified_name);
        if name.text().is_empty() {
            continue;
        }
        if seen.iter().any(|n| n == name.text()) {
            name.duplicate(errors);
        } else {
            seen.push(name.text().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn the_word_for_everything_stands_alone() {
        let check = |resources: &[&str], want: &[&str]| {
            let object = object!({"r": (resources.to_vec())});
            let mut errors = Vec::new();
            validate_resources(&At::of(&object, "r"), &mut errors);
            assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), want, "{resources:?}");
        };
        check(&["pods", "pods/status"], &[]);
        check(&["*", "*/scale"], &[]);
        check(&["*", "pods"], &["r"]);
        check(&["pods/*", "pods/status"], &["r[1]"]);
        check(&["*/*", "x"], &["r"]);
        check(&[], &["r"]);
    }
}
