//! Small plug-ins that fill in what an administrator decided: TaintNodesByCondition, StorageObjectInUseProtection,
//! DefaultStorageClass, DefaultIngressClass, PersistentVolumeClaimResize.

use api::error::Result;
use api::quantity::Quantity;
use api::{Value, object};

use super::{Operation, forbid, is, name_of};
use crate::registry::Call;
use crate::resources::TABLE;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

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

/// Claims and volumes in use do not go.
pub(super) fn protect_volumes(call: &Call, operation: Operation, object: &mut Value) {
    let known = matches!(call.row.group, "" | "storage.k8s.io");
    if operation != Operation::Create || !known || !call.subresource.is_empty() {
        return;
    }
    let finalizer = match call.row.built_in() {
        "volumeattributesclasses" => "kubernetes.io/vac-protection",
        "persistentvolumeclaims" => "kubernetes.io/pvc-protection",
        "persistentvolumes" => "kubernetes.io/pv-protection",
        _ => return,
    };
    let finalizers = object.make_object().entry("metadata").make_object().entry("finalizers").make_array();
    if !finalizers.iter().any(|f| f.as_str() == Some(finalizer)) {
        finalizers.push(finalizer.into());
    }
}

/// Where the class of an object comes from.
pub(super) struct Class {
    /// Group and plural of what has a class.
    of: (&'static str, &'static str),
    /// Group and plural of the classes.
    classes: (&'static str, &'static str),
    /// Annotations that mark the default class.
    marks: &'static [&'static str],
    field: &'static str,
    /// The annotation that named the class before the field did.
    annotation: &'static str,
}

/// DefaultStorageClass
pub(super) static STORAGE: Class = Class {
    of: ("", "persistentvolumeclaims"),
    classes: ("storage.k8s.io", "storageclasses"),
    marks: &[
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ],
    field: "storageClassName",
    annotation: "volume.beta.kubernetes.io/storage-class",
};

/// DefaultIngressClass
pub(super) static INGRESS: Class = Class {
    of: ("networking.k8s.io", "ingresses"),
    classes: ("networking.k8s.io", "ingressclasses"),
    marks: &["ingressclass.kubernetes.io/is-default-class"],
    field: "ingressClassName",
    annotation: "kubernetes.io/ingress.class",
};

/// A claim or ingress that names no class gets the default one: the newest, when several are marked.
pub(super) fn default_class(call: &Call, operation: Operation, object: &mut Value, class: &Class) {
    if operation != Operation::Create
        || !is(call, class.of.0, class.of.1)
        || !object.at(&["spec", class.field]).is_null()
        || object.annotation(class.annotation).is_some()
    {
        return;
    }
    let snapshot = call.server.storage.cache(TABLE.store(class.classes.0, class.classes.1)).snapshot();
    let is_default = |c: &Value| class.marks.iter().any(|mark| c.annotation(mark) == Some("true"));
    let marked = snapshot.objects.values().map(|s| s.object()).filter(is_default);
    let newest = marked.max_by(|a, b| {
        let made = |c: &Value| c.str_at(&["metadata", "creationTimestamp"]).to_owned();
        made(a).cmp(&made(b)).then_with(|| b.name().cmp(a.name()))
    });
    if let Some(newest) = newest {
        object.set(&["spec", class.field], newest.name());
    }
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
        return Err(forbid(call, name_of(new), "Only bound persistent volume claims can be expanded"));
    }
    let class_of = |claim: &Value| {
        let named = claim.annotation("volume.beta.kubernetes.io/storage-class");
        named.unwrap_or_else(|| claim.str_at(&["spec", "storageClassName"])).to_owned()
    };
    let class = class_of(new);
    let cache = call.server.storage.cache(TABLE.store("storage.k8s.io", "storageclasses"));
    let allows = class == class_of(old)
        && cache.get(&class).is_some_and(|c| c.object().get("allowVolumeExpansion").as_bool() == Some(true));
    if allows {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    Err(forbid(call, name_of(new), why))
}
