//! Connections to the API server, made anew when the client's certificate changes on disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::ConfigExt;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tower::ServiceBuilder;

use crate::connect::Connection;
use crate::error::{Error, Result};

/// Files of certificates are looked at this often, if there are requests.
const LOOK_EVERY: Duration = Duration::from_secs(60);

type Modified = Vec<Option<SystemTime>>;

/// What requests go over.
pub(crate) struct Transport {
    kube: ArcSwap<kube::Client>,
    connection: Connection,
    server: String,
    files: Vec<PathBuf>,
    /// When the files were last looked at, and what those in use were like.
    looked: Mutex<(Instant, Modified)>,
}

impl Transport {
    pub(crate) async fn open(connection: &Connection) -> Result<Self> {
        let config = connection.config().await?;
        warn_of_expiry(&config, connection);
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let auth = &config.auth_info;
        let named = [&auth.client_certificate, &auth.client_key].into_iter().flatten();
        let files: Vec<PathBuf> = named.map(PathBuf::from).collect();
        let looked = Mutex::new((Instant::now(), modified(&files)));
        let (kube, connection) = (ArcSwap::from_pointee(open(config)?), connection.clone());
        Ok(Self { kube, connection, server, files, looked })
    }

    /// A transport that leads to no server.
    pub(crate) fn nowhere() -> Self {
        let service = tower::service_fn(async |_: http::Request<kube::client::Body>| {
            let error = std::io::Error::new(std::io::ErrorKind::NotConnected, "this process stands alone");
            Err::<http::Response<kube::client::Body>, _>(error)
        });
        Self {
            kube: ArcSwap::from_pointee(kube::Client::new(service, "default")),
            connection: Connection::default(),
            server: "(none)".to_owned(),
            files: Vec::new(),
            looked: Mutex::new((Instant::now(), Modified::new())),
        }
    }

    /// The server's URL.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// The connections to use now. Certificates that cannot be used are logged, and what is open stays.
    pub(crate) async fn current(&self) -> Arc<kube::Client> {
        if let Some(now) = self.changed() {
            match self.connection.config().await.and_then(open) {
                Ok(changed) => {
                    self.kube.store(Arc::new(changed));
                    self.looked.lock().1 = now;
                    tracing::info!("Loaded a changed client certificate");
                }
                Err(e) => tracing::error!(err = %e, "Cannot load a changed client certificate"),
            }
        }
        self.kube.load_full()
    }

    /// The files as they are now, if it is time to look and they are no longer what is in use.
    fn changed(&self) -> Option<Modified> {
        if self.files.is_empty() {
            return None;
        }
        let mut looked = self.looked.lock();
        if looked.0.elapsed() < LOOK_EVERY {
            return None;
        }
        looked.0 = Instant::now();
        let now = modified(&self.files);
        (now != looked.1).then_some(now)
    }
}

/// The server would say no more than that we are not authorized.
fn warn_of_expiry(config: &kube::Config, connection: &Connection) {
    let auth = &config.auth_info;
    let pem = match (&auth.client_certificate_data, &auth.client_certificate) {
        (Some(data), _) => STANDARD.decode(data).unwrap_or_default(),
        (None, Some(file)) => std::fs::read(file).unwrap_or_default(),
        (None, None) => return,
    };
    let Ok((_, ends)) = serve::x509::validity(&pem) else { return };
    if ends < jiff::Timestamp::now().as_second() {
        let ended = jiff::Timestamp::from_second(ends).map(|t| t.to_string()).unwrap_or_default();
        let kubeconfig = connection.kubeconfig.as_deref().map(|p| p.display().to_string());
        tracing::error!(kubeconfig, ended, "The client certificate has expired: renew it");
    }
}

fn modified(files: &[PathBuf]) -> Modified {
    files.iter().map(|file| std::fs::metadata(file).and_then(|m| m.modified()).ok()).collect()
}

fn open(config: kube::Config) -> Result<kube::Client> {
    let fail = |e: &dyn std::fmt::Display| Error::Config(e.to_string());
    // One provider is compiled in; a second installation is harmless.
    let _ = serve::tls::provider().as_ref().clone().install_default();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(Duration::from_secs(30)));
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    let tls = config.rustls_client_config().map_err(|e| fail(&e))?;
    let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = ServerName::try_from(name.clone()).map_err(|e| fail(&e))?;
        https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let https = https.enable_http1().enable_http2().wrap_connector(tcp);
    let transport = HyperClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(Duration::from_secs(30))
        .http2_keep_alive_timeout(Duration::from_secs(15))
        .http2_initial_stream_window_size(256 * 1024)
        .http2_initial_connection_window_size(1024 * 1024)
        .build(https);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(|e| fail(&e))?)
        .layer(config.extra_headers_layer().map_err(|e| fail(&e))?)
        .map_err(tower::BoxError::from)
        .service(transport);
    Ok(kube::Client::new(service, config.default_namespace))
}
