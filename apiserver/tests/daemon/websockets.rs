//! What streams to clients that ask for a WebSocket.

use super::*;

fn upgraded(cluster: &Cluster, path: &str) -> Response {
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    cluster.client.with(&headers).send("GET", path, None).unwrap()
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
