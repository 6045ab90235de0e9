//! local-path-provisioner: a folder of the node for every claim of its storage class.
//!
//! A claim is served once the scheduler has chosen its node (`volume.kubernetes.io/selected-node`): the folder is made
//! and a PersistentVolume written that is bound to the node. When a volume is released and its policy says Delete, the
//! folder goes first, the volume after it, so that a death between the two loses nothing but is tried again.
//!
//! Invariants: nothing outside the base folder is ever made or removed; only volumes of this provisioner are touched.
//! It serves the node it runs on; a claim for another node gets an event that says so.

mod args;
mod folder;
mod plan;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use api::Value;
use client::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES};
use client::{Client, Connection, DeleteOptions, Informer, Key, Next, Queue, Recorder, connect};
use daemon::{KUBERNETES_VERSION, Tasks};
use serve::{Diagnostics, Health, Server, metrics};
use tokio::net::TcpListener;

pub use args::Args;
use plan::{Claim, Release};

/// What the reconcilers share.
struct Provisioner {
    client: Client,
    args: Args,
    claims: Informer<Value>,
    volumes: Informer<Value>,
    classes: Informer<Value>,
    events: Recorder,
}

/// Starts the daemon.
pub async fn run(args: Args, tasks: Tasks) -> Result<()> {
    let agent = format!("local-path-provisioner/{KUBERNETES_VERSION}");
    let client = connect(&Connection::from_path(&args.kubeconfig, &agent)).await?;
    serve_endpoints(args.health_address, &tasks).await?;
    let (events, pump) = Recorder::new(client.clone(), &args.provisioner_name, &args.node_name);
    let provisioner = Arc::new(Provisioner {
        claims: Informer::of_values(PERSISTENT_VOLUME_CLAIMS, |_| {}).build(),
        volumes: Informer::of_values(PERSISTENT_VOLUMES, |_| {}).build(),
        classes: Informer::of_values(STORAGE_CLASSES, |_| {}).build(),
        client,
        args,
        events,
    });
    let stop = tasks.token();
    tasks.plain("events", async move {
        pump.run(stop).await;
        Ok(())
    });
    follow(&provisioner, &tasks);
    Ok(())
}

async fn serve_endpoints(address: SocketAddr, tasks: &Tasks) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let diagnostics = Diagnostics {
        health: Health::new(),
        metrics: metrics::registry(KUBERNETES_VERSION),
        configz: None,
        guard: None,
    };
    let stop = tasks.token();
    tasks.critical("endpoints", async move {
        Server::http().serve(listener, diagnostics.service(), stop).await;
        Ok(())
    });
    Ok(())
}

/// Feeds the queues from the informers and works them.
fn follow(provisioner: &Arc<Provisioner>, tasks: &Tasks) {
    let (claims, volumes) = (Queue::new(), Queue::new());
    let queue = claims.clone();
    provisioner.claims.on_change(move |change| queue.add(Key::of(change.object())));
    let queue = volumes.clone();
    provisioner.volumes.on_change(move |change| queue.add(Key::of(change.object())));
    for (name, informer) in [
        ("claims", &provisioner.claims),
        ("volumes", &provisioner.volumes),
        ("classes", &provisioner.classes),
    ] {
        let (informer, client, stop) = (informer.clone(), provisioner.client.clone(), tasks.token());
        tasks.critical(name, async move {
            informer.run(client, stop).await;
            Ok(())
        });
    }
    let (this, stop) = (provisioner.clone(), tasks.token());
    tasks.critical("provision", async move {
        this.synced().await;
        let worker = this.clone();
        claims
            .run("provision", 2, stop, move |key| {
                let this = worker.clone();
                async move { this.provision(&key).await }
            })
            .await;
        Ok(())
    });
    let (this, stop) = (provisioner.clone(), tasks.token());
    tasks.critical("release", async move {
        this.synced().await;
        let worker = this.clone();
        volumes
            .run("release", 2, stop, move |key| {
                let this = worker.clone();
                async move { this.release(&key).await }
            })
            .await;
        Ok(())
    });
}

impl Provisioner {
    async fn synced(&self) {
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
    }

    async fn provision(&self, key: &Key) -> Result<Next> {
        let Some(claim) = self.claims.store().get(key) else { return Ok(Next::Done) };
        let class = self.classes.store().find("", claim.str_at(&["spec", "storageClassName"]));
        let name = format!("pvc-{}", claim.uid());
        if self.volumes.store().find("", &name).is_some() {
            return Ok(Next::Done);
        }
        match plan::claim(&claim, class.as_deref(), &self.args) {
            Claim::NotOurs => {}
            Claim::Refused(why) => self.events.warning(&claim, "ProvisioningFailed", why),
            Claim::Provision { folder, volume } => {
                if let Err(e) = folder::make(&self.args.base_path, &folder) {
                    self.events.warning(
                        &claim,
                        "ProvisioningFailed",
                        format!("failed to make the folder: {e:#}"),
                    );
                    return Err(e);
                }
                match self.client.create(&PERSISTENT_VOLUMES, "", &volume).await {
                    Ok(_) => {
                        let message = format!("Successfully provisioned volume {name}");
                        self.events.normal(&claim, "ProvisioningSucceeded", message);
                    }
                    Err(e) if e.is_already_exists() => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(Next::Done)
    }

    async fn release(&self, key: &Key) -> Result<Next> {
        let Some(volume) = self.volumes.store().get(key) else { return Ok(Next::Done) };
        match plan::release(&volume, &self.args) {
            Release::Nothing => {}
            Release::Refused(why) => self.events.warning(&volume, "VolumeFailedDelete", why),
            Release::Remove { folder } => {
                if let Err(e) = folder::remove(&self.args.base_path, &folder) {
                    self.events.warning(&volume, "VolumeFailedDelete", format!("{e:#}"));
                    return Err(e);
                }
                let options = DeleteOptions::uid(volume.uid());
                match self.client.delete(&PERSISTENT_VOLUMES, "", volume.name(), &options).await {
                    Ok(_) => {}
                    Err(e) if e.is_not_found() => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(Next::Done)
    }
}
