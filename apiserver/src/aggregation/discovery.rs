//! What other servers serve, for the documents of discovery.
//!
//! Each server is asked for its aggregated document when its APIServices change, and every minute; one that knows
//! none is asked for the list of each version. While a server does not answer, its versions are marked as stale and
//! what it served before is still shown.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Value, object};
use arc_swap::ArcSwap;
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::availability::aggregator;
use super::transport::{Answer, Transport};
use super::{Backend, Remote};
use crate::proxy::authority;
use crate::server::Server;
use crate::starting::Step;

/// How often a server is asked again, and the longest pause after failures.
const REFRESH: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(500);
/// How long an answer may take, and how large it may be.
const LIMITS: (Duration, usize) = (Duration::from_secs(5), 4 << 20);
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// A version of a group that another server serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Where the group stands.
    pub group_priority: i64,
    /// Where the version stands.
    pub version_priority: i64,
    /// The resources, as aggregated documents have them.
    pub resources: Arc<Vec<Value>>,
    /// The server did not answer when it was last asked.
    pub stale: bool,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Grows with each change.
    pub serial: u64,
    /// In order of the names of their APIServices.
    pub versions: Vec<Listed>,
}

/// What is known now.
#[derive(Default)]
pub struct Found(ArcSwap<Listing>);

impl Found {
    /// What is known now.
    pub fn load(&self) -> Arc<Listing> {
        self.0.load_full()
    }

    fn publish(&self, versions: Vec<Listed>) {
        let before = self.0.load();
        if before.versions != versions {
            self.0.store(Arc::new(Listing { serial: before.serial + 1, versions }));
        }
    }
}

type Document = HashMap<(String, String), Arc<Vec<Value>>>;

/// What is remembered of a server between two questions.
struct Asked {
    backend: Arc<Backend>,
    /// Names and revisions of the APIServices that were asked for.
    services: Vec<(String, i64)>,
    etag: String,
    /// The last good answer.
    known: Arc<Document>,
    stale: bool,
    next: Instant,
    failures: u32,
    running: bool,
}

/// An answer.
struct Answered {
    backend: Arc<Backend>,
    /// None when the server said that nothing changed.
    document: Result<Option<(String, Document)>, String>,
}

/// Asks all servers for ever.
pub async fn run(server: Arc<Server>) {
    server.storage.loaded().await;
    let store = crate::resources::TABLE.store("apiregistration.k8s.io", "apiservices");
    let mut changed = server.storage.cache(store).subscribe();
    let mut asked: Vec<Asked> = Vec::new();
    let mut running: JoinSet<Answered> = JoinSet::new();
    loop {
        changed.mark_unchanged();
        let services = server.aggregation.remotes(&server.storage);
        let remotes: Vec<&Arc<Remote>> = services.remotes.values().collect();
        asked.retain(|a| remotes.iter().any(|r| Arc::ptr_eq(&r.backend, &a.backend)));
        for remote in &remotes {
            if !asked.iter().any(|a| Arc::ptr_eq(&a.backend, &remote.backend)) {
                asked.push(Asked::new(remote.backend.clone()));
            }
        }
        server.starting.done(Step::Discovery);
        for one in &mut asked {
            let own = remotes.iter().copied().filter(|r| Arc::ptr_eq(&r.backend, &one.backend));
            let own: Vec<Arc<Remote>> = own.cloned().collect();
            let now: Vec<(String, i64)> = own.iter().map(|r| (r.name.clone(), r.revision)).collect();
            if one.running || (one.services == now && one.next > Instant::now()) {
                continue;
            }
            (one.services, one.running) = (now, true);
            let (server, etag) = (server.clone(), one.etag.clone());
            running.spawn(async move {
                let backend = own[0].backend.clone();
                Answered { backend, document: ask(&server, &own, &etag).await }
            });
        }
        server.aggregation.found.publish(list(&remotes, &asked));
        let next = asked.iter().filter(|a| !a.running).map(|a| a.next).min();
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            Some(ended) = running.join_next() => match ended {
                Ok(answer) => {
                    if let Some(one) = asked.iter_mut().find(|a| Arc::ptr_eq(&a.backend, &answer.backend)) {
                        one.take(answer.document);
                    }
                }
                Err(e) => {
                    tracing::error!(error = %e, "reading the discovery of another server broke");
                    asked.iter_mut().for_each(|a| a.running = false);
                }
            },
        }
    }
}

