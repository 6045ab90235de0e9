//! Servers that a kubeconfig file names: for audit, authentication and authorization by others.
//!
//! Source: <https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/>.

mod review;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serve::outbound::{self, HttpsClient};

pub use review::Answers;

use crate::webhook::chain;

/// Longer answers are refused.
const ANSWER_LIMIT: usize = 1 << 20;

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    current_context: String,
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<User>>,
    contexts: Vec<Named<Context_>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "user", alias = "context")]
    content: T,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context_ {
    cluster: String,
    user: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    insecure_skip_tls_verify: bool,
    tls_server_name: String,
    proxy_url: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
    #[serde(rename = "as")]
    acts_as: String,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
}

/// What a request is authenticated with.
enum Credential {
    None,
    Header(HeaderValue),
    TokenFile(PathBuf),
}

/// A server.
pub struct Remote {
    url: String,
    client: HttpsClient,
    credential: Credential,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No connection, or it broke.
    #[error("Post {url:?}: {why}")]
    Connection {
        /// Where it should have gone.
        url: String,
        /// What went wrong, with its causes.
        why: String,
    },
    /// The answer took too long.
    #[error("Post {0:?}: context deadline exceeded")]
    Timeout(String),
    /// The answer is no success.
    #[error("the server answered with status {0}")]
    Status(StatusCode),
}

