//! The configuration in force: from flags, or a KubeSchedulerConfiguration file.

use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure};
use client::lease::Election;
use daemon::GoDuration;
use serde::{Deserialize, Serialize};

use crate::args::Args;

/// `kubescheduler.config.k8s.io/v1`, as far as it is supported: other fields are refused.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default = "parallelism")]
    parallelism: i32,
    #[serde(default)]
    leader_election: LeaderElection,
    #[serde(default)]
    client_connection: ClientConnection,
    #[serde(default = "yes")]
    enable_profiling: bool,
    #[serde(default = "yes")]
    enable_contention_profiling: bool,
    #[serde(default)]
    percentage_of_nodes_to_score: i32,
    #[serde(default = "initial_backoff")]
    pod_initial_backoff_seconds: u64,
    #[serde(default = "max_backoff")]
    pod_max_backoff_seconds: u64,
    #[serde(default)]
    profiles: Vec<Profile>,
    #[serde(default)]
    delay_cache_until_active: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct LeaderElection {
    leader_elect: bool,
    lease_duration: GoDuration,
    renew_deadline: GoDuration,
    retry_period: GoDuration,
    resource_lock: String,
    resource_name: String,
    resource_namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ClientConnection {
    kubeconfig: String,
    accept_content_types: String,
    content_type: String,
    qps: f32,
    burst: i32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    #[serde(default = "default_name")]
    scheduler_name: String,
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self {
            leader_elect: true,
            lease_duration: GoDuration::from_secs(15),
            renew_deadline: GoDuration::from_secs(10),
            retry_period: GoDuration::from_secs(2),
            resource_lock: "leases".to_owned(),
            resource_name: "kube-scheduler".to_owned(),
            resource_namespace: "kube-system".to_owned(),
        }
    }
}

fn parallelism() -> i32 {
    16
}
fn yes() -> bool {
    true
}
fn initial_backoff() -> u64 {
    1
}
fn max_backoff() -> u64 {
    10
}
fn default_name() -> String {
    "default-scheduler".to_owned()
}

/// What the scheduler works by.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) kubeconfig: String,
    /// Names under which pods ask for this scheduler.
    pub(crate) names: Vec<String>,
    pub(crate) initial_backoff: Duration,
    pub(crate) max_backoff: Duration,
    pub(crate) election: Option<Election>,
    /// The configuration as `/configz` shows it.
    pub(crate) configz: String,
}

impl Config {
    pub(crate) fn new(args: &Args) -> anyhow::Result<Self> {
        args.feature_gates.check(&[]).map_err(anyhow::Error::msg)?;
        let file: File = match args.config.as_str() {
            "" => from_flags(args),
            path => daemon::config::read(
                Path::new(path),
                &["kubescheduler.config.k8s.io/v1"],
                "KubeSchedulerConfiguration",
            )?,
        };
        let e = &file.leader_election;
        ensure!(e.resource_lock == "leases", "leaderElection.resourceLock: only \"leases\" is supported");
        if file.delay_cache_until_active {
            bail!("delayCacheUntilActive is not supported");
        }
        let election = e.leader_elect.then(|| Election {
            namespace: e.resource_namespace.clone(),
            lease_duration: e.lease_duration.0,
            renew_deadline: e.renew_deadline.0,
            retry_period: e.retry_period.0,
            ..Election::new(&e.resource_name)
        });
        let mut names: Vec<String> = file.profiles.iter().map(|p| p.scheduler_name.clone()).collect();
        if names.is_empty() {
            names.push(default_name());
        }
        let shown = serde_json::json!({"kubescheduler.config.k8s.io": &file});
        Ok(Self {
            kubeconfig: file.client_connection.kubeconfig.clone(),
            names,
            initial_backoff: Duration::from_secs(file.pod_initial_backoff_seconds),
            max_backoff: Duration::from_secs(file.pod_max_backoff_seconds),
            election,
            configz: shown.to_string(),
        })
    }
}

fn from_flags(args: &Args) -> File {
    let e = &args.election;
    let defaults = LeaderElection::default();
    let name = match e.leader_elect_resource_name.as_str() {
        "" => defaults.resource_name,
        name => name.to_owned(),
    };
    File {
        api_version: "kubescheduler.config.k8s.io/v1".to_owned(),
        kind: "KubeSchedulerConfiguration".to_owned(),
        parallelism: parallelism(),
        leader_election: LeaderElection {
            leader_elect: e.leader_elect,
            lease_duration: e.leader_elect_lease_duration,
            renew_deadline: e.leader_elect_renew_deadline,
            retry_period: e.leader_elect_retry_period,
            resource_lock: e.leader_elect_resource_lock.clone(),
            resource_name: name,
            resource_namespace: e.leader_elect_resource_namespace.clone(),
        },
        client_connection: ClientConnection {
            kubeconfig: args.kubeconfig.clone(),
            qps: args.kube_api_qps,
            burst: args.kube_api_burst,
            ..ClientConnection::default()
        },
        enable_profiling: args.profiling,
        enable_contention_profiling: true,
        percentage_of_nodes_to_score: 0,
        pod_initial_backoff_seconds: initial_backoff(),
        pod_max_backoff_seconds: max_backoff(),
        profiles: vec![Profile { scheduler_name: default_name() }],
        delay_cache_until_active: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_what_is_supported_and_refuses_the_rest() {
        let read = |text: &str| {
            daemon::config::parse::<File>(
                text,
                &["kubescheduler.config.k8s.io/v1"],
                "KubeSchedulerConfiguration",
            )
        };
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        let file = read(&format!(
            "{head}leaderElection: {{leaderElect: false}}\nclientConnection: {{kubeconfig: /k}}\n"
        ))
        .unwrap();
        assert!(!file.leader_election.leader_elect);
        assert_eq!(file.leader_election.lease_duration, GoDuration::from_secs(15));
        assert_eq!(file.client_connection.kubeconfig, "/k");
        assert!(read(&format!("{head}extenders: [{{urlPrefix: x}}]\n")).is_err());
        assert!(read(&format!("{head}profiles: [{{schedulerName: x, plugins: {{}}}}]\n")).is_err());
    }
}
