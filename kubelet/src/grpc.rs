//! gRPC over unix sockets of this machine: calls to plug-ins, and services that plug-ins and others call.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

/// The largest message that is taken from a plug-in.
const MAX_MESSAGE: usize = 4 << 20;
/// The most connections that a service holds at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// A failed call, in the words of upstream's gRPC library, as they show in events.
#[derive(Debug, thiserror::Error)]
#[error("rpc error: code = {} desc = {message}", name(*code))]
pub(crate) struct Error {
    /// The gRPC code.
    pub code: Code,
    /// What the other side says.
    pub message: String,
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self { code: status.code(), message: status.message().to_owned() }
    }
}

/// What upstream's gRPC library calls a code.
pub(crate) fn name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The result of a call.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A connection that is made with the first call, and again whenever it broke.
pub(crate) fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    // The URI only fills the request's authority; the connector goes to the socket.
    let connector = service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

/// Connects to a plug-in without asking for anything; what is returned ends when the plug-in breaks the connection off.
pub(crate) async fn connection(socket: &Path) -> std::io::Result<impl Future<Output = ()> + Send + use<>> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
    let (requests, connection) = handshake.map_err(std::io::Error::other)?;
    let requests: hyper::client::conn::http2::SendRequest<Empty<Bytes>> = requests;
    Ok(async move {
        // How it ends is of no interest.
        let _ = connection.await;
        drop(requests);
    })
}

/// A plug-in's socket; clones share the connection.
#[derive(Clone, Debug)]
pub(crate) struct Plugin {
    channel: Channel,
}

impl Plugin {
    /// Nothing is sent yet.
    pub(crate) fn new(socket: &Path) -> Self {
        Self { channel: channel(socket) }
    }

    async fn ready(&self) -> Result<Grpc<Channel>> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let unavailable = |error: tonic::transport::Error| Error {
            code: Code::Unavailable,
            message: std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string),
        };
        grpc.ready().await.map_err(unavailable)?;
        Ok(grpc)
    }

    /// Calls a method, `/package.Service/Method`, and waits for its answer.
    pub(crate) async fn call<Q, A>(&self, method: &'static str, question: Q, limit: Duration) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let answer = async {
            let mut grpc = self.ready().await?;
            let path = PathAndQuery::from_static(method);
            let mut request = Request::new(question);
            request.set_timeout(limit);
            let answer = grpc.unary(request, path, ProstCodec::<Q, A>::default()).await;
            answer.map(Response::into_inner).map_err(Error::from)
        };
        let late = || Error { code: Code::DeadlineExceeded, message: "context deadline exceeded".to_owned() };
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(late()))
    }

    /// Calls a method that answers again and again.
    pub(crate) async fn stream<Q, A>(&self, method: &'static str, question: Q) -> Result<Streaming<A>>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::from_static(method);
        let codec = ProstCodec::<Q, A>::default();
        let answers = self.ready().await?.server_streaming(Request::new(question), path, codec).await?;
        Ok(answers.into_inner())
    }
}

/// What is sent back.
pub(crate) type Answer = http::Response<tonic::body::Body>;

/// What others may call.
#[async_trait]
pub(crate) trait Service: Send + Sync + 'static {
    /// Answers a call of `/package.Service/Method`; with [`unimplemented()`] where there is no such thing.
    async fn answer(&self, method: &str, request: http::Request<Incoming>) -> Answer;
}

/// Answers a call with one message.
pub(crate) async fn unary<Q, A, F>(
    request: http::Request<Incoming>,
    answer: impl FnOnce(Q) -> F + Send,
) -> Answer
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    F: Future<Output = std::result::Result<A, Status>> + Send,
{
    let mut answer = Some(answer);
    let service = service_fn(move |question: Request<Q>| {
        let answer = answer.take().map(|answer| answer(question.into_inner()));
        async move {
            match answer {
                Some(answer) => answer.await.map(Response::new),
                None => Err(Status::internal("asked twice")),
            }
        }
    });
    tonic::server::Grpc::new(ProstCodec::<A, Q>::default())
        .apply_max_message_size_config(Some(MAX_MESSAGE), None)
        .unary(service, request)
        .await
}

/// The answer to a call of what there is not.
pub(crate) fn unimplemented(method: &str) -> Answer {
    Status::unimplemented(format!("unknown method {method}")).into_http()
}

/// Listens at a path that may hold what an earlier process left.
pub(crate) fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

/// Answers calls until `stop`, then drops what is under way.
pub(crate) async fn serve(listener: UnixListener, service: Arc<dyn Service>, stop: CancellationToken) {
    let (connections, places) = (TaskTracker::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let place = tokio::select! {
            Ok(place) = places.clone().acquire_owned() => place,
            () = stop.cancelled() => return,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(err = %error, "Cannot accept a connection");
                    // Descriptors may be used up for a moment.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stop.cancelled() => return,
        };
        let (service, stop) = (service.clone(), stop.clone());
        connections.spawn(async move {
            let answer = hyper::service::service_fn(move |request: http::Request<Incoming>| {
                let service = service.clone();
                async move {
                    let method = request.uri().path().to_owned();
                    Ok::<_, std::convert::Infallible>(service.answer(&method, request).await)
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::select! {
                // Whoever breaks off has been answered as well as could be.
                _ = server.serve_connection(TokioIo::new(stream), answer) => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}