impl Asked {
    fn new(backend: Arc<Backend>) -> Self {
        Self {
            backend,
            services: Vec::new(),
            etag: String::new(),
            known: Arc::default(),
            // Nothing is known of it yet.
            stale: true,
            next: Instant::now(),
            failures: 0,
            running: false,
        }
    }

    fn take(&mut self, document: Result<Option<(String, Document)>, String>) {
        self.running = false;
        match document {
            Ok(document) => {
                if let Some((etag, document)) = document {
                    (self.etag, self.known) = (etag, Arc::new(document));
                }
                (self.stale, self.failures) = (false, 0);
                self.next = Instant::now() + REFRESH;
            }
            Err(why) => {
                tracing::debug!(service = self.backend.server_name(), why, "no discovery of another server");
                self.stale = true;
                self.next = Instant::now() + (RETRY * 2u32.saturating_pow(self.failures.min(8))).min(REFRESH);
                self.failures += 1;
            }
        }
    }
}

fn list(remotes: &[&Arc<Remote>], asked: &[Asked]) -> Vec<Listed> {
    let named = remotes.iter().filter(|r| !r.group.is_empty());
    named
        .map(|r| {
            let asked = asked.iter().find(|a| Arc::ptr_eq(&a.backend, &r.backend));
            let key = (r.group.clone(), r.version.clone());
            Listed {
                resources: asked.and_then(|a| a.known.get(&key)).cloned().unwrap_or_default(),
                stale: asked.is_none_or(|a| a.stale),
                group: key.0,
                version: key.1,
                group_priority: r.group_priority,
                version_priority: r.version_priority,
            }
        })
        .collect()
}

/// What a server serves of the versions that are registered; none when that is still what the tag was given for.
async fn ask(
    server: &Arc<Server>,
    remotes: &[Arc<Remote>],
    etag: &str,
) -> Result<Option<(String, Document)>, String> {
    let aggregation = &server.aggregation;
    let (host, port) = aggregation.address(&server.storage, &remotes[0])?;
    let transport = remotes[0].backend.transport(&aggregation.identity).await?;
    let base = format!("https://{}", authority(&host, port));
    let mut headers = vec![(ACCEPT, AGGREGATED)];
    if !etag.is_empty() {
        headers.push((IF_NONE_MATCH, etag));
    }
    let answer =
        transport.ask(&format!("{base}/apis"), &aggregator(&["system:masters"]), &headers, LIMITS).await?;
    match answer.status {
        StatusCode::NOT_MODIFIED if !etag.is_empty() => Ok(None),
        StatusCode::SERVICE_UNAVAILABLE => Err("the server answered with status 503".to_owned()),
        StatusCode::OK if is_aggregated(&answer) => {
            let tag = answer.headers.get(ETAG).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
            Ok(Some((tag, read_aggregated(&read(&answer)?, remotes))))
        }
        _ => {
            let mut document = Document::new();
            for remote in remotes {
                let resources = legacy(&transport, &base, remote).await?;
                document.insert((remote.group.clone(), remote.version.clone()), Arc::new(resources));
            }
            Ok(Some((String::new(), document)))
        }
    }
}

fn is_aggregated(answer: &Answer) -> bool {
    let kind = answer.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.contains("g=apidiscovery.k8s.io") && kind.contains("as=APIGroupDiscoveryList")
}

fn read(answer: &Answer) -> Result<Value, String> {
    api::json::decode(&answer.body).map(|d| d.value).map_err(|e| e.to_string())
}

fn read_aggregated(list: &Value, remotes: &[Arc<Remote>]) -> Document {
    let mut document = Document::new();
    for group in list.array_at(&["items"]) {
        for version in group.array_at(&["versions"]) {
            let key = (group.name(), version.str_at(&["version"]));
            if remotes.iter().any(|r| (r.group.as_str(), r.version.as_str()) == key) {
                let resources = version.array_at(&["resources"]).iter().filter_map(resource).collect();
                document.insert((key.0.to_owned(), key.1.to_owned()), Arc::new(resources));
            }
        }
    }
    document
}

async fn legacy(transport: &Transport, base: &str, remote: &Remote) -> Result<Vec<Value>, String> {
    let url = match remote.group.as_str() {
        "" => format!("{base}/api/{}", remote.version),
        group => format!("{base}/apis/{group}/{}", remote.version),
    };
    let answer = transport.ask(&url, &aggregator(&[]), &[(ACCEPT, "application/json")], LIMITS).await?;
    if answer.status != StatusCode::OK {
        return Err(format!("the server answered with status {} for {url}", answer.status.as_u16()));
    }
    Ok(from_legacy(&read(&answer)?))
}

