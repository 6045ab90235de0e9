//! Policies of expressions, and what binds them to requests.

use api::{Value, names};
use cel::Type;
use cel::admission::Scope as May;

use super::expressions::Expressions;
use super::rules::{validate_conditions, validate_named_rule};
use super::{FAILURES, REINVOCATIONS, default_rules};
use crate::kinds::check::At;
use crate::kinds::{Errors, Part, StatusMetadata, Strategy, default_to};

const ANNOTATIONS: usize = 20;
const ANNOTATION_BYTES: usize = 5 * 1024;

pub(super) static VALIDATING: Strategy = Strategy {
    status_metadata: StatusMetadata::Managers,
    validate: |policy, errors| validate_validating(policy, None, errors),
    validate_update: |new, old, errors| validate_validating(new, Some(old), errors),
    parts: &[Part {
        name: "status",
        fixed: &[&["metadata"], &["spec"]],
        prepare: |_, _| {},
        validate: |new, _, errors| {
            let status = At::of(new, "status");
            for warning in status.get("typeChecking.expressionWarnings").items() {
                warning.get("warning").not_empty(errors);
                warning.get("fieldRef").not_empty(errors);
            }
            status.get("conditions").conditions(errors);
        },
    }],
    ..BASE
};

pub(super) static MUTATING: Strategy = Strategy {
    validate: |policy, errors| validate_mutating(policy, None, errors),
    validate_update: |new, old, errors| validate_mutating(new, Some(old), errors),
    ..BASE
};

const BASE: Strategy = Strategy {
    default: |p| {
        let spec = p.make_object().entry("spec");
        default_to(spec, "failurePolicy", "Fail");
        default_constraints(spec, "matchConstraints");
    },
    revalidates: false,
    unconditional_update: false,
    generation: true,
    ..Strategy::NEUTRAL
};

pub(super) static VALIDATING_BINDING: Strategy = Strategy {
    validate: |binding, errors| {
        validate_binding(binding, errors);
        validate_actions(&At::of(binding, "spec.validationActions"), errors);
    },
    ..BINDING_BASE
};

pub(super) static MUTATING_BINDING: Strategy = Strategy {
    validate: |binding, errors| {
        validate_binding(binding, errors);
        validate_operations(&At::of(binding, "spec.matchResources"), errors);
    },
    ..BINDING_BASE
};

const BINDING_BASE: Strategy = Strategy {
    default: |b| default_constraints(b.make_object().entry("spec"), "matchResources"),
    unconditional_update: false,
    generation: true,
    ..Strategy::NEUTRAL
};

fn default_constraints(spec: &mut Value, field: &str) {
    let Some(constraints) = spec.make_object().get_mut(field).filter(|c| !c.is_null()) else { return };
    default_to(constraints, "matchPolicy", "Equivalent");
    default_to(constraints, "namespaceSelector", Value::object());
    default_to(constraints, "objectSelector", Value::object());
    default_rules(constraints, "resourceRules");
    default_rules(constraints, "excludeResourceRules");
}

/// What the expressions of a policy may use.
fn scope(spec: &At<'_>) -> May {
    let (params, variables) = (spec.get("paramKind").is_set(), spec.get("variables").len() > 0);
    May { params, authorizer: true, variables, patches: false }
}

fn validate_validating(policy: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::of(policy, "spec");
    let mut expressions = Expressions::new(scope(&spec), old);
    validate_common(&spec, old, &mut expressions, errors);
    validate_validations(policy.name(), &spec, &mut expressions, errors);
}

fn validate_mutating(policy: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::of(policy, "spec");
    let scope = May { variables: true, patches: true, ..scope(&spec) };
    let mut expressions = Expressions::new(scope, old);
    validate_common(&spec, old, &mut expressions, errors);
    validate_mutations(&spec, &mut expressions, errors);
}

