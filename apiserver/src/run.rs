//! Starts a server: binds the port, connects to etcd, and keeps everything going that a server needs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use daemon::Tasks;
use futures::FutureExt;
use serve::zpages::Pages;
use serve::{Endpoints, Tls};
use tokio::net::TcpListener;
use tower::service_fn;

use crate::admission::{Policies, Webhooks};
use crate::aggregation::{self, Aggregation};
use crate::allocate::{self, Allocators};
use crate::args::Args;
use crate::bootstrap;
use crate::config::Config;
use crate::discovery::Discovery;
use crate::fairness::{self, Gate};
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::peers::{self, OwnService};
use crate::proxy::Kubelets;
use crate::server::Server;
use crate::starting::{self, Starting, Step};
use crate::storage::{Encryption, Storage};

/// How often bundles of authorities are looked at.
const AUTHORITIES_EVERY: Duration = Duration::from_secs(5);

/// Starts the tasks of a server and returns; they run until the process is asked to end.
pub async fn run(config: Config, tasks: Tasks) -> Result<()> {
    let address = SocketAddr::from(config.listen);
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: is another server running there, or --secure-port wrong?")
    })?;
    let encryption = config.encryption;
    let storage = Storage::connect(config.etcd, encryption.clone(), config.served).await?;
    let range = config.service_ranges[0];
    let first = range.hosts().next().unwrap_or(range.addr());
    let registry = serve::metrics::registry(daemon::KUBERNETES_VERSION);
    let metrics = Metrics::new(registry, &storage, &config.settings.gates)?;
    config.authorizer.register(&metrics.registry);
    serve::metrics::register(&metrics.registry, allocate::Measured::of(&storage, config.node_ports)?);
    let gate = Gate::new(config.limits, &metrics.registry)?;
    let server = Arc::new(Server {
        storage: storage.clone(),
        authenticator: config.authenticator,
        authorizer: config.authorizer,
        auditor: config.auditor,
        allocators: Allocators::new(config.service_ranges, config.node_ports),
        policies: Policies::default(),
        webhooks: Webhooks::default(),
        aggregation: Aggregation::new(config.aggregation)?,
        discovery: Discovery::new(storage.served(), &config.settings.external_address),
        openapi: OpenApi::default(),
        kubelets: Kubelets::new(config.kubelets, config.address_types)?,
        config: config.settings,
        health: serve::Health::new(),
        pages: pages(),
        metrics,
        gate,
        stopping: tasks.token(),
        recent: Arc::default(),
        starting: Starting::default(),
    });
    tasks.linger(config.shutdown_delay);
    add_checks(&server, &tasks, &encryption, config.livez_grace)?;
    if !encryption.is_empty() {
        let stop = tasks.token();
        tasks.plain("encryption configuration", async move {
            encryption.watch(stop).await;
            Ok(())
        });
    }
    config.tls.name_authorities(server.authenticator.authorities())?;
    tasks.plain(
        "bundles of authorities",
        stoppable(&tasks, watch_authorities(server.clone(), config.tls.clone())),
    );
    let (watched, stop) = (server.clone(), tasks.token());
    tasks.plain("authorization configuration", async move {
        watched.authorizer.watch(stop).await;
        Ok(())
    });
    let jwts = server.authenticator.jwts.clone();
    if !jwts.is_empty() {
        let stop = tasks.token();
        tasks.plain("issuers of tokens", async move {
            jwts.watch(stop).await;
            Ok(())
        });
    }
    if let Some(auditor) = &server.auditor {
        auditor.register(&server.metrics.registry);
        let (auditor, stop) = (auditor.clone(), tasks.token());
        tasks.critical("audit", async move {
            auditor.run(stop).await;
            Ok(())
        });
    }

    let feed = storage.clone();
    tasks.critical("storage feed", stoppable(&tasks, async move { feed.feed().await }));
    if let Some(interval) = config.compaction {
        tasks.critical("compaction", stoppable(&tasks, compact(storage, interval)));
    }
    let own = OwnService {
        service_ip: first,
        advertise: config.advertise,
        port: config.listen.1,
        endpoints: config.own_endpoints,
    };
    let loading = server.clone();
    tasks.plain(
        "loading",
        stoppable(&tasks, async move {
            loading.storage.loaded().await;
            loading.starting.done(Step::Loaded);
        }),
    );
    let (one, two) = (server.clone(), server.clone());
    tasks.plain("bootstrap", async move {
        let stopping = one.stopping.clone();
        tokio::select! {
            () = bootstrap::run(one.clone()) => {}
            () = stopping.cancelled() => return Ok(()),
        }
        keep_company(two, own).await;
        Ok(())
    });
    let definitions = crate::custom::controller::run(server.clone());
    tasks.critical("definitions of custom resources", stoppable(&tasks, definitions));
    tasks.critical(
        "availability of APIServices",
        stoppable(&tasks, aggregation::availability::run(server.clone())),
    );
    tasks.critical(
        "discovery of other servers",
        stoppable(&tasks, aggregation::discovery::run(server.clone())),
    );
    if server.gate.fair().is_some() {
        tasks.critical("priority and fairness", stoppable(&tasks, fairness::control::run(server.clone())));
        tasks.critical(
            "objects of priority and fairness",
            stoppable(&tasks, fairness::objects::keep(server.clone())),
        );
    }
    let (front, stop) = (server.clone(), tasks.token());
    tasks.plain("client certificate for other servers", async move {
        front.aggregation.identity.watch(stop).await;
        Ok(())
    });
    let (tls, stop) = (config.tls.clone(), tasks.token());
    tasks.plain("certificate reload", async move {
        tls.watch(stop).await;
        Ok(())
    });
    let (stop, handshake_errors) = (tasks.token(), server.metrics.handshake_errors.clone());
    tasks.critical("https", async move {
        tracing::info!(%address, "Serving securely");
        let service = service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(crate::http::handle(server, request).await) }
        });
        let mut https = serve::Server::https(config.tls);
        https.goaway = config.goaway;
        https.handshake_errors = Some(handshake_errors);
        https.limits.streams = config.max_streams.unwrap_or(https.limits.streams);
        https.serve(listener, service, stop).await;
        Ok(())
    });
    Ok(())
}

