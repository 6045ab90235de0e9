//! Authorities that vouch for clients, and whom a certificate names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{DistinguishedName, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::UserInfo;
use super::verified::Verified;

/// A file of CA certificates that vouch for clients, with its last good content.
pub struct Authorities {
    path: PathBuf,
    current: ArcSwap<Bundle>,
}

struct Bundle {
    verifier: Arc<dyn ClientCertVerifier>,
    certificates: Vec<(CertificateDer<'static>, DistinguishedName)>,
    pem: String,
    vouched: Verified<Certified>,
}

/// A client that an authority vouches for.
#[derive(Debug)]
pub struct Certified {
    /// The first common name; may be empty.
    pub common_name: String,
    organizations: Vec<String>,
    /// Digest of the certificate.
    fingerprint: String,
    /// When the first certificate of the chain ceases to count, in seconds since 1970.
    pub until: i64,
}

impl Authorities {
    /// Reads a PEM bundle.
    ///
    /// # Errors
    /// The file cannot be read, or holds no usable authority.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { path: path.to_owned(), current: ArcSwap::from_pointee(Bundle::read(path)?) })
    }

    /// The bundle as it was read, to be published.
    pub fn pem(&self) -> String {
        self.current.load().pem.clone()
    }

    /// The certificates of the authorities, each with its subject.
    pub fn certificates(&self) -> Vec<(CertificateDer<'static>, DistinguishedName)> {
        self.current.load().certificates.clone()
    }

    /// Reads the file again; true when it has changed. One that cannot be used is told of, and the last good content stays.
    pub fn reload(&self) -> bool {
        match Bundle::read(&self.path) {
            Ok(bundle) if bundle.pem == self.current.load().pem => false,
            Ok(bundle) => {
                tracing::info!(path = %self.path.display(), "Loaded a changed bundle of authorities");
                self.current.store(Arc::new(bundle));
                true
            }
            Err(e) => {
                tracing::error!(error = format!("{e:#}"), "a changed bundle of authorities is not used");
                false
            }
        }
    }

    /// Whom the chain names, if one of the authorities vouches for it, now, for use by a client.
    pub fn vouch(&self, chain: &[CertificateDer<'_>]) -> Option<Arc<Certified>> {
        let (leaf, intermediates) = chain.split_first()?;
        let (bundle, now) = (self.current.load(), UnixTime::now());
        let verify = || {
            bundle.verifier.verify_client_cert(leaf, intermediates, now).ok().ok_or(())?;
            Certified::read(chain).ok_or(())
        };
        bundle.vouched.or(chain.iter().map(|c| &**c), |known| known.counts(now), verify).ok()
    }
}

impl Bundle {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let pem = std::fs::read_to_string(path)
            .with_context(|| format!("reading the CA bundle {}", path.display()))?;
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .with_context(|| format!("{} is not a PEM bundle of certificates", path.display()))?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots
                .add(certificate.clone())
                .with_context(|| format!("{} holds an unusable certificate", path.display()))?;
        }
        let certificates = certificates.into_iter().zip(roots.subjects()).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .with_context(|| format!("{} holds no CA certificate", path.display()))?;
        Ok(Self { verifier, certificates, pem, vouched: Verified::default() })
    }
}

impl Certified {
    fn read(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let parsed = chain.iter().map(|c| X509Certificate::from_der(c).ok().map(|(_, c)| c));
        let parsed: Vec<X509Certificate<'_>> = parsed.collect::<Option<_>>()?;
        let subject = parsed.first()?.subject();
        let common_name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let organizations = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned);
        let digest = ring::digest::digest(&ring::digest::SHA256, &chain[0]);
        Some(Self {
            common_name: common_name.unwrap_or_default().to_owned(),
            organizations: organizations.collect(),
            fingerprint: digest.as_ref().iter().map(|b| format!("{b:02x}")).collect(),
            until: parsed.iter().map(|c| c.validity().not_after.timestamp()).min()?,
        })
    }

    fn counts(&self, now: UnixTime) -> bool {
        i64::try_from(now.as_secs()).is_ok_and(|now| now <= self.until)
    }

    /// The user, if the certificate names one.
    pub(super) fn user(&self) -> Option<UserInfo> {
        (!self.common_name.is_empty()).then(|| UserInfo {
            name: self.common_name.clone(),
            groups: self.organizations.clone(),
            extra: vec![(
                "authentication.kubernetes.io/credential-id".to_owned(),
                vec![format!("X509SHA256={}", self.fingerprint)],
            )],
            ..UserInfo::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use testing::Pki;

    use super::*;

    fn chain(pki: &Pki, name: &str) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_file(pki.file(name)).unwrap()]
    }

    #[test]
    fn an_authority_vouches_for_what_it_signed_until_it_is_replaced() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (pki, other) = (Pki::make(folder.path()).unwrap(), Pki::make(other.path()).unwrap());
        let authorities = Authorities::read(&pki.file("ca.crt")).unwrap();
        let admin = chain(&pki, "admin.crt");
        for _ in 0..2 {
            let user = authorities.vouch(&admin).unwrap().user().unwrap();
            assert_eq!((user.name.as_str(), user.groups), ("admin", vec!["system:masters".to_owned()]));
        }
        assert!(authorities.vouch(&[]).is_none());
        assert!(authorities.vouch(&chain(&pki, "server.crt")).is_none(), "it is not for clients");
        assert!(authorities.vouch(&chain(&other, "admin.crt")).is_none());
        std::fs::copy(other.file("ca.crt"), pki.file("ca.crt")).unwrap();
        assert!(authorities.reload());
        assert!(authorities.vouch(&admin).is_none());
        assert!(authorities.vouch(&chain(&other, "admin.crt")).is_some());
    }

    #[test]
    fn what_was_vouched_for_ends_with_the_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::make(folder.path()).unwrap();
        let admin = chain(&pki, "admin.crt");
        let certified = Certified::read(&admin).unwrap();
        let leaf = X509Certificate::from_der(&admin[0]).unwrap().1;
        let until = leaf.validity().not_after.timestamp();
        assert!(certified.counts(UnixTime::since_unix_epoch(Duration::from_secs(until as u64))));
        assert!(!certified.counts(UnixTime::since_unix_epoch(Duration::from_secs(until as u64 + 1))));
    }
}
