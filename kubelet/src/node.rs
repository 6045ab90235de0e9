//! The node object: registration, status and lease.

mod lease;
mod register;
pub(crate) mod status;

use std::sync::Arc;
use std::time::Duration;

use api::Value;
use client::resource::NODES;
use client::{Informer, Patch};

use crate::Kubelet;

/// The informer of this node's own object.
pub(crate) fn informer(kubelet: &Arc<Kubelet>) -> Informer<Value> {
    let name = format!("metadata.name={}", kubelet.config.node_name);
    let informer = Informer::of_values(NODES, |_| {}).fields(&name).build();
    let this = kubelet.clone();
    informer.on_change(move |change| {
        let gone = matches!(change, client::Change::Deleted(_));
        *this.node.write() = (!gone).then(|| change.object().clone());
        if gone {
            this.node_changed.notify_one();
        }
    });
    informer
}

/// Registers the node, then keeps its status up to date until the process ends.
pub(crate) async fn run(kubelet: Arc<Kubelet>) {
    let mut pause = Duration::from_millis(200);
    while let Err(error) = register::run(&kubelet).await {
        tracing::warn!(err = %error, "Cannot register the node yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(7));
    }
    if let Err(error) = kubelet.csi.initialize().await {
        tracing::warn!(err = error, "Cannot make the node's CSINode yet");
    }
    let mut sent = None;
    let frequency = kubelet.config.file.node_status_update_frequency.0;
    loop {
        if let Err(error) = sync(&kubelet, &mut sent).await {
            tracing::warn!(err = %error, "Cannot report the node's status");
            if error.is_not_found() && register::run(&kubelet).await.is_ok() {
                continue;
            }
        }
        // Right after the start the runtime may become ready any moment.
        let soon = matches!(&sent, Some(report) if !report.ready);
        let wait = if soon { Duration::from_secs(1).min(frequency) } else { frequency };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = kubelet.node_changed.notified() => {}
        }
    }
}

/// Has the node reported when what it has for pods changes, until the process ends.
pub(crate) async fn follow(kubelet: Arc<Kubelet>) {
    loop {
        tokio::select! {
            () = kubelet.devices.changed.notified() => {}
            () = kubelet.csi.changed() => {}
        }
        kubelet.node_changed.notify_one();
    }
}

/// Keeps what the runtime can do up to date where nobody hears of the node, until the process ends.
pub(crate) async fn follow_runtime(kubelet: Arc<Kubelet>) {
    loop {
        let known = match kubelet.runtime.status().await {
            Ok((_, abilities)) => {
                *kubelet.abilities.write() = Some(abilities);
                true
            }
            Err(_) => kubelet.abilities.read().is_some(),
        };
        let frequency = kubelet.config.file.node_status_update_frequency.0;
        tokio::time::sleep(if known { frequency } else { Duration::from_secs(1).min(frequency) }).await;
    }
}

/// What was reported last.
struct Report {
    at: tokio::time::Instant,
    status: Value,
    ready: bool,
}

async fn sync(kubelet: &Kubelet, sent: &mut Option<Report>) -> client::Result<()> {
    let cached = kubelet.node.read().clone();
    let node = match cached {
        Some(node) => node,
        None => Arc::new(kubelet.client.get(&NODES, "", &kubelet.config.node_name).await?),
    };
    let mut findings = status::Findings::collect(kubelet).await;
    if sent.is_none() && kubelet.devices.is_fresh() {
        // The node was made over: what plug-ins had before is not there until they say so.
        findings.devices.forget(node.at(&["status", "capacity"]));
    }
    let ready = findings.not_ready.is_empty();
    let now = api::time::format(jiff::Timestamp::now());
    let status = status::generate(kubelet, &node, &findings, &now);
    let report_frequency = kubelet.config.file.node_status_report_frequency.0;
    let due = match sent {
        Some(report) => {
            report.at.elapsed() >= report_frequency
                || !status::same(&report.status, &status)
                || !status::same(node.get("status"), &status)
        }
        None => true,
    };
    let in_use = status::in_use(&status);
    if !due {
        kubelet.csi.note_reported(&in_use);
        return Ok(());
    }
    let patch = status::patch(node.get("status"), &status);
    let path = ("", kubelet.config.node_name.as_str(), "status");
    kubelet.client.patch(&NODES, path, Patch::Strategic, &patch).await?;
    kubelet.csi.note_reported(&in_use);
    if ready {
        kubelet.metrics.node_start.ready(jiff::Timestamp::now());
    }
    *sent = Some(Report { at: tokio::time::Instant::now(), status, ready });
    Ok(())
}

/// Renews the node's lease until the process ends.
pub(crate) async fn keep_lease(kubelet: Arc<Kubelet>) {
    lease::run(&kubelet).await;
}
