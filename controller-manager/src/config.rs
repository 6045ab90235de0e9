//! The validated configuration.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use daemon::features::FeatureGates;
use ipnet::IpNet;

use crate::args::Args;

/// Feature gates that can be on as well as off.
const SWITCHABLE: [&str; 1] = ["StorageVersionMigrator"];

/// What controllers need to know; flags travel no further.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Names as in `--controllers`.
    pub(crate) controllers: Vec<String>,
    pub(crate) root_ca: Option<String>,
    /// Pod ranges and the mask size of a node's part of each; empty when nodes get none.
    pub(crate) node_cidrs: Vec<(IpNet, u8)>,
    pub(crate) service_cidrs: Vec<IpNet>,
    pub(crate) signing: Option<(PathBuf, PathBuf)>,
    pub(crate) signing_duration: Duration,
    /// File of the key that signs tokens kept in Secrets.
    pub(crate) token_key: Option<String>,
    pub(crate) node_monitor_period: Duration,
    pub(crate) node_monitor_grace_period: Duration,
    pub(crate) node_startup_grace_period: Duration,
    pub(crate) eviction: EvictionLimits,
    pub(crate) terminated_pod_gc_threshold: usize,
    pub(crate) garbage_collector: bool,
    /// Feature gates as they were set.
    pub(crate) gates: FeatureGates,
    pub(crate) dynamic_provisioning: bool,
    pub(crate) max_endpoints_per_slice: usize,
    pub(crate) max_mirrored_endpoints: usize,
    pub(crate) quota_sync_period: Duration,
    pub(crate) workers: Workers,
}

/// How fast pods go from nodes that are not ready: nodes a second, in each zone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EvictionLimits {
    /// While the zone is healthy.
    pub(crate) rate: f32,
    /// While it is not, and is large; in a small one no node is evicted then.
    pub(crate) secondary_rate: f32,
    /// A zone with more nodes is large.
    pub(crate) large_zone: i32,
    /// A zone is unhealthy when at least this part of its nodes is not ready.
    pub(crate) unhealthy_zone: f32,
}

impl EvictionLimits {
    /// What the flags say when they are not given.
    #[cfg(test)]
    pub(crate) const DEFAULT: Self =
        Self { rate: 0.1, secondary_rate: 0.01, large_zone: 50, unhealthy_zone: 0.55 };

    /// Whether a zone with so many nodes is large.
    pub(crate) fn is_large(&self, nodes: usize) -> bool {
        i64::try_from(nodes).is_ok_and(|nodes| nodes > i64::from(self.large_zone))
    }
}

/// Workers of each controller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workers {
    pub(crate) deployment: usize,
    pub(crate) replicaset: usize,
    pub(crate) replication_controller: usize,
    pub(crate) endpoint: usize,
    pub(crate) endpointslice: usize,
    pub(crate) mirroring: usize,
    pub(crate) statefulset: usize,
    pub(crate) daemonset: usize,
    pub(crate) job: usize,
    pub(crate) cronjob: usize,
    pub(crate) namespace: usize,
    pub(crate) gc: usize,
    pub(crate) token: usize,
    pub(crate) quota: usize,
}

fn ranges(text: &str, flag: &str) -> anyhow::Result<Vec<IpNet>> {
    let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    parts.map(|p| p.parse().with_context(|| format!("--{flag}: {p:?} is not a CIDR range"))).collect()
}

