//! The one list of controllers.

use crate::context::Context;
use crate::{
    attach_detach, bootstrap_tokens, certificates, clusterrole_aggregation, cronjob, daemonset, deployment,
    disruption, endpoints, endpointslice, endpointslice_mirroring, ephemeral_volume, garbage_collector, job,
    namespace, node_ipam, node_lifecycle, node_ttl, pod_gc, policy_status, replicaset, resource_quota,
    root_ca, service_cidr, serviceaccount, serviceaccount_token, statefulset, storage_version_migrator,
    taint_eviction, ttl_after_finished, volume_binder, volume_expand, volume_protection,
};

/// A controller: its name for `--controllers`, its service account, and what starts it.
pub(crate) struct Controller {
    pub(crate) name: &'static str,
    /// Name of the service account in kube-system it acts as.
    pub(crate) account: &'static str,
    /// Whether `*` means this one too.
    pub(crate) default_on: bool,
    pub(crate) start: fn(&Context),
}

const fn on(name: &'static str, account: &'static str, start: fn(&Context)) -> Controller {
    Controller { name, account, default_on: true, start }
}

/// One that runs only when it is asked for by name.
const fn off(name: &'static str, account: &'static str, start: fn(&Context)) -> Controller {
    Controller { name, account, default_on: false, start }
}

/// All controllers.
pub(crate) const CONTROLLERS: &[Controller] = &[
    on("serviceaccount-controller", "service-account-controller", serviceaccount::start),
    on("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", root_ca::start),
    on("resourcequota-controller", "resourcequota-controller", resource_quota::start),
    on("deployment-controller", "deployment-controller", deployment::start),
    on("replicaset-controller", "replicaset-controller", replicaset::start),
    on("replicationcontroller-controller", "replication-controller", replicaset::start_controllers),
    on("endpoints-controller", "endpoint-controller", endpoints::start),
    on("endpointslice-controller", "endpointslice-controller", endpointslice::start),
    on(
        "endpointslice-mirroring-controller",
        "endpointslicemirroring-controller",
        endpointslice_mirroring::start,
    ),
    on("statefulset-controller", "statefulset-controller", statefulset::start),
    on("daemonset-controller", "daemon-set-controller", daemonset::start),
    on("job-controller", "job-controller", job::start),
    on("cronjob-controller", "cronjob-controller", cronjob::start),
    on("ttl-after-finished-controller", "ttl-after-finished-controller", ttl_after_finished::start),
    on("pod-garbage-collector-controller", "pod-garbage-collector", pod_gc::start),
    on(
        "clusterrole-aggregation-controller",
        "clusterrole-aggregation-controller",
        clusterrole_aggregation::start,
    ),
    on(
        "certificatesigningrequest-approving-controller",
        "certificate-controller",
        certificates::start_approving,
    ),
    on("certificatesigningrequest-signing-controller", "certificate-controller", certificates::start_signing),
    on(
        "certificatesigningrequest-cleaner-controller",
        "certificate-controller",
        certificates::start_cleaning,
    ),
    off("bootstrap-signer-controller", "bootstrap-signer", bootstrap_tokens::start_signer),
    off("token-cleaner-controller", "token-cleaner", bootstrap_tokens::start_cleaner),
    on("disruption-controller", "disruption-controller", disruption::start),
    on("ephemeral-volume-controller", "ephemeral-volume-controller", ephemeral_volume::start),
    on("serviceaccount-token-controller", "tokens-controller", serviceaccount_token::start),
    on("namespace-controller", "namespace-controller", namespace::start),
    on("garbage-collector-controller", "generic-garbage-collector", garbage_collector::start),
    on("node-ipam-controller", "node-controller", node_ipam::start),
    on("node-lifecycle-controller", "node-controller", node_lifecycle::start),
    on("ttl-controller", "ttl-controller", node_ttl::start),
    on("service-cidr-controller", "service-cidrs-controller", service_cidr::start),
    on("taint-eviction-controller", "node-controller", taint_eviction::start),
    on("persistentvolume-binder-controller", "persistent-volume-binder", volume_binder::start),
    on("persistentvolume-attach-detach-controller", "attachdetach-controller", attach_detach::start),
    on("persistentvolume-expander-controller", "expand-controller", volume_expand::start),
    on(
        "persistentvolumeclaim-protection-controller",
        "pvc-protection-controller",
        volume_protection::start_claims,
    ),
    on(
        "validatingadmissionpolicy-status-controller",
        "validatingadmissionpolicy-status-controller",
        policy_status::start,
    ),
    on(
        "storage-version-migrator-controller",
        "storage-version-migrator-controller",
        storage_version_migrator::start,
    ),
    on(
        "persistentvolume-protection-controller",
        "pv-protection-controller",
        volume_protection::start_volumes,
    ),
    on(
        "volumeattributesclass-protection-controller",
        "volumeattributesclass-protection-controller",
        volume_protection::start_classes,
    ),
];

