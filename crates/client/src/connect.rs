//! From a kubeconfig file, or a pod's service account, to a client.

use std::path::PathBuf;

use http::HeaderValue;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::error::{Error, Result};
use crate::rest::Client;
use crate::transport::Transport;

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

    pub(crate) async fn config(&self) -> Result<kube::Config> {
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

/// A client without a server, for daemons that stand alone: every request fails at once.
pub fn nowhere() -> Client {
    Client::new(Transport::nowhere())
}

/// Makes a client. Nothing is sent yet: an unreachable server shows with the first request. Certificates that the
/// kubeconfig names as files are followed: what is sent after they changed goes over new connections.
pub async fn connect(connection: &Connection) -> Result<Client> {
    Ok(Client::new(Transport::open(connection).await?))
}
