//! GET requests of probes and of lifecycle hooks.

use std::sync::{Arc, OnceLock};

use api::Value;
use bytes::Bytes;
use http::header::LOCATION;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::io::InspectReader;

use super::check::{MAX_BODY, Outcome, Target, bracketed, lower};
use super::redirect;

/// After so many redirects one gives up.
const MAX_REDIRECTS: usize = 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// What was asked over TLS answers without.
    #[error("http: server gave HTTP response to HTTPS client")]
    Plain,
    /// Anything else, in a sentence.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    fn other(error: impl ToString) -> Self {
        Self::Other(error.to_string())
    }
}

/// The URL of an HTTP action.
pub(super) fn url(get: &Value, target: &Target) -> Option<Uri> {
    let port = target.port(get.get("port"))?;
    let host = match get.str_at(&["host"]) {
        "" => target.ip.as_str(),
        host => host,
    };
    let scheme = if get.str_at(&["scheme"]).eq_ignore_ascii_case("https") { "https" } else { "http" };
    let authority = bracketed(host, port);
    let path = get.str_at(&["path"]);
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{authority}{slash}{path}").parse().ok()
}

/// Does a GET; any answer from 200 to 399 is a success. Redirects are followed on the same host; one that leads elsewhere
/// is a success with a warning.
pub(super) async fn probe(get: &Value, target: &Target) -> Outcome {
    let Some(first) = url(get, target) else {
        return Outcome::Unknown("the probe's URL or port is invalid".to_owned());
    };
    match follow(get, first, "kube-probe/1.36").await {
        Ok(Answer { code: 200..300, .. }) => Outcome::Success,
        Ok(Answer { code: 300..400, body, .. }) => {
            Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        Ok(Answer { code, .. }) => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
        Err((uri, why)) => Outcome::Failure(format!("Get \"{uri}\": {why}")),
    }
}

/// Does the GET of a lifecycle hook, for which any answer will do. Where HTTPS is asked for and HTTP is spoken, the latter is
/// tried too; then the result is the host that did so.
///
/// # Errors
/// A sentence that says why there was no answer.
pub(crate) async fn hook(get: &Value, target: &Target) -> Result<Option<String>, String> {
    let agent = "kube-lifecycle/1.36";
    let first = url(get, target).ok_or("the hook's URL or port is invalid")?;
    let failure = match follow(get, first, agent).await {
        Ok(_) => return Ok(None),
        Err(failure) => failure,
    };
    if matches!(failure, (_, Failure::Plain)) {
        let get = without_tls(get);
        if let Some(uri) = url(&get, target)
            && follow(&get, uri.clone(), agent).await.is_ok()
        {
            return Ok(uri.authority().map(ToString::to_string));
        }
    }
    let (uri, why) = failure;
    Err(format!("Get \"{uri}\": {why}"))
}

/// The same action over HTTP, where nobody's secrets belong.
fn without_tls(get: &Value) -> Value {
    let mut plain = get.clone();
    let headers = get.array_at(&["httpHeaders"]).iter();
    let harmless = headers.filter(|header| !header.str_at(&["name"]).eq_ignore_ascii_case("authorization"));
    plain.set(&["httpHeaders"], Value::Array(harmless.cloned().collect()));
    plain.set(&["scheme"], "HTTP");
    plain
}

/// The answer at the end of all redirects on the first host; or who failed to answer, and why.
async fn follow(get: &Value, first: Uri, agent: &str) -> Result<Answer, (Uri, Failure)> {
    let mut uri = first.clone();
    for _ in 0..MAX_REDIRECTS {
        let answer = match ask(get, &uri, agent).await {
            Ok(answer) => answer,
            Err(why) => return Err((uri, why)),
        };
        let location = match answer.code {
            301 | 302 | 303 | 307 | 308 => answer.location.as_deref(),
            _ => None,
        };
        match location.and_then(|location| redirect::resolve(&uri, location)) {
            Some(next) if next.host() == first.host() => uri = next,
            _ => return Ok(answer),
        }
    }
    Err((uri, Failure::Other(format!("stopped after {MAX_REDIRECTS} redirects"))))
}

async fn ask(get: &Value, uri: &Uri, agent: &str) -> Result<Answer, Failure> {
    let address = redirect::address(uri);
    let stream = TcpStream::connect(&address).await;
    let refused = |error| Failure::Other(format!("dial tcp {address}: connect: {}", lower(&error)));
    let stream = stream.map_err(refused)?;
    if uri.scheme_str() == Some("https") {
        exchange(tls(stream, uri.host().unwrap_or_default()).await?, get, uri, agent).await
    } else {
        exchange(stream, get, uri, agent).await
    }
}

async fn tls(
    stream: TcpStream,
    host: &str,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, Failure> {
    // A probe asks whether something is alive, not who it is.
    let options = serve::outbound::Options { insecure: true, ..Default::default() };
    let config = serve::outbound::tls_config(&options).map_err(Failure::other)?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(Failure::other)?;
    let plain = Arc::new(OnceLock::new());
    let seen = plain.clone();
    let stream = InspectReader::new(stream, move |bytes| {
        seen.get_or_init(|| bytes.starts_with(b"HTTP/"));
    });
    let connected = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connected.map_err(|error| match plain.get() {
        Some(true) => Failure::Plain,
        _ => Failure::other(error),
    })
}

/// An answer, as far as it matters.
struct Answer {
    code: u16,
    location: Option<String>,
    body: String,
}

/// Sends the request and reads the answer.
async fn exchange<S>(stream: S, get: &Value, uri: &Uri, agent: &str) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Failure::other)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().uri(path);
    let mut named = Vec::new();
    for header in get.array_at(&["httpHeaders"]) {
        let (name, value) = (header.str_at(&["name"]).to_ascii_lowercase(), header.str_at(&["value"]));
        // Whoever says that nothing is accepted wants nothing to be said of that.
        if name != "accept" || !value.is_empty() {
            request = request.header(&name, value);
        }
        named.push(name);
    }
    let host = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    for (name, value) in [("host", host), ("user-agent", agent), ("accept", "*/*"), ("connection", "close")] {
        if !named.iter().any(|given| given == name) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(Failure::other)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(Failure::other)?;
        let code = answer.status().as_u16();
        let location =
            answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (mut content, mut body) = (Vec::new(), answer.into_body());
        // What comes beyond the limit is nobody's business.
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(Failure::other)?;
            content.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            if content.len() >= MAX_BODY {
                content.truncate(MAX_BODY);
                break;
            }
        }
        Ok(Answer { code, location, body: String::from_utf8_lossy(&content).into_owned() })
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => {
            ended.map_err(Failure::other)?;
            answer.await
        }
    }
}

