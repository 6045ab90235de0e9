//! The kubelet's own endpoints: HTTPS on :10250 for the API server and others it trusts, health on :10248 for this machine.

mod access;
mod cadvisor;
mod checkpoint;
mod logs;
mod metrics;
mod node_logs;
mod pods;
mod stats;
mod streams;
mod volumes;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use client::delegated::{AccessReviews, TokenReviews};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use prometheus::Registry;
use serve::authn::CertificateAuthenticator;
use serve::tls::Policy;
use serve::x509::ClientCa;
use serve::zpages::Pages;
use serve::{Authenticator, Authorizer, Body, Diagnostics, Guard, Health, Server, Tls};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

pub(crate) use stats::{Rates, node_usage};

use crate::Kubelet;
use crate::certificates::serving::{self, Current};
use crate::config::{API_VERSION, KIND, KubeletConfiguration};

/// What the endpoints answer from.
struct Endpoints {
    kubelet: Arc<Kubelet>,
    guard: Guard,
    health: Health,
    metrics: Registry,
    requests: metrics::Metrics,
    /// What came of the checks of health.
    slis: Registry,
    configz: Arc<str>,
    pages: Pages,
}

/// Binds both ports and serves until the process ends.
pub(crate) async fn start(kubelet: &Arc<Kubelet>) -> anyhow::Result<()> {
    let health = health(kubelet);
    let slis = Registry::new();
    health.measure(&slis)?;
    let metrics = serve::metrics::registry(daemon::KUBERNETES_VERSION);
    serve::metrics::register(&metrics, kubelet.devices.registrations.clone());
    serve::metrics::register(&metrics, kubelet.devices.durations.clone());
    kubelet.pod_resources.register(&metrics);
    kubelet.images.providers.metrics.register(&metrics);
    kubelet.managers.metrics.register(&metrics);
    kubelet.shutdown_metrics.register(&metrics);
    crate::claims::Registry::register_metrics(&kubelet.claims, &metrics);
    if let Some(address) = kubelet.config.healthz {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let service =
            Diagnostics { health: health.clone(), metrics: Registry::new(), configz: None, guard: None }
                .service();
        let stop = kubelet.tasks.token();
        kubelet.tasks.critical("healthz", async move {
            Server::http().serve(listener, service, stop).await;
            Ok(())
        });
    }
    let (serves, read_only) = (kubelet.config.file.enable_server, kubelet.config.file.read_only_port);
    if !serves && read_only == 0 {
        return Ok(());
    }
    let configz = configz(&kubelet.config.file)?.to_string();
    let guard = guard(kubelet)?;
    let endpoints = Arc::new(Endpoints {
        kubelet: kubelet.clone(),
        guard,
        health,
        metrics,
        requests: metrics::Metrics::new(),
        slis,
        configz: configz.into(),
        pages: pages(kubelet.started),
    });
    if read_only != 0 {
        start_read_only(kubelet, &endpoints, read_only).await?;
    }
    if serves { start_secure(kubelet, endpoints).await } else { Ok(()) }
}

/// Serves what may be read by everybody, without TLS.
async fn start_read_only(kubelet: &Kubelet, endpoints: &Arc<Endpoints>, port: u16) -> anyhow::Result<()> {
    let address = SocketAddr::new(kubelet.config.address.ip(), port);
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let endpoints = endpoints.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let endpoints = endpoints.clone();
        async move {
            let path = request.uri().path().to_owned();
            let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
            let answer = async {
                let answer = endpoints.reading(request.method(), request.uri(), &segments).await;
                answer.unwrap_or_else(not_found)
            };
            let asked = (request.method(), path.as_str());
            Ok::<_, Infallible>(endpoints.requests.watch("readonly", asked, answer).await)
        }
    });
    let stop = kubelet.tasks.token();
    kubelet.tasks.critical("read-only", async move {
        Server::http().serve(listener, service, stop).await;
        Ok(())
    });
    tracing::info!(%address, "Serving to read only");
    Ok(())
}

/// Serves everything to those who may ask for it.
async fn start_secure(kubelet: &Arc<Kubelet>, endpoints: Arc<Endpoints>) -> anyhow::Result<()> {
    let address = kubelet.config.address;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let bootstrap = kubelet.config.file.server_tls_bootstrap;
    let signed = if bootstrap { Some(serving::start(kubelet)?) } else { None };
    let own = if bootstrap { None } else { Some(tls(kubelet)?) };
    let (tasks, stop) = (kubelet.tasks.clone(), kubelet.tasks.token());
    let clients = endpoints.guard.authenticator.clone();
    let policy = kubelet.config.tls_policy.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let endpoints = endpoints.clone();
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let answer = endpoints.handle(request);
            Ok::<_, Infallible>(endpoints.requests.watch("readwrite", (&method, &path), answer).await)
        }
    });
    kubelet.tasks.critical("server", async move {
        let tls = match (own, signed) {
            (Some(tls), _) => tls,
            (None, Some(signed)) => match signed_tls(&listener, signed, &policy, &stop).await? {
                Some(tls) => tls,
                None => return Ok(()),
            },
            (None, None) => anyhow::bail!("there is no serving certificate"),
        };
        let tls = tls.with_clients(clients)?;
        let (watched, until) = (tls.clone(), stop.clone());
        tasks.plain("certificates", async move {
            watched.watch(until).await;
            Ok(())
        });
        Server::https(Arc::new(tls)).serve(listener, service, stop).await;
        Ok(())
    });
    tracing::info!(%address, "Serving");
    Ok(())
}

