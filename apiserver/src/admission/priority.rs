//! Priority: a pod's class gives it a number; there is at most one default class.

use api::Value;
use api::error::Result;

use super::{Operation, forbid, is, name_of};
use crate::registry::Call;
use crate::resources::TABLE;

pub(super) fn mutate(
    call: &Call,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<()> {
    if let (Some(old), Operation::Update, true) = (old, operation, is(call, "", "pods")) {
        for field in ["priority", "preemptionPolicy"] {
            let before = old.at(&["spec", field]);
            if object.at(&["spec", field]).is_null() && !before.is_null() {
                object.set(&["spec", field], before);
            }
        }
    }
    if operation != Operation::Create || !is(call, "", "pods") {
        return Ok(());
    }
    let cache = call.server.storage.cache(TABLE.store("scheduling.k8s.io", "priorityclasses"));
    let name = object.str_at(&["spec", "priorityClassName"]).to_owned();
    let class = if name.is_empty() {
        let snapshot = cache.snapshot();
        let marked = snapshot.objects.values().filter(|s| s.may_say("\"globalDefault\":true"));
        let marked = marked.map(|s| s.object());
        marked
            .filter(|c| c.get("globalDefault").as_bool() == Some(true))
            .min_by_key(|c| c.get("value").as_i64())
    } else {
        let missing =
            || forbid(call, name_of(object), format!("no PriorityClass with name {name} was found"));
        Some(cache.get(&name).ok_or_else(missing)?.object())
    };
    let value = class.as_ref().map_or(0, |c| c.get("value").as_i64().unwrap_or(0));
    let policy =
        class.as_ref().map_or("PreemptLowerPriority", |c| c.str_at(&["preemptionPolicy"])).to_owned();
    let given = object.at(&["spec", "priority"]).as_i64();
    if given.is_some_and(|g| g != value) {
        let why = format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name",
            given.unwrap_or(0)
        );
        return Err(forbid(call, name_of(object), why));
    }
    if let Some(class) = &class {
        object.set(&["spec", "priorityClassName"], class.name());
    }
    object.set(&["spec", "priority"], value);
    let given = object.str_at(&["spec", "preemptionPolicy"]);
    if !object.at(&["spec", "preemptionPolicy"]).is_null() && given != policy {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(forbid(call, name_of(object), why));
    }
    object.set(&["spec", "preemptionPolicy"], policy);
    Ok(())
}

/// There is one default class.
pub(super) fn validate(call: &Call, class: &Value) -> Result<()> {
    if !is(call, "scheduling.k8s.io", "priorityclasses") || class.get("globalDefault").as_bool() != Some(true)
    {
        return Ok(());
    }
    let cache = call.server.storage.cache(TABLE.store("scheduling.k8s.io", "priorityclasses"));
    let snapshot = cache.snapshot();
    let other = snapshot
        .objects
        .values()
        .map(|s| s.object())
        .find(|c| c.get("globalDefault").as_bool() == Some(true) && c.name() != class.name());
    match other {
        Some(other) => {
            let why = format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.name()
            );
            Err(forbid(call, name_of(class), why))
        }
        None => Ok(()),
    }
}
