//! What becomes of a CustomResourceDefinition after it is written: its names are accepted, it is established, its
//! schema is judged; when it is deleted, its objects go before it.
//!
//! Several API servers may run on one etcd: each decides from what is there, and a write that another was faster with
//! changes nothing. Mirrors the controllers of apiextensions-apiserver.

mod api_services;
mod cleanup;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::Value;
use api::error::Result;
use tokio::task::JoinSet;

pub use cleanup::begin_cleanup;
pub use status::{Names, next_status};

use super::definitions_store;
use crate::authn::UserInfo;
use crate::registry::Call;
use crate::resources::TABLE;
use crate::server::Server;
use crate::starting::Step;

/// How long a definition that failed is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// What is remembered of a definition between two looks at it.
struct Known {
    revision: i64,
    names: Names,
    terminating: bool,
}

/// Looks after all definitions for ever.
pub async fn run(server: Arc<Server>) {
    server.storage.loaded().await;
    let cache = server.storage.cache(definitions_store()).clone();
    let mut changed = cache.subscribe();
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let mut cleanups: JoinSet<String> = JoinSet::new();
    let mut cleaning: BTreeSet<String> = BTreeSet::new();
    let services = server.storage.cache(TABLE.store("apiregistration.k8s.io", "apiservices")).clone();
    let mut services_changed = services.subscribe();
    let mut served_changed = server.storage.custom().subscribe();
    let mut aligned = None;
    loop {
        changed.mark_unchanged();
        let due = look(&cache.snapshot(), &mut known);
        let mut failed = false;
        for name in &due {
            if let Err(e) = settle(&server, name, &known).await {
                tracing::warn!(definition = name, error = %e, "could not bring a definition up to date");
                known.remove(name);
                failed = true;
            }
        }
        server.starting.done(Step::Definitions);
        let terminating = known.iter().filter(|(_, k)| k.terminating).map(|(name, _)| name.clone());
        for name in terminating.collect::<Vec<_>>() {
            if cleaning.insert(name.clone()) {
                let server = server.clone();
                cleanups.spawn(async move {
                    if let Err(e) = cleanup::clean_up(&server, &name).await {
                        tracing::warn!(definition = name, error = %e, "could not delete the objects of a definition");
                        tokio::time::sleep(RETRY).await;
                    }
                    name
                });
            }
        }
        services_changed.mark_unchanged();
        served_changed.mark_unchanged();
        let state = (server.storage.custom().load().serial, services.snapshot().revision);
        if aligned != Some(state) {
            match api_services::align(&server).await {
                Ok(()) => aligned = Some(state),
                Err(e) => {
                    tracing::warn!(error = %e, "could not bring APIServices up to date");
                    failed = true;
                }
            }
        }
        tokio::select! {
            _ = changed.changed() => {}
            _ = services_changed.changed() => {}
            _ = served_changed.changed() => {}
            Some(ended) = cleanups.join_next() => match ended {
                Ok(name) => {
                    cleaning.remove(&name);
                }
                Err(e) => {
                    tracing::error!(error = %e, "the deletion of the objects of a definition broke");
                    cleaning.clear();
                }
            },
            () = tokio::time::sleep(RETRY), if failed => {}
        }
    }
}

/// Takes note of all definitions. Returns those to look at: the changed ones, and their groups when names may have
/// become free.
fn look(snapshot: &crate::storage::Snapshot, known: &mut BTreeMap<String, Known>) -> BTreeSet<String> {
    let mut due = BTreeSet::new();
    let mut freed: BTreeSet<String> = BTreeSet::new();
    known.retain(|name, k| {
        let kept = snapshot.objects.contains_key(name.as_str());
        if !kept {
            freed.insert(k.names.group.clone());
        }
        kept
    });
    for (name, stored) in &snapshot.objects {
        let before = known.get(&**name);
        if before.is_some_and(|k| k.revision == stored.revision) {
            continue;
        }
        let object = stored.object();
        let names = Names::of(&object);
        if before.is_some_and(|k| !k.names.keeps(&names)) {
            freed.insert(names.group.clone());
        }
        let terminating = object.is_terminating();
        due.insert(name.to_string());
        known.insert(name.to_string(), Known { revision: stored.revision, names, terminating });
    }
    due.extend(known.iter().filter(|(_, k)| freed.contains(&k.names.group)).map(|(name, _)| name.clone()));
    due
}

/// A call of the server to a definition.
fn call(server: &Arc<Server>, name: &str, subresource: &str) -> Call {
    let row = TABLE.find_any_version("apiextensions.k8s.io", "customresourcedefinitions");
    let mut call = Call::new(server.clone(), row.expect("a built-in resource"), UserInfo::server());
    call.name = name.to_owned();
    call.subresource = subresource.to_owned();
    call.write.manager = "kube-apiserver".to_owned();
    call
}

/// Writes the status that a definition should have, step by step.
async fn settle(server: &Arc<Server>, name: &str, known: &BTreeMap<String, Known>) -> Result<()> {
    let others = || known.iter().filter(|(other, _)| *other != name).map(|(_, k)| &k.names);
    let cached = server.storage.cache(definitions_store()).get(name);
    let Some(object) = cached.map(|s| s.object()) else { return Ok(()) };
    if next_status(&object, others()).is_none() {
        return Ok(());
    }
    let names: Vec<&Names> = others().collect();
    let result = call(server, name, "status")
        .update(|old| Ok(next_status(old, names.iter().copied()).unwrap_or_else(|| old.clone())))
        .await;
    match result {
        Err(e) if e.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Sets a condition; the time changes with its status alone.
fn set_condition(definition: &mut Value, kind: &str, status: &str, reason: &str, message: &str) {
    let now = api::time::format(jiff::Timestamp::now());
    let conditions = definition.make_object().entry("status").make_object().entry("conditions").make_array();
    match conditions.iter_mut().find(|c| c.str_at(&["type"]) == kind) {
        Some(condition) => {
            if condition.str_at(&["status"]) != status {
                condition.set(&["lastTransitionTime"], now);
            }
            condition.set(&["status"], status);
            condition.set(&["reason"], reason);
            condition.set(&["message"], message);
        }
        None => conditions.push(api::object!({
            "type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
        })),
    }
}
