//! What is measured, in order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::Method;
use serde_json::json;

use crate::Args;
use crate::clients::{Clients, events};
use crate::process::Server;
use crate::report::Report;

/// One in so many Pods is what a selector asks for.
const GROUPS: usize = 50;
/// Pods on a page of a list.
const PAGE: usize = 500;
/// Time for all events to be delivered.
const DELIVERY_LIMIT: Duration = Duration::from_secs(300);

/// Measures everything.
pub(crate) async fn all(
    args: &Args,
    server: &Server,
    clients: &Clients,
    namespace: &str,
    report: &mut Report,
) -> Result<()> {
    report.note("resident at first", server.resident()?, "MB");
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let meter = Meter { server, clients };

    meter.many("create Pod", args.pods, report, |n| (Method::POST, pods.clone(), pod(n))).await?;
    report.note(format!("resident with {} Pods", args.pods), server.resident()?, "MB");
    let get = |n: usize| (Method::GET, format!("{pods}/{}", pod_name(n * 7919 % args.pods)), Vec::new());
    meter.many("get Pod", args.gets, report, get).await?;

    for (name, query) in [
        (format!("list {} Pods", args.pods), String::new()),
        (
            format!("list by label {} of them", args.pods.div_ceil(GROUPS)),
            "?labelSelector=group%3Dg7".to_owned(),
        ),
        (format!("list a page of {PAGE}"), format!("?limit={PAGE}")),
    ] {
        meter.one_by_one(&name, args.lists, report, &format!("{pods}{query}")).await?;
    }
    watch(args, &meter, namespace, report).await
}

/// Measures requests with the CPU time that they cost.
struct Meter<'a> {
    server: &'a Server,
    clients: &'a Clients,
}

impl Meter<'_> {
    /// Requests from all connections at once.
    async fn many(
        &self,
        name: &str,
        count: usize,
        report: &mut Report,
        request: impl Fn(usize) -> (Method, String, Vec<u8>),
    ) -> Result<()> {
        let (cpu, begun) = (self.server.cpu()?, Instant::now());
        let took = self.clients.all(count, request).await?;
        let wall = begun.elapsed();
        report.time(format!("{name}, CPU"), (self.server.cpu()? - cpu).div_f64(count as f64));
        report.latencies(name, took);
        report.note(format!("{name}, time for all"), wall.as_secs_f64(), "s");
        Ok(())
    }

    /// The same request over and over from one connection.
    async fn one_by_one(&self, name: &str, count: usize, report: &mut Report, path: &str) -> Result<()> {
        let cpu = self.server.cpu()?;
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = Instant::now();
            let json = ("application/json", "application/json");
            self.clients.nth(0).bytes(Method::GET, path, json, Vec::new()).await?;
            took.push(begun.elapsed());
        }
        report.time(format!("{name}, CPU"), (self.server.cpu()? - cpu).div_f64(count as f64));
        report.latencies(name, took);
        Ok(())
    }
}

/// Watches that all see the same objects come; each object says when it was sent.
async fn watch(args: &Args, meter: &Meter<'_>, namespace: &str, report: &mut Report) -> Result<()> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let query = format!("{path}?watch=true&labelSelector=benchmark%3Dwatch");
    let mut bodies = Vec::with_capacity(args.watchers);
    for n in 0..args.watchers {
        bodies.push(meter.clients.watch(n, &query).await?);
    }
    let begun = Instant::now();
    let cpu = meter.server.cpu()?;
    let readers = bodies.into_iter().map(|body| async move {
        let (mut took, mut left) = (Vec::with_capacity(args.events), args.events);
        events(body, |line| {
            took.extend(sent(line).and_then(|at| begun.elapsed().checked_sub(at)));
            left -= 1;
            left > 0
        })
        .await?;
        anyhow::Ok(took)
    });
    let writer = async {
        for n in 0..args.events {
            let labels = json!({"benchmark": "watch"});
            let sent = begun.elapsed().as_micros().to_string();
            let object =
                json!({"metadata": {"name": format!("event-{n}"), "labels": labels}, "data": {"sent": sent}});
            meter.clients.post(&path, &object).await?;
        }
        Ok(())
    };
    let both = futures::future::try_join(futures::future::try_join_all(readers), writer);
    let (took, ()) =
        tokio::time::timeout(DELIVERY_LIMIT, both).await.context("events were not delivered in time")??;
    let delivered = args.events * args.watchers;
    let each = (meter.server.cpu()? - cpu).div_f64(delivered as f64);
    report.note(format!("event to each of {} watches, CPU", args.watchers), each.as_secs_f64() * 1e6, "us");
    report.latencies("event from sending to delivery", took.concat());
    Ok(())
}

/// When the object of an event was sent, since the beginning.
fn sent(line: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(line).ok()?;
    let (_, rest) = text.split_once("\"sent\":\"")?;
    Some(Duration::from_micros(rest.split('"').next()?.parse().ok()?))
}

fn pod_name(n: usize) -> String {
    format!("pod-{n:06}")
}

/// A Pod as Deployments make them.
fn pod(n: usize) -> Vec<u8> {
    let container = |name: &str| {
        json!({
            "name": name,
            "image": "registry.example/team/service:1.2.3",
            "args": ["--listen=:8080", "--log-level=info"],
            "env": [
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "DATABASE", "value": "postgres://database.example/service"},
            ],
            "ports": [{"name": "http", "containerPort": 8080}],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/service"}],
        })
    };
    json!({
        "metadata": {
            "name": pod_name(n),
            "labels": {"app": "service", "group": format!("g{}", n % GROUPS), "pod-template-hash": "6d4cf56db6"},
            "annotations": {"example.com/config-checksum": "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456"},
        },
        "spec": {
            "schedulerName": "none",
            "containers": [container("service")],
            "volumes": [{"name": "config", "configMap": {"name": "service"}}],
        },
    })
    .to_string()
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_say_when_their_object_was_sent() {
        let line = br#"{"type":"ADDED","object":{"data":{"sent":"1500"}}}"#;
        assert_eq!(sent(line), Some(Duration::from_micros(1500)));
        assert_eq!(sent(b"{\"type\":\"BOOKMARK\"}"), None);
    }
}
