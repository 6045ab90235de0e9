//! Writes the objects of a resource again, so that all are stored in the form in which new ones are: when the version that is
//! stored is another, or they are encrypted otherwise than before.
//!
//! A StorageVersionMigration runs alone for its resource. It notes the revision at which it began, applies a configuration that
//! says nothing to every object that was last written before, and ends as Succeeded or Failed. The definition of a custom
//! resource says meanwhile that it is migrated, and forgets the versions that nothing is stored in any more. It works only with
//! the feature gate StorageVersionMigrator. Objects are listed page by page; upstream reads them off the garbage collector.
//!
//! Source: <https://kubernetes.io/docs/tasks/manage-kubernetes-objects/storage-version-migration/>.

mod definition;
mod plan;

use api::{Value, object};
use client::resource::STORAGE_VERSION_MIGRATIONS;
use client::{Error, Key, ListOptions, Next, Queue, Resource};
use http::StatusCode;

use crate::act::Action;
use crate::context::Context;
use crate::discovery::{Served, discover};
use plan::{Step, plan};

/// Field manager of the configurations that say nothing.
const MANAGER: &str = "storage-version-migrator-controller";
/// Migrations of different resources at a time.
const WORKERS: usize = 5;
/// Objects to a page.
const PAGE: u32 = 500;
/// For how long a resource that is not served may come to be.
const PATIENCE: i64 = 60;
/// What a resource has to be able to do, in upstream's order.
const NEEDED: [&str; 3] = ["update", "patch", "list"];
/// No namespace can have this name (which is written as in a path); a list of it tells the revision without any object.
const NOWHERE: &str = "%40fake%3Asvm_ns%21";

pub(crate) fn start(cx: &Context) {
    if !cx.config.gates.enabled("StorageVersionMigrator") {
        return;
    }
    let queue = Queue::new();
    let migrations = cx.informers.storage_version_migrations();
    let (woken, all) = (queue.clone(), migrations.clone());
    migrations.on_change(move |change| {
        woken.add(Key::of(change.object()));
        // When one ends or goes, the next of its resource may run.
        let resource = change.object().at(&["spec", "resource"]);
        let siblings = all.store().list();
        let same = siblings.iter().filter(|m| m.at(&["spec", "resource"]) == resource);
        same.for_each(|m| woken.add(Key::of(m)));
    });
    cx.work(queue, WORKERS, &[migrations], |cx, key| async move {
        let store = cx.informers.storage_version_migrations().store();
        let Some(migration) = store.get(&key) else { return Ok(Next::Done) };
        match plan(&migration, &store.list()) {
            Step::Wait => Ok(Next::Done),
            Step::Begin => begin(&cx, &migration).await,
            Step::Checkpoint => checkpoint(&cx, &migration).await,
            Step::Migrate => migrate(&cx, &migration).await,
            Step::CleanUp => clean_up(&cx, &migration).await,
        }
    });
}

async fn begin(cx: &Context, migration: &Value) -> anyhow::Result<Next> {
    definition::announce(cx, migration).await?;
    put(
        cx,
        plan::with_condition(migration, "Running", "MigrationRunning", "The migration is running", cx.now()),
    )
    .await
}

/// Notes the revision from which on objects are written in today's form.
async fn checkpoint(cx: &Context, migration: &Value) -> anyhow::Result<Next> {
    let Some(served) = find(cx, migration).await? else {
        return missing(cx, migration, "resource does not exist in discovery").await;
    };
    if !served.can(&NEEDED) {
        let shown = api::field::go_quote(&shown(&served.resource));
        let why = format!("resource {shown} does not support discovery operations: [{}]", NEEDED.join(" "));
        return fail(cx, migration, &why).await;
    }
    let namespace = if served.resource.namespaced { NOWHERE } else { "" };
    let options = ListOptions { limit: 1, ..ListOptions::default() };
    let list = cx.client.list_metadata(&served.resource, namespace, &options).await?;
    let mut updated = migration.clone();
    updated.set(&["status", "resourceVersion"], list.resource_version());
    put(cx, updated).await
}

