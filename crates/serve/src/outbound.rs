//! HTTPS to others: webhooks, aggregated API servers, kubelets.

use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::body::Body;
use crate::tls::provider;

mod dial;
mod trust;

pub use dial::{Connector, Dial, Route, Stream, connect};
use trust::Trust;

/// A pooling client; clones share the pool. Upgrades work through `hyper::upgrade::on(&mut response)`.
pub type HttpsClient = Client<HttpsConnector<Connector>, Body>;

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// No authority in the bundle.
    #[error("no certificate authority in the bundle")]
    NoAuthority,
    /// The client certificate or key is unusable.
    #[error("unusable PEM")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The certificate and the key don't fit, or an authority is unusable.
    #[error("unusable certificate or key")]
    Tls(#[from] rustls::Error),
    /// The authorities cannot be used to verify.
    #[error("unusable certificate authority")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// The server name to expect is no name.
    #[error("invalid server name {0:?}")]
    ServerName(String),
}

/// Whom to trust, and who we are.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// PEM bundle of authorities that vouch for the server. None: nobody, and only `insecure` connections work.
    pub ca: Option<Vec<u8>>,
    /// Takes any server certificate (`insecureSkipTLSVerify`, kubelets without `--kubelet-certificate-authority`).
    pub insecure: bool,
    /// The name to expect in the certificate and to send, instead of the URL's host.
    pub server_name: Option<String>,
    /// Our certificate chain and key, both PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Only HTTP/1.1, as upgrades need.
    pub http1_only: bool,
    /// The way to the server.
    pub route: Route,
}

/// Where systems keep the authorities that they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The authorities that this machine trusts, as PEM.
pub fn system_authorities() -> Option<Vec<u8>> {
    BUNDLES.iter().find_map(|path| std::fs::read(path).ok())
}

/// TLS settings for a client.
pub fn tls_config(options: &Options) -> Result<ClientConfig, OutboundError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let verifier: Arc<dyn ServerCertVerifier> = if options.insecure {
        Arc::new(AnyServer)
    } else {
        let pem = options.ca.as_deref().unwrap_or_default();
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
        if certificates.is_empty() {
            return Err(OutboundError::NoAuthority);
        }
        Arc::new(Trust::new(certificates)?)
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let Some((chain, key)) = &options.identity else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>()?;
    Ok(builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?)
}

/// A client for `http` and `https` URLs.
pub fn client(options: &Options) -> Result<HttpsClient, OutboundError> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls_config(options)?).https_or_http();
    let builder = match &options.server_name {
        None => builder,
        Some(name) => {
            let name =
                ServerName::try_from(name.clone()).map_err(|_| OutboundError::ServerName(name.clone()))?;
            builder.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(dial::CONNECT_LIMIT));
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    let connector = Connector { tcp, route: options.route.clone() };
    let connector = if options.http1_only {
        builder.enable_http1().wrap_connector(connector)
    } else {
        builder.enable_http1().enable_http2().wrap_connector(connector)
    };
    let client = Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(90))
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(Duration::from_secs(30))
        .build(connector);
    Ok(client)
}

/// Takes any server certificate.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
