//! The Lease by which each API server says that it is there.
//!
//! Source: KEP-1965, <https://kubernetes.io/docs/concepts/architecture/leases/#api-server-identity>.

use std::sync::Arc;
use std::time::Duration;

use api::error::Result;
use api::{Value, names, object, time};
use data_encoding::BASE32_NOPAD;
use jiff::{SignedDuration, Timestamp};
use ring::digest::{SHA256, digest};

use crate::authn::UserInfo;
use crate::registry::{Call, DeleteOptions};
use crate::resources::TABLE;
use crate::server::Server;
use crate::starting::Step;

const RENEW: Duration = Duration::from_secs(10);
const COLLECT: Duration = Duration::from_secs(3600);
const LASTS: i64 = 3600;
const NAMESPACE: &str = "kube-system";
const LABEL: &str = "apiserver.kubernetes.io/identity";
const COMPONENT: &str = "kube-apiserver";

/// The name of the Lease of the API server on a host.
pub fn name_on(host: &str) -> String {
    let mut bytes = Vec::new();
    for part in [host, COMPONENT] {
        bytes.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    let hash = digest(&SHA256, &bytes);
    format!("apiserver-{}", BASE32_NOPAD.encode(&hash.as_ref()[..16]).to_ascii_lowercase())
}

fn call(server: &Arc<Server>, name: &str) -> Call {
    let row = TABLE.find_any_version("coordination.k8s.io", "leases").expect("a built-in resource");
    let mut call = Call::new(server.clone(), row, UserInfo::server());
    call.namespace = NAMESPACE.to_owned();
    call.name = name.to_owned();
    call.write.manager = COMPONENT.to_owned();
    call
}

/// Renews the Lease of this server, and removes those of servers that are gone.
pub async fn keep(server: Arc<Server>, host: String) {
    let name = name_on(&host);
    let holder = format!("{name}_{}", names::new_uid());
    let mut collected: Option<tokio::time::Instant> = None;
    loop {
        if let Err(e) = renew(&server, &name, &holder, &host).await {
            tracing::warn!(error = %e, "the Lease of this server is not renewed");
        }
        server.starting.done(Step::Identity);
        if collected.is_none_or(|at| at.elapsed() >= COLLECT) {
            collect(&server).await;
            collected = Some(tokio::time::Instant::now());
            server.starting.done(Step::IdentityCollected);
        }
        tokio::time::sleep(RENEW).await;
    }
}

async fn renew(server: &Arc<Server>, name: &str, holder: &str, host: &str) -> Result<()> {
    let call = call(server, name);
    let store = call.row.store.expect("leases are stored");
    let now = time::format_micro(Timestamp::now());
    let labels = object!({"apiserver.kubernetes.io/identity": COMPONENT, "kubernetes.io/hostname": host});
    if server.storage.cache(store).get(&call.row.key(NAMESPACE, name)).is_none() {
        let lease = object!({
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": (labels.clone())},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": LASTS, "renewTime": (now.as_str())},
        });
        match call.create(lease).await {
            Err(e) if e.reason() == "AlreadyExists" => {}
            result => return result.map(|_| ()),
        }
    }
    let renewed = |old: &Value| {
        let mut new = old.clone();
        for (label, value) in labels.as_object().into_iter().flat_map(|m| m.iter()) {
            new.set(&["metadata", "labels", label], value);
        }
        new.set(&["spec", "holderIdentity"], holder);
        new.set(&["spec", "leaseDurationSeconds"], LASTS);
        new.set(&["spec", "renewTime"], now.as_str());
        Ok(new)
    };
    call.update(renewed).await.map(|_| ())
}

/// Removes the Leases that were not renewed in time.
async fn collect(server: &Arc<Server>) {
    let row = TABLE.find_any_version("coordination.k8s.io", "leases").expect("a built-in resource");
    let snapshot = server.storage.cache(row.store.expect("leases are stored")).snapshot();
    let now = Timestamp::now();
    for stored in snapshot.objects.values().filter(|s| s.label(LABEL) == Some(COMPONENT)) {
        let lease = stored.object();
        if lease.namespace() != NAMESPACE || !is_over(&lease, now) {
            continue;
        }
        let options = DeleteOptions {
            resource_version: Some(lease.resource_version().to_owned()),
            ..DeleteOptions::default()
        };
        if let Err(e) = call(server, lease.name()).delete(&options).await
            && !e.is_not_found()
        {
            tracing::warn!(error = %e, lease = lease.name(), "the Lease of a server that is gone stays");
        }
    }
}

fn is_over(lease: &Value, now: Timestamp) -> bool {
    let renewed = time::parse(lease.str_at(&["spec", "renewTime"]));
    let lasts = lease.at(&["spec", "leaseDurationSeconds"]).as_i64();
    match (renewed, lasts) {
        (Some(renewed), Some(lasts)) => renewed + SignedDuration::from_secs(lasts) < now,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_upstream_gives() {
        // printf '\0\4host\0\16kube-apiserver' | openssl sha256 -binary | head -c 16 | base32
        assert_eq!(name_on("host"), "apiserver-dd6egxogzxmivwqge6rcnj6rwi");
    }

    #[test]
    fn leases_end_when_they_are_not_renewed() {
        let now = Timestamp::now();
        let lease = |ago: i64| {
            let renewed = time::format_micro(now - SignedDuration::from_secs(ago));
            object!({"spec": {"leaseDurationSeconds": LASTS, "renewTime": renewed}})
        };
        assert!(!is_over(&lease(LASTS - 5), now));
        assert!(is_over(&lease(LASTS + 5), now));
        assert!(is_over(&object!({"spec": {}}), now));
    }
}
