//! Answers that stream, for clients that ask for a WebSocket: the log of a container, the events of a watch.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>.

use api::error::Result;
use bytes::Bytes;
use futures::StreamExt;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, BodyStream};
use hyper_util::rt::TokioIo;
use serve::Body;
use streaming::one_way::{self, BINARY, BINARY_BASE64, Form};
use streaming::upgrade::{self, Kind};

use crate::http::Exchange;
use crate::proxy;

/// True when the client wants the answer in a WebSocket.
pub(crate) fn is_wanted(exchange: &Exchange) -> bool {
    upgrade::requested(exchange.headers()) == Kind::WebSocket
}

/// Sends the bytes of an answer as messages of the protocol that the client chooses.
pub(crate) fn bytes(exchange: Exchange, answer: Response<Body>) -> Result<Response<Body>> {
    messages(exchange, answer, &["", BINARY, BINARY_BASE64], Form::of, |piece| piece)
}

/// Sends a watch, whose body has one event in every piece: JSON as text, anything else as bytes. The protocol is what the
/// client calls it.
pub(crate) fn events(exchange: Exchange, answer: Response<Body>, json: bool) -> Result<Response<Body>> {
    /// Bytes before an event in other streams, which say how long it is.
    const LENGTH: usize = 4;
    let offered = exchange.headers().clone();
    let offered: Vec<&str> = upgrade::tokens(&offered, &SEC_WEBSOCKET_PROTOCOL).collect();
    match json {
        true => messages(exchange, answer, &offered, |_| Form::Text, |piece| piece),
        false => {
            let whole = |piece: Bytes| piece.slice(LENGTH.min(piece.len())..);
            messages(exchange, answer, &offered, |_| Form::Binary, whole)
        }
    }
}

fn messages(
    mut exchange: Exchange,
    answer: Response<Body>,
    protocols: &[&str],
    form: impl Fn(&str) -> Form,
    cut: impl Fn(Bytes) -> Bytes + Send + 'static,
) -> Result<Response<Body>> {
    if answer.status() != StatusCode::OK {
        return Ok(answer);
    }
    let mut request = proxy::inbound(&mut exchange);
    let (response, protocol) =
        upgrade::accept_websocket(request.headers(), protocols).map_err(|e| proxy::refused(&e))?;
    let form = form(protocol);
    let completion = exchange.completion.clone();
    exchange.server.kubelets.spawn(async move {
        let _held = completion;
        let Ok(client) = hyper::upgrade::on(&mut request).await else { return };
        let pieces = BodyStream::new(answer.into_body())
            .filter_map(|frame| std::future::ready(frame.map(|f| f.into_data().ok()).transpose()))
            .map(move |piece| piece.map(&cut));
        if let Err(e) = one_way::send(TokioIo::new(client), form, pieces).await {
            tracing::debug!(error = %e, "a stream broke");
        }
    });
    Ok(response.map(|b| b.map_err(|never| match never {}).boxed_unsync()))
}
