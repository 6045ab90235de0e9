//! Port forwarding: pairs of SPDY streams, and the SPDY connection tunnelled inside a WebSocket (KEP-4006).

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message, protocol::Role};

use crate::spdy::{Error, Headers, Session, Stream, StreamReader, StreamWriter};
use crate::websocket;

/// The SPDY protocol of port forwarding.
pub const PROTOCOL: &str = "portforward.k8s.io";
/// How many half-open pairs a client may have.
const MAX_PENDING: usize = 64;
/// How much is copied at a time.
const CHUNK: usize = 32 << 10;

/// The connecting end: opens one pair of streams for every connection.
pub struct Client<'s> {
    session: &'s Session,
    next_request: AtomicU64,
}

impl<'s> Client<'s> {
    /// Forwards over a session on which [`PROTOCOL`] was agreed.
    pub fn new(session: &'s Session) -> Self {
        Self { session, next_request: AtomicU64::new(0) }
    }

    /// Connects to a port of the pod: the data stream, and the stream on which failures are told as plain text.
    pub async fn connect(&self, port: u16) -> Result<(Stream, StreamReader), Error> {
        let request = self.next_request.fetch_add(1, Ordering::Relaxed).to_string();
        let port = port.to_string();
        let headers =
            |kind: &str| Headers::new([("streamtype", kind), ("port", &*port), ("requestid", &*request)]);
        let mut error = self.session.open(headers("error")).await?;
        error.writer.finish().await?;
        let data = self.session.open(headers("data")).await?;
        Ok((data, error.reader))
    }
}

/// A connection asked for by the client.
pub struct Connection {
    /// The pod's port.
    pub port: u16,
    /// The bytes, both ways.
    pub data: Stream,
    /// Takes the text of a failure; finish it when there was none.
    pub error: StreamWriter,
}

/// The serving end: matches the streams of a pair by their request id.
pub struct Server<'s> {
    session: &'s Session,
    pending: HashMap<String, Stream>,
}

impl<'s> Server<'s> {
    /// Serves a session on which [`PROTOCOL`] was agreed.
    pub fn new(session: &'s Session) -> Self {
        Self { session, pending: HashMap::new() }
    }

    /// The next connection; `None` when the session is over.
    ///
    /// # Errors
    /// The peer breaks the protocol, or leaves a stream without its other half for as long as streams may take to open:
    /// nobody reads that stream, and what comes on it would hold up the session for ever.
    pub async fn accept(&mut self) -> Result<Option<Connection>, Error> {
        while let Some(stream) = self.next().await? {
            let request = stream.headers.get("requestid").to_owned();
            let Some(other) = self.pending.remove(&request) else {
                if self.pending.len() >= MAX_PENDING {
                    return Err(Error::Protocol("too many unpaired port-forward streams"));
                }
                self.pending.insert(request, stream);
                continue;
            };
            return pair(stream, other).map(Some);
        }
        Ok(None)
    }

    async fn next(&self) -> Result<Option<Stream>, Error> {
        match self.pending.is_empty() {
            true => Ok(self.session.accept().await),
            false => self.session.accept_soon().await,
        }
    }
}

fn pair(one: Stream, other: Stream) -> Result<Connection, Error> {
    let (data, error) = match (one.headers.get("streamtype"), other.headers.get("streamtype")) {
        ("data", "error") => (one, other),
        ("error", "data") => (other, one),
        _ => return Err(Error::Protocol("a port-forward pair needs one data and one error stream")),
    };
    let port: NonZeroU16 = data.headers.get("port").parse().map_err(|_| Error::Protocol("invalid port"))?;
    Ok(Connection { port: port.get(), data, error: error.writer })
}

/// Joins a WebSocket that carries a SPDY connection ([`websocket::PORT_FORWARD_TUNNEL`]) with the plain connection of
/// the SPDY peer, until one of them ends. `socket` must be upgraded already; this end is its server.
pub async fn tunnel<S, U>(socket: S, plain: U) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    join(socket, Role::Server, plain).await
}

/// The client's end of [`tunnel`].
pub async fn tunnel_client<S, U>(socket: S, plain: U) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    join(socket, Role::Client, plain).await
}

async fn join<S, U>(socket: S, role: Role, plain: U) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let socket = WebSocketStream::from_raw_socket(socket, role, Some(websocket::config())).await;
    let (mut sink, mut messages) = socket.split();
    let (mut read, mut write) = tokio::io::split(plain);
    let outward = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = read.read(&mut buffer).await?;
            if n == 0 {
                let _ = sink.send(Message::Close(None)).await;
                return Ok(());
            }
            let message = Message::binary(Bytes::copy_from_slice(&buffer[..n]));
            sink.send(message).await.map_err(io::Error::other)?;
        }
    };
    let inward = async {
        while let Some(message) = messages.next().await {
            match message {
                Ok(Message::Binary(bytes)) => write.write_all(&bytes).await?,
                Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed) => break,
                Ok(_) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        write.shutdown().await
    };
    tokio::select! {
        ended = outward => ended,
        ended = inward => ended,
    }
}
