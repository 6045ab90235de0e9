//! Server certificates and how the handshake asks for the client's.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::authn::Authenticator;

mod policy;

pub use policy::Policy;

/// How often certificate files are looked at for changes.
const RELOAD_EVERY: Duration = Duration::from_secs(60);

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot access {0}")]
    File(PathBuf, #[source] io::Error),
    /// A file holds no usable PEM.
    #[error("no usable PEM in {0}")]
    Pem(PathBuf, #[source] rustls_pki_types::pem::Error),
    /// The key does not fit, or its kind is not supported.
    #[error("certificate {0} and key {1} cannot be used together")]
    Key(PathBuf, PathBuf, #[source] rustls::Error),
    /// A file is PEM without a certificate in it.
    #[error("no certificate in {0}")]
    Empty(PathBuf),
    /// The protocol versions or the key's kind are not supported.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
    /// A protocol version or a cipher suite is not known or cannot be offered.
    #[error("invalid TLS settings: {0}")]
    Policy(String),
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

/// The provider of all cryptography: ring.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<Arc<CryptoProvider>> =
        std::sync::LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}

/// What a server shows and asks for in the handshake; cheap to share.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ArcSwap<ServerConfig>>,
    policy: Policy,
    pairs: Arc<Vec<FilePair>>,
    clients: Option<Arc<dyn Authenticator>>,
}

/// A certificate and key on disk, with the parsed form of their last good content.
#[derive(Debug)]
struct FilePair {
    files: Option<(PathBuf, PathBuf)>,
    key: ArcSwap<CertifiedKey>,
    names: Vec<String>,
}

impl Tls {
    /// Serves the certificate of these files, and watches them once [`Tls::watch`] runs.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        Self::with_sni(cert, key, &[])
    }

    /// Like [`Tls::from_files`], with further pairs for some names (`--tls-sni-cert-key`): `(cert, key, names)`; without names
    /// those of the certificate count.
    pub fn with_sni(
        cert: &Path,
        key: &Path,
        sni: &[(PathBuf, PathBuf, Vec<String>)],
    ) -> Result<Self, TlsError> {
        let mut pairs = vec![FilePair::load(cert, key, Vec::new())?];
        for (cert, key, names) in sni {
            pairs.push(FilePair::load(cert, key, names.clone())?);
        }
        Self::new(pairs)
    }

    /// Serves a fresh self-signed certificate for these names and addresses; with `dir`, it is kept there as
    /// `{name}.crt` and `{name}.key` and used again.
    pub fn self_signed(name: &str, hosts: &[String], dir: Option<&Path>) -> Result<Self, TlsError> {
        if let Some(dir) = dir {
            let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
            if !(cert.exists() && key.exists()) {
                fs::create_dir_all(dir).map_err(|e| TlsError::File(dir.to_owned(), e))?;
                let made = make_self_signed(name, hosts)?;
                write_private(&cert, made.0.as_bytes())?;
                write_private(&key, made.1.as_bytes())?;
            }
            return Self::from_files(&cert, &key);
        }
        let (cert, key) = make_self_signed(name, hosts)?;
        let made = Path::new(name);
        let key = certified((made, cert.as_bytes()), (made, key.as_bytes()))?;
        Self::new(vec![FilePair { files: None, key: ArcSwap::from_pointee(key), names: Vec::new() }])
    }

    fn new(pairs: Vec<FilePair>) -> Result<Self, TlsError> {
        let (pairs, policy) = (Arc::new(pairs), Policy::default());
        let config = Arc::new(ArcSwap::from_pointee(config(&pairs, &policy, Vec::new())?));
        Ok(Self { config, policy, pairs, clients: None })
    }

    /// Offers what a policy lets it offer.
    ///
    /// # Errors
    /// Versions and suites that do not go together.
    pub fn with_policy(self, policy: &Policy) -> Result<Self, TlsError> {
        let this = Self { policy: policy.clone(), ..self };
        this.name_authorities(this.authorities())?;
        Ok(this)
    }

    /// Tells clients whose certificates this authenticator takes; again whenever that changes, once [`Tls::watch`] runs.
    ///
    /// # Errors
    /// Settings of TLS that do not go together.
    pub fn with_clients(self, clients: Arc<dyn Authenticator>) -> Result<Self, TlsError> {
        let this = Self { clients: Some(clients), ..self };
        this.name_authorities(this.authorities())?;
        Ok(this)
    }

    fn authorities(&self) -> Vec<DistinguishedName> {
        self.clients.as_ref().map(|clients| clients.authorities()).unwrap_or_default()
    }

    /// Tells clients, from the next handshake on, which authorities vouch for them, so that they know which of their
    /// certificates to show. That no others are taken is the authenticator's business.
    ///
    /// # Errors
    /// Settings of TLS that do not go together.
    pub fn name_authorities(&self, names: Vec<DistinguishedName>) -> Result<(), TlsError> {
        self.config.store(Arc::new(config(&self.pairs, &self.policy, names)?));
        Ok(())
    }

    /// The acceptor of one connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }

    /// Reads the files again whenever they change, until `stop`. A broken file is logged and the last good content stays.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut seen: Vec<_> = self.pairs.iter().map(FilePair::modified).collect();
        let mut named = self.authorities();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RELOAD_EVERY) => {}
            }
            for (pair, seen) in self.pairs.iter().zip(&mut seen) {
                let now = pair.modified();
                if now != *seen {
                    *seen = now;
                    pair.reload();
                }
            }
            let authorities = self.authorities();
            if !same(&authorities, &named) {
                match self.name_authorities(authorities.clone()) {
                    Ok(()) => named = authorities,
                    Err(e) => error!(err = %e, "Clients are not told of changed authorities"),
                }
            }
        }
    }
}

