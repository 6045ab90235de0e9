//! One informer per resource, made when the first controller asks for it. Here it says what is kept of each object.

use std::sync::OnceLock;

use api::{Map, Value};
use client::{Informer, Resource, resource};
use compact_str::CompactString;

use crate::objects::controller_of;

/// Index by the uid of the controller.
pub(crate) const BY_OWNER: &str = "owner";
/// Index of pods by node name.
pub(crate) const BY_NODE: &str = "node";
/// Index of pods by `namespace/claim`.
pub(crate) const BY_CLAIM: &str = "claim";
/// Index of endpoint slices by `namespace/service`.
pub(crate) const BY_SERVICE: &str = "service";

macro_rules! informers {
    ($( $field:ident: $resource:expr, $make:expr; )*) => {
        /// The shared caches.
        #[derive(Default)]
        pub(crate) struct Informers {
            $( $field: OnceLock<Informer<Value>>, )*
        }

        impl Informers {
            $(
                pub(crate) fn $field(&self) -> &Informer<Value> {
                    self.$field.get_or_init(|| $make($resource))
                }
            )*

            /// Those that some controller asked for.
            pub(crate) fn used(&self) -> Vec<Informer<Value>> {
                let all = [$( self.$field.get() ),*];
                all.into_iter().flatten().cloned().collect()
            }
        }
    };
}

informers! {
    controller_revisions: resource::CONTROLLER_REVISIONS, owned;
    cron_jobs: resource::CRON_JOBS, whole;
    cluster_roles: resource::CLUSTER_ROLES, whole;
    csi_drivers: resource::CSI_DRIVERS, whole;
    csrs: resource::CERTIFICATE_SIGNING_REQUESTS, whole;
    daemon_sets: resource::DAEMON_SETS, whole;
    deployments: resource::DEPLOYMENTS, whole;
    endpoints: resource::ENDPOINTS, whole;
    endpoint_slices: resource::ENDPOINT_SLICES, slices;
    jobs: resource::JOBS, owned;
    leases: resource::LEASES, whole;
    namespaces: resource::NAMESPACES, whole;
    nodes: resource::NODES, nodes;
    persistent_volumes: resource::PERSISTENT_VOLUMES, whole;
    persistent_volume_claims: resource::PERSISTENT_VOLUME_CLAIMS, whole;
    pod_disruption_budgets: resource::POD_DISRUPTION_BUDGETS, whole;
    pods: resource::PODS, pods;
    replica_sets: resource::REPLICA_SETS, owned;
    replication_controllers: resource::REPLICATION_CONTROLLERS, whole;
    resource_quotas: resource::RESOURCE_QUOTAS, whole;
    service_accounts: resource::SERVICE_ACCOUNTS, whole;
    service_cidrs: resource::SERVICE_CIDRS, whole;
    services: resource::SERVICES, whole;
    policies: resource::VALIDATING_ADMISSION_POLICIES, whole;
    stateful_sets: resource::STATEFUL_SETS, whole;
    storage_classes: resource::STORAGE_CLASSES, whole;
    storage_version_migrations: resource::STORAGE_VERSION_MIGRATIONS, whole;
    volume_attachments: resource::VOLUME_ATTACHMENTS, whole;
    volume_attributes_classes: resource::VOLUME_ATTRIBUTES_CLASSES, whole;
}

impl Informers {
    /// The cache of a resource, if some controller uses it.
    pub(crate) fn of(&self, resource: &Resource) -> Option<Informer<Value>> {
        self.used().into_iter().find(|i| i.resource() == resource)
    }
}

/// Objects that some controller writes back: all but the managed fields, which the server then keeps as they are.
fn whole(resource: Resource) -> Informer<Value> {
    Informer::of_values(resource, |_| {}).build()
}

fn owner_uid(object: &Value) -> Vec<CompactString> {
    controller_of(object).map(|o| o.str_at(&["uid"]).into()).into_iter().collect()
}

fn owned(resource: Resource) -> Informer<Value> {
    Informer::of_values(resource, |_| {}).index(BY_OWNER, owner_uid).build()
}

fn slices(resource: Resource) -> Informer<Value> {
    let by_service = |slice: &Value| match slice.label("kubernetes.io/service-name") {
        Some(service) => vec![format!("{}/{service}", slice.namespace()).into()],
        None => Vec::new(),
    };
    Informer::of_values(resource, |_| {}).index(BY_SERVICE, by_service).build()
}

fn nodes(resource: Resource) -> Informer<Value> {
    let trim = |node: &mut Value| {
        drop_applied(node);
        // Nodes are changed by patches.
        node.remove_at(&["status", "images"]);
        node.remove_at(&["status", "nodeInfo"]);
    };
    Informer::of_values(resource, trim).build()
}

/// Drops the copy of the object that `kubectl apply` leaves in an annotation.
fn drop_applied(object: &mut Value) {
    object.remove_at(&["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"]);
}

fn pods(resource: Resource) -> Informer<Value> {
    Informer::of_values(resource, trim_pod)
        .index(BY_OWNER, owner_uid)
        .index(BY_NODE, |pod| match pod.str_at(&["spec", "nodeName"]) {
            "" => Vec::new(),
            node => vec![node.into()],
        })
        .index(BY_CLAIM, |pod| {
            let claims = crate::objects::claims(pod);
            claims.map(|c| format!("{}/{c}", pod.namespace()).into()).collect()
        })
        .build()
}

/// Keeps of a pod what controllers look at; of its containers, name, ports and resources.
fn trim_pod(pod: &mut Value) {
    drop_applied(pod);
    keep(
        pod.at_mut(&["spec"]),
        &[
            "nodeName",
            "nodeSelector",
            "hostname",
            "subdomain",
            "hostNetwork",
            "containers",
            "initContainers",
            "volumes",
            "affinity",
            "tolerations",
            "restartPolicy",
            "priority",
            "priorityClassName",
            "resources",
            "schedulingGates",
            "activeDeadlineSeconds",
            "terminationGracePeriodSeconds",
            "overhead",
        ],
    );
    for list in ["containers", "initContainers"] {
        each(pod.at_mut(&["spec", list]), |c| {
            keep(Some(c), &["name", "image", "ports", "resources", "restartPolicy"]);
        });
    }
    each(pod.at_mut(&["spec", "volumes"]), |v| {
        keep(Some(v), &["name", "persistentVolumeClaim", "ephemeral"])
    });
    keep(
        pod.at_mut(&["status"]),
        &[
            "phase",
            "reason",
            "conditions",
            "podIP",
            "podIPs",
            "hostIP",
            "startTime",
            "containerStatuses",
            "initContainerStatuses",
            "qosClass",
        ],
    );
    for list in ["containerStatuses", "initContainerStatuses"] {
        each(pod.at_mut(&["status", list]), |s| keep(Some(s), &["name", "ready", "restartCount", "state"]));
    }
}

fn keep(object: Option<&mut Value>, keys: &[&str]) {
    if let Some(Value::Object(map)) = object {
        let kept = |k: &str, _: &mut Value| keys.contains(&k);
        Map::retain(map, kept);
    }
}

fn each(list: Option<&mut Value>, change: impl FnMut(&mut Value)) {
    if let Some(Value::Array(items)) = list {
        items.iter_mut().for_each(change);
    }
}
