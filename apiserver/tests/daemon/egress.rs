//! Connections that go through a proxy.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;

/// A proxy on a socket, and the hosts that it was asked for.
fn proxy(socket: &Path) -> Arc<Mutex<Vec<String>>> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (listener, seen) = (UnixListener::bind(socket).unwrap(), asked.clone());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let seen = seen.clone();
            std::thread::spawn(move || tunnel(client.unwrap(), &seen));
        }
    });
    asked
}

fn tunnel(mut client: UnixStream, seen: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut words = head.split(' ');
    assert_eq!(words.next(), Some("CONNECT"));
    let target = words.next().unwrap().to_owned();
    seen.lock().push(target.clone());
    // Only what is on this machine can be reached this way.
    let Some(port) = target.strip_prefix("127.0.0.1:") else {
        client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").unwrap();
        return;
    };
    let server = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    drop(std::io::copy(&mut { server }, &mut client));
}

#[test]
fn webhooks_are_reached_by_the_way_of_their_network() {
    let (mut asked, mut reviewer) = (None, 0);
    let cluster = Cluster::start_with(|pki| {
        reviewer = documents::serve(pki, |_, review| {
            let mut answer = review.clone();
            answer.set(&["status"], object!({"authenticated": true, "user": {"username": "ann"}}));
            answer
        });
        asked = Some(proxy(&pki.file("proxy.sock")));
        let webhook = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k}}}}]\n\
             clusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:{reviewer}/', certificate-authority: ca.crt}}}}]\n"
        );
        std::fs::write(pki.file("webhook.yaml"), webhook).unwrap();
        let connection = format!(
            "{{proxyProtocol: HTTPConnect, transport: {{uds: {{udsName: {}}}}}}}",
            pki.file("proxy.sock").display()
        );
        let egress = format!(
            "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n\
             - {{name: controlplane, connection: {connection}}}\n- {{name: cluster, connection: {connection}}}\n"
        );
        std::fs::write(pki.file("egress.yaml"), egress).unwrap();
        vec![
            format!("--authentication-token-webhook-config-file={}", pki.file("webhook.yaml").display()),
            "--authentication-token-webhook-version=v1".to_owned(),
            format!("--egress-selector-config-file={}", pki.file("egress.yaml").display()),
        ]
    });
    let asked = asked.unwrap();
    // Authentication is a matter of the control plane.
    assert_eq!(authentication::answer(&cluster, MAPS, &[("authorization", "Bearer known")]).0, 403);
    assert_eq!(*asked.lock(), [format!("127.0.0.1:{reviewer}")]);
    // A kubelet is a matter of the cluster.
    let node = object!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    cluster.create("/api/v1/nodes", &node);
    let address = object!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    let patch = "application/merge-patch+json";
    let patched = cluster.send("PATCH", "/api/v1/nodes/n/status", patch, &address.to_string());
    assert_eq!(patched.code, 200, "{}", patched.body);
    let answer = cluster.get("/api/v1/nodes/n/proxy/healthz");
    assert!(answer.code >= 500 && answer.body.contains("502 Bad Gateway"), "{}", answer.body);
    assert_eq!(asked.lock().last().unwrap(), "192.0.2.1:10250");
}
