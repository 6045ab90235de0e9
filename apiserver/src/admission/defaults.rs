//! Small plug-ins that fill in what an administrator decided: TaintNodesByCondition, DefaultTolerationSeconds,
//! StorageObjectInUseProtection, DefaultStorageClass, DefaultIngressClass, RuntimeClass, PersistentVolumeClaimResize.

use api::error::Result;
use api::quantity::Quantity;
use api::{Value, object};

use super::{Operation, forbid, is};
use crate::registry::Call;
use crate::resources::TABLE;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// A new node takes no pods until it has said that it is ready.
pub(super) fn taint_new_node(call: &Call, operation: Operation, node: &mut Value) {
    if operation != Operation::Create || !is(call, "", "nodes") {
        return;
    }
    let taints = node.make_object().entry("spec").make_object().entry("taints").make_array();
    if !taints.iter().any(|t| t.str_at(&["key"]) == NOT_READY && t.str_at(&["effect"]) == "NoSchedule") {
        taints.push(object!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

/// Pods stay five minutes on a node that is lost, unless they say otherwise.
pub(super) fn tolerate_lost_nodes(call: &Call, pod: &mut Value) {
    if !is(call, "", "pods") {
        return;
    }
    let (not_ready, unreachable) = call.server.config.toleration_seconds;
    for (key, seconds) in [(NOT_READY, not_ready), (UNREACHABLE, unreachable)] {
        let covers = |t: &Value| {
            let (k, effect) = (t.str_at(&["key"]), t.str_at(&["effect"]));
            (k == key || k.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        };
        if pod.array_at(&["spec", "tolerations"]).iter().any(covers) {
            continue;
        }
        let toleration = object!({
            "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds,
        });
        pod.make_object().entry("spec").make_object().entry("tolerations").make_array().push(toleration);
    }
}

/// Claims and volumes in use do not go.
pub(super) fn protect_volumes(call: &Call, operation: Operation, object: &mut Value) {
    if operation != Operation::Create || !call.row.group.is_empty() || !call.subresource.is_empty() {
        return;
    }
    let finalizer = match call.row.built_in() {
        "persistentvolumeclaims" => "kubernetes.io/pvc-protection",
        "persistentvolumes" => "kubernetes.io/pv-protection",
        _ => return,
    };
    let finalizers = object.make_object().entry("metadata").make_object().entry("finalizers").make_array();
    if !finalizers.iter().any(|f| f.as_str() == Some(finalizer)) {
        finalizers.push(finalizer.into());
    }
}

/// A claim or ingress that names no class gets the default one: the newest, when several are marked.
pub(super) fn default_class(call: &Call, operation: Operation, object: &mut Value) -> Result<()> {
    if operation != Operation::Create {
        return Ok(());
    }
    let (group, classes, mark, field) = if is(call, "", "persistentvolumeclaims") {
        (
            "storage.k8s.io",
            "storageclasses",
            "storageclass.kubernetes.io/is-default-class",
            "storageClassName",
        )
    } else if is(call, "networking.k8s.io", "ingresses") {
        (
            "networking.k8s.io",
            "ingressclasses",
            "ingressclass.kubernetes.io/is-default-class",
            "ingressClassName",
        )
    } else {
        return Ok(());
    };
    let legacy = ["volume.beta.kubernetes.io/storage-class", "kubernetes.io/ingress.class"];
    if !object.at(&["spec", field]).is_null() || legacy.iter().any(|a| object.annotation(a).is_some()) {
        return Ok(());
    }
    let snapshot = call.server.storage.cache(TABLE.store(group, classes)).snapshot();
    let marked = snapshot.objects.values().map(|s| s.object()).filter(|c| c.annotation(mark) == Some("true"));
    let newest = marked.max_by(|a, b| {
        let made = |c: &Value| c.str_at(&["metadata", "creationTimestamp"]).to_owned();
        made(a).cmp(&made(b)).then_with(|| b.name().cmp(a.name()))
    });
    if let Some(class) = newest {
        object.set(&["spec", field], class.name());
    }
    Ok(())
}

/// A pod of a runtime class takes over its overhead and where it runs.
pub(super) fn overhead(call: &Call, operation: Operation, pod: &mut Value) -> Result<()> {
    if operation != Operation::Create || !is(call, "", "pods") {
        return Ok(());
    }
    let name = pod.str_at(&["spec", "runtimeClassName"]).to_owned();
    if name.is_empty() {
        return Ok(());
    }
    let cache = call.server.storage.cache(TABLE.store("node.k8s.io", "runtimeclasses"));
    let missing = || {
        forbid(
            call,
            pod.name(),
            format!("pod rejected: RuntimeClass {} not found", api::field::go_quote(&name)),
        )
    };
    let class = cache.get(&name).ok_or_else(missing)?.object();
    let fixed = class.at(&["overhead", "podFixed"]);
    if !fixed.is_empty() {
        pod.set(&["spec", "overhead"], fixed);
    }
    for (key, value) in
        class.at(&["scheduling", "nodeSelector"]).as_object().into_iter().flat_map(|m| m.iter())
    {
        pod.set(&["spec", "nodeSelector", key], value);
    }
    let tolerations = class.array_at(&["scheduling", "tolerations"]).to_vec();
    if !tolerations.is_empty() {
        let own = pod.make_object().entry("spec").make_object().entry("tolerations").make_array();
        own.extend(tolerations);
    }
    Ok(())
}

/// A claim grows only where its class lets it.
pub(super) fn check_resize(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
    if operation != Operation::Update || !is(call, "", "persistentvolumeclaims") {
        return Ok(());
    }
    let size = |c: &Value| {
        c.str_at(&["spec", "resources", "requests", "storage"]).parse::<Quantity>().unwrap_or(Quantity::ZERO)
    };
    if size(new) <= size(old) {
        return Ok(());
    }
    if old.str_at(&["status", "phase"]) != "Bound" {
        return Err(forbid(call, new.name(), "Only bound persistent volume claims can be expanded"));
    }
    let class = new.str_at(&["spec", "storageClassName"]);
    let cache = call.server.storage.cache(TABLE.store("storage.k8s.io", "storageclasses"));
    let allows =
        cache.get(class).is_some_and(|c| c.object().get("allowVolumeExpansion").as_bool() == Some(true));
    if allows {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    Err(forbid(call, new.name(), why))
}
