//! Connections to another server.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serve::outbound::{self, HttpsClient, Route, Stream};
use tokio_rustls::client::TlsStream;

use super::Backend;
use super::identity::Identity;
use crate::authn::UserInfo;
use crate::egress::Selection;
use crate::proxy::authority;

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// The connections to a server, made when they are first used and again when this server's certificate changes.
#[derive(Default)]
pub(super) struct Transports(ArcSwapOption<Transport>);

/// A pool of connections, and how others are made.
pub struct Transport {
    generation: u64,
    /// Requests.
    pub client: HttpsClient,
    /// Connections for upgrades.
    pub upgrades: Arc<ClientConfig>,
    route: Route,
}

/// The answer of another server, read as a whole.
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Backend {
    /// The connections to this server.
    ///
    /// # Errors
    /// Says what is wrong with the certificates.
    pub async fn transport(&self, identity: &Identity) -> Result<Arc<Transport>, String> {
        let pair = identity.load();
        if let Some(known) = self.transports.0.load_full().filter(|t| t.generation == pair.generation) {
            return Ok(known);
        }
        let ca = match (&self.bundle, self.insecure) {
            (Some(bundle), _) => Some(bundle.clone()),
            (None, true) => None,
            (None, false) => outbound::system_authorities(),
        };
        let options = outbound::Options {
            ca,
            insecure: self.insecure,
            server_name: Some(self.server_name()),
            identity: pair.pem.clone(),
            route: crate::egress::route(Selection::Cluster),
            ..Default::default()
        };
        let told = |e: outbound::OutboundError| crate::webhook::chain(&e);
        let mut upgrades = outbound::tls_config(&options).map_err(told)?;
        upgrades.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = outbound::client(&options).map_err(told)?;
        let transport = Arc::new(Transport {
            generation: pair.generation,
            client,
            upgrades: Arc::new(upgrades),
            route: options.route,
        });
        self.transports.0.store(Some(transport.clone()));
        Ok(transport)
    }

    /// A connection of its own, for an upgrade.
    pub async fn dial(
        &self,
        transport: &Transport,
        (host, port): &(String, u16),
    ) -> Result<TlsStream<Box<dyn Stream>>, String> {
        let connect = async {
            let tcp = outbound::connect(&transport.route, host, *port)
                .await
                .map_err(|e| format!("dial tcp {}: {e}", authority(host, *port)))?;
            let name = ServerName::try_from(self.server_name()).map_err(|e| e.to_string())?;
            let connector = tokio_rustls::TlsConnector::from(transport.upgrades.clone());
            connector.connect(name, tcp).await.map_err(|e| e.to_string())
        };
        tokio::time::timeout(CONNECT_LIMIT, connect)
            .await
            .unwrap_or_else(|_| Err(format!("dial tcp {}: i/o timeout", authority(host, *port))))
    }
}

impl Transport {
    /// Asks for a document as this server itself, and reads all of the answer, up to `limit` bytes.
    pub async fn ask(
        &self,
        url: &str,
        user: &UserInfo,
        headers: &[(http::HeaderName, &str)],
        (time, limit): (Duration, usize),
    ) -> Result<Answer, String> {
        let mut request = Request::get(url);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let mut request = request.body(serve::empty()).map_err(|e| e.to_string())?;
        super::proxy::name_user(request.headers_mut(), user)?;
        let answer = async {
            let response: Response<_> =
                self.client.request(request).await.map_err(|e| crate::webhook::chain(&e))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, limit).collect().await.map_err(|e| e.to_string())?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(time, answer)
            .await
            .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
    }
}