fn same(one: &[DistinguishedName], other: &[DistinguishedName]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.as_ref() == other.as_ref())
}

fn config(
    pairs: &Arc<Vec<FilePair>>,
    policy: &Policy,
    authorities: Vec<DistinguishedName>,
) -> Result<ServerConfig, TlsError> {
    let algorithms = provider().signature_verification_algorithms;
    let mut config = ServerConfig::builder_with_provider(policy.provider())
        .with_protocol_versions(&policy.versions())?
        .with_client_cert_verifier(Arc::new(AnyClient { algorithms, authorities }))
        .with_cert_resolver(Arc::new(Resolver(Arc::clone(pairs))));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

impl FilePair {
    fn load(cert: &Path, key: &Path, names: Vec<String>) -> Result<Self, TlsError> {
        let loaded = read_pair(cert, key)?;
        let files = Some((cert.to_owned(), key.to_owned()));
        Ok(Self { files, key: ArcSwap::from_pointee(loaded), names })
    }

    fn modified(&self) -> Option<(SystemTime, SystemTime)> {
        let (cert, key) = self.files.as_ref()?;
        let time = |p: &Path| fs::metadata(p).and_then(|m| m.modified()).ok();
        Some((time(cert)?, time(key)?))
    }

    fn reload(&self) {
        let Some((cert, key)) = &self.files else { return };
        match read_pair(cert, key) {
            Ok(loaded) => {
                info!(cert = %cert.display(), "Loaded a changed serving certificate");
                self.key.store(Arc::new(loaded));
            }
            Err(e) => error!(cert = %cert.display(), err = %e, "Cannot load a changed serving certificate"),
        }
    }

    fn serves(&self, name: &str) -> bool {
        if !self.names.is_empty() {
            return self.names.iter().any(|pattern| match pattern.strip_prefix("*.") {
                Some(suffix) => name.split_once('.').is_some_and(|(_, rest)| rest == suffix),
                None => pattern == name,
            });
        }
        let key = self.key.load();
        let Some(leaf) = key.cert.first() else { return false };
        crate::x509::dns_names(leaf).iter().any(|n| n == name)
    }
}

#[derive(Debug)]
struct Resolver(Arc<Vec<FilePair>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|n| self.0[1..].iter().find(|p| p.serves(n)));
        Some(named.unwrap_or(&self.0[0]).key.load_full())
    }
}

fn read_pair(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let read = |p: &Path| fs::read(p).map_err(|e| TlsError::File(p.to_owned(), e));
    certified((cert, &read(cert)?), (key, &read(key)?))
}

/// A certificate and its key, each with the name of the file that it is from.
fn certified(
    (cert_file, cert): (&Path, &[u8]),
    (key_file, key): (&Path, &[u8]),
) -> Result<CertifiedKey, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
    let chain = chain.map_err(|e| TlsError::Pem(cert_file.to_owned(), e))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(cert_file.to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| TlsError::Pem(key_file.to_owned(), e))?;
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|e| TlsError::Key(cert_file.to_owned(), key_file.to_owned(), e))
}

fn write_private(path: &Path, content: &[u8]) -> Result<(), TlsError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let fail = |e| TlsError::File(path.to_owned(), e);
    let open = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    open.map_err(fail)?.write_all(content).map_err(fail)
}

/// A self-signed certificate and its key, both PEM, valid for a year.
pub fn make_self_signed(name: &str, hosts: &[String]) -> Result<(String, String), rcgen::Error> {
    let key = rcgen::KeyPair::generate()?;
    let mut hosts = hosts.to_vec();
    for always in ["localhost", "127.0.0.1"] {
        if !hosts.iter().any(|h| h == always) {
            hosts.push(always.to_owned());
        }
    }
    hosts.retain(|h| !h.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()));
    let mut params = rcgen::CertificateParams::new(hosts)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + Duration::from_secs(365 * 24 * 3600)).into();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let cert = params.self_signed(&key)?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// Takes any client certificate whose key the client holds; who it stands for is the authenticator's business.
#[derive(Debug)]
struct AnyClient {
    algorithms: WebPkiSupportedAlgorithms,
    /// Whose certificates the client is asked for; none for anybody's.
    authorities: Vec<DistinguishedName>,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.authorities
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(cert: &str, key: &str) -> String {
        let (cert_file, key_file) = (Path::new("a.crt"), Path::new("a.key"));
        certified((cert_file, cert.as_bytes()), (key_file, key.as_bytes())).unwrap_err().to_string()
    }

    #[test]
    fn a_refusal_names_the_file_at_fault() {
        let (cert, key) = make_self_signed("a", &[]).unwrap();
        let (_, other) = make_self_signed("b", &[]).unwrap();
        assert_eq!(refusal("no PEM", &key), "no certificate in a.crt");
        assert_eq!(refusal(&cert, "no PEM"), "no usable PEM in a.key");
        assert_eq!(refusal(&cert, &other), "certificate a.crt and key a.key cannot be used together");
    }
}
