//! Wiring: connect, serve the endpoints, watch, stand for election, schedule.

use std::sync::Arc;

use anyhow::Context as _;
use api::Value;
use client::resource::{
    NAMESPACES, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES,
};
use client::{Change, Connection, Informer, Recorder, connect};
use daemon::{KUBERNETES_VERSION, Tasks};
use parking_lot::Mutex;
use placement::{Labels, NodeView};
use serve::{Diagnostics, Health, Server, metrics};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::info;

use crate::args::Args;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::pod::Pod;
use crate::queue::{Happened, Queue};
use crate::schedule::{Scheduler, State};
use crate::volumes::Volumes;

const NAME: &str = "kube-scheduler";
const PORT: u16 = 10259;

/// What is watched.
struct Caches {
    pods: Informer<Pod>,
    nodes: Informer<NodeView>,
    namespaces: Informer<Labels>,
    volumes: Volumes,
}

impl Caches {
    fn new() -> Self {
        let values = |resource| Informer::of_values(resource, |_| {}).build();
        Self {
            pods: Informer::of(PODS, |pod| Pod::of(&pod)).build(),
            nodes: Informer::of(NODES, |node| Some(NodeView::of(&node))).build(),
            namespaces: Informer::of(NAMESPACES, |namespace| Some(Labels::of(&namespace))).build(),
            volumes: Volumes {
                claims: values(PERSISTENT_VOLUME_CLAIMS),
                volumes: values(PERSISTENT_VOLUMES),
                classes: values(STORAGE_CLASSES),
            },
        }
    }
}

/// Runs the daemon: returns when everything is started.
pub async fn run(args: Args, tasks: Tasks) -> anyhow::Result<()> {
    let config = Config::new(&args)?;
    let agent = format!("{NAME}/{KUBERNETES_VERSION}");
    let mut connection = Connection::from_path(&config.kubeconfig, &agent);
    connection.server = (!args.master.is_empty()).then(|| args.master.clone());
    let client = connect(&connection).await.context("kubeconfig")?;
    let (recorder, pump) = Recorder::new(client.clone(), &config.names[0], &daemon::hostname());
    let stop = tasks.token();
    tasks.critical("events", async move {
        pump.run(stop).await;
        Ok(())
    });
    let caches = Caches::new();
    let scheduler = Arc::new(Scheduler {
        client: client.clone(),
        recorder,
        tasks: tasks.clone(),
        names: config.names.clone(),
        state: Mutex::new(State {
            cluster: Cluster::default(),
            queue: Queue::new(config.initial_backoff, config.max_backoff),
        }),
        wake: Notify::new(),
        volumes: caches.volumes.clone(),
        claim_changes: watch::Sender::new(0),
    });
    serve_endpoints(&args, &config, &scheduler, &agent, &tasks).await?;
    listen(&caches, &scheduler);
    watch_all(&caches, &client, &tasks);
    tasks.clone().critical("scheduler", async move {
        let stop = tasks.token();
        tokio::select! {
            () = synced(&caches) => {}
            () = stop.cancelled() => return Ok(()),
        }
        let Some(election) = config.election else {
            tokio::select! {
                () = scheduler.run(caches.pods.store()) => {}
                () = stop.cancelled() => {}
            }
            return Ok(());
        };
        tokio::select! {
            () = election.acquire(&client) => {}
            () = stop.cancelled() => return Ok(()),
        }
        info!("Starting scheduling");
        tokio::select! {
            () = scheduler.run(caches.pods.store()) => Ok(()),
            held = election.hold(&client, stop.clone()) => Ok(held?),
        }
    });
    Ok(())
}

async fn synced(caches: &Caches) {
    caches.nodes.synced().await;
    caches.namespaces.synced().await;
    for cache in [&caches.volumes.claims, &caches.volumes.volumes, &caches.volumes.classes] {
        cache.synced().await;
    }
    caches.pods.synced().await;
}

