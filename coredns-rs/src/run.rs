//! Wiring: the Corefile, the caches, the ports, and what watches over them.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use client::resource::{ENDPOINT_SLICES, NAMESPACES, SERVICES};
use client::{Client, Connection, Informer, connect};
use compact_str::{CompactString, ToCompactString, format_compact};
use daemon::{KUBERNETES_VERSION, Tasks};
use hickory_server::proto::op::{Message, MessageType, OpCode, Query};
use hickory_server::proto::rr::{Name, RecordType};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use serve::{Diagnostics, Health, Server};
use tokio::net::{TcpListener, UdpSocket};
use tracing::{error, info};

use crate::args::Args;
use crate::corefile;
use crate::handler::{Handler, Shared};
use crate::records::{Service, Slice};
use crate::zone::Zone;

/// Time for a TCP client to send its next question.
const TCP_IDLE: Duration = Duration::from_secs(10);

fn load(args: &Args) -> anyhow::Result<Vec<Zone>> {
    let text = fs::read_to_string(&args.conf).with_context(|| format!("cannot read {}", args.conf))?;
    corefile::parse(&text, args.port)?.iter().map(Zone::new).collect()
}

/// Runs the daemon: returns when everything is started.
pub async fn run(args: Args, tasks: Tasks) -> anyhow::Result<()> {
    let zones = load(&args)?;
    let registry = serve::metrics::registry(KUBERNETES_VERSION);
    let shared = Arc::new(shared(zones, &registry));
    let zones = shared.zones.load_full();
    if zones.iter().any(|z| z.kubernetes.is_some()) {
        let agent = format!("coredns-rs/{KUBERNETES_VERSION}");
        let client = connect(&Connection::from_path(&args.kubeconfig, &agent)).await?;
        watch(&shared.services, &client, &tasks);
        watch(&shared.slices, &client, &tasks);
        watch(&shared.namespaces, &client, &tasks);
    } else {
        info!("No kubernetes plug-in: the API is not asked");
    }
    let ports: BTreeSet<u16> = zones.iter().flat_map(|z| &z.names).map(|(_, port)| *port).collect();
    for port in ports {
        listen(port, &shared, &tasks).await?;
    }
    endpoints(&zones, &shared, registry, &tasks).await?;
    if let Some(every) = zones.iter().find_map(|z| z.reload) {
        let (shared, stop) = (Arc::clone(&shared), tasks.token());
        tasks.critical("reload", async move {
            tokio::select! {
                () = reload(&args, &shared, every) => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        });
    }
    if zones.iter().any(|z| z.loop_check) {
        tasks.critical("loop", look_for_loop(Arc::clone(&shared), tasks.token()));
    }
    Ok(())
}

fn shared(zones: Vec<Zone>, registry: &Registry) -> Shared {
    let counter = |name: &str, help: &str, labels: &[&str]| {
        let counter = IntCounterVec::new(Opts::new(name, help), labels).expect("valid metric");
        serve::metrics::register(registry, counter.clone());
        counter
    };
    let seconds = HistogramOpts::new(
        "coredns_dns_request_duration_seconds",
        "Histogram of the time (in seconds) each request took per zone.",
    );
    let buckets = prometheus::exponential_buckets(0.000_25, 2.0, 16).expect("valid buckets");
    let seconds = HistogramVec::new(seconds.buckets(buckets), &["server"]).expect("valid metric");
    serve::metrics::register(registry, seconds.clone());
    Shared {
        zones: ArcSwap::from_pointee(zones),
        services: Informer::of(SERVICES, |o| Some(Service::of(&o)))
            .index("ip", |s: &Service| s.ips.iter().map(|ip| ip.to_compact_string()).collect())
            .build(),
        slices: Informer::of(ENDPOINT_SLICES, |o| Slice::of(&o))
            .index("service", |s: &Slice| vec![format_compact!("{}/{}", s.namespace, s.service)])
            .index("ip", |s: &Slice| -> Vec<CompactString> {
                s.endpoints.iter().map(|e| e.ip.to_compact_string()).collect()
            })
            .build(),
        namespaces: Informer::of(NAMESPACES, |_| Some(())).metadata_only().build(),
        probe: format!("{}.{}.", rand::random::<u32>(), rand::random::<u32>()),
        probes_seen: AtomicU32::new(0),
        requests: counter(
            "coredns_dns_requests_total",
            "Counter of DNS requests made per zone, protocol and family.",
            &["server", "type"],
        ),
        responses: counter(
            "coredns_dns_responses_total",
            "Counter of response status codes.",
            &["server", "rcode"],
        ),
        seconds,
    }
}

fn watch<T: Send + Sync + 'static>(informer: &Informer<T>, client: &Client, tasks: &Tasks) {
    let running = informer.clone().run(client.clone(), tasks.token());
    tasks.critical("informer", async move {
        running.await;
        Ok(())
    });
}

