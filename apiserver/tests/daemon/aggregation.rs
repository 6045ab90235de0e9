//! Groups that another server serves.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use super::*;

const GROUP: &str = "ext.example.com";
pub(super) const BASE: &str = "/apis/ext.example.com/v1";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// What the stand-in knows besides the list of its resources.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Age {
    /// Aggregated discovery and version 3 of OpenAPI.
    New,
    /// Neither.
    Old,
}

/// A server of the group, which answers most requests with what it was sent.
pub(super) fn extension(pki: &Pki, age: Age) -> u16 {
    let (cert, key) = (pki.file("extension.crt"), pki.file("extension.key"));
    let tls = Arc::new(serve::Tls::from_files(&cert, &key).unwrap());
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let gate = Arc::new(tokio::sync::Semaphore::new(0));
            let waiting = Arc::new(AtomicUsize::new(0));
            let service = service_fn(move |request: Request<Incoming>| {
                let (gate, waiting) = (gate.clone(), waiting.clone());
                async move {
                    // Slow requests are answered when somebody lets them.
                    if request.uri().path().ends_with("/slow") {
                        waiting.fetch_add(1, Ordering::SeqCst);
                        gate.acquire().await.unwrap().forget();
                        waiting.fetch_sub(1, Ordering::SeqCst);
                    }
                    if request.uri().path().ends_with("/waiting") {
                        return Ok(json(&Value::from(waiting.load(Ordering::SeqCst) as i64)));
                    }
                    if request.uri().path().ends_with("/release") {
                        gate.add_permits(1);
                    }
                    Ok::<_, Infallible>(answer(request, age))
                }
            });
            serve::Server::https(tls).serve(listener, service, CancellationToken::new()).await;
        });
    });
    port
}

fn json(value: &Value) -> http::Response<serve::Body> {
    serve::json(StatusCode::OK, value.to_json())
}

