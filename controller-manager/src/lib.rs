//! kube-controller-manager: the control loops that make the cluster what its objects say.
//!
//! One informer per resource is shared by all controllers; each controller is a module with a `start` that says what it
//! listens to, and a pure `plan` from what it sees to a list of [`act::Action`]s. After each write the controller waits until
//! its cache has seen it, so that no decision is made on facts older than its own doing; that takes the place of upstream's
//! expectations. What is not here: cloud controllers and device claims.

mod act;
mod args;
mod claim;
mod config;
mod context;
mod discovery;
mod informers;
mod keys;
mod objects;
mod registry;
mod revisions;
mod run;

mod attach_detach;
mod bootstrap_tokens;
mod certificates;
mod clusterrole_aggregation;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslice_mirroring;
mod ephemeral_volume;
mod garbage_collector;
mod job;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod node_ttl;
mod pod_gc;
mod policy_status;
mod replicaset;
mod resource_quota;
mod root_ca;
mod service_cidr;
mod serviceaccount;
mod serviceaccount_token;
mod statefulset;
mod storage_version_migrator;
mod taint_eviction;
mod ttl_after_finished;
mod volume_binder;
mod volume_expand;
mod volume_protection;

pub use args::Args;
pub use run::run;
