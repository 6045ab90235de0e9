//! Making the node known.

use api::{Map, Value, object};
use client::Patch;
use client::resource::NODES;

use super::status;
use crate::Kubelet;

const CLOUD_TAINT: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// Makes the node object, or brings an older one up to date.
pub(super) async fn run(kubelet: &Kubelet) -> client::Result<()> {
    let name = kubelet.config.node_name.as_str();
    let start = &kubelet.metrics.node_start;
    start.attempts(jiff::Timestamp::now());
    if let Some(existing) = kubelet.client.get_opt(&NODES, "", name).await? {
        return update(kubelet, existing).await;
    }
    if !kubelet.config.file.register_node {
        return Ok(());
    }
    let findings = status::Findings::collect(kubelet).await;
    let now = api::time::format(jiff::Timestamp::now());
    let mut node = object!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": (Value::Object(labels(kubelet))),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": {},
    });
    let configured = &kubelet.config.file.register_with_taints;
    let mut taints: Vec<Value> =
        configured.iter().filter_map(|taint| Value::from_serialize(taint).ok()).collect();
    if kubelet.config.external_cloud {
        taints.push(object!({"key": CLOUD_TAINT, "value": "true", "effect": "NoSchedule"}));
    }
    if !taints.is_empty() {
        node.set(&["spec", "taints"], Value::Array(taints));
    }
    let provider = kubelet.config.file.provider_id.as_str();
    if !provider.is_empty() {
        node.set(&["spec", "providerID"], provider);
    }
    let status = status::generate(kubelet, &node, &findings, &now);
    node.set(&["status"], status);
    match kubelet.client.create(&NODES, "", &node).await {
        Ok(_) => {
            tracing::info!(node = name, "Successfully registered node");
            start.registered(jiff::Timestamp::now());
            Ok(())
        }
        Err(error) if error.is_already_exists() => {
            let existing = kubelet.client.get(&NODES, "", name).await?;
            update(kubelet, existing).await
        }
        Err(error) => Err(error),
    }
}

/// The labels that every node has, and those of `--node-labels`.
fn labels(kubelet: &Kubelet) -> Map {
    let arch = kubelet.facts.architecture.as_str();
    let mut labels = Map::new();
    for (key, value) in [
        ("beta.kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("kubernetes.io/hostname", kubelet.config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
    ] {
        labels.insert(key, value);
    }
    for (key, value) in &kubelet.config.labels {
        labels.insert(key.as_str(), value.as_str());
    }
    labels
}

/// An older object gets the labels that it lacks.
async fn update(kubelet: &Kubelet, existing: Value) -> client::Result<()> {
    let wanted = labels(kubelet);
    let missing: Vec<_> =
        wanted.iter().filter(|(key, value)| existing.label(key) != value.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut labels = Map::new();
    for (key, value) in missing {
        labels.insert(key, value.clone());
    }
    let patch = object!({"metadata": {"labels": (Value::Object(labels))}});
    let path = ("", kubelet.config.node_name.as_str(), "");
    kubelet.client.patch(&NODES, path, Patch::Merge, &patch).await?;
    Ok(())
}
