//! An APIService for each version of a group of custom resources, as each version of the built-in groups has one.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::error::Result;
use api::object;

use crate::aggregation::{CUSTOM_GROUP, CUSTOM_VERSION};
use crate::authn::UserInfo;
use crate::registry::{Call, DeleteOptions};
use crate::resources::TABLE;
use crate::server::Server;

const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Makes the APIServices of the versions that are served, and deletes those of versions that no longer are.
pub(super) async fn align(server: &Arc<Server>) -> Result<()> {
    let rows = server.storage.custom().load().rows();
    let wanted: BTreeSet<(&str, &str)> = rows.iter().map(|r| (r.group, r.version)).collect();
    let cache = server.storage.cache(TABLE.store("apiregistration.k8s.io", "apiservices")).clone();
    for (group, version) in &wanted {
        let name = format!("{version}.{group}");
        if !TABLE.versions(group).is_empty() {
            continue;
        }
        let spec = object!({
            "group": (*group), "version": (*version), "groupPriorityMinimum": CUSTOM_GROUP,
            "versionPriority": CUSTOM_VERSION,
        });
        if let Some(present) = cache.get(&name) {
            // One that a user made is the user's.
            if present.label(MANAGED) == Some("true") && present.object().get("spec") != &spec {
                let call = call(server, &name);
                let changed = call.update(|old| {
                    let mut new = old.clone();
                    new.set(&["spec"], spec.clone());
                    Ok(new)
                });
                changed.await?;
            }
            continue;
        }
        let mut metadata = object!({"name": (name.as_str())});
        metadata.set(&["labels", MANAGED], "true");
        match call(server, &name).create(object!({"metadata": metadata, "spec": spec})).await {
            Err(e) if e.reason() != "AlreadyExists" => return Err(e),
            _ => {}
        }
    }
    for stored in cache.snapshot().objects.values().filter(|s| s.label(MANAGED) == Some("true")) {
        let (version, group) = stored.key.split_once('.').unwrap_or_default();
        if wanted.contains(&(group, version)) {
            continue;
        }
        match call(server, &stored.key).delete(&DeleteOptions::default()).await {
            Err(e) if !e.is_not_found() => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

fn call(server: &Arc<Server>, name: &str) -> Call {
    let row = TABLE.find_any_version("apiregistration.k8s.io", "apiservices");
    let mut call = Call::new(server.clone(), row.expect("a built-in resource"), UserInfo::server());
    call.name = name.to_owned();
    call.write.manager = "kube-apiserver".to_owned();
    call
}
