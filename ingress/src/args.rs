//! The flags of ingress-controller.

use std::net::IpAddr;

use clap::Parser;
use daemon::LoggingFlags;

/// Routes HTTP and HTTPS to Services by Ingress objects.
#[derive(Clone, Debug, Parser)]
pub struct Args {
    /// Kubeconfig file; the pod's service account when empty.
    #[arg(long, default_value = "")]
    pub kubeconfig: String,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port for HTTP.
    #[arg(long, default_value_t = 80)]
    pub http_port: u16,
    /// Port for HTTPS.
    #[arg(long, default_value_t = 443)]
    pub https_port: u16,
    /// Port of the health endpoints.
    #[arg(long, default_value_t = 10_254)]
    pub healthz_port: u16,
    /// Value of spec.controller of the IngressClasses served here.
    #[arg(long, default_value = "k8s.io/ingress-nginx")]
    pub controller_class: String,
    /// Value of the older annotation kubernetes.io/ingress.class that is served here.
    #[arg(long, default_value = "nginx")]
    pub ingress_class: String,
    /// Serve Ingresses that name no class at all.
    #[arg(long)]
    pub watch_ingress_without_class: bool,
    /// Address that is written into the status of Ingresses.
    #[arg(long)]
    pub publish_status_address: Option<IpAddr>,
    /// Logging.
    #[command(flatten)]
    pub logging: LoggingFlags,
}

impl daemon::Flags for Args {
    fn logging(&self) -> &LoggingFlags {
        &self.logging
    }
}
