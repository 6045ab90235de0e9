//! What policies make of writes.

use super::*;

pub(super) const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

/// Writes until the answer has that code, since policies act from the moment that the server has heard of them.
pub(super) fn soon(cluster: &Cluster, path: &str, object: &Value, code: u16) -> Response {
    let dry = format!("{path}?dryRun=All");
    let send = || cluster.send("POST", &dry, JSON, &object.to_string());
    let result = wait_until("the policy acts", SOON, || send().code == code);
    result.unwrap_or_else(|e| panic!("{e}: {}", send().body));
    send()
}

fn policy(name: &str, more: &Value) -> Value {
    let rule = object!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE", "DELETE"], "resources": ["configmaps"]});
    let mut policy = object!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {"matchConstraints": {"resourceRules": [rule]}}
    });
    for (field, value) in more.as_object().unwrap().iter() {
        policy.set(&["spec", field], value);
    }
    policy
}

/// A binding of a policy, both of that name.
pub(super) fn bound(kind: &str, name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec.set(&["policyName"], name);
    let version = "admissionregistration.k8s.io/v1";
    object!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn enforce(cluster: &Cluster, policy: &Value, binding: &Value) {
    cluster.create(&format!("{GROUP}/validatingadmissionpolicies"), policy);
    let binding = bound("ValidatingAdmissionPolicyBinding", policy.name(), binding);
    cluster.create(&format!("{GROUP}/validatingadmissionpolicybindings"), &binding);
}

#[test]
fn policies_refuse_and_warn_where_they_are_bound() {
    let cluster = Cluster::start();
    let short = policy(
        "short",
        &object!({
            "matchConditions": [{"name": "named", "expression": "request.operation != 'DELETE' && object.metadata.name.startsWith('p')"}],
            "variables": [{"name": "n", "expression": "size(object.data.k)"}],
            "validations": [{"expression": "variables.n < 3", "messageExpression": "'has ' + string(variables.n)", "reason": "Forbidden"}],
        }),
    );
    enforce(&cluster, &short, &object!({"validationActions": ["Deny"]}));
    let refused = soon(&cluster, MAPS, &map("pa", "long"), 403);
    let status = read(&refused);
    let why = "ValidatingAdmissionPolicy 'short' with binding 'short' denied request: has 4";
    assert_eq!(status.str_at(&["message"]), format!("configmaps \"pa\" is forbidden: {why}"));
    assert_eq!(status.array_at(&["details", "causes"])[0].str_at(&["message"]), why);
    // Neither what the condition leaves out nor what is short enough is refused; a change is.
    cluster.create(MAPS, &map("other", "long"));
    cluster.create(MAPS, &map("pb", "ok"));
    let one = format!("{MAPS}/pb");
    let patch = |body: &str| cluster.send("PATCH", &one, "application/merge-patch+json", body).code;
    assert_eq!((patch(r#"{"data":{"k":"long"}}"#), patch(r#"{"data":{"k":"no"}}"#)), (403, 200));
    // What cannot be evaluated is refused too.
    let bare = object!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pc"}});
    let told = read(&soon(&cluster, MAPS, &bare, 422));
    let why = "expression 'variables.n < 3' resulted in error: composited variable \"n\" fails to evaluate: no such key: data";
    assert!(told.str_at(&["message"]).ends_with(why), "{told}");
    // Without the binding nothing is.
    let binding = format!("{GROUP}/validatingadmissionpolicybindings/short");
    assert_eq!(cluster.client.send("DELETE", &binding, None).unwrap().code, 200);
    soon(&cluster, MAPS, &map("pa", "long"), 201);
}

#[test]
fn policies_have_parameters_and_selectors() {
    let cluster = Cluster::start();
    cluster.create(
        "/api/v1/namespaces",
        &object!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": {"strict": "yes"}}}),
    );
    let limit = policy(
        "limit",
        &object!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "validations": [{"expression": "size(object.data.k) <= int(params.data.max) && params.kind == 'ConfigMap'"}],
        }),
    );
    let reference = object!({"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"});
    let strict = object!({"namespaceSelector": {"matchLabels": {"strict": "yes"}}, "objectSelector": {"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]}});
    let binding = object!({"validationActions": ["Deny"], "paramRef": reference, "matchResources": strict});
    enforce(&cluster, &limit, &binding);
    let maps = "/api/v1/namespaces/strict/configmaps";
    let missing = read(&soon(&cluster, maps, &map("a", "1"), 422));
    let why =
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(missing.str_at(&["message"]).ends_with(why), "{missing}");
    let mut limits = map("limits", "");
    limits.set(&["data"], object!({"max": "2"}));
    cluster.create(MAPS, &limits);
    soon(&cluster, maps, &map("a", "12"), 201);
    let long = read(&soon(&cluster, maps, &map("a", "123"), 422));
    let why = "failed expression: size(object.data.k) <= int(params.data.max) && params.kind == 'ConfigMap'";
    assert!(long.str_at(&["message"]).ends_with(why), "{long}");
    // Other namespaces and objects with the label are not meant.
    cluster.create(MAPS, &map("a", "123"));
    let mut free = map("free", "123");
    free.set(&["metadata", "labels"], object!({"free": ""}));
    cluster.create(maps, &free);
}

#[test]
fn policies_cost_no_more_than_they_may() {
    let cluster = Cluster::start();
    let ten = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]";
    let loops =
        |depth: usize| (0..depth).fold("true".to_owned(), |inner, n| format!("{ten}.all(v{n}, {inner})"));
    let check = |name: &str, validations: Vec<Value>, why: &str| {
        let costly = policy(name, &object!({"validations": validations}));
        let only = object!({"objectSelector": {"matchLabels": {"for": name}}});
        enforce(&cluster, &costly, &object!({"validationActions": ["Deny"], "matchResources": only}));
        let mut subject = map(name, "1");
        subject.set(&["metadata", "labels"], object!({"for": name}));
        let told = read(&soon(&cluster, MAPS, &subject, 422));
        assert!(told.str_at(&["message"]).ends_with(why), "{told}");
    };
    let expression = |depth: usize| object!({"expression": (loops(depth))});
    check("one", vec![expression(6)], "operation cancelled: actual cost limit exceeded");
    let spent =
        "validation failed due to running out of cost budget, no further validation rules will be run";
    check("all", (0..40).map(|_| expression(5)).collect(), spent);
}