fn answer(mut request: Request<Incoming>, age: Age) -> http::Response<serve::Body> {
    let path = request.uri().path().to_owned();
    let resources = object!([{"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get", "list"]}]);
    match path.as_str() {
        BASE => json(
            &object!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "ext.example.com/v1", "resources": resources}),
        ),
        "/apis" if age == Age::New => {
            let thing = object!({"resource": "things", "responseKind": {"group": "", "version": "", "kind": "Thing"}, "scope": "Namespaced", "singularResource": "thing", "verbs": ["get"]});
            let list = object!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": [
                {"metadata": {"name": GROUP}, "versions": [{"version": "v1", "resources": [thing]}]},
                {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": []}]},
            ]});
            let mut response = json(&list);
            response.headers_mut().insert("content-type", AGGREGATED.parse().unwrap());
            response
        }
        "/openapi/v2" => json(&object!({
            "swagger": "2.0",
            "paths": {"/apis/ext.example.com/v1/things": {"get": {"schema": {"$ref": "#/definitions/com.example.Thing"}}}, "/apis/apps/v1/x": {}},
            "definitions": {"com.example.Thing": {"type": "object", "description": "A thing."}},
        })),
        "/openapi/v3" if age == Age::New => {
            let url = |path: &str| object!({"serverRelativeURL": (format!("/openapi/v3/{path}?hash=1"))});
            json(
                &object!({"paths": {"apis/ext.example.com/v1": (url("apis/ext.example.com/v1")), "apis/apps/v1": (url("apis/apps/v1"))}}),
            )
        }
        "/openapi/v3/apis/ext.example.com/v1" => json(&object!({"openapi": "3.0.0", "theirs": true})),
        path if path.ends_with("/moved") => {
            let mut response = http::Response::new(serve::empty());
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert("location", "https://elsewhere.example.com/".parse().unwrap());
            response
        }
        path if path.ends_with("/watched") => {
            let first = futures::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from("first\n"))]);
            http::Response::new(serve::stream(first.chain(futures::stream::pending())))
        }
        path if path.ends_with("/upgraded") => {
            let mut response = http::Response::new(serve::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
            tokio_util::task::TaskTracker::new().spawn(async move {
                let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
                hyper_util::rt::TokioIo::new(upgraded).write_all(b"hello\n").await.unwrap();
            });
            response
        }
        path if path.starts_with(BASE) => {
            let mut headers = Value::object();
            for name in request.headers().keys() {
                let all = request.headers().get_all(name).iter().map(|v| v.to_str().unwrap().to_owned());
                headers.set(&[name.as_str()], all.collect::<Vec<_>>());
            }
            json(&object!({"path": (request.uri().to_string()), "headers": headers}))
        }
        _ => serve::text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

pub(super) fn start(extra: &[&str]) -> Cluster {
    Cluster::start_with(|pki| {
        let file = |flag: &str, name: &str| format!("--{flag}={}", pki.file(name).display());
        let front = [file("proxy-client-cert-file", "front.crt"), file("proxy-client-key-file", "front.key")];
        front.into_iter().chain(extra.iter().map(|e| (*e).to_owned())).collect()
    })
}

/// A Service that leads to a port of this machine.
pub(super) fn service(cluster: &Cluster, port: u16) {
    let service = object!({
        "metadata": {"name": "extension"},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": (i64::from(port))}]},
    });
    cluster.create("/api/v1/namespaces/default/services", &service);
}

pub(super) fn register(cluster: &Cluster, port: i64, trust: Value) {
    let mut spec = object!({
        "group": GROUP, "version": "v1", "groupPriorityMinimum": 17_790, "versionPriority": 10,
        "service": {"namespace": "default", "name": "extension", "port": port},
    });
    for (key, value) in trust.as_object().unwrap().iter() {
        spec.set(&[key], value);
    }
    cluster.create(
        "/apis/apiregistration.k8s.io/v1/apiservices",
        &object!({"metadata": {"name": "v1.ext.example.com"}, "spec": spec}),
    );
}

pub(super) fn trusted(cluster: &Cluster) -> Value {
    object!({"caBundle": (STANDARD.encode(std::fs::read(cluster.pki.file("ca.crt")).unwrap()))})
}

/// The condition Available, once its reason is that.
pub(super) fn available(cluster: &Cluster, reason: &str) -> Value {
    let mut last = Value::Null;
    wait_until(&format!("the condition {reason}"), SOON, || {
        let service = read(&cluster.get("/apis/apiregistration.k8s.io/v1/apiservices/v1.ext.example.com"));
        last = service.array_at(&["status", "conditions"]).first().cloned().unwrap_or_default();
        last.str_at(&["reason"]) == reason
    })
    .unwrap_or_else(|e| panic!("{e}: {last}"));
    last
}

#[test]
fn requests_reach_the_other_server_with_the_name_of_who_sends_them() {
    let cluster = start(&[]);
    let port = extension(&cluster.pki, Age::New);
    service(&cluster, port);
    register(&cluster, i64::from(port), trusted(&cluster));
    assert_eq!(available(&cluster, "Passed").str_at(&["message"]), "all checks passed");
    let path = format!("{BASE}/namespaces/default/things/a?x=1");
    let liar = cluster.client.with(&[
        ("X-Remote-Group", "liars"),
        ("X-Remote-Extra-Scopes", "all"),
        ("Impersonate-User", "jane"),
        ("Impersonate-Group", "readers"),
        ("X-Kept", "yes"),
    ]);
    // The user that is impersonated may not, by this server's own rules.
    assert_eq!(liar.send("GET", &path, None).unwrap().code, 403);
    let liar = cluster.client.with(&[
        ("X-Remote-Group", "liars"),
        ("X-Remote-Extra-Scopes", "all"),
        ("X-Kept", "yes"),
    ]);
    let got = liar.send("GET", &path, None).unwrap();
    assert_eq!(got.code, 200, "{}", got.body);
    let got = read(&got);
    assert!(got.str_at(&["path"]).ends_with(&path), "{got}");
    let header = |name: &str| got.array_at(&["headers", name]).to_vec();
    assert_eq!(header("x-remote-user"), [Value::from("admin")]);
    assert_eq!(
        header("x-remote-group"),
        [Value::from("system:masters"), Value::from("system:authenticated")]
    );
    assert_eq!(header("x-remote-extra-scopes"), [Value::Null; 0]);
    assert_eq!(header("x-kept"), [Value::from("yes")]);
    assert_eq!(header("audit-id").len(), 1);
    assert_eq!(header("x-forwarded-for"), [Value::from("127.0.0.1")]);
    // Redirects are not followed, nor handed on.
    assert_eq!(cluster.get(&format!("{BASE}/moved")).code, 502);
    // Streams pass as they come, and upgrades too.
    let mut lines = cluster.client.lines(&format!("{BASE}/watched?watch=1")).unwrap();
    assert_eq!(lines.next_line().unwrap().unwrap(), "first");
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "eA=="),
        ("Sec-WebSocket-Version", "13"),
    ];
    let upgraded = cluster.client.with(&upgrade).send("GET", &format!("{BASE}/upgraded"), None).unwrap();
    assert_eq!((upgraded.code, upgraded.body.as_str()), (101, "hello\n"));
    // What only looks like the group is not.
    for path in ["/apis/ext.example.com/v2/things", "/apis//ext.example.com/v1/things"] {
        assert_eq!(cluster.get(path).code, 404, "{path}");
    }
    // Odd paths go to the server of the group as they are, and nowhere else.
    for odd in ["/../../../api/v1/secrets", "/%2e%2e/%2e%2e/x", "//things/%00?y=%zz", "/things/..;/a"] {
        let path = format!("{BASE}{odd}");
        let got = read(&cluster.get(&path));
        assert!(got.str_at(&["path"]).ends_with(&path), "{path}: {got}");
    }
    let large = "x".repeat(2 << 20);
    let refused = cluster.client.with(&[("X-Large", &large)]).send("GET", &path, None);
    assert!(refused.is_err() || refused.is_ok_and(|r| r.code >= 400));
    assert_eq!(cluster.get(&path).code, 200);
}

