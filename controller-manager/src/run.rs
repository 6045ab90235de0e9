//! Wiring: connect, serve the endpoints, stand for election, start the controllers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use client::lease::Election;
use client::{Client, Connection, Recorder, ServiceAccount, connect};
use daemon::{KUBERNETES_VERSION, Tasks};
use prometheus::Registry;
use serve::{Diagnostics, Health, Server, metrics};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::args::Args;
use crate::config::Config;
use crate::context::Context;
use crate::informers::Informers;
use crate::registry;

const NAME: &str = "kube-controller-manager";
const PORT: u16 = 10257;

/// Runs the daemon: returns when everything is started.
pub async fn run(args: Args, tasks: Tasks) -> anyhow::Result<()> {
    let config = Arc::new(Config::new(&args)?);
    let controllers = registry::selected(&config.controllers).map_err(|e| anyhow!("--controllers: {e}"))?;
    let missing = registry::missing(&config.controllers);
    if !missing.is_empty() {
        bail!("--controllers: not supported: {}", missing.join(", "));
    }
    let agent = format!("{NAME}/{KUBERNETES_VERSION}");
    let mut connection = Connection::from_path(&args.kubeconfig, &agent);
    connection.server = (!args.master.is_empty()).then(|| args.master.clone());
    let client = connect(&connection).await.context("--kubeconfig")?;
    let delegates = if args.use_service_account_credentials {
        let connection = Connection { anonymous: true, ..connection.clone() };
        Some(connect(&connection).await?)
    } else {
        None
    };
    let metrics = metrics::registry(KUBERNETES_VERSION);
    serve_endpoints(&args, &agent, metrics.clone(), &tasks).await?;
    let election = args.election.leader_elect.then(|| election(&args));
    tasks.clone().critical("controllers", async move {
        let stop = tasks.token();
        if let Some(election) = &election {
            tokio::select! {
                () = election.acquire(&client) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
        start(&controllers, &client, delegates.as_ref(), config, &metrics, &tasks);
        match election {
            Some(election) => Ok(election.hold(&client, stop).await?),
            None => {
                stop.cancelled().await;
                Ok(())
            }
        }
    });
    Ok(())
}

fn election(args: &Args) -> Election {
    let flags = &args.election;
    let name = match flags.leader_elect_resource_name.as_str() {
        "" => NAME,
        name => name,
    };
    Election {
        namespace: flags.leader_elect_resource_namespace.clone(),
        lease_duration: flags.leader_elect_lease_duration.0,
        renew_deadline: flags.leader_elect_renew_deadline.0,
        retry_period: flags.leader_elect_retry_period.0,
        ..Election::new(name)
    }
}

async fn serve_endpoints(args: &Args, agent: &str, metrics: Registry, tasks: &Tasks) -> anyhow::Result<()> {
    let Some(address) = args.serving.address(PORT) else { return Ok(()) };
    let diagnostics = Diagnostics {
        health: Health::new(),
        metrics,
        configz: None,
        guard: Some(args.delegation.guard(agent).await?),
    };
    let tls = args.serving.tls(NAME)?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    info!(%address, "Serving securely");
    let stop = tasks.token();
    let watch = (Arc::clone(&tls), stop.clone());
    tasks.restarting("certificates", move || {
        let (tls, stop) = watch.clone();
        async move {
            tls.watch(stop).await;
            Ok(())
        }
    });
    tasks.critical("endpoints", async move {
        Server::https(tls).serve(listener, diagnostics.service(), stop).await;
        Ok(())
    });
    Ok(())
}

fn start(
    controllers: &[&'static registry::Controller],
    client: &Client,
    delegates: Option<&Client>,
    config: Arc<Config>,
    metrics: &Registry,
    tasks: &Tasks,
) {
    let informers = Arc::new(Informers::default());
    for controller in controllers {
        let reader = client.clone();
        let client = match delegates {
            None => client.clone(),
            Some(bare) => {
                let account = ServiceAccount::new(client.clone(), "kube-system", controller.account);
                bare.acting_as(Arc::new(account))
            }
        };
        let (recorder, pump) = Recorder::new(client.clone(), controller.account, "");
        let stop = tasks.token();
        // A controller that has nothing to do keeps no recorder, which ends this.
        tasks.plain("events", async move {
            pump.run(stop).await;
            Ok(())
        });
        info!(controller = controller.name, "Starting controller");
        (controller.start)(&Context {
            name: controller.name,
            client,
            reader,
            informers: Arc::clone(&informers),
            recorder,
            tasks: tasks.clone(),
            metrics: metrics.clone(),
            config: Arc::clone(&config),
        });
    }
    for informer in informers.used() {
        let stop = tasks.token();
        let slow = informer.clone();
        tasks.critical("informer", informer.run(client.clone(), stop).map_ok());
        tasks.plain("informer sync", async move {
            if tokio::time::timeout(Duration::from_secs(60), slow.synced()).await.is_err() {
                warn!(resource = %slow.resource().plural, "Still waiting for the first list");
            }
            Ok(())
        });
    }
}

/// A future whose end is a good end.
trait Ends: Future<Output = ()> + Sized {
    fn map_ok(self) -> impl Future<Output = anyhow::Result<()>> {
        async move {
            self.await;
            Ok(())
        }
    }
}

impl<F: Future<Output = ()>> Ends for F {}
