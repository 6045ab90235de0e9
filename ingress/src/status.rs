//! The address of the controller in the status of Ingresses.

use std::net::IpAddr;

use api::{Value, object};
use client::resource::INGRESSES;
use client::{Client, Patch, Result};

/// Writes the address unless it is there.
pub(crate) async fn publish(client: &Client, ingress: &Value, address: IpAddr) -> Result<()> {
    let wanted = object!([{"ip": (address.to_string())}]);
    if ingress.at(&["status", "loadBalancer", "ingress"]) == &wanted {
        return Ok(());
    }
    let patch = object!({"status": {"loadBalancer": {"ingress": wanted}}});
    let target = (ingress.namespace(), ingress.name(), "status");
    match client.patch(&INGRESSES, target, Patch::Merge, &patch).await {
        Err(e) if !e.is_not_found() => Err(e),
        _ => Ok(()),
    }
}
