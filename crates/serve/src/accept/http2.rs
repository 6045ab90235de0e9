//! HTTP/2 connections: what the streams of one have to send at the same time goes out together.
//!
//! Watches of one client share a connection, and many of them wait for the same change. The task of a connection
//! therefore polls the bodies of all its streams, gathers what they send, and writes once. Requests are answered in tasks
//! of their own.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
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

use super::gather::Gather;
use crate::body::BoxError;

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
    let gather = Gather::new(io);
    let service = service_fn(move |request| answer(service.clone(), request));
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(gather.clone()), service));
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
                break;
            }
            streams.extend(new);
        }
        match gather.poll_send(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e.into())),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Answers in a task that ends with the stream.
async fn answer<S, B>(mut service: S, request: Request<Incoming>) -> Result<Response<B>, BoxError>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = BoxError> + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    let mut task = JoinSet::new();
    task.spawn(async move {
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(request).await
    });
    match task.join_next().await {
        Some(answer) => answer?,
        None => Err("the request has no task".into()),
    }
}
