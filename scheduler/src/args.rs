//! The flags of kube-scheduler.

use client::delegated::DelegationFlags;
use daemon::features::FeatureGates;
use daemon::{LeaderElectionFlags, LoggingFlags};
use serve::flags::ServingFlags;

/// The Kubernetes scheduler.
#[derive(clap::Parser, Clone, Debug)]
pub struct Args {
    /// The path to the configuration file.
    #[arg(long, default_value = "")]
    pub config: String,
    /// Path to kubeconfig file; ignored when a config file is given.
    #[arg(long, default_value = "")]
    pub kubeconfig: String,
    /// The address of the Kubernetes API server (overrides any value in kubeconfig).
    #[arg(long, default_value = "")]
    pub master: String,
    /// Serving.
    #[command(flatten)]
    pub serving: ServingFlags,
    /// Who may see our endpoints.
    #[command(flatten)]
    pub delegation: DelegationFlags,
    /// Leader election; overridden by a config file.
    #[command(flatten)]
    pub election: LeaderElectionFlags,
    /// Logging.
    #[command(flatten)]
    pub logging: LoggingFlags,
    /// Feature gates.
    #[arg(long, default_value = "")]
    pub feature_gates: FeatureGates,
    /// Accepted as upstream does; requests are not limited here, the API server's priority and fairness is.
    #[arg(long, default_value_t = 50.0)]
    pub kube_api_qps: f32,
    /// See --kube-api-qps.
    #[arg(long, default_value_t = 100)]
    pub kube_api_burst: i32,
    /// Enable profiling; there is no Go profile to serve.
    #[arg(long, default_value_t = true)]
    pub profiling: bool,
}

impl daemon::Flags for Args {
    fn logging(&self) -> &LoggingFlags {
        &self.logging
    }
}