#[cfg(test)]
mod tests {
    use api::object;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What becomes of `ask` at a server without TLS that answers everything alike, and what the server read last.
    async fn against<T>(answer: &str, ask: impl AsyncFnOnce(Value, Target) -> T) -> (T, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let get = object!({
            "port": (listener.local_addr().unwrap().port()),
            "scheme": "HTTPS",
            "path": "/x",
            "httpHeaders": [{"name": "Authorization", "value": "secret"}, {"name": "X-Other", "value": "y"}],
        });
        let (pod, ip) = (Arc::default(), "127.0.0.1".to_owned());
        let target = Target { pod, container: Value::Null, id: String::new(), ip, started: 0 };
        let mut read = Vec::new();
        let serve = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                read.resize(4096, 0);
                let length = stream.read(&mut read).await.unwrap();
                read.truncate(length);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let result = tokio::select! {
            result = ask(get, target) => result,
            () = serve => unreachable!("it serves for ever"),
        };
        (result, String::from_utf8_lossy(&read).into_owned())
    }

    #[tokio::test]
    async fn hooks_fall_back_to_http_without_secrets() {
        for (answer, host) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
            ("HTTP/1.0 500 Internal Server Error\r\n\r\n", true),
            ("SSH-2.0-OpenSSH_9.2p1\r\n", false),
        ] {
            let (outcome, read) = against(answer, async |get, target| hook(&get, &target).await).await;
            assert_eq!(outcome.is_ok_and(|host| host.is_some()), host, "{answer}");
            assert_eq!(read.starts_with("GET /x HTTP/1.1\r\n"), host, "{read}");
            assert_eq!(read.to_lowercase().contains("x-other: y"), host, "{read}");
            assert!(!read.contains("secret"), "{read}");
        }
    }

    #[tokio::test]
    async fn given_headers_replace_those_that_are_always_sent() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        for (name, value, expected) in [
            ("X-Other", "y", ["accept: */*", "user-agent: kube-probe/1.36"]),
            ("Accept", "text/html", ["accept: text/html", "user-agent: kube-probe/1.36"]),
            ("Accept", "", ["host: 127.0.0.1", "user-agent: kube-probe/1.36"]),
            ("User-Agent", "me", ["accept: */*", "user-agent: me"]),
        ] {
            let (outcome, read) = against(answer, async |mut get, target| {
                get.set(&["scheme"], "HTTP");
                get.set(&["httpHeaders"], object!([{"name": name, "value": value}]));
                probe(&get, &target).await
            })
            .await;
            assert_eq!(outcome, Outcome::Success);
            for header in expected {
                assert!(read.contains(header), "{name}: {value}: {read}");
            }
            assert_eq!(read.contains("accept:"), name != "Accept" || !value.is_empty(), "{read}");
        }
    }

    #[tokio::test]
    async fn probes_do_not_fall_back() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let (outcome, _) = against(answer, async |get, target| probe(&get, &target).await).await;
        let Outcome::Failure(why) = outcome else { panic!("{outcome:?}") };
        assert!(why.ends_with(": http: server gave HTTP response to HTTPS client"), "{why}");
    }
}
