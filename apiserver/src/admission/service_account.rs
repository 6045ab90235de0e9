//! ServiceAccount: every pod runs as an account, and finds a token for it.

mod secrets;

use std::sync::Arc;

use api::error::Result;
use api::pod::references;
use api::{Value, names, object};

use super::{Operation, forbid, is, name_of, plain, unusable_name};
use crate::kinds::MOUNTABLE;
use crate::registry::Call;
use crate::resources::TABLE;
use crate::storage::Stored;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// An hour and a little, so that kubelets refresh before an hour is over.
const EXPIRATION: i64 = 3607;

pub(super) async fn mutate(call: &Call, operation: Operation, pod: &mut Value) -> Result<()> {
    if operation != Operation::Create || !is(call, "", "pods") {
        return Ok(());
    }
    if pod.annotation(MIRROR).is_some() {
        return check_mirror(call, pod);
    }
    if pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        pod.set(&["spec", "serviceAccountName"], "default");
    }
    let name = pod.str_at(&["spec", "serviceAccountName"]).to_owned();
    pod.set(&["spec", "serviceAccount"], name.as_str());
    let account = account_of(call, pod).await?.object();
    let wanted = pod
        .at(&["spec", "automountServiceAccountToken"])
        .as_bool()
        .or(account.get("automountServiceAccountToken").as_bool())
        .unwrap_or(true);
    if wanted {
        mount_token(pod);
    }
    if pod.array_at(&["spec", "imagePullSecrets"]).is_empty()
        && !account.array_at(&["imagePullSecrets"]).is_empty()
    {
        pod.set(&["spec", "imagePullSecrets"], account.get("imagePullSecrets"));
    }
    check_secrets(call, &account, pod)
}

/// Holds pods, and containers that are added to them, to the secrets that their account names.
pub(super) async fn validate(call: &Call, operation: Operation, pod: &Value) -> Result<()> {
    match (operation, call.subresource.as_str()) {
        _ if call.row.built_in() != "pods" => Ok(()),
        (Operation::Create, "") if pod.annotation(MIRROR).is_some() => check_mirror(call, pod),
        (Operation::Create, "") => {
            let account = account_of(call, pod).await?;
            // Most accounts limit nothing.
            if account.may_say(MOUNTABLE) { check_secrets(call, &account.object(), pod) } else { Ok(()) }
        }
        (Operation::Update, "ephemeralcontainers") => {
            let account = account_of(call, pod).await?.object();
            let added = pod.array_at(&["spec", "ephemeralContainers"]);
            match secrets::are_limited(&account) {
                true => secrets::check_containers(&account, added, "ephemeral container").map_err(plain),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn check_secrets(call: &Call, account: &Value, pod: &Value) -> Result<()> {
    if !secrets::are_limited(account) {
        return Ok(());
    }
    secrets::check_pod(account, pod).map_err(|why| forbid(call, name_of(pod), why))
}

/// The account that a pod names.
async fn account_of(call: &Call, pod: &Value) -> Result<Arc<Stored>> {
    let name = pod.str_at(&["spec", "serviceAccountName"]);
    if name.is_empty() {
        let why = format!("no service account specified for pod {}/{}", call.namespace, pod.name());
        return Err(forbid(call, name_of(pod), why));
    }
    let cache = call.server.storage.cache(TABLE.store("", "serviceaccounts"));
    let key = format!("{}/{name}", call.namespace);
    let account = match cache.get(&key) {
        Some(account) => account,
        None => {
            call.server.storage.catch_up().await?;
            cache.get(&key).ok_or_else(|| {
                let missing = || format!("serviceaccount {} not found", api::field::go_quote(name));
                let why = format!(
                    "error looking up service account {}/{name}: {}",
                    call.namespace,
                    unusable_name(name).unwrap_or_else(missing)
                );
                forbid(call, name_of(pod), why)
            })?
        }
    };
    Ok(account)
}

/// A pod that mirrors a file on a node may not use what the API keeps.
fn check_mirror(call: &Call, pod: &Value) -> Result<()> {
    if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
        return Err(forbid(call, name_of(pod), "a mirror pod may not reference service accounts"));
    }
    if references::names_secret(pod) {
        return Err(forbid(call, name_of(pod), "a mirror pod may not reference secrets"));
    }
    let projects_token = |v: &Value| {
        v.array_at(&["projected", "sources"]).iter().any(|s| !s.get("serviceAccountToken").is_null())
    };
    if pod.array_at(&["spec", "volumes"]).iter().any(projects_token) {
        return Err(forbid(
            call,
            name_of(pod),
            "a mirror pod may not use ServiceAccountToken volume projections",
        ));
    }
    Ok(())
}

fn mount_token(pod: &mut Value) {
    let has_mount =
        |c: &Value| c.array_at(&["volumeMounts"]).iter().any(|m| m.str_at(&["mountPath"]) == MOUNT_PATH);
    let prefix = "kube-api-access-";
    let existing = pod
        .array_at(&["spec", "volumes"])
        .iter()
        .map(|v| v.str_at(&["name"]))
        .find(|n| n.starts_with(prefix))
        .map(str::to_owned);
    let name = existing.clone().unwrap_or_else(|| format!("{prefix}{}", names::random_suffix(5)));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let containers = pod.at_mut(&["spec", list]).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|c| !has_mount(c)) {
            let mount = object!({"name": (name.as_str()), "readOnly": true, "mountPath": MOUNT_PATH});
            container.make_object().entry("volumeMounts").make_array().push(mount);
            used = true;
        }
    }
    if used && existing.is_none() {
        let volumes = pod.make_object().entry("spec").make_object().entry("volumes").make_array();
        volumes.push(token_volume(&name));
    }
}

fn token_volume(name: &str) -> Value {
    object!({
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": EXPIRATION, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ],
            "defaultMode": 0o644,
        },
    })
}