async fn listen(port: u16, shared: &Arc<Shared>, tasks: &Tasks) -> anyhow::Result<()> {
    let mut server = hickory_server::server::Server::new(Handler { shared: Arc::clone(shared), port });
    let any = ("0.0.0.0", port);
    server.register_socket(UdpSocket::bind(any).await.with_context(|| format!("UDP port {port}"))?);
    let listener = TcpListener::bind(any).await.with_context(|| format!("TCP port {port}"))?;
    server.register_listener(listener, TCP_IDLE, 64);
    info!(port, "Answering");
    let stop = tasks.token();
    let zones = shared.zones.load_full();
    let lameduck = zones.iter().map(|z| z.lameduck).max().unwrap_or_default();
    tasks.critical("dns", async move {
        tokio::select! {
            ended = server.block_until_done() => ended.context("DNS server")?,
            () = stop.cancelled() => {
                // Clients learn late that we go.
                tokio::select! {
                    _ = server.block_until_done() => {}
                    () = tokio::time::sleep(lameduck) => {}
                }
                server.shutdown_gracefully().await.context("DNS server")?;
            }
        }
        Ok(())
    });
    Ok(())
}

async fn endpoints(
    zones: &[Zone],
    shared: &Arc<Shared>,
    registry: Registry,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let wanted =
        zones.iter().flat_map(|z| [("health", &z.health), ("ready", &z.ready), ("metrics", &z.prometheus)]);
    let wanted: BTreeSet<(&str, &String)> = wanted.filter_map(|(k, a)| Some((k, a.as_ref()?))).collect();
    for (kind, address) in wanted {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("{kind}: listen on {address}"))?;
        let health = Health::new();
        let (shared, stop) = (Arc::clone(shared), tasks.token());
        let needs_api = zones.iter().any(|z| z.kubernetes.is_some());
        let diagnostics = Diagnostics { health, metrics: registry.clone(), configz: None, guard: None };
        let service = tower::service_fn(move |request: http::Request<_>| {
            let synced = shared.services.is_synced() && shared.slices.is_synced();
            let ready = !needs_api || (synced && shared.namespaces.is_synced());
            let diagnostics = diagnostics.clone();
            async move {
                Ok::<_, std::convert::Infallible>(match request.uri().path() {
                    "/health" => serve::text(http::StatusCode::OK, "OK"),
                    "/ready" if ready => serve::text(http::StatusCode::OK, "OK"),
                    "/ready" => serve::text(http::StatusCode::SERVICE_UNAVAILABLE, "kubernetes"),
                    _ => diagnostics.handle(request).await,
                })
            }
        });
        tasks.critical(kind, async move {
            Server::http().serve(listener, service, stop).await;
            Ok(())
        });
    }
    Ok(())
}

/// Reads the Corefile (and the files it names) again; one with a mistake changes nothing.
async fn reload(args: &Args, shared: &Shared, every: Duration) {
    let mut before = fs::read_to_string(&args.conf).unwrap_or_default();
    let mut failed = String::new();
    loop {
        tokio::time::sleep(every).await;
        let now = fs::read_to_string(&args.conf).unwrap_or_default();
        match load(args) {
            Ok(zones) => {
                if now != before {
                    info!("Reloaded the Corefile; other ports take a restart");
                    before = now;
                    shared.zones.store(Arc::new(zones));
                } else if zones.iter().any(|z| z.hosts.is_some()) {
                    shared.zones.store(Arc::new(zones));
                }
                failed.clear();
            }
            Err(e) => {
                let why = format!("{e:#}");
                if why != failed {
                    error!(err = why, "Cannot reload the Corefile");
                    failed = why;
                }
            }
        }
    }
}

/// Asks the servers we forward to for a name nobody knows; when that question comes back to us, we forward to ourselves.
async fn look_for_loop(shared: Arc<Shared>, stop: tokio_util::sync::CancellationToken) -> anyhow::Result<()> {
    let name = Name::from_ascii(&shared.probe).context("the probe's name")?;
    let mut query = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    query.add_query(Query::query(name, RecordType::HINFO));
    query.metadata.recursion_desired = true;
    let zones = shared.zones.load_full();
    for forward in zones.iter().flat_map(|z| &z.forward) {
        // Whether anybody answers is not the point.
        let _ = forward.ask(&query).await;
    }
    if shared.probes_seen.load(Ordering::Relaxed) > 1 {
        bail!("plugin/loop: Loop detected: a forwarded query came back");
    }
    stop.cancelled().await;
    Ok(())
}
