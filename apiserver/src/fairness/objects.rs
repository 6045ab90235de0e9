//! The objects of priority and fairness that every cluster has, and how they are kept.
//!
//! Mandatory ones always have the spec they should have; suggested ones do as long as nobody has changed them, which the
//! annotation tells. Those that earlier servers had and this one has not are deleted.

use std::sync::Arc;
use std::time::Duration;

use api::Value;
use api::error::Result;
use tokio::time::Instant;

use crate::authn::UserInfo;
use crate::registry::{Call, DeleteOptions};
use crate::resources::TABLE;
use crate::server::Server;

/// The group.
pub(super) const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const ANNOTATION: &str = "apf.kubernetes.io/autoupdate-spec";
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];
/// Servers of several versions on one etcd do not fight more often than this.
const PAUSE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(1);
/// Resources and what of them there must be; levels come before the schemas that name them.
const BOOTSTRAP: [(&str, &str); 2] = [
    ("prioritylevelconfigurations", include_str!("../../data/bootstrap/prioritylevelconfigurations.json")),
    ("flowschemas", include_str!("../../data/bootstrap/flowschemas.json")),
];

fn read(text: &str) -> Vec<Value> {
    let decoded = api::json::decode(text.as_bytes()).map(|d| d.value).unwrap_or_default();
    decoded.as_array().cloned().unwrap_or_default()
}

/// Levels and schemas that are there whatever etcd holds.
pub(super) fn mandatory() -> (Vec<Value>, Vec<Value>) {
    let own = |text: &str| {
        let mut all = read(text);
        all.retain(|o| MANDATORY.contains(&o.name()));
        all
    };
    (own(BOOTSTRAP[0].1), own(BOOTSTRAP[1].1))
}

/// All levels and schemas of a new cluster.
#[cfg(test)]
pub(super) fn all() -> (Vec<Value>, Vec<Value>) {
    (read(BOOTSTRAP[0].1), read(BOOTSTRAP[1].1))
}

/// Keeps the objects for ever.
pub async fn keep(server: Arc<Server>) {
    server.storage.loaded().await;
    let mut changes =
        BOOTSTRAP.map(|(plural, _)| server.storage.cache(TABLE.store(GROUP, plural)).subscribe());
    loop {
        for change in &mut changes {
            change.mark_unchanged();
        }
        let began = Instant::now();
        if let Err(e) = ensure(&server).await {
            tracing::warn!(error = %e, "the objects of priority and fairness are not as they should be yet");
            tokio::time::sleep(RETRY).await;
            continue;
        }
        let [one, two] = &mut changes;
        tokio::select! {
            _ = one.changed() => {}
            _ = two.changed() => {}
        }
        tokio::time::sleep_until(began + PAUSE).await;
    }
}

/// Makes, mends and deletes what has to be.
pub async fn ensure(server: &Arc<Server>) -> Result<()> {
    for (plural, text) in BOOTSTRAP {
        let wanted = read(text);
        let cache = server.storage.cache(TABLE.store(GROUP, plural)).clone();
        for object in &wanted {
            let call = call(server, plural, object.name());
            let Some(present) = cache.get(object.name()).map(|s| s.object()) else {
                match call.create(object.clone()).await {
                    Err(e) if e.reason() != "AlreadyExists" => return Err(e),
                    _ => continue,
                }
            };
            if revised(&present, object).is_none() {
                continue;
            }
            match call.update(|old| Ok(revised(old, object).unwrap_or_else(|| old.clone()))).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
        for stored in cache.snapshot().objects.values() {
            let present = stored.object();
            let ours = present.annotation(ANNOTATION) == Some("true");
            if ours && !wanted.iter().any(|w| w.name() == present.name()) {
                match call(server, plural, present.name()).delete(&DeleteOptions::default()).await {
                    Err(e) if !e.is_not_found() => return Err(e),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// The object as it should be; none when it is.
fn revised(present: &Value, wanted: &Value) -> Option<Value> {
    let annotation = present.annotation(ANNOTATION);
    let told = match annotation {
        Some("true" | "True" | "TRUE" | "t" | "T" | "1") => Some(true),
        Some("false" | "False" | "FALSE" | "f" | "F" | "0") => Some(false),
        _ => None,
    };
    let untouched = present.at(&["metadata", "generation"]).as_i64() == Some(1);
    let update = MANDATORY.contains(&wanted.name()) || told.unwrap_or(untouched);
    let spec_differs = update && present.get("spec") != wanted.get("spec");
    if !spec_differs && told == Some(update) {
        return None;
    }
    let mut new = present.clone();
    if spec_differs {
        new.set(&["spec"], wanted.get("spec"));
    }
    if told != Some(update) {
        new.set(&["metadata", "annotations", ANNOTATION], if update { "true" } else { "false" });
    }
    Some(new)
}

pub(super) fn call(server: &Arc<Server>, plural: &str, name: &str) -> Call {
    let row = TABLE.find_any_version(GROUP, plural).expect("a built-in resource");
    let mut call = Call::new(server.clone(), row, UserInfo::server());
    call.name = name.to_owned();
    call.write.manager = "api-priority-and-fairness-config-producer-v1".to_owned();
    call
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn objects_that_nobody_changed_are_mended() {
        let wanted = |name: &str| object!({"metadata": {"name": name}, "spec": {"a": 1}});
        let present = |name: &str, annotation: &str, generation: i64, a: i64| {
            let mut o = object!({"metadata": {"name": name, "generation": generation}, "spec": {"a": a}});
            if !annotation.is_empty() {
                o.set(&["metadata", "annotations", ANNOTATION], annotation);
            }
            o
        };
        let check = |name: &str, present: Value, want: Option<(i64, &str)>| {
            let got = revised(&present, &wanted(name));
            let shown = got
                .as_ref()
                .map(|g| (g.at(&["spec", "a"]).as_i64().unwrap(), g.annotation(ANNOTATION).unwrap()));
            assert_eq!(shown, want, "{present}");
        };
        check("s", present("s", "true", 3, 1), None);
        check("s", present("s", "true", 3, 2), Some((1, "true")));
        check("s", present("s", "false", 1, 2), None);
        check("s", present("s", "", 1, 2), Some((1, "true")));
        check("s", present("s", "", 2, 2), Some((2, "false")));
        check("exempt", present("exempt", "false", 2, 2), Some((1, "true")));
        assert_eq!(mandatory().0.len(), 2);
        assert_eq!(mandatory().1.len(), 2);
    }
}