#[test]
fn documents_show_what_the_other_server_serves() {
    let cluster = start(&[]);
    let port = extension(&cluster.pki, Age::New);
    service(&cluster, port);
    register(&cluster, i64::from(port), trusted(&cluster));
    available(&cluster, "Passed");
    let groups = read(&cluster.get("/apis"));
    let names: Vec<&str> = groups.array_at(&["groups"]).iter().map(|g| g.str_at(&["name"])).collect();
    assert_eq!(names[..4], ["apiregistration.k8s.io", "apps", GROUP, "events.k8s.io"]);
    assert_eq!(
        read(&cluster.get("/apis/ext.example.com")).str_at(&["preferredVersion", "groupVersion"]),
        "ext.example.com/v1"
    );
    assert_eq!(read(&cluster.get(BASE)).array_at(&["resources"]).len(), 1);
    let aggregated = cluster.client.with(&[("Accept", AGGREGATED)]);
    let version = |at: &str| {
        let all = read(&aggregated.send("GET", at, None).unwrap());
        let group = all.array_at(&["items"]).iter().find(|g| g.name() == GROUP).cloned().unwrap();
        group.array_at(&["versions"])[0].clone()
    };
    wait_until("the discovery is fresh", SOON, || version("/apis").str_at(&["freshness"]) == "Current")
        .unwrap();
    assert_eq!(version("/apis").array_at(&["resources"])[0].str_at(&["resource"]), "things");
    // The other server says nothing about groups that are not its own.
    let apps = read(&aggregated.send("GET", "/apis", None).unwrap());
    let apps = apps.array_at(&["items"]).iter().find(|g| g.name() == "apps").cloned().unwrap();
    assert!(apps.array_at(&["versions"])[0].array_at(&["resources"]).len() > 3);
    let v2 = read(&cluster.get("/openapi/v2"));
    assert_eq!(v2.str_at(&["definitions", "com.example.Thing", "description"]), "A thing.");
    assert!(!v2.at(&["paths", "/apis/ext.example.com/v1/things"]).is_null());
    assert!(v2.at(&["paths", "/apis/apps/v1/x"]).is_null());
    let v3 = read(&cluster.get("/openapi/v3"));
    let url = v3.str_at(&["paths", "apis/ext.example.com/v1", "serverRelativeURL"]);
    assert_eq!(read(&cluster.get(url)).get("theirs"), &Value::Bool(true));
    assert!(!v3.str_at(&["paths", "apis/apps/v1", "serverRelativeURL"]).ends_with("hash=1"));
}

#[test]
fn old_servers_are_shown_by_their_lists() {
    let cluster = start(&[]);
    let port = extension(&cluster.pki, Age::Old);
    service(&cluster, port);
    register(&cluster, i64::from(port), object!({"insecureSkipTLSVerify": true}));
    available(&cluster, "Passed");
    let aggregated = cluster.client.with(&[("Accept", AGGREGATED)]);
    let v3 = read(&cluster.get("/openapi/v3"));
    let url = v3.str_at(&["paths", "apis/ext.example.com/v1", "serverRelativeURL"]).to_owned();
    let document = read(&cluster.get(&url));
    assert_eq!(document.str_at(&["components", "schemas", "com.example.Thing", "description"]), "A thing.");
    wait_until("the resources are shown", SOON, || {
        let all = read(&aggregated.send("GET", "/apis", None).unwrap());
        let group = all.array_at(&["items"]).iter().find(|g| g.name() == GROUP).cloned().unwrap_or_default();
        group
            .array_at(&["versions"])
            .iter()
            .any(|v| v.array_at(&["resources"]).len() == 1 && v.str_at(&["freshness"]) == "Current")
    })
    .unwrap();
}

