//! A server that answers one document with another.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use super::*;

/// A server that answers documents with what `answer` makes of the path and the document; a text is sent as it is.
pub(super) fn serve(pki: &Pki, answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> u16 {
    let tls = Arc::new(serve::Tls::from_files(&pki.file("server.crt"), &pki.file("server.key")).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let answer = answer.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let document = api::json::decode(&body).map(|d| d.value).unwrap_or_default();
                    let answer = answer(&path, &document);
                    let answer =
                        answer.as_str().map_or_else(|| answer.to_json(), |text| text.as_bytes().to_vec());
                    Ok::<_, Infallible>(http::Response::new(serve::full(bytes::Bytes::from(answer))))
                }
            });
            serve::Server::https(tls).serve(listener, service, CancellationToken::new()).await;
        });
    });
    port
}
