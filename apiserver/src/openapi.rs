//! OpenAPI documents, made from the table of resources and the schema when they are first asked for, and kept.

use std::collections::HashMap;

use api::{Map, Value, object};
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use ring::digest::{SHA512, digest};
use schema::openapi::{self, Connect};
use serve::Body;

use crate::http::Exchange;
use crate::resources::{Resource, TABLE};

const JSON: &str = "application/json";
const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

#[derive(Clone)]
struct Document {
    bytes: Bytes,
    tag: String,
}

/// The OpenAPI documents that were asked for.
#[derive(Default)]
pub struct OpenApi {
    made: Mutex<HashMap<String, Document>>,
}

impl OpenApi {
    /// The answer, if the path is one of OpenAPI.
    pub fn respond(&self, exchange: &Exchange) -> Option<Response<Body>> {
        let path = exchange.info.path.trim_end_matches('/');
        if path == "/openapi/v2" {
            let accept = exchange.headers().get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let protobuf = accept.contains("proto-openapi");
            let (key, media_type) = if protobuf { ("v2.pb", GNOSTIC) } else { ("v2", JSON) };
            let document = self.document(key, || {
                let document = openapi::v2(&rows());
                if protobuf { openapi::gnostic(&document) } else { document.to_json() }
            });
            return Some(answer(&document, media_type, exchange, false));
        }
        if path == "/openapi/v3" {
            let document = self.document("v3", || self.index().to_json());
            return Some(answer(&document, JSON, exchange, false));
        }
        let version = path.strip_prefix("/openapi/v3/")?;
        let document = self.version(version)?;
        // A client that names the hash has what it names for ever.
        Some(answer(&document, JSON, exchange, exchange.query.has("hash")))
    }

    /// The document of `api/v1` or `apis/group/version`.
    fn version(&self, path: &str) -> Option<Document> {
        let parts: Vec<&str> = path.split('/').collect();
        let (group, version) = match parts.as_slice() {
            ["api", version] => ("", *version),
            ["apis", group, version] if !group.is_empty() => (*group, *version),
            _ => return None,
        };
        TABLE
            .versions(group)
            .contains(&version)
            .then(|| self.document(path, || openapi::v3(group, version, &rows()).to_json()))
    }

    fn document(&self, key: &str, make: impl FnOnce() -> Vec<u8>) -> Document {
        if let Some(made) = self.made.lock().get(key) {
            return made.clone();
        }
        let bytes = Bytes::from(make());
        let tag: String = digest(&SHA512, &bytes).as_ref().iter().map(|b| format!("{b:02X}")).collect();
        let document = Document { bytes, tag };
        self.made.lock().insert(key.to_owned(), document.clone());
        document
    }

    /// Where the documents are. The hash in an address changes with the build that makes the document.
    fn index(&self) -> Value {
        let mut paths = Map::new();
        for group in TABLE.groups() {
            for version in TABLE.versions(group) {
                let path = if group.is_empty() {
                    format!("api/{version}")
                } else {
                    format!("apis/{group}/{version}")
                };
                let text = format!("{path} {} {}", daemon::KUBERNETES_VERSION, env!("CARGO_PKG_VERSION"));
                let hash: String =
                    digest(&SHA512, text.as_bytes()).as_ref().iter().map(|b| format!("{b:02X}")).collect();
                let url = format!("/openapi/v3/{path}?hash={hash}");
                paths.push(path, object!({"serverRelativeURL": url}));
            }
        }
        object!({"paths": paths})
    }
}

fn answer(
    document: &Document,
    media_type: &'static str,
    exchange: &Exchange,
    immutable: bool,
) -> Response<Body> {
    let tag = format!("\"{}\"", document.tag);
    let known = exchange.headers().get(IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let unchanged = known == Some(tag.as_str());
    let mut response =
        Response::new(if unchanged { serve::empty() } else { serve::full(document.bytes.clone()) });
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    let caching = if immutable { "public, immutable" } else { "no-cache, private" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    response
}

/// The table as the document maker wants it.
fn rows() -> Vec<openapi::Resource<'static>> {
    TABLE.rows.iter().flat_map(row).collect()
}

fn row(row: &'static Resource) -> Vec<openapi::Resource<'static>> {
    let own = openapi::Resource {
        group: row.group,
        version: row.version,
        name: row.plural,
        namespaced: row.namespaced,
        kind: row.kind,
        verbs: &row.verbs,
        ..Default::default()
    };
    let mut out = vec![own];
    for sub in &row.subresources {
        out.push(openapi::Resource {
            group: row.group,
            version: row.version,
            name: leaked(row.plural, sub.name),
            namespaced: row.namespaced,
            kind: sub.kind,
            of: sub.group_version,
            verbs: &sub.verbs,
            connect: connect(row.plural, sub.name),
            options: (sub.name == "log").then_some("core/v1.PodLogOptions"),
            schema: None,
        });
    }
    out
}

/// `pods/status`, kept for the life of the process: there are a few dozen.
fn leaked(plural: &str, sub: &str) -> &'static str {
    static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let name = format!("{plural}/{sub}");
    let mut names = NAMES.lock();
    if let Some(known) = names.iter().find(|n| **n == name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.into_boxed_str());
    names.push(kept);
    kept
}

fn connect(plural: &str, sub: &str) -> Option<Connect<'static>> {
    let (options, methods, with_path): (&str, &[&str], bool) = match (plural, sub) {
        ("pods", "exec") => ("core/v1.PodExecOptions", &["GET", "POST"], false),
        ("pods", "attach") => ("core/v1.PodAttachOptions", &["GET", "POST"], false),
        ("pods", "portforward") => ("core/v1.PodPortForwardOptions", &["GET", "POST"], false),
        ("pods", "proxy") => ("core/v1.PodProxyOptions", &METHODS, true),
        ("services", "proxy") => ("core/v1.ServiceProxyOptions", &METHODS, true),
        ("nodes", "proxy") => ("core/v1.NodeProxyOptions", &METHODS, true),
        _ => return None,
    };
    Some(Connect { options, methods, with_path })
}
