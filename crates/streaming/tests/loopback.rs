//! Client against server, over in-memory and real connections.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use streaming::remote_command::{self, Streams};
use streaming::spdy::{Config, Error, Headers, RstStatus, Session};
use streaming::websocket::{self, Frame};
use streaming::{port_forward, upgrade};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

fn sessions(config: Config) -> (Session, Session) {
    let (a, b) = duplex(64 << 10);
    (Session::client(a, config), Session::server(b, config))
}

#[tokio::test]
async fn streams_carry_bytes_both_ways_and_end_separately() {
    let (client, server) = sessions(Config::default());
    let (opened, accepted) = tokio::join!(client.open(Headers::new([("streamType", "x")])), server.accept());
    let (mut ours, mut theirs) = (opened.unwrap(), accepted.unwrap());
    assert_eq!(theirs.headers.get("streamtype"), "x");
    ours.writer.send(Bytes::from_static(b"to")).await.unwrap();
    ours.writer.finish().await.unwrap();
    assert_eq!(theirs.reader.read_to_end(100).await.unwrap(), b"to");
    theirs.writer.send(Bytes::from_static(b"fro")).await.unwrap();
    theirs.writer.finish().await.unwrap();
    assert_eq!(ours.reader.read_to_end(100).await.unwrap(), b"fro");
}

