//! What mutating policies make of writes.

use super::policies::{GROUP, bound, soon};
use super::*;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn apply(expression: &str) -> Value {
    object!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patch(expression: &str) -> Value {
    object!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

/// A policy about the creation and change of objects of a resource.
fn policy(name: &str, resource: &Value, mutations: Vec<Value>) -> Value {
    let mut rule = resource.clone();
    rule.set(&["operations"], vec!["CREATE", "UPDATE"]);
    object!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {"matchConstraints": {"resourceRules": [rule]}, "reinvocationPolicy": "Never", "mutations": mutations}
    })
}

fn maps() -> Value {
    object!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]})
}

fn deployments() -> Value {
    object!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]})
}

fn enforce(cluster: &Cluster, policy: &Value, binding: &Value) {
    cluster.create(&format!("{GROUP}/mutatingadmissionpolicies"), policy);
    let binding = bound("MutatingAdmissionPolicyBinding", policy.name(), binding);
    cluster.create(&format!("{GROUP}/mutatingadmissionpolicybindings"), &binding);
}

/// What a dry run makes of an object, once `done` says that the policies act.
fn made(cluster: &Cluster, path: &str, object: &Value, done: impl Fn(&Value) -> bool) -> Value {
    let dry = format!("{path}?dryRun=All");
    let send = || read(&cluster.send("POST", &dry, JSON, &object.to_string()));
    let result = wait_until("the policy acts", SOON, || done(&send()));
    result.unwrap_or_else(|e| panic!("{e}: {}", send()));
    send()
}

fn deployment(name: &str) -> Value {
    object!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": name}}, "template": {
            "metadata": {"labels": {"a": name}},
            "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i", "args": ["x"]}]},
        }}
    })
}

