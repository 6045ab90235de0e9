//! `exec`, `attach` and `port-forward`: the runtime serves the streams, the kubelet connects the caller with it, and
//! translates what runtimes do not know.

mod websockets;

use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use k8s_cri::v1 as cri;
use serve::Body;
use streaming::remote_command::Streams;
use streaming::upgrade;
use tokio::net::TcpStream;

use super::{pairs, pods};
use crate::Kubelet;
use crate::cri::Result;
use crate::pods::observed::Observed;
use websockets::{Spoken, Target};

/// The id of a running container.
async fn container(
    kubelet: &Kubelet,
    namespace: &str,
    pod: &str,
    name: &str,
) -> std::result::Result<String, Response<Body>> {
    let Some((found, _)) = pods::find(kubelet, namespace, pod) else {
        return Err(serve::text(StatusCode::NOT_FOUND, "pod does not exist"));
    };
    let observed = Observed::of_pod(&kubelet.runtime, found.uid()).await.map_err(failed)?;
    let running = observed.running().find(|container| container.name == name);
    running
        .map(|container| container.id.clone())
        .ok_or_else(|| serve::text(StatusCode::NOT_FOUND, format!("container not found ({name:?})")))
}

fn failed(error: crate::cri::Error) -> Response<Body> {
    serve::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn command(query: Option<&str>, field: &str) -> Vec<String> {
    pairs(query).into_iter().filter(|(key, _)| key == field).map(|(_, value)| value).collect()
}

/// `/exec/{namespace}/{pod}/{container}`.
pub(super) async fn exec(
    kubelet: &Kubelet,
    request: Request<Incoming>,
    (namespace, pod, name): (&str, &str, &str),
) -> Response<Body> {
    let id = match container(kubelet, namespace, pod, name).await {
        Ok(id) => id,
        Err(response) => return response,
    };
    let query = request.uri().query();
    let streams = Streams::from_query(query.unwrap_or_default());
    let url = kubelet
        .runtime
        .exec(cri::ExecRequest {
            container_id: id,
            cmd: command(query, "command"),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        })
        .await;
    let spoken = Spoken::for_command(request.headers(), streams);
    hand_over(kubelet, request, (url, spoken)).await
}

/// `/attach/{namespace}/{pod}/{container}`.
pub(super) async fn attach(
    kubelet: &Kubelet,
    request: Request<Incoming>,
    (namespace, pod, name): (&str, &str, &str),
) -> Response<Body> {
    let id = match container(kubelet, namespace, pod, name).await {
        Ok(id) => id,
        Err(response) => return response,
    };
    let streams = Streams::from_query(request.uri().query().unwrap_or_default());
    let url = kubelet
        .runtime
        .attach(cri::AttachRequest {
            container_id: id,
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        })
        .await;
    let spoken = Spoken::for_command(request.headers(), streams);
    hand_over(kubelet, request, (url, spoken)).await
}

/// `/portForward/{namespace}/{pod}`.
pub(super) async fn port_forward(
    kubelet: &Kubelet,
    request: Request<Incoming>,
    (namespace, pod): (&str, &str),
) -> Response<Body> {
    let spoken = Spoken::for_ports(request.headers());
    let ports = match upgrade::requested(request.headers()) {
        upgrade::Kind::WebSocket if spoken == Spoken::Other => ports(request.uri().query()),
        // Every stream of SPDY names the port it is for.
        _ => Ok(Vec::new()),
    };
    let ports = match ports {
        Ok(ports) => ports,
        Err(why) => return serve::text(StatusCode::BAD_REQUEST, why),
    };
    let Some((found, _)) = pods::find(kubelet, namespace, pod) else {
        return serve::text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    let observed = match Observed::of_pod(&kubelet.runtime, found.uid()).await {
        Ok(observed) => observed,
        Err(error) => return failed(error),
    };
    let Some(sandbox) = observed.sandboxes.iter().find(|sandbox| sandbox.ready) else {
        return serve::text(StatusCode::NOT_FOUND, "the pod has no running sandbox");
    };
    let url = kubelet.runtime.port_forward(&sandbox.id, ports).await;
    hand_over(kubelet, request, (url, spoken)).await
}

/// The ports that the channels of a WebSocket are for: in several parameters, or several in one.
fn ports(query: Option<&str>) -> std::result::Result<Vec<i32>, String> {
    let asked = command(query, "port");
    if asked.is_empty() {
        return Err(r#"query parameter "port" is required"#.to_owned());
    }
    let mut ports = Vec::with_capacity(asked.len());
    for text in &asked {
        if text.is_empty() {
            return Err(r#"query parameter "port" cannot be empty"#.to_owned());
        }
        for one in text.split(',') {
            match one.parse::<u16>() {
                Ok(0) => return Err(format!("port {text:?} must be > 0")),
                Ok(port) => ports.push(port.into()),
                Err(why) => return Err(format!("unable to parse {text:?} as a port: {why}")),
            }
        }
    }
    Ok(ports)
}

/// Connects the caller with the runtime's streaming server.
async fn hand_over(
    kubelet: &Kubelet,
    mut request: Request<Incoming>,
    (url, spoken): (Result<String>, Spoken),
) -> Response<Body> {
    let url = match url {
        Ok(url) => url,
        Err(error) => return failed(error),
    };
    let parsed = url.parse::<Uri>().ok();
    let target =
        parsed.as_ref().and_then(|uri| Some((uri.authority()?.to_string(), uri.path_and_query()?.clone())));
    let Some((authority, path)) = target else {
        return serve::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the runtime's URL {url:?} is invalid"),
        );
    };
    request.headers_mut().remove(http::header::AUTHORIZATION);
    match relay(kubelet, &mut request, (&authority, &path), spoken).await {
        Ok(response) => response,
        Err(why) => serve::text(StatusCode::INTERNAL_SERVER_ERROR, why),
    }
}

async fn relay(
    kubelet: &Kubelet,
    request: &mut Request<Incoming>,
    (authority, path): (&str, &PathAndQuery),
    spoken: Spoken,
) -> std::result::Result<Response<Body>, String> {
    let stream = TcpStream::connect(authority).await;
    let stream = stream.map_err(|error| format!("cannot reach the runtime's streaming server: {error}"))?;
    // Small pieces of a terminal session must not wait for each other.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    if let Some(subresource) = spoken.subresource(request.uri().path()) {
        kubelet.metrics.outcomes.websockets.with_label_values(&[subresource]).inc();
        return websockets::translate(&kubelet.tasks, request, Target { stream, authority, path }, spoken)
            .await;
    }
    let done =
        upgrade::passthrough(request, stream, authority, path).await.map_err(|error| error.to_string())?;
    if let Some(relay) = done.relay {
        let stop = kubelet.tasks.token();
        kubelet.tasks.plain("stream", async move {
            tokio::select! {
                result = relay.run() => {
                    if let Err(error) = result {
                        tracing::debug!(err = %error, "A stream ended with an error");
                    }
                }
                () = stop.cancelled() => {}
            }
            Ok(())
        });
    }
    let (parts, body) = done.response.into_parts();
    let body = http_body_util::BodyExt::collect(body).await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::from_parts(parts, serve::full(body)))
}

/// `/run/{namespace}/{pod}/{container}?cmd=…`: a command and its output.
pub(super) async fn run(
    kubelet: &Kubelet,
    query: Option<&str>,
    (namespace, pod, name): (&str, &str, &str),
) -> Response<Body> {
    let id = match container(kubelet, namespace, pod, name).await {
        Ok(id) => id,
        Err(response) => return response,
    };
    let line = command(query, "cmd").join(" ");
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    match kubelet.runtime.exec_sync(&id, &words, std::time::Duration::ZERO).await {
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            serve::text(StatusCode::OK, output)
        }
        Err(error) => failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::ports;

    #[test]
    fn a_websocket_names_its_ports_in_one_parameter_or_in_several() {
        let check = |query: &str, want: std::result::Result<&[i32], &str>| {
            let got = ports(Some(query));
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{query}");
        };
        check("port=80", Ok(&[80]));
        check("port=1234,1235&port=1236&other=1", Ok(&[1234, 1235, 1236]));
        check("port=1234%2C1235", Ok(&[1234, 1235]));
        check("other=1", Err(r#"query parameter "port" is required"#));
        check("port=", Err(r#"query parameter "port" cannot be empty"#));
        check("port=0", Err(r#"port "0" must be > 0"#));
        check("port=80,x", Err(r#"unable to parse "80,x" as a port: invalid digit found in string"#));
    }
}
