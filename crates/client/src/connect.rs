//! From a kubeconfig file, or a pod's service account, to a client.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls_pki_types::ServerName;
use tower::ServiceBuilder;

use crate::error::{Error, Result};
use crate::rest::Client;

/// How to reach the API server.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// Kubeconfig file; none for the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The server's URL instead of the file's (`--master`).
    pub server: Option<String>,
    /// What we call ourselves, such as `kube-scheduler/v1.36.2`.
    pub user_agent: String,
    /// Without the file's credentials: for clients that act as a service account.
    pub anonymous: bool,
}

impl Connection {
    /// By the kubeconfig file at this path; by service account when the path is empty.
    pub fn from_path(path: &str, user_agent: &str) -> Self {
        let kubeconfig = (!path.is_empty()).then(|| PathBuf::from(path));
        Self { kubeconfig, user_agent: user_agent.to_owned(), ..Self::default() }
    }

    async fn config(&self) -> Result<kube::Config> {
        let fail = |e: &dyn std::fmt::Display| Error::Config(e.to_string());
        let mut config = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(|e| fail(&e))?;
                let options = KubeConfigOptions::default();
                kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|e| fail(&e))?
            }
            None => kube::Config::incluster().map_err(|e| fail(&e))?,
        };
        if let Some(server) = &self.server {
            config.cluster_url = server.parse().map_err(|e: http::uri::InvalidUri| fail(&e))?;
        }
        if self.anonymous {
            config.auth_info = kube::config::AuthInfo::default();
        }
        let agent = HeaderValue::from_str(&self.user_agent).map_err(|e| fail(&e))?;
        config.headers.push((http::header::USER_AGENT, agent));
        Ok(config)
    }
}

/// Makes a client. Nothing is sent yet: an unreachable server shows with the first request.
pub async fn connect(connection: &Connection) -> Result<Client> {
    let config = connection.config().await?;
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
    Ok(Client::new(kube::Client::new(service, config.default_namespace)))
}
