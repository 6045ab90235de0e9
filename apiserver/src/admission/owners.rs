//! OwnerReferencesPermissionEnforcement: who gives an object an owner may delete the object, and who lets it block the
//! deletion of the owner may decide when that goes.

use api::Value;
use api::error::Result;

use super::{Operation, forbid};
use crate::authz::{Attributes, Decision};
use crate::registry::Call;
use crate::resources::Row;

fn owners(object: &Value) -> &[Value] {
    object.array_at(&["metadata", "ownerReferences"])
}

fn blocks(reference: &Value) -> bool {
    reference.get("blockOwnerDeletion").as_bool() == Some(true)
}

pub(super) async fn validate(
    call: &Call,
    operation: Operation,
    new: &Value,
    old: Option<&Value>,
) -> Result<()> {
    // A status has no owners.
    if call.row.group.is_empty() && call.row.plural == "pods" && call.subresource == "status" {
        return Ok(());
    }
    let before = old.map_or(&[][..], owners);
    if owners(new) == before {
        return Ok(());
    }
    let name = new.name();
    if operation != Operation::Create {
        let delete = Attributes {
            verb: "delete",
            group: call.row.group,
            version: call.row.version,
            resource: call.row.plural,
            subresource: &call.subresource,
            namespace: &call.namespace,
            name: &call.name,
            ..Attributes::default()
        };
        if let Some(reason) = refusal(call, &delete).await {
            let why = format!("cannot set an ownerRef on a resource you can't delete: {reason}, <nil>");
            return Err(forbid(call, name, why));
        }
    }
    let known = |r: &Value| before.iter().any(|b| b.str_at(&["uid"]) == r.str_at(&["uid"]) && blocks(b));
    let new_blocking: Vec<&Value> = owners(new).iter().filter(|r| blocks(r) && !known(r)).collect();
    let anything = Attributes {
        verb: "update",
        group: "*",
        version: "*",
        resource: "*",
        subresource: "finalizers",
        name: "*",
        ..Attributes::default()
    };
    if new_blocking.is_empty() || refusal(call, &anything).await.is_none() {
        return Ok(());
    }
    for reference in new_blocking {
        let (api_version, kind) = (reference.api_version(), reference.kind());
        let rows = rows_of(call, api_version, kind);
        if rows.is_empty() {
            let why = format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {kind}: no matches for kind {} in version {}",
                api::field::go_quote(kind),
                api::field::go_quote(api_version)
            );
            return Err(forbid(call, name, why));
        }
        for row in rows {
            let finalize = Attributes {
                verb: "update",
                group: row.group,
                version: row.version,
                resource: row.plural,
                subresource: "finalizers",
                namespace: if row.namespaced { &call.namespace } else { "" },
                name: reference.str_at(&["name"]),
                ..Attributes::default()
            };
            if let Some(reason) = refusal(call, &finalize).await {
                let why = format!(
                    "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {reason}, <nil>"
                );
                return Err(forbid(call, name, why));
            }
        }
    }
    Ok(())
}

/// Why the caller may not do something.
async fn refusal(call: &Call, what: &Attributes<'_>) -> Option<String> {
    match call.server.authorizer.authorize(&call.server.storage, &call.user, what).await {
        Decision::Allow(_) => None,
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Some(reason),
        Decision::Failed { why, .. } => Some(why),
    }
}

fn rows_of(call: &Call, api_version: &str, kind: &str) -> Vec<Row> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let is = |row: &&Row| row.is_stored() && row.group == group && row.version == version && row.kind == kind;
    let mut rows: Vec<Row> = call.server.storage.served().rows.iter().filter(is).cloned().collect();
    rows.extend(call.server.storage.custom().load().rows().iter().filter(is).cloned());
    rows
}
