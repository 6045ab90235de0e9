//! What webhooks make of writes.

use super::policies::soon;
use super::reviewer::{Reviewer, patching};
use super::*;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
pub(super) const MUTATING: &str = "MutatingWebhookConfiguration";
pub(super) const VALIDATING: &str = "ValidatingWebhookConfiguration";

fn collection(kind: &str) -> String {
    format!("{GROUP}/{}s", kind.to_ascii_lowercase())
}

/// Configures a webhook about the creation and change of maps, unless `more` says otherwise.
pub(super) fn configure(cluster: &Cluster, kind: &str, name: &str, client: &Value, more: &Value) {
    let rule = object!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]});
    let mut hook = object!({
        "name": (format!("{name}.example.com")), "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "rules": [rule], "clientConfig": client,
    });
    for (field, value) in more.as_object().unwrap().iter() {
        hook.set(&[field], value);
    }
    let configuration = object!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": [hook]
    });
    cluster.create(&collection(kind), &configuration);
}

fn remove(cluster: &Cluster, kind: &str, name: &str) {
    let path = format!("{}/{name}", collection(kind));
    assert_eq!(cluster.client.send("DELETE", &path, None).unwrap().code, 200);
}

/// Waits until a dry run of the creation of `object` asks `path`.
fn acts(cluster: &Cluster, reviewer: &Reviewer, path: &str, object: &Value) {
    let dry = format!("{MAPS}?dryRun=All");
    let asks = || {
        cluster.send("POST", &dry, JSON, &object.to_string());
        !reviewer.asked(path).is_empty()
    };
    wait_until("the webhook is asked", SOON, asks).unwrap();
    reviewer.asked(path);
}

