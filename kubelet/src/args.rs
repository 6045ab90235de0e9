//! Command line flags, by upstream's names. None is unknown, and none is ignored: what is not supported is refused with
//! the reason. Most stand for a field of the configuration file and win over it.

mod fields;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Parser;
use daemon::fixed::{FixedFlags, Table};
use daemon::{Flags, KeyValues, LoggingFlags};

pub use fields::FieldFlags;

/// The flags that must not change anything.
#[derive(Clone, Debug)]
pub struct Fixed;

impl Table for Fixed {
    const ROWS: &'static str = include_str!("../data/flags.txt");
}

/// The node agent: runs the pods that are bound to this node.
#[derive(Parser, Clone, Debug)]
#[command(name = "kubelet")]
pub struct Args {
    /// The kubelet's configuration file (KubeletConfiguration, kubelet.config.k8s.io/v1beta1).
    #[arg(long, default_value = "")]
    pub config: String,
    /// A folder of files `*.conf`, each a part of a configuration that is laid over the file, in the order of their names.
    #[arg(long, default_value = "")]
    pub config_dir: String,
    /// How to reach the API server; without it the kubelet runs static pods only.
    #[arg(long, default_value = "")]
    pub kubeconfig: String,
    /// A kubeconfig to ask for a client certificate with; --kubeconfig is then written.
    #[arg(long, default_value = "")]
    pub bootstrap_kubeconfig: String,
    /// The node's name, instead of the host's.
    #[arg(long, default_value = "")]
    pub hostname_override: String,
    /// The node's addresses, comma-separated: one, or one of each family.
    #[arg(long, default_value = "")]
    pub node_ip: String,
    /// Where the kubelet keeps its files.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Where certificates are kept.
    #[arg(long, default_value = "/var/lib/kubelet/pki")]
    pub cert_dir: PathBuf,
    /// Labels to register the node with.
    #[arg(long, default_value = "")]
    pub node_labels: KeyValues,
    /// The cloud provider; only "" and "external" exist.
    #[arg(long, default_value = "")]
    pub cloud_provider: String,
    /// The control group of the container runtime; statistics only.
    #[arg(long, default_value = "")]
    pub runtime_cgroups: String,
    /// The configuration of credential providers (CredentialProviderConfig): a file, or a folder of them.
    #[arg(long, default_value = "")]
    pub image_credential_provider_config: String,
    /// The folder of the credential providers' programs.
    #[arg(long, default_value = "")]
    pub image_credential_provider_bin_dir: String,
    /// Those that stand for a field of the configuration file.
    #[command(flatten)]
    pub fields: FieldFlags,
    /// Those that must not change anything.
    #[command(flatten)]
    pub fixed: FixedFlags<Fixed>,
    /// Logging.
    #[command(flatten)]
    pub logging: LoggingFlags,
}

impl Flags for Args {
    fn logging(&self) -> &LoggingFlags {
        &self.logging
    }
}

/// Flags whose values may be secret.
const CLASSIFIED: [&str; 1] = ["manifest-url-header"];

/// All flags as these words set them, or by their defaults.
pub(crate) fn shown(words: impl IntoIterator<Item = String>) -> BTreeMap<String, String> {
    let mut defaults = fields::defaults();
    let value = |(name, value): (String, Option<String>)| {
        let value = value.or_else(|| defaults.remove(name.as_str())).unwrap_or_default();
        let hidden = CLASSIFIED.contains(&name.as_str()) && !value.is_empty();
        (name, if hidden { "CLASSIFIED".to_owned() } else { value })
    };
    daemon::flags::values::<Args>("kubelet", words).into_iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_shown_with_what_they_stand_for_and_without_secrets() {
        let words = ["--max-pods=7", "--v=2", "--manifest-url-header=Authorization:x"];
        let shown = shown(words.map(str::to_owned));
        let value = |name: &str| shown[name].as_str();
        assert_eq!((value("max-pods"), value("v"), value("manifest-url-header")), ("7", "2", "CLASSIFIED"));
        assert_eq!((value("port"), value("anonymous-auth"), value("cluster-dns")), ("10250", "false", ""));
        assert_eq!((value("root-dir"), value("config")), ("/var/lib/kubelet", ""));
        assert_eq!(value("eviction-hard").split(',').count(), 5);
    }

    #[test]
    fn no_flag_is_needed() {
        let parsed = daemon::flags::parse::<Args>("kubelet", []);
        assert!(matches!(parsed, daemon::flags::Parsed::Run(_)));
    }

    #[test]
    fn the_table_of_fixed_flags_is_in_order() {
        assert_eq!(daemon::fixed::check_table::<Fixed>(), Ok(()));
    }
}
