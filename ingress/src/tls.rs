//! HTTPS: certificates from Secrets, picked by the name that the client asks for.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use api::Value;
use arc_swap::ArcSwap;
use base64::Engine;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serve::{Body, BoxError, RemoteAddr};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::routes::Table;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Further connections wait in the listen queue.
const CONNECTIONS: usize = 16_384;

/// The certificate and key in a Secret of type kubernetes.io/tls; none when they are unusable.
pub(crate) fn certificate(secret: &Value) -> Option<Arc<CertifiedKey>> {
    let field =
        |key: &str| base64::engine::general_purpose::STANDARD.decode(secret.str_at(&["data", key])).ok();
    let (chain, key) = (field("tls.crt")?, field("tls.key")?);
    match parse(&chain, &key) {
        Ok(key) => Some(Arc::new(key)),
        Err(e) => {
            tracing::warn!(secret = secret.name(), namespace = secret.namespace(), err = %e, "Unusable certificate");
            None
        }
    }
}

fn parse(chain: &[u8], key: &[u8]) -> Result<CertifiedKey> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    let provider = rustls::crypto::ring::default_provider();
    Ok(CertifiedKey::from_der(chain, key, &provider)?)
}

struct Resolver(Arc<ArcSwap<Table>>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.0.load();
        let name = hello.server_name()?.to_lowercase();
        let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let certificates = &table.certificates;
        certificates.get(&name).or_else(|| certificates.get(&wildcard?)).cloned()
    }
}

/// Serves HTTPS until `stop`.
pub(crate) async fn serve<S>(
    listener: TcpListener,
    service: S,
    table: Arc<ArcSwap<Table>>,
    stop: CancellationToken,
) -> Result<()>
where
    S: Service<Request<Incoming>, Response = hyper::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver(table)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let permit = room.clone().acquire_owned().await?;
        let (stream, remote) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!(err = %e, "Cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stop.cancelled() => return Ok(()),
        };
        let (acceptor, mut service) = (acceptor.clone(), service.clone());
        connections.spawn(async move {
            let _permit = permit;
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
                return;
            };
            let service = tower::service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(RemoteAddr(remote));
                service.call(request)
            });
            let builder = Builder::new(TokioExecutor::new());
            let connection = builder
                .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
            if let Err(e) = connection.await {
                tracing::debug!(err = %e, "A connection broke");
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
