//! What every cluster has from the start: namespaces, the RBAC policy, priority and flow control objects. Absent objects are created; roles and bindings of the policy are mended when rules are missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Value, object};

use crate::aggregation::built_in_priority;
use crate::authn::UserInfo;
use crate::registry::{Call, DeleteOptions};
use crate::resources::TABLE;
use crate::server::Server;
use crate::starting::Step;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Objects by the plural and group they belong to.
const POLICY: [(&str, &str, &str); 5] = [
    (RBAC, "clusterroles", include_str!("../data/bootstrap/clusterroles.json")),
    (RBAC, "clusterrolebindings", include_str!("../data/bootstrap/clusterrolebindings.json")),
    (RBAC, "roles", include_str!("../data/bootstrap/roles.json")),
    (RBAC, "rolebindings", include_str!("../data/bootstrap/rolebindings.json")),
    ("scheduling.k8s.io", "priorityclasses", include_str!("../data/bootstrap/priorityclasses.json")),
];

/// What is there besides with the feature gate StorageVersionMigrator.
const MIGRATOR: [(&str, &str, &str); 2] = [
    (RBAC, "clusterroles", include_str!("../data/bootstrap/migrator-clusterroles.json")),
    (RBAC, "clusterrolebindings", include_str!("../data/bootstrap/migrator-clusterrolebindings.json")),
];

const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Makes what is missing, until nothing is; etcd may take its time.
pub async fn run(server: Arc<Server>) {
    server.storage.loaded().await;
    while let Err(e) = once(&server).await {
        tracing::warn!(error = %e, "the bootstrap objects are not complete yet");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    tracing::info!("the bootstrap objects are in place");
}

async fn once(server: &Arc<Server>) -> api::error::Result<()> {
    let system = call(server, "", "namespaces", "", "");
    for name in NAMESPACES {
        ensure(&system, object!({"metadata": {"name": name}})).await?;
    }
    server.starting.done(Step::Namespaces);
    let migrator = MIGRATOR.into_iter().filter(|_| server.config.gates.enabled("StorageVersionMigrator"));
    for (group, plural, text) in migrator.chain(POLICY) {
        let decoded = api::json::decode(text.as_bytes()).map_err(api::ApiError::internal)?;
        for object in decoded.value.as_array().into_iter().flatten() {
            let call = call(server, group, plural, object.namespace(), object.name());
            let mut new = object.clone();
            if !new.get("aggregationRule").is_null() {
                // A controller gathers the rules of these, and owns them.
                new.set(&["rules"], Value::Null);
            }
            ensure(&call, new).await?;
            if group == RBAC && object.annotation(AUTOUPDATE) == Some("true") {
                reconcile(&call, object).await?;
            }
        }
        server.starting.done(if group == RBAC { Step::Roles } else { Step::PriorityClasses });
    }
    crate::fairness::objects::ensure(server).await?;
    server.starting.done(Step::FlowControl);
    authentication_config(server).await?;
    server.starting.done(Step::AuthenticationInfo);
    token_tracking(server).await?;
    server.starting.done(Step::TokenTracking);
    local_api_services(server).await?;
    server.starting.done(Step::LocalServices);
    service_range(server).await?;
    server.starting.done(Step::ServiceRange);
    crate::allocate::repair(server).await?;
    server.starting.done(Step::AddressRepair);
    Ok(())
}

pub(crate) fn call(server: &Arc<Server>, group: &str, plural: &str, namespace: &str, name: &str) -> Call {
    let row = TABLE.find_any_version(group, plural).expect("a built-in resource");
    let mut call = Call::new(server.clone(), row, UserInfo::server());
    call.namespace = namespace.to_owned();
    call.name = name.to_owned();
    call.write.manager = "kube-apiserver".to_owned();
    call
}

/// Creates the object unless one of its name is there.
pub(crate) async fn ensure(call: &Call, object: Value) -> api::error::Result<()> {
    let key = call.row.key(object.namespace(), object.name());
    let store = call.row.store.expect("bootstrap objects are stored");
    if call.server.storage.cache(store).get(&key).is_some() {
        return Ok(());
    }
    match call.create(object).await {
        Ok(_) => Ok(()),
        Err(e) if e.reason() == "AlreadyExists" => Ok(()),
        Err(e) => Err(e),
    }
}

/// Adds rules and subjects that the policy has and the object lacks.
async fn reconcile(call: &Call, wanted: &Value) -> api::error::Result<()> {
    let missing = |old: &Value, list: &str| -> Vec<Value> {
        let have = old.array_at(&[list]);
        wanted.array_at(&[list]).iter().filter(|w| !have.contains(w)).cloned().collect()
    };
    let store = call.row.store.expect("bootstrap objects are stored");
    let key = call.row.key(&call.namespace, &call.name);
    let Some(present) = call.server.storage.cache(store).get(&key).map(|s| s.object()) else { return Ok(()) };
    let opted_out = present.annotation(AUTOUPDATE) == Some("false");
    // The rules of aggregated roles are gathered by a controller.
    let aggregated = !wanted.get("aggregationRule").is_null();
    let complete = ["rules", "subjects"].iter().all(|list| missing(&present, list).is_empty());
    if opted_out || aggregated || complete {
        return Ok(());
    }
    call.update(|old| {
        let mut new = old.clone();
        for list in ["rules", "subjects"] {
            let more = missing(old, list);
            if !more.is_empty() {
                new.make_object().entry(list).make_array().extend(more);
            }
        }
        Ok(new)
    })
    .await
    .map(|_| ())
}

/// Tells other servers which authorities vouch for clients.
///
/// # Errors
/// It cannot be written.
pub async fn authentication_config(server: &Arc<Server>) -> api::error::Result<()> {
    let mut data = Value::object();
    let a = &server.authenticator;
    if let Some(ca) = &a.client_ca {
        data.set(&["client-ca-file"], ca.pem());
    }
    if let Some(ca) = &a.front_proxy_ca {
        let list = |items: &[String]| Value::from(items.to_vec()).to_string();
        data.set(&["requestheader-client-ca-file"], ca.pem());
        data.set(&["requestheader-allowed-names"], list(&a.front_proxy.allowed_names));
        data.set(&["requestheader-extra-headers-prefix"], list(&a.front_proxy.extra_prefixes));
        data.set(&["requestheader-group-headers"], list(&a.front_proxy.group_headers));
        if !a.front_proxy.uid_headers.is_empty() {
            data.set(&["requestheader-uid-headers"], list(&a.front_proxy.uid_headers));
        }
        data.set(&["requestheader-username-headers"], list(&a.front_proxy.username_headers));
    }
    if data.is_empty() {
        return Ok(());
    }
    let name = "extension-apiserver-authentication";
    let call = call(server, "", "configmaps", "kube-system", name);
    ensure(&call, object!({"metadata": {"name": name, "namespace": "kube-system"}, "data": (data.clone())}))
        .await?;
    call.update(|old| {
        let mut new = old.clone();
        for (key, value) in data.as_object().into_iter().flat_map(|m| m.iter()) {
            new.set(&["data", key], value);
        }
        Ok(new)
    })
    .await
    .map(|_| ())
}

/// Since when tokens in Secrets are labelled with their last use.
async fn token_tracking(server: &Arc<Server>) -> api::error::Result<()> {
    const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let object = object!({"metadata": {"name": NAME, "namespace": "kube-system"}, "data": {"since": today}});
    ensure(&call(server, "", "configmaps", "kube-system", NAME), object).await
}

const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// An APIService for each version that is served here. Those that were made by earlier servers are brought in line.
async fn local_api_services(server: &Arc<Server>) -> api::error::Result<()> {
    let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
    for row in &server.storage.served().rows {
        let Some((group, version)) = built_in_priority(row.group, row.version) else { continue };
        let mut spec =
            object!({"version": (row.version), "groupPriorityMinimum": group, "versionPriority": version});
        if !row.group.is_empty() {
            spec.set(&["group"], row.group);
        }
        wanted.insert(format!("{}.{}", row.version, row.group), spec);
    }
    let at = |name: &str| call(server, "apiregistration.k8s.io", "apiservices", "", name);
    let cache = server.storage.cache(TABLE.store("apiregistration.k8s.io", "apiservices")).clone();
    for stored in cache.snapshot().objects.values().filter(|s| s.label(MANAGED) == Some("onstart")) {
        let present = stored.object();
        match wanted.get(&*stored.key) {
            Some(spec) if present.get("spec") == spec => {}
            Some(spec) => put(&at(&stored.key), "spec", spec.clone()).await?,
            None => match at(&stored.key).delete(&DeleteOptions::default()).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            },
        }
    }
    for (name, spec) in &wanted {
        let metadata = object!({"name": (name.as_str()), "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"}});
        ensure(&at(name), object!({"metadata": metadata, "spec": (spec.clone())})).await?;
    }
    Ok(())
}

