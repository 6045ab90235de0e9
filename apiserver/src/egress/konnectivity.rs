//! Through a konnectivity server: each connection is a stream of packets over gRPC, on a socket of this machine.
//!
//! Source: <https://github.com/kubernetes-sigs/apiserver-network-proxy>, `konnectivity-client/proto/client/client.proto`.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::{Message, Oneof};
use serve::outbound::{Dial, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tonic::Streaming;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use tower::service_fn;

const METHOD: &str = "/ProxyService/Proxy";
/// Bytes of a packet of data, at most.
const PACKET: usize = 32 << 10;
/// Packets that wait to be sent.
const QUEUE: usize = 8;
/// How long the other side may take to say that a connection is closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, PartialEq, Message)]
struct Packet {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(oneof = "Payload", tags = "2, 3, 4, 5, 6, 7")]
    payload: Option<Payload>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Payload {
    #[prost(message, tag = "2")]
    DialRequest(DialRequest),
    #[prost(message, tag = "3")]
    DialResponse(DialResponse),
    #[prost(message, tag = "4")]
    Data(Data),
    #[prost(message, tag = "5")]
    CloseRequest(CloseRequest),
    #[prost(message, tag = "6")]
    CloseResponse(CloseResponse),
    #[prost(message, tag = "7")]
    CloseDial(CloseDial),
}

#[derive(Clone, PartialEq, Message)]
struct DialRequest {
    #[prost(string, tag = "1")]
    protocol: String,
    #[prost(string, tag = "2")]
    address: String,
    #[prost(int64, tag = "3")]
    random: i64,
}

#[derive(Clone, PartialEq, Message)]
struct DialResponse {
    #[prost(string, tag = "1")]
    error: String,
    #[prost(int64, tag = "2")]
    connection: i64,
    #[prost(int64, tag = "3")]
    random: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Data {
    #[prost(int64, tag = "1")]
    connection: i64,
    #[prost(string, tag = "2")]
    error: String,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct CloseRequest {
    #[prost(int64, tag = "1")]
    connection: i64,
}

#[derive(Clone, PartialEq, Message)]
struct CloseResponse {
    #[prost(string, tag = "1")]
    error: String,
    #[prost(int64, tag = "2")]
    connection: i64,
}

#[derive(Clone, PartialEq, Message)]
struct CloseDial {
    #[prost(int64, tag = "1")]
    random: i64,
}

impl From<Payload> for Packet {
    fn from(payload: Payload) -> Self {
        let kind = match &payload {
            Payload::DialRequest(_) => 0,
            Payload::DialResponse(_) => 1,
            Payload::CloseRequest(_) => 2,
            Payload::CloseResponse(_) => 3,
            Payload::Data(_) => 4,
            Payload::CloseDial(_) => 5,
        };
        Self { kind, payload: Some(payload) }
    }
}

/// A konnectivity server.
#[derive(Debug)]
pub(super) struct Konnectivity {
    socket: PathBuf,
    streams: TaskTracker,
}

impl Konnectivity {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket, streams: TaskTracker::new() }
    }

    async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let path = self.socket.clone();
        let connect = service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(connect).await
    }

    /// A stream of packets both ways.
    async fn open(&self) -> Result<(mpsc::Sender<Packet>, Streaming<Packet>), String> {
        let channel = self.channel().await.map_err(|e| crate::webhook::chain(&e))?;
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.map_err(|e| crate::webhook::chain(&e))?;
        let (packets, queue) = mpsc::channel(QUEUE);
        let outgoing = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(queue));
        let codec = ProstCodec::<Packet, Packet>::default();
        let answer = grpc.streaming(outgoing, PathAndQuery::from_static(METHOD), codec).await;
        let incoming = answer.map_err(|status| status.message().to_owned())?.into_inner();
        Ok((packets, incoming))
    }
}

#[async_trait]
impl Dial for Konnectivity {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        let address = crate::proxy::authority(host, port);
        let failed = |why: String| io::Error::other(format!("dialing {address} through konnectivity: {why}"));
        let (packets, mut incoming) = self.open().await.map_err(failed)?;
        let random = rand::random::<i64>() & i64::MAX;
        let request = DialRequest { protocol: "tcp".to_owned(), address: address.clone(), random };
        let gone = || failed("the stream ended".to_owned());
        packets.send(Payload::DialRequest(request).into()).await.map_err(|_| gone())?;
        let connection = loop {
            let packet = incoming.message().await.map_err(|e| failed(e.message().to_owned()))?;
            match packet.ok_or_else(gone)?.payload {
                Some(Payload::DialResponse(answer)) if answer.random == random => {
                    if !answer.error.is_empty() {
                        return Err(failed(answer.error));
                    }
                    break answer.connection;
                }
                Some(Payload::CloseDial(_)) => return Err(failed("the dial was given up".to_owned())),
                _ => {}
            }
        };
        let (ours, theirs) = tokio::io::duplex(PACKET);
        let (read, write) = tokio::io::split(theirs);
        self.streams.spawn(async move {
            tokio::select! {
                () = receive(incoming, write) => {}
                () = send(read, packets, connection) => {}
            }
        });
        Ok(Box::new(ours))
    }
}

