//! What a kubelet costs: Pods bound to its node from their creation until they are ready and until they are gone, and what
//! the kubelet uses while they run and nothing happens.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::Args;
use crate::clients::{Clients, events};
use crate::process::Server;
use crate::report::Report;

/// Time for Pods to come or to go.
const LIMIT: Duration = Duration::from_secs(600);

/// Measures Pods on a node, so many at a time as the flags say.
pub(crate) async fn all(
    args: &Args,
    kubelet: &Server,
    clients: &Clients,
    namespace: &str,
    report: &mut Report,
) -> Result<()> {
    report.note("resident at first", kubelet.resident()?, "MB");
    let node =
        Node { name: &args.node, image: &args.image, pods: format!("/api/v1/namespaces/{namespace}/pods") };
    for count in &args.at_once {
        node.start(*count, kubelet, clients, report).await?;
        report.note(format!("{count} Pods, resident"), kubelet.resident()?, "MB");
        if args.idle > 0 {
            let cpu = kubelet.cpu()?;
            tokio::time::sleep(Duration::from_secs(args.idle)).await;
            let share = (kubelet.cpu()? - cpu).as_secs_f64() / args.idle as f64 * 100.0;
            report.note(format!("{count} Pods, CPU while they run"), share, "%");
        }
        node.stop(*count, kubelet, clients, report).await?;
    }
    Ok(())
}

/// Where Pods go.
struct Node<'a> {
    name: &'a str,
    image: &'a str,
    pods: String,
}

impl Node<'_> {
    fn pod(&self, name: &str) -> Value {
        json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": self.name,
                // With none, Pods are gone before the kubelet has heard of it.
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "main", "image": self.image, "command": ["sleep", "infinity"]}],
            },
        })
    }

    async fn start(
        &self,
        count: usize,
        kubelet: &Server,
        clients: &Clients,
        report: &mut Report,
    ) -> Result<()> {
        let (cpu, begun) = (kubelet.cpu()?, Instant::now());
        let watch = clients.watch(0, &format!("{}?watch=true&resourceVersion=0", self.pods)).await?;
        let names: Vec<String> = (0..count).map(|n| format!("of-{count}-{n}")).collect();
        let (mut created, mut ready) = (HashMap::new(), HashMap::new());
        let create = async {
            for name in &names {
                created.insert(name.clone(), Instant::now());
                clients.post(&self.pods, &self.pod(name)).await?;
            }
            anyhow::Ok(())
        };
        let follow = events(watch, |line| {
            let event: Value = serde_json::from_slice(line).unwrap_or_default();
            if is_ready(&event["object"]) {
                let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
                ready.entry(name.to_owned()).or_insert_with(Instant::now);
            }
            ready.len() < count
        });
        within_limit(create, follow).await.with_context(|| format!("{count} Pods did not become ready"))?;
        let took = names.iter().filter_map(|name| Some(ready.get(name)?.duration_since(*created.get(name)?)));
        report.latencies(&format!("{count} Pods, created to ready"), took.collect());
        report.time(format!("{count} Pods, all ready"), begun.elapsed());
        report.time(format!("{count} Pods, CPU each to start"), (kubelet.cpu()? - cpu).div_f64(count as f64));
        Ok(())
    }

    async fn stop(
        &self,
        count: usize,
        kubelet: &Server,
        clients: &Clients,
        report: &mut Report,
    ) -> Result<()> {
        let (cpu, begun) = (kubelet.cpu()?, Instant::now());
        let watch = clients.watch(0, &format!("{}?watch=true&resourceVersion=0", self.pods)).await?;
        let mut gone = 0;
        let delete = async {
            for n in 0..count {
                let path = format!("{}/of-{count}-{n}", self.pods);
                clients.request(Method::DELETE, &path).await?;
            }
            anyhow::Ok(())
        };
        let follow = events(watch, |line| {
            let event: Value = serde_json::from_slice(line).unwrap_or_default();
            gone += usize::from(event["type"] == "DELETED");
            gone < count
        });
        within_limit(delete, follow).await.with_context(|| format!("{count} Pods did not go"))?;
        report.time(format!("{count} Pods, all gone"), begun.elapsed());
        report.time(format!("{count} Pods, CPU each to end"), (kubelet.cpu()? - cpu).div_f64(count as f64));
        ensure!(gone == count, "{gone} of {count} Pods went");
        Ok(())
    }
}

/// Waits for what is asked and for what follows from it.
async fn within_limit(
    ask: impl Future<Output = Result<()>>,
    follow: impl Future<Output = Result<()>>,
) -> Result<()> {
    let both = async { tokio::try_join!(ask, follow) };
    tokio::time::timeout(LIMIT, both).await.context("the time is over")??;
    Ok(())
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_ready_by_its_condition() {
        let with =
            |kind: &str, status: &str| json!({"status": {"conditions": [{"type": kind, "status": status}]}});
        assert!(is_ready(&with("Ready", "True")));
        assert!(!is_ready(&with("Ready", "False")));
        assert!(!is_ready(&with("Initialized", "True")));
        assert!(!is_ready(&json!({})));
    }
}