/// What policies of both sorts have.
fn validate_common(
    spec: &At<'_>,
    old: Option<&Value>,
    expressions: &mut Expressions<'_>,
    errors: &mut Errors,
) {
    let failure = spec.get("failurePolicy");
    if failure.is_set() {
        failure.one_of(errors, &FAILURES);
    } else {
        failure.required(errors, "");
    }
    validate_kind(&spec.get("paramKind"), errors);
    let constraints = spec.get("matchConstraints");
    if constraints.is_set() {
        validate_resources(&constraints, errors);
        constraints.get("resourceRules").not_empty(errors);
        if spec.get("mutations").is_set() {
            validate_operations(&constraints, errors);
        }
    } else {
        constraints.required(errors, "");
    }
    let conditions = spec.get("matchConditions");
    if old.is_none_or(|old| old.at(&["spec", "matchConditions"]) != conditions.value) {
        validate_conditions(&conditions, expressions, errors);
    }
    for variable in spec.get("variables").items() {
        let (name, expression) = (variable.get("name"), variable.get("expression"));
        if name.text().trim().is_empty() {
            name.required(errors, "name is not specified");
        } else if !cel::is_identifier(name.text()) {
            name.invalid(errors, "must be a valid CEL identifier");
        }
        if expression.text().trim().is_empty() {
            expression.required(errors, "expression is not specified");
        } else {
            expressions.declare(name.text(), &expression, errors);
        }
    }
}

/// Nothing is left of what is deleted.
fn validate_operations(constraints: &At<'_>, errors: &mut Errors) {
    let list = constraints.get("resourceRules");
    for rule in list.items() {
        for operation in rule.get("operations").items() {
            let inner = list.get("operations");
            inner.with(operation.value).one_of(errors, &["*", "CONNECT", "CREATE", "UPDATE"]);
        }
    }
}

fn validate_kind(kind: &At<'_>, errors: &mut Errors) {
    if !kind.is_set() {
        return;
    }
    let (version, name) = (kind.get("apiVersion"), kind.get("kind"));
    let text = version.text();
    let (group, bare) = text.split_once('/').unwrap_or(("", text));
    if text.is_empty() {
        version.required(errors, "");
    } else if bare.contains('/') {
        version.invalid(errors, format!("unexpected GroupVersion string: {text}"));
    } else {
        let bad = names::dns_subdomain(group);
        if !group.is_empty() && !bad.is_empty() {
            version.invalid_as(errors, group, bad.join(","));
        }
        let bad = names::dns1035_label(bare);
        if bare.is_empty() {
            version.invalid(errors, "version must be specified");
        } else if !bad.is_empty() {
            version.invalid_as(errors, bare, bad.join(","));
        }
    }
    let bad = names::dns1035_label(&name.text().to_ascii_lowercase());
    if name.not_empty(errors) && !bad.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", bad.join(","));
        name.invalid(errors, why);
    }
}

fn validate_resources(resources: &At<'_>, errors: &mut Errors) {
    let policy = resources.get("matchPolicy");
    if policy.is_set() {
        policy.one_of(errors, &["Equivalent", "Exact"]);
    } else {
        policy.required(errors, "");
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        let selector = resources.get(selector);
        if selector.is_set() {
            selector.label_selector(errors);
        } else {
            selector.required(errors, "");
        }
    }
    for rules in ["resourceRules", "excludeResourceRules"] {
        for rule in resources.get(rules).items() {
            validate_named_rule(&rule, errors);
        }
    }
}

fn validate_validations(name: &str, spec: &At<'_>, expressions: &mut Expressions<'_>, errors: &mut Errors) {
    let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.len() == 0 && annotations.len() == 0 {
        let why = "validations or auditAnnotations must contain at least one item";
        validations.required(errors, why);
        annotations.required(errors, why);
        return;
    }
    for validation in validations.items() {
        validate_validation(&validation, expressions, errors);
    }
    if annotations.len() > ANNOTATIONS {
        let shown =
            crate::kinds::check::view(spec.value, "admissionregistration/v1.ValidatingAdmissionPolicySpec");
        let why = format!("must not have more than {ANNOTATIONS} auditAnnotations");
        annotations.invalid_as(errors, shown.get("AuditAnnotations"), why);
    }
    let mut seen: Vec<String> = Vec::new();
    for annotation in annotations.items() {
        let (key, value) = (annotation.get("key"), annotation.get("valueExpression"));
        if name.is_empty() {
            key.invalid(errors, "requires metadata.name be non-empty");
        } else {
            let whole = Value::from(format!("{name}/{}", key.text()));
            key.with(&whole).qualified(errors);
        }
        let bytes = value.text().trim().len();
        if bytes == 0 {
            value.required(errors, "valueExpression is not specified");
        } else if bytes > ANNOTATION_BYTES {
            value.required(errors, format!("must not exceed {ANNOTATION_BYTES} bytes in length"));
        } else {
            let shown = (value.text().trim(), value.text());
            expressions.check(&value, shown, expressions.scope, &[Type::String, Type::Null], errors);
        }
        if seen.iter().any(|k| k == key.text()) {
            key.duplicate(errors);
        }
        seen.push(key.text().to_owned());
    }
}