impl Config {
    pub(crate) fn new(args: &Args) -> anyhow::Result<Self> {
        args.feature_gates.check(&SWITCHABLE).map_err(anyhow::Error::msg)?;
        let root_ca = match args.root_ca_file.as_str() {
            "" => None,
            path => Some(
                std::fs::read_to_string(path)
                    .with_context(|| format!("--root-ca-file: cannot read {path}"))?,
            ),
        };
        let signing = match (args.cluster_signing_cert_file.as_str(), args.cluster_signing_key_file.as_str())
        {
            ("", "") => None,
            ("", _) | (_, "") => {
                bail!("--cluster-signing-cert-file and --cluster-signing-key-file go together")
            }
            (cert, key) => Some((cert.into(), key.into())),
        };
        Ok(Self {
            controllers: args.controllers.clone(),
            root_ca,
            node_cidrs: node_cidrs(args)?,
            service_cidrs: ranges(&args.service_cluster_ip_range, "service-cluster-ip-range")?,
            signing,
            signing_duration: args.cluster_signing_duration.0,
            token_key: Some(args.service_account_private_key_file.clone()).filter(|p| !p.is_empty()),
            node_monitor_period: args.node_monitor_period.0,
            node_monitor_grace_period: args.node_monitor_grace_period.0,
            node_startup_grace_period: args.node_startup_grace_period.0,
            eviction: EvictionLimits {
                rate: args.node_eviction_rate,
                secondary_rate: args.secondary_node_eviction_rate,
                large_zone: args.large_cluster_size_threshold,
                unhealthy_zone: args.unhealthy_zone_threshold,
            },
            terminated_pod_gc_threshold: usize::try_from(args.terminated_pod_gc_threshold).unwrap_or(0),
            garbage_collector: args.enable_garbage_collector,
            gates: args.feature_gates.clone(),
            dynamic_provisioning: args.enable_dynamic_provisioning,
            max_endpoints_per_slice: args.max_endpoints_per_slice.max(1),
            max_mirrored_endpoints: args.mirroring_max_endpoints_per_subset.clamp(1, 1000),
            quota_sync_period: args.resource_quota_sync_period.0,
            workers: Workers {
                deployment: args.concurrent_deployment_syncs,
                replicaset: args.concurrent_replicaset_syncs,
                replication_controller: args.concurrent_rc_syncs,
                endpoint: args.concurrent_endpoint_syncs,
                endpointslice: args.concurrent_service_endpoint_syncs,
                mirroring: args.mirroring_concurrent_service_endpoint_syncs,
                statefulset: args.concurrent_statefulset_syncs,
                daemonset: args.concurrent_daemonset_syncs,
                job: args.concurrent_job_syncs,
                cronjob: args.concurrent_cron_job_syncs,
                namespace: args.concurrent_namespace_syncs,
                gc: args.concurrent_gc_syncs,
                token: args.concurrent_serviceaccount_token_syncs,
                quota: args.concurrent_resource_quota_syncs,
            },
        })
    }
}

fn node_cidrs(args: &Args) -> anyhow::Result<Vec<(IpNet, u8)>> {
    if !args.allocate_node_cidrs {
        return Ok(Vec::new());
    }
    let ranges = ranges(&args.cluster_cidr, "cluster-cidr")?;
    ensure!(!ranges.is_empty(), "--allocate-node-cidrs requires --cluster-cidr");
    let single = ranges.len() == 1;
    let sized = ranges.into_iter().map(|range| {
        let (own, default) = match range.addr() {
            IpAddr::V4(_) => (args.node_cidr_mask_size_ipv4, 24),
            IpAddr::V6(_) => (args.node_cidr_mask_size_ipv6, 64),
        };
        let general = if single { args.node_cidr_mask_size } else { 0 };
        let mask = [own, general].into_iter().find(|m| *m != 0).unwrap_or(default);
        ensure!(
            mask >= range.prefix_len() && mask <= range.max_prefix_len(),
            "the node mask size {mask} does not fit --cluster-cidr {range}"
        );
        Ok((range, mask))
    });
    sized.collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn flags_limit_evictions() {
        let check = |flags: &[&str], want: EvictionLimits| {
            let args = Args::try_parse_from([&["kube-controller-manager"], flags].concat()).unwrap();
            assert_eq!(Config::new(&args).unwrap().eviction, want, "{flags:?}");
        };
        check(&[], EvictionLimits::DEFAULT);
        check(
            &[
                "--node-eviction-rate=0.5",
                "--secondary-node-eviction-rate=0",
                "--large-cluster-size-threshold=3",
                "--unhealthy-zone-threshold=0.7",
            ],
            EvictionLimits { rate: 0.5, secondary_rate: 0.0, large_zone: 3, unhealthy_zone: 0.7 },
        );
    }
}
