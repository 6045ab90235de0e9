//! One attempt of a probe.

use std::sync::Arc;
use std::time::Duration;

use api::Value;
use bytes::Bytes;
use http::header::LOCATION;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::redirect;
use crate::cri::Runtime;

/// How much of an answer is looked at.
const MAX_BODY: usize = 10 << 10;

/// After so many redirects a probe gives up.
const MAX_REDIRECTS: usize = 10;

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Healthy.
    Success,
    /// Healthy, but with something that somebody should know.
    Warning(String),
    /// Not healthy, and why.
    Failure(String),
    /// It could not be found out.
    Unknown(String),
}

/// The container that is probed.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Its pod.
    pub pod: Arc<Value>,
    /// Its definition.
    pub container: Value,
    /// The runtime's id.
    pub id: String,
    /// The pod's address.
    pub ip: String,
    /// When it was started, in nanoseconds since the epoch.
    pub started: i64,
}

impl Target {
    /// A port by number or by the name that the container gives it.
    fn port(&self, port: &Value) -> Option<u16> {
        if let Some(number) = port.as_i64() {
            return u16::try_from(number).ok();
        }
        let name = port.as_str()?;
        let ports = self.container.array_at(&["ports"]).iter();
        let named = ports
            .filter(|port| port.str_at(&["name"]) == name)
            .find_map(|port| port.get("containerPort").as_i64());
        named.or_else(|| name.parse().ok()).and_then(|number| u16::try_from(number).ok())
    }
}

/// Runs a probe once.
pub(super) async fn run(probe: &Value, target: &Target, runtime: &Runtime, timeout: Duration) -> Outcome {
    if !probe.get("exec").is_null() {
        return exec(probe.get("exec"), target, runtime, timeout).await;
    }
    let network = async {
        if !probe.get("httpGet").is_null() {
            http_get(probe.get("httpGet"), target, "kube-probe/1.36").await
        } else if !probe.get("tcpSocket").is_null() {
            tcp(probe.get("tcpSocket"), target).await
        } else if !probe.get("grpc").is_null() {
            grpc(probe.get("grpc"), target).await
        } else {
            Outcome::Unknown("the probe has no action".to_owned())
        }
    };
    match tokio::time::timeout(timeout, network).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failure(late(probe, target)),
    }
}

fn late(probe: &Value, target: &Target) -> String {
    match (probe.get("httpGet"), probe.get("grpc")) {
        (Value::Null, Value::Null) => {
            let port = target.port(probe.at(&["tcpSocket", "port"])).unwrap_or_default();
            format!("dial tcp {}: i/o timeout", bracketed(&target.ip, port))
        }
        (Value::Null, _) => "timeout: health rpc did not complete within the time limit".to_owned(),
        (get, _) => format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            url(get, target).map(|(uri, _)| uri.to_string()).unwrap_or_default()
        ),
    }
}

async fn exec(action: &Value, target: &Target, runtime: &Runtime, timeout: Duration) -> Outcome {
    let words = action.array_at(&["command"]).iter().filter_map(Value::as_str).map(str::to_owned);
    let words: Vec<String> = words.collect();
    match runtime.exec_sync(&target.id, &words, timeout).await {
        Ok(answer) if answer.exit_code == 0 => Outcome::Success,
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            output.truncate(MAX_BODY);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) if error.code == tonic::Code::DeadlineExceeded => Outcome::Failure(format!(
            "command timed out: {:?} timed out after {}s",
            words.join(" "),
            timeout.as_secs()
        )),
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}

