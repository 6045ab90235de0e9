//! What the API server hands through: logs and streams of pods from their kubelets, and HTTP to nodes, pods and Services.

mod backend;
mod http;
pub(crate) mod links;
mod pods;
mod target;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{AUTHORIZATION, HeaderName};
use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, Request, Response};
use api::ApiError;
use api::error::Result;
use http_body_util::BodyExt;
use rustls_pki_types::ServerName;
use serve::Body;
use serve::outbound::{self, Route, Stream};
use streaming::upgrade;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

pub(crate) use self::http::at_proxy;
pub use self::http::proxy;
pub use pods::{log, stream};

use crate::egress::Selection;
use crate::http::Exchange;
use crate::resources::TABLE;
use crate::storage::Storage;
use crate::webhook::chain;

const KUBELET_PORT: u16 = 10_250;
/// How long a connection may take to come about, and its TLS handshake after it.
const DIALS_FOR: Duration = Duration::from_secs(10);

/// Connections to kubelets, and to what Services and pods serve.
pub struct Kubelets {
    client: serve::outbound::HttpsClient,
    /// For those who do not ask whose certificate a kubelet has.
    trusting: serve::outbound::HttpsClient,
    any: serve::outbound::HttpsClient,
    tls: Arc<rustls::ClientConfig>,
    any_tls: Arc<rustls::ClientConfig>,
    address_types: Vec<String>,
    route: Route,
    streams: TaskTracker,
}

impl Kubelets {
    /// Connects with this identity and trust; `address_types` says which address of a node is preferred.
    pub fn new(options: serve::outbound::Options, address_types: Vec<String>) -> anyhow::Result<Self> {
        let route = crate::egress::route(Selection::Cluster);
        let options = serve::outbound::Options { route: route.clone(), ..options };
        let upgrades = serve::outbound::Options { http1_only: true, ..options.clone() };
        let trusting = serve::outbound::Options { insecure: true, ca: None, ..options.clone() };
        let any = serve::outbound::Options { insecure: true, route: route.clone(), ..Default::default() };
        let any_upgrades = serve::outbound::Options { http1_only: true, ..any.clone() };
        Ok(Self {
            client: serve::outbound::client(&options)?,
            trusting: serve::outbound::client(&trusting)?,
            any: serve::outbound::client(&any)?,
            tls: Arc::new(serve::outbound::tls_config(&upgrades)?),
            any_tls: Arc::new(serve::outbound::tls_config(&any_upgrades)?),
            address_types,
            route,
            streams: TaskTracker::new(),
        })
    }

