//! What hostile clients send: each request is refused as upstream refuses it, nothing takes the server down, and nobody
//! else has to wait for long.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use super::*;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const YAML: &str = "application/yaml";
const MERGE: &str = "application/merge-patch+json";

/// What the server took at most, in MiB; debug builds and the bodies of this file take some.
const MEMORY: u64 = 400;

impl Cluster {
    fn port(&self) -> u16 {
        let flag = self.arguments.iter().find_map(|a| a.strip_prefix("--secure-port=")).unwrap();
        flag.parse().unwrap()
    }

    /// The most memory that the server had, in MiB.
    fn peak(&self) -> u64 {
        let pid = self.server.as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    }

    /// Sends a body and expects a message, or what it begins or ends with where there are dots.
    fn refuses(&self, (method, path, media_type): (&str, &str, &str), body: &[u8], code: u16, message: &str) {
        let response = self.client.send(method, path, Some((media_type, body))).unwrap();
        let shown: String = response.body.chars().take(1000).collect();
        let began: String = String::from_utf8_lossy(body).chars().take(60).collect();
        assert_eq!(response.code, code, "{began}: {shown}");
        let got = read(&response).str_at(&["message"]).to_owned();
        let fits = match message.split_once("...") {
            Some((begin, end)) => got.starts_with(begin) && got.ends_with(end),
            None => got == message,
        };
        assert!(fits, "{began}: {got:?} is not {message:?}");
    }

    fn is_well(&self) {
        assert_eq!(self.get("/readyz").code, 200);
        assert!(self.peak() < MEMORY, "{} MiB", self.peak());
    }
}

fn unread(why: &str, shown: &str) -> String {
    format!("the object provided is unrecognized (must be of type ConfigMap): {why} ({shown})")
}

#[test]
fn bodies_are_refused_in_the_words_of_upstream() {
    let cluster = Cluster::start();
    let json = |body: &[u8], why: &str, shown: &str| {
        let why = format!("couldn't get version/kind; json parse error: {why}");
        cluster.refuses(("POST", MAPS, JSON), body, 400, &unread(&why, shown));
    };
    json(b"", "unexpected end of JSON input", "<empty>");
    json(br#"{"kind":"Conf"#, "unexpected end of JSON input", r#"{"kind":"Conf"#);
    json(b"{\"a\":\"\0\"}", r"invalid character '\x00' in string literal", "{\"a\":\"\0\"}");
    json(&[0x1f, 0x8b, 8], r"invalid character '\x1f' looking for beginning of value", "1f8b08");
    let (arrays, objects) = ("[".repeat(100_000), "{\"a\":".repeat(100_000));
    json(arrays.as_bytes(), "invalid character '[' exceeded max depth", &format!("{} ...", "5b".repeat(30)));
    json(
        objects.as_bytes(),
        "invalid character '{' exceeded max depth",
        r#"{"a":{"a":{"a":{"a":{"a":{"a": ..."#,
    );
    for huge in ["1e999999999", &"9".repeat(100_000)] {
        let shown: String = huge.chars().take(64).collect();
        let why = format!("json: cannot unmarshal number {shown} into Go value of type float64");
        let body = format!(r#"{{"data":{huge}}}"#);
        let begin: String = body.chars().take(30).collect();
        json(body.as_bytes(), &why, &if body.len() > 30 { format!("{begin} ...") } else { begin });
    }

    // YAML: nesting by indentation, by brackets, and aliases that multiply.
    let why = "the object provided is unrecognized (must be of type ConfigMap): yaml: ...)";
    let yaml = |body: &str| {
        cluster.refuses(("POST", MAPS, YAML), body.as_bytes(), 400, why);
    };
    yaml(&(0..1500).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>());
    yaml(&"[".repeat(100_000));
    yaml("a: \0");
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", ")));
    }
    yaml(&bomb);
    let patched = format!("{MAPS}/none?fieldManager=m");
    let deep = format!("{}1{}", "{\"data\":".repeat(20_000), "}".repeat(20_000));
    let apply = ("PATCH", patched.as_str(), "application/apply-patch+yaml");
    cluster.refuses(
        apply,
        deep.as_bytes(),
        400,
        "error decoding YAML: error converting YAML to JSON: yaml: ...",
    );
    let merge = ("PATCH", patched.as_str(), MERGE);
    cluster.refuses(merge, deep.as_bytes(), 400, "error decoding patch: ...exceeded max depth");

    let garbage = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";
    cluster.refuses(("POST", MAPS, PROTOBUF), &[0xff; 9], 400, &unread(garbage, &"ff".repeat(9)));
    let mut nested = Vec::new();
    while nested.len() < 64 << 10 {
        let mut outer = vec![10];
        let mut length = nested.len();
        while length > 127 {
            outer.push((length & 127) as u8 | 128);
            length >>= 7;
        }
        outer.push(length as u8);
        nested.splice(0..0, outer);
    }
    let sealed = schema::proto::seal("v1", "ConfigMap", &nested);
    cluster.refuses(("POST", MAPS, PROTOBUF), &sealed, 400, "the object provided is unrecognized...)");

    let large = "Request entity too large: limit is 3145728";
    cluster.refuses(("POST", MAPS, JSON), &vec![b' '; 4 << 20], 413, large);
    cluster.refuses(merge, &vec![b' '; 4 << 20], 413, large);
    let chunked = cluster.client.with(&[("Transfer-Encoding", "chunked")]);
    let pieces = format!("100000\r\n{}\r\n", " ".repeat(1 << 20)).repeat(4) + "0\r\n\r\n";
    let answer = chunked.send_framed("POST", MAPS, JSON, pieces.as_bytes()).unwrap();
    assert_eq!((answer.code, read(&answer).str_at(&["message"])), (413, large));
    let kept = map("large", &"x".repeat(2 << 20)).to_string();
    let why = "ConfigMap \"large\" is invalid: []: Too long: may not be more than 1048576 bytes";
    cluster.refuses(("POST", MAPS, JSON), kept.as_bytes(), 422, why);
    cluster.is_well();
}