/// Hands on what comes, until the other side ends or nobody listens.
async fn receive(mut incoming: Streaming<Packet>, mut write: WriteHalf<DuplexStream>) {
    while let Ok(Some(packet)) = incoming.message().await {
        match packet.payload {
            Some(Payload::Data(data)) if write.write_all(&data.data).await.is_ok() => {}
            Some(Payload::Data(_) | Payload::CloseResponse(_) | Payload::CloseRequest(_)) => break,
            _ => {}
        }
    }
    drop(write.shutdown().await);
}

/// Sends what is written, until the writer ends; then the connection is closed, and stays until the other side has
/// closed too or has had [`CLOSE_LIMIT`] to.
async fn send(mut read: ReadHalf<DuplexStream>, packets: mpsc::Sender<Packet>, connection: i64) {
    let mut buffer = BytesMut::with_capacity(PACKET);
    while read.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
        let data = Data { connection, error: String::new(), data: buffer.split().to_vec() };
        if packets.send(Payload::Data(data).into()).await.is_err() {
            return;
        }
    }
    // The server may not even take the request: the limit holds for both.
    let closing = async {
        if packets.send(Payload::CloseRequest(CloseRequest { connection }).into()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    drop(timeout(CLOSE_LIMIT, closing).await);
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt;
    use hyper_util::rt::TokioExecutor;
    use tokio::net::UnixListener;
    use tonic::Status;

    use super::*;

    /// What a server says to a packet: hosts called `good` echo in capitals, `deaf` ones do not hear that they are to close,
    /// all others are unknown.
    fn reply(packet: Packet) -> Option<Packet> {
        let payload = match packet.payload? {
            Payload::DialRequest(DialRequest { address, random, protocol }) => {
                assert_eq!(protocol, "tcp");
                let (error, connection) = match address.as_str() {
                    "good:80" => ("", 7),
                    "deaf:80" => ("", DEAF),
                    _ => ("no such host", 0),
                };
                Payload::DialResponse(DialResponse { error: error.to_owned(), connection, random })
            }
            Payload::Data(data) => {
                assert_eq!(data.connection, 7);
                Payload::Data(Data { data: data.data.to_ascii_uppercase(), ..data })
            }
            Payload::CloseRequest(CloseRequest { connection: DEAF }) => return None,
            Payload::CloseRequest(CloseRequest { connection }) => {
                Payload::CloseResponse(CloseResponse { connection, error: String::new() })
            }
            _ => return None,
        };
        Some(payload.into())
    }

    const DEAF: i64 = 8;

    async fn serve(listener: UnixListener) {
        let tracker = TaskTracker::new();
        while let Ok((stream, _)) = listener.accept().await {
            let answer = |request: http::Request<hyper::body::Incoming>| async move {
                assert_eq!(request.uri().path(), METHOD);
                let service = service_fn(|packets: tonic::Request<Streaming<Packet>>| async move {
                    let replies = packets.into_inner().filter_map(async |packet| reply(packet.ok()?).map(Ok));
                    Ok::<_, Status>(tonic::Response::new(replies.boxed()))
                });
                let codec = ProstCodec::<Packet, Packet>::default();
                Ok::<_, Infallible>(tonic::server::Grpc::new(codec).streaming(service, request).await)
            };
            let service = hyper::service::service_fn(answer);
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tracker.spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    }

    #[tokio::test]
    async fn bytes_go_both_ways_until_one_side_ends() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let tracker = TaskTracker::new();
        let server = tracker.spawn(serve(UnixListener::bind(&socket).unwrap()));
        let way = Konnectivity::new(socket);
        let mut stream = way.dial("good", 80).await.unwrap();
        let text = "some text, ".repeat(20_000);
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let mut echo = vec![0; text.len()];
        let (written, got) = tokio::join!(write.write_all(text.as_bytes()), read.read_exact(&mut echo));
        written.and(got).unwrap();
        assert_eq!(echo, text.to_uppercase().as_bytes());
        write.shutdown().await.unwrap();
        assert_eq!(read.read(&mut [0; 1]).await.unwrap(), 0);
        let error = way.dial("other", 80).await.err().unwrap();
        assert_eq!(error.to_string(), "dialing other:80 through konnectivity: no such host");
        server.abort();
        drop(folder);
        assert!(way.dial("good", 80).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_hear_that_a_connection_ends_holds_it_for_a_while_only() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let tracker = TaskTracker::new();
        let server = tracker.spawn(serve(UnixListener::bind(&socket).unwrap()));
        let way = Konnectivity::new(socket);
        let stream = way.dial("deaf", 80).await.unwrap();
        assert_eq!(way.streams.len(), 1);
        drop(stream);
        way.streams.close();
        timeout(CLOSE_LIMIT * 2, way.streams.wait()).await.unwrap();
        server.abort();
    }
}