#[test]
fn webhooks_change_and_refuse_what_matches() {
    let cluster = Cluster::start();
    let reviewer = Reviewer::start(&cluster.pki);
    let named =
        object!({"matchConditions": [{"name": "c", "expression": "object.metadata.name.startsWith('p')"}]});
    let add = patching(r#"[{"op":"add","path":"/data/added","value":"yes"}]"#);
    configure(&cluster, MUTATING, "m", &reviewer.at(&add), &named);
    configure(&cluster, VALIDATING, "v", &reviewer.at("/validate"), &named);
    let refused = soon(&cluster, MAPS, &map("p", "bad"), 403);
    let why = "admission webhook \"v.example.com\" denied the request: no";
    assert_eq!(read(&refused).str_at(&["message"]), why);
    let changed = cluster.create(MAPS, &map("p", "good"));
    assert_eq!(changed.get("data"), &object!({"k": "good", "added": "yes"}));
    // The condition leaves out other names.
    let other = cluster.create(MAPS, &map("other", "bad"));
    assert_eq!(other.get("data"), &object!({"k": "bad"}));
}

#[test]
fn webhooks_are_asked_about_deletions() {
    let cluster = Cluster::start();
    let reviewer = Reviewer::start(&cluster.pki);
    let rule = object!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["configmaps"]});
    let deletions = object!({"rules": [rule], "objectSelector": {"matchLabels": {"kept": "yes"}}});
    configure(&cluster, MUTATING, "m", &reviewer.at("/m"), &deletions);
    configure(&cluster, VALIDATING, "v", &reviewer.at("/v"), &deletions);
    for name in ["a", "b", "c"] {
        let mut one = map(name, "1");
        one.set(&["metadata", "labels"], object!({"kept": (if name == "c" { "no" } else { "yes" })}));
        cluster.create(MAPS, &one);
    }
    let dry = || cluster.client.send("DELETE", &format!("{MAPS}/a?dryRun=All"), None).unwrap();
    wait_until("both are asked", SOON, || {
        assert_eq!(dry().code, 200);
        !reviewer.asked("/m").is_empty() && !reviewer.asked("/v").is_empty()
    })
    .unwrap();
    let all = format!("{MAPS}?labelSelector=kept");
    assert_eq!(cluster.client.send("DELETE", &all, None).unwrap().code, 200);
    for path in ["/m", "/v"] {
        let asked = reviewer.asked(path);
        let told: Vec<(&str, &str, bool)> = asked
            .iter()
            .map(|r| (r.str_at(&["operation"]), r.get("oldObject").name(), r.get("object").is_null()))
            .collect();
        assert_eq!(told, [("DELETE", "a", true), ("DELETE", "b", true)], "{path}");
        // A collection is deleted, which has no name.
        assert!(asked[0].get("name").is_null());
        assert_eq!(asked[0].str_at(&["options", "kind"]), "DeleteOptions");
    }
    // There is nothing to patch.
    remove(&cluster, MUTATING, "m");
    cluster.create(MAPS, &object!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d", "labels": {"kept": "yes"}}}));
    let add = patching(r#"[{"op":"add","path":"/data","value":{}}]"#);
    configure(&cluster, MUTATING, "m", &reviewer.at(&add), &deletions);
    let one = format!("{MAPS}/d?dryRun=All");
    let send = || cluster.client.send("DELETE", &one, None).unwrap();
    wait_until("the patch is refused", SOON, || send().code == 500).unwrap();
    let why = "Internal error occurred: admission webhook \"m.example.com\" attempted to modify the object, which is not supported for this operation";
    assert_eq!(read(&send()).str_at(&["message"]), why);
}

#[test]
fn failures_refuse_unless_they_are_ignored() {
    let cluster = Cluster::start();
    let reviewer = Reviewer::start(&cluster.pki);
    let dead = object!({"url": (format!("https://127.0.0.1:{}/dead", free_port().unwrap()))});
    let at = |path: &str| reviewer.at(path);
    let post = |path: &str| {
        format!("failed to call webhook: Post \"https://127.0.0.1:{}{path}?timeout=1s\": ", reviewer.port)
    };
    let invalid = |why: &str| format!("received invalid webhook response: {why}");
    let cases = [
        ("dead", dead, "failed to call webhook: Post \"https://127.0.0.1:".to_owned()),
        ("slow", at("/slow"), format!("{}context deadline exceeded", post("/slow"))),
        ("huge", at("/huge"), "failed to call webhook: the answer could not be read: ".to_owned()),
        ("text", at("/text"), "failed to call webhook: the answer is no JSON: ".to_owned()),
        (
            "broken",
            at("/broken"),
            "failed to call webhook: an error on the server (\"broken\") has prevented the request from succeeding"
                .to_owned(),
        ),
        ("missing", at("/missing"), "failed to call webhook: the server could not find the requested resource".to_owned()),
        ("uid", at("/uid"), invalid("expected response.uid=")),
        (
            "kind",
            at("/kind"),
            invalid("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1, Kind=Pod"),
        ),
        ("absent", at("/absent"), invalid("webhook response was absent")),
        ("half", at("/half"), invalid("webhook returned response.patch but not response.patchType")),
        ("shape", at(&patching("{}")), "received undecodable patch in webhook response: ".to_owned()),
    ];
    for (name, client, why) in cases {
        let strict = object!({"timeoutSeconds": 1, "failurePolicy": "Fail"});
        configure(&cluster, MUTATING, name, &client, &strict);
        let refused = read(&soon(&cluster, MAPS, &map("p", "1"), 500));
        let want = format!("Internal error occurred: failed calling webhook \"{name}.example.com\": {why}");
        let told = refused.str_at(&["message"]);
        assert!(told.starts_with(&want), "{told}\n{want}");
        remove(&cluster, MUTATING, name);
        // The same is ignored where the webhook says so.
        let lenient = object!({"timeoutSeconds": 1, "failurePolicy": "Ignore"});
        configure(&cluster, MUTATING, name, &client, &lenient);
        soon(&cluster, MAPS, &map("p", "1"), 201);
        remove(&cluster, MUTATING, name);
    }
    // What the server itself cannot do with a patch is not ignored.
    let lenient = object!({"failurePolicy": "Ignore"});
    let patch = patching(r#"[{"op":"remove","path":"/data/nothing"}]"#);
    configure(&cluster, MUTATING, "patch", &reviewer.at(&patch), &lenient);
    soon(&cluster, MAPS, &map("p", "1"), 500);
}

#[test]
fn webhooks_are_asked_again_when_others_change_the_object() {
    let cluster = Cluster::start();
    let reviewer = Reviewer::start(&cluster.pki);
    let again = object!({"reinvocationPolicy": "IfNeeded"});
    let last = patching(r#"[{"op":"add","path":"/data/last","value":"yes"}]"#);
    configure(&cluster, MUTATING, "a", &reviewer.at("/again"), &again);
    configure(&cluster, MUTATING, "b", &reviewer.at("/once"), &object!({}));
    configure(&cluster, MUTATING, "c", &reviewer.at(&last), &again);
    acts(&cluster, &reviewer, &last, &map("p", "1"));
    for path in ["/again", "/once", &last] {
        reviewer.asked(path);
    }
    cluster.create(MAPS, &map("p", "1"));
    let seen = |path: &str| -> Vec<bool> {
        reviewer.asked(path).iter().map(|r| !r.at(&["object", "data", "last"]).is_null()).collect()
    };
    assert_eq!((seen("/again"), seen("/once"), seen(&last)), (vec![false, true], vec![false], vec![false]));
}

#[test]
fn webhooks_see_the_version_they_ask_for() {
    let cluster = Cluster::start();
    let reviewer = Reviewer::start(&cluster.pki);
    let rule = |version: &str| object!({"apiGroups": ["autoscaling"], "apiVersions": [version], "operations": ["CREATE"], "resources": ["horizontalpodautoscalers"]});
    let of = |version: &str, policy: &str| object!({"rules": [(rule(version))], "matchPolicy": policy});
    configure(&cluster, VALIDATING, "exact", &reviewer.at("/exact"), &of("v2", "Exact"));
    let path = patching(
        r#"[{"op":"replace","path":"/spec/metrics/0/resource/target/averageUtilization","value":70}]"#,
    );
    configure(&cluster, MUTATING, "equivalent", &reviewer.at(&path), &of("v2", "Equivalent"));
    let autoscaler = object!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}
    });
    let autoscalers = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let dry = format!("{autoscalers}?dryRun=All");
    let send = || read(&cluster.send("POST", &dry, JSON, &autoscaler.to_string()));
    let target = |o: &Value| o.at(&["spec", "targetCPUUtilizationPercentage"]).as_i64();
    let result = wait_until("the patch is made", SOON, || target(&send()) == Some(70));
    result.unwrap_or_else(|e| panic!("{e}: {}", send()));
    let asked = reviewer.asked(&path).pop().unwrap();
    assert_eq!(asked.str_at(&["kind", "version"]), "v2");
    assert_eq!(asked.str_at(&["resource", "version"]), "v2");
    assert_eq!(asked.str_at(&["requestKind", "version"]), "v1");
    assert_eq!(asked.str_at(&["object", "apiVersion"]), "autoscaling/v2");
    assert_eq!(reviewer.asked("/exact"), []);
}

