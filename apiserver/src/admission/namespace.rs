//! Namespaces of objects. NamespaceLifecycle: nothing is created in one that is absent or going, and some never go;
//! NamespaceExists and NamespaceAutoProvision.

use api::error::Result;
use api::{ApiError, Value, object};

use super::{Operation, forbid, is};
use crate::registry::{Call, set_type};
use crate::resources::TABLE;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Makes the namespace of an object that is not there yet.
pub(super) async fn provision(call: &Call, operation: Operation) -> Result<()> {
    if operation != Operation::Create || call.write.dry_run || !call.row.namespaced || exists(call).await? {
        return Ok(());
    }
    let row = TABLE.find_any_version("", "namespaces").expect("a built-in resource");
    let inner = call.internal(row, "", &call.namespace);
    let mut namespace = object!({"metadata": {"name": (call.namespace.as_str())}});
    set_type(&mut namespace, row);
    match inner.create_within(namespace).await {
        Err(e) if e.reason() != "AlreadyExists" => Err(forbid(call, &call.name, &e.status().message)),
        _ => Ok(()),
    }
}

/// NamespaceExists: refuses what is in a namespace that is not there.
pub(super) async fn check_exists(call: &Call, operation: Operation) -> Result<()> {
    if operation == Operation::Connect || !call.row.namespaced || exists(call).await? {
        return Ok(());
    }
    Err(ApiError::not_found("", "namespaces", &call.namespace))
}

async fn exists(call: &Call) -> Result<bool> {
    let cache = call.server.storage.cache(TABLE.store("", "namespaces"));
    if cache.get(&call.namespace).is_none() {
        call.server.storage.catch_up().await?;
    }
    Ok(cache.get(&call.namespace).is_some())
}

pub(super) async fn mutate(call: &Call, operation: Operation) -> Result<()> {
    // Reviews about a namespace that does not exist are answered all the same.
    let reviews = call.row.group == "authorization.k8s.io";
    if operation != Operation::Create || !call.row.namespaced || reviews {
        return Ok(());
    }
    let cache = call.server.storage.cache(TABLE.store("", "namespaces"));
    let found = match cache.get(&call.namespace) {
        Some(found) => Some(found),
        None => {
            call.server.storage.catch_up().await?;
            cache.get(&call.namespace)
        }
    };
    let Some(found) = found else {
        return Err(ApiError::not_found("", "namespaces", &call.namespace));
    };
    let may_end = ["deletionTimestamp", "Terminating"].iter().any(|sign| found.may_say(sign));
    let ends = |n: Value| n.is_terminating() || n.str_at(&["status", "phase"]) == "Terminating";
    if may_end && ends(found.object()) {
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            call.namespace
        );
        let mut error = forbid(call, &call.name, why);
        let message = format!("namespace {} is being terminated", call.namespace);
        error.status_mut().details.causes = vec![api::error::Cause {
            reason: "NamespaceTerminating".to_owned(),
            message,
            field: "metadata.namespace".to_owned(),
        }];
        return Err(error);
    }
    Ok(())
}

pub(super) fn validate(call: &Call, operation: Operation) -> Result<()> {
    if operation == Operation::Delete && is(call, "", "namespaces") && IMMORTAL.contains(&call.name.as_str())
    {
        return Err(forbid(call, &call.name, "this namespace may not be deleted"));
    }
    Ok(())
}
