//! What a server does once when it starts, and the checks of health that wait for it: by upstream's names and in its
//! order, as far as there is such a thing here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::server::Server;

/// Something that is done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All objects have been read from etcd.
    Loaded,
    /// The namespaces that every cluster has are there.
    Namespaces,
    /// So are the roles and bindings,
    Roles,
    /// the priority classes,
    PriorityClasses,
    /// the levels and schemas of priority and fairness,
    FlowControl,
    /// what other servers read of authentication,
    AuthenticationInfo,
    /// the day from which older tokens are tracked,
    TokenTracking,
    /// the APIServices of what this server serves itself,
    LocalServices,
    /// and the range of Service addresses.
    ServiceRange,
    /// Addresses and ports have been compared with the Services that have them.
    AddressRepair,
    /// Priority and fairness follows its objects.
    FlowControlRead,
    /// The definitions of custom resources have been looked at.
    Definitions,
    /// So have the APIServices,
    Availability,
    /// and other servers have been asked what they serve.
    Discovery,
    /// The Lease of this server has been written,
    Identity,
    /// and those of servers that are gone are looked for.
    IdentityCollected,
    /// The Service `kubernetes` is kept.
    OwnService,
}

impl Step {
    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Which steps have been done.
#[derive(Debug, Default)]
pub struct Starting(AtomicU32);

impl Starting {
    /// Notes that a step has been done.
    pub fn done(&self, step: Step) {
        self.0.fetch_or(step.bit(), Ordering::Relaxed);
    }

    fn is_done(&self, step: Step) -> bool {
        self.0.load(Ordering::Relaxed) & step.bit() != 0
    }
}

/// Checks, and the step that each waits for. `None`: there is nothing to wait for once the server runs.
const CHECKS: [(&str, Option<Step>); 31] = [
    ("poststarthook/start-apiserver-admission-initializer", Some(Step::Loaded)),
    ("poststarthook/generic-apiserver-start-informers", Some(Step::Loaded)),
    (CONSUMER, Some(Step::FlowControlRead)),
    (FAIR_FILTER, None),
    ("poststarthook/storage-object-count-tracker-hook", Some(Step::Loaded)),
    ("poststarthook/start-apiextensions-informers", Some(Step::Loaded)),
    ("poststarthook/start-apiextensions-controllers", Some(Step::Definitions)),
    ("poststarthook/crd-informer-synced", Some(Step::Loaded)),
    ("poststarthook/start-system-namespaces-controller", Some(Step::Namespaces)),
    ("poststarthook/start-cluster-authentication-info-controller", Some(Step::AuthenticationInfo)),
    ("poststarthook/start-kube-apiserver-identity-lease-controller", Some(Step::Identity)),
    ("poststarthook/start-kube-apiserver-identity-lease-garbage-collector", Some(Step::IdentityCollected)),
    ("poststarthook/storage-readiness", Some(Step::Loaded)),
    ("poststarthook/start-legacy-token-tracking-controller", Some(Step::TokenTracking)),
    ("poststarthook/start-service-ip-repair-controllers", Some(Step::AddressRepair)),
    ("poststarthook/rbac/bootstrap-roles", Some(Step::Roles)),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", Some(Step::PriorityClasses)),
    (PRODUCER, Some(Step::FlowControl)),
    ("poststarthook/bootstrap-controller", Some(Step::OwnService)),
    ("poststarthook/start-kubernetes-service-cidr-controller", Some(Step::ServiceRange)),
    ("poststarthook/aggregator-reload-proxy-client-cert", None),
    ("poststarthook/start-kube-aggregator-informers", Some(Step::Loaded)),
    ("poststarthook/apiservice-status-local-available-controller", Some(Step::Availability)),
    ("poststarthook/apiservice-status-remote-available-controller", Some(Step::Availability)),
    ("poststarthook/apiservice-registration-controller", Some(Step::Loaded)),
    ("poststarthook/apiservice-wait-for-first-sync", Some(Step::Loaded)),
    ("poststarthook/apiservice-discovery-controller", Some(Step::Discovery)),
    ("poststarthook/kube-apiserver-autoregistration", Some(Step::LocalServices)),
    ("autoregister-completion", Some(Step::LocalServices)),
    ("poststarthook/apiservice-openapi-controller", Some(Step::Loaded)),
    ("poststarthook/apiservice-openapiv3-controller", Some(Step::Loaded)),
];
const CONSUMER: &str = "poststarthook/priority-and-fairness-config-consumer";
const PRODUCER: &str = "poststarthook/priority-and-fairness-config-producer";
const FAIR_FILTER: &str = "poststarthook/priority-and-fairness-filter";
/// What stands for it when requests are merely counted.
const PLAIN_FILTER: &str = "poststarthook/max-in-flight-filter";

/// Adds the checks, which `/livez` takes for passed for `grace`.
pub fn add_checks(server: &Arc<Server>, grace: Duration) {
    let fair = server.gate.fair().is_some();
    for (name, step) in CHECKS.into_iter().filter(|(name, _)| fair || ![CONSUMER, PRODUCER].contains(name)) {
        let name = if name == FAIR_FILTER && !fair { PLAIN_FILTER } else { name };
        let server = server.clone();
        server.clone().health.add_startup(name, grace, move || {
            match step.is_none_or(|step| server.starting.is_done(step)) {
                true => Ok(()),
                false => Err("not finished".to_owned()),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_done_one_by_one() {
        let starting = Starting::default();
        starting.done(Step::OwnService);
        assert!(starting.is_done(Step::OwnService));
        assert!(!starting.is_done(Step::Loaded));
        for (name, step) in CHECKS {
            assert_eq!(CHECKS.iter().filter(|(other, _)| *other == name).count(), 1, "{name} {step:?}");
        }
    }
}
