//! WebSockets as the API server speaks them to nodes that declare `ExtendWebSocketsToKubelet` (KEP-4006), for runtimes that
//! know SPDY alone.

use daemon::Tasks;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serve::Body;
use streaming::remote_command::{self, Streams};
use streaming::upgrade::{self, Kind};
use streaming::{port_forward, spdy, websocket};
use tokio::net::TcpStream;

/// What the caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    /// What the runtime is left to understand.
    Other,
    /// A command's streams as channels.
    Channels(Streams),
    /// SPDY within a WebSocket.
    Tunnel,
}

impl Spoken {
    /// Of a request for a command with these streams. Older protocols are the runtime's own matter.
    pub(super) fn for_command(headers: &HeaderMap, streams: Streams) -> Self {
        if offers(headers, websocket::V5) { Self::Channels(streams) } else { Self::Other }
    }

    /// Of a request for ports.
    pub(super) fn for_ports(headers: &HeaderMap) -> Self {
        if offers(headers, websocket::PORT_FORWARD_TUNNEL) { Self::Tunnel } else { Self::Other }
    }

    /// What a request that has to be translated is for.
    pub(super) fn subresource(self, path: &str) -> Option<&'static str> {
        match self {
            Self::Other => None,
            Self::Tunnel => Some("portforward"),
            Self::Channels(_) if path.starts_with("/attach/") => Some("attach"),
            Self::Channels(_) => Some("exec"),
        }
    }
}

fn offers(headers: &HeaderMap, protocol: &str) -> bool {
    upgrade::requested(headers) == Kind::WebSocket
        && upgrade::tokens(headers, &SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == protocol)
}

/// Where a runtime serves the streams.
pub(super) struct Target<'t> {
    pub(super) stream: TcpStream,
    pub(super) authority: &'t str,
    pub(super) path: &'t PathAndQuery,
}

/// Answers a caller who speaks `spoken`, and translates until one of both ends.
pub(super) async fn translate(
    tasks: &Tasks,
    request: &mut Request<Incoming>,
    target: Target<'_>,
    spoken: Spoken,
) -> Result<Response<Body>, String> {
    let (own, theirs) = match spoken {
        Spoken::Channels(_) => (websocket::V5, remote_command::SPDY_PROTOCOLS[0]),
        _ => (websocket::PORT_FORWARD_TUNNEL, port_forward::PROTOCOL),
    };
    let (response, protocol) = upgrade::accept_websocket(request.headers(), &[own]).map_err(words)?;
    let asked = upgrade::spdy_request(target.authority, target.path.as_str(), &[theirs]);
    let asked = asked.map_err(|error| error.to_string())?;
    let (_, upstream) = upgrade::connect(target.stream, asked).await.map_err(words)?;
    let client = hyper::upgrade::on(request);
    let stop = tasks.token();
    tasks.plain("stream", async move {
        let translated = async {
            let client = TokioIo::new(client.await?);
            match spoken {
                Spoken::Channels(streams) => {
                    let client = websocket::server(client, protocol).await;
                    let session =
                        async { Ok(spdy::Session::client(upstream, remote_command::upstream_config())) };
                    remote_command::translate(client, session, streams).await?;
                }
                _ => port_forward::tunnel(client, upstream).await?,
            }
            anyhow::Ok(())
        };
        tokio::select! {
            done = translated => {
                if let Err(error) = done {
                    tracing::debug!(err = format!("{error:#}"), "A stream ended with an error");
                }
            }
            () = stop.cancelled() => {}
        }
        Ok(())
    });
    Ok(response.map(|body| body.map_err(|never| match never {}).boxed_unsync()))
}

