//! One attempt of a probe.

use std::sync::Arc;
use std::time::Duration;

use api::Value;
use tokio::net::TcpStream;

use super::http;
use crate::cri::Runtime;

/// How much of an answer is looked at.
pub(super) const MAX_BODY: usize = 10 << 10;

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
    pub(super) fn port(&self, port: &Value) -> Option<u16> {
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
            http::probe(probe.get("httpGet"), target).await
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
            http::url(get, target).map(|uri| uri.to_string()).unwrap_or_default()
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

pub(super) fn bracketed(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub(super) fn lower(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        _ => error.to_string(),
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
