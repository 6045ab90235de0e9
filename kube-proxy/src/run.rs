//! Wiring: connect, watch, and write rules whenever something changed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::resource::{ENDPOINT_SLICES, NODES, SERVICES};
use client::{Client, Connection, Informer, connect};
use daemon::{KUBERNETES_VERSION, Tasks};
use linux::iptables::Family;
use serve::{Diagnostics, Server};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::args::Args;
use crate::config::{Config, LocalMode};
use crate::conntrack::{self, Destinations};
use crate::endpoint::{Node, Slice};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::node_ports::{self, NodePorts};
use crate::rules::{self, Local, Settings};
use crate::service::Service;
use crate::sync::Sync;
use crate::sysctl;

const NAME: &str = "kube-proxy";

/// The caches rules are made from.
#[derive(Clone)]
struct Caches {
    services: Informer<Service>,
    slices: Informer<Slice>,
    node: Informer<Node>,
}

impl Caches {
    fn new(node: &str) -> Self {
        let name = node.to_owned();
        Self {
            services: Informer::of(SERVICES, |object| Service::of(&object))
                .labels("!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name")
                .build(),
            slices: Informer::of(ENDPOINT_SLICES, move |object| Slice::of(&object, &name))
                .labels("!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name")
                .build(),
            node: Informer::of(NODES, |object| Some(Node::of(&object)))
                .fields(&format!("metadata.name={node}"))
                .build(),
        }
    }

    async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
        self.node.synced().await;
    }

    fn our_node(&self) -> Node {
        self.node.store().list().first().map(|n| Node::clone(n)).unwrap_or_default()
    }
}

/// The proxy at work.
struct Proxy {
    config: Config,
    caches: Caches,
    health: Health,
    metrics: Metrics,
    node_ports: NodePorts,
    families: Vec<(Family, Sync, Destinations)>,
}

/// Runs the daemon: returns when everything is started.
pub async fn run(args: Args, tasks: Tasks) -> anyhow::Result<()> {
    let config = Config::new(&args)?;
    sysctl::apply(&config);
    let agent = format!("{NAME}/{KUBERNETES_VERSION}");
    let mut connection = Connection::from_path(&config.kubeconfig, &agent);
    connection.server = (!config.master.is_empty()).then(|| config.master.clone());
    let client = connect(&connection).await.context("kubeconfig")?;
    let health = Health::new(config.sync_period);
    let registry = serve::metrics::registry(KUBERNETES_VERSION);
    let metrics = Metrics::new(&registry);
    serve_endpoints(&config, &health, registry, &tasks).await?;
    let caches = Caches::new(&config.node);
    let changed = Arc::new(Notify::new());
    watch_all(&caches, &client, &changed, &health, &tasks);
    info!(node = config.node, "Starting");
    let stop = tasks.token();
    let node_ports = NodePorts::new(tasks.clone(), health.clone());
    tasks.critical("proxy", async move {
        let mut proxy = Proxy { config, caches, health, metrics, node_ports, families: Vec::new() };
        tokio::select! {
            () = proxy.run(&changed) => {}
            // The rules stay: connections must survive a restart.
            () = stop.cancelled() => {}
        }
        Ok(())
    });
    Ok(())
}

fn watch_all(caches: &Caches, client: &Client, changed: &Arc<Notify>, health: &Health, tasks: &Tasks) {
    fn watch<T: PartialEq + Send + std::marker::Sync + 'static>(
        informer: &Informer<T>,
        (client, changed, health, tasks): (&Client, &Arc<Notify>, &Health, &Tasks),
    ) {
        let (changed, health) = (Arc::clone(changed), health.clone());
        informer.on_change(move |change| {
            // Changes of what was trimmed away change nothing here.
            if change.old().is_some_and(|old| old == change.object()) {
                return;
            }
            health.queued();
            changed.notify_one();
        });
        let running = informer.clone().run(client.clone(), tasks.token());
        tasks.critical("informer", async move {
            running.await;
            Ok(())
        });
    }
    let with = (client, changed, health, tasks);
    watch(&caches.services, with);
    watch(&caches.slices, with);
    watch(&caches.node, with);
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))
}

async fn serve_endpoints(
    config: &Config,
    health: &Health,
    registry: prometheus::Registry,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    if let Some(address) = config.healthz {
        let (listener, health, stop) = (bind(address).await?, health.clone(), tasks.token());
        tasks.critical("health server", async move {
            let service = tower::service_fn(move |request| health.clone().handle(request));
            Server::http().serve(listener, service, stop).await;
            Ok(())
        });
    }
    if let Some(address) = config.metrics {
        let (listener, stop) = (bind(address).await?, tasks.token());
        let health = serve::Health::new();
        let diagnostics = Diagnostics { health, metrics: registry, configz: None, guard: None };
        tasks.critical("metrics server", async move {
            let service = tower::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let diagnostics = diagnostics.clone();
                async move {
                    if request.uri().path() == "/proxyMode" {
                        return Ok(serve::text(http::StatusCode::OK, "iptables"));
                    }
                    Ok::<_, std::convert::Infallible>(diagnostics.handle(request).await)
                }
            });
            Server::http().serve(listener, service, stop).await;
            Ok(())
        });
    }
    Ok(())
}