#[test]
fn policies_lay_configurations_over_objects() {
    let cluster = Cluster::start();
    let mutations = vec![
        apply(
            "Object{metadata: Object.metadata{annotations: {'by': request.userInfo.username}}, spec: Object.spec{replicas: object.spec.replicas + variables.more}}",
        ),
        apply(
            "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [Object.spec.template.spec.containers{name: 'b', image: string(object.spec.replicas)}]}}}}",
        ),
    ];
    let mut more = policy("more", &deployments(), mutations);
    more.set(&["spec", "variables"], vec![object!({"name": "more", "expression": "40"})]);
    more.set(
        &["spec", "matchConditions"],
        vec![object!({"name": "c", "expression": "object.metadata.name != 'free'"})],
    );
    enforce(&cluster, &more, &object!({}));
    let replicas = |o: &Value| o.at(&["spec", "replicas"]).as_i64();
    let changed = made(&cluster, DEPLOYMENTS, &deployment("d"), |o| replicas(o) == Some(42));
    assert_eq!(changed.str_at(&["metadata", "annotations", "by"]), "admin");
    let containers = changed.array_at(&["spec", "template", "spec", "containers"]);
    let images: Vec<&str> = containers.iter().map(|c| c.str_at(&["image"])).collect();
    // The second mutation sees what the first one made.
    assert_eq!(images, ["i", "42"]);
    assert_eq!(containers[1].get("args"), &Value::from(vec!["x"]));
    assert_eq!(replicas(&cluster.create(DEPLOYMENTS, &deployment("free"))), Some(2));
    // The scale of an object is another resource.
    cluster.create(DEPLOYMENTS, &deployment("d"));
    let scale = format!("{DEPLOYMENTS}/d/scale");
    let scaled = cluster.send("PATCH", &scale, "application/merge-patch+json", r#"{"spec":{"replicas":1}}"#);
    assert_eq!(replicas(&read(&scaled)), Some(1));
    let one = read(&cluster.get(&format!("{DEPLOYMENTS}/d")));
    assert_eq!(replicas(&one), Some(1));
}

#[test]
fn policies_patch_objects_with_parameters() {
    let cluster = Cluster::start();
    let add = "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey(params.data.key), value: params.metadata.name}]";
    let never =
        "[JSONPatch{op: 'test', path: '/data/k', value: 'no'}, JSONPatch{op: 'remove', path: '/data'}]";
    let mut keys = policy("keys", &maps(), vec![patch(add), patch(never)]);
    keys.set(&["spec", "paramKind"], object!({"apiVersion": "v1", "kind": "ConfigMap"}));
    for (name, key) in [("p1", "one"), ("p2", "two")] {
        let mut params = map(name, "");
        params.set(&["metadata", "labels"], object!({"params": "yes"}));
        params.set(&["data"], object!({"key": key}));
        cluster.create(MAPS, &params);
    }
    let reference =
        object!({"selector": {"matchLabels": {"params": "yes"}}, "parameterNotFoundAction": "Deny"});
    enforce(&cluster, &keys, &object!({"paramRef": reference}));
    let changed = made(&cluster, MAPS, &map("a", "1"), |o| !o.at(&["data", "one"]).is_null());
    assert_eq!(changed.get("data"), &object!({"k": "1", "one": "p1", "two": "p2"}));
    // Changes by a policy belong to no manager.
    let managed = changed.array_at(&["metadata", "managedFields"])[0].to_string();
    assert!(managed.contains("f:k") && !managed.contains("f:one"), "{managed}");
}

#[test]
fn policies_that_cannot_mutate_refuse() {
    let cluster = Cluster::start();
    let check = |name: &str, mutation: Value, code: u16, reason: &str, why: &str| {
        let about = policy(name, &maps(), vec![mutation]);
        let only = object!({"matchResources": {"objectSelector": {"matchLabels": {"for": name}}}});
        enforce(&cluster, &about, &only);
        let mut subject = map(name, "1");
        subject.set(&["metadata", "labels"], object!({"for": name}));
        let told = read(&soon(&cluster, MAPS, &subject, code));
        assert_eq!((told.str_at(&["reason"]), told.str_at(&["message"])), (reason, why));
        let cause = told.array_at(&["details", "causes"])[0].str_at(&["message"]);
        assert_eq!(cause, why.trim_start_matches("Internal error occurred: "));
    };
    let wrong = "policy 'types' with binding 'types' denied request: type mismatch: unexpected type name \"Object.b\", expected \"Object.metadata\", which matches field name path from root Object type";
    check("types", apply("Object{metadata: Object.b{}}"), 403, "Invalid", wrong);
    let unknown = "policy 'unknown' with binding 'unknown' denied request: error applying patch: failed to convert patch object to typed object: .nope: field not declared in schema";
    check("unknown", apply("Object{nope: 1}"), 403, "Invalid", unknown);
    let bad = "policy 'bad' with binding 'bad' denied request: JSON Patch: error in remove for path: '/x': Unable to remove nonexistent key: x: missing value";
    check("bad", patch("[JSONPatch{op: 'remove', path: '/x'}]"), 403, "Invalid", bad);
    let strict = "Internal error occurred: strict decoding error: unknown field \"nope\"";
    let add = patch("[JSONPatch{op: 'add', path: '/nope', value: 1}]");
    check("strict", add, 500, "InternalError", strict);
    // Parameters that must be there are missing.
    let mut needs = policy("needs", &maps(), vec![apply("Object{}")]);
    needs.set(&["spec", "paramKind"], object!({"apiVersion": "v1", "kind": "ConfigMap"}));
    enforce(
        &cluster,
        &needs,
        &object!({"paramRef": {"name": "none", "namespace": "default", "parameterNotFoundAction": "Deny"}}),
    );
    let told = read(&soon(&cluster, MAPS, &map("m", "1"), 403));
    let why = "policy 'needs' with binding 'needs' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert_eq!((told.str_at(&["reason"]), told.str_at(&["message"])), ("Forbidden", why));
}

#[test]
fn policies_are_asked_again_when_others_change_the_object() {
    let cluster = Cluster::start();
    let count = |name: &str, key: &str, seen: &str| {
        let expression = format!(
            "[JSONPatch{{op: 'add', path: '/data/{key}', value: '{seen}' in object.data ? 'late' : 'early'}}]"
        );
        let mut counted = policy(name, &maps(), vec![patch(&expression)]);
        if key != "never" {
            counted.set(&["spec", "reinvocationPolicy"], "IfNeeded");
        }
        counted
    };
    // In order of their names; the first and the second see what the third makes only when they are asked again.
    for (name, key, seen) in [("p1", "again", "last"), ("p2", "never", "last"), ("p3", "last", "none")] {
        enforce(&cluster, &count(name, key, seen), &object!({}));
    }
    let changed = made(&cluster, MAPS, &map("a", "1"), |o| o.get("data").as_object().unwrap().len() == 4);
    assert_eq!(changed.get("data"), &object!({"k": "1", "again": "late", "never": "early", "last": "early"}));
}
