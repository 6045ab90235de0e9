//! The accept loop: TCP, TLS, HTTP/1.1 and HTTP/2, for any tower service.

mod http2;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use prometheus::IntCounter;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};
use tracing::{debug, warn};

pub use http2::apart;

use crate::body::BoxError;
use crate::tls::Tls;

/// The certificates the client showed, leaf first; empty when it showed none. A request extension.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// The client's address. A request extension.
#[derive(Clone, Copy, Debug)]
pub struct RemoteAddr(pub SocketAddr);

/// What bounds the connections of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; further ones wait in the listen queue.
    pub connections: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for the head of a request, and for an idle HTTP/1.1 connection.
    pub header: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// Time for running requests to end after a stop; then they are cut off.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(90),
            streams: 250,
            drain: Duration::from_secs(10),
        }
    }
}

/// The most headers of a request over HTTP/1.1: a proxy that tells who its user is sends one for each group.
const HEADERS: usize = 512;
/// The most that the head of a request may take over HTTP/2, as in upstream.
const HEAD: u32 = 1 << 20;

/// A server: how to speak to those who connect.
#[derive(Clone, Default)]
pub struct Server {
    /// TLS, or none for plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Bounds.
    pub limits: Limits,
    /// How likely a request over HTTP/2 tells its client to connect anew, so that clients spread over servers: 0 is never.
    pub goaway: f64,
    /// Counts handshakes that fail.
    pub handshake_errors: Option<IntCounter>,
}

impl Server {
    /// A server that speaks TLS.
    pub fn https(tls: Arc<Tls>) -> Self {
        Self { tls: Some(tls), ..Self::default() }
    }

    /// A server that speaks plain HTTP.
    pub fn http() -> Self {
        Self::default()
    }

    /// Serves until `stop`, then lets running requests end within the drain time. Every request carries the extensions
    /// [`RemoteAddr`] and [`PeerCertificates`].
    pub async fn serve<S, B>(self, listener: TcpListener, service: S, stop: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let room = Arc::new(Semaphore::new(self.limits.connections));
        let mut connections = JoinSet::new();
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&room).acquire_owned() => permit.expect("never closed"),
                () = stop.cancelled() => break,
            };
            let (stream, remote) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(e) => {
                        pause_after(&e).await;
                        continue;
                    }
                },
                () = stop.cancelled() => break,
            };
            let (this, service, stop) = (self.clone(), service.clone(), stop.clone());
            connections.spawn(async move {
                if let Err(e) = this.connection(stream, remote, service, stop).await {
                    debug!(%remote, err = %e, "Connection ended with an error");
                }
                drop(permit);
            });
            while connections.try_join_next().is_some() {}
        }
        drop(listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.limits.drain, all).await.is_err() {
            warn!("Cutting off connections that did not drain in time");
        }
    }

    async fn connection<S, B>(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        service: S,
        stop: CancellationToken,
    ) -> Result<(), BoxError>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Small answers must not wait for more to come; a failure here only costs time.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            let service = told(service, (remote, PeerCertificates::default()), 0.0, &stop);
            return http1(self.builder(TokioExecutor::new()), stream, service, stop).await;
        };
        let handshake = tls.acceptor().accept(stream);
        let stream = match tokio::time::timeout(self.limits.handshake, handshake).await {
            Ok(Ok(stream)) => stream,
            failed => {
                self.handshake_errors.iter().for_each(IntCounter::inc);
                failed??;
                return Ok(());
            }
        };
        let (_, session) = stream.get_ref();
        let peer = PeerCertificates(session.peer_certificates().unwrap_or_default().to_vec().into());
        // Also one connection alone may be told that it ends.
        let stop = stop.child_token();
        match session.alpn_protocol() {
            Some(b"h2") => {
                let service = told(service, (remote, peer), self.goaway, &stop);
                http2::serve(|streams| self.builder(streams).http2_only(), stream, service, stop).await
            }
            _ => {
                let service = told(service, (remote, peer), 0.0, &stop);
                http1(self.builder(TokioExecutor::new()).http1_only(), stream, service, stop).await
            }
        }
    }

    fn builder<E>(&self, executor: E) -> Builder<E> {
        let mut builder = Builder::new(executor);
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.limits.header).max_headers(HEADERS);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams)
            .max_header_list_size(HEAD)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(15));
        builder
    }
}

/// Out of file descriptors: accepting again at once would only spin.
async fn pause_after(e: &io::Error) {
    warn!(err = %e, "Cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// A service whose requests carry who sent them, and which now and then has its connection end.
fn told<S, B>(
    service: S,
    (remote, peer): (SocketAddr, PeerCertificates),
    goaway: f64,
    ends: &CancellationToken,
) -> impl Service<Request<Incoming>, Response = Response<B>, Error = BoxError, Future: Send> + Clone + Send + 'static
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    let ends = ends.clone();
    tower::service_fn(move |mut request: Request<Incoming>| {
        if goaway > 0.0 && rand::random::<f64>() < goaway {
            ends.cancel();
        }
        request.extensions_mut().insert(RemoteAddr(remote));
        request.extensions_mut().insert(peer.clone());
        let mut service = service.clone();
        async move {
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
            service.call(request).await.map_err(Into::into)
        }
    })
}

async fn http1<S, B, I>(
    builder: Builder<TokioExecutor>,
    stream: I,
    service: S,
    stop: CancellationToken,
) -> Result<(), BoxError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = service_fn(move |request| service.clone().oneshot(request));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
