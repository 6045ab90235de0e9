//! NamespaceLifecycle: nothing is created in a namespace that is absent or going, and some namespaces never go.

use api::ApiError;
use api::error::Result;

use super::{Operation, forbid, is};
use crate::registry::Call;
use crate::resources::TABLE;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

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
    let Some(namespace) = found.map(|s| s.object()) else {
        return Err(ApiError::not_found("", "namespaces", &call.namespace));
    };
    if namespace.is_terminating() || namespace.str_at(&["status", "phase"]) == "Terminating" {
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