fn validate_validation(validation: &At<'_>, expressions: &mut Expressions<'_>, errors: &mut Errors) {
    let (expression, message) = (validation.get("expression"), validation.get("message"));
    if expression.text().trim().is_empty() {
        expression.required(errors, "expression is not specified");
    } else {
        let shown = (expression.text(), expression.text());
        expressions.check(&expression, shown, expressions.scope, &[Type::Bool], errors);
    }
    let blank = |at: &At<'_>| !at.text().is_empty() && at.text().trim().is_empty();
    let computed = validation.get("messageExpression");
    if blank(&computed) {
        computed.invalid(errors, "must be non-empty if specified");
    } else if !computed.text().is_empty() {
        let scope = May { authorizer: false, ..expressions.scope };
        expressions.check(&computed, (computed.text(), computed.text()), scope, &[Type::String], errors);
    }
    if blank(&message) {
        message.invalid(errors, "must be non-empty if specified");
    } else if message.text().trim().contains(['\n', '\r']) {
        message.invalid(errors, "must not contain line breaks");
    }
    validation.get("reason").one_of(errors, &["Forbidden", "Invalid", "RequestEntityTooLarge"]);
}

fn validate_mutations(spec: &At<'_>, expressions: &mut Expressions<'_>, errors: &mut Errors) {
    let mutations = spec.get("mutations");
    if mutations.len() == 0 {
        mutations.required(errors, "mutations must contain at least one item");
    }
    for mutation in mutations.items() {
        validate_mutation(&mutation, expressions, errors);
    }
    spec.get("reinvocationPolicy").required_one_of(errors, &REINVOCATIONS);
}

/// Kinds of changes, and the fields that describe them.
const CHANGES: [(&str, &str); 2] = [("JSONPatch", "jsonPatch"), ("ApplyConfiguration", "applyConfiguration")];

fn validate_mutation(mutation: &At<'_>, expressions: &mut Expressions<'_>, errors: &mut Errors) {
    let kind = mutation.get("patchType");
    kind.required_one_of(errors, &["ApplyConfiguration", "JSONPatch"]);
    let Some(i) = CHANGES.iter().position(|(k, _)| *k == kind.text()) else { return };
    let (field, other) = (CHANGES[i].1, CHANGES[1 - i].1);
    let change = mutation.get(field);
    let expression = change.get("expression");
    let source = expression.text().trim();
    if !change.is_set() {
        change.required(errors, format!("must be specified when patchType is {}", kind.text()));
    } else if source.is_empty() {
        expression.required(errors, "");
    } else {
        let result = match field {
            "jsonPatch" => Type::list(Type::object("JSONPatch")),
            _ => Type::object("Object"),
        };
        expressions.check(&expression, (source, source), expressions.scope, &[result], errors);
    }
    if mutation.get(other).is_set() {
        let why = format!("must not be specified when patchType is {}", kind.text());
        mutation.get(other).invalid_as(errors, format!("{{{other}}}"), why);
    }
}

fn validate_binding(binding: &Value, errors: &mut Errors) {
    let spec = At::of(binding, "spec");
    spec.get("policyName").required_name(errors, names::dns_subdomain);
    validate_parameters(&spec.get("paramRef"), errors);
    let resources = spec.get("matchResources");
    if resources.is_set() {
        validate_resources(&resources, errors);
    }
}

