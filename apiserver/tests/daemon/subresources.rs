//! What admission is asked about parts of objects, connections and reviews.

use super::policies::{GROUP, bound};
use super::reviewer::Reviewer;
use super::webhooks::{MUTATING, VALIDATING, configure};
use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    object!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}
    })
}

/// A cluster with a pod, and webhooks of both sorts that are asked about everything but plain objects.
fn start() -> (Cluster, Reviewer) {
    let cluster = Cluster::start();
    let reviewer = Reviewer::start(&cluster.pki);
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.create(
        accounts,
        &object!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
    );
    cluster.create(PODS, &pod("p"));
    let parts = vec![
        "pods/*",
        "services/*",
        "nodes/*",
        "serviceaccounts/*",
        "namespaces/*",
        "bindings",
        "deployments/*",
    ];
    let reviews =
        vec!["tokenreviews", "subjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectreviews"];
    let rule = |groups: Vec<&str>, resources: Vec<&str>| object!({"apiGroups": groups, "apiVersions": ["v1"], "operations": ["*"], "resources": resources});
    let groups = vec!["authentication.k8s.io", "authorization.k8s.io"];
    let all = object!({"rules": [(rule(vec!["", "apps"], parts)), (rule(groups, reviews))]});
    configure(&cluster, MUTATING, "m", &reviewer.at("/m"), &all);
    configure(&cluster, VALIDATING, "v", &reviewer.at("/v"), &all);
    wait_until("both are asked", SOON, || {
        cluster.send("POST", &format!("{PODS}/p/exec?command=x"), JSON, "");
        !reviewer.asked("/m").is_empty() && !reviewer.asked("/v").is_empty()
    })
    .unwrap();
    (cluster, reviewer)
}

/// What both webhooks have been asked: operation, resource, name, and what the object is.
fn asked(reviewer: &Reviewer) -> (String, Value) {
    let told = |request: &Value| {
        let part = request.str_at(&["subResource"]);
        let slash = if part.is_empty() { "" } else { "/" };
        format!(
            "{} {}{slash}{part} {} {} {}",
            request.str_at(&["operation"]),
            request.str_at(&["resource", "resource"]),
            request.str_at(&["name"]),
            request.str_at(&["kind", "kind"]),
            request.get("object").kind()
        )
    };
    let (m, v) = (reviewer.asked("/m"), reviewer.asked("/v"));
    assert_eq!(m.iter().map(told).collect::<Vec<_>>(), v.iter().map(told).collect::<Vec<_>>());
    let [only] = v.as_slice() else { panic!("asked {} times", v.len()) };
    (told(only), only.get("object").clone())
}

#[test]
fn connections_are_asked_about() {
    let (cluster, reviewer) = start();
    let check = |method: &str, path: &str, code: u16, want: &str, object: &Value| {
        let response = cluster.client.send(method, path, None).unwrap();
        assert_eq!(response.code, code, "{path}: {}", response.body);
        let (told, mut given) = asked(&reviewer);
        assert_eq!(told, want);
        for field in ["kind", "apiVersion"] {
            given.remove_at(&[field]);
        }
        assert_eq!(&given, object, "{path}");
    };
    let exec = object!({"stdin": true, "tty": true, "container": "c", "command": ["sh", "-c"]});
    let query = "command=sh&command=-c&stdin=true&tty=1&container=c";
    check(
        "GET",
        &format!("{PODS}/p/exec?{query}"),
        400,
        "CONNECT pods/exec p PodExecOptions PodExecOptions",
        &exec,
    );
    let attach = object!({"stdout": true});
    let told = "CONNECT pods/attach p PodAttachOptions PodAttachOptions";
    check("POST", &format!("{PODS}/p/attach?stdout=true"), 400, told, &attach);
    let told = "CONNECT pods/portforward p PodPortForwardOptions PodPortForwardOptions";
    check("GET", &format!("{PODS}/p/portforward?ports=80"), 400, told, &object!({"ports": [80]}));
    let told = "CONNECT pods/proxy p PodProxyOptions PodProxyOptions";
    check("PUT", &format!("{PODS}/p/proxy/a/b?x=y"), 400, told, &object!({"path": "/a/b"}));
    let told = "CONNECT services/proxy http:s:80 ServiceProxyOptions ServiceProxyOptions";
    check("GET", "/api/v1/namespaces/default/services/http:s:80/proxy/", 404, told, &object!({"path": "/"}));
    let told = "CONNECT nodes/proxy n NodeProxyOptions NodeProxyOptions";
    check("GET", "/api/v1/nodes/n/proxy", 404, told, &object!({}));
    // Connections cannot be tried out.
    let dry = cluster.get(&format!("{PODS}/p/exec?command=x&dryRun=All"));
    assert_eq!(read(&dry).str_at(&["message"]), "dryRun is not supported");
}

