//! A server of webhooks that does what its path says, and remembers what it was asked.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use super::*;

type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// The server.
pub(super) struct Reviewer {
    pub(super) port: u16,
    asked: Asked,
    bundle: String,
}

impl Reviewer {
    /// Starts to answer.
    pub(super) fn start(pki: &Pki) -> Self {
        let tls = Arc::new(serve::Tls::from_files(&pki.file("server.crt"), &pki.file("server.key")).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Asked::default();
        let log = asked.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let log = log.clone();
                    async move { Ok::<_, Infallible>(answer(request, &log).await) }
                });
                serve::Server::https(tls).serve(listener, service, CancellationToken::new()).await;
            });
        });
        Self { port, asked, bundle: STANDARD.encode(std::fs::read(pki.file("ca.crt")).unwrap()) }
    }

    /// A client configuration for a path.
    pub(super) fn at(&self, path: &str) -> Value {
        object!({"url": (format!("https://127.0.0.1:{}{path}", self.port)), "caBundle": (self.bundle.as_str())})
    }

    /// A client configuration for the Service `hook`.
    pub(super) fn service(&self, path: &str) -> Value {
        let service =
            object!({"name": "hook", "namespace": "default", "port": (i64::from(self.port)), "path": path});
        object!({"service": service, "caBundle": (self.bundle.as_str())})
    }

    /// The requests that it has been asked about at a path, and forgets them.
    pub(super) fn asked(&self, path: &str) -> Vec<Value> {
        let mut asked = self.asked.lock().unwrap();
        let (here, others) = asked.drain(..).partition(|(p, _)| p == path);
        *asked = others;
        let here: Vec<(String, Value)> = here;
        here.into_iter().map(|(_, review)| review.get("request").clone()).collect()
    }
}

/// The path that patches with these operations.
pub(super) fn patching(operations: &str) -> String {
    format!("/patch/{}", URL_SAFE_NO_PAD.encode(operations))
}

async fn answer(request: http::Request<hyper::body::Incoming>, log: &Asked) -> http::Response<serve::Body> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review = api::json::decode(&body).unwrap().value;
    log.lock().unwrap().push((path.clone(), review.clone()));
    let send = |code: u16, body: String| {
        http::Response::builder().status(code).body(serve::full(bytes::Bytes::from(body))).unwrap()
    };
    if review.kind() == "ConversionReview" {
        return send(200, converted(&review).to_string());
    }
    let mut out = object!({"apiVersion": (review.api_version()), "kind": "AdmissionReview"});
    out.set(
        &["response"],
        object!({"uid": (review.str_at(&["request", "uid"])), "allowed": true, "status": {"code": 403, "message": "no"}}),
    );
    if let Some(operations) = path.strip_prefix("/patch/") {
        let operations = URL_SAFE_NO_PAD.decode(operations).unwrap();
        out.set(&["response", "patch"], STANDARD.encode(operations));
        out.set(&["response", "patchType"], "JSONPatch");
    }
    match path.as_str() {
        "/deny" => out.set(&["response", "allowed"], false),
        "/validate" if review.str_at(&["request", "object", "data", "k"]) == "bad" => {
            out.set(&["response", "allowed"], false);
        }
        "/warn" => out.set(&["response", "warnings"], vec!["w".repeat(5000), "short".to_owned()]),
        "/slow" => tokio::time::sleep(Duration::from_secs(20)).await,
        "/huge" => return send(200, "x".repeat(20 << 20)),
        "/text" => return send(200, "hello".to_owned()),
        "/broken" => return send(500, "broken".to_owned()),
        "/missing" => return send(404, String::new()),
        "/uid" => out.set(&["response", "uid"], "other"),
        "/kind" => out.set(&["kind"], "Pod"),
        "/absent" => out = object!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}),
        "/half" => out.set(&["response", "patch"], "W10="),
        "/beta" => {
            // What v1beta1 asks of an answer is less.
            out.remove_at(&["kind"]);
            out.set(&["response", "uid"], "other");
            out.set(
                &["response", "patch"],
                STANDARD.encode(r#"[{"op":"add","path":"/data/beta","value":"yes"}]"#),
            );
        }
        _ => {}
    }
    send(200, out.to_string())
}

/// The answer to a review that converts between `hostPort` of v1 and `host` and `port` of later versions.
fn converted(review: &Value) -> Value {
    let to = review.str_at(&["request", "desiredAPIVersion"]);
    let convert = |object: &Value| {
        let mut object = object.clone();
        if to.ends_with("/v1") {
            let (host, port) = (object.remove_at(&["host"]).unwrap(), object.remove_at(&["port"]).unwrap());
            object.set(&["hostPort"], format!("{}:{}", host.as_str().unwrap(), port.as_str().unwrap()));
        } else {
            let both = object.remove_at(&["hostPort"]).unwrap();
            let (host, port) = both.as_str().unwrap().split_once(':').unwrap();
            object.set(&["host"], host);
            object.set(&["port"], port);
        }
        object.set(&["apiVersion"], to);
        object
    };
    let objects: Vec<Value> = review.array_at(&["request", "objects"]).iter().map(convert).collect();
    let uid = review.str_at(&["request", "uid"]);
    object!({
        "apiVersion": (review.api_version()), "kind": "ConversionReview",
        "response": {"uid": uid, "result": {"status": "Success"}, "convertedObjects": objects},
    })
}
