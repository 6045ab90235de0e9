//! The flags, in CoreDNS' style: `-conf` and `--conf` are the same.

use daemon::LoggingFlags;

/// The cluster's DNS server.
#[derive(clap::Parser, Clone, Debug)]
pub struct Args {
    /// Corefile to load.
    #[arg(long, default_value = "Corefile")]
    pub conf: String,
    /// Port of server blocks that name none.
    #[arg(long = "dns.port", default_value_t = 53)]
    pub port: u16,
    /// Kubeconfig file; the pod's service account without.
    #[arg(long, default_value = "")]
    pub kubeconfig: String,
    /// Logging.
    #[command(flatten)]
    pub logging: LoggingFlags,
}

impl daemon::Flags for Args {
    fn logging(&self) -> &LoggingFlags {
        &self.logging
    }

    fn word(word: String) -> String {
        let long = ["-conf", "-dns.port", "-kubeconfig"];
        let name = word.split_once('=').map_or(word.as_str(), |(n, _)| n);
        if long.contains(&name) { format!("-{word}") } else { word }
    }
}
