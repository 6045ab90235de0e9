//! How many objects of a resource there are in each namespace, for the resources that quotas count by number.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use api::Value;
use client::{Change, Informer, Key, Queue, Resource};
use compact_str::CompactString;
use parking_lot::Mutex;
use quota::Source;
use tokio_util::sync::CancellationToken;

use super::by_source;
use crate::context::Context;
use crate::discovery::discover;

const BY_NAMESPACE: &str = "of";

/// The first list of a resource takes no longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Never counted, as ever.
const IGNORED: &str = "events";

struct Tally {
    /// Of each object, its namespace.
    objects: Informer<CompactString>,
    stop: CancellationToken,
}

/// One watch for each resource that is counted.
pub(super) struct Tallies {
    quotas: Informer<Value>,
    queue: Queue<Key>,
    running: Mutex<HashMap<Source, Tally>>,
}

impl Tallies {
    pub(super) fn new(quotas: Informer<Value>, queue: Queue<Key>) -> Self {
        Self { quotas, queue, running: Mutex::default() }
    }

    /// The number of objects in a namespace; none when the resource is not served.
    ///
    /// # Errors
    /// When discovery fails, or the objects cannot be listed in time.
    pub(super) async fn count(
        &self,
        cx: &Context,
        group: &str,
        plural: &str,
        namespace: &str,
    ) -> anyhow::Result<Option<i64>> {
        if plural == IGNORED && matches!(group, "" | "events.k8s.io") {
            return Ok(None);
        }
        let source = Source::of(group, plural);
        let known = self.running.lock().get(&source).map(|t| t.objects.clone());
        let objects = match known {
            Some(objects) => objects,
            None => match served(cx, group, plural).await? {
                Some(resource) => self.watch(cx, source, resource),
                None => return Ok(None),
            },
        };
        if tokio::time::timeout(PATIENCE, objects.synced()).await.is_err() {
            bail!("cannot list {plural} to count them");
        }
        let found = objects.store().by_index(BY_NAMESPACE, namespace).len();
        Ok(Some(i64::try_from(found).unwrap_or(i64::MAX)))
    }

    fn watch(&self, cx: &Context, source: Source, resource: Resource) -> Informer<CompactString> {
        let mut running = self.running.lock();
        if let Some(tally) = running.get(&source) {
            return tally.objects.clone();
        }
        let name = source.count_name();
        let objects = Informer::of(resource, |object| Some(CompactString::from(object.namespace())))
            .metadata_only()
            .index(BY_NAMESPACE, |namespace| vec![namespace.clone()])
            .build();
        let (quotas, queue, counted) = (self.quotas.clone(), self.queue.clone(), source.clone());
        objects.on_change(move |change| {
            let Change::Deleted(namespace) = change else { return };
            for quota in quotas.store().in_namespace(namespace) {
                if by_source(&quota).contains_key(&counted) {
                    queue.add(Key::of(&quota));
                }
            }
        });
        let stop = cx.tasks.token().child_token();
        let (informer, client, ends) = (objects.clone(), cx.reader.clone(), stop.clone());
        tracing::info!(name, "Counting objects for quotas");
        cx.tasks.plain("quota monitor", async move {
            informer.run(client, ends).await;
            Ok(())
        });
        running.insert(source, Tally { objects: objects.clone(), stop });
        objects
    }

    /// Stops the watches that no quota asks for any more.
    pub(super) fn forget_unwanted(&self, quotas: &[Arc<Value>]) {
        let mut running = self.running.lock();
        if running.is_empty() {
            return;
        }
        let wanted: HashSet<Source> = quotas.iter().flat_map(|q| by_source(q).into_keys()).collect();
        running.retain(|source, tally| {
            let keep = wanted.contains(source);
            if !keep {
                tally.stop.cancel();
            }
            keep
        });
    }
}

/// The resource under which the server lists and watches objects of this name.
async fn served(cx: &Context, group: &str, plural: &str) -> anyhow::Result<Option<Resource>> {
    let found = discover(&cx.reader).await?;
    let fits = |r: &Resource| r.namespaced && r.group == group && r.plural == plural;
    let served = found.served.into_iter().find(|s| fits(&s.resource) && s.can(&["list", "watch"]));
    if served.is_none() && found.failed.iter().any(|v| v.split_once('/').is_some_and(|(g, _)| g == group)) {
        bail!("the API group {group} cannot be asked what it serves");
    }
    Ok(served.map(|s| s.resource))
}