/// What can be read to find out more.
const PATHS: [&str; 9] =
    ["/configz", "/flagz", "/healthz", "/logs", "/metrics", "/pods", "/runningpods", "/stats", "/statusz"];

fn pages(started: jiff::Timestamp) -> Pages {
    Pages {
        component: "kubelet",
        version: daemon::KUBERNETES_VERSION,
        started,
        paths: PATHS.into(),
        flags: crate::args::shown(std::env::args().skip(1)),
    }
}

/// The configuration as it is shown: without what is empty.
fn configz(file: &KubeletConfiguration) -> anyhow::Result<serde_json::Value> {
    let mut shown = serde_json::to_value(file)?;
    drop_empty(&mut shown);
    if let Some(fields) = shown.as_object_mut() {
        // Empty maps are left out, a structure without anything in it is shown.
        fields.retain(|name, value| {
            name == "memorySwap" || value.as_object().is_none_or(|inner| !inner.is_empty())
        });
        fields.insert("kind".to_owned(), KIND.into());
        fields.insert("apiVersion".to_owned(), API_VERSION.into());
    }
    Ok(serde_json::json!({"kubeletconfig": shown}))
}

fn drop_empty(value: &mut serde_json::Value) {
    let Some(fields) = value.as_object_mut() else { return };
    let empty = |value: &serde_json::Value| {
        value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty)
    };
    fields.retain(|_, inner| !empty(inner));
    fields.values_mut().for_each(drop_empty);
}

fn health(kubelet: &Arc<Kubelet>) -> Health {
    let health = Health::new();
    let this = kubelet.clone();
    health.add("syncloop", move || {
        // A kubelet that has just started has not had its first list yet.
        match this.relisted.check() {
            Err(why) if !why.contains("yet to be") => Err(why),
            _ => Ok(()),
        }
    });
    health
}

fn tls(kubelet: &Kubelet) -> anyhow::Result<Tls> {
    let file = &kubelet.config.file;
    let tls = if file.tls_cert_file.is_empty() {
        let mut hosts = vec![kubelet.config.node_name.clone()];
        hosts.extend(kubelet.host_ips.iter().cloned());
        Tls::self_signed("kubelet", &hosts, Some(&kubelet.config.cert_dir))?
    } else {
        Tls::from_files(Path::new(&file.tls_cert_file), Path::new(&file.tls_private_key_file))?
    };
    Ok(tls.with_policy(&kubelet.config.tls_policy)?)
}

