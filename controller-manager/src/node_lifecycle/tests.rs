use clap::Parser;
use client::{Connection, Recorder};
use daemon::Tasks;
use prometheus::Registry;
use tokio::net::TcpListener;

use super::taints::tests::node;
use super::taints::{NOT_READY, UNREACHABLE};
use super::*;
use crate::args::Args;
use crate::config::Config;
use crate::informers::Informers;
use crate::objects::condition;

mod server;

use server::Server;

/// Starts the controller against a server that has these nodes.
async fn started(nodes: &[(&str, &str)], flags: &[&str]) -> (Server, Context) {
    let (tasks, server) = (Tasks::new(), Server::new());
    for (name, ready) in nodes {
        let mut node = node(ready, &[]);
        node.set(&["metadata", "name"], *name);
        server.put(node);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = server.clone().serve(listener, tasks.clone());
    tasks.plain("server", async move {
        served.await;
        Ok(())
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    let kubeconfig = object!({
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    std::fs::write(file.path(), kubeconfig.to_json()).unwrap();
    let connection = Connection::from_path(file.path().to_str().unwrap(), "test");
    let client = client::connect(&connection).await.unwrap();
    let args = [&["kube-controller-manager", "--node-monitor-period=20ms"], flags].concat();
    let cx = Context {
        name: "node-lifecycle-controller",
        client: client.clone(),
        reader: client.clone(),
        informers: Arc::new(Informers::default()),
        recorder: Recorder::new(client.clone(), "node-controller", "").0,
        tasks: tasks.clone(),
        metrics: Registry::new(),
        config: Arc::new(Config::new(&Args::try_parse_from(args).unwrap()).unwrap()),
    };
    start(&cx);
    for informer in cx.informers.used() {
        let fed = informer.run(client.clone(), tasks.token());
        tasks.plain("informer", async move {
            fed.await;
            Ok(())
        });
    }
    (server, cx)
}

fn has(node: &Value, key: &str, effect: &str) -> bool {
    let taints = node.array_at(&["spec", "taints"]);
    taints.iter().any(|t| t.str_at(&["key"]) == key && t.str_at(&["effect"]) == effect)
}

fn say(server: &Server, name: &str, ready: &str) {
    server.change(name, |node| {
        node.set(&["status", "conditions"], object!([{"type": "Ready", "status": ready}]));
    });
}

#[tokio::test]
async fn a_failing_node_is_evicted_until_no_node_is_ready() {
    let flags = ["--node-eviction-rate=50", "--node-monitor-grace-period=1h"];
    let (server, cx) = started(&[("a", "False"), ("b", "True")], &flags).await;
    server.until("a", |a| has(a, NOT_READY, "NoExecute") && has(a, NOT_READY, "NoSchedule")).await;
    server.race(2);
    say(&server, "b", "False");
    server.until("a", |a| !has(a, NOT_READY, "NoExecute")).await;
    server.until("b", |b| has(b, NOT_READY, "NoSchedule")).await;
    say(&server, "b", "True");
    server.until("a", |a| has(a, NOT_READY, "NoExecute")).await;
    server.until("b", |b| b.array_at(&["spec", "taints"]).is_empty()).await;
    assert!(server.conflicts() >= 2);
    let evictions = cx.metrics.gather().into_iter().find(|m| m.name() == "node_collector_evictions_total");
    // The second is counted once the cache has seen it.
    assert!((1.0..=2.0).contains(&evictions.unwrap().get_metric()[0].get_counter().get_value()));
    cx.tasks.cancel();
}

#[tokio::test]
async fn a_silent_node_becomes_unknown_although_others_write_it_too() {
    let (server, cx) = started(&[("a", "True")], &["--node-monitor-grace-period=0s"]).await;
    server.race(3);
    server.until("a", |a| condition(a, "Ready").str_at(&["reason"]) == "NodeStatusUnknown").await;
    server.until("a", |a| has(a, UNREACHABLE, "NoSchedule")).await;
    server.until("a", |a| condition(a, "PIDPressure").str_at(&["reason"]) == "NodeStatusNeverUpdated").await;
    assert!(server.conflicts() >= 3);
    cx.tasks.cancel();
}

#[test]
fn pods_of_a_silent_node_are_not_ready_and_those_of_a_failing_one_say_themselves() {
    let pod = |status: &str| {
        Arc::new(object!({
            "metadata": {"name": "p"},
            "status": {"conditions": [{"type": "Ready", "status": status}]},
        }))
    };
    for (ready, pod, want) in [
        ("Unknown", pod("True"), true),
        ("Unknown", pod("False"), false),
        ("False", pod("True"), false),
        ("True", pod("True"), false),
        ("", pod("True"), false),
    ] {
        let marks = plan(&node(ready, &[]), &[pod], Timestamp::UNIX_EPOCH)
            .into_iter()
            .filter(|a| matches!(a, Action::Event(_, Kind::Warning, "NodeNotReady", _)))
            .count();
        assert_eq!(marks == 1, want, "{ready}");
    }
}
