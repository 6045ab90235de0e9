//! An etcd that upstream's server has filled.

use super::encryption::stored;
use super::*;

/// What upstream v1.36.2 left in etcd, by key; none where the reference is not at hand.
fn dump() -> Option<Vec<(String, Vec<u8>)>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference/etcd/dump.json");
    let Ok(text) = std::fs::read(&path) else {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    };
    let dump = api::json::decode(&text).unwrap().value;
    let bytes = |entry: &Value| match entry.str_at(&["encoding"]) {
        "protobuf" => {
            let hex = entry.str_at(&["hex"]);
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
        }
        _ => entry.str_at(&["value"]).as_bytes().to_vec(),
    };
    // What had a lease is long over.
    let lasting = dump.as_array().unwrap().iter().filter(|e| e.get("lease").as_bool() != Some(true));
    Some(lasting.map(|e| (e.str_at(&["key"]).to_owned(), bytes(e))).collect())
}

fn put(cluster: &Cluster, entries: &[(String, Vec<u8>)]) {
    let url = cluster.arguments[0].split_once('=').unwrap().1.to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = etcd_client::Client::connect([url], None).await.unwrap();
        for (key, value) in entries {
            client.put(key.as_str(), value.as_slice(), None).await.unwrap();
        }
    });
}

#[test]
fn what_upstream_stored_is_served_and_stored_again_in_its_form() {
    let Some(entries) = dump() else { return };
    let mut cluster = Cluster::start();
    cluster.kill();
    put(&cluster, &entries);
    cluster.run();
    for (path, field, expected) in [
        ("/api/v1/namespaces/golden/pods/pod-full", "kind", "Pod"),
        ("/apis/apps/v1/namespaces/golden/statefulsets/statefulset", "kind", "StatefulSet"),
        (
            "/apis/autoscaling/v1/namespaces/golden/horizontalpodautoscalers/hpa-v2",
            "apiVersion",
            "autoscaling/v1",
        ),
        ("/apis/golden.example.com/v1/namespaces/golden/widgets/widget", "kind", "Widget"),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.golden.example.com",
            "apiVersion",
            "apiextensions.k8s.io/v1",
        ),
    ] {
        let answer = super::encryption::soon(&cluster, path, 200);
        assert_eq!(read(&answer).str_at(&[field]), expected, "{}", answer.body);
    }
    let everything = read(&cluster.get("/apis/rbac.authorization.k8s.io/v1/clusterroles"));
    let kept = entries.iter().filter(|(key, _)| key.starts_with("/registry/clusterroles/")).count();
    assert!(everything.array_at(&["items"]).len() >= kept && kept > 0);
    let path = "/api/v1/namespaces/golden/configmaps/base";
    let patch = r#"{"metadata":{"labels":{"touched":"yes"}}}"#;
    assert_eq!(cluster.send("PATCH", path, "application/merge-patch+json", patch).code, 200);
    let now = stored(&cluster, "/registry/configmaps/golden/base");
    assert!(now.starts_with(b"k8s\0") && now.windows(7).any(|w| w == b"touched"));
}

#[test]
fn what_is_in_an_older_form_is_stored_anew_by_a_write_that_changes_nothing() {
    let cluster = Cluster::start();
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/h";
    let key = "/registry/horizontalpodautoscalers/default/h";
    let old = br#"{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v1","metadata":{"name":"h","namespace":"default","uid":"7d2b3c34-9f0b-4c8a-8b7c-0d5b6f1f2a11","creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{"minReplicas":1,"maxReplicas":3,"targetCPUUtilizationPercentage":50,"scaleTargetRef":{"kind":"Deployment","name":"d"}}}"#;
    put(&cluster, &[(key.to_owned(), old.to_vec())]);
    super::encryption::soon(&cluster, path, 200);
    let nothing = r#"{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{}}"#;
    let apply = || {
        let path = format!("{path}?fieldManager=test");
        let answer = cluster.send("PATCH", &path, "application/apply-patch+yaml", nothing);
        assert_eq!(answer.code, 200, "{}", answer.body);
        read(&answer).resource_version().to_owned()
    };
    let first = apply();
    let now = stored(&cluster, key);
    assert!(now.starts_with(b"k8s\0") && now.windows(14).any(|w| w == b"autoscaling/v2"));
    assert_eq!(apply(), first, "what is stored as it should be is not written");
}
