//! Client certificates: is this one signed by our authority, and whom does it name?

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{DistinguishedName, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

use crate::tls::provider;

/// Object identifier of the user id in a subject.
const UID: &str = "1.3.6.1.4.1.57683.2";

/// Why authorities cannot be used, or a certificate is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum X509Error {
    /// The bundle cannot be read.
    #[error("cannot read {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// The bundle holds no certificate.
    #[error("no certificate authority in the bundle")]
    Empty,
    /// The certificate is not signed by one of the authorities, is expired, or is not for clients.
    #[error("x509: {0}")]
    Untrusted(#[from] rustls::Error),
    /// The certificate cannot be read.
    #[error("x509: malformed certificate")]
    Malformed,
}

/// Whom a certificate names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Common name: the user.
    pub common_name: String,
    /// Organizations: the user's groups.
    pub organizations: Vec<String>,
    /// The user's id, when the subject carries one.
    pub uid: String,
}

/// Authorities that may vouch for clients; from a file, they are read again when it changes.
pub struct ClientCa {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Clone)]
struct State {
    modified: Option<SystemTime>,
    verifier: Arc<dyn ClientCertVerifier>,
}

fn verifier(pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, X509Error> {
    let mut roots = RootCertStore::empty();
    let certs = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    if roots.add_parsable_certificates(certs).0 == 0 {
        return Err(X509Error::Empty);
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|_| X509Error::Empty)
}

impl ClientCa {
    /// Authorities of a PEM bundle.
    pub fn from_pem(pem: &[u8]) -> Result<Self, X509Error> {
        let state = State { modified: None, verifier: verifier(pem)? };
        Ok(Self { file: None, state: Mutex::new(state) })
    }

    /// Authorities of a PEM file.
    pub fn from_file(path: &Path) -> Result<Self, X509Error> {
        let pem = fs::read(path).map_err(|e| X509Error::File(path.to_owned(), e))?;
        let state = State { modified: modified(path), verifier: verifier(&pem)? };
        Ok(Self { file: Some(path.to_owned()), state: Mutex::new(state) })
    }

    fn current(&self) -> Arc<dyn ClientCertVerifier> {
        let mut state = self.state.lock();
        if let Some(path) = &self.file {
            let now = modified(path);
            if now != state.modified
                && let Ok(pem) = fs::read(path)
                && let Ok(fresh) = verifier(&pem)
            {
                *state = State { modified: now, verifier: fresh };
            }
        }
        Arc::clone(&state.verifier)
    }

    /// The subjects of the authorities.
    pub fn names(&self) -> Vec<DistinguishedName> {
        self.current().root_hint_subjects().to_vec()
    }

    /// The subject of the leaf, if its chain leads to an authority now and it is good for clients.
    pub fn verify(&self, chain: &[CertificateDer<'static>]) -> Result<Subject, X509Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(X509Error::Malformed)?;
        self.current().verify_client_cert(leaf, intermediates, UnixTime::now())?;
        subject(leaf)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

/// The subject of a certificate.
pub fn subject(cert: &CertificateDer<'_>) -> Result<Subject, X509Error> {
    let (_, cert) = X509Certificate::from_der(cert).map_err(|_| X509Error::Malformed)?;
    Ok(subject_of_name(cert.subject()))
}

/// The parts of a distinguished name that matter here.
pub fn subject_of_name(name: &X509Name<'_>) -> Subject {
    let mut subject = Subject::default();
    for attribute in name.iter_attributes() {
        let Ok(text) = attribute.as_str() else { continue };
        match attribute.attr_type().to_id_string().as_str() {
            "2.5.4.3" => subject.common_name = text.to_owned(),
            "2.5.4.10" => subject.organizations.push(text.to_owned()),
            UID => subject.uid = text.to_owned(),
            _ => {}
        }
    }
    subject
}

/// When the first certificate of a PEM bundle begins and ceases to count, in seconds since 1970.
pub fn validity(pem: &[u8]) -> Result<(i64, i64), X509Error> {
    let leaf = CertificateDer::pem_slice_iter(pem).find_map(Result::ok).ok_or(X509Error::Malformed)?;
    let (_, cert) = X509Certificate::from_der(&leaf).map_err(|_| X509Error::Malformed)?;
    Ok((cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp()))
}

/// The DNS names a certificate is for.
pub fn dns_names(cert: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, cert)) = X509Certificate::from_der(cert) else { return Vec::new() };
    let Ok(Some(names)) = cert.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|n| match n {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    dns.collect()
}
