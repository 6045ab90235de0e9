//! A server on a real port, with clients that come over TLS.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use serve::authn::{CertificateAuthenticator, Union};
use serve::outbound::{self, Options};
use serve::x509::ClientCa;
use serve::{Body, Diagnostics, Health, PeerCertificates, Server, Tls, empty, text};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Tells the caller who they are by their certificate.
async fn who(ca: Arc<ClientCa>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let PeerCertificates(chain) = request.extensions().get().expect("the server inserts it");
    let answer = match ca.verify(chain) {
        Ok(subject) => format!("{} {:?} {:?}", subject.common_name, subject.organizations, request.version()),
        Err(e) => e.to_string(),
    };
    Ok(text(StatusCode::OK, answer))
}

struct Authority {
    cert: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        Self::named("authority")
    }

    fn named(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { cert: params.self_signed(&key).unwrap(), issuer: rcgen::Issuer::new(params, key) }
    }

    fn client(&self, name: &str, group: &str) -> (Vec<u8>, Vec<u8>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem().into_bytes(), key.serialize_pem().into_bytes())
    }
}

async fn get(options: &Options, url: &str) -> (StatusCode, String) {
    let client = outbound::client(options).unwrap();
    let request = Request::get(url).body(empty()).unwrap();
    let response = client.request(request).await.unwrap();
    let code = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn callers_are_known_by_their_certificates() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let tls = Tls::self_signed("test", &[], Some(dir.path())).unwrap();
    let ca = std::fs::read(dir.path().join("test.crt")).unwrap();
    let clients = Arc::new(ClientCa::from_pem(ours.cert.pem().as_bytes()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let stop = CancellationToken::new();
    let service = tower::service_fn(move |r| who(Arc::clone(&clients), r));
    let server = Server::https(Arc::new(tls)).serve(listener, service, stop.clone());

    let asking = async {
        let with = |identity, http1_only| Options {
            ca: Some(ca.clone()),
            identity,
            http1_only,
            ..Options::default()
        };
        let known = Some(ours.client("jane", "dev"));
        assert_eq!(get(&with(known.clone(), false), &url).await.1, "jane [\"dev\"] HTTP/2.0");
        assert_eq!(get(&with(known, true), &url).await.1, "jane [\"dev\"] HTTP/1.1");
        let stranger = Some(theirs.client("eve", "system:masters"));
        assert!(get(&with(stranger, false), &url).await.1.starts_with("x509: "));
        assert_eq!(get(&with(None, false), &url).await.1, "x509: malformed certificate");
        stop.cancel();
    };
    tokio::join!(server, asking);
}

/// A client without certificates that notes whose it is asked for.
#[derive(Debug, Default)]
struct Asked(Mutex<Vec<Vec<u8>>>);

impl ResolvesClientCert for Asked {
    fn resolve(&self, authorities: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.0.lock().unwrap() = authorities.iter().map(|name| name.to_vec()).collect();
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Which authorities a server names in a handshake.
async fn named(tls: &Tls) -> Vec<Vec<u8>> {
    let asked = Arc::new(Asked::default());
    let options = Options { insecure: true, ..Options::default() };
    let mut config = outbound::tls_config(&options).unwrap();
    config.client_auth_cert_resolver = asked.clone();
    let (near, far) = tokio::io::duplex(1 << 16);
    let client = TlsConnector::from(Arc::new(config));
    let name = "localhost".try_into().unwrap();
    let (client, server) = tokio::join!(client.connect(name, near), tls.acceptor().accept(far));
    client.unwrap();
    server.unwrap();
    asked.0.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn clients_are_told_whose_certificates_count() {
    let (old, new) = (Authority::named("old"), Authority::named("new"));
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("ca.crt");
    std::fs::write(&bundle, old.cert.pem()).unwrap();
    let subject = |authority: &Authority| {
        let ca = ClientCa::from_pem(authority.cert.pem().as_bytes()).unwrap();
        vec![ca.names()[0].as_ref().to_vec()]
    };
    let tls = Tls::self_signed("test", &[], None).unwrap();
    assert!(named(&tls).await.is_empty());
    let clients = CertificateAuthenticator(ClientCa::from_file(&bundle).unwrap());
    let tls = tls.with_clients(Arc::new(Union(vec![Arc::new(clients)]))).unwrap();
    assert_eq!(named(&tls).await, subject(&old));

    let stop = CancellationToken::new();
    let asking = async {
        while named(&tls).await != subject(&new) {
            // Written again, for the clock of files is a coarse one.
            std::fs::write(&bundle, new.cert.pem()).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        stop.cancel();
    };
    tokio::join!(tls.watch(stop.clone()), asking);
}

#[tokio::test]
async fn diagnostics_answer_over_plain_http() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let diagnostics = Diagnostics {
        health: Health::new(),
        metrics: serve::metrics::registry("v1.36.2"),
        configz: None,
        guard: None,
    };
    let server = Server::http().serve(listener, diagnostics.service(), stop.clone());
    let asking = async {
        // Plain HTTP needs no authority, but the client refuses to be made without one.
        let options = Options { insecure: true, ..Options::default() };
        assert_eq!(get(&options, &format!("{base}/readyz")).await, (StatusCode::OK, "ok".to_owned()));
        assert!(get(&options, &format!("{base}/metrics")).await.1.contains("process_open_fds"));
        assert_eq!(get(&options, &format!("{base}/else")).await.0, StatusCode::NOT_FOUND);
        stop.cancel();
    };
    tokio::join!(server, asking);
}
