//! What holds for any bytes. Built for tests and for fuzzing alone; the corpora are in `fuzz/corpus`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex, sink};
use tokio::runtime::{Builder, Runtime};

use crate::spdy::{Config, Session, compressed};
use crate::websocket::{self, Encoding};
use crate::{one_way, port_forward, remote_command, upgrade};

/// Far more than any input takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without input and output can be built")
}

/// Sends bytes and what ends them, and takes whatever comes back.
async fn peer(io: DuplexStream, data: &[u8]) {
    let (mut read, mut write) = tokio::io::split(io);
    let send = async {
        let _ = write.write_all(data).await;
        let _ = write.shutdown().await;
    };
    let mut nowhere = sink();
    let _ = tokio::join!(send, tokio::io::copy(&mut read, &mut nowhere));
}

/// What a peer sends on a SPDY connection, the header blocks not compressed: the session ends when the peer does, and
/// no stream holds more than was sent.
pub fn spdy(data: &[u8]) {
    let Some((how, frames)) = data.split_first() else { return };
    let bytes = if how & 1 == 0 { compressed(frames) } else { frames.to_vec() };
    let serve = async {
        let (ours, theirs) = duplex(64 << 10);
        let config = Config { max_streams: 8, open_timeout: Duration::from_millis(100), ping_period: None };
        let session =
            if how & 2 == 0 { Session::server(ours, config) } else { Session::client(ours, config) };
        let most = bytes.len();
        let take = async move {
            if how & 4 == 0 {
                while let Some(mut stream) = session.accept().await {
                    let _ = stream.headers.get("streamtype");
                    if let Ok(all) = stream.reader.read_to_end(most).await {
                        assert!(all.len() <= most);
                    }
                    let _ = stream.writer.finish().await;
                }
                session.closed().await;
            } else {
                // A peer that breaks the protocol is left: the session goes with what it still sends.
                let mut server = port_forward::Server::new(&session);
                while let Ok(Some(connection)) = server.accept().await {
                    assert_ne!(connection.port, 0);
                }
            }
        };
        tokio::join!(take, peer(theirs, &bytes));
    };
    runtime()
        .block_on(async { tokio::time::timeout(PATIENCE, serve).await })
        .expect("the session ends with its peer");
}

/// What a peer sends on a WebSocket of each protocol: frames that were read are written as what is read as the same.
pub fn websockets(data: &[u8]) {
    let Some((how, bytes)) = data.split_first() else { return };
    let protocols = [websocket::V5, websocket::V4, websocket::V1, websocket::V1_BASE64, websocket::V4_BASE64];
    let protocol = protocols[usize::from(how >> 1) % protocols.len()];
    let serve = async {
        let (ours, theirs) = duplex(64 << 10);
        let take = async {
            let (mut reader, _writer) = match how & 1 {
                0 => websocket::server(ours, protocol).await,
                _ => websocket::client(ours, protocol).await,
            };
            while let Ok(Some(frame)) = reader.recv().await {
                let message = Encoding::of(protocol).encode(frame.clone()).expect("it came in this protocol");
                assert_eq!(Encoding::of(protocol).decode(message).expect("it was written here"), Some(frame));
            }
        };
        tokio::join!(take, peer(theirs, bytes));
    };
    runtime()
        .block_on(async { tokio::time::timeout(PATIENCE, serve).await })
        .expect("the socket ends with its peer");
}

/// Headers of a request and its query, line by line: what is agreed was offered.
pub fn upgrades(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut headers = HeaderMap::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
            continue;
        };
        if headers.len() < 100 {
            headers.append(name, value);
        }
    }
    let query = text.lines().next().unwrap_or_default();
    let _ =
        (upgrade::requested(&headers), remote_command::Streams::from_query(query), one_way::Form::of(query));
    let supported = [websocket::V5, websocket::V4];
    for name in [http::header::SEC_WEBSOCKET_PROTOCOL, HeaderName::from_static("x-stream-protocol-version")] {
        if let Some(agreed) = upgrade::negotiate(&headers, &name, &supported) {
            assert!(upgrade::tokens(&headers, &name).any(|offered| offered == agreed));
        }
    }
}

#[test]
fn committed_inputs_hold() {
    testing::replay(&[("spdy", spdy), ("websockets", websockets), ("upgrades", upgrades)]);
}
