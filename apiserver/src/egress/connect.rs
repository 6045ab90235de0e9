//! Through a proxy by the method CONNECT.
//!
//! Source: RFC 9110, section 9.3.6.

use std::io;

use async_trait::async_trait;
use futures::FutureExt;
use http::{Method, Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serve::outbound::{self, Dial, Stream};
use std::sync::Arc;
use tokio::net::{TcpStream, UnixStream};

use super::config::Proxy;

/// The proxy.
#[derive(Debug)]
pub(super) struct HttpConnect(pub Proxy);

#[async_trait]
impl Dial for HttpConnect {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        let target = crate::proxy::authority(host, port);
        let failed = |why: String| io::Error::other(format!("dialing {target} through a proxy: {why}"));
        let stream = self.0.connect().await.map_err(|e| failed(format!("{e:#}")))?;
        let broken = |e: hyper::Error| failed(crate::webhook::chain(&e));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = Request::builder().method(Method::CONNECT).uri(&target).header("host", "127.0.0.1");
        let request = request.body(serve::empty()).map_err(|e| failed(e.to_string()))?;
        let ask = async move {
            let answer = sender.send_request(request).await.map_err(broken)?;
            if answer.status() != StatusCode::OK {
                return Err(failed(format!("it answers {}", answer.status())));
            }
            hyper::upgrade::on(answer).await.map_err(broken)
        };
        // The connection ends as such when it becomes the stream.
        let (stream, _) = tokio::join!(ask, connection.with_upgrades().boxed());
        Ok(Box::new(TokioIo::new(stream?)))
    }
}

impl Proxy {
    async fn connect(&self) -> anyhow::Result<Box<dyn Stream>> {
        match self {
            Self::Socket(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                let Some(files) = tls else { return Ok(Box::new(stream)) };
                let config = Arc::new(outbound::tls_config(&files.read()?)?);
                let name = ServerName::try_from(host.clone())?;
                let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
                Ok(Box::new(stream))
            }
        }
    }
}
