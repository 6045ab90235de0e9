//! Encryption by a plug-in.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::encryption::{configure, flags, secret, soon, stored};
use super::*;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

/// The question to decrypt or to encrypt: both have bytes first.
#[derive(Clone, PartialEq, Message)]
struct Question {
    #[prost(bytes = "vec", tag = "1")]
    bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(bytes = "vec", tag = "1")]
    bytes: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(map = "string, bytes", tag = "3")]
    annotations: HashMap<String, Vec<u8>>,
}

/// A plug-in whose key is the number of its generation; it ends when it is dropped.
struct Plugin {
    key: Arc<AtomicUsize>,
    decryptions: Arc<AtomicUsize>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn turned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|b| b ^ 0x55).collect()
}

impl Plugin {
    fn start(socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let (key, decryptions) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicUsize::new(0)));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _entered = runtime.enter();
            tokio::net::UnixListener::bind(socket).unwrap()
        };
        let state = (key.clone(), decryptions.clone());
        let tracker = tokio_util::task::TaskTracker::new();
        let connections = tracker.clone();
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                let service = hyper::service::service_fn(move |request| answer(state.clone(), request));
                connections.spawn(async move {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        };
        tracker.spawn_on(accept, runtime.handle());
        Self { key, decryptions, runtime: Some(runtime) }
    }
}

async fn answer(
    (key, decryptions): (Arc<AtomicUsize>, Arc<AtomicUsize>),
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<tonic::body::Body>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let id = key.load(Ordering::Relaxed).to_string();
    if path == "/v2.KeyManagementService/Status" {
        let status = StatusResponse { version: "v2".into(), healthz: "ok".into(), key_id: id };
        let service = service_fn(move |_: tonic::Request<()>| {
            std::future::ready(Ok(tonic::Response::new(status.clone())))
        });
        return Ok(Grpc::new(ProstCodec::<StatusResponse, ()>::default()).unary(service, request).await);
    }
    let encrypts = path == "/v2.KeyManagementService/Encrypt";
    if !encrypts {
        decryptions.fetch_add(1, Ordering::Relaxed);
    }
    let service = service_fn(move |question: tonic::Request<Question>| {
        let bytes = turned(&question.into_inner().bytes);
        let annotations = HashMap::from([("note.example.com".to_owned(), b"x".to_vec())]);
        let answer = match encrypts {
            true => Answer { bytes, key_id: id.clone(), annotations },
            false => Answer { bytes, ..Answer::default() },
        };
        std::future::ready(Ok::<_, tonic::Status>(tonic::Response::new(answer)))
    });
    Ok(Grpc::new(ProstCodec::<Answer, Question>::default()).unary(service, request).await)
}

#[test]
fn a_plug_in_encrypts_seeds_and_may_be_away() {
    let mut plugin = None;
    let mut cluster = Cluster::start_with(|pki| {
        let socket = pki.file("kms.sock");
        plugin = Some(Plugin::start(&socket));
        let kms = format!(
            "kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}', timeout: 2s}}",
            socket.display()
        );
        configure(pki, &[kms, "identity: {}".to_owned()]);
        flags(pki)
    });
    let running = plugin.take().unwrap();
    assert_eq!(cluster.get("/healthz/kms-providers").code, 200);
    for name in ["a", "b"] {
        cluster.create(SECRETS, &secret(name));
        let raw = stored(&cluster, &format!("/registry/secrets/default/{name}"));
        assert!(raw.starts_with(b"k8s:enc:kms:v2:vault:"));
        assert!(!raw.windows(6).any(|w| w == b"hidden"));
    }
    cluster.kill();
    cluster.run();
    assert_eq!(names(&cluster.get(SECRETS)), ["a", "b"]);
    // Both have the same seed, which is decrypted once.
    assert_eq!(running.decryptions.load(Ordering::Relaxed), 1);
    // Without the plug-in the server starts, and serves everything else.
    cluster.kill();
    drop(running);
    let log = cluster.dir.path().join("server.log");
    let server = Process::start(DAEMON, &cluster.arguments, &log).unwrap();
    cluster.server = Some(server);
    let served = || cluster.client.send("GET", MAPS, None).is_ok_and(|r| r.code == 200);
    wait_until("maps are served", SOON, served).unwrap();
    let told = cluster.get(SECRETS);
    assert_eq!(told.code, 500);
    assert!(read(&told).str_at(&["message"]).contains("failed to decrypt DEK"), "{}", told.body);
    assert_eq!(cluster.get("/healthz/kms-providers").code, 500);
    let refused = cluster.send("POST", SECRETS, JSON, &secret("c").to_string());
    assert_eq!(refused.code, 500);
    // It comes back, with another key.
    let again = Plugin::start(&cluster.pki.file("kms.sock"));
    again.key.store(2, Ordering::Relaxed);
    soon(&cluster, SECRETS, 200);
    assert_eq!(names(&cluster.get(SECRETS)), ["a", "b"]);
    soon(&cluster, "/healthz/kms-providers", 200);
    cluster.create(SECRETS, &secret("c"));
}
