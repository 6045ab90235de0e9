//! Who may do what, as others decide it, and who may act as whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// Whether a user may, by a review of access: `allowed`, `denied` or `none`, with the reason.
fn may(cluster: &Cluster, user: &str, verb: &str, resource: &str) -> String {
    let review = object!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": {"verb": verb, "resource": resource, "namespace": "default"}},
    });
    let status = cluster.create(REVIEWS, &review).get("status").clone();
    let says = |field: &str| status.get(field).as_bool() == Some(true);
    let word = if says("allowed") {
        "allowed"
    } else if says("denied") {
        "denied"
    } else {
        "none"
    };
    format!("{word} {}{}", status.str_at(&["reason"]), status.str_at(&["evaluationError"]))
}

fn kubeconfig(pki: &Pki, port: u16) -> String {
    let path = pki.file("authorizer.yaml");
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: k}}}}]\n\
         clusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:{port}/', certificate-authority: ca.crt}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Allows ann to get, denies bob everything, and has no opinion of others.
fn serve_reviews(pki: &Pki, asked: Arc<AtomicUsize>) -> u16 {
    documents::serve(pki, move |_, review| {
        asked.fetch_add(1, Ordering::Relaxed);
        let spec = review.get("spec");
        let status = match (spec.str_at(&["user"]), spec.str_at(&["resourceAttributes", "verb"])) {
            ("ann", "get") => object!({"allowed": true, "reason": "by review"}),
            ("bob", _) => object!({"allowed": false, "denied": true, "reason": "not bob"}),
            _ => object!({"allowed": false}),
        };
        let mut answer = review.clone();
        answer.set(&["status"], status);
        answer
    })
}

fn write_config(pki: &Pki, kubeconfig: &str, condition: &str) {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n\
         - type: Webhook\n  name: reviews\n  webhook:\n    timeout: 3s\n    subjectAccessReviewVersion: v1\n\
         \x20   matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: Deny\n\
         \x20   connectionInfo: {{type: KubeConfigFile, kubeConfigFile: '{kubeconfig}'}}\n\
         \x20   matchConditions: [{{expression: \"{condition}\"}}]\n\
         - {{type: RBAC, name: rbac}}\n"
    );
    let path = pki.file("authorization.yaml");
    std::fs::write(path.with_extension("new"), text).unwrap();
    std::fs::rename(path.with_extension("new"), path).unwrap();
}

/// The flags of a cluster, without the mode that clusters of tests have.
fn without_mode(cluster: &mut Cluster) {
    cluster.kill();
    cluster.arguments.retain(|a| !a.starts_with("--authorization-mode"));
    cluster.run();
}

#[test]
fn other_servers_decide_where_they_are_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut cluster = Cluster::start();
    let config = kubeconfig(&cluster.pki, serve_reviews(&cluster.pki, asked.clone()));
    write_config(&cluster.pki, &config, "request.user != 'carl'");
    let file = cluster.pki.file("authorization.yaml");
    cluster.arguments.push(format!("--authorization-config={}", file.display()));
    without_mode(&mut cluster);
    assert_eq!(may(&cluster, "ann", "get", "pods"), "allowed by review");
    let before = asked.load(Ordering::Relaxed);
    assert_eq!(may(&cluster, "ann", "get", "pods"), "allowed by review");
    assert_eq!(asked.load(Ordering::Relaxed), before);
    assert_eq!(may(&cluster, "bob", "get", "pods"), "denied not bob");
    assert_eq!(may(&cluster, "ann", "delete", "pods"), "none ");
    let before = asked.load(Ordering::Relaxed);
    assert_eq!(may(&cluster, "carl", "get", "pods"), "none ");
    assert_eq!(asked.load(Ordering::Relaxed), before);
    // A changed file holds without a restart.
    write_config(&cluster.pki, &config, "request.user == 'carl'");
    wait_until("ann is not asked about", SOON, || may(&cluster, "ann", "get", "pods") == "none ").unwrap();
    // Nobody answers any more.
    let nobody = kubeconfig(&cluster.pki, free_port().unwrap());
    write_config(&cluster.pki, &nobody, "request.user == 'dora'");
    wait_until("dora is refused", SOON, || may(&cluster, "dora", "get", "pods").starts_with("denied Post"))
        .unwrap();
}

#[test]
fn policies_of_a_file_allow() {
    let mut cluster = Cluster::start();
    let file = cluster.pki.file("abac.jsonl");
    let policy = r#"{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"ann","namespace":"default","resource":"pods","readonly":true}}"#;
    std::fs::write(&file, format!("# who may what\n{policy}\n")).unwrap();
    cluster.arguments.push("--authorization-mode=ABAC".to_owned());
    cluster.arguments.push(format!("--authorization-policy-file={}", file.display()));
    cluster.kill();
    cluster.arguments.retain(|a| a != "--authorization-mode=RBAC");
    cluster.run();
    assert_eq!(may(&cluster, "ann", "list", "pods"), "allowed ");
    assert_eq!(may(&cluster, "ann", "delete", "pods"), "none No policy matched.");
}

/// Gives a user the rules of a role.
fn grant(cluster: &Cluster, name: &str, user: &str, rules: &Value) {
    let group = "/apis/rbac.authorization.k8s.io/v1";
    let role = object!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules,
    });
    cluster.create(&format!("{group}/clusterroles"), &role);
    let binding = object!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    cluster.create(&format!("{group}/clusterrolebindings"), &binding);
}

#[test]
fn who_may_act_as_another_for_some_requests_may_not_for_others() {
    let cluster = Cluster::start_with(|pki| {
        let tokens = pki.file("tokens.csv");
        std::fs::write(&tokens, "sender,ann,1\n").unwrap();
        vec![format!("--token-auth-file={}", tokens.display())]
    });
    let rules = api::json::decode(
        br#"[{"apiGroups":["authentication.k8s.io"],"resources":["users"],"resourceNames":["bob"],"verbs":["impersonate:user-info"]},
             {"apiGroups":[""],"resources":["configmaps"],"verbs":["impersonate-on:user-info:list"]}]"#,
    );
    grant(&cluster, "act", "ann", &rules.unwrap().value);
    let rules =
        api::json::decode(br#"[{"apiGroups":[""],"resources":["configmaps","secrets"],"verbs":["list"]}]"#);
    grant(&cluster, "read", "bob", &rules.unwrap().value);
    let act = |path: &str, user: &str| {
        let headers = [("authorization", "Bearer sender"), ("impersonate-user", user)];
        authentication::answer(&cluster, path, &headers)
    };
    wait_until("ann may act as bob", SOON, || act(MAPS, "bob").0 == 200).unwrap();
    let (code, told) = act("/api/v1/namespaces/default/secrets", "bob");
    let told = api::json::decode(told.as_bytes()).unwrap().value;
    let why = "secrets is forbidden: User \"ann\" cannot impersonate-on:user-info:list resource \"secrets\" in API group \"\" in the namespace \"default\"";
    assert_eq!((code, told.str_at(&["message"])), (403, why));
    let (code, told) = act(MAPS, "carl");
    let told = api::json::decode(told.as_bytes()).unwrap().value;
    let why = "users.authentication.k8s.io \"carl\" is forbidden: User \"ann\" cannot impersonate:user-info resource \"users\" in API group \"authentication.k8s.io\" at the cluster scope";
    assert_eq!((code, told.str_at(&["message"])), (403, why));
}
