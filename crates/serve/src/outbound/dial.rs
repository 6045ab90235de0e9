//! How connections begin: straight to their host, or by a way of the caller's, such as a proxy.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tower::Service;

/// A connection that takes longer to begin is given up.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A way to hosts that is not the direct one.
#[async_trait]
pub trait Dial: Debug + Send + Sync {
    /// Connects to a port of a host.
    ///
    /// # Errors
    /// The way, or the host behind it, cannot be reached.
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>>;
}

/// A way to hosts; none for the direct one.
pub type Route = Option<Arc<dyn Dial>>;

/// Connects to a port of a host.
///
/// # Errors
/// It cannot be reached.
pub async fn connect(route: &Route, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
    match route {
        Some(way) => way.dial(host, port).await,
        None => Ok(Box::new(TcpStream::connect((host, port)).await?)),
    }
}

/// Connects for a client.
#[derive(Clone, Debug)]
pub struct Connector {
    pub(super) tcp: HttpConnector,
    pub(super) route: Route,
}

type Connecting =
    Pin<Box<dyn Future<Output = Result<Dialed, Box<dyn std::error::Error + Send + Sync>>> + Send>>;

impl Service<Uri> for Connector {
    type Response = Dialed;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Connecting;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Some(way) = self.route.clone() else {
            let connecting = self.tcp.call(uri);
            return Box::pin(
                async move { Ok(Dialed(TokioIo::new(Box::new(connecting.await?.into_inner())))) },
            );
        };
        Box::pin(async move {
            let host = uri.host().ok_or("the URL has no host")?.trim_matches(['[', ']']);
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
            let dialed = tokio::time::timeout(CONNECT_LIMIT, way.dial(host, port)).await;
            let late =
                |_| format!("no connection to {host}:{port} by way of the proxy within {CONNECT_LIMIT:?}");
            Ok(Dialed(TokioIo::new(dialed.map_err(late)??)))
        })
    }
}

/// A connection of a client.
pub struct Dialed(TokioIo<Box<dyn Stream>>);

impl Connection for Dialed {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Dialed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Dialed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, bytes)
    }
}