fn watch_all(caches: &Caches, client: &client::Client, tasks: &Tasks) {
    fn keep<T: Send + Sync + 'static>(cache: &Informer<T>, client: &client::Client, tasks: &Tasks) {
        let running = cache.clone().run(client.clone(), tasks.token());
        tasks.critical("informer", async move {
            running.await;
            Ok(())
        });
    }
    keep(&caches.pods, client, tasks);
    keep(&caches.nodes, client, tasks);
    keep(&caches.namespaces, client, tasks);
    for cache in [&caches.volumes.claims, &caches.volumes.volumes, &caches.volumes.classes] {
        keep(cache, client, tasks);
    }
}

/// Connects the caches with the picture and the queue.
fn listen(caches: &Caches, scheduler: &Arc<Scheduler>) {
    let s = Arc::clone(scheduler);
    caches.pods.on_change(move |change| pod_changed(&s, change));
    let s = Arc::clone(scheduler);
    caches.nodes.on_change(move |change| match change {
        Change::Deleted(node) => s.state.lock().cluster.remove_node(&node.name),
        Change::Added(node) | Change::Updated(_, node) => {
            let changed = s.state.lock().cluster.set_node((**node).clone());
            if changed {
                s.happened(Happened::Node);
            }
        }
    });
    let (s, names) = (Arc::clone(scheduler), caches.namespaces.clone());
    caches.namespaces.on_change(move |_| {
        // Namespaces are few: all their labels are taken over at once.
        let keys = names.store().keys();
        let all = keys.iter().filter_map(|k| Some((k.name().into(), (*names.store().get(k)?).clone())));
        s.state.lock().cluster.namespaces = all.collect();
        s.happened(Happened::PodPlaced);
    });
    for cache in [&caches.volumes.claims, &caches.volumes.volumes, &caches.volumes.classes] {
        let s = Arc::clone(scheduler);
        cache.on_change(move |_: &Change<Value>| {
            s.claim_changes.send_modify(|n| *n += 1);
            s.happened(Happened::Volume);
        });
    }
}

fn pod_changed(s: &Scheduler, change: &Change<Pod>) {
    let now = Instant::now();
    let pod = change.object();
    let gone = matches!(change, Change::Deleted(_));
    let mut what = None;
    {
        let state = &mut *s.state.lock();
        if gone {
            state.queue.remove(&pod.key);
            if state.cluster.remove(&pod.key).is_some() {
                what = Some(Happened::PodGone);
            }
        } else if pod.is_assigned() {
            let moved = change.old().is_none_or(|old| !old.is_assigned() || old.labels != pod.labels);
            state.queue.remove(&pod.key);
            state.cluster.place(Arc::clone(pod));
            what = moved.then_some(Happened::PodPlaced);
        } else if s.wants(pod) {
            // Another pod of the same name is another pod.
            if change.old().is_some_and(|old| old.uid != pod.uid) {
                state.queue.remove(&pod.key);
                state.cluster.remove(&pod.key);
            }
            if !state.cluster.holds(pod) && worth_trying(change) {
                state.queue.add(&pod.key, pod.priority, now);
            }
        } else {
            state.queue.remove(&pod.key);
        }
    }
    match what {
        Some(what) => s.happened(what),
        None => s.wake.notify_one(),
    }
}

/// Our own writes to a pod's status are no reason to try again.
fn worth_trying(change: &Change<Pod>) -> bool {
    let new: &Pod = change.object();
    change.old().is_none_or(|old| {
        old.uid != new.uid
            || old.gated != new.gated
            || old.labels != new.labels
            || old.view.requests != new.view.requests
            || old.view.tolerations != new.view.tolerations
    })
}

async fn serve_endpoints(
    args: &Args,
    config: &Config,
    scheduler: &Arc<Scheduler>,
    agent: &str,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let Some(address) = args.serving.address(PORT) else { return Ok(()) };
    let registry = metrics::registry(KUBERNETES_VERSION);
    metrics::register(&registry, crate::metrics::Pending::new(Arc::clone(scheduler)));
    let diagnostics = Diagnostics {
        health: Health::new(),
        metrics: registry,
        configz: Some(config.configz.as_str().into()),
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