/// The object that stands for the range of Service addresses.
async fn service_range(server: &Arc<Server>) -> api::error::Result<()> {
    let ranges: Vec<String> = server.allocators.ranges.iter().map(ToString::to_string).collect();
    let mut call = call(server, "networking.k8s.io", "servicecidrs", "", "kubernetes");
    ensure(&call, object!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ranges}})).await?;
    call.subresource = "status".to_owned();
    call.write.manager = "kubernetes-service-cidr-controller".to_owned();
    (call.write.applying, call.write.force) = (true, true);
    let condition = object!({
        "type": "Ready", "status": "True", "lastTransitionTime": (api::time::format(jiff::Timestamp::now())),
        "message": "Kubernetes default Service CIDR is ready",
    });
    let applied = object!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "status": {"conditions": [(condition)]},
    });
    call.update(|old| match old.array_at(&["status", "conditions"]).is_empty() {
        true => call.apply_patch(Some(old), &applied),
        false => Ok(old.clone()),
    })
    .await
    .map(|_| ())
}

/// Sets a field of an object that is there, unless it is as wanted.
pub(crate) async fn put(call: &Call, field: &str, wanted: Value) -> api::error::Result<()> {
    let store = call.row.store.expect("bootstrap objects are stored");
    let present = call.server.storage.cache(store).get(&call.row.key(&call.namespace, &call.name));
    if present.is_some_and(|s| s.object().get(field) == &wanted) {
        return Ok(());
    }
    call.update(|old| {
        let mut new = old.clone();
        new.set(&[field], wanted.clone());
        Ok(new)
    })
    .await
    .map(|_| ())
}
