//! What is wrong with the expressions of ValidatingAdmissionPolicies for the kinds of objects that they are about, in
//! `status.typeChecking`.
//!
//! The types come from the OpenAPI documents of the API server. Only resources that a policy names are looked at, and only
//! the first ten of them.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#type-checking>.

mod types;

use std::collections::BTreeSet;

use api::{Value, object};
use cel::Version;
use cel::admission::{Compiler, Scope};
use client::resource::VALIDATING_ADMISSION_POLICIES;
use client::{Client, Next, Queue};

use crate::context::Context;
use types::{GroupVersionKind, Types};

const MANAGER: &str = "validatingadmissionpolicy-status";
/// Kinds that a policy is checked for.
const MOST_KINDS: usize = 10;

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let policies = cx.informers.policies();
    Context::follow(policies, &queue);
    cx.work(queue, 1, &[policies], |cx, key| async move {
        let Some(policy) = cx.informers.policies().store().get(&key) else { return Ok(Next::Done) };
        if is_checked(&policy) {
            return Ok(Next::Done);
        }
        let warnings = check(&cx.client, &policy).await?;
        let at = ("", policy.name(), "status");
        cx.client.apply_part(&VALIDATING_ADMISSION_POLICIES, at, MANAGER, &status(&policy, warnings)).await?;
        Ok(Next::Done)
    });
}

fn generation(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// True when the status is about the policy as it is.
fn is_checked(policy: &Value) -> bool {
    generation(policy.at(&["metadata", "generation"]))
        <= generation(policy.at(&["status", "observedGeneration"]))
}

fn status(policy: &Value, warnings: Vec<Value>) -> Value {
    let mut checking = Value::object();
    if !warnings.is_empty() {
        checking.set(&["expressionWarnings"], warnings);
    }
    object!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": (policy.name())},
        "status": {
            "observedGeneration": (generation(policy.at(&["metadata", "generation"]))), "typeChecking": checking,
        },
    })
}

async fn check(client: &Client, policy: &Value) -> client::Result<Vec<Value>> {
    let mut types = Types::new(client);
    let mut kinds = Vec::new();
    for kind in kinds_of(&mut types, policy).await? {
        if let Some(schema) = types.schema(&kind).await? {
            kinds.push((kind, schema));
        }
    }
    let params = match policy.at(&["spec", "paramKind"]) {
        Value::Null => None,
        reference => {
            let kind = GroupVersionKind::new(reference.api_version(), reference.kind());
            Some(types.schema(&kind).await?.unwrap_or_default())
        }
    };
    Ok(warnings(policy, &kinds, params.as_ref()))
}

/// The kinds that a policy names, in order; rules with wildcards name none.
async fn kinds_of(types: &mut Types<'_>, policy: &Value) -> client::Result<BTreeSet<GroupVersionKind>> {
    let mut kinds = BTreeSet::new();
    for rule in policy.array_at(&["spec", "matchConstraints", "resourceRules"]) {
        let texts = |field: &str| -> BTreeSet<&str> {
            rule.array_at(&[field]).iter().filter_map(Value::as_str).collect()
        };
        let (groups, versions) = (texts("apiGroups"), texts("apiVersions"));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        let resources = texts("resources");
        let mut found = 0;
        for group in &groups {
            for version in &versions {
                for resource in resources.iter().filter(|r| !r.contains(['*', '/'])) {
                    let Some(kind) = types.kind(group, version, resource).await? else { continue };
                    kinds.insert(kind);
                    found += 1;
                    if found == MOST_KINDS {
                        return Ok(kinds);
                    }
                }
            }
        }
    }
    Ok(kinds)
}

/// What is wrong with the expressions of a policy; the schema of parameters is null where it is not known.
fn warnings(policy: &Value, kinds: &[(GroupVersionKind, Value)], params: Option<&Value>) -> Vec<Value> {
    let scope = Scope { params: params.is_some(), authorizer: true, variables: true, patches: false };
    let params = params.and_then(|schema| types::declare(schema, "Params"));
    let checkers: Vec<(&GroupVersionKind, Compiler)> = kinds
        .iter()
        .map(|(kind, schema)| {
            let object = types::declare(schema, &kind.kind);
            let mut compiler = Compiler::new(scope, Version::STORED).typed(object, params.clone());
            for variable in policy.array_at(&["spec", "variables"]) {
                // What is wrong with a variable itself is not told.
                let _ = compiler.declare(variable.str_at(&["name"]), variable.str_at(&["expression"]));
            }
            (kind, compiler)
        })
        .collect();
    let mut warnings = Vec::new();
    for (i, validation) in policy.array_at(&["spec", "validations"]).iter().enumerate() {
        for member in ["expression", "messageExpression"] {
            let expression = validation.str_at(&[member]);
            if expression.is_empty() && member == "messageExpression" {
                continue;
            }
            let told: Vec<String> = checkers
                .iter()
                .filter_map(|(kind, checker)| {
                    checker.check(expression).err().map(|issues| format!("{kind}: {issues}\n"))
                })
                .collect();
            if !told.is_empty() {
                let field = format!("spec.validations[{i}].{member}");
                warnings.push(object!({"fieldRef": field, "warning": (told.join("\n"))}));
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_for_each_kind() {
        let schema = |field: &str| {
            let mut spec = object!({"type": "object"});
            spec.set(&["properties", field], object!({"type": "integer"}));
            object!({"type": "object", "properties": {"spec": spec}})
        };
        let kinds = [
            (GroupVersionKind::new("apps/v1", "Deployment"), schema("replicas")),
            (GroupVersionKind::new("v1", "Pod"), schema("other")),
        ];
        let policy = object!({"spec": {
            "variables": [{"name": "n", "expression": "object.spec.replicas"}],
            "validations": [
                {"expression": "object.spec.replicas > 1", "messageExpression": "'a' + 1"},
                {"expression": "variables.n == params.x"},
            ],
        }});
        let told = warnings(&policy, &kinds, Some(&Value::Null));
        let undefined = "/v1, Kind=Pod: ERROR: <input>:1:12: undefined field 'replicas'\n | object.spec.replicas > 1\n | ...........^\n";
        let places: Vec<&str> = told.iter().map(|w| w.str_at(&["fieldRef"])).collect();
        assert_eq!(places, ["spec.validations[0].expression", "spec.validations[0].messageExpression"]);
        assert_eq!(told[0].str_at(&["warning"]), undefined);
        let both = told[1].str_at(&["warning"]);
        assert!(
            both.starts_with("apps/v1, Kind=Deployment: ERROR: <input>:1:5: found no matching overload"),
            "{both}"
        );
        assert!(both.contains("^\n\n/v1, Kind=Pod: ERROR: "), "{both}");
    }

    #[test]
    fn policies_are_checked_once_for_each_generation() {
        let policy = |generation: i64, observed: i64| object!({"metadata": {"generation": generation}, "status": {"observedGeneration": observed}});
        assert!(!is_checked(&policy(2, 1)));
        assert!(is_checked(&policy(2, 2)));
    }
}