/// Waits until a certificate is signed, and turns callers away until then; none when the kubelet ends before that.
async fn signed_tls(
    listener: &TcpListener,
    mut signed: Current,
    policy: &Policy,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Tls>> {
    loop {
        let file = signed.borrow_and_update().clone();
        if let Some(file) = file {
            return Ok(Some(Tls::from_files(&file, &file)?.with_policy(policy)?));
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            changed = signed.changed() => changed.context("nobody asks for a serving certificate")?,
            accepted = listener.accept() => drop(accepted),
        }
    }
}

/// Whoever may call is let in.
struct AlwaysAllow;

#[async_trait::async_trait]
impl Authorizer for AlwaysAllow {
    async fn allowed(&self, _: &serve::User, _: &serve::authn::Attributes) -> Result<bool, serve::BoxError> {
        Ok(true)
    }
}

fn guard(kubelet: &Kubelet) -> anyhow::Result<Guard> {
    let file = &kubelet.config.file;
    let mut authenticators: Vec<Arc<dyn Authenticator>> = Vec::new();
    let ca = &file.authentication.x509.client_ca_file;
    if !ca.is_empty() {
        authenticators.push(Arc::new(CertificateAuthenticator(ClientCa::from_file(Path::new(ca))?)));
    }
    if kubelet.config.stands_alone() {
        let (tokens, access) = (file.authentication.webhook.enabled, file.authorization.mode == "Webhook");
        anyhow::ensure!(!tokens, "no client provided, cannot use webhook authentication");
        anyhow::ensure!(!access, "no client provided, cannot use webhook authorization");
        anyhow::ensure!(
            !file.server_tls_bootstrap,
            "no client provided, cannot ask for a serving certificate"
        );
    }
    if file.authentication.webhook.enabled {
        authenticators.push(Arc::new(TokenReviews::new(kubelet.client.clone())));
    }
    let authorizer: Arc<dyn Authorizer> = match file.authorization.mode.as_str() {
        "AlwaysAllow" => Arc::new(AlwaysAllow),
        _ => Arc::new(AccessReviews::new(kubelet.client.clone())),
    };
    Ok(Guard {
        authenticator: Arc::new(serve::authn::Union(authenticators)),
        authorizer,
        always_allow: Vec::new(),
        anonymous: file.authentication.anonymous.enabled,
    })
}

impl Endpoints {
    /// What may be read where everybody may read; none for anything else.
    async fn reading(&self, method: &Method, uri: &Uri, segments: &[&str]) -> Option<Response<Body>> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        Some(match segments {
            ["healthz", ..] if reads => self.health.respond(uri).await.unwrap_or_else(not_found),
            ["metrics"] if reads => {
                let volumes = volumes::gather(&self.kubelet).await;
                self.kubelet.count_pods();
                serve::metrics::respond_all(&[
                    &self.metrics,
                    &self.kubelet.metrics.registry,
                    self.kubelet.runtime.operations.registry(),
                    &self.kubelet.cgroups.registry,
                    &self.requests.registry,
                    client::metrics::registry(),
                    &volumes,
                ])
            }
            ["metrics", "resource"] if reads => stats::resource(&self.kubelet).await,
            ["metrics", "cadvisor"] if reads => cadvisor::respond(&self.kubelet).await,
            ["metrics", "slis"] if reads => serve::metrics::respond(&self.slis),
            ["metrics", "probes"] if reads => serve::metrics::respond(&self.kubelet.probe_metrics.registry),
            ["stats", "summary"] => stats::summary(&self.kubelet).await,
            ["pods"] if reads => pods::list(&self.kubelet),
            _ => return None,
        })
    }

    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if let Err(refusal) = access::check(&self.guard, &parts, &self.kubelet.config.node_name).await {
            return refusal;
        }
        let request = Request::from_parts(parts, body);
        let path = request.uri().path().to_owned();
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let debugging = self.kubelet.config.file.enable_debugging_handlers;
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if let Some(answer) = self.reading(request.method(), request.uri(), &segments).await {
            return answer;
        }
        match segments.as_slice() {
            [
                "run" | "exec" | "attach" | "portForward" | "containerLogs" | "runningpods" | "logs"
                | "debug",
                ..,
            ] if !debugging => serve::text(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n"),
            ["logs", ..] => {
                let asked = (request.method(), request.uri(), request.headers());
                node_logs::serve(&self.kubelet, asked).await
            }
            ["statusz"] if reads => self.pages.statusz(request.headers()),
            ["flagz"] if reads => self.pages.flagz(request.headers()),
            ["configz"] if reads => serve::json(StatusCode::OK, self.configz.to_string()),
            ["runningpods"] if reads => pods::running(&self.kubelet).await,
            ["containerLogs", namespace, pod, container] if reads => {
                logs::serve(&self.kubelet, (namespace, pod, container), request.uri().query()).await
            }
            ["exec", namespace, pod, .., container] => {
                streams::exec(&self.kubelet, request, (namespace, pod, container)).await
            }
            ["attach", namespace, pod, .., container] => {
                streams::attach(&self.kubelet, request, (namespace, pod, container)).await
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
                streams::port_forward(&self.kubelet, request, (namespace, pod)).await
            }
            ["checkpoint", namespace, pod, container] if request.method() == Method::POST => {
                checkpoint::serve(&self.kubelet, (namespace, pod, container), request.uri().query()).await
            }
            ["run", namespace, pod, .., container] if request.method() == Method::POST => {
                streams::run(&self.kubelet, request.uri().query(), (namespace, pod, container)).await
            }
            _ => not_found(),
        }
    }
}

fn not_found() -> Response<Body> {
    serve::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// The pairs of a query, decoded.
fn pairs(query: Option<&str>) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_shown_without_what_is_empty() {
        let shown = configz(&KubeletConfiguration::default()).unwrap();
        let shown = &shown["kubeletconfig"];
        for absent in ["tlsCertFile", "tlsCipherSuites", "staticPodPath", "systemReserved", "evictionSoft"] {
            assert!(shown.get(absent).is_none(), "{absent}");
        }
        assert_eq!(shown["authentication"]["x509"], serde_json::json!({}));
        assert_eq!(shown["memorySwap"], serde_json::json!({}));
        assert_eq!(
            (&shown["enforceNodeAllocatable"], &shown["oomScoreAdj"]),
            (&["pods"].into(), &(-999).into())
        );
        assert_eq!((&shown["port"], &shown["seccompDefault"]), (&10250.into(), &false.into()));
    }

    #[test]
    fn queries_are_decoded() {
        let expected = [("command", "echo a"), ("command", "b&c"), ("tty", "")];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(pairs(Some("command=echo+a&command=b%26c&tty")), expected);
        assert!(pairs(None).is_empty());
    }
}
