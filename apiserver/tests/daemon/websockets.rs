//! What streams to clients that ask for a WebSocket.

use super::*;

fn upgraded(cluster: &Cluster, path: &str) -> Response {
    speaking(cluster, path, &[])
}

/// The answer to a client that wants a WebSocket, with these headers besides.
fn speaking(cluster: &Cluster, path: &str, more: &[(&str, &str)]) -> Response {
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    cluster.client.with(&headers).with(more).send("GET", path, None).unwrap()
}

#[test]
fn a_watch_comes_as_messages_and_ends_in_good_order() {
    let cluster = Cluster::start();
    for name in ["a", "b"] {
        cluster.create(MAPS, &object!({"metadata": {"name": name}}));
    }
    let answer = upgraded(&cluster, &format!("{MAPS}?watch=true&timeoutSeconds=1"));
    assert_eq!(answer.code, 101);
    // RFC 6455, 1.3: the answer to this key.
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.body.matches(r#"{"type":"ADDED","object":"#).count(), 2, "{}", answer.body);
    let refused = upgraded(&cluster, "/api/v1/namespaces/default/nothings?watch=true");
    assert_eq!(refused.code, 404);
}

#[test]
fn a_kubelet_that_is_not_there_is_told_of_in_the_stream_or_instead_of_it() {
    let cluster = Cluster::start();
    let port = i64::from(free_port().unwrap());
    let node = object!({"metadata": {"name": "n"}});
    cluster.create("/api/v1/nodes", &node);
    let status = |features: Value| {
        let status = object!({"status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}, "declaredFeatures": features,
        }});
        let path = "/api/v1/nodes/n/status";
        let answer = cluster.send("PATCH", path, "application/merge-patch+json", &status.to_string());
        assert_eq!(answer.code, 200, "{}", answer.body);
    };
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.create(accounts, &object!({"metadata": {"name": "default"}}));
    let pod = object!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    cluster.create("/api/v1/namespaces/default/pods", &pod);
    let exec = |protocol: &str| {
        let path = "/api/v1/namespaces/default/pods/p/exec?command=x&stdout=true";
        speaking(&cluster, path, &[("Sec-WebSocket-Protocol", protocol)])
    };
    let dead = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    status(object!([]));
    let late = exec("v5.channel.k8s.io");
    assert_eq!(late.code, 101);
    let url = format!("https://127.0.0.1:{port}/exec/default/p/c?command=x\\u0026output=1");
    let told = format!("Internal error occurred: error sending request: Post \\\"{url}\\\": {dead}");
    assert!(late.body.contains(&told), "{} has not {told}", late.body);
    let early = exec("v4.channel.k8s.io");
    assert!(
        early.code == 500 && early.body.contains(&format!("error dialing backend: {dead}")),
        "{}",
        early.body
    );
    // Some kubelets know all protocols themselves.
    status(object!(["ExtendWebSocketsToKubelet"]));
    assert_eq!(exec("v5.channel.k8s.io").code, 500);
}
