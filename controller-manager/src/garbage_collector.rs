//! The garbage collector: what is owned by nothing that exists any more is deleted, and foreground and orphaning deletions are
//! carried out.

mod graph;
mod process;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Informer, Key, Next, Queue, Resource};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::discovery::discover;
use graph::{Graph, Meta};

/// Nothing depends on these, and they come and go all the time.
const IGNORED: &[(&str, &str)] = &[("", "events"), ("events.k8s.io", "events")];

/// What all workers share.
struct Collector {
    graph: Mutex<Graph>,
    /// Uids to look at.
    queue: Queue<Key>,
    /// The watched resources, and how to stop each watch.
    watched: Mutex<HashMap<Resource, CancellationToken>>,
    /// The set of served resources may have changed.
    rediscover: Notify,
}

pub(crate) fn start(cx: &Context) {
    if !cx.config.garbage_collector {
        tracing::info!("Switched off by --enable-garbage-collector");
        return;
    }
    let collector = Arc::new(Collector {
        graph: Mutex::default(),
        queue: Queue::new(),
        watched: Mutex::default(),
        rediscover: Notify::new(),
    });
    collector.rediscover.notify_one();
    let (watcher, watcher_cx) = (Arc::clone(&collector), cx.clone());
    cx.tasks.critical("garbage-collector monitors", async move {
        let stop = watcher_cx.tasks.token();
        tokio::select! {
            () = monitor(&watcher_cx, &watcher) => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    });
    let queue = collector.queue.clone();
    cx.work(queue, cx.config.workers.gc, &[], move |cx, uid| {
        let collector = Arc::clone(&collector);
        async move { process::process(&cx, &collector, uid.name()).await.map(|()| Next::Done) }
    });
}

/// Watches the metadata of everything that can be deleted, as it comes to be served.
async fn monitor(cx: &Context, collector: &Arc<Collector>) {
    loop {
        collector.rediscover.notified().await;
        // Several definitions often change together.
        tokio::time::sleep(Duration::from_millis(500)).await;
        match discover(&cx.reader).await {
            Ok(found) => {
                let failed = !found.failed.is_empty();
                follow(cx, collector, found);
                if failed {
                    retry_later(collector).await;
                }
            }
            Err(e) => {
                tracing::warn!(err = %e, "Cannot discover resources");
                retry_later(collector).await;
            }
        }
    }
}

async fn retry_later(collector: &Collector) {
    tokio::time::sleep(Duration::from_secs(5)).await;
    collector.rediscover.notify_one();
}

fn follow(cx: &Context, collector: &Arc<Collector>, found: crate::discovery::Discovery) {
    let wanted: Vec<Resource> = found
        .served
        .into_iter()
        .filter(|s| s.can(&["delete", "list", "watch"]))
        .map(|s| s.resource)
        .filter(|r| !IGNORED.contains(&(&r.group, &r.plural)))
        .collect();
    let mut watched = collector.watched.lock();
    if found.failed.is_empty() {
        watched.retain(|resource, stop| {
            let keep = wanted.contains(resource);
            if !keep {
                stop.cancel();
                collector.graph.lock().forget(resource);
            }
            keep
        });
    }
    for resource in wanted {
        if watched.contains_key(&resource) {
            continue;
        }
        let stop = cx.tasks.token().child_token();
        watched.insert(resource.clone(), stop.clone());
        let informer = informer(collector, &resource);
        let client = cx.reader.clone();
        cx.tasks.plain("garbage-collector monitor", async move {
            informer.run(client, stop).await;
            Ok(())
        });
    }
}

fn informer(collector: &Arc<Collector>, resource: &Resource) -> Informer<Meta> {
    let informer = Informer::of(resource.clone(), |object| Some(Meta::of(&object))).metadata_only().build();
    let (collector, resource) = (Arc::clone(collector), resource.clone());
    let defines = matches!(resource.plural.as_ref(), "customresourcedefinitions" | "apiservices");
    informer.on_change(move |change| {
        let mut graph = collector.graph.lock();
        let affected = match change {
            client::Change::Deleted(meta) => graph.removed(&meta.uid),
            client::Change::Updated(old, new) if old.uid != new.uid => {
                let mut affected = graph.removed(&old.uid);
                affected.extend(graph.set(&resource, Arc::clone(new)));
                affected
            }
            client::Change::Added(meta) | client::Change::Updated(_, meta) => {
                graph.set(&resource, Arc::clone(meta))
            }
        };
        drop(graph);
        for uid in affected {
            collector.queue.add(Key::new("", &uid));
        }
        if defines {
            collector.rediscover.notify_one();
        }
    });
    informer
}