impl Proxy {
    /// Writes rules for ever: at every change, and looks after them in between.
    async fn run(&mut self, changed: &Notify) {
        self.caches.synced().await;
        self.families.push((Family::V4, Sync::new(Family::V4).await, Destinations::new()));
        let mut canary = tokio::time::interval(self.config.sync_period);
        canary.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failed = false;
        loop {
            let started = Instant::now();
            let ok = self.sync(started).await;
            if failed && ok {
                info!("Rules are written again");
            }
            failed = !ok;
            tokio::time::sleep_until(started + self.config.min_sync_period).await;
            let retry = if failed { self.config.sync_period } else { Duration::MAX };
            loop {
                tokio::select! {
                    () = changed.notified() => break,
                    () = tokio::time::sleep(retry) => break,
                    _ = canary.tick() => {
                        let mut alive = true;
                        for (_, sync, _) in &mut self.families {
                            alive &= sync.check_canary().await;
                        }
                        if !alive {
                            break;
                        }
                    }
                }
            }
        }
    }

    async fn sync(&mut self, started: Instant) -> bool {
        let (services, slices) = (self.caches.services.store().list(), self.caches.slices.store().list());
        let node = self.caches.our_node();
        self.health.leaving(node.leaving);
        let v6_wanted = services.iter().flat_map(|s| &s.cluster_ips).any(IpAddr::is_ipv6);
        if v6_wanted && self.families.len() == 1 {
            self.families.push((Family::V6, Sync::new(Family::V6).await, Destinations::new()));
        }
        let timer = self.metrics.sync_seconds.start_timer();
        let mut ok = true;
        for (family, sync, destinations) in &mut self.families {
            let v6 = *family == Family::V6;
            let rules = rules::plan(&services, &slices, &settings(&self.config, &node, v6));
            let name = if v6 { "IPv6" } else { "IPv4" };
            for (table, chains) in [("filter", &rules.filter), ("nat", &rules.nat)] {
                let count = chains.values().map(Vec::len).sum::<usize>();
                self.metrics.rules.with_label_values(&[table, name]).set(count as f64);
            }
            if let Err(e) = sync.apply(rules).await {
                error!(err = %e, "Cannot write rules");
                self.metrics.restore_failures.inc();
                sync.forget();
                ok = false;
                continue;
            }
            let now = conntrack::destinations(&services, &slices, v6);
            if now != *destinations {
                *destinations = now;
                clean_flows(v6, destinations.clone()).await;
            }
        }
        timer.observe_duration();
        self.node_ports.apply(node_ports::plan(&services, &slices)).await;
        if ok {
            self.health.synced(started);
            self.metrics.last_sync.set(jiff::Timestamp::now().as_second() as f64);
        }
        ok
    }
}

async fn clean_flows(v6: bool, destinations: Destinations) {
    match tokio::task::spawn_blocking(move || conntrack::clean(v6, &destinations)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(count)) => info!(count, "Forgot stale UDP flows"),
        Ok(Err(e)) => warn!(err = %e, "Cannot clean up connection tracking"),
        Err(e) => warn!(err = %e, "Cannot clean up connection tracking"),
    }
}

fn settings(config: &Config, node: &Node, v6: bool) -> Settings {
    let of_family = |cidrs: &[ipnet::IpNet]| {
        let cidr = cidrs.iter().find(|c| c.addr().is_ipv6() == v6).copied();
        cidr.map_or(Local::Unknown, Local::Source)
    };
    let mut node_ips = node.addresses.clone();
    if let Some(ip) = config.bind_address {
        node_ips.insert(0, ip);
    }
    let node_port_ips = match (&config.node_port_addresses[..], config.node_port_primary) {
        (_, true) => Some(node_ips.iter().take(1).copied().collect()),
        ([], false) => None,
        (cidrs, false) if cidrs.iter().any(|c| c.prefix_len() == 0 && c.addr().is_ipv6() == v6) => None,
        (cidrs, false) => {
            let ips = sysctl::interface_addresses().into_iter();
            Some(ips.filter(|ip| cidrs.iter().any(|c| c.contains(ip))).collect())
        }
    };
    Settings {
        v6,
        local: match &config.local {
            LocalMode::ClusterCidr(cidrs) => of_family(cidrs),
            LocalMode::NodeCidr => of_family(&node.pod_cidrs),
            LocalMode::Interface(name) => Local::Interface(name.clone()),
        },
        masquerade_all: config.masquerade_all,
        mark: config.masquerade_mark,
        localhost_node_ports: config.localhost_node_ports,
        node_port_ips,
        liberal_tracking: config.tracking.be_liberal,
        node_ips,
        zone: node.zone.clone(),
    }
}
