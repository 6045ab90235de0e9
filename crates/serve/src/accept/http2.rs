//! HTTP/2 connections: what the streams of one have to send at the same time goes out together.
//!
//! Watches of one client share a connection, and many of them wait for the same change. The task of a connection
//! therefore polls the bodies of all its streams, gathers what they send, and writes once. It answers a request that has no
//! other beside it, too: to hand it to another thread would cost more than most answers. The others are answered in tasks of
//! their own.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::body::BoxError;
use crate::gather::Gather;

/// The streams that a connection has begun and its task does not poll yet.
#[derive(Clone, Default)]
pub(super) struct Begun(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begun {
    fn execute(&self, stream: F) {
        self.0.lock().push(Box::pin(stream));
    }
}

/// Serves one connection until it ends, or until its streams have ended after a stop.
pub(super) async fn serve<S, B, I>(
    builder: impl FnOnce(Begun) -> Builder<Begun>,
    io: I,
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
    let begun = Begun::default();
    let builder = builder(begun.clone());
    let io = TokioIo::new(Gather::new(io));
    let asked = Arc::new(());
    let service = service_fn(move |request| answer(service.clone(), request, asked.clone()));
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
    let mut stopped = pin!(stop.cancelled());
    let mut stopping = false;
    let mut streams = FuturesUnordered::new();
    poll_fn(|cx| {
        if !stopping && stopped.as_mut().poll(cx).is_ready() {
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        loop {
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {}
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            let new = std::mem::take(&mut *begun.0.lock());
            if new.is_empty() {
                return Poll::Pending;
            }
            streams.extend(new);
        }
    })
    .await
}

/// Answers where it is asked, or in a task that ends with the stream. Each request that is being answered holds one of
/// `asked`, beside the connection.
async fn answer<S, B>(
    mut service: S,
    request: Request<Incoming>,
    asked: Arc<()>,
) -> Result<Response<B>, BoxError>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = BoxError> + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    let alone = Arc::strong_count(&asked) <= 2;
    let call = async move {
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(request).await
    };
    if alone {
        let answered = AssertUnwindSafe(call).catch_unwind().await;
        return answered.unwrap_or_else(|_| Err("the request had a panic".into()));
    }
    apart(call).await?
}

/// Does the work in a task of its own, which ends with whoever waits for it: what takes long keeps a connection from its
/// other streams.
///
/// # Errors
/// It panics.
pub async fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, BoxError> {
    let mut task = JoinSet::new();
    task.spawn(work);
    match task.join_next().await {
        Some(done) => Ok(done?),
        None => Err("the work has no task".into()),
    }
}