#[test]
fn conditions_say_why_a_server_cannot_be_reached() {
    let cluster = start(&["--enable-aggregator-routing"]);
    let port = i64::from(extension(&cluster.pki, Age::New));
    register(&cluster, 443, object!({"caBundle": "bm90aGluZw=="}));
    let why = "service/extension in \"default\" is not present";
    assert_eq!(available(&cluster, "ServiceNotFound").str_at(&["message"]), why);
    let refused = cluster.get(&format!("{BASE}/things"));
    assert_eq!((refused.code, refused.body.as_str()), (503, "service unavailable\n"));
    let service =
        object!({"metadata": {"name": "extension"}, "spec": {"ports": [{"name": "https", "port": 444}]}});
    cluster.create("/api/v1/namespaces/default/services", &service);
    available(&cluster, "ServicePortError");
    let change = |path: &str, patch: &Value| {
        let changed = cluster.send("PATCH", path, "application/merge-patch+json", &patch.to_string());
        assert_eq!(changed.code, 200, "{}", changed.body);
    };
    change(
        "/api/v1/namespaces/default/services/extension",
        &object!({"spec": {"ports": [{"name": "https", "port": 443}]}}),
    );
    available(&cluster, "EndpointsNotFound");
    let Some(address) = own_address() else {
        return eprintln!("skipped: the machine has no address of its own");
    };
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let slice = |ready: bool| {
        object!({
            "metadata": {"name": "extension-1", "labels": {"kubernetes.io/service-name": "extension"}},
            "addressType": "IPv4", "endpoints": [{"addresses": [(address.as_str())], "conditions": {"ready": ready}}],
            "ports": [{"name": "https", "port": port}],
        })
    };
    cluster.create(slices, &slice(false));
    available(&cluster, "MissingEndpoints");
    change(&format!("{slices}/extension-1"), &slice(true));
    // The bundle is none.
    available(&cluster, "FailedDiscoveryCheck");
    let path = "/apis/apiregistration.k8s.io/v1/apiservices/v1.ext.example.com";
    change(path, &object!({"spec": (trusted(&cluster))}));
    available(&cluster, "Passed");
    assert_eq!(cluster.get(&format!("{BASE}/things")).code, 200);
    // Without its APIService the group is gone.
    assert_eq!(cluster.client.send("DELETE", path, None).unwrap().code, 200);
    wait_until("the group is gone", SOON, || cluster.get(BASE).code == 404).unwrap();
    assert_eq!(cluster.get("/apis/ext.example.com").code, 404);
}

/// The address that packets of this machine leave from.
fn own_address() -> Option<String> {
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    probe.connect("192.0.2.1:9").ok()?;
    probe.local_addr().ok().map(|a| a.ip().to_string())
}

#[test]
fn a_server_that_is_registered_as_its_own_extension_does_not_ask_itself_for_ever() {
    let cluster = Cluster::start_with(|pki| {
        let file = |flag: &str, name: &str| format!("--{flag}={}", pki.file(name).display());
        vec![
            file("proxy-client-cert-file", "front.crt"),
            file("proxy-client-key-file", "front.key"),
            file("requestheader-client-ca-file", "ca.crt"),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
        ]
    });
    let port: u16 = cluster.arguments[1].rsplit('=').next().unwrap().parse().unwrap();
    service(&cluster, port);
    register(&cluster, i64::from(port), object!({"insecureSkipTLSVerify": true}));
    let condition = available(&cluster, "FailedDiscoveryCheck");
    assert_eq!(condition.str_at(&["status"]), "False");
    // As if somebody had said that it works.
    let path = "/apis/apiregistration.k8s.io/v1/apiservices/v1.ext.example.com/status";
    let yes = object!({"status": {"conditions": [{"type": "Available", "status": "True", "reason": "Passed", "lastTransitionTime": "2020-01-01T00:00:00Z"}]}});
    let ends = || {
        cluster.send("PATCH", path, "application/merge-patch+json", &yes.to_string());
        cluster.get(&format!("{BASE}/things")).code
    };
    wait_until("the loop is seen", SOON, || ends() == 508).unwrap();
    assert_eq!(cluster.get("/readyz").code, 200);
}

#[test]
fn what_is_served_here_is_registered() {
    let cluster = Cluster::start();
    let list = "/apis/apiregistration.k8s.io/v1/apiservices";
    let all = || read(&cluster.get(list));
    let local = |service: &Value| {
        service.array_at(&["status", "conditions"]).iter().any(|c| c.str_at(&["reason"]) == "Local")
    };
    wait_until("all are available", SOON, || all().array_at(&["items"]).iter().all(local)).unwrap();
    let names = names(&cluster.get(list));
    assert!(["v1.", "v1.apps", "v2.autoscaling"].iter().all(|n| names.iter().any(|m| m == n)), "{names:?}");
    assert!(!names.iter().any(|n| n == "v1.apiregistration.k8s.io"));
    let table = cluster.client.with(&[("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")]);
    let row = read(&table.send("GET", &format!("{list}/v1.apps"), None).unwrap());
    assert_eq!(
        row.array_at(&["rows"])[0].array_at(&["cells"])[..3],
        [Value::from("v1.apps"), "Local".into(), "True".into()]
    );
}