#[test]
fn bodies_of_subresources_are_asked_about() {
    let (cluster, reviewer) = start();
    let check = |path: &str, body: &Value, code: u16, want: &str| {
        let response = cluster.send("POST", path, JSON, &body.to_string());
        assert_eq!(response.code, code, "{path}: {}", response.body);
        assert_eq!(asked(&reviewer).0, want);
    };
    let of = |version: &str, kind: &str, spec: Value| object!({"apiVersion": version, "kind": kind, "metadata": {"name": "p"}, "spec": spec});
    let token = object!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["a"]}});
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    check(path, &token, 201, "CREATE serviceaccounts/token default TokenRequest TokenRequest");
    let binding = object!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    check(&format!("{PODS}/p/binding?dryRun=All"), &binding, 201, "CREATE pods/binding p Binding Binding");
    let path = "/api/v1/namespaces/default/bindings";
    check(path, &binding, 201, "CREATE bindings p Binding Binding");
    check(
        &format!("{PODS}/p/eviction"),
        &of("policy/v1", "Eviction", Value::Null),
        201,
        "CREATE pods/eviction p Eviction Eviction",
    );
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = of("authentication.k8s.io/v1", "TokenReview", object!({"token": "t"}));
    check(path, &review, 201, "CREATE tokenreviews p TokenReview TokenReview");
    let access = object!({"user": "u", "resourceAttributes": {"verb": "get", "resource": "pods"}});
    check(
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        &of("authorization.k8s.io/v1", "SubjectAccessReview", access),
        201,
        "CREATE subjectaccessreviews p SubjectAccessReview SubjectAccessReview",
    );
    let patch = r#"{"status":{"phase":"Failed"}}"#;
    let status = cluster.send("PATCH", &format!("{PODS}/p/status"), "application/merge-patch+json", patch);
    assert_eq!(status.code, 200, "{}", status.body);
    assert_eq!(asked(&reviewer).0, "UPDATE pods/status p Pod Pod");
}

#[test]
fn policies_refuse_and_change_connections_and_evictions() {
    let (cluster, _) = start();
    let rule = |resource: &str, operation: &str| object!({"apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": [resource]});
    let refuses = object!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "v"},
        "spec": {
            "matchConstraints": {"resourceRules": [(rule("pods/exec", "CONNECT")), (rule("pods/eviction", "CREATE"))]},
            "validations": [
                {"expression": "request.operation != 'CONNECT' || object.command[0] != 'changed'", "message": "not this"},
                {"expression": "object.kind != 'Eviction'", "message": "stays"},
            ]
        }
    });
    cluster.create(&format!("{GROUP}/validatingadmissionpolicies"), &refuses);
    let binding = bound("ValidatingAdmissionPolicyBinding", "v", &object!({"validationActions": ["Deny"]}));
    cluster.create(&format!("{GROUP}/validatingadmissionpolicybindings"), &binding);
    let changes = object!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": "m"},
        "spec": {
            "matchConstraints": {"resourceRules": [(rule("pods/exec", "CONNECT"))]}, "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'replace', path: '/command/0', value: 'changed'}]"}}]
        }
    });
    cluster.create(&format!("{GROUP}/mutatingadmissionpolicies"), &changes);
    let binding = bound("MutatingAdmissionPolicyBinding", "m", &object!({}));
    cluster.create(&format!("{GROUP}/mutatingadmissionpolicybindings"), &binding);
    let exec = || cluster.get(&format!("{PODS}/p/exec?command=x"));
    wait_until("connections are refused", SOON, || exec().code == 422).unwrap();
    let why = "ValidatingAdmissionPolicy 'v' with binding 'v' denied request: not this";
    assert_eq!(read(&exec()).str_at(&["message"]), format!("pods \"p\" is forbidden: {why}"));
    let eviction = object!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let refused = cluster.send("POST", &format!("{PODS}/p/eviction"), JSON, &eviction.to_string());
    assert!(read(&refused).str_at(&["message"]).ends_with("stays"), "{}", refused.body);
}
