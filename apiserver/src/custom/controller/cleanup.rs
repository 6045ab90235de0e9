//! The end of a definition: its objects are deleted, then it goes.

use std::sync::Arc;
use std::time::Duration;

use api::error::Result;
use api::{ApiError, Value};
use jiff::Timestamp;

use super::{call, set_condition};
use crate::authn::UserInfo;
use crate::custom::{definitions_store, is_true};
use crate::kinds::definition::CLEANUP;
use crate::registry::{Call, DeleteOptions};
use crate::resources::{Row, TABLE};
use crate::server::Server;
use crate::storage::Stored;

/// How long the last objects may take to go before this is told.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many objects are deleted at a time.
const AT_A_TIME: usize = 16;

/// A definition that somebody wants deleted: it waits for its objects.
pub fn begin_cleanup(mut definition: Value) -> Value {
    definition.set(&["metadata", "deletionTimestamp"], api::time::format(Timestamp::now()));
    let finalizers =
        definition.make_object().entry("metadata").make_object().entry("finalizers").make_array();
    if !finalizers.iter().any(|f| f.as_str() == Some(CLEANUP)) {
        finalizers.push(CLEANUP.into());
    }
    let why = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(&mut definition, "Terminating", "True", "InstanceDeletionPending", why);
    definition
}

fn waits(definition: &Value) -> bool {
    definition.is_terminating()
        && definition.array_at(&["metadata", "finalizers"]).iter().any(|f| f.as_str() == Some(CLEANUP))
}

/// Deletes the objects of a definition, waits until they are gone, and lets it go.
pub(super) async fn clean_up(server: &Arc<Server>, name: &str) -> Result<()> {
    let cached = server.storage.cache(definitions_store()).get(name);
    let Some(definition) = cached.map(|s| s.object()).filter(waits) else { return Ok(()) };
    tell(server, name, "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress")
        .await?;
    let spec = definition.get("spec");
    let overlaps =
        TABLE.find_any_version(spec.str_at(&["group"]), spec.str_at(&["names", "plural"])).is_some();
    let (reason, message) = if overlaps {
        ("OverlappingBuiltInResource", "instances overlap with built-in resources in storage")
    } else if is_true(&definition, "Established") {
        if let Err(e) = delete_objects(server, &definition).await {
            let why = format!("could not issue all deletes: {e}");
            tell(server, name, "True", "InstanceDeletionFailed", &why).await?;
            return Err(e);
        }
        ("InstanceDeletionCompleted", "removed all instances")
    } else {
        ("NeverEstablished", "resource was never established")
    };
    let result = call(server, name, "")
        .rewrite(|definition| {
            set_condition(definition, "Terminating", "False", reason, message);
            let finalizers =
                definition.make_object().entry("metadata").make_object().entry("finalizers").make_array();
            finalizers.retain(|f| f.as_str() != Some(CLEANUP));
            if finalizers.is_empty() {
                definition.remove_at(&["metadata", "finalizers"]);
            }
            Ok(())
        })
        .await;
    match result {
        Err(e) if e.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}

async fn tell(server: &Arc<Server>, name: &str, status: &str, reason: &str, message: &str) -> Result<()> {
    let told = call(server, name, "status")
        .update(|old| {
            let mut new = old.clone();
            set_condition(&mut new, "Terminating", status, reason, message);
            Ok(new)
        })
        .await;
    match told {
        Err(e) if e.is_not_found() => Ok(()),
        told => told.map(|_| ()),
    }
}

async fn delete(server: &Arc<Server>, row: &Row, stored: &Stored) -> Result<()> {
    let object = stored.object();
    if object.is_terminating() {
        return Ok(());
    }
    let mut call = Call::new(server.clone(), row, UserInfo::server());
    call.namespace = object.namespace().to_owned();
    call.name = object.name().to_owned();
    match call.delete(&DeleteOptions::default()).await {
        Err(e) if !e.is_not_found() => Err(e),
        _ => Ok(()),
    }
}

async fn delete_objects(server: &Arc<Server>, definition: &Value) -> Result<()> {
    let served = server.storage.custom().load();
    let (group, plural) =
        (definition.str_at(&["spec", "group"]), definition.str_at(&["spec", "names", "plural"]));
    let Some(custom) = served.definition(group, plural) else {
        // Another server may have been faster.
        server.storage.catch_up().await?;
        let gone = server.storage.cache(definitions_store()).get(definition.name()).is_none();
        return if gone { Ok(()) } else { Err(ApiError::internal("its resource is not served")) };
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut changed = custom.cache.subscribe();
    loop {
        changed.mark_unchanged();
        // Another server may have created objects before it knew of the deletion.
        server.storage.catch_up().await?;
        let snapshot = custom.cache.snapshot();
        if snapshot.objects.is_empty() {
            return Ok(());
        }
        let objects: Vec<Arc<Stored>> = snapshot.objects.values().map(|held| Arc::clone(held)).collect();
        for some in objects.chunks(AT_A_TIME) {
            let mut deletions = Vec::with_capacity(some.len());
            for stored in some {
                deletions.push(delete(server, &custom.stored, stored));
            }
            futures::future::try_join_all(deletions).await?;
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(deadline) => {
                return Err(ApiError::timeout("could not confirm zero CustomResources remaining", 0));
            }
        }
    }
}