/// The controllers that `--controllers` asks for; an error names one that does not exist.
pub(crate) fn selected(wanted: &[String]) -> Result<Vec<&'static Controller>, String> {
    for word in wanted {
        let name = resolve(word.strip_prefix('-').unwrap_or(word));
        if name != "*" && !known(name) {
            return Err(format!("{name:?} is not in the list of known controllers"));
        }
    }
    let asked = |name: &str| wanted.iter().any(|w| resolve(w) == name);
    let refused = |name: &str| wanted.iter().filter_map(|w| w.strip_prefix('-')).any(|w| resolve(w) == name);
    let chosen =
        CONTROLLERS.iter().filter(|c| asked(c.name) || (!refused(c.name) && c.default_on && asked("*")));
    Ok(chosen.collect())
}

/// The name that a word of `--controllers` stands for.
fn resolve(word: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == word).map_or(word, |(_, name)| name)
}

/// What `--controllers` may call them besides: the names of before v1.28, which kubeadm still writes.
const ALIASES: &[(&str, &str)] = &[
    ("attachdetach", "persistentvolume-attach-detach-controller"),
    ("bootstrapsigner", "bootstrap-signer-controller"),
    ("cloud-node-lifecycle", "cloud-node-lifecycle-controller"),
    ("clusterrole-aggregation", "clusterrole-aggregation-controller"),
    ("cronjob", "cronjob-controller"),
    ("csrapproving", "certificatesigningrequest-approving-controller"),
    ("csrcleaner", "certificatesigningrequest-cleaner-controller"),
    ("csrsigning", "certificatesigningrequest-signing-controller"),
    ("daemonset", "daemonset-controller"),
    ("deployment", "deployment-controller"),
    ("disruption", "disruption-controller"),
    ("endpoint", "endpoints-controller"),
    ("endpointslice", "endpointslice-controller"),
    ("endpointslicemirroring", "endpointslice-mirroring-controller"),
    ("ephemeral-volume", "ephemeral-volume-controller"),
    ("garbagecollector", "garbage-collector-controller"),
    ("horizontalpodautoscaling", "horizontal-pod-autoscaler-controller"),
    ("job", "job-controller"),
    ("legacy-service-account-token-cleaner", "legacy-serviceaccount-token-cleaner-controller"),
    ("namespace", "namespace-controller"),
    ("nodeipam", "node-ipam-controller"),
    ("nodelifecycle", "node-lifecycle-controller"),
    ("persistentvolume-binder", "persistentvolume-binder-controller"),
    ("persistentvolume-expander", "persistentvolume-expander-controller"),
    ("podgc", "pod-garbage-collector-controller"),
    ("pv-protection", "persistentvolume-protection-controller"),
    ("pvc-protection", "persistentvolumeclaim-protection-controller"),
    ("replicaset", "replicaset-controller"),
    ("replicationcontroller", "replicationcontroller-controller"),
    ("resource-claim-controller", "resourceclaim-controller"),
    ("resourcequota", "resourcequota-controller"),
    ("root-ca-cert-publisher", "root-ca-certificate-publisher-controller"),
    ("route", "node-route-controller"),
    ("service", "service-lb-controller"),
    ("service-ca-cert-publisher", "service-ca-certificate-publisher-controller"),
    ("serviceaccount", "serviceaccount-controller"),
    ("serviceaccount-token", "serviceaccount-token-controller"),
    ("statefulset", "statefulset-controller"),
    ("storage-version-gc", "storageversion-garbage-collector-controller"),
    ("svm", "storage-version-migrator-controller"),
    ("tokencleaner", "token-cleaner-controller"),
    ("ttl", "ttl-controller"),
    ("ttl-after-finished", "ttl-after-finished-controller"),
];

/// Controllers of upstream that this program does not have: they may be switched off, as they are.
const ABSENT: &[&str] = &[
    "cloud-node-lifecycle-controller",
    "device-taint-eviction-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    "legacy-serviceaccount-token-cleaner-controller",
    "node-route-controller",
    "podcertificaterequest-cleaner-controller",
    "podgroup-protection-controller",
    "resourceclaim-controller",
    "resourcepoolstatusrequest-controller",
    "selinux-warning-controller",
    "service-ca-certificate-publisher-controller",
    "service-lb-controller",
    "storageversion-garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
];

fn known(name: &str) -> bool {
    CONTROLLERS.iter().any(|c| c.name == name) || ABSENT.contains(&name)
}

/// Those of the wanted controllers that are asked for by name and not here.
pub(crate) fn missing(wanted: &[String]) -> Vec<&str> {
    wanted.iter().map(|w| resolve(w)).filter(|w| ABSENT.contains(w)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_switched_by_name() {
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
            selected(&wanted).map(|c| c.iter().map(|c| c.name).collect::<Vec<_>>())
        };
        let all = names(&["*"]).unwrap();
        assert!(all.contains(&"replicaset-controller"));
        assert!(!names(&["*", "-replicaset-controller"]).unwrap().contains(&"replicaset-controller"));
        assert_eq!(names(&["replicaset-controller"]).unwrap(), ["replicaset-controller"]);
        assert!(names(&["*", "no-such"]).is_err());
        assert!(!all.contains(&"token-cleaner-controller"));
        assert!(
            names(&["*", "bootstrapsigner", "tokencleaner"]).unwrap().contains(&"token-cleaner-controller")
        );
        assert!(!names(&["*", "-replicaset"]).unwrap().contains(&"replicaset-controller"));
    }
}
