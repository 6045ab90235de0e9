//! The flags of local-path-provisioner.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use daemon::LoggingFlags;

/// Makes folders of this node into persistent volumes.
#[derive(Clone, Debug, Parser)]
pub struct Args {
    /// Kubeconfig file; the pod's service account when empty.
    #[arg(long, default_value = "")]
    pub kubeconfig: String,
    /// Name by which storage classes name this provisioner.
    #[arg(long, default_value = "rancher.io/local-path")]
    pub provisioner_name: String,
    /// Folder that holds the volumes, on the node and here.
    #[arg(long, default_value = "/opt/local-path-provisioner")]
    pub base_path: PathBuf,
    /// Name of the node this runs on.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Where the health endpoints are served.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub health_address: SocketAddr,
    /// Logging.
    #[command(flatten)]
    pub logging: LoggingFlags,
}

impl daemon::Flags for Args {
    fn logging(&self) -> &LoggingFlags {
        &self.logging
    }
}