    /// Host and port of the kubelet of a node.
    fn locate(&self, exchange: &Exchange, node: &str) -> Result<(String, u16)> {
        let cache = exchange.server.storage.cache(TABLE.store("", "nodes"));
        let object =
            cache.get(node).ok_or_else(|| ApiError::not_found("", &exchange.info.resource, node))?.object();
        let addresses = object.array_at(&["status", "addresses"]);
        let of = |kind: &String| {
            addresses.iter().find(|a| a.str_at(&["type"]) == kind).map(|a| a.str_at(&["address"]))
        };
        let host = self.address_types.iter().find_map(of).ok_or_else(|| {
            let known: Vec<String> = addresses
                .iter()
                .map(|a| format!("{{{} {}}}", a.str_at(&["type"]), a.str_at(&["address"])))
                .collect();
            let known = known.join(" ");
            ApiError::plain(format!("no preferred addresses found; known addresses: [{known}]"))
        })?;
        let port = object.at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).as_i64();
        let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(KUBELET_PORT);
        Ok((host.to_owned(), port))
    }

    /// Runs a stream for as long as it lasts.
    pub(crate) fn spawn(&self, stream: impl Future<Output = ()> + Send + 'static) {
        self.streams.spawn(stream);
    }

    /// True when the kubelet of a node serves WebSockets itself.
    fn translates(&self, storage: &Storage, node: &str) -> bool {
        let node = storage.cache(TABLE.store("", "nodes")).get(node).map(|n| n.object());
        let declared = node.as_ref().map_or(&[][..], |n| n.array_at(&["status", "declaredFeatures"]));
        declared.iter().any(|f| f.as_str() == Some("ExtendWebSocketsToKubelet"))
    }

    async fn dial(
        &self,
        host: &str,
        port: u16,
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> Result<Box<dyn Stream>> {
        let dialed = self.connect(host, port, tls).await;
        dialed.map_err(|why| ApiError::plain(format!("error dialing backend: {why}")))
    }

    /// A connection, or why there is none.
    async fn connect(
        &self,
        host: &str,
        port: u16,
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> std::result::Result<Box<dyn Stream>, String> {
        let authority = authority(host, port);
        let connect = timeout(DIALS_FOR, outbound::connect(&self.route, host, port)).await;
        let stream = match connect {
            Ok(stream) => stream.map_err(|e| unreached(&e, &authority))?,
            Err(_) => return Err(format!("dial tcp {authority}: i/o timeout")),
        };
        let Some(tls) = tls else { return Ok(stream) };
        let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
        match timeout(DIALS_FOR, tokio_rustls::TlsConnector::from(tls.clone()).connect(name, stream)).await {
            Ok(stream) => Ok(Box::new(stream.map_err(|e| chain(&e))?)),
            Err(_) => Err("net/http: TLS handshake timeout".to_owned()),
        }
    }
}

/// Why nobody answered at `authority`: as Go's clients say it, where nobody is there.
pub(crate) fn unreached(error: &(dyn std::error::Error + 'static), authority: &str) -> String {
    use std::io::ErrorKind;
    let mut causes = std::iter::successors(Some(error), |e| e.source());
    let kind = causes.find_map(|e| e.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    let why = match kind {
        Some(ErrorKind::ConnectionRefused) => "connection refused",
        Some(ErrorKind::HostUnreachable) => "no route to host",
        Some(ErrorKind::NetworkUnreachable) => "network is unreachable",
        _ => return chain(error),
    };
    format!("dial tcp {authority}: connect: {why}")
}

/// Host and port as URLs have them.
pub(crate) fn authority(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

/// Takes out what proves who the client is, and what it claims about itself.
pub(crate) fn remove_credentials(headers: &mut HeaderMap) {
    let secret: Vec<HeaderName> = headers
        .keys()
        .filter(|k| {
            **k == AUTHORIZATION
                || k.as_str().starts_with("impersonate-")
                || k.as_str().starts_with("x-remote-")
        })
        .cloned()
        .collect();
    for name in secret {
        headers.remove(name);
    }
}

/// The client's request without what the other side must not see.
pub(crate) fn inbound(exchange: &mut Exchange) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = exchange.head.method.clone();
    *request.headers_mut() = exchange.head.headers.clone();
    remove_credentials(request.headers_mut());
    if let Some(on) = exchange.head.extensions.remove::<hyper::upgrade::OnUpgrade>() {
        request.extensions_mut().insert(on);
    }
    request
}

pub(crate) fn refused(e: &upgrade::Error) -> ApiError {
    match e {
        upgrade::Error::BadRequest(why) => ApiError::bad_request(why.clone()),
        other => ApiError::internal(format!("error dialing backend: {}", chain(other))),
    }
}

/// The same protocol on both sides: bytes are copied.
async fn passed(
    exchange: &mut Exchange,
    outbound: Box<dyn Stream>,
    authority: &str,
    target: &PathAndQuery,
) -> Result<Response<Body>> {
    let request = inbound(exchange);
    handed(exchange, request, outbound, authority, target).await.map_err(|e| refused(&e))
}

/// Hands an upgrade to another server, with the headers that `request` has.
pub(crate) async fn handed(
    exchange: &Exchange,
    mut request: Request<()>,
    outbound: Box<dyn Stream>,
    authority: &str,
    target: &PathAndQuery,
) -> std::result::Result<Response<Body>, upgrade::Error> {
    let passthrough = upgrade::passthrough(&mut request, outbound, authority, target).await?;
    if let Some(relay) = passthrough.relay {
        let completion = exchange.completion.clone();
        exchange.server.kubelets.spawn(async move {
            let _held = completion;
            if let Err(e) = relay.run().await {
                tracing::debug!(error = %e, "a stream broke");
            }
        });
    }
    Ok(passthrough.response.map(|b| b.map_err(|never| match never {}).boxed_unsync()))
}
