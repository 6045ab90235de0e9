//! What is done about one object.

use std::sync::Arc;

use anyhow::anyhow;
use api::{Value, object};
use client::{Client, DeleteOptions, Key, Patch, Propagation, Resource};
use http::Method;

use super::Collector;
use super::graph::{FOREGROUND, Meta, ORPHAN, Owner};
use crate::context::Context;

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// The metadata of an object now.
async fn metadata(
    client: &Client,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> client::Result<Option<Value>> {
    let path = resource.path(namespace, name, "");
    match client.bytes(Method::GET, &path, (METADATA, "application/json"), Vec::new()).await {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(client::Error::Malformed),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

/// Looks at the object of this uid.
pub(super) async fn process(cx: &Context, collector: &Arc<Collector>, uid: &str) -> anyhow::Result<()> {
    let Some((resource, known)) = collector.graph.lock().get(uid) else { return Ok(()) };
    let live = metadata(&cx.client, &resource, &known.namespace, &known.name).await?;
    let Some(live) = live.filter(|l| l.uid() == uid) else {
        // Gone already; the watch will say so too.
        let affected = collector.graph.lock().removed(&known.uid);
        for uid in affected {
            collector.queue.add(Key::new("", &uid));
        }
        return Ok(());
    };
    let meta = Meta::of(&live);
    if meta.terminating {
        if meta.orphan {
            orphan_dependents(cx, collector, &resource, &meta).await?;
            return remove_finalizer(cx, &resource, &live, ORPHAN).await;
        }
        if meta.foreground {
            return delete_dependents(cx, collector, &resource, &live).await;
        }
        return Ok(());
    }
    if meta.owners.is_empty() {
        return Ok(());
    }
    judge(cx, collector, &resource, &live, &meta).await
}

/// Of the owners: who is there to stay, who is going with its dependents, and who is not there.
#[derive(Default)]
struct Owners {
    solid: Vec<Owner>,
    leaving: Vec<Owner>,
    dangling: Vec<Owner>,
}

async fn judge(
    cx: &Context,
    collector: &Arc<Collector>,
    resource: &Resource,
    live: &Value,
    meta: &Meta,
) -> anyhow::Result<()> {
    let mut owners = Owners::default();
    for owner in &meta.owners {
        let known = collector.graph.lock().get(&owner.uid);
        let found = match known {
            Some((_, known)) => Some(known.deletes_dependents()),
            None => look_up(cx, collector, owner, meta).await?,
        };
        match found {
            None => owners.dangling.push(owner.clone()),
            Some(true) => owners.leaving.push(owner.clone()),
            Some(false) => owners.solid.push(owner.clone()),
        }
    }
    if !owners.solid.is_empty() {
        if owners.dangling.is_empty() && owners.leaving.is_empty() {
            return Ok(());
        }
        let gone: Vec<&str> = owners.dangling.iter().chain(&owners.leaving).map(|o| o.uid.as_str()).collect();
        return drop_owners(cx, resource, live, &gone).await;
    }
    let dependents = collector.graph.lock().dependents(live.uid());
    let propagation = if !owners.leaving.is_empty() && !dependents.is_empty() {
        // Objects that own each other in a circle would wait for each other.
        if dependents.iter().any(|(_, d)| d.deletes_dependents()) {
            stop_blocking(cx, resource, live).await?;
        }
        Propagation::Foreground
    } else if meta.orphan {
        Propagation::Orphan
    } else if meta.foreground {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    tracing::info!(resource = %resource.plural, key = %Key::of(live), ?propagation, "Deleting an object without owners");
    let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::uid(live.uid()) };
    gone_is_fine(cx.client.delete(resource, live.namespace(), live.name(), &options).await)
}

fn gone_is_fine(result: client::Result<Value>) -> anyhow::Result<()> {
    match result {
        Err(e) if !e.is_not_found() && !e.is_conflict() => Err(e.into()),
        _ => Ok(()),
    }
}

/// Asks the API server for an owner the graph does not know: whether it waits for dependents, or none when it does not exist.
async fn look_up(
    cx: &Context,
    collector: &Collector,
    owner: &Owner,
    dependent: &Meta,
) -> anyhow::Result<Option<bool>> {
    let group = owner.api_version.split_once('/').map_or("", |(g, _)| g);
    let resource = {
        let watched = collector.watched.lock();
        watched.keys().find(|r| r.group == group && r.kind == owner.kind.as_str()).cloned()
    };
    let Some(resource) = resource else {
        collector.rediscover.notify_one();
        return Err(anyhow!("no resource serves kind {} of {}", owner.kind, owner.api_version));
    };
    if resource.namespaced && dependent.namespace.is_empty() {
        // An owner in a namespace cannot own an object of the cluster: nothing can be said about it.
        return Ok(Some(false));
    }
    let found = metadata(&cx.client, &resource, &dependent.namespace, &owner.name).await?;
    Ok(found.filter(|f| f.uid() == owner.uid).map(|f| Meta::of(&f).deletes_dependents()))
}

/// Writes the object's owners without those in `gone`.
async fn drop_owners(cx: &Context, resource: &Resource, live: &Value, gone: &[&str]) -> anyhow::Result<()> {
    let owners = live.array_at(&["metadata", "ownerReferences"]).iter();
    let left: Vec<Value> = owners.filter(|o| !gone.contains(&o.str_at(&["uid"]))).cloned().collect();
    write_owners(cx, resource, live, left).await
}

async fn write_owners(
    cx: &Context,
    resource: &Resource,
    live: &Value,
    owners: Vec<Value>,
) -> anyhow::Result<()> {
    let patch = object!({"metadata": {
        "uid": (live.uid()), "resourceVersion": (live.resource_version()), "ownerReferences": owners,
    }});
    let target = (live.namespace(), live.name(), "");
    match cx.client.patch(resource, target, Patch::Merge, &patch).await {
        Err(e) if !e.is_not_found() => Err(e.into()),
        _ => Ok(()),
    }
}

/// Lets the owners of an object go before it.
async fn stop_blocking(cx: &Context, resource: &Resource, live: &Value) -> anyhow::Result<()> {
    let mut owners = live.array_at(&["metadata", "ownerReferences"]).to_vec();
    for owner in &mut owners {
        owner.remove_at(&["blockOwnerDeletion"]);
    }
    write_owners(cx, resource, live, owners).await
}

/// Takes this owner from all its dependents.
async fn orphan_dependents(
    cx: &Context,
    collector: &Collector,
    _: &Resource,
    owner: &Meta,
) -> anyhow::Result<()> {
    let dependents = collector.graph.lock().dependents(&owner.uid);
    for (resource, known) in dependents {
        let Some(live) = metadata(&cx.client, &resource, &known.namespace, &known.name).await? else {
            continue;
        };
        if live.uid() == known.uid {
            drop_owners(cx, &resource, &live, &[&owner.uid]).await?;
        }
    }
    Ok(())
}

/// A foreground deletion: dependents go first, and when none holds the owner back, it goes.
async fn delete_dependents(
    cx: &Context,
    collector: &Collector,
    resource: &Resource,
    live: &Value,
) -> anyhow::Result<()> {
    let dependents = collector.graph.lock().dependents(live.uid());
    let blocks = |m: &Meta| m.owners.iter().any(|o| o.uid == live.uid() && o.blocks);
    let blocking = dependents.iter().any(|(_, m)| blocks(m));
    for (_, dependent) in dependents.iter().filter(|(_, m)| !m.terminating) {
        collector.queue.add(Key::new("", &dependent.uid));
    }
    if blocking { Ok(()) } else { remove_finalizer(cx, resource, live, FOREGROUND).await }
}

async fn remove_finalizer(cx: &Context, resource: &Resource, live: &Value, name: &str) -> anyhow::Result<()> {
    let finalizers = live.array_at(&["metadata", "finalizers"]).iter();
    let left: Vec<Value> = finalizers.filter(|f| f.as_str() != Some(name)).cloned().collect();
    let patch = object!({"metadata": {
        "uid": (live.uid()), "resourceVersion": (live.resource_version()), "finalizers": left,
    }});
    let target = (live.namespace(), live.name(), "");
    match cx.client.patch(resource, target, Patch::Merge, &patch).await {
        Err(e) if !e.is_not_found() => Err(e.into()),
        _ => Ok(()),
    }
}
