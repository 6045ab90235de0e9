//! The daemon itself, on an etcd of its own: what clients see over HTTPS, what survives a kill, and what it says when it
//! cannot run.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::TcpListener;
use std::time::Duration;

use api::{Value, object};
use tempfile::TempDir;
use testing::{Client, Pki, Process, Response, etcd, free_port, wait_until};

#[path = "daemon/aggregation.rs"]
mod aggregation;
#[path = "daemon/answers.rs"]
mod answers;
#[path = "daemon/audit.rs"]
mod audit;
#[path = "daemon/authentication.rs"]
mod authentication;
#[path = "daemon/authorization.rs"]
mod authorization;
#[path = "daemon/company.rs"]
mod company;
#[path = "daemon/conversion.rs"]
mod conversion;
#[path = "daemon/crowds.rs"]
mod crowds;
#[path = "daemon/documents.rs"]
mod documents;
#[path = "daemon/egress.rs"]
mod egress;
#[path = "daemon/encryption.rs"]
mod encryption;
#[path = "daemon/fairness.rs"]
mod fairness;
#[path = "daemon/handshake.rs"]
mod handshake;
#[path = "daemon/hostile.rs"]
mod hostile;
#[path = "daemon/kms.rs"]
mod kms;
#[path = "daemon/measures.rs"]
mod measures;
#[path = "daemon/mutations.rs"]
mod mutations;
#[path = "daemon/plugins.rs"]
mod plugins;
#[path = "daemon/policies.rs"]
mod policies;
#[path = "daemon/reviewer.rs"]
mod reviewer;
#[path = "daemon/runtime_config.rs"]
mod runtime_config;
#[path = "daemon/subresources.rs"]
mod subresources;
#[path = "daemon/takeover.rs"]
mod takeover;
#[path = "daemon/webhooks.rs"]
mod webhooks;
#[path = "daemon/websockets.rs"]
mod websockets;

const DAEMON: &str = env!("CARGO_BIN_EXE_kube-apiserver");
const JSON: &str = "application/json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SOON: Duration = Duration::from_secs(30);

/// A server with all that it needs.
struct Cluster {
    server: Option<Process>,
    client: Client,
    arguments: Vec<String>,
    pki: Pki,
    // Dropped in this order: etcd ends before its directory goes.
    _etcd: Process,
    dir: TempDir,
}

fn arguments(pki: &Pki, etcd: &str, port: u16) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.file(name).display());
    vec![
        format!("--etcd-servers={etcd}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=192.0.2.1".to_owned(),
        file("tls-cert-file", "server.crt"),
        file("tls-private-key-file", "server.key"),
        file("client-ca-file", "ca.crt"),
        file("service-account-key-file", "tokens.key"),
        file("service-account-signing-key-file", "tokens.key"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
    ]
}

impl Cluster {
    fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// Starts with further flags, which may name files in the folder of the cluster.
    fn start_with(flags: impl FnOnce(&Pki) -> Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::make(dir.path()).unwrap();
        let (etcd, etcd_port) = etcd(dir.path()).unwrap();
        let port = free_port().unwrap();
        let mut arguments = arguments(&pki, &format!("http://127.0.0.1:{etcd_port}"), port);
        arguments.extend(flags(&pki));
        let client = Client::new(&pki, port).unwrap();
        let mut cluster = Self { server: None, client, arguments, pki, _etcd: etcd, dir };
        cluster.run();
        cluster
    }

    fn run(&mut self) {
        let server = Process::start(DAEMON, &self.arguments, &self.dir.path().join("server.log")).unwrap();
        let ready = || self.client.send("GET", "/readyz", None).is_ok_and(|r| r.code == 200);
        let result = wait_until("the server is ready", SOON, ready);
        result.unwrap_or_else(|e| panic!("{e}: {}", server.output()));
        self.server = Some(server);
    }

    fn kill(&mut self) {
        self.server.take().unwrap().kill().unwrap();
    }

    fn send(&self, method: &str, path: &str, media_type: &str, body: &str) -> Response {
        self.client.send(method, path, Some((media_type, body.as_bytes()))).unwrap()
    }

    fn create(&self, path: &str, object: &Value) -> Value {
        let response = self.send("POST", path, JSON, &object.to_string());
        assert_eq!(response.code, 201, "{}", response.body);
        read(&response)
    }

    fn get(&self, path: &str) -> Response {
        self.client.send("GET", path, None).unwrap()
    }
}

fn read(response: &Response) -> Value {
    api::json::decode(response.body.as_bytes()).unwrap().value
}

fn map(name: &str, value: &str) -> Value {
    object!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}})
}

