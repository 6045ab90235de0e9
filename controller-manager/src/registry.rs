//! The one list of controllers.

use crate::context::Context;
use crate::{
    certificates, clusterrole_aggregation, cronjob, daemonset, deployment, disruption, endpoints,
    endpointslice, ephemeral_volume, garbage_collector, job, namespace, node_ipam, node_lifecycle, pod_gc,
    replicaset, root_ca, serviceaccount, serviceaccount_token, statefulset, taint_eviction,
    ttl_after_finished, volume_binder, volume_protection,
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

/// All controllers.
pub(crate) const CONTROLLERS: &[Controller] = &[
    on("serviceaccount-controller", "service-account-controller", serviceaccount::start),
    on("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", root_ca::start),
    on("deployment-controller", "deployment-controller", deployment::start),
    on("replicaset-controller", "replicaset-controller", replicaset::start),
    on("endpoints-controller", "endpoint-controller", endpoints::start),
    on("endpointslice-controller", "endpointslice-controller", endpointslice::start),
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
    on("disruption-controller", "disruption-controller", disruption::start),
    on("ephemeral-volume-controller", "ephemeral-volume-controller", ephemeral_volume::start),
    on("serviceaccount-token-controller", "tokens-controller", serviceaccount_token::start),
    on("namespace-controller", "namespace-controller", namespace::start),
    on("garbage-collector-controller", "generic-garbage-collector", garbage_collector::start),
    on("node-ipam-controller", "node-controller", node_ipam::start),
    on("node-lifecycle-controller", "node-controller", node_lifecycle::start),
    on("taint-eviction-controller", "node-controller", taint_eviction::start),
    on("persistentvolume-binder-controller", "persistent-volume-binder", volume_binder::start),
    on(
        "persistentvolumeclaim-protection-controller",
        "pvc-protection-controller",
        volume_protection::start_claims,
    ),
    on(
        "persistentvolume-protection-controller",
        "pv-protection-controller",
        volume_protection::start_volumes,
    ),
];

/// The controllers that `--controllers` asks for; an error names one that does not exist.
pub(crate) fn selected(wanted: &[String]) -> Result<Vec<&'static Controller>, String> {
    for word in wanted {
        let name = word.trim_start_matches('-');
        if name != "*" && !known(name) {
            return Err(format!("{name:?} is not in the list of known controllers"));
        }
    }
    let asked = |word: &str| wanted.iter().any(|w| w == word);
    let chosen = CONTROLLERS.iter().filter(|c| {
        let off = format!("-{}", c.name);
        asked(c.name) || (!asked(&off) && c.default_on && asked("*"))
    });
    Ok(chosen.collect())
}

/// Controllers of upstream that this program does not have: they may be switched off, as they are.
const ABSENT: &[&str] = &[
    "bootstrap-signer-controller",
    "cloud-node-lifecycle-controller",
    "device-taint-eviction-controller",
    "endpointslice-mirroring-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    "legacy-serviceaccount-token-cleaner-controller",
    "node-route-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-expander-controller",
    "podcertificaterequest-cleaner-controller",
    "podgroup-protection-controller",
    "replicationcontroller-controller",
    "resourceclaim-controller",
    "resourcepoolstatusrequest-controller",
    "resourcequota-controller",
    "selinux-warning-controller",
    "service-ca-certificate-publisher-controller",
    "service-cidr-controller",
    "service-lb-controller",
    "storage-version-migrator-controller",
    "storageversion-garbage-collector-controller",
    "token-cleaner-controller",
    "ttl-controller",
    "validatingadmissionpolicy-status-controller",
    "volumeattributesclass-protection-controller",
    "horizontal-pod-autoscaler-controller",
];

fn known(name: &str) -> bool {
    CONTROLLERS.iter().any(|c| c.name == name) || ABSENT.contains(&name)
}

/// Those of the wanted controllers that are asked for by name and not here.
pub(crate) fn missing(wanted: &[String]) -> Vec<&str> {
    wanted.iter().map(String::as_str).filter(|w| ABSENT.contains(w)).collect()
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
    }
}
