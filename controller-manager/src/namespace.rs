//! Namespaces that go away: everything in them is deleted, then they are let go.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Value;
use client::resource::NAMESPACES;
use client::{DeleteOptions, Key, ListOptions, Next, Propagation, Queue, Resource};

use crate::context::Context;
use crate::discovery::{Discovery, Served, discover};
use crate::objects::{Condition, set_condition};

const FINALIZER: &str = "kubernetes";

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let namespaces = cx.informers.namespaces();
    let changed = queue.clone();
    namespaces.on_change(move |change| {
        if change.object().is_terminating() {
            changed.add(Key::of(change.object()));
        }
    });
    cx.work(queue, cx.config.workers.namespace, &[namespaces], reconcile);
}

async fn reconcile(cx: Context, key: Key) -> anyhow::Result<Next> {
    let Some(namespace) = cx.informers.namespaces().store().get(&key) else { return Ok(Next::Done) };
    if !namespace.is_terminating() || !has_finalizer(&namespace) {
        return Ok(Next::Done);
    }
    let discovery = discover(&cx.client).await?;
    let left = empty(&cx, &discovery, key.name()).await;
    report(&cx, &namespace, &discovery, &left).await?;
    if left.failures.is_empty() && left.counts.is_empty() && discovery.failed.is_empty() {
        finalize(&cx, key.name()).await?;
        return Ok(Next::Done);
    }
    // Pods take their time to end; other things go when their finalizers do.
    Ok(Next::After(Duration::from_secs(if left.counts.contains_key("pods.") { 2 } else { 5 })))
}

fn has_finalizer(namespace: &Value) -> bool {
    namespace.array_at(&["spec", "finalizers"]).iter().any(|f| f.as_str() == Some(FINALIZER))
}

/// What is still there, and what could not be deleted.
#[derive(Default)]
struct Left {
    counts: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
    failures: Vec<String>,
}

/// Deletes what can be deleted: pods first, everything else when they are gone.
async fn empty(cx: &Context, discovery: &Discovery, namespace: &str) -> Left {
    let mut left = Left::default();
    let wanted = |s: &&Served| s.resource.namespaced && s.can(&["delete", "list"]);
    let (pods, rest): (Vec<&Served>, Vec<&Served>) = discovery
        .served
        .iter()
        .filter(wanted)
        .partition(|s| s.resource.plural == "pods" && s.resource.group.is_empty());
    for served in pods {
        sweep(cx, served, namespace, &mut left).await;
    }
    if left.counts.is_empty() {
        for served in rest {
            sweep(cx, served, namespace, &mut left).await;
        }
    }
    left
}

async fn sweep(cx: &Context, served: &Served, namespace: &str, left: &mut Left) {
    let name = format!("{}.{}", served.resource.plural, served.resource.group);
    match delete_all(cx, served, namespace).await {
        Ok(items) if items.is_empty() => {}
        Ok(items) => {
            for finalizer in items.iter().flat_map(|i| i.array_at(&["metadata", "finalizers"])) {
                *left.finalizers.entry(finalizer.as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
            left.counts.insert(name, items.len());
        }
        Err(e) if e.is_not_found() => {}
        Err(e) => left.failures.push(format!("{name}: {}", e.message())),
    }
}

/// Deletes the objects of one resource; returns those still there.
async fn delete_all(cx: &Context, served: &Served, namespace: &str) -> client::Result<Vec<Value>> {
    let resource: &Resource = &served.resource;
    let list = ListOptions::default();
    let items = cx.client.items(resource, namespace, &list).await?;
    if items.is_empty() {
        return Ok(items);
    }
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    if served.can(&["deletecollection"]) {
        cx.client.delete_collection(resource, namespace, &list, &options).await?;
    } else {
        for item in items.iter().filter(|i| !i.is_terminating()) {
            match cx.client.delete(resource, namespace, item.name(), &options).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
    }
    cx.client.items(resource, namespace, &list).await
}

async fn report(cx: &Context, namespace: &Value, discovery: &Discovery, left: &Left) -> anyhow::Result<()> {
    let mut updated = namespace.clone();
    let mut conditions = namespace.array_at(&["status", "conditions"]).to_vec();
    let mut changed = false;
    for (kind, status, reason, message) in conditions_of(discovery, left) {
        let condition = Condition { kind, status, reason, message: &message };
        changed |= set_condition(&mut conditions, cx.now(), &condition);
    }
    if changed {
        updated.set(&["status", "conditions"], conditions);
        match cx.client.update_status(&NAMESPACES, &updated).await {
            Err(e) if !e.is_conflict() && !e.is_not_found() => return Err(e.into()),
            _ => {}
        }
    }
    Ok(())
}

type Finding = (&'static str, &'static str, &'static str, String);

fn conditions_of(discovery: &Discovery, left: &Left) -> Vec<Finding> {
    let pick = |bad: bool, yes: Finding, no: Finding| if bad { yes } else { no };
    let counted = |map: &BTreeMap<String, usize>, word: &str| {
        let texts: Vec<String> =
            map.iter().map(|(name, n)| format!("{name} {word} {n} resource instances")).collect();
        texts.join(", ")
    };
    vec![
        pick(
            !discovery.failed.is_empty(),
            (
                "NamespaceDeletionDiscoveryFailure",
                "True",
                "DiscoveryFailed",
                format!(
                    "Discovery failed for some groups, {} failing: {}",
                    discovery.failed.len(),
                    discovery.failed.join(", ")
                ),
            ),
            (
                "NamespaceDeletionDiscoveryFailure",
                "False",
                "ResourcesDiscovered",
                "All resources successfully discovered".to_owned(),
            ),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        pick(
            !left.failures.is_empty(),
            (
                "NamespaceDeletionContentFailure",
                "True",
                "ContentDeletionFailed",
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    left.failures.len(),
                    left.failures.join(", ")
                ),
            ),
            (
                "NamespaceDeletionContentFailure",
                "False",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".to_owned(),
            ),
        ),
        pick(
            !left.counts.is_empty(),
            (
                "NamespaceContentRemaining",
                "True",
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", counted(&left.counts, "has")),
            ),
            (
                "NamespaceContentRemaining",
                "False",
                "ContentRemoved",
                "All content successfully removed".to_owned(),
            ),
        ),
        pick(
            !left.finalizers.is_empty(),
            (
                "NamespaceFinalizersRemaining",
                "True",
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    counted(&left.finalizers, "in")
                ),
            ),
            (
                "NamespaceFinalizersRemaining",
                "False",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".to_owned(),
            ),
        ),
    ]
}

async fn finalize(cx: &Context, name: &str) -> anyhow::Result<()> {
    let Some(mut namespace) = cx.client.get_opt(&NAMESPACES, "", name).await? else { return Ok(()) };
    if !namespace.is_terminating() {
        return Ok(());
    }
    if let Some(Value::Array(finalizers)) = namespace.at_mut(&["spec", "finalizers"]) {
        finalizers.retain(|f| f.as_str() != Some(FINALIZER));
    }
    match cx.client.update_part(&NAMESPACES, "finalize", &namespace).await {
        Err(e) if !e.is_not_found() => Err(e.into()),
        _ => Ok(()),
    }
}
