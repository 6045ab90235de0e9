//! What every controller works with.

use std::future::Future;
use std::sync::Arc;

use api::Value;
use client::{Client, Informer, Key, Next, Queue, Recorder};
use daemon::Tasks;
use jiff::Timestamp;
use prometheus::Registry;

use crate::config::Config;
use crate::informers::Informers;

/// Handed to each controller: its own client, and what all share.
#[derive(Clone)]
pub(crate) struct Context {
    /// The controller's name.
    pub(crate) name: &'static str,
    /// Requests, under the controller's identity.
    pub(crate) client: Client,
    /// Requests under the daemon's own identity, for caches that no other controller shares.
    pub(crate) reader: Client,
    /// Shared caches.
    pub(crate) informers: Arc<Informers>,
    /// Events.
    pub(crate) recorder: Recorder,
    /// Tasks.
    pub(crate) tasks: Tasks,
    /// What is shown at `/metrics`.
    pub(crate) metrics: Registry,
    /// Configuration.
    pub(crate) config: Arc<Config>,
}

impl Context {
    /// Works a queue for ever, once `caches` have filled.
    pub(crate) fn work<F, R>(
        &self,
        queue: Queue<Key>,
        workers: usize,
        caches: &[&Informer<Value>],
        reconcile: F,
    ) where
        F: Fn(Context, Key) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = anyhow::Result<Next>> + Send + 'static,
    {
        let caches: Vec<_> = caches.iter().map(|c| (*c).clone()).collect();
        let (cx, stop) = (self.clone(), self.tasks.token());
        self.tasks.critical(self.name, async move {
            for cache in &caches {
                tokio::select! {
                    () = cache.synced() => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
            let name = cx.name;
            queue.run(name, workers, stop, move |key| reconcile(cx.clone(), key)).await;
            Ok(())
        });
    }

    /// Fills and follows a cache that no other controller shares.
    pub(crate) fn feed(&self, informer: &Informer<Value>) {
        let (informer, client, stop) = (informer.clone(), self.reader.clone(), self.tasks.token());
        self.tasks.critical(self.name, async move {
            informer.run(client, stop).await;
            Ok(())
        });
    }

    /// Puts the key of every object that appears, changes or goes into `queue`.
    pub(crate) fn follow(informer: &Informer<Value>, queue: &Queue<Key>) {
        let queue = queue.clone();
        informer.on_change(move |change| queue.add(Key::of(change.object())));
    }

    /// Puts the controller (of `kind`) of every object that appears, changes or goes into `queue`: the old one too, when it changed.
    pub(crate) fn follow_owned(informer: &Informer<Value>, kind: &'static str, queue: &Queue<Key>) {
        let queue = queue.clone();
        informer.on_change(move |change| {
            for object in change.old().into_iter().chain([change.object()]) {
                if let Some(owner) = crate::objects::controller_of(object).filter(|o| o.kind() == kind) {
                    queue.add(Key::new(object.namespace(), owner.str_at(&["name"])));
                }
            }
        });
    }

    /// The time of this decision.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