fn words(error: upgrade::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use bytes::Bytes;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use streaming::spdy::{Config, Session};
    use streaming::websocket::Frame;
    use tokio::net::TcpListener;

    use super::*;

    const STREAMS: Streams = Streams { stdin: true, stdout: true, stderr: false, tty: false };
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn only_what_runtimes_do_not_know_is_translated() {
        let headers = |upgrade: &str, protocols: &str| -> HeaderMap {
            let all =
                [("connection", "Upgrade"), ("upgrade", upgrade), ("sec-websocket-protocol", protocols)];
            let parsed = all.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            parsed.into_iter().collect()
        };
        for (upgrade, protocols, command, ports) in [
            ("websocket", "v5.channel.k8s.io, v4.channel.k8s.io", Spoken::Channels(STREAMS), Spoken::Other),
            ("websocket", "v4.channel.k8s.io", Spoken::Other, Spoken::Other),
            ("websocket", "SPDY/3.1+portforward.k8s.io", Spoken::Other, Spoken::Tunnel),
            ("SPDY/3.1", "v5.channel.k8s.io", Spoken::Other, Spoken::Other),
        ] {
            let headers = headers(upgrade, protocols);
            let spoken = (Spoken::for_command(&headers, STREAMS), Spoken::for_ports(&headers));
            assert_eq!(spoken, (command, ports), "{upgrade} {protocols}");
        }
        assert_eq!(Spoken::Channels(STREAMS).subresource("/attach/n/p/c"), Some("attach"));
        assert_eq!(Spoken::Channels(STREAMS).subresource("/exec/n/p/c"), Some("exec"));
        assert_eq!(Spoken::Tunnel.subresource("/portForward/n/p"), Some("portforward"));
        assert_eq!(Spoken::Other.subresource("/exec/n/p/c"), None);
    }

    /// Upgrades the one connection that comes to SPDY and serves it.
    async fn runtime<F: Future<Output = ()> + Send + 'static>(
        tasks: &Tasks,
        protocol: &'static str,
        serve: fn(Session) -> F,
    ) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (of_streams, accepting) = (tasks.clone(), tasks.clone());
        accepting.plain("runtime", async move {
            let (stream, _) = listener.accept().await?;
            let service = service_fn(move |mut request: Request<Incoming>| {
                assert_eq!(request.uri().path(), "/exec/token");
                let (response, _) = upgrade::accept_spdy(request.headers(), &[protocol]).unwrap();
                let upgraded = hyper::upgrade::on(&mut request);
                of_streams.plain("served", async move {
                    serve(Session::server(TokioIo::new(upgraded.await?), Config::default())).await;
                    Ok(())
                });
                async move { Ok::<_, Infallible>(response) }
            });
            Ok(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await?)
        });
        address
    }

    /// A kubelet that hands the one caller that comes over to the runtime at an address.
    async fn kubelet(tasks: &Tasks, runtime: String, spoken: Spoken) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let of_requests = tasks.clone();
        tasks.plain("kubelet", async move {
            let (stream, _) = listener.accept().await?;
            let service = service_fn(move |mut request: Request<Incoming>| {
                let (tasks, runtime) = (of_requests.clone(), runtime.clone());
                async move {
                    let path = PathAndQuery::from_static("/exec/token");
                    let stream = TcpStream::connect(&runtime).await.unwrap();
                    let target = Target { stream, authority: &runtime, path: &path };
                    let answer = translate(&tasks, &mut request, target, spoken).await;
                    Ok::<_, Infallible>(answer.unwrap())
                }
            });
            Ok(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await?)
        });
        TcpStream::connect(address).await.unwrap()
    }

    async fn shout(session: Session) {
        let mut command = remote_command::serve_spdy(&session, STREAMS, PATIENCE).await.unwrap();
        let (mut stdin, mut stdout) = (command.stdin.take().unwrap(), command.stdout.take().unwrap());
        while let Some(chunk) = stdin.recv().await.unwrap() {
            stdout.send(chunk.to_ascii_uppercase().into()).await.unwrap();
        }
        stdout.finish().await.unwrap();
        command.error.send(Bytes::from_static(br#"{"status":"Success"}"#)).await.unwrap();
        command.error.finish().await.unwrap();
        session.shutdown().await;
    }

    #[tokio::test]
    async fn a_command_runs_over_a_websocket_of_version_five() {
        let tasks = Tasks::new();
        let runtime = runtime(&tasks, "v4.channel.k8s.io", shout).await;
        let io = kubelet(&tasks, runtime, Spoken::Channels(STREAMS)).await;
        let request = upgrade::websocket_request("node", "/exec/n/p/c", &[websocket::V5]).unwrap();
        let (response, io) = upgrade::connect(io, request).await.unwrap();
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], websocket::V5);
        let (mut reader, mut writer) = websocket::client(io, websocket::V5).await;
        writer.send(remote_command::STDIN, Bytes::from_static(b"hello")).await.unwrap();
        writer.close_channel(remote_command::STDIN).await.unwrap();
        let mut channels = vec![Vec::new(); 5];
        while let Some(Frame::Data { channel, data }) = reader.recv().await.unwrap() {
            channels[usize::from(channel)].extend_from_slice(&data);
        }
        assert_eq!(channels[1], b"HELLO");
        assert_eq!(channels[3], br#"{"status":"Success"}"#);
        tasks.cancel();
    }

    async fn echo(session: Session) {
        let mut connection = port_forward::Server::new(&session).accept().await.unwrap().unwrap();
        assert_eq!(connection.port, 80);
        let asked = connection.data.reader.recv().await.unwrap().unwrap();
        connection.data.writer.send(asked).await.unwrap();
        session.closed().await;
    }

    #[tokio::test]
    async fn ports_are_reached_through_a_tunnel() {
        let tasks = Tasks::new();
        let runtime = runtime(&tasks, port_forward::PROTOCOL, echo).await;
        let io = kubelet(&tasks, runtime, Spoken::Tunnel).await;
        let protocol = websocket::PORT_FORWARD_TUNNEL;
        let request = upgrade::websocket_request("node", "/portForward/n/p", &[protocol]).unwrap();
        let (_, io) = upgrade::connect(io, request).await.unwrap();
        let (plain, far) = tokio::io::duplex(64 << 10);
        tasks.plain("tunnel", async move { Ok(port_forward::tunnel_client(io, far).await?) });
        let session = Session::client(plain, Config::default());
        let (mut data, _error) = port_forward::Client::new(&session).connect(80).await.unwrap();
        data.writer.send(Bytes::from_static(b"ping")).await.unwrap();
        assert_eq!(data.reader.recv().await.unwrap().unwrap(), "ping");
        tasks.cancel();
    }
}
