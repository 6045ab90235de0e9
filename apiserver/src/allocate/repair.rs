//! Repairs: every address that a Service has is recorded as its own, and none is for long that no Service has.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::Value;
use api::error::Result;

use super::addresses::{self, GROUP};
use super::{addresses_of, services};
use crate::authn::UserInfo;
use crate::registry::Call;
use crate::resources::TABLE;
use crate::server::Server;

/// Time between repairs.
const EVERY: Duration = Duration::from_secs(180);
/// So young an address may belong to a Service that is about to be written.
const GRACE: i64 = 60;
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";

/// Repairs now and then.
pub async fn keep(server: Arc<Server>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(e) = once(&server).await {
            tracing::warn!(error = %e, "addresses and ports of Services could not be repaired");
        }
    }
}

/// Repairs once.
///
/// # Errors
/// etcd does not answer, or something cannot be written.
pub async fn once(server: &Arc<Server>) -> Result<()> {
    server.allocators.ports.repair(&server.storage).await?;
    let row = TABLE.find_any_version("", "services").expect("a built-in resource");
    let call = Call::new(server.clone(), row, UserInfo::server());
    for service in services(&server.storage) {
        for address in addresses_of(&service) {
            claim(&call, address, &service).await?;
        }
    }
    let now = jiff::Timestamp::now().as_second();
    for recorded in recorded(server) {
        let since = api::time::parse(recorded.str_at(&["metadata", "creationTimestamp"]));
        let old = since.is_some_and(|since| now - since.as_second() > GRACE);
        if let Ok(address) = recorded.name().parse()
            && old
            && holder(server, &recorded).is_none_or(|service| !addresses_of(&service).contains(&address))
        {
            tracing::warn!(%address, "an address was taken and never used: it is free again");
            addresses::give_back(&call, address).await;
        }
    }
    Ok(())
}

/// Makes sure that the address is recorded as that of the Service, unless another Service has it too.
async fn claim(call: &Call, address: IpAddr, service: &Value) -> Result<()> {
    let cache = call.server.storage.cache(TABLE.store(GROUP, "ipaddresses"));
    if let Some(recorded) = cache.get(&address.to_string()).map(|s| s.object()) {
        let parent = recorded.at(&["spec", "parentRef"]);
        let own = parent.str_at(&["group"]).is_empty()
            && parent.str_at(&["resource"]) == "services"
            && parent.str_at(&["namespace"]) == service.namespace()
            && parent.str_at(&["name"]) == service.name();
        let holder = holder(&call.server, &recorded);
        if own || holder.is_some_and(|other| addresses_of(&other).contains(&address)) {
            return Ok(());
        }
        addresses::give_back(call, address).await;
    }
    let (namespace, name) = (service.namespace(), service.name());
    if !addresses::in_range(&call.server.storage, address) {
        tracing::warn!(%address, namespace, name, "an address is of no range of Services");
        return Ok(());
    }
    tracing::warn!(%address, namespace, name, "an address was used and not taken: it is taken now");
    addresses::record(call, address, service).await.map(|_| ())
}

/// The addresses that were handed out.
fn recorded(server: &Server) -> Vec<Value> {
    let snapshot = server.storage.cache(TABLE.store(GROUP, "ipaddresses")).snapshot();
    let ours = snapshot.objects.values().filter(|s| s.label(MANAGED_BY) == Some("ipallocator.k8s.io"));
    ours.map(|s| s.object()).collect()
}

/// The Service that an address is recorded for.
fn holder(server: &Server, recorded: &Value) -> Option<Value> {
    let parent = recorded.at(&["spec", "parentRef"]);
    let key = format!("{}/{}", parent.str_at(&["namespace"]), parent.str_at(&["name"]));
    server.storage.cache(TABLE.store("", "services")).get(&key).map(|s| s.object())
}
