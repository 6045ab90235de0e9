//! The health check ports of load-balanced Services with the `Local` policy: they tell the load balancer whether this node
//! has endpoints.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use api::{Value, object};
use daemon::Tasks;
use http::{Request, Response, StatusCode};
use parking_lot::RwLock;
use serve::Server;
use serve::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::endpoint::Slice;
use crate::health::Health;
use crate::service::Service;

/// What a port tells: the Service and how many of its endpoints are here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    namespace: String,
    name: String,
    local_endpoints: usize,
}

/// The ports wanted and what they tell.
pub(crate) fn plan(services: &[Arc<Service>], slices: &[Arc<Slice>]) -> BTreeMap<u16, Told> {
    let wanted = services.iter().filter(|s| s.health_check_node_port != 0);
    wanted
        .map(|s| {
            let own = slices.iter().filter(|l| l.namespace == s.namespace && l.service == s.name);
            let local = own.flat_map(|l| &l.endpoints).filter(|e| e.local && e.ready);
            let ips: std::collections::BTreeSet<IpAddr> = local.map(|e| e.ip).collect();
            let told =
                Told { namespace: s.namespace.clone(), name: s.name.clone(), local_endpoints: ips.len() };
            (s.health_check_node_port, told)
        })
        .collect()
}

/// The servers that run now.
pub(crate) struct NodePorts {
    tasks: Tasks,
    health: Health,
    told: Arc<RwLock<BTreeMap<u16, Told>>>,
    running: BTreeMap<u16, CancellationToken>,
}

impl NodePorts {
    pub(crate) fn new(tasks: Tasks, health: Health) -> Self {
        Self { tasks, health, told: Arc::default(), running: BTreeMap::new() }
    }

    /// Starts and stops servers.
    pub(crate) async fn apply(&mut self, wanted: BTreeMap<u16, Told>) {
        self.running.retain(|port, stop| {
            let keep = wanted.contains_key(port);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for port in wanted.keys().filter(|p| !self.running.contains_key(p)).copied().collect::<Vec<_>>() {
            let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
            match TcpListener::bind(address).await {
                Ok(listener) => self.start(port, listener),
                Err(e) => tracing::error!(port, err = %e, "Cannot listen on a health check node port"),
            }
        }
        *self.told.write() = wanted;
    }

    fn start(&mut self, port: u16, listener: TcpListener) {
        let stop = self.tasks.token().child_token();
        self.running.insert(port, stop.clone());
        let (told, health) = (Arc::clone(&self.told), self.health.clone());
        let service = tower::service_fn(move |_: Request<_>| {
            let answer = answer(told.read().get(&port), health.is_healthy());
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        self.tasks.plain("health check node port", async move {
            Server::http().serve(listener, service, stop).await;
            Ok(())
        });
    }
}

fn answer(told: Option<&Told>, healthy: bool) -> Response<serve::Body> {
    let Some(told) = told else { return json(StatusCode::NOT_FOUND, "{}") };
    let body: Value = object!({
        "service": {"namespace": (&told.namespace), "name": (&told.name)},
        "localEndpoints": (told.local_endpoints),
        "serviceProxyHealthy": (healthy),
    });
    let fit = healthy && told.local_endpoints > 0;
    json(if fit { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body.to_json())
}