fn validate_parameters(reference: &At<'_>, errors: &mut Errors) {
    if !reference.is_set() {
        return;
    }
    let (name, selector) = (reference.get("name"), reference.get("selector"));
    let named = !name.text().is_empty();
    name.named_if_any(errors, names::path_segment);
    if named && selector.is_set() {
        name.forbidden(errors, "name and selector are mutually exclusive");
    }
    if selector.is_set() {
        selector.label_selector(errors);
        if named {
            selector.forbidden(errors, "name and selector are mutually exclusive");
        }
    }
    if !named && !selector.is_set() {
        reference.required(errors, "one of name or selector must be specified");
    }
    reference.get("parameterNotFoundAction").required_one_of(errors, &["Deny", "Allow"]);
}

fn validate_actions(actions: &At<'_>, errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for action in actions.items() {
        action.one_of(errors, &["Audit", "Deny", "Warn"]);
        if seen.iter().any(|a| a == action.text()) {
            action.duplicate(errors);
        }
        seen.push(action.text().to_owned());
    }
    let has = |name: &str| seen.iter().any(|a| a == name);
    if has("Deny") && has("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        actions.invalid(errors, why);
    }
    if seen.is_empty() {
        actions.required(errors, "at least one validation action is required");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn check(strategy: &Strategy, mut object: Value, want: &[&str]) {
        (strategy.default)(&mut object);
        let mut errors = Vec::new();
        (strategy.validate)(&object, &mut errors);
        assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), want);
    }

    #[test]
    fn policies_match_something_and_say_something() {
        check(
            &VALIDATING,
            object!({"metadata": {"name": "p"}}),
            &["spec.matchConstraints", "spec.validations", "spec.auditAnnotations"],
        );
        check(
            &MUTATING,
            object!({"metadata": {"name": "p"}}),
            &["spec.matchConstraints", "spec.mutations", "spec.reinvocationPolicy"],
        );
    }

    #[test]
    fn expressions_are_compiled_when_they_are_written() {
        let policy = |validation: Value| {
            object!({"metadata": {"name": "p"}, "spec": {
                "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
                "matchConditions": [{"name": "c", "expression": " variables.n "}],
                "variables": [{"name": "n", "expression": "1"}, {"name": "m", "expression": "nope"}],
                "validations": [validation],
            }})
        };
        let bad = ["spec.matchConditions[0].expression", "spec.variables[1].expression"];
        let good = object!({"expression": "variables.n == 1 && variables.m", "messageExpression": "string(variables.n)"});
        check(&VALIDATING, policy(good), &bad);
        let wrong =
            object!({"expression": "variables.n", "messageExpression": "authorizer.path('/') != null"});
        let fields = ["spec.validations[0].expression", "spec.validations[0].messageExpression"];
        check(&VALIDATING, policy(wrong), &[bad.as_slice(), fields.as_slice()].concat());
        // Conditions that do not change are not looked at again.
        let mut errors = Vec::new();
        let mut old = policy(object!({"expression": "true"}));
        (VALIDATING.default)(&mut old);
        (VALIDATING.validate_update)(&old, &old, &mut errors);
        assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), &bad[1..]);
    }

    #[test]
    fn mutations_make_what_their_sort_needs() {
        let check = |mutation: Value, want: &[&str]| {
            let policy = object!({"metadata": {"name": "p"}, "spec": {
                "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
                "mutations": [mutation], "reinvocationPolicy": "Never",
            }});
            check(&MUTATING, policy, want);
        };
        let apply =
            |e: &str| object!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": e}});
        let json = |e: &str| object!({"patchType": "JSONPatch", "jsonPatch": {"expression": e}});
        check(apply("Object{spec: Object.spec{nodeName: 'n'}}"), &[]);
        check(apply("1"), &["spec.mutations[0].applyConfiguration.expression"]);
        check(json("[JSONPatch{op: 'remove', path: '/spec'}]"), &[]);
        check(json("Object{}"), &["spec.mutations[0].jsonPatch.expression"]);
    }

    #[test]
    fn bindings_act() {
        check(
            &VALIDATING_BINDING,
            object!({"spec": {"policyName": "p", "validationActions": ["Deny"]}}),
            &[],
        );
        check(
            &VALIDATING_BINDING,
            object!({"spec": {"policyName": "p", "validationActions": ["Deny", "Warn"]}}),
            &["spec.validationActions"],
        );
        check(&MUTATING_BINDING, object!({}), &["spec.policyName"]);
    }
}
