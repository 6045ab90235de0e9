//! The Service `kubernetes` and the endpoints behind it: all API servers of the cluster. Each keeps a record in etcd that
//! ends soon after it does; the endpoints are those that have one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::error::Result;
use api::{Value, object};

use crate::bootstrap::{call, ensure, put};
use crate::server::Server;
use crate::starting::Step;
use crate::storage::{Outcome, Precondition, Record, Storage};

/// This server, as a part of the Service.
pub struct OwnService {
    /// First address of the Service range.
    pub service_ip: IpAddr,
    /// Address that other servers and pods reach this server at.
    pub advertise: IpAddr,
    /// Port of this server.
    pub port: u16,
    /// Whether the endpoints are kept at all (`--endpoint-reconciler-type`).
    pub endpoints: bool,
}

const NAME: &str = "kubernetes";
const RECONCILE: Duration = Duration::from_secs(10);
/// How long a server that says nothing more counts as there, in seconds.
const TTL: i64 = 15;
const ALIVE: Record = Record { resource: "apiServerIPInfo", kind: "Endpoints", prefix: "masterleases" };

/// Keeps the Service `kubernetes` as it should be; takes this server out of it in the end.
pub async fn keep(server: Arc<Server>, own: OwnService) {
    server.storage.loaded().await;
    loop {
        if let Err(e) = own.reconcile(&server).await {
            tracing::warn!(error = %e, "the Service kubernetes is not in place");
        }
        server.starting.done(Step::OwnService);
        tokio::select! {
            () = tokio::time::sleep(RECONCILE) => {}
            () = server.stopping.cancelled() => break,
        }
    }
    if own.endpoints
        && let Err(e) = own.leave(&server).await
    {
        tracing::warn!(error = %e, "this server stays among the endpoints of the Service kubernetes for a while");
    }
}

impl OwnService {
    async fn reconcile(&self, server: &Arc<Server>) -> Result<()> {
        let ports = object!([{"name": "https", "port": 443, "protocol": "TCP", "targetPort": (i64::from(self.port))}]);
        let labels = object!({"component": "apiserver", "provider": "kubernetes"});
        let service = object!({
            "metadata": {"name": NAME, "namespace": "default", "labels": (labels)},
            "spec": {"clusterIP": (self.service_ip.to_string()), "ipFamilyPolicy": "SingleStack", "type": "ClusterIP", "ports": ports, "sessionAffinity": "None"},
        });
        ensure(&call(server, "", "services", "default", NAME), service).await?;
        if !self.endpoints {
            return Ok(());
        }
        self.renew(&server.storage).await?;
        self.publish(server).await
    }

    /// Says that this server is there.
    async fn renew(&self, storage: &Storage) -> Result<()> {
        let name = self.advertise.to_string();
        loop {
            let present = ALIVE.get(storage, &name).await?;
            let (mut generation, mut guard) = (0, Precondition::Absent);
            if let Some((record, revision)) = present {
                generation = record.at(&["metadata", "generation"]).as_i64().unwrap_or(0);
                guard = Precondition::Revision(revision);
            }
            let fields = object!({
                "metadata": {"generation": (generation + 1)},
                "subsets": [{"addresses": [{"ip": (name.as_str())}]}],
            });
            let lease = storage.etcd().lease(TTL).await?;
            if let Outcome::Done(_) = ALIVE.put(storage, &name, guard, &fields, Some(lease)).await? {
                return Ok(());
            }
        }
    }

    /// Writes the servers that are there into the endpoints.
    async fn publish(&self, server: &Arc<Server>) -> Result<()> {
        let records = ALIVE.list(&server.storage).await?;
        let addresses: BTreeSet<String> = records.iter().filter_map(address).collect();
        let port = object!([{"name": "https", "port": (i64::from(self.port)), "protocol": "TCP"}]);
        let list: Vec<Value> = addresses.iter().map(|ip| object!({"ip": (ip.as_str())})).collect();
        let subsets = match list.is_empty() {
            true => Value::Array(Vec::new()),
            false => object!([{"addresses": list, "ports": (port.clone())}]),
        };
        let endpoints = object!({
            "metadata": {"name": NAME, "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": (subsets.clone()),
        });
        let at = call(server, "", "endpoints", "default", NAME);
        ensure(&at, endpoints).await?;
        put(&at, "subsets", subsets).await?;
        let ready = |ip: &String| object!({"addresses": [(ip.as_str())], "conditions": {"ready": true}});
        let list: Vec<Value> = addresses.iter().map(ready).collect();
        let slice = object!({
            "metadata": {"name": NAME, "namespace": "default", "labels": {"kubernetes.io/service-name": NAME}},
            "addressType": (if self.advertise.is_ipv4() { "IPv4" } else { "IPv6" }),
            "endpoints": (list.clone()),
            "ports": port,
        });
        let at = call(server, "discovery.k8s.io", "endpointslices", "default", NAME);
        ensure(&at, slice).await?;
        put(&at, "endpoints", list.into()).await
    }

    async fn leave(&self, server: &Arc<Server>) -> Result<()> {
        ALIVE.remove(&server.storage, &self.advertise.to_string()).await?;
        self.publish(server).await
    }
}

/// The address that a record is about.
fn address(record: &Value) -> Option<String> {
    let subset = record.array_at(&["subsets"]).first()?;
    let ip = subset.array_at(&["addresses"]).first()?.str_at(&["ip"]);
    ip.parse::<IpAddr>().ok().map(|ip| ip.to_string())
}