#[tokio::test]
async fn a_big_transfer_passes_the_windows() {
    const SIZE: usize = 8 << 20;
    let (client, server) = sessions(Config::default());
    let (opened, accepted) = tokio::join!(client.open(Headers::default()), server.accept());
    let (mut ours, mut theirs) = (opened.unwrap(), accepted.unwrap());
    let send = async {
        ours.writer.send(Bytes::from(vec![7; SIZE])).await.unwrap();
        ours.writer.finish().await.unwrap();
    };
    let ((), received) = tokio::join!(send, theirs.reader.read_to_end(SIZE * 2));
    assert_eq!(received.unwrap().len(), SIZE);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_stops_its_sender_but_not_the_others() {
    let (client, server) = sessions(Config::default());
    let (stuck, unread) = tokio::join!(client.open(Headers::default()), server.accept());
    let (free, read) = tokio::join!(client.open(Headers::default()), server.accept());
    let (mut stuck, _unread) = (stuck.unwrap(), unread.unwrap());
    let (mut free, mut read) = (free.unwrap(), read.unwrap());
    let flood = stuck.writer.send(Bytes::from(vec![0; 4 << 20]));
    let other = async {
        for _ in 0..64 {
            free.writer.send(Bytes::from(vec![1; 32 << 10])).await.unwrap();
        }
        free.writer.finish().await.unwrap();
        drop(free);
    };
    let drain = async {
        other.await;
    };
    let received = async { read.reader.read_to_end(usize::MAX).await.unwrap().len() };
    tokio::select! {
        _ = flood => panic!("4 MiB went into a stream that nobody reads"),
        ((), n) = async { tokio::join!(drain, received) } => assert_eq!(n, 64 * (32 << 10)),
    }
}

#[tokio::test]
async fn pings_are_answered_from_both_ends() {
    let (client, server) = sessions(Config::default());
    client.ping().await.unwrap();
    server.ping().await.unwrap();
    client.ping().await.unwrap();
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let (client, server) = sessions(Config { max_streams: 1, ..Config::default() });
    let (first, _accepted) = tokio::join!(client.open(Headers::default()), server.accept());
    let _first = first.unwrap();
    let second = client.open(Headers::default()).await;
    assert!(matches!(second, Err(Error::Reset(RstStatus::RefusedStream))));
}

#[tokio::test]
async fn after_goaway_no_stream_is_opened() {
    let (client, server) = sessions(Config::default());
    server.go_away().await.unwrap();
    server.ping().await.unwrap(); // the answer shows that the frame before it was read
    assert!(matches!(client.open(Headers::default()).await, Err(Error::GoingAway)));
}

#[tokio::test]
async fn a_reset_reaches_the_reader() {
    let (client, server) = sessions(Config::default());
    let (opened, accepted) = tokio::join!(client.open(Headers::default()), server.accept());
    let mut ours = opened.unwrap();
    accepted.unwrap().writer.reset(RstStatus::Cancel);
    assert!(matches!(ours.reader.recv().await, Err(Error::Reset(RstStatus::Cancel))));
}

#[tokio::test]
async fn the_end_of_the_connection_ends_everything() {
    let (client, server) = sessions(Config::default());
    let (opened, _accepted) = tokio::join!(client.open(Headers::default()), server.accept());
    let mut ours = opened.unwrap();
    drop(server);
    assert!(matches!(ours.reader.recv().await, Ok(None)));
    client.closed().await;
    assert!(matches!(client.open(Headers::default()).await, Err(Error::Closed)));
}

/// A server that echoes standard input in upper case and then exits with a status.
async fn fake_runtime(io: DuplexStream, streams: Streams, status: &'static str) {
    let session = Session::server(io, Config::default());
    let patience = Duration::from_secs(10);
    let mut command = remote_command::serve_spdy(&session, streams, patience).await.unwrap();
    let (mut stdin, mut stdout) = (command.stdin.unwrap(), command.stdout.unwrap());
    while let Some(chunk) = stdin.recv().await.unwrap() {
        stdout.send(chunk.to_ascii_uppercase().into()).await.unwrap();
    }
    stdout.finish().await.unwrap();
    if let Some(mut stderr) = command.stderr {
        stderr.send(Bytes::from_static(b"bye")).await.unwrap();
    }
    command.error.send(Bytes::from_static(status.as_bytes())).await.unwrap();
    command.error.finish().await.unwrap();
    session.shutdown().await;
}

#[tokio::test]
async fn a_websocket_command_runs_on_a_spdy_runtime() {
    let streams = Streams::from_query("stdin=true&stdout=1&stderr=true&tty=false&command=sh");
    let status = r#"{"status":"Success"}"#;
    let (client_io, front) = duplex(64 << 10);
    let (back, runtime_io) = duplex(64 << 10);
    let client = async {
        let (mut reader, mut writer) = websocket::client(client_io, websocket::V5).await;
        writer.send(remote_command::STDIN, Bytes::from_static(b"hello ")).await.unwrap();
        writer.send(remote_command::STDIN, Bytes::from_static(b"world")).await.unwrap();
        writer.close_channel(remote_command::STDIN).await.unwrap();
        let mut channels = vec![Vec::new(); 5];
        while let Some(Frame::Data { channel, data }) = reader.recv().await.unwrap() {
            channels[channel as usize].extend_from_slice(&data);
        }
        writer.close().await.unwrap();
        channels
    };
    let apiserver = async {
        let channels = websocket::server(front, websocket::V5).await;
        let upstream = Session::client(back, remote_command::upstream_config());
        remote_command::translate(channels, std::future::ready(Ok(upstream)), streams).await
    };
    let (channels, translated, ()) =
        tokio::join!(client, apiserver, fake_runtime(runtime_io, streams, status));
    assert_eq!(channels[1], b"HELLO WORLD");
    assert_eq!(channels[2], b"bye");
    assert_eq!(channels[3], status.as_bytes());
    assert_eq!(translated.unwrap(), status);
}

/// What a client is told of how its command ended.
async fn told(io: DuplexStream) -> String {
    let (mut reader, mut writer) = websocket::client(io, websocket::V5).await;
    let mut status = Vec::new();
    while let Some(Frame::Data { channel, data }) = reader.recv().await.unwrap() {
        if channel == remote_command::ERROR {
            status.extend_from_slice(&data);
        }
    }
    writer.close().await.unwrap();
    String::from_utf8(status).unwrap()
}

#[tokio::test]
async fn a_client_is_told_why_there_is_no_runtime() {
    let (client_io, front) = duplex(64 << 10);
    let apiserver = async {
        let channels = websocket::server(front, websocket::V5).await;
        let nobody = std::future::ready(Err("nobody is there".to_owned()));
        let streams = Streams { stdout: true, ..Streams::default() };
        remote_command::translate(channels, nobody, streams).await
    };
    let (status, translated) = tokio::join!(told(client_io), apiserver);
    assert!(translated.is_err());
    assert!(status.contains("Internal error occurred: nobody is there"), "{status}");
}

#[tokio::test]
async fn a_runtime_that_vanishes_is_reported_as_a_failure() {
    let streams = Streams { stdin: true, stdout: true, ..Streams::default() };
    let (client_io, front) = duplex(64 << 10);
    let (back, runtime_io) = duplex(64 << 10);
    let apiserver = async {
        let channels = websocket::server(front, websocket::V5).await;
        let upstream = Session::client(back, remote_command::upstream_config());
        remote_command::translate(channels, std::future::ready(Ok(upstream)), streams).await
    };
    let runtime = async {
        let session = Session::server(runtime_io, Config::default());
        remote_command::serve_spdy(&session, streams, Duration::from_secs(10)).await.map(drop).unwrap();
    };
    let (status, translated, ()) = tokio::join!(told(client_io), apiserver, runtime);
    assert!(translated.is_err());
    assert!(status.contains("InternalError"), "{status}");
}

#[tokio::test]
async fn port_forward_pairs_go_through_the_websocket_tunnel() {
    let (client_spdy, client_plain) = duplex(64 << 10);
    let (client_socket, server_socket) = duplex(64 << 10);
    let (server_plain, server_spdy) = duplex(64 << 10);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { port_forward::tunnel_client(client_socket, client_plain).await.unwrap() });
    tasks.spawn(async move { port_forward::tunnel(server_socket, server_plain).await.unwrap() });
    let serve = async {
        let session = Session::server(server_spdy, Config::default());
        let mut server = port_forward::Server::new(&session);
        let mut connection = server.accept().await.unwrap().unwrap();
        assert_eq!(connection.port, 5432);
        let asked = connection.data.reader.recv().await.unwrap().unwrap();
        connection.data.writer.send(asked).await.unwrap();
        connection.error.finish().await.unwrap();
        connection.data.writer.finish().await.unwrap();
        session.closed().await;
    };
    let connect = async {
        let session = Session::client(client_spdy, Config::default());
        let client = port_forward::Client::new(&session);
        let (mut data, mut error) = client.connect(5432).await.unwrap();
        data.writer.send(Bytes::from_static(b"select 1")).await.unwrap();
        assert_eq!(data.reader.recv().await.unwrap().unwrap(), "select 1");
        assert!(error.read_to_end(10).await.unwrap().is_empty());
    };
    tokio::join!(serve, connect);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

#[tokio::test]
async fn no_pod_has_a_port_of_zero() {
    let (client, server) = sessions(Config::default());
    let _streams = port_forward::Client::new(&client).connect(0).await.unwrap();
    let accepted = port_forward::Server::new(&server).accept().await;
    assert!(accepted.is_err_and(|e| e.to_string().contains("invalid port")));
}

type Answer = http::Response<Full<Bytes>>;

/// A back end that upgrades to an echo, or refuses with 403 on any other path.
async fn back_end(mut request: http::Request<Incoming>) -> Result<Answer, std::convert::Infallible> {
    if request.uri().path() != "/echo" {
        let refusal = http::Response::builder().status(403).body(Full::from("no")).unwrap();
        return Ok(refusal);
    }
    let (response, protocol) =
        upgrade::accept_spdy(request.headers(), &remote_command::SPDY_PROTOCOLS).unwrap();
    assert_eq!(protocol, "v4.channel.k8s.io");
    let pending = hyper::upgrade::on(&mut request);
    spawn(async move {
        let mut io = TokioIo::new(pending.await.unwrap());
        let mut buffer = [0; 5];
        io.read_exact(&mut buffer).await.unwrap();
        io.write_all(&buffer).await.unwrap();
    });
    Ok(response)
}

#[expect(clippy::disallowed_methods, reason = "hyper's handler has to answer before its upgrade can go on")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

async fn serve_one<F, R>(listener: TcpListener, handler: F)
where
    F: Fn(http::Request<Incoming>) -> R,
    R: Future<Output = Result<Answer, std::convert::Infallible>>,
{
    let (socket, _) = listener.accept().await.unwrap();
    let service = hyper::service::service_fn(handler);
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    let _ = connection.with_upgrades().await;
}

async fn through_proxy(target: &'static str) -> Result<String, upgrade::Error> {
    let back = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (back_addr, front_addr) = (back.local_addr().unwrap(), front.local_addr().unwrap());
    let proxy = move |mut request: http::Request<Incoming>| async move {
        let outbound = TcpStream::connect(back_addr).await.unwrap();
        let path = target.parse().unwrap();
        let done = upgrade::passthrough(&mut request, outbound, "back", &path).await.unwrap();
        if let Some(relay) = done.relay {
            spawn(async move { relay.run().await.map(drop).unwrap() });
        }
        Ok(done.response)
    };
    let client = async {
        let socket = TcpStream::connect(front_addr).await.unwrap();
        let request = upgrade::spdy_request("front", "/anything", &remote_command::SPDY_PROTOCOLS).unwrap();
        let (_, mut io) = upgrade::connect(socket, request).await?;
        io.write_all(b"hello").await.unwrap();
        let mut echoed = String::new();
        io.read_to_string(&mut echoed).await.unwrap();
        Ok(echoed)
    };
    let servers = async { tokio::join!(serve_one(back, back_end), serve_one(front, proxy)) };
    let (result, _) = tokio::join!(client, servers);
    result
}

#[tokio::test]
async fn an_upgrade_is_handed_through_byte_by_byte() {
    assert_eq!(through_proxy("/echo").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_refused_upgrade_reaches_the_client_as_it_is() {
    let refused = through_proxy("/other").await.unwrap_err();
    let upgrade::Error::Refused(response) = refused else { panic!("{refused}") };
    assert_eq!((response.status().as_u16(), &response.body()[..]), (403, &b"no"[..]));
}

#[tokio::test]
async fn a_websocket_handshake_agrees_on_the_clients_first_known_protocol() {
    let request = upgrade::websocket_request("h", "/x", &["v9.channel.k8s.io", websocket::V4]).unwrap();
    let known = remote_command::WEBSOCKET_PROTOCOLS;
    let (response, protocol) = upgrade::accept_websocket(request.headers(), &known).unwrap();
    assert_eq!(protocol, websocket::V4);
    assert_eq!(response.headers()["sec-websocket-protocol"], websocket::V4);
    let unknown = upgrade::websocket_request("h", "/x", &["v9.channel.k8s.io"]).unwrap();
    assert!(upgrade::accept_websocket(unknown.headers(), &known).is_err());
}
