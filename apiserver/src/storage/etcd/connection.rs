//! Connections to the members of etcd.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use etcd_client::{Certificate, Channel, Client, ConnectOptions, Identity, TlsOptions};
use http::Uri;
use hyper_util::rt::TokioIo;
use serve::Gather;
use tokio::net::TcpStream;
use tonic::transport::Endpoint;

use super::EtcdConfig;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_LIMIT: Duration = Duration::from_secs(10);

/// A client of all members, in turn. With one member, as it is where each server has its own beside it, what many requests
/// have to send at the same time goes out together.
pub(super) async fn open(config: &EtcdConfig) -> Result<Client> {
    let client = match config.endpoints.as_slice() {
        [only] => Client::from_channel(gathering(only, config).await?, None).await,
        several => Client::connect(several, Some(options(config).await?)).await,
    };
    client.with_context(|| format!("connecting to etcd at {}", config.endpoints.join(",")))
}

/// A client of one member.
pub(super) async fn to(url: &str, config: &EtcdConfig) -> Result<Client> {
    Ok(Client::connect([url], Some(options(config).await?)).await?)
}

async fn gathering(url: &str, config: &EtcdConfig) -> Result<Channel> {
    let mut endpoint = Endpoint::from_shared(with_scheme(url))?
        .connect_timeout(CONNECT_LIMIT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_LIMIT);
    if let Some(tls) = tls(config).await? {
        endpoint = endpoint.tls_config(tls)?;
    }
    let connect = tower::service_fn(async |uri: Uri| {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(2379))).await?;
        tcp.set_nodelay(true)?;
        std::io::Result::Ok(TokioIo::new(Gather::new(tcp)))
    });
    Ok(Channel::Tonic(endpoint.connect_with_connector_lazy(connect)))
}

async fn options(config: &EtcdConfig) -> Result<ConnectOptions> {
    let options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_LIMIT)
        .with_keep_alive(KEEP_ALIVE_INTERVAL, KEEP_ALIVE_LIMIT);
    Ok(match tls(config).await? {
        Some(tls) => options.with_tls(tls),
        None => options,
    })
}

async fn tls(config: &EtcdConfig) -> Result<Option<TlsOptions>> {
    if !config.endpoints.iter().any(|e| e.starts_with("https://")) {
        return Ok(None);
    }
    let read = async |path: &PathBuf| {
        tokio::fs::read(path).await.with_context(|| format!("reading {}", path.display()))
    };
    let mut tls = TlsOptions::new();
    if let Some(ca) = &config.ca_file {
        tls = tls.ca_certificate(Certificate::from_pem(read(ca).await?));
    }
    if let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) {
        tls = tls.identity(Identity::from_pem(read(cert).await?, read(key).await?));
    }
    Ok(Some(tls))
}

/// The URL; a host with a port alone is spoken to without TLS.
fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}
