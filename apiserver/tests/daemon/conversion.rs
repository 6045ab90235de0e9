//! What webhooks that convert custom resources make of reads.

use super::reviewer::Reviewer;
use super::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/h.example.com/v1/hosts";
const V2: &str = "/apis/h.example.com/v2/hosts";

/// Hosts, stored as `hostPort` in v1 and seen as `host` and `port` in v2.
fn define(cluster: &Cluster, reviewer: &Reviewer) {
    let text = object!({"type": "string"});
    let version = |name: &str, properties: Value, fields: Vec<Value>| {
        object!({
            "name": name, "served": true, "storage": (name == "v1"), "selectableFields": fields,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
        })
    };
    let old = version("v1", object!({"hostPort": (text.clone())}), vec![object!({"jsonPath": ".hostPort"})]);
    let new =
        version("v2", object!({"host": (text.clone()), "port": text}), vec![object!({"jsonPath": ".host"})]);
    let webhook = object!({"conversionReviewVersions": ["v1"], "clientConfig": (reviewer.at("/convert"))});
    let definition = object!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "hosts.h.example.com"},
        "spec": {
            "group": "h.example.com", "scope": "Cluster", "names": {"plural": "hosts", "kind": "Host"},
            "conversion": {"strategy": "Webhook", "webhook": webhook}, "versions": (vec![old, new]),
        },
    });
    cluster.create(DEFINITIONS, &definition);
    wait_until("hosts are served", SOON, || cluster.get(V2).code == 200).unwrap();
}

fn host(name: &str, host: &str, port: &str) -> Value {
    object!({"apiVersion": "h.example.com/v2", "kind": "Host", "metadata": {"name": name}, "host": host, "port": port})
}

#[test]
fn selectors_look_at_the_version_that_is_asked_for() {
    let cluster = Cluster::start();
    let reviewer = Reviewer::start(&cluster.pki);
    define(&cluster, &reviewer);
    let from = cluster.create(V2, &host("x", "a", "80")).resource_version().to_owned();
    cluster.create(V2, &host("y", "a", "81"));
    cluster.create(V2, &host("z", "b", "80"));
    assert_eq!(names(&cluster.get(&format!("{V2}?fieldSelector=host%3Da"))), ["x", "y"]);
    assert_eq!(names(&cluster.get(&format!("{V2}?fieldSelector=host%3Da&limit=1"))), ["x"]);
    assert_eq!(names(&cluster.get(&format!("{V1}?fieldSelector=hostPort%3Db:80"))), ["z"]);
    assert_eq!(cluster.get(&format!("{V2}?fieldSelector=hostPort%3Da:80")).code, 400);
    let path = format!("{V2}?watch=true&fieldSelector=host%3Db&resourceVersion={from}");
    let mut events = cluster.client.lines(&path).unwrap();
    let mut event = || {
        let event = read_line(&events.next_line().unwrap().expect("an event"));
        (event.str_at(&["type"]).to_owned(), event.str_at(&["object", "metadata", "name"]).to_owned())
    };
    assert_eq!(event(), ("ADDED".to_owned(), "z".to_owned()));
    let patch = |body: &str| {
        let path = format!("{V2}/y");
        assert_eq!(cluster.send("PATCH", &path, "application/merge-patch+json", body).code, 200);
    };
    patch(r#"{"host":"b"}"#);
    assert_eq!(event(), ("ADDED".to_owned(), "y".to_owned()));
    patch(r#"{"host":"c"}"#);
    assert_eq!(event(), ("DELETED".to_owned(), "y".to_owned()));
}

fn read_line(line: &str) -> Value {
    api::json::decode(line.as_bytes()).unwrap().value
}