impl Remote {
    /// Reads the file at `path` and makes a client of its current context.
    ///
    /// # Errors
    /// The file, or one that it names, cannot be read or used; or it asks for something that is not supported.
    pub fn read(path: &Path) -> Result<Self> {
        let text = crate::config_file::text(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::new(&text, folder).with_context(|| format!("in the kubeconfig {}", path.display()))
    }

    fn new(text: &str, folder: &Path) -> Result<Self> {
        let (document, _) = crate::config_file::document(text)?;
        let file: File = serde_json::from_value(document).context("not a kubeconfig")?;
        let context = match find(&file.contexts, &file.current_context) {
            Some(context) => context,
            None => bail!("current-context {:?} does not exist", file.current_context),
        };
        let Some(cluster) = find(&file.clusters, &context.cluster) else {
            bail!("cluster {:?} does not exist", context.cluster)
        };
        let nobody = User::default();
        let user = match find(&file.users, &context.user) {
            Some(user) => user,
            None if context.user.is_empty() => &nobody,
            None => bail!("user {:?} does not exist", context.user),
        };
        for (asked, what) in [
            (user.exec.is_some(), "exec"),
            (user.auth_provider.is_some(), "auth-provider"),
            (!user.acts_as.is_empty(), "as"),
            (!cluster.proxy_url.is_empty(), "proxy-url"),
        ] {
            if asked {
                bail!("{what} is not supported for webhooks");
            }
        }
        let client = client(cluster, user, folder)?;
        Ok(Self { url: cluster.server.clone(), client, credential: credential(user, folder)? })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a document and returns the answer.
    ///
    /// # Errors
    /// There is none in time, or it is no success.
    pub async fn post(&self, body: Bytes, timeout: Duration) -> Result<Bytes, RemoteError> {
        let broken = |why: String| RemoteError::Connection { url: self.url.clone(), why };
        let mut request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, concat!("kube-apiserver/", env!("CARGO_PKG_VERSION")));
        match &self.credential {
            Credential::None => {}
            Credential::Header(value) => request = request.header(AUTHORIZATION, value),
            Credential::TokenFile(path) => {
                let token = tokio::fs::read_to_string(path).await;
                let token = token.map_err(|e| broken(format!("reading {}: {e}", path.display())))?;
                request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
            }
        }
        let request = request.body(serve::full(body)).map_err(|e| broken(e.to_string()))?;
        let answer = async {
            let response = self.client.request(request).await.map_err(|e| broken(chain(&e)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
            if !status.is_success() {
                return Err(RemoteError::Status(status));
            }
            Ok(body.map_err(|e| broken(format!("the answer could not be read: {e}")))?.to_bytes())
        };
        let answer = tokio::time::timeout(timeout, answer).await;
        answer.map_err(|_| RemoteError::Timeout(self.url.clone()))?
    }
}

fn find<'a, T>(list: &'a [Named<T>], name: &str) -> Option<&'a T> {
    list.iter().find(|named| named.name == name).map(|named| &named.content)
}

/// What is given in the file, or in another file that it names.
fn content(data: &str, file: &str, folder: &Path) -> Result<Option<Vec<u8>>> {
    if !data.is_empty() {
        return STANDARD.decode(data.trim()).map(Some).context("illegal base64 data");
    }
    if file.is_empty() {
        return Ok(None);
    }
    let path = folder.join(file);
    std::fs::read(&path).map(Some).with_context(|| format!("reading {}", path.display()))
}

fn client(cluster: &Cluster, user: &User, folder: &Path) -> Result<HttpsClient> {
    let url = cluster.server.parse::<http::Uri>().ok();
    if !url.is_some_and(|u| matches!(u.scheme_str(), Some("http" | "https")) && u.host().is_some()) {
        bail!("the server {:?} is no URL such as https://192.0.2.1/path", cluster.server);
    }
    let ca = content(&cluster.certificate_authority_data, &cluster.certificate_authority, folder)?;
    let certificate = content(&user.client_certificate_data, &user.client_certificate, folder)?;
    let key = content(&user.client_key_data, &user.client_key, folder)?;
    let plain = cluster.server.starts_with("http://");
    let options = outbound::Options {
        ca: ca.or_else(outbound::system_authorities),
        insecure: cluster.insecure_skip_tls_verify || plain,
        server_name: Some(cluster.tls_server_name.clone()).filter(|n| !n.is_empty()),
        identity: certificate.zip(key),
        route: crate::egress::route(crate::egress::Selection::ControlPlane),
        ..Default::default()
    };
    Ok(outbound::client(&options)?)
}

fn credential(user: &User, folder: &Path) -> Result<Credential> {
    let header = |text: String| {
        let mut value = HeaderValue::from_str(&text).context("the credential cannot be sent in a header")?;
        value.set_sensitive(true);
        Ok(Credential::Header(value))
    };
    if !user.token_file.is_empty() {
        return Ok(Credential::TokenFile(folder.join(&user.token_file)));
    }
    if !user.token.is_empty() {
        return header(format!("Bearer {}", user.token));
    }
    if !user.username.is_empty() {
        return header(format!("Basic {}", STANDARD.encode(format!("{}:{}", user.username, user.password))));
    }
    Ok(Credential::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(more: &str, context: &str) -> Result<Remote> {
        let text = format!(
            "current-context: {context}\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: 'http://127.0.0.1:1/path'}}}}]\n\
             users: [{{name: u, user: {{{more}}}}}]\n"
        );
        Remote::new(&text, Path::new("/nowhere"))
    }

    #[test]
    fn the_current_context_names_the_server() {
        let remote = check("token: t", "c").unwrap();
        assert_eq!(remote.url(), "http://127.0.0.1:1/path");
        assert!(matches!(&remote.credential, Credential::Header(h) if h == "Bearer t"));
        let remote = check("tokenFile: t", "c").unwrap();
        assert!(matches!(&remote.credential, Credential::TokenFile(p) if p == Path::new("/nowhere/t")));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (more, context, want) in [
            ("", "d", "current-context \"d\" does not exist"),
            ("exec: {command: x}", "c", "exec is not supported for webhooks"),
            ("client-key-data: '-'", "c", "illegal base64 data"),
            ("client-certificate: x", "c", "reading /nowhere/x"),
        ] {
            assert_eq!(check(more, context).err().map(|e| e.to_string()).as_deref(), Some(want));
        }
    }
}
