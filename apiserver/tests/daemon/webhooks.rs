//! What webhooks make of writes.

use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use super::*;

/// A server that answers documents with what `answer` makes of the path and the document.
pub(super) fn serve(pki: &Pki, answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> u16 {
    let tls = Arc::new(serve::Tls::from_files(&pki.file("server.crt"), &pki.file("server.key")).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let answer = answer.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let document = api::json::decode(&body).map(|d| d.value).unwrap_or_default();
                    let answer = answer(&path, &document).to_json();
                    Ok::<_, Infallible>(http::Response::new(serve::full(bytes::Bytes::from(answer))))
                }
            });
            serve::Server::https(tls).serve(listener, service, CancellationToken::new()).await;
        });
    });
    port
}

/// A webhook that adds a member to maps at `/mutate`, and refuses maps with the value `bad` elsewhere.
fn serve_reviews(pki: &Pki) -> u16 {
    serve(pki, |path, review| answer(review, path == "/mutate"))
}

fn answer(review: &Value, mutates: bool) -> Value {
    let request = review.get("request");
    let mut response = object!({"uid": (request.str_at(&["uid"])), "allowed": true});
    if mutates {
        let patch = r#"[{"op":"add","path":"/data/added","value":"yes"}]"#;
        response.set(&["patch"], STANDARD.encode(patch));
        response.set(&["patchType"], "JSONPatch");
        response.set(&["warnings"], vec!["changed"]);
    } else if request.str_at(&["object", "data", "k"]) == "bad" {
        response.set(&["allowed"], false);
        response.set(&["status"], object!({"code": 403, "reason": "Forbidden", "message": "no"}));
    }
    object!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn configure(cluster: &Cluster, kind: &str, url: &str, failure: &str) {
    let bundle = STANDARD.encode(std::fs::read(cluster.pki.file("ca.crt")).unwrap());
    let rule = object!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]});
    let configuration = object!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "t"},
        "webhooks": [{
            "name": "w.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "rules": [rule],
            "failurePolicy": failure, "timeoutSeconds": 2, "clientConfig": {"url": url, "caBundle": bundle},
            "matchConditions": [{"name": "c", "expression": "object.metadata.name.startsWith('p')"}],
        }]
    });
    let path = format!("/apis/admissionregistration.k8s.io/v1/{}s", kind.to_ascii_lowercase());
    cluster.create(&path, &configuration);
}

#[test]
fn webhooks_change_and_refuse_what_matches() {
    let cluster = Cluster::start();
    let port = serve_reviews(&cluster.pki);
    configure(&cluster, "MutatingWebhookConfiguration", &format!("https://127.0.0.1:{port}/mutate"), "Fail");
    let url = format!("https://127.0.0.1:{port}/validate");
    configure(&cluster, "ValidatingWebhookConfiguration", &url, "Fail");
    let refused = policies::soon(&cluster, MAPS, &map("p", "bad"), 403);
    let why = "admission webhook \"w.example.com\" denied the request: no";
    assert_eq!(read(&refused).str_at(&["message"]), why);
    let changed = cluster.create(MAPS, &map("p", "good"));
    assert_eq!(changed.get("data"), &object!({"k": "good", "added": "yes"}));
    // The condition leaves out other names.
    let other = cluster.create(MAPS, &map("other", "bad"));
    assert_eq!(other.get("data"), &object!({"k": "bad"}));
}

#[test]
fn webhooks_that_do_not_answer_refuse_unless_that_is_ignored() {
    let cluster = Cluster::start();
    let url = format!("https://127.0.0.1:{}/", free_port().unwrap());
    configure(&cluster, "MutatingWebhookConfiguration", &url, "Ignore");
    configure(&cluster, "ValidatingWebhookConfiguration", &url, "Fail");
    let refused = read(&policies::soon(&cluster, MAPS, &map("p", "1"), 500));
    let why = "Internal error occurred: failed calling webhook \"w.example.com\": failed to call webhook: ";
    assert!(refused.str_at(&["message"]).starts_with(why), "{refused}");
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/t";
    assert_eq!(cluster.client.send("DELETE", path, None).unwrap().code, 200);
    policies::soon(&cluster, MAPS, &map("p", "1"), 201);
}
