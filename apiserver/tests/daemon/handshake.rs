//! What the server says in the handshake.

use std::net::TcpStream;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SignatureScheme, SupportedProtocolVersion, version,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::*;

/// A client without certificates that notes whose it is asked for.
#[derive(Debug, Default)]
struct Asked(Mutex<Vec<Vec<u8>>>);

impl ResolvesClientCert for Asked {
    fn resolve(&self, names: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.0.lock() = names.iter().map(|name| name.to_vec()).collect();
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The names of the authorities whose certificates the server asks for.
fn asked(pki: &Pki, port: u16, version: &'static SupportedProtocolVersion) -> Vec<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.file("ca.crt")).unwrap()).unwrap();
    let asked = Arc::new(Asked::default());
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(asked.clone());
    let name = "localhost".try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).unwrap();
    }
    asked.0.lock().clone()
}

#[test]
fn clients_are_told_whose_certificates_count() {
    let front = tempfile::tempdir().unwrap();
    let other = Pki::make(front.path()).unwrap();
    let bundle = other.file("ca.crt");
    let cluster =
        Cluster::start_with(|_| vec![format!("--requestheader-client-ca-file={}", bundle.display())]);
    let port: u16 =
        cluster.arguments.iter().find_map(|a| a.strip_prefix("--secure-port=")).unwrap().parse().unwrap();
    let subject = |file: &std::path::Path| {
        let certificate = CertificateDer::from_pem_file(file).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        parsed.subject().as_raw().to_vec()
    };
    let (clients, proxies) = (subject(&cluster.pki.file("ca.crt")), subject(&bundle));
    for version in [&version::TLS12, &version::TLS13] {
        assert_eq!(asked(&cluster.pki, port, version), [clients.clone(), proxies.clone()], "{version:?}");
    }
    // A certificate that is in both files is named once.
    std::fs::copy(cluster.pki.file("ca.crt"), &bundle).unwrap();
    let renewed = || asked(&cluster.pki, port, &version::TLS13) == [clients.clone()];
    wait_until("clients are told of the changed bundle", SOON, renewed).unwrap();
}
