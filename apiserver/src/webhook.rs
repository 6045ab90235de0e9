//! Webhooks: HTTPS requests to those whom an object of the cluster names, with limits on time and size.
//!
//! Who answers is named by a URL or by a Service, whose cluster address is dialled and whose name its certificate must
//! have. Source: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>.

use std::time::Duration;

use api::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use parking_lot::Mutex;
use serve::outbound::{self, HttpsClient, OutboundError};

use crate::egress::Selection;
use crate::resources::TABLE;
use crate::storage::Storage;

/// Why a webhook gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The address is none.
    #[error("{0}")]
    Address(String),
    /// The client cannot be made.
    #[error("{0}")]
    Client(#[from] OutboundError),
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
    /// The answer is no success; this is what it says.
    #[error("{0}")]
    Status(String),
    /// The answer cannot be read.
    #[error("{0}")]
    Body(String),
}

/// Somebody who answers reviews.
pub struct Webhook {
    config: Value,
    limit: usize,
    client: Mutex<Option<HttpsClient>>,
}

/// What the configuration comes down to.
struct Target {
    /// Where the request goes.
    url: String,
    /// What messages call it.
    shown: String,
    /// The name of a Service, for the certificate and the `Host` header.
    host: Option<String>,
}

impl Webhook {
    /// Reads a `clientConfig`. Answers may be as large as `limit` bytes.
    pub fn new(config: &Value, limit: usize) -> Self {
        Self { config: config.clone(), limit, client: Mutex::new(None) }
    }

    /// Sends a review and reads the answer.
    ///
    /// # Errors
    /// When nobody answers in time, or with something else than a JSON document.
    pub async fn call(
        &self,
        storage: &Storage,
        review: &Value,
        timeout: Duration,
    ) -> Result<Value, WebhookError> {
        let target = self.target(storage, timeout)?;
        let Target { url, shown, .. } = &target;
        let client = self.client(target.host.as_deref()).await?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*");
        if let Some(host) = &target.host {
            request = request.header(HOST, host);
        }
        let request = request
            .body(serve::full(Bytes::from(review.to_json())))
            .map_err(|e| WebhookError::Address(e.to_string()))?;
        let answer = async {
            let broken = |why: String| WebhookError::Connection { url: shown.clone(), why };
            let response = client.request(request).await.map_err(|e| broken(chain(&e)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), self.limit).collect().await;
            let body = body.map_err(|e| WebhookError::Body(format!("the answer could not be read: {e}")))?;
            let body = body.to_bytes();
            if !status.is_success() {
                return Err(WebhookError::Status(complaint(status, &body)));
            }
            let decoded = api::json::decode(&body);
            decoded.map(|d| d.value).map_err(|e| WebhookError::Body(format!("the answer is no JSON: {e}")))
        };
        tokio::time::timeout(timeout, answer).await.map_err(|_| WebhookError::Timeout(shown.clone()))?
    }

    fn target(&self, storage: &Storage, timeout: Duration) -> Result<Target, WebhookError> {
        let query = format!("?timeout={}s", timeout.as_secs());
        if let Some(url) = self.config.get("url").as_str() {
            let url = format!("{url}{query}");
            return Ok(Target { shown: url.clone(), url, host: None });
        }
        let service = self.config.get("service");
        let (namespace, name) = (service.str_at(&["namespace"]), service.str_at(&["name"]));
        let port = service.get("port").as_i64().unwrap_or(443);
        let path = service.str_at(&["path"]).trim_start_matches('/');
        let shown = format!("https://{name}.{namespace}.svc:{port}/{path}{query}");
        let broken = |why: String| WebhookError::Connection { url: shown.clone(), why };
        let found = storage.cache(TABLE.store("", "services")).get(&format!("{namespace}/{name}"));
        let Some(object) = found.map(|s| s.object()) else {
            let quoted = api::field::go_quote(name);
            return Err(broken(format!("service {quoted} not found")));
        };
        let address = match object.str_at(&["spec", "type"]) {
            "ExternalName" => object.str_at(&["spec", "externalName"]).to_owned(),
            _ => object.str_at(&["spec", "clusterIP"]).to_owned(),
        };
        let served = object.array_at(&["spec", "ports"]).iter().any(|p| p.get("port").as_i64() == Some(port));
        if matches!(address.as_str(), "" | "None") {
            return Err(broken("cannot route to service with ClusterIP \"None\"".to_owned()));
        }
        if !served && object.str_at(&["spec", "type"]) != "ExternalName" {
            let quoted = api::field::go_quote(name);
            return Err(broken(format!("no service port {port} found for service {quoted}")));
        }
        let address = if address.contains(':') { format!("[{address}]") } else { address };
        let url = format!("https://{address}:{port}/{path}{query}");
        Ok(Target { url, shown, host: Some(format!("{name}.{namespace}.svc")) })
    }

    /// The client, made when it is first used.
    async fn client(&self, host: Option<&str>) -> Result<HttpsClient, WebhookError> {
        if let Some(client) = self.client.lock().as_ref() {
            return Ok(client.clone());
        }
        let bundle = self.config.get("caBundle").as_str().unwrap_or_default();
        let ca = match STANDARD.decode(bundle) {
            Ok(pem) if !pem.is_empty() => Some(pem),
            _ => outbound::system_authorities(),
        };
        let options = outbound::Options {
            ca,
            server_name: host.map(str::to_owned),
            http1_only: true,
            route: crate::egress::route(match host {
                Some(_) => Selection::Cluster,
                None => Selection::ControlPlane,
            }),
            ..Default::default()
        };
        let client = outbound::client(&options)?;
        *self.client.lock() = Some(client.clone());
        Ok(client)
    }
}

/// What an answer that is no success says, in the words of Kubernetes' clients.
fn complaint(status: StatusCode, body: &[u8]) -> String {
    const SHOWN: usize = 2048;
    let told = api::json::decode(body).ok().map(|d| d.value).filter(|v| v.kind() == "Status");
    if let Some(told) = told {
        return told.str_at(&["message"]).to_owned();
    }
    let text = String::from_utf8_lossy(body);
    let text: String = text.trim().chars().take(SHOWN).collect();
    let said = match status.as_u16() {
        400 => "the server rejected our request for an unknown reason",
        401 => "the server has asked for the client to provide credentials",
        403 => text.as_str(),
        404 => "the server could not find the requested resource",
        405 => "the server does not allow this method on the requested resource",
        409 => "the server reported a conflict",
        422 => "the server rejected our request due to an error in our request",
        429 => "the server has received too many requests and has asked us to try again later",
        503 => "the server is currently unable to handle the request",
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
        }
        code if code >= 500 => {
            let quoted = api::field::go_quote(&text);
            return format!("an error on the server ({quoted}) has prevented the request from succeeding");
        }
        code => {
            return format!(
                "the server responded with the status code {code} but did not return more information"
            );
        }
    };
    said.to_owned()
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}