#[test]
fn conditions_and_selectors_decide_who_is_asked() {
    let cluster = Cluster::start();
    let reviewer = Reviewer::start(&cluster.pki);
    let when = |expression: &str| object!({"matchConditions": [{"name": "c", "expression": expression}]});
    let may = "authorizer.group('').resource('configmaps').namespace('default').check('create').allowed()";
    let nobody = "authorizer.serviceAccount('default', 'nobody').group('').resource('configmaps').check('get').allowed()";
    configure(&cluster, VALIDATING, "nobody", &reviewer.at("/nobody"), &when(nobody));
    configure(
        &cluster,
        VALIDATING,
        "labelled",
        &reviewer.at("/labelled"),
        &object!({"objectSelector": {"matchLabels": {"a": "b"}}}),
    );
    configure(&cluster, VALIDATING, "may", &reviewer.at("/may"), &when(may));
    acts(&cluster, &reviewer, "/may", &map("p", "1"));
    assert_eq!((reviewer.asked("/nobody"), reviewer.asked("/labelled")), (vec![], vec![]));
    let mut labelled = map("p", "1");
    labelled.set(&["metadata", "labels"], object!({"a": "b"}));
    cluster.create(MAPS, &labelled);
    // Without the label there is still what has it.
    let one = format!("{MAPS}/p");
    let patched =
        cluster.send("PATCH", &one, "application/merge-patch+json", r#"{"metadata":{"labels":null}}"#);
    assert_eq!(patched.code, 200);
    let operations: Vec<String> =
        reviewer.asked("/labelled").iter().map(|r| r.str_at(&["operation"]).to_owned()).collect();
    assert_eq!(operations, ["CREATE", "UPDATE"]);
    cluster.send("PATCH", &one, "application/merge-patch+json", r#"{"data":{"k":"2"}}"#);
    assert_eq!(reviewer.asked("/labelled"), []);
    // A condition that cannot be decided refuses.
    configure(&cluster, VALIDATING, "wrong", &reviewer.at("/wrong"), &when("object.nope == 1"));
    let refused = read(&soon(&cluster, MAPS, &map("q", "1"), 403));
    let why = "expression 'object.nope == 1' resulted in error: no such key: nope";
    assert!(refused.str_at(&["message"]).ends_with(why), "{refused}");
}

#[test]
fn services_answer_reviews() {
    let cluster = Cluster::start();
    let reviewer = Reviewer::start(&cluster.pki);
    configure(&cluster, VALIDATING, "s", &reviewer.service("/deny"), &object!({"timeoutSeconds": 3}));
    let refused = read(&soon(&cluster, MAPS, &map("p", "1"), 500));
    let port = reviewer.port;
    let shown =
        format!("Post \"https://hook.default.svc:{port}/deny?timeout=3s\": service \"hook\" not found");
    assert!(refused.str_at(&["message"]).ends_with(&shown), "{refused}");
    let service = object!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"}
    });
    cluster.create("/api/v1/namespaces/default/services", &service);
    let refused = read(&soon(&cluster, MAPS, &map("p", "1"), 403));
    assert_eq!(refused.str_at(&["message"]), "admission webhook \"s.example.com\" denied the request: no");
}

