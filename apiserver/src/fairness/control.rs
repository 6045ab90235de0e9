//! Follows the objects of priority and fairness: what is in force, and the status of FlowSchemas.

use std::sync::Arc;
use std::time::Duration;

use api::error::Result;
use api::{Value, field, object};

use super::objects::{GROUP, call};
use super::{Fairness, config::Config};
use crate::resources::TABLE;
use crate::server::Server;
use crate::starting::Step;

/// How often levels lend to others.
const ADJUST: Duration = Duration::from_secs(10);

/// Follows the objects for ever.
pub async fn run(server: Arc<Server>) {
    let Some(fairness) = server.gate.fair() else { return };
    server.storage.loaded().await;
    let mut changes = ["prioritylevelconfigurations", "flowschemas"]
        .map(|plural| server.storage.cache(TABLE.store(GROUP, plural)).subscribe());
    let mut ticks = tokio::time::interval(ADJUST);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        for change in &mut changes {
            change.mark_unchanged();
        }
        let failed = match digest(&server, fairness).await {
            Ok(()) => false,
            Err(e) => {
                tracing::warn!(error = %e, "could not write the status of a FlowSchema");
                true
            }
        };
        server.starting.done(Step::FlowControlRead);
        let [one, two] = &mut changes;
        loop {
            tokio::select! {
                _ = one.changed() => break,
                _ = two.changed() => break,
                _ = ticks.tick() => {
                    fairness.adjust();
                    if failed || fairness.config.load().has_leftovers() {
                        break;
                    }
                }
            }
        }
    }
}

/// Puts what the objects say in force, and says of FlowSchemas whether their levels are there.
async fn digest(server: &Arc<Server>, fairness: &Fairness) -> Result<()> {
    let objects = |plural: &str| -> Vec<Value> {
        let snapshot = server.storage.cache(TABLE.store(GROUP, plural)).snapshot();
        snapshot.objects.values().map(|s| s.object()).collect()
    };
    let (levels, schemas) = (objects("prioritylevelconfigurations"), objects("flowschemas"));
    fairness.digest(&levels, &schemas);
    let config = fairness.config.load_full();
    for schema in &schemas {
        let Some(condition) = dangling(&config, schema) else { continue };
        let mut call = call(server, "flowschemas", schema.name());
        call.subresource = "status".to_owned();
        call.write.manager = "api-priority-and-fairness-config-consumer-v1".to_owned();
        (call.write.applying, call.write.force) = (true, true);
        let patch = object!({
            "apiVersion": (schema.api_version()), "kind": "FlowSchema", "metadata": {"name": (schema.name())},
            "status": {"conditions": [condition]},
        });
        match call.update(|old| call.apply_patch(Some(old), &patch)).await {
            Err(e) if !e.is_not_found() => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// The condition Dangling that a FlowSchema should have; none when it has it.
fn dangling(config: &Config, schema: &Value) -> Option<Value> {
    let level = schema.str_at(&["spec", "priorityLevelConfiguration", "name"]);
    let found = config.levels.get(level).is_some_and(|s| !s.quiescing);
    let quoted = field::go_quote(level);
    let start = format!("This FlowSchema references the PriorityLevelConfiguration object named {quoted}");
    let (status, reason, message) = match found {
        true => ("False", "Found", format!("{start} and it exists")),
        false => ("True", "NotFound", format!("{start} but there is no such object")),
    };
    let present =
        schema.array_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == "Dangling");
    let same = present.is_some_and(|c| {
        (c.str_at(&["status"]), c.str_at(&["reason"]), c.str_at(&["message"]))
            == (status, reason, message.as_str())
    });
    (!same).then(|| {
        let now = api::time::format(jiff::Timestamp::now());
        object!({
            "type": "Dangling", "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
        })
    })
}
