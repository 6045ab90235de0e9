//! ingress-controller: HTTP and HTTPS from outside to the pods behind Services, by the rules of Ingress objects.
//!
//! [`routes`] makes one table of everything that is watched, as a pure function; [`proxy`] answers each request from the
//! table that is current when the request comes, so that a change never touches a connection; [`tls`] picks certificates
//! by server name. Requests go to the pods themselves, in turn; a pod that refuses the connection is passed over.
//!
//! Invariants: a request is sent twice only when the first endpoint cannot have seen it, or when its method is safe to
//! repeat; secrets that no Ingress names are dropped as they arrive.
//! Source: <https://kubernetes.io/docs/concepts/services-networking/ingress/>.

mod args;
mod proxy;
mod routes;
mod status;
mod tls;
mod watch;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use client::{Connection, connect};
use daemon::{KUBERNETES_VERSION, Tasks};
use serve::{Diagnostics, Health, Server, metrics};
use tokio::net::TcpListener;

pub use args::Args;
use routes::Table;

/// Starts the daemon.
pub async fn run(args: Args, tasks: Tasks) -> Result<()> {
    let agent = format!("ingress-controller/{KUBERNETES_VERSION}");
    let client = connect(&Connection::from_path(&args.kubeconfig, &agent)).await?;
    let table: Arc<ArcSwap<Table>> = Arc::default();
    let bind = async |port: u16| {
        let address = (args.bind_address, port);
        TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on port {port}: is another server there?"))
    };
    let (http, https, health) =
        (bind(args.http_port).await?, bind(args.https_port).await?, bind(args.healthz_port).await?);
    let watcher = watch::Watcher::new(client.clone(), args.clone(), table.clone());
    let ready = watcher.ready();
    watcher.start(&tasks);

    let checks = Health::new();
    checks.add_ready(
        "routes",
        move || if ready.is_cancelled() { Ok(()) } else { Err("not loaded yet".to_owned()) },
    );
    let diagnostics = Diagnostics {
        health: checks,
        metrics: metrics::registry(KUBERNETES_VERSION),
        configz: None,
        guard: None,
    };
    let stop = tasks.token();
    tasks.critical("health", async move {
        Server::http().serve(health, diagnostics.service(), stop).await;
        Ok(())
    });
    let proxy = Arc::new(proxy::Proxy::new(table.clone(), args.https_port, tasks.clone()));
    let (service, stop) = (proxy::service(proxy.clone(), false), tasks.token());
    tasks.critical("http", async move {
        Server::http().serve(http, service, stop).await;
        Ok(())
    });
    let stop = tasks.token();
    tasks.critical("https", async move { tls::serve(https, proxy::service(proxy, true), table, stop).await });
    Ok(())
}