/// Has all objects written again that were last written before the checkpoint.
async fn migrate(cx: &Context, migration: &Value) -> anyhow::Result<Next> {
    let Some(served) = find(cx, migration).await? else {
        return missing(cx, migration, &unhandled("unable to obtain GVR from discovery")).await;
    };
    let checkpoint = migration.str_at(&["status", "resourceVersion"]);
    let mut options = ListOptions { limit: PAGE, ..ListOptions::default() };
    loop {
        let page = cx.client.list_metadata(&served.resource, "", &options).await?;
        for object in page.array_at(&["items"]).iter().filter(|o| plan::is_older(o, checkpoint)) {
            if let Err(e) = rewrite(cx, &served.resource, object).await {
                if may_pass(&e) {
                    return Err(e.into());
                }
                tracing::error!(err = %e, object = object.name(), "Cannot migrate an object");
                return fail(cx, migration, &unhandled(&e.message())).await;
            }
        }
        options.continue_token = page.str_at(&["metadata", "continue"]).to_owned();
        if options.continue_token.is_empty() {
            break;
        }
    }
    put(cx, plan::with_condition(migration, "Succeeded", "StorageVersionMigrationSucceeded", "", cx.now()))
        .await
}

async fn clean_up(cx: &Context, migration: &Value) -> anyhow::Result<Next> {
    definition::conclude(cx, migration).await?;
    put(cx, plan::completed(migration, cx.now())).await
}

/// Applies a configuration that says nothing. With uid and revision, an object that was changed, or removed and made again, is
/// a conflict; then it is stored in today's form already.
async fn rewrite(cx: &Context, resource: &Resource, object: &Value) -> Result<(), Error> {
    let nothing = object!({
        "apiVersion": (resource.api_version()), "kind": (resource.kind.as_ref()),
        "metadata": {"uid": (object.uid()), "resourceVersion": (object.resource_version())},
    });
    let at = (object.namespace(), object.name(), "");
    match cx.client.apply_part(resource, at, MANAGER, &nothing).await {
        Err(e) if !e.is_conflict() => Err(e),
        _ => Ok(()),
    }
}

/// Errors after which it is worth to try again.
fn may_pass(error: &Error) -> bool {
    const PASSING: [StatusCode; 4] = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    error.api().is_none_or(|e| PASSING.contains(&e.code()))
}

/// The resource of a migration, in the version that its group prefers.
async fn find(cx: &Context, migration: &Value) -> Result<Option<Served>, Error> {
    let wanted = migration.at(&["spec", "resource"]);
    let (group, plural) = (wanted.str_at(&["group"]), wanted.str_at(&["resource"]));
    let found = discover(&cx.client).await?;
    Ok(found.served.into_iter().find(|s| s.resource.group == group && s.resource.plural == plural))
}

/// A resource that is not there may come to be soon, but not later.
async fn missing(cx: &Context, migration: &Value, why: &str) -> anyhow::Result<Next> {
    let since = api::time::parse(migration.str_at(&["metadata", "creationTimestamp"]));
    if since.is_some_and(|since| cx.now().as_second() < since.as_second() + PATIENCE) {
        anyhow::bail!("the resource of the migration {} is not served yet", migration.name());
    }
    fail(cx, migration, why).await
}

async fn fail(cx: &Context, migration: &Value, why: &str) -> anyhow::Result<Next> {
    put(cx, plan::with_condition(migration, "Failed", "StorageVersionMigrationFailed", why, cx.now())).await
}

async fn put(cx: &Context, migration: Value) -> anyhow::Result<Next> {
    cx.apply(vec![Action::UpdateStatus(STORAGE_VERSION_MIGRATIONS, migration)]).await
}

fn unhandled(why: &str) -> String {
    format!("migration encountered unhandled error: {why}")
}

/// A resource as Go prints it.
fn shown(resource: &Resource) -> String {
    format!("{}/{}, Resource={}", resource.group, resource.version, resource.plural)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::ApiError;

    #[test]
    fn an_error_of_the_moment_does_not_end_a_migration() {
        assert!(may_pass(&Error::Timeout(30)));
        assert!(may_pass(&Error::Api(ApiError::internal("etcd is away"))));
        assert!(!may_pass(&Error::Api(ApiError::bad_request("it is no longer valid"))));
    }
}
