//! OpenAPI documents, made from the table of resources and the schema when they are first asked for, and kept.

use std::collections::{BTreeMap, HashMap};

use api::{Map, Value, object};
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use ring::digest::{SHA512, digest};
use schema::openapi::{self, Connect};
use serve::Body;

use crate::aggregation::{self, openapi::Theirs};
use crate::custom::Served;
use crate::http::Exchange;
use crate::render::gzip;
use crate::resources::{Resource, Row, interned};
use crate::storage::Storage;

const JSON: &str = "application/json";
const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

#[derive(Clone)]
struct Document {
    bytes: Bytes,
    tag: String,
}

impl Document {
    fn new(bytes: Vec<u8>) -> Self {
        let bytes = Bytes::from(bytes);
        let tag = tag(&bytes);
        Self { bytes, tag }
    }
}

/// A digest, by which clients know a document again.
pub(crate) fn tag(bytes: &[u8]) -> String {
    digest(&SHA512, bytes).as_ref().iter().map(|b| format!("{b:02X}")).collect()
}

/// Which custom resources, and which documents of other servers, documents were made of.
type Serials = (u64, u64);

/// The OpenAPI documents that were asked for since custom resources last came or went.
#[derive(Default)]
pub struct OpenApi {
    made: Mutex<(Serials, HashMap<String, Document>)>,
}

/// The answer, if the path is one of OpenAPI. Others are asked for their documents first.
pub async fn respond(exchange: Exchange) -> Option<Response<Body>> {
    let server = exchange.server.clone();
    let (aggregation, storage) = (&server.aggregation, &server.storage);
    let path = exchange.info.path.trim_end_matches('/');
    if path == "/openapi/v2" {
        let serial = aggregation.refresh_v2(storage).await;
        return Some(server.openapi.v2(&exchange, serial));
    }
    if path == "/openapi/v3" {
        let served = storage.custom().load();
        let mut index = index(&all_rows(storage, &served));
        aggregation.list_v3(storage, index.make_object().entry("paths").make_object()).await;
        return Some(answer(&Document::new(index.to_json()), JSON, &exchange, false));
    }
    let version = path.strip_prefix("/openapi/v3/")?;
    match aggregation.v3(storage, version).await {
        Some(Theirs::At(remote)) => return aggregation::forward(exchange, &remote).await.ok(),
        Some(Theirs::Made(document)) => {
            let immutable = exchange.query.has("hash");
            return Some(answer(&Document::new(document.to_json()), JSON, &exchange, immutable));
        }
        None => {}
    }
    server.openapi.v3(&exchange, version)
}

impl OpenApi {
    fn v2(&self, exchange: &Exchange, others: u64) -> Response<Body> {
        let server = &exchange.server;
        let served = server.storage.custom().load();
        let accept = exchange.headers().get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let protobuf = accept.contains("proto-openapi");
        let (key, media_type) = if protobuf { ("v2.pb", GNOSTIC) } else { ("v2", JSON) };
        let document = self.document((served.serial, others), key, || {
            let rows = all_rows(&server.storage, &served);
            let mut document = openapi::v2(&entries(&rows));
            server.aggregation.merge_v2(&server.storage, &mut document);
            if protobuf { openapi::gnostic(&document) } else { document.to_json() }
        });
        let mut response = answer(&document, media_type, exchange, false);
        if response.status() == StatusCode::OK && gzip::is_accepted(exchange.headers()) {
            gzip::pack(&mut response, std::iter::once(document.bytes));
        }
        response
    }

    fn v3(&self, exchange: &Exchange, version: &str) -> Option<Response<Body>> {
        let document = self.version(&exchange.server.storage, version)?;
        // A client that names the hash has what it names for ever.
        Some(answer(&document, JSON, exchange, exchange.query.has("hash")))
    }

    /// The document of `api/v1` or `apis/group/version`.
    fn version(&self, storage: &Storage, path: &str) -> Option<Document> {
        let parts: Vec<&str> = path.split('/').collect();
        let (group, version) = match parts.as_slice() {
            ["api", version] => ("", *version),
            ["apis", group, version] if !group.is_empty() => (*group, *version),
            _ => return None,
        };
        let served = storage.custom().load();
        let rows = all_rows(storage, &served);
        let known = rows.iter().any(|r| r.group == group && r.version == version);
        let others = self.made.lock().0.1;
        known.then(|| {
            self.document((served.serial, others), path, || {
                openapi::v3(group, version, &entries(&rows)).to_json()
            })
        })
    }

    fn document(&self, serials: Serials, key: &str, make: impl FnOnce() -> Vec<u8>) -> Document {
        {
            let mut made = self.made.lock();
            if made.0 != serials {
                *made = (serials, HashMap::new());
            }
            if let Some(made) = made.1.get(key) {
                return made.clone();
            }
        }
        let document = Document::new(make());
        let mut made = self.made.lock();
        if made.0 == serials {
            made.1.insert(key.to_owned(), document.clone());
        }
        document
    }
}

/// Where the documents are. The hash in an address changes with the build that makes the document, and with the custom
/// resources that are in it.
fn index(rows: &[Row]) -> Value {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut order = Vec::new();
    for row in rows {
        let path = openapi::v3_path(row.group, row.version);
        if !texts.contains_key(&path) {
            order.push(path.clone());
        }
        let text = texts.entry(path.clone()).or_insert_with(|| {
            format!("{path} {} {}", daemon::KUBERNETES_VERSION, env!("CARGO_PKG_VERSION"))
        });
        if let Some(custom) = &row.custom {
            let version = custom.version();
            text.push_str(&format!(" {} {} {:?}", row.plural, version.ty.schema(), version.fields));
        }
    }
    let mut paths = Map::new();
    for path in order {
        let text = texts.get(&path).map(String::as_bytes).unwrap_or_default();
        let hash = tag(text);
        let url = format!("/openapi/v3/{path}?hash={hash}");
        paths.push(path, object!({"serverRelativeURL": url}));
    }
    object!({"paths": paths})
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

/// Every row that clients can discover.
fn all_rows(storage: &Storage, served: &Served) -> Vec<Row> {
    let mut rows = storage.served().rows.clone();
    rows.extend(served.rows());
    rows
}

/// The table as the document maker wants it.
fn entries(rows: &[Row]) -> Vec<openapi::Resource<'_>> {
    rows.iter().flat_map(|row| entries_of(row)).collect()
}

fn entries_of(row: &Resource) -> Vec<openapi::Resource<'_>> {
    let version = row.custom.as_ref().map(|custom| custom.version());
    let schema = version.map(|version| version.ty.schema());
    let selectable: Vec<&str> =
        version.iter().flat_map(|v| v.fields.iter().map(|(path, _)| path.as_str())).collect();
    let own = openapi::Resource {
        group: row.group,
        version: row.version,
        name: row.plural,
        namespaced: row.namespaced,
        kind: row.kind,
        verbs: &row.verbs,
        custom: row.custom.is_some(),
        schema,
        selectable: selectable.clone(),
        ..Default::default()
    };
    let mut out = vec![own];
    for sub in &row.subresources {
        out.push(openapi::Resource {
            group: row.group,
            version: row.version,
            name: interned(&format!("{}/{}", row.plural, sub.name)),
            namespaced: row.namespaced,
            kind: sub.kind,
            of: sub.group_version,
            verbs: &sub.verbs,
            connect: connect(row.plural, sub.name),
            options: (sub.name == "log").then_some("core/v1.PodLogOptions"),
            custom: row.custom.is_some(),
            schema: schema.filter(|_| sub.group_version.is_none()),
            selectable: selectable.clone(),
        });
    }
    out
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
