//! Connections whose clients are told to connect anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serve::{RemoteAddr, Server, Tls, outbound};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

/// The ports from which a client sends two requests, one after the other.
async fn ports(goaway: f64) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Tls::self_signed("t", &["localhost".to_owned()], None).unwrap();
    let mut server = Server::https(Arc::new(tls));
    server.goaway = goaway;
    let service = service_fn(|request: Request<Incoming>| async move {
        let RemoteAddr(from) = request.extensions().get::<RemoteAddr>().copied().unwrap();
        Ok::<_, Infallible>(Response::new(serve::full(from.port().to_string())))
    });
    let stop = CancellationToken::new();
    let serving = server.serve(listener, service, stop.clone());
    let asking = async {
        let client = outbound::client(&outbound::Options { insecure: true, ..Default::default() }).unwrap();
        let mut ports = Vec::new();
        for _ in 0..2 {
            let request = Request::get(format!("https://{address}/")).body(serve::empty()).unwrap();
            let answer = client.request(request).await.unwrap();
            assert_eq!(answer.version(), http::Version::HTTP_2);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            ports.push(String::from_utf8(body.to_vec()).unwrap());
        }
        stop.cancel();
        ports
    };
    let (mut ports, ()) = tokio::join!(asking, serving);
    (ports.remove(0), ports.remove(0))
}

#[tokio::test]
async fn clients_are_told_to_connect_anew_by_chance() {
    let (one, two) = ports(0.0).await;
    assert_eq!(one, two);
    let (one, two) = ports(1.0).await;
    assert_ne!(one, two);
}