/// What a server does for the others and for what all share, until the process is asked to end.
async fn keep_company(server: Arc<Server>, own: OwnService) {
    let stopping = server.stopping.clone();
    let endless = async {
        tokio::join!(
            peers::identity::keep(server.clone(), daemon::hostname()),
            allocate::keep_repaired(server.clone())
        );
    };
    let until_asked = async {
        tokio::select! {
            () = endless => {}
            () = stopping.cancelled() => {}
        }
    };
    tokio::join!(peers::own_service::keep(server.clone(), own), until_asked);
}

/// Reads the bundles of authorities again when they change, and tells other servers.
async fn watch_authorities(server: Arc<Server>, tls: Arc<Tls>) {
    let mut untold = false;
    loop {
        tokio::time::sleep(AUTHORITIES_EVERY).await;
        if server.authenticator.reload() {
            untold = true;
            if let Err(e) = tls.name_authorities(server.authenticator.authorities()) {
                tracing::error!(error = %e, "clients are not told of changed authorities");
            }
        }
        if !untold {
            continue;
        }
        match bootstrap::authentication_config(&server).await {
            Ok(()) => untold = false,
            Err(e) => tracing::warn!(error = %e, "other servers could not be told of changed authorities"),
        }
    }
}

/// A task that ends well when the process is asked to end.
fn stoppable(
    tasks: &Tasks,
    task: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = Result<()>> + Send + 'static {
    let token = tasks.token();
    async move {
        tokio::select! {
            () = task => {}
            () = token.cancelled() => {}
        }
        Ok(())
    }
}

fn add_checks(
    server: &Arc<Server>,
    tasks: &Tasks,
    encryption: &Arc<Encryption>,
    grace: Duration,
) -> Result<()> {
    let health = &server.health;
    health.measure(&server.metrics.slis)?;
    health.add("log", || Ok(()));
    let ask = |server: &Arc<Server>| {
        let (storage, patience) = (server.storage.clone(), server.config.etcd_check_timeout);
        move || {
            let storage = storage.clone();
            async move { ask_etcd(&storage, patience).await }.boxed()
        }
    };
    health.add_async("etcd", Endpoints::All, ask(server));
    health.add_async("etcd-readiness", Endpoints::Ready, ask(server));
    if encryption.has_checks() {
        let checked = encryption.clone();
        health.add_async("kms-providers", Endpoints::NotLive, move || {
            let checked = checked.clone();
            async move { checked.health().await }.boxed()
        });
    }
    let storage = server.storage.clone();
    health.add_ready("informer-sync", move || {
        if storage.is_loaded() { Ok(()) } else { Err("the caches are not loaded yet".to_owned()) }
    });
    starting::add_checks(server, grace);
    let asked = tasks.asked();
    health.add_ready("shutdown", move || match asked.is_cancelled() {
        true => Err("process is shutting down".to_owned()),
        false => Ok(()),
    });
    Ok(())
}

async fn ask_etcd(storage: &Storage, patience: Duration) -> Result<(), String> {
    match tokio::time::timeout(patience, storage.etcd().ping()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("etcd did not answer in time".to_owned()),
    }
}

/// Compacts etcd by the protocol that all API servers share: what is older than one interval goes.
async fn compact(storage: Arc<Storage>, interval: Duration) {
    let (mut version, mut revision) = (0, 0);
    loop {
        tokio::time::sleep(interval).await;
        match storage.compact(version, revision).await {
            Ok((next_version, now)) => (version, revision) = (next_version, now),
            Err(e) => tracing::warn!(error = %e, "compaction of etcd failed"),
        }
    }
}

/// What the process is, and which flags it was given.
fn pages() -> Pages {
    let flags = daemon::flags::values::<Args>("kube-apiserver", std::env::args().skip(1));
    Pages {
        component: "apiserver",
        version: daemon::KUBERNETES_VERSION,
        started: jiff::Timestamp::now(),
        paths: vec!["/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version"],
        flags: flags.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect(),
    }
}