fn names(list: &Response) -> Vec<String> {
    let list = read(list);
    list.array_at(&["items"])
        .iter()
        .map(|o| o.name().to_owned())
        .filter(|n| n != "kube-root-ca.crt")
        .collect()
}

#[test]
fn objects_may_be_called_like_their_resource() {
    let cluster = Cluster::start();
    let path = format!("{MAPS}/configmaps");
    cluster.create(MAPS, &object!({"metadata": {"name": "configmaps"}}));
    let patched = cluster.send("PATCH", &path, "application/merge-patch+json", r#"{"data":{"a":"b"}}"#);
    assert_eq!(read(&patched).str_at(&["data", "a"]), "b", "{}", patched.body);
    assert_eq!(cluster.client.send("DELETE", &path, None).unwrap().code, 200);
    assert_eq!(cluster.get(&path).code, 404);
}

#[test]
fn objects_are_written_read_changed_and_removed() {
    let cluster = Cluster::start();
    let created = cluster.create(MAPS, &map("a", "1"));
    assert!(!created.uid().is_empty());
    let one = format!("{MAPS}/a");
    assert_eq!(read(&cluster.get(&one)).str_at(&["data", "k"]), "1");
    assert_eq!(names(&cluster.get(MAPS)), ["a"]);
    assert_eq!(names(&cluster.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db"))), [""; 0]);
    let patched = cluster.send("PATCH", &one, "application/merge-patch+json", r#"{"data":{"l":"2"}}"#);
    assert_eq!(read(&patched).get("data"), &object!({"k": "1", "l": "2"}));
    let apply = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {m: '3'}\n";
    let path = format!("{one}?fieldManager=test");
    let applied = cluster.send("PATCH", &path, "application/apply-patch+yaml", apply);
    assert_eq!(read(&applied).get("data"), &object!({"k": "1", "l": "2", "m": "3"}), "{}", applied.body);
    let conflict = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: '9'}\n";
    assert_eq!(cluster.send("PATCH", &path, "application/apply-patch+yaml", conflict).code, 409);
    let mut stale = created.clone();
    stale.set(&["data", "k"], "old");
    assert_eq!(cluster.send("PUT", &one, JSON, &stale.to_string()).code, 409);
    assert_eq!(cluster.client.send("DELETE", &one, None).unwrap().code, 200);
    let gone = cluster.get(&one);
    assert_eq!((gone.code, read(&gone).str_at(&["reason"]).to_owned()), (404, "NotFound".to_owned()));
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_watches_go_on() {
    let mut cluster = Cluster::start();
    let first = cluster.create(MAPS, &map("m00", "0"));
    let since = first.resource_version().to_owned();
    let watch = |cluster: &Cluster, from: &str| {
        cluster.client.lines(&format!("{MAPS}?watch=true&resourceVersion={from}")).unwrap()
    };
    let mut events = watch(&cluster, &since);
    let mut last = String::new();
    for i in 1..20 {
        let created = cluster.create(MAPS, &map(&format!("m{i:02}"), "x"));
        created.resource_version().clone_into(&mut last);
    }
    let event = |line: Option<String>| {
        let event = api::json::decode(line.expect("an event").as_bytes()).unwrap().value;
        (event.str_at(&["type"]).to_owned(), event.get("object").clone())
    };
    for i in 1..20 {
        let (kind, object) = event(events.next_line().unwrap());
        assert_eq!((kind.as_str(), object.name()), ("ADDED", format!("m{i:02}").as_str()));
    }
    cluster.kill();
    cluster.run();
    let all: Vec<String> = (0..20).map(|i| format!("m{i:02}")).collect();
    assert_eq!(names(&cluster.get(MAPS)), all);
    let mut events = watch(&cluster, &last);
    assert_eq!(cluster.client.send("DELETE", &format!("{MAPS}/m05"), None).unwrap().code, 200);
    let (kind, object) = event(events.next_line().unwrap());
    assert_eq!((kind.as_str(), object.name()), ("DELETED", "m05"));
    // What happened before the server began is not known to it: clients read everything again.
    let (kind, object) = event(watch(&cluster, &since).next_line().unwrap());
    assert_eq!((kind.as_str(), object.get("code")), ("ERROR", &Value::Int(410)));
}

#[test]
fn a_list_whose_revision_is_forgotten_goes_on_with_what_is_there() {
    let cluster = Cluster::start_with(|_| vec!["--etcd-compaction-interval=1s".to_owned()]);
    for name in ["a", "b", "c", "d"] {
        cluster.create(MAPS, &map(name, "1"));
    }
    let first = cluster.get(&format!("{MAPS}?limit=2"));
    assert_eq!(names(&first), ["a", "b"]);
    let metadata = read(&first).get("metadata").clone();
    let next = |token: &str| cluster.get(&format!("{MAPS}?limit=2&continue={token}"));
    assert_eq!(names(&next(metadata.str_at(&["continue"]))), ["c", "d"]);
    cluster.create(MAPS, &map("cc", "1"));
    wait_until("the token is too old", SOON, || next(metadata.str_at(&["continue"])).code == 410).unwrap();
    let gone = read(&next(metadata.str_at(&["continue"])));
    assert_eq!(gone.str_at(&["reason"]), "Expired");
    let rest = next(gone.str_at(&["metadata", "continue"]));
    assert_eq!(names(&rest), ["c", "cc"]);
    let exact = format!(
        "{MAPS}?resourceVersionMatch=Exact&resourceVersion={}",
        metadata.str_at(&["resourceVersion"])
    );
    let why = read(&cluster.get(&exact)).str_at(&["message"]).to_owned();
    assert_eq!(why, "The resourceVersion for the provided list is too old.");
}

#[test]
fn malformed_requests_are_refused_and_harm_nothing() {
    let cluster = Cluster::start();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{deep}}}"#);
    for (media_type, body, code) in [
        (JSON, "{", 400),
        (JSON, "", 400),
        (JSON, "\u{0}", 400),
        (JSON, "[]", 400),
        (JSON, r#"{"kind":"Secret","apiVersion":"v1"}"#, 400),
        (JSON, r#"{"kind":"ConfigMap","apiVersion":"v1","data":7}"#, 400),
        (JSON, nested.as_str(), 400),
        ("application/yaml", "a: [", 400),
        ("application/vnd.kubernetes.protobuf", "k8s\u{0}\u{7f}\u{7f}", 400),
        ("text/plain", "x", 415),
        (JSON, r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"A"}}"#, 422),
    ] {
        let shown: String = body.chars().take(60).collect();
        let response = cluster.send("POST", MAPS, media_type, body);
        assert_eq!(response.code, code, "{media_type} {shown}: {}", response.body);
        assert_eq!(read(&response).kind(), "Status", "{shown}");
    }
    let large = map("large", &"x".repeat(4 << 20)).to_string();
    assert_eq!(cluster.send("POST", MAPS, JSON, &large).code, 413);
    cluster.create(MAPS, &map("fine", "1"));
    assert_eq!(names(&cluster.get(MAPS)), ["fine"]);
}

#[test]
fn a_refusal_leaves_the_connection_usable() {
    let cluster = Cluster::start();
    for (path, media_type, code) in [
        (MAPS, "text/plain", 415),
        ("/api/v1/nonsense", JSON, 404),
        ("/api/v1/namespaces?timeout=soon", JSON, 400),
        ("/api/v1/namespaces/default/configmaps/x", JSON, 405),
    ] {
        let codes = cluster.client.late_body(path, (media_type, b"{}"), "/readyz").unwrap();
        assert_eq!(codes, (code, 200), "{path}");
    }
}

#[test]
fn a_server_that_is_to_end_goes_on_for_a_while_and_says_so() {
    let mut cluster = Cluster::start_with(|_| vec!["--shutdown-delay-duration=4s".to_owned()]);
    let mut server = cluster.server.take().unwrap();
    server.terminate().unwrap();
    wait_until("it says so", Duration::from_secs(3), || cluster.get("/readyz").code == 500).unwrap();
    assert_eq!((cluster.get("/livez").code, cluster.get(MAPS).code), (200, 200));
    cluster.create(MAPS, &map("late", "1"));
    assert_eq!(server.exit_code(SOON).unwrap(), Some(0));
}

/// Runs the daemon until it ends by itself; the exit code and what it printed.
fn fails(arguments: &[String]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(DAEMON, arguments, &dir.path().join("log")).unwrap();
    let code = process.exit_code(SOON).unwrap();
    (code, process.output())
}

#[test]
fn bad_flags_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::make(dir.path()).unwrap();
    let with = |flag: &str| {
        let mut all = arguments(&pki, "http://127.0.0.1:1", free_port().unwrap());
        all.push(flag.to_owned());
        fails(&all)
    };
    for (flag, told) in [
        ("--nonsense", "--nonsense"),
        ("--authorization-mode=Sometimes", "Sometimes"),
        ("--service-cluster-ip-range=10.0.0.0/99", "service-cluster-ip-range"),
        ("--client-ca-file=/no/such/file", "/no/such/file"),
    ] {
        let (code, said) = with(flag);
        assert_eq!(code, Some(1), "{flag}: {said}");
        assert!(said.contains(told), "{flag}: {said}");
    }
    let (code, said) = fails(&[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("--etcd-servers"), "{said}");
}

#[test]
fn a_taken_port_is_told() {
    let cluster = Cluster::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut all = cluster.arguments.clone();
    all[1] = format!("--secure-port={port}");
    let (code, said) = fails(&all);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&port.to_string()), "{said}");
}

#[test]
fn an_unreachable_etcd_is_told_by_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::make(dir.path()).unwrap();
    let url = format!("http://127.0.0.1:{}", free_port().unwrap());
    let port = free_port().unwrap();
    let log = dir.path().join("log");
    let process = Process::start(DAEMON, &arguments(&pki, &url, port), &log).unwrap();
    let told = || process.output().contains(&url);
    wait_until("the address of etcd is told", SOON, told)
        .unwrap_or_else(|e| panic!("{e}: {}", process.output()));
    let client = Client::new(&pki, port).unwrap();
    assert!(!client.send("GET", "/readyz", None).is_ok_and(|r| r.code == 200));
}

#[test]
fn strangers_are_told_apart_from_the_forbidden() {
    let cluster = Cluster::start();
    // An authority that the server does not know.
    let other = tempfile::tempdir().unwrap();
    let strangers = Pki::make(other.path()).unwrap();
    std::fs::copy(cluster.pki.file("ca.crt"), strangers.file("ca.crt")).unwrap();
    let port: u16 = cluster.arguments[1].rsplit('=').next().unwrap().parse().unwrap();
    let stranger = Client::new(&strangers, port).unwrap();
    assert_eq!(stranger.send("GET", MAPS, None).unwrap().code, 401);
}