#[test]
fn what_has_many_members_takes_no_more_time_than_it_must() {
    let cluster = Cluster::start();
    let many = |prefix: &str, value: &str| -> Value {
        (0..20_000).map(|i| (format!("{prefix}{i}"), Value::from(value))).collect::<api::Map>().into()
    };
    cluster.create(MAPS, &object!({"metadata": {"name": "wide"}, "data": (many("k", ""))}));
    let wide = format!("{MAPS}/wide?dryRun=All");
    let change = object!({"data": (many("k", "x"))}).to_string();
    let gone = object!({"data": (many("k", "").as_object().unwrap().keys().map(|k| (k, Value::Null)).collect::<api::Map>())});
    // The square of their number would take minutes, and end with 504.
    for (media_type, body) in [
        (MERGE, &change),
        (MERGE, &gone.to_string()),
        ("application/strategic-merge-patch+json", &change),
        ("application/strategic-merge-patch+json", &gone.to_string()),
    ] {
        assert_eq!(cluster.send("PATCH", &wide, media_type, body).code, 200, "{media_type}");
    }
    cluster.is_well();
}

#[test]
fn heads_of_requests_are_bounded_and_read_as_upstream_reads_them() {
    let cluster = Cluster::start();
    let with = |headers: &[(&str, &str)]| {
        cluster.client.with(headers).send("GET", "/api/v1/namespaces/default", None)
    };
    let names: Vec<String> = (0..100_000).map(|i| format!("X-{i}")).collect();
    let flood = |n: usize| names[..n].iter().map(|n| (n.as_str(), "a")).collect::<Vec<_>>();
    assert_eq!(with(&flood(150)).unwrap().code, 200);
    // The server may end the connection before it has read all of a head.
    for headers in [flood(100_000), vec![("X-A", "a".repeat(2 << 20).as_str())]] {
        assert!(with(&headers).map_or(431, |r| r.code) == 431);
    }
    let get = |path: &str| cluster.client.send("GET", path, None).map_or(431, |r| r.code);
    assert_eq!(get(&format!("{MAPS}?labelSelector={}", "a".repeat(2 << 20))), 431);
    let options: Vec<String> = (0..5000).map(|i| format!("o{i}=x")).collect();
    assert_eq!(get(&format!("{MAPS}?{}", options.join("&"))), 200);
    // Pairs that cannot be decoded are left out.
    assert_eq!(get(&format!("{MAPS}?labelSelector=%zz&a;limit=x")), 200);
    assert_eq!(get("/api/v1/namespaces/%zz"), 400);
    assert_eq!(get("/api/v1/namespaces/%00/configmaps"), 200);
    let range = cluster.get(&format!("{MAPS}?timeoutSeconds=99999999999999999999"));
    let why = r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#;
    assert_eq!((range.code, read(&range).str_at(&["message"])), (400, why));
    cluster.is_well();
}

#[test]
fn connections_that_say_nothing_keep_nobody_from_being_served() {
    let cluster = Cluster::start();
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, cluster.port())).unwrap();
    let silent: Vec<TcpStream> = (0..1000).map(|_| connect()).collect();
    // The head of a handshake, of which the rest never comes.
    let begun: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = connect();
            stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).unwrap();
            stream
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(cluster.get("/readyz").code, 200);
    }
    // Nobody has longer than ten seconds for the handshake.
    for mut stream in silent.into_iter().chain(begun) {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let ended = stream.read_to_end(&mut Vec::new());
        assert!(!ended.is_err_and(|e| e.kind() == ErrorKind::WouldBlock), "the connection stays open");
    }
    cluster.is_well();
}