#[test]
fn older_reviews_are_read_with_less_rigour() {
    let cluster = Cluster::start();
    let reviewer = Reviewer::start(&cluster.pki);
    let beta = object!({"admissionReviewVersions": ["v2", "v1beta1", "v1"]});
    configure(&cluster, MUTATING, "b", &reviewer.at("/beta"), &beta);
    acts(&cluster, &reviewer, "/beta", &map("p", "1"));
    let changed = cluster.create(MAPS, &map("p", "1"));
    assert_eq!(changed.str_at(&["data", "beta"]), "yes");
}

#[test]
fn nobody_is_asked_about_webhooks_and_policies() {
    let cluster = Cluster::start();
    let reviewer = Reviewer::start(&cluster.pki);
    let rule = object!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]});
    configure(&cluster, VALIDATING, "all", &reviewer.at("/deny"), &object!({"rules": [rule]}));
    soon(&cluster, MAPS, &map("p", "1"), 403);
    configure(&cluster, MUTATING, "more", &reviewer.at("/more"), &object!({}));
    remove(&cluster, VALIDATING, "all");
    soon(&cluster, MAPS, &map("p", "1"), 201);
}

#[test]
fn names_are_made_after_webhooks_have_changed_objects() {
    let cluster = Cluster::start();
    let reviewer = Reviewer::start(&cluster.pki);
    let start = patching(r#"[{"op":"replace","path":"/metadata/generateName","value":"changed-"}]"#);
    configure(&cluster, MUTATING, "m", &reviewer.at(&start), &object!({}));
    configure(&cluster, VALIDATING, "v", &reviewer.at("/v"), &object!({}));
    let mut unnamed = map("", "1");
    unnamed.set(&["metadata"], object!({"generateName": "first-"}));
    let send = || read(&cluster.send("POST", &format!("{MAPS}?dryRun=All"), JSON, &unnamed.to_string()));
    wait_until("the webhook acts", SOON, || send().name().starts_with("changed-")).unwrap();
    wait_until("both webhooks act", SOON, || {
        send();
        !reviewer.asked("/v").is_empty()
    })
    .unwrap();
    reviewer.asked(&start);
    let made = send();
    let (changed, seen) = (reviewer.asked(&start), reviewer.asked("/v"));
    assert_eq!((changed[0].str_at(&["name"]), changed[0].get("object").name()), ("", ""));
    assert_eq!((seen[0].str_at(&["name"]), seen[0].get("object").name()), (made.name(), made.name()));
}
