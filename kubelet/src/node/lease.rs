//! The node's lease: the sign of life that others look at.

use std::time::Duration;

use api::{Value, object};
use client::resource::LEASES;

use crate::Kubelet;

const NAMESPACE: &str = "kube-node-lease";

pub(super) async fn run(kubelet: &Kubelet) {
    let seconds = kubelet.config.file.node_lease_duration_seconds;
    // A quarter of its duration: three renewals may fail before anybody notices.
    let period = Duration::from_millis(u64::from(seconds) * 250);
    let mut lease = None;
    loop {
        let pause = match renew(kubelet, &mut lease).await {
            Ok(()) => period.mul_f64(rand::random_range(0.96..1.04)),
            Err(error) => {
                tracing::warn!(err = %error, "Cannot renew the node's lease");
                lease = None;
                Duration::from_secs(1)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn renew(kubelet: &Kubelet, lease: &mut Option<Value>) -> client::Result<()> {
    let name = kubelet.config.node_name.as_str();
    let now = api::time::format_micro(jiff::Timestamp::now());
    let current = match lease.take() {
        Some(lease) => Some(lease),
        None => kubelet.client.get_opt(&LEASES, NAMESPACE, name).await?,
    };
    let spec = object!({
        "holderIdentity": name,
        "leaseDurationSeconds": (i64::from(kubelet.config.file.node_lease_duration_seconds)),
        "renewTime": (now.as_str()),
    });
    *lease = Some(match current {
        Some(mut current) => {
            current.set(&["spec", "holderIdentity"], name);
            current.set(&["spec", "leaseDurationSeconds"], spec.get("leaseDurationSeconds").clone());
            current.set(&["spec", "renewTime"], now);
            own(kubelet, &mut current);
            kubelet.client.update(&LEASES, &current).await?
        }
        None => {
            let mut fresh = object!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": (spec),
            });
            own(kubelet, &mut fresh);
            kubelet.client.create(&LEASES, NAMESPACE, &fresh).await?
        }
    });
    Ok(())
}

/// The lease goes with its node.
fn own(kubelet: &Kubelet, lease: &mut Value) {
    let Some(uid) = kubelet.node_uid() else { return };
    if !lease.array_at(&["metadata", "ownerReferences"]).is_empty() {
        return;
    }
    let owner = object!({
        "apiVersion": "v1",
        "kind": "Node",
        "name": (kubelet.config.node_name.as_str()),
        "uid": (uid.as_str()),
    });
    lease.set(&["metadata", "ownerReferences"], Value::Array(vec![owner]));
}
