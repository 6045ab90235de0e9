//! The file that names ways: `EgressSelectorConfiguration` of `apiserver.k8s.io`.

use std::collections::HashSet;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use api::field::{FieldError, Path};
use serde::Deserialize;
use serve::outbound::{self, Options, Route};

use super::Ways;
use super::connect::HttpConnect;
use super::konnectivity::Konnectivity;

const VERSIONS: [&str; 2] = ["apiserver.k8s.io/v1beta1", "apiserver.k8s.io/v1alpha1"];
const NAMES: [&str; 3] = ["cluster", "controlplane", "etcd"];
const PROTOCOLS: [&str; 3] = ["Direct", "GRPC", "HTTPConnect"];

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    egress_selections: Vec<SelectionFile>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SelectionFile {
    name: String,
    connection: ConnectionFile,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConnectionFile {
    proxy_protocol: String,
    transport: Option<TransportFile>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TransportFile {
    tcp: Option<TcpFile>,
    uds: Option<UdsFile>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TcpFile {
    url: String,
    tls_config: Option<TlsFile>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TlsFile {
    ca_bundle: String,
    client_key: String,
    client_cert: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UdsFile {
    uds_name: String,
}

/// How a proxy is reached.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Proxy {
    /// By a socket of this machine.
    Socket(PathBuf),
    /// By host and port; with TLS, if there are files for it.
    Tcp { host: String, port: u16, tls: Option<Files> },
}

/// The files of TLS: those who vouch for the proxy, our certificate and its key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Files {
    pub ca: Option<PathBuf>,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// What is in the files now.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub(super) fn read(&self) -> Result<Options> {
        let read =
            |path: &FilePath| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
        let ca = match &self.ca {
            Some(path) => Some(read(path)?),
            None => outbound::system_authorities(),
        };
        let identity = Some((read(&self.certificate)?, read(&self.key)?));
        Ok(Options { ca, identity, http1_only: true, ..Options::default() })
    }
}

/// A way to hosts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Way {
    Direct,
    HttpConnect(Proxy),
    /// Through the socket of a konnectivity server.
    Grpc(PathBuf),
}

impl Way {
    pub(super) fn route(&self) -> Route {
        match self {
            Self::Direct => None,
            Self::HttpConnect(proxy) => Some(Arc::new(HttpConnect(proxy.clone()))),
            Self::Grpc(socket) => Some(Arc::new(Konnectivity::new(socket.clone()))),
        }
    }
}

/// Reads a configuration.
///
/// # Errors
/// It is not valid, or asks for what is not supported.
pub(super) fn parse(text: &str) -> Result<Ways> {
    let file: File = crate::config_file::parse_strictly(text, &VERSIONS, "EgressSelectorConfiguration")?;
    let root = Path::new("service");
    let path = root.child("connection");
    let (mut errors, mut seen, mut ways) = (Vec::new(), HashSet::new(), Ways::default());
    for (i, selection) in file.egress_selections.iter().enumerate() {
        let way = selection.connection.way(&path, &mut errors);
        let name = selection.name.to_lowercase();
        if !seen.insert(name.clone()) {
            errors.push(FieldError::duplicate(&path.index(i), name));
            continue;
        }
        match (name.as_str(), way) {
            ("cluster", way) => ways.cluster = way,
            ("controlplane", way) => ways.control_plane = way,
            ("etcd", Some(way)) if way != Way::Direct => {
                bail!("the egress selection \"etcd\" is supported with the protocol Direct alone")
            }
            ("etcd", _) => {}
            (other, _) => errors.push(FieldError::not_supported(&path, other, &NAMES)),
        }
    }
    match errors.as_slice() {
        [] => Ok(ways),
        [one] => bail!("failed to validate egress selector configuration: {one}"),
        many => {
            let all: Vec<String> = many.iter().map(ToString::to_string).collect();
            bail!("failed to validate egress selector configuration: [{}]", all.join(", "))
        }
    }
}

impl ConnectionFile {
    fn way(&self, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Option<Way> {
        let protocol = self.proxy_protocol.as_str();
        match (protocol, &self.transport) {
            ("Direct", None) => return Some(Way::Direct),
            ("Direct", Some(_)) => {
                let why = "config must be absent for direct connect";
                errors.push(FieldError::invalid(&path.child("transport"), "direct", why));
            }
            ("HTTPConnect" | "GRPC", None) => {
                let why = format!("transport must be set for {protocol}");
                errors.push(FieldError::required(&path.child("transport"), why));
            }
            ("HTTPConnect", Some(transport)) => {
                return transport.proxy(path, errors).map(Way::HttpConnect);
            }
            ("GRPC", Some(transport)) => match &transport.uds {
                Some(uds) => return uds.socket(path, errors).map(Way::Grpc),
                None => {
                    errors.push(FieldError::required(&path.child("uds"), "UDS must be set with GRPC"));
                }
            },
            (other, _) => {
                errors.push(FieldError::not_supported(&path.child("protocol"), other, &PROTOCOLS));
            }
        }
        None
    }
}

impl TransportFile {
    fn proxy(&self, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Option<Proxy> {
        match (&self.tcp, &self.uds) {
            (Some(tcp), None) => tcp.proxy(path, errors),
            (None, Some(uds)) => uds.socket(path, errors).map(Proxy::Socket),
            (Some(tcp), Some(_)) => {
                let why = "TCP and UDS cannot both be set";
                errors.push(FieldError::invalid(&path.child("tcp"), tcp.url.as_str(), why));
                None
            }
            (None, None) => {
                errors.push(FieldError::required(&path.child("tcp"), "One of TCP or UDS must be set"));
                None
            }
        }
    }
}

impl UdsFile {
    fn socket(&self, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Option<PathBuf> {
        if self.uds_name.is_empty() {
            let why = "must be present for UDS connections";
            errors.push(FieldError::invalid(&path.child("udsName"), "nil", why));
            return None;
        }
        Some(PathBuf::from(&self.uds_name))
    }
}

impl TcpFile {
    fn proxy(&self, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Option<Proxy> {
        let before = errors.len();
        let url = self.url.parse::<http::Uri>().ok();
        let mut tls = None;
        match url.as_ref().and_then(http::Uri::scheme_str) {
            Some("http") if self.tls_config.is_some() => {
                let why = "config must not be present when using HTTP";
                errors.push(FieldError::invalid(&path.child("tlsConfig"), "nil", why));
            }
            Some("http") => {}
            Some("https") => match &self.tls_config {
                Some(files) => tls = Some(files.check(&path.child("tlsConfig"), errors)),
                None => {
                    let why = "TLSConfig must be present when using HTTPS";
                    errors.push(FieldError::required(&path.child("tlsConfig"), why));
                }
            },
            _ => {
                let why = "supported connection protocols are http:// and https://";
                errors.push(FieldError::invalid(&path.child("url"), self.url.as_str(), why));
            }
        }
        let url = url.filter(|_| errors.len() == before)?;
        let port = url.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        Some(Proxy::Tcp { host: url.host()?.trim_matches(['[', ']']).to_owned(), port, tls })
    }
}

impl TlsFile {
    fn check(&self, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Files {
        if !self.ca_bundle.is_empty() && !FilePath::new(&self.ca_bundle).exists() {
            let why = "TLS config ca bundle does not exist";
            errors.push(FieldError::invalid(&path.child("caBundle"), self.ca_bundle.as_str(), why));
        }
        for (name, file, missing, absent) in [
            (
                "clientCert",
                &self.client_cert,
                "Using TLS requires clientCert",
                "TLS client cert does not exist",
            ),
            (
                "clientKey",
                &self.client_key,
                "Using TLS requires requires clientKey",
                "TLS client key does not exist",
            ),
        ] {
            let path = path.child(name);
            if file.is_empty() {
                errors.push(FieldError::invalid(&path, "nil", missing));
            } else if !FilePath::new(file).exists() {
                errors.push(FieldError::invalid(&path, file.as_str(), absent));
            }
        }
        Files {
            ca: (!self.ca_bundle.is_empty()).then(|| PathBuf::from(&self.ca_bundle)),
            certificate: PathBuf::from(&self.client_cert),
            key: PathBuf::from(&self.client_key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(selections: &str) -> Result<Ways> {
        parse(&format!(
            "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections: {selections}\n"
        ))
    }

    #[test]
    fn ways_are_read() {
        let ways = read(
            "[{name: Cluster, connection: {proxyProtocol: GRPC, transport: {uds: {udsName: /s}}}}, \
             {name: etcd, connection: {proxyProtocol: Direct}}, \
             {name: controlplane, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: 'http://[::1]:80'}}}}]",
        );
        let tcp = Proxy::Tcp { host: "::1".to_owned(), port: 80, tls: None };
        let want = Ways {
            cluster: Some(Way::Grpc(PathBuf::from("/s"))),
            control_plane: Some(Way::HttpConnect(tcp)),
        };
        assert_eq!(ways.unwrap(), want);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let check = |connection: &str, want: &str| {
            let error =
                read(&format!("[{{name: cluster, connection: {connection}}}]")).unwrap_err().to_string();
            assert!(error.contains(want), "{connection}: {error}");
        };
        check("{}", "service.connection.protocol: Unsupported value: \"\"");
        check("{proxyProtocol: Direct, transport: {}}", "config must be absent for direct connect");
        check("{proxyProtocol: GRPC}", "transport must be set for GRPC");
        check("{proxyProtocol: GRPC, transport: {tcp: {url: 'http://a'}}}", "UDS must be set with GRPC");
        check("{proxyProtocol: HTTPConnect, transport: {}}", "One of TCP or UDS must be set");
        check("{proxyProtocol: HTTPConnect, transport: {uds: {}}}", "must be present for UDS connections");
        check("{proxyProtocol: HTTPConnect, transport: {tcp: {url: a}}}", "supported connection protocols");
        check(
            "{proxyProtocol: HTTPConnect, transport: {tcp: {url: 'https://a'}}}",
            "TLSConfig must be present",
        );
        check(
            "{proxyProtocol: HTTPConnect, transport: {tcp: {url: 'https://a', tlsConfig: {clientCert: /no}}}}",
            "TLS client cert does not exist",
        );
        let error = |selections: &str| read(selections).unwrap_err().to_string();
        let direct = "connection: {proxyProtocol: Direct}";
        assert!(error(&format!("[{{name: other, {direct}}}]")).contains("Unsupported value: \"other\""));
        assert!(
            error(&format!("[{{name: etcd, {direct}}}, {{name: etcd, {direct}}}]"))
                .contains("Duplicate value")
        );
        let etcd = "[{name: etcd, connection: {proxyProtocol: GRPC, transport: {uds: {udsName: /s}}}}]";
        assert!(error(etcd).contains("Direct alone"));
    }
}
