//! Discovery: which groups, versions and resources there are. Derived from the table of
//! resources and of what other servers serve, and made again when custom resources or others come or go.

mod groups;

use std::sync::Arc;

use api::error::Result;
use api::{Value, object};
use arc_swap::ArcSwap;
use base64::Engine;
use bytes::Bytes;
use http::header::{ACCEPT, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Response, StatusCode};
use ring::digest::{SHA256, SHA512, digest};
use serve::Body;

use crate::aggregation::discovery::Listing;
use crate::custom::Served;
use crate::http::Exchange;
use crate::render;
use crate::resources::{Resource, Row, Subresource, TABLE, Table};
use groups::{Group, Version};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Discovery, made again whenever custom resources or other servers come or go.
pub struct Discovery {
    made: ArcSwap<Documents>,
    external_address: String,
}

/// The documents that do not depend on who asks.
struct Documents {
    serials: (u64, u64),
    rows: Vec<Row>,
    named: Vec<Group>,
    groups: Value,
    aggregated_core: (Bytes, String),
    aggregated: (Bytes, String),
}

impl Discovery {
    /// Makes the documents of the built-in resources.
    pub fn new(built_in: &Table, external_address: &str) -> Self {
        Self {
            made: ArcSwap::from_pointee(Documents::new(built_in, &Served::default(), &Listing::default())),
            external_address: external_address.to_owned(),
        }
    }

    fn documents(&self, exchange: &Exchange) -> Arc<Documents> {
        let storage = &exchange.server.storage;
        let served = storage.custom().load();
        let listing = exchange.server.aggregation.found.load();
        let made = self.made.load_full();
        if made.serials == (served.serial, listing.serial) {
            return made;
        }
        let made = Arc::new(Documents::new(storage.served(), &served, &listing));
        self.made.store(made.clone());
        made
    }

    /// The answer, if the path is one of discovery.
    pub fn respond(&self, exchange: &Exchange) -> Result<Option<Response<Body>>> {
        let form = exchange
            .form_of_document()
            .or_else(|e| if wants_aggregated(exchange) { Ok(Default::default()) } else { Err(e) })?;
        let segments: Vec<&str> = exchange.info.path.trim_matches('/').split('/').collect();
        let made = self.documents(exchange);
        let has_core = !versions(&made.rows, "").is_empty();
        let document = match segments.as_slice() {
            ["api"] if !has_core => return Ok(None),
            ["api"] if wants_aggregated(exchange) => {
                return Ok(Some(cached(&made.aggregated_core, exchange)));
            }
            ["apis"] if wants_aggregated(exchange) => return Ok(Some(cached(&made.aggregated, exchange))),
            ["api"] => object!({
                "kind": "APIVersions",
                "versions": ["v1"],
                "serverAddressByClientCIDRs": [
                    {"clientCIDR": "0.0.0.0/0", "serverAddress": (self.external_address.as_str())},
                ],
            }),
            ["apis"] => made.groups.clone(),
            ["apis", name] => match made.named.iter().find(|g| g.name == *name) {
                Some(group) => alone(group),
                None => return Ok(None),
            },
            ["api", version] if versions(&made.rows, "").contains(version) => {
                resources(&made.rows, "", version)
            }
            ["apis", name, version] if !name.is_empty() && versions(&made.rows, name).contains(version) => {
                resources(&made.rows, name, version)
            }
            _ => return Ok(None),
        };
        Ok(Some(render::value(StatusCode::OK, &document, form)))
    }

    /// All paths that are served, for the root document.
    pub fn paths(&self, exchange: &Exchange) -> Vec<String> {
        let documents = self.documents(exchange);
        let mut paths: Vec<String> =
            ["/.well-known/openid-configuration", "/apis", "/apis/"].map(str::to_owned).into();
        if !versions(&documents.rows, "").is_empty() {
            paths.extend(["/api", "/api/v1"].map(str::to_owned));
        }
        for group in &documents.named {
            paths.push(format!("/apis/{}", group.name));
            paths.extend(group.versions.iter().map(|v| format!("/apis/{}/{}", group.name, v.name)));
        }
        const OTHERS: [&str; 9] = [
            "/flagz",
            "/metrics",
            "/metrics/slis",
            "/openapi/v2",
            "/openapi/v3",
            "/openapi/v3/",
            "/openid/v1/jwks",
            "/statusz",
            "/version",
        ];
        paths.extend(OTHERS.map(str::to_owned));
        paths.extend(exchange.server.health.paths());
        paths.sort();
        paths
    }
}

impl Documents {
    fn new(built_in: &Table, served: &Served, listing: &Listing) -> Self {
        let mut rows = built_in.rows.clone();
        rows.extend(served.rows());
        let named = groups::groups(&rows, listing);
        let list: Vec<Value> = named.iter().map(Group::describe).collect();
        let core: Vec<Value> =
            versions(&rows, "").into_iter().map(|v| aggregated_version(&rows, "", v)).collect();
        let aggregated_core = aggregated(vec![object!({"metadata": {}, "versions": core})]);
        let items = named.iter().map(|group| {
            let versions: Vec<Value> = group.versions.iter().map(|v| described(&rows, group, v)).collect();
            object!({"metadata": {"name": (group.name.as_str())}, "versions": versions})
        });
        Self {
            serials: (served.serial, listing.serial),
            groups: object!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}),
            aggregated_core: tagged(&aggregated_core),
            aggregated: tagged(&aggregated(items.collect())),
            rows,
            named,
        }
    }
}

