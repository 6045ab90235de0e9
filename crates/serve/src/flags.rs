//! The secure-serving flags that upstream's daemons share.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use crate::tls::{Policy, Tls, TlsError};

/// Where and with which certificate to serve. The port has no default here: each daemon has its own.
#[derive(Args, Clone, Debug)]
pub struct ServingFlags {
    /// The IP address on which to listen for the --secure-port port.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// The port on which to serve HTTPS with authentication and authorization. If 0, don't serve HTTPS at all.
    #[arg(long)]
    pub secure_port: Option<u16>,
    /// The directory where the TLS certs are located, when no files are given.
    #[arg(long, default_value = "")]
    pub cert_dir: String,
    /// File containing the x509 certificate for HTTPS, intermediates after it.
    #[arg(long, default_value = "")]
    pub tls_cert_file: String,
    /// File containing the private key matching --tls-cert-file.
    #[arg(long, default_value = "")]
    pub tls_private_key_file: String,
    /// Cipher suites to offer with TLS 1.2, by Go's names; all good ones when none is named.
    #[arg(long, value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,
    /// The oldest version of TLS: VersionTLS12 or VersionTLS13.
    #[arg(long, default_value = "")]
    pub tls_min_version: String,
}

impl ServingFlags {
    /// The address to listen on; none for port 0.
    pub fn address(&self, default_port: u16) -> Option<SocketAddr> {
        let port = self.secure_port.unwrap_or(default_port);
        (port != 0).then(|| SocketAddr::new(self.bind_address, port))
    }

    /// The certificate to serve: from the files, or self-signed (kept in --cert-dir, if given).
    pub fn tls(&self, name: &str) -> Result<Arc<Tls>, TlsError> {
        let tls = if self.tls_cert_file.is_empty() {
            let dir = (!self.cert_dir.is_empty()).then(|| PathBuf::from(&self.cert_dir));
            Tls::self_signed(name, &[self.bind_address.to_string()], dir.as_deref())?
        } else {
            Tls::from_files(Path::new(&self.tls_cert_file), Path::new(&self.tls_private_key_file))?
        };
        let policy = Policy::parse(&self.tls_min_version, &self.tls_cipher_suites);
        Ok(Arc::new(tls.with_policy(&policy.map_err(TlsError::Policy)?)?))
    }
}