fn bracketed(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The URL of an HTTP action, and the address behind it.
fn url(get: &Value, target: &Target) -> Option<(Uri, String)> {
    let port = target.port(get.get("port"))?;
    let host = match get.str_at(&["host"]) {
        "" => target.ip.as_str(),
        host => host,
    };
    let scheme = if get.str_at(&["scheme"]).eq_ignore_ascii_case("https") { "https" } else { "http" };
    let authority = bracketed(host, port);
    let path = get.str_at(&["path"]);
    let slash = if path.starts_with('/') { "" } else { "/" };
    let uri = format!("{scheme}://{authority}{slash}{path}").parse().ok()?;
    Some((uri, authority))
}

/// Does a GET; any answer from 200 to 399 is a success. Redirects are followed on the same host; one that leads elsewhere
/// is a success with a warning.
pub(crate) async fn http_get(get: &Value, target: &Target, agent: &str) -> Outcome {
    let Some((first, _)) = url(get, target) else {
        return Outcome::Unknown("the probe's URL or port is invalid".to_owned());
    };
    let mut uri = first.clone();
    for _ in 0..MAX_REDIRECTS {
        let answer = match ask(get, &uri, agent).await {
            Ok(answer) => answer,
            Err(why) => return Outcome::Failure(format!("Get \"{uri}\": {why}")),
        };
        match answer.code {
            200..300 => return Outcome::Success,
            300..400 => {}
            code => return Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
        }
        let follows = matches!(answer.code, 301 | 302 | 303 | 307 | 308);
        let next =
            answer.location.filter(|_| follows).and_then(|location| redirect::resolve(&uri, &location));
        match next {
            Some(next) if next.host() == first.host() => uri = next,
            _ => {
                let body = answer.body;
                return Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"));
            }
        }
    }
    Outcome::Failure(format!("Get \"{uri}\": stopped after {MAX_REDIRECTS} redirects"))
}

async fn ask(get: &Value, uri: &Uri, agent: &str) -> Result<Answer, String> {
    let address = redirect::address(uri);
    let stream = TcpStream::connect(&address).await;
    let stream = stream.map_err(|error| format!("dial tcp {address}: connect: {}", lower(&error)))?;
    if uri.scheme_str() == Some("https") {
        exchange(tls(stream, uri.host().unwrap_or_default()).await?, get, uri, agent).await
    } else {
        exchange(stream, get, uri, agent).await
    }
}

fn lower(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        _ => error.to_string(),
    }
}

async fn tls(
    stream: TcpStream,
    host: &str,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, String> {
    // A probe asks whether something is alive, not who it is.
    let options = serve::outbound::Options { insecure: true, ..Default::default() };
    let config = serve::outbound::tls_config(&options).map_err(|error| error.to_string())?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(|error| error.to_string())
}

/// An answer, as far as it matters.
struct Answer {
    code: u16,
    location: Option<String>,
    body: String,
}

/// Sends the request and reads the answer.
async fn exchange<S>(stream: S, get: &Value, uri: &Uri, agent: &str) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().uri(path);
    let mut named = Vec::new();
    for header in get.array_at(&["httpHeaders"]) {
        let name = header.str_at(&["name"]);
        named.push(name.to_ascii_lowercase());
        request = request.header(name, header.str_at(&["value"]));
    }
    let host = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    for (name, value) in [("host", host), ("user-agent", agent), ("accept", "*/*"), ("connection", "close")] {
        if !named.iter().any(|given| given == name) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = answer.status().as_u16();
        let location =
            answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (mut content, mut body) = (Vec::new(), answer.into_body());
        // What comes beyond the limit is nobody's business.
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| error.to_string())?;
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
            ended.map_err(|error| error.to_string())?;
            answer.await
        }
    }
}

async fn tcp(action: &Value, target: &Target) -> Outcome {
    let Some(port) = target.port(action.get("port")) else {
        return Outcome::Unknown("the probe's port is invalid".to_owned());
    };
    let host = match action.str_at(&["host"]) {
        "" => target.ip.as_str(),
        host => host,
    };
    let address = bracketed(host, port);
    match TcpStream::connect(&address).await {
        Ok(_) => Outcome::Success,
        Err(error) => Outcome::Failure(format!("dial tcp {address}: connect: {}", lower(&error))),
    }
}

/// `grpc.health.v1.Health/Check`, by hand: the messages have one field each.
async fn grpc(action: &Value, target: &Target) -> Outcome {
    use tonic::codegen::http::uri::PathAndQuery;
    let Some(port) = target.port(action.get("port")) else {
        return Outcome::Unknown("the probe's port is invalid".to_owned());
    };
    let address = bracketed(&target.ip, port);
    let Ok(endpoint) = tonic::transport::Endpoint::from_shared(format!("http://{address}")) else {
        return Outcome::Unknown("the probe's address is invalid".to_owned());
    };
    let Ok(channel) = endpoint.connect().await else {
        return Outcome::Failure(format!(
            "timeout: failed to connect service {address:?} within the time limit"
        ));
    };
    let mut client = tonic::client::Grpc::new(channel);
    if let Err(error) = client.ready().await {
        return Outcome::Failure(error.to_string());
    }
    let request = HealthCheckRequest { service: action.str_at(&["service"]).to_owned() };
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    match client.unary(tonic::Request::new(request), path, codec).await {
        Ok(answer) if answer.get_ref().status == 1 => Outcome::Success,
        Ok(_) => Outcome::Failure("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
        Err(status) => Outcome::Failure(format!("error: health rpc failed: {status}")),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}