/// Versions of a group, preferred first.
fn versions(rows: &[Row], group: &str) -> Vec<&'static str> {
    let mut versions: Vec<&'static str> = Vec::new();
    for row in rows.iter().filter(|r| r.group == group) {
        if !versions.contains(&row.version) {
            versions.push(row.version);
        }
    }
    versions
}

fn wants_aggregated(exchange: &Exchange) -> bool {
    let accept = exchange.headers().get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|clause| {
        clause.contains("g=apidiscovery.k8s.io") && clause.contains("v=v2") && !clause.contains("v2beta1")
    })
}

fn tagged(document: &Value) -> (Bytes, String) {
    let bytes = Bytes::from(document.to_json());
    let tag: String = digest(&SHA512, &bytes).as_ref().iter().map(|b| format!("{b:02X}")).collect();
    (bytes, format!("\"{tag}\""))
}

fn cached((bytes, tag): &(Bytes, String), exchange: &Exchange) -> Response<Body> {
    let known = exchange.headers().get(IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let mut response = if known == Some(tag.as_str()) {
        let mut response = Response::new(serve::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        render::respond(StatusCode::OK, AGGREGATED, bytes.clone())
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(ETAG, tag);
    }
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

/// The document of one group.
fn alone(group: &Group) -> Value {
    let mut out = object!({"kind": "APIGroup", "apiVersion": "v1"});
    for (key, value) in group.describe().as_object().into_iter().flat_map(|m| m.iter()) {
        out.set(&[key], value);
    }
    out
}

fn rows_of<'r>(rows: &'r [Row], group: &'r str, version: &'r str) -> impl Iterator<Item = &'r Row> {
    rows.iter().filter(move |r| r.group == group && r.version == version)
}

fn resources(rows: &[Row], group: &str, version: &str) -> Value {
    let list: Vec<Value> = rows_of(rows, group, version)
        .flat_map(|row| {
            std::iter::once(resource(row)).chain(row.subresources.iter().map(|s| subresource(row, s)))
        })
        .collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut out = object!({"kind": "APIResourceList"});
    if !group.is_empty() {
        out.set(&["apiVersion"], "v1");
    }
    out.set(&["groupVersion"], group_version);
    out.set(&["resources"], list);
    out
}

fn resource(row: &Resource) -> Value {
    let mut out = object!({
        "name": (row.plural), "singularName": (row.singular.as_str()), "namespaced": (row.namespaced), "kind": (row.kind),
        "verbs": (row.verbs.clone()),
    });
    if !row.short_names.is_empty() {
        out.set(&["shortNames"], row.short_names.clone());
    }
    if !row.categories.is_empty() {
        out.set(&["categories"], row.categories.clone());
    }
    if let Some(custom) = &row.custom {
        out.set(
            &["storageVersionHash"],
            storage_version_hash(row.group, custom.kind.storage().name, row.kind),
        );
    } else if let Some(store) = row.store {
        let stored = TABLE.storage_row(store);
        out.set(&["storageVersionHash"], storage_version_hash(stored.group, stored.version, stored.kind));
    }
    out
}

/// A short digest of the stored kind, by which clients notice that it changed.
fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    let text = format!("{group}/{version}/{kind}");
    base64::engine::general_purpose::STANDARD.encode(&digest(&SHA256, text.as_bytes()).as_ref()[..8])
}

fn subresource(row: &Resource, sub: &Subresource) -> Value {
    let mut out = object!({
        "name": (format!("{}/{}", row.plural, sub.name)), "singularName": "", "namespaced": (row.namespaced),
    });
    if let Some((group, version)) = sub.group_version {
        out.set(&["group"], group);
        out.set(&["version"], version);
    }
    out.set(&["kind"], sub.kind);
    out.set(&["verbs"], sub.verbs.clone());
    out
}

fn aggregated(items: Vec<Value>) -> Value {
    object!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

/// A version as aggregated documents have it, whoever serves it.
fn described(rows: &[Row], group: &Group, version: &Version) -> Value {
    match &version.remote {
        None => aggregated_version(rows, &group.name, &version.name),
        Some((resources, stale)) => {
            let freshness = if *stale { "Stale" } else { "Current" };
            let mut out = object!({"version": (version.name.as_str())});
            if !resources.is_empty() {
                out.set(&["resources"], resources.to_vec());
            }
            out.set(&["freshness"], freshness);
            out
        }
    }
}

fn aggregated_version(rows: &[Row], group: &str, version: &str) -> Value {
    let resources: Vec<Value> = rows_of(rows, group, version).map(|r| aggregated_resource(r)).collect();
    object!({"version": version, "resources": resources, "freshness": "Current"})
}

fn aggregated_resource(row: &Resource) -> Value {
    let kind =
        |group: &str, version: &str, kind: &str| object!({"group": group, "version": version, "kind": kind});
    let mut out = object!({
        "resource": (row.plural),
        "responseKind": (kind("", "", row.kind)),
        "scope": (if row.namespaced { "Namespaced" } else { "Cluster" }),
        "singularResource": (row.singular.as_str()),
        "verbs": (row.verbs.clone()),
    });
    if !row.short_names.is_empty() {
        out.set(&["shortNames"], row.short_names.clone());
    }
    if !row.categories.is_empty() {
        out.set(&["categories"], row.categories.clone());
    }
    let subresources: Vec<Value> = row
        .subresources
        .iter()
        .map(|s| {
            let (group, version) = s.group_version.unwrap_or(("", ""));
            object!({"subresource": (s.name), "responseKind": (kind(group, version, s.kind)), "verbs": (s.verbs.clone())})
        })
        .collect();
    if !subresources.is_empty() {
        out.set(&["subresources"], subresources);
    }
    out
}
