//! What the audit log tells of requests.

use std::path::Path;
use std::sync::mpsc;

use super::*;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, nonResourceURLs: ['/readyz*']}
- {level: None, users: ['system:apiserver']}
- {level: RequestResponse, resources: [{group: '', resources: [configmaps]}]}
- {level: Metadata}
";

fn start(more: &[&str]) -> (Cluster, std::path::PathBuf) {
    let mut log = None;
    let cluster = Cluster::start_with(|pki| {
        let policy = pki.file("policy.yaml");
        std::fs::write(&policy, POLICY).unwrap();
        let path = log.insert(pki.file("audit/audit.log"));
        let flags = [
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", path.display()),
        ];
        flags.into_iter().chain(more.iter().map(|f| (*f).to_owned())).collect()
    });
    (cluster, log.unwrap())
}

/// The events of requests that have `text` in their line.
fn events(log: &Path, text: &str) -> Vec<Value> {
    let lines = std::fs::read_to_string(log).unwrap_or_default();
    lines
        .lines()
        .filter(|l| l.contains(text))
        .map(|l| api::json::decode(l.as_bytes()).unwrap().value)
        .collect()
}

#[test]
fn requests_are_recorded_as_the_policy_says() {
    let (cluster, log) = start(&[]);
    let mut object = map("a", "1");
    object.set(&["metadata", "namespace"], "default");
    cluster.create(MAPS, &object);
    let created = events(&log, "\"verb\":\"create\"");
    let [event] = created.as_slice() else { panic!("{created:?}") };
    assert_eq!(event.str_at(&["stage"]), "ResponseComplete");
    assert_eq!(event.str_at(&["level"]), "RequestResponse");
    assert_eq!(event.str_at(&["user", "username"]), "admin");
    assert_eq!(event.str_at(&["requestURI"]), MAPS);
    assert_eq!(event.array_at(&["sourceIPs"]), ["127.0.0.1".into()]);
    assert_eq!(
        event.get("objectRef"),
        &object!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"})
    );
    assert_eq!(event.get("responseStatus"), &object!({"metadata": {}, "code": 201}));
    assert_eq!(event.str_at(&["requestObject", "data", "k"]), "1");
    assert!(!event.str_at(&["responseObject", "metadata", "uid"]).is_empty());
    assert!(event.at(&["responseObject", "metadata", "managedFields"]).is_null());
    assert_eq!(event.str_at(&["annotations", "authorization.k8s.io/decision"]), "allow");
    cluster.send("PATCH", &format!("{MAPS}/a"), "application/merge-patch+json", r#"{"data":{"l":"2"}}"#);
    let patched = events(&log, "\"verb\":\"patch\"");
    assert_eq!(patched[0].get("requestObject"), &object!({"data": {"l": "2"}}));
    cluster.get(&format!("{MAPS}/none"));
    let missing = events(&log, "configmaps/none");
    assert_eq!(missing[0].str_at(&["responseStatus", "reason"]), "NotFound");
    assert_eq!(missing[0].str_at(&["responseObject", "kind"]), "Status");
    cluster.get("/api/v1/namespaces/default/secrets");
    let listed = events(&log, "\"resource\":\"secrets\"");
    assert_eq!((listed.len(), listed[0].get("responseObject")), (1, &Value::Null));
    assert!(events(&log, "/readyz").is_empty());
}

#[test]
fn watches_begin_and_end() {
    let (cluster, log) = start(&["--audit-log-mode=batch", "--audit-log-batch-max-size=10"]);
    let path = format!("{MAPS}?watch=true&timeoutSeconds=1");
    let mut lines = cluster.client.lines(&path).unwrap();
    while lines.next_line().unwrap().is_some() {}
    let stages = || -> Vec<String> {
        events(&log, "\"verb\":\"watch\"").iter().map(|e| e.str_at(&["stage"]).to_owned()).collect()
    };
    wait_until("the end of the watch is recorded", SOON, || stages().len() == 2).unwrap();
    assert_eq!(stages(), ["ResponseStarted", "ResponseComplete"]);
}

#[test]
fn strangers_are_recorded_once() {
    let (cluster, log) = start(&["--audit-log-format=json", "--anonymous-auth=false"]);
    let other = tempfile::tempdir().unwrap();
    let strangers = Pki::make(other.path()).unwrap();
    std::fs::copy(cluster.pki.file("ca.crt"), strangers.file("ca.crt")).unwrap();
    let port: u16 = cluster.arguments[1].rsplit('=').next().unwrap().parse().unwrap();
    let stranger = Client::new(&strangers, port).unwrap();
    assert_eq!(stranger.send("GET", MAPS, None).unwrap().code, 401);
    let refused = events(&log, "\"code\":401");
    let [event] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!(event.str_at(&["stage"]), "ResponseStarted");
    assert_eq!(event.get("user"), &object!({}));
}

#[test]
fn a_log_that_cannot_be_written_refuses_requests_where_that_is_asked_for() {
    // The device is always full.
    let refused = |mode: &str| {
        let cluster = Cluster::start_with(|pki| {
            let policy = pki.file("policy.yaml");
            std::fs::write(&policy, POLICY.replace("omitStages: [RequestReceived]", "")).unwrap();
            let policy = format!("--audit-policy-file={}", policy.display());
            vec![policy, "--audit-log-path=/dev/full".to_owned(), format!("--audit-log-mode={mode}")]
        });
        cluster.get(MAPS)
    };
    assert_eq!(refused("blocking").code, 200);
    let answer = refused("blocking-strict");
    assert_eq!(answer.code, 500);
    assert!(answer.body.contains("failed to store audit event"), "{}", answer.body);
}

#[test]
fn events_are_sent_to_a_server() {
    let (sender, received) = mpsc::channel();
    let cluster = Cluster::start_with(|pki| {
        let port = documents::serve(pki, move |_, list| {
            sender.send(list.clone()).unwrap();
            object!({})
        });
        let (policy, config) = (pki.file("policy.yaml"), pki.file("webhook.yaml"));
        std::fs::write(&policy, POLICY).unwrap();
        let text = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k}}}}]\n\
             clusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:{port}/audit', certificate-authority: ca.crt}}}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        vec![
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-webhook-config-file={}", config.display()),
            "--audit-webhook-batch-max-wait=100ms".to_owned(),
        ]
    });
    cluster.create(MAPS, &map("sent", "1"));
    let found = wait_until("the event arrives", SOON, || {
        received.try_iter().any(|list: Value| {
            assert_eq!((list.kind(), list.api_version()), ("EventList", "audit.k8s.io/v1"));
            list.array_at(&["items"]).iter().any(|e| e.str_at(&["objectRef", "name"]) == "sent")
        })
    });
    found.unwrap();
}

