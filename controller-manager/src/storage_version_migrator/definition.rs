//! What the definition of a custom resource says of the migration of its objects.

use api::{Value, object};
use client::resource::CUSTOM_RESOURCE_DEFINITIONS;
use client::{Error, Resource};
use jiff::Timestamp;

use super::plan::has;
use crate::context::Context;

const MANAGER: &str = "migration-runner-controller";
const MIGRATING: &str = "StorageMigrating";

/// Says that the objects are being migrated.
pub(super) async fn announce(cx: &Context, migration: &Value) -> Result<(), Error> {
    let Some(definition) = read(cx, migration).await? else { return Ok(()) };
    let message = format!("Migration {} is running", migration.name());
    apply(cx, status(&definition, ("True", "MigrationRunning", &message), cx.now())).await
}

/// Says how it ended. Versions that nothing is stored in any more are forgotten, unless the definition has changed meanwhile.
pub(super) async fn conclude(cx: &Context, migration: &Value) -> Result<(), Error> {
    let Some(definition) = read(cx, migration).await? else { return Ok(()) };
    apply(cx, ended(&definition, has(migration, "Succeeded"), cx.now())).await
}

async fn read(cx: &Context, migration: &Value) -> Result<Option<Value>, Error> {
    let resource = migration.at(&["spec", "resource"]);
    let name = format!("{}.{}", resource.str_at(&["resource"]), resource.str_at(&["group"]));
    if name.ends_with('.') {
        return Ok(None);
    }
    cx.client.get_opt(&CUSTOM_RESOURCE_DEFINITIONS, "", &name).await
}

async fn apply(cx: &Context, configuration: Value) -> Result<(), Error> {
    const DEFINITIONS: Resource = CUSTOM_RESOURCE_DEFINITIONS;
    let at = ("", configuration.name(), "status");
    cx.client.apply_part(&DEFINITIONS, at, MANAGER, &configuration).await.map(|_| ())
}

/// The configuration that says so, if the definition still is as it was read.
fn status(definition: &Value, (status, reason, message): (&str, &str, &str), now: Timestamp) -> Value {
    let generation = definition.at(&["metadata", "generation"]).as_i64().unwrap_or(0);
    object!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": (definition.name()), "resourceVersion": (definition.resource_version())},
        "status": {"conditions": [{
            "type": MIGRATING, "status": status, "lastTransitionTime": (api::time::format(now)), "reason": reason,
            "message": message, "observedGeneration": generation,
        }]},
    })
}

fn ended(definition: &Value, succeeded: bool, now: Timestamp) -> Value {
    let conditions = definition.array_at(&["status", "conditions"]);
    let began = conditions.iter().find(|c| c.str_at(&["type"]) == MIGRATING);
    let generation = definition.at(&["metadata", "generation"]);
    let same = began.is_some_and(|c| c.get("observedGeneration") == generation);
    let (reason, message) = match (succeeded, same) {
        (false, _) => ("MigrationFailed", "The migration has failed"),
        (true, true) => {
            ("MigrationSucceeded", "The migration has succeeded and the stored versions have been updated")
        }
        (true, false) => (
            "MigrationSucceeded",
            "The migration has succeeded but the stored versions have not been updated due to a generation mismatch",
        ),
    };
    let mut configuration = status(definition, ("False", reason, message), now);
    let versions = definition.array_at(&["spec", "versions"]);
    let stored = versions.iter().find(|v| v.get("storage").as_bool() == Some(true));
    // Upstream does so after a failure, too.
    if let Some(stored) = stored.filter(|_| same) {
        configuration.set(&["status", "storedVersions"], vec![stored.str_at(&["name"])]);
    }
    configuration
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_forgotten_unless_the_definition_changed() {
        let definition = |observed: i64| {
            object!({
                "metadata": {"name": "widgets.example.com", "generation": 3},
                "spec": {"versions": [{"name": "v1"}, {"name": "v2", "storage": true}]},
                "status": {
                    "conditions": [{"type": MIGRATING, "status": "True", "observedGeneration": observed}],
                    "storedVersions": ["v1", "v2"],
                },
            })
        };
        let same = ended(&definition(3), true, Timestamp::UNIX_EPOCH);
        assert_eq!(same.at(&["status", "storedVersions"]), &object!(["v2"]));
        let changed = ended(&definition(2), true, Timestamp::UNIX_EPOCH);
        assert!(changed.at(&["status", "storedVersions"]).is_null());
        let message = changed.array_at(&["status", "conditions"])[0].str_at(&["message"]);
        assert!(message.ends_with("due to a generation mismatch"), "{message}");
    }
}