/// The fields of `names` that are there.
fn picked(from: &Value, names: &[&str]) -> Value {
    let mut out = Value::object();
    for name in names {
        let value = from.get(name);
        if !value.is_null() {
            out.set(&[name], value);
        }
    }
    out
}

fn kind_of(from: &Value) -> Value {
    object!({"group": (from.str_at(&["group"])), "version": (from.str_at(&["version"])), "kind": (from.str_at(&["kind"]))})
}

/// A resource of an aggregated document, with the members that are known.
fn resource(from: &Value) -> Option<Value> {
    from.get("resource").as_str().filter(|name| !name.is_empty())?;
    let mut out = picked(from, &["resource"]);
    // Some clients cannot do without.
    out.set(&["responseKind"], kind_of(from.get("responseKind")));
    for (name, value) in
        picked(from, &["scope", "singularResource", "verbs", "shortNames", "categories"]).as_object()?.iter()
    {
        out.set(&[name], value);
    }
    let subresources: Vec<Value> = from
        .array_at(&["subresources"])
        .iter()
        .map(|s| {
            let mut out = picked(s, &["subresource"]);
            out.set(&["responseKind"], kind_of(s.get("responseKind")));
            out.set(&["verbs"], s.get("verbs"));
            out
        })
        .collect();
    if !subresources.is_empty() {
        out.set(&["subresources"], subresources);
    }
    Some(out)
}

/// The resources of an APIResourceList.
fn from_legacy(list: &Value) -> Vec<Value> {
    let mut resources: Vec<Value> = Vec::new();
    let all = list.array_at(&["resources"]);
    for one in all.iter().filter(|r| !plain(r).contains('/') && !plain(r).is_empty()) {
        let mut out = object!({
            "resource": (plain(one)),
            "responseKind": (kind_of(one)),
            "scope": (if one.get("namespaced").as_bool() == Some(true) { "Namespaced" } else { "Cluster" }),
            "singularResource": (one.str_at(&["singularName"])),
            "verbs": (one.get("verbs").clone()),
        });
        for name in ["shortNames", "categories"] {
            if !one.array_at(&[name]).is_empty() {
                out.set(&[name], one.get(name));
            }
        }
        let prefix = format!("{}/", plain(one));
        let subresources: Vec<Value> = all
            .iter()
            .filter_map(|s| Some((plain(s).strip_prefix(&prefix)?, s)))
            .map(|(name, s)| {
                object!({"subresource": name, "responseKind": (kind_of(s)), "verbs": (s.get("verbs").clone())})
            })
            .collect();
        if !subresources.is_empty() {
            out.set(&["subresources"], subresources);
        }
        resources.push(out);
    }
    resources
}

/// The name of a resource in an APIResourceList, which has no metadata.
fn plain(resource: &Value) -> &str {
    resource.str_at(&["name"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_old_servers_are_turned_into_aggregated_ones() {
        let list = object!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get", "patch"]},
            {"name": "fischers", "singularName": "fischer", "namespaced": false, "kind": "Fischer", "verbs": ["list"]},
        ]});
        let kind = |kind: &str| object!({"group": "", "version": "", "kind": kind});
        let flunders = object!({
            "resource": "flunders", "responseKind": (kind("Flunder")), "scope": "Namespaced",
            "singularResource": "flunder", "verbs": ["get"], "shortNames": ["fl"],
            "subresources": [{"subresource": "status", "responseKind": (kind("Flunder")), "verbs": ["get", "patch"]}],
        });
        let fischers = object!({
            "resource": "fischers", "responseKind": (kind("Fischer")), "scope": "Cluster",
            "singularResource": "fischer", "verbs": ["list"],
        });
        assert_eq!(from_legacy(&list), [flunders, fischers]);
    }

    #[test]
    fn what_is_no_resource_is_left_out() {
        assert_eq!(resource(&object!({"scope": "Cluster"})), None);
        assert_eq!(resource(&Value::from("x")), None);
        let out = resource(&object!({"resource": "a", "hostile": {"a": "b"}})).unwrap();
        assert_eq!(out, object!({"resource": "a", "responseKind": (kind_of(&Value::Null))}));
    }
}
