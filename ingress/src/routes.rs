//! The routing table: a pure function of everything that is watched.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::Value;
use rustls::sign::CertifiedKey;

/// What requests are routed by.
#[derive(Default)]
pub(crate) struct Table {
    /// Rules by host name; the empty name stands for every host.
    hosts: HashMap<String, Vec<Route>>,
    default: Option<Arc<Backend>>,
    /// Certificates by host name, which may begin with `*.`.
    pub(crate) certificates: HashMap<String, Arc<CertifiedKey>>,
}

/// One path of one host.
struct Route {
    path: String,
    exact: bool,
    backend: Arc<Backend>,
}

/// Where requests go.
pub(crate) struct Backend {
    /// `namespace/service:port`, for people.
    pub(crate) name: String,
    endpoints: Vec<SocketAddr>,
    next: AtomicUsize,
    /// Requests over plain HTTP are sent to HTTPS.
    pub(crate) redirect: bool,
    /// The path is replaced by this.
    pub(crate) rewrite: Option<String>,
    /// Largest body, in bytes.
    pub(crate) body_limit: Option<u64>,
}

impl Backend {
    /// The endpoints in the order in which this request should try them.
    pub(crate) fn in_turn(&self) -> Vec<SocketAddr> {
        let mut endpoints = self.endpoints.clone();
        if !endpoints.is_empty() {
            let first = self.next.fetch_add(1, Ordering::Relaxed) % endpoints.len();
            endpoints.rotate_left(first);
        }
        endpoints
    }
}

/// Everything that is watched, as it is now.
pub(crate) struct Inputs<'a> {
    /// The Ingresses served here, the oldest first.
    pub(crate) ingresses: &'a [Arc<Value>],
    /// Finds a Service.
    pub(crate) service: &'a dyn Fn(&str, &str) -> Option<Arc<Value>>,
    /// The slices of a Service.
    pub(crate) slices: &'a dyn Fn(&str, &str) -> Vec<Arc<Value>>,
    /// The certificate in a Secret.
    pub(crate) certificate: &'a dyn Fn(&str, &str) -> Option<Arc<CertifiedKey>>,
}

/// Annotations that are understood; others of the same prefix are named in the log.
pub(crate) const ANNOTATIONS: [&str; 5] = [
    "nginx.ingress.kubernetes.io/rewrite-target",
    "nginx.ingress.kubernetes.io/ssl-redirect",
    "nginx.ingress.kubernetes.io/force-ssl-redirect",
    "nginx.ingress.kubernetes.io/proxy-body-size",
    "nginx.ingress.kubernetes.io/backend-protocol",
];

impl Table {
    pub(crate) fn build(inputs: &Inputs<'_>) -> Self {
        let mut table = Table::default();
        for ingress in inputs.ingresses {
            table.add(ingress, inputs);
        }
        for routes in table.hosts.values_mut() {
            // The longest path wins, an exact one before a prefix of the same length; the older Ingress before the newer.
            routes.sort_by_key(|r| (std::cmp::Reverse(r.path.len()), !r.exact));
        }
        table
    }

    fn add(&mut self, ingress: &Value, inputs: &Inputs<'_>) {
        let spec = ingress.get("spec");
        let mut secured: Vec<&str> = Vec::new();
        for tls in spec.array_at(&["tls"]) {
            let hosts = tls.array_at(&["hosts"]).iter().filter_map(Value::as_str);
            let certificate = (inputs.certificate)(ingress.namespace(), tls.str_at(&["secretName"]));
            for host in hosts {
                secured.push(host);
                if let Some(certificate) = &certificate {
                    self.certificates.entry(host.to_lowercase()).or_insert_with(|| certificate.clone());
                }
            }
        }
        let mut made: BTreeMap<(String, bool), Arc<Backend>> = BTreeMap::new();
        let mut backend = |reference: &Value, secured: bool| {
            let key = (reference.to_string(), secured);
            made.entry(key)
                .or_insert_with(|| Arc::new(backend_of(ingress, reference, secured, inputs)))
                .clone()
        };
        if self.default.is_none() && !spec.get("defaultBackend").is_null() {
            self.default = Some(backend(spec.get("defaultBackend"), false));
        }
        for rule in spec.array_at(&["rules"]) {
            let host = rule.str_at(&["host"]);
            let routes = self.hosts.entry(host.to_lowercase()).or_default();
            for path in rule.array_at(&["http", "paths"]) {
                let text = path.str_at(&["path"]);
                let exact = path.str_at(&["pathType"]) == "Exact";
                let text = if exact { text } else { text.trim_end_matches('/') };
                let backend = backend(path.get("backend"), secured.contains(&host));
                routes.push(Route { path: text.to_owned(), exact, backend });
            }
        }
    }

    /// The backend of a request.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<Arc<Backend>> {
        let host = host.to_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let wildcard = host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        [Some(host.to_owned()), wildcard, Some(String::new())]
            .into_iter()
            .flatten()
            .filter_map(|h| self.hosts.get(&h))
            .find_map(|routes| routes.iter().find(|r| r.matches(path)))
            .map(|r| r.backend.clone())
            .or_else(|| self.default.clone())
    }
}

