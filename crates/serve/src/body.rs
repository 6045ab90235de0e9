//! Response bodies.

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};

/// Any error a body or a handler may end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every response we make (and of every request we send).
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body sent piece by piece as the stream yields.
pub fn stream<S, E>(pieces: S) -> Body
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    BodyExt::boxed_unsync(StreamBody::new(pieces.map_ok(Frame::data).map_err(Into::into)))
}

fn typed(code: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A plain text answer.
pub fn text(code: StatusCode, content: impl Into<Bytes>) -> Response<Body> {
    typed(code, "text/plain; charset=utf-8", full(content))
}

/// A JSON answer of a document already encoded.
pub fn json(code: StatusCode, document: impl Into<Bytes>) -> Response<Body> {
    typed(code, "application/json", full(document))
}