#[test]
fn admission_notes_what_it_found() {
    let (cluster, log) = start(&[]);
    let group = super::policies::GROUP;
    let policy = object!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "short"},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
            "validations": [{"expression": "true"}, {"expression": "size(object.data.k) < 3", "message": "long"}],
            "auditAnnotations": [
                {"key": "value", "valueExpression": "'is ' + object.data.k"}, {"key": "none", "valueExpression": "null"}],
        }
    });
    cluster.create(&format!("{group}/validatingadmissionpolicies"), &policy);
    let actions = object!({"validationActions": ["Audit"]});
    let binding = super::policies::bound("ValidatingAdmissionPolicyBinding", "short", &actions);
    cluster.create(&format!("{group}/validatingadmissionpolicybindings"), &binding);
    let noted = || {
        cluster.send("POST", &format!("{MAPS}?dryRun=All"), JSON, &map("a", "value").to_string());
        events(&log, "short/value").into_iter().next()
    };
    wait_until("the policy acts", SOON, || noted().is_some()).unwrap();
    let event = noted().unwrap();
    assert_eq!(event.str_at(&["annotations", "short/value"]), "is value");
    assert!(event.at(&["annotations", "short/none"]).is_null());
    let failure = event.str_at(&["annotations", "validation.policy.admission.k8s.io/validation_failure"]);
    let want = r#"[{"message":"long","policy":"short","binding":"short","expressionIndex":1,"validationActions":["Audit"]}]"#;
    assert_eq!(failure, want);
    let host = object!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}
    });
    let account = object!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    cluster.create("/api/v1/namespaces/default/serviceaccounts", &account);
    cluster.create("/api/v1/namespaces/default/pods", &host);
    let [event] = &events(&log, "namespaces/default/pods\"")[..] else { panic!("no event of the pod") };
    assert_eq!(
        event.str_at(&["annotations", "pod-security.kubernetes.io/enforce-policy"]),
        "privileged:latest"
    );
}