impl Route {
    fn matches(&self, path: &str) -> bool {
        match path.strip_prefix(self.path.as_str()) {
            Some("") => true,
            Some(rest) => !self.exact && rest.starts_with('/'),
            None => false,
        }
    }
}

fn backend_of(ingress: &Value, reference: &Value, secured: bool, inputs: &Inputs<'_>) -> Backend {
    let service_name = reference.str_at(&["service", "name"]);
    let port = reference.at(&["service", "port"]);
    let namespace = ingress.namespace();
    let annotation = |key: &str| ingress.annotation(&format!("nginx.ingress.kubernetes.io/{key}"));
    let redirect = (secured && annotation("ssl-redirect") != Some("false"))
        || annotation("force-ssl-redirect") == Some("true");
    let endpoints = (inputs.service)(namespace, service_name)
        .map(|service| endpoints_of(&service, port, &(inputs.slices)(namespace, service_name)))
        .unwrap_or_default();
    Backend {
        name: format!(
            "{namespace}/{service_name}:{}",
            port.at(&["number"])
                .as_i64()
                .map_or_else(|| port.str_at(&["name"]).to_owned(), |n| n.to_string())
        ),
        endpoints,
        next: AtomicUsize::new(0),
        redirect,
        rewrite: annotation("rewrite-target").map(str::to_owned),
        body_limit: annotation("proxy-body-size").and_then(size),
    }
}

/// A size as nginx writes it: `8m`, `512k`, `0` for any.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok().filter(|n| *n > 0).map(|n| n * factor)
}

/// The ready addresses behind a port of a Service.
fn endpoints_of(service: &Value, port: &Value, slices: &[Arc<Value>]) -> Vec<SocketAddr> {
    let wanted = service.array_at(&["spec", "ports"]).iter().find(|p| match port.at(&["number"]).as_i64() {
        Some(n) => p.get("port").as_i64() == Some(n),
        None => p.str_at(&["name"]) == port.str_at(&["name"]),
    });
    let Some(name) = wanted.map(|p| p.str_at(&["name"])) else { return Vec::new() };
    let mut found = Vec::new();
    for slice in slices {
        let number = slice.array_at(&["ports"]).iter().find(|p| p.str_at(&["name"]) == name);
        let number = number.and_then(|p| p.get("port").as_i64()).and_then(|n| u16::try_from(n).ok());
        let Some(number) = number else { continue };
        for endpoint in slice.array_at(&["endpoints"]) {
            if endpoint.at(&["conditions", "ready"]).as_bool() == Some(false) {
                continue;
            }
            let addresses =
                endpoint.array_at(&["addresses"]).iter().filter_map(|a| a.as_str()?.parse::<IpAddr>().ok());
            found.extend(addresses.map(|a| SocketAddr::new(a, number)));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn table(paths: Value, annotations: Value) -> Table {
        let ingress = Arc::new(object!({
            "metadata": {"namespace": "n", "name": "i", "annotations": annotations},
            "spec": {"rules": [{"host": "a.example", "http": {"paths": paths}}]},
        }));
        let service = |_: &str, _: &str| Some(Arc::new(object!({"spec": {"ports": [{"port": 80}]}})));
        let slices = |_: &str, name: &str| {
            let address = if name == "one" { "10.0.0.1" } else { "10.0.0.2" };
            vec![Arc::new(object!({"ports": [{"port": 8080}], "endpoints": [
                {"addresses": [address], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.9"], "conditions": {"ready": false}},
            ]}))]
        };
        Table::build(&Inputs {
            ingresses: &[ingress],
            service: &service,
            slices: &slices,
            certificate: &|_, _| None,
        })
    }

    fn path(path: &str, kind: &str, service: &str) -> Value {
        object!({"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": 80}}}})
    }

    #[test]
    fn the_longest_matching_path_wins() {
        let table = table(
            object!([
                (path("/", "Prefix", "one")),
                (path("/api", "Prefix", "two")),
                (path("/api/x", "Exact", "one"))
            ]),
            object!({}),
        );
        let check = |host: &str, path: &str, want: &str| {
            let found = table.find(host, path).map(|b| b.in_turn()[0].to_string());
            assert_eq!(found.unwrap_or_default(), want, "{host}{path}");
        };
        check("a.example", "/", "10.0.0.1:8080");
        check("A.example", "/api", "10.0.0.2:8080");
        check("a.example", "/api/tasks", "10.0.0.2:8080");
        check("a.example", "/api/x", "10.0.0.1:8080");
        check("a.example", "/apis", "10.0.0.1:8080");
        check("b.example", "/", "");
    }

    #[test]
    fn annotations_shape_the_backend() {
        let table = table(
            object!([(path("/", "Prefix", "one"))]),
            object!({"nginx.ingress.kubernetes.io/proxy-body-size": "8m", "nginx.ingress.kubernetes.io/force-ssl-redirect": "true"}),
        );
        let backend = table.find("a.example", "/").unwrap();
        assert_eq!(backend.body_limit, Some(8 << 20));
        assert!(backend.redirect);
        assert_eq!(backend.in_turn().len(), 1);
    }
}
