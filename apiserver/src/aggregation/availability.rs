//! Whether the server behind each APIService can be reached: the condition Available in its status.
//!
//! An APIService is looked at when it, its Service or the endpoints change, and otherwise every half minute; one that
//! failed sooner at first. Mirrors the availability controllers of kube-aggregator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::error::Result;
use api::{Value, field, object};
use prometheus::{IntCounterVec, IntGaugeVec};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Remote, resolve};
use crate::authn::UserInfo;
use crate::registry::Call;
use crate::resources::TABLE;
use crate::server::Server;
use crate::starting::Step;
use crate::storage::Storage;

/// How often what did not change is looked at.
const AGAIN: Duration = Duration::from_secs(30);
/// How soon one that failed is looked at; the time doubles with each failure.
const RETRY: Duration = Duration::from_millis(100);
/// How many requests may try at a time; one that succeeds is enough.
const ATTEMPTS: usize = 5;
/// How long a try may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How much of an answer is read. Only its code counts.
const BODY: usize = 4 << 20;

/// A condition without its times.
#[derive(Clone, Debug, PartialEq)]
struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn no(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    fn local() -> Self {
        let message = "Local APIServices are always available".to_owned();
        Self { status: "True", reason: "Local", message }
    }

    fn passed() -> Self {
        Self { status: "True", reason: "Passed", message: "all checks passed".to_owned() }
    }
}

/// What was seen when an APIService was last looked at.
#[derive(PartialEq)]
struct Seen {
    service: i64,
    own: i64,
    endpoints: Vec<i64>,
}

struct Watched {
    seen: Seen,
    next: Instant,
    failures: u32,
    running: bool,
}

/// The metrics, by upstream's names.
struct Metrics {
    unavailable: IntGaugeVec,
    became: IntCounterVec,
}

impl Metrics {
    fn new(registry: &prometheus::Registry) -> std::result::Result<Self, prometheus::Error> {
        let unavailable = IntGaugeVec::new(
            prometheus::opts!(
                "aggregator_unavailable_apiservice",
                "[ALPHA] Gauge of APIServices which are marked as unavailable broken down by APIService name."
            ),
            &["name"],
        )?;
        let became = IntCounterVec::new(
            prometheus::opts!(
                "aggregator_unavailable_apiservice_total",
                "[ALPHA] Counter of APIServices which are marked as unavailable broken down by APIService name and reason."
            ),
            &["name", "reason"],
        )?;
        serve::metrics::register(registry, unavailable.clone());
        serve::metrics::register(registry, became.clone());
        Ok(Self { unavailable, became })
    }
}

/// Looks after all APIServices for ever.
pub async fn run(server: Arc<Server>) {
    let metrics = match Metrics::new(&server.metrics.registry) {
        Ok(metrics) => Arc::new(metrics),
        Err(e) => return tracing::error!(error = %e, "no metrics of APIServices"),
    };
    server.storage.loaded().await;
    let caches =
        [("apiregistration.k8s.io", "apiservices"), ("", "services"), ("discovery.k8s.io", "endpointslices")];
    let mut changes =
        caches.map(|(group, plural)| server.storage.cache(TABLE.store(group, plural)).subscribe());
    let mut known: BTreeMap<String, Watched> = BTreeMap::new();
    let mut running: JoinSet<(String, bool)> = JoinSet::new();
    loop {
        for change in &mut changes {
            change.mark_unchanged();
        }
        let due = look(&server, &mut known, &metrics);
        server.starting.done(Step::Availability);
        for (name, remote) in due {
            let (server, metrics) = (server.clone(), metrics.clone());
            running.spawn(async move {
                let passed = settle(&server, &name, remote.as_deref(), &metrics).await;
                (name, passed)
            });
        }
        let next = known.values().filter(|w| !w.running).map(|w| w.next).min();
        // Without other servers nothing depends on Services.
        let others = !server.aggregation.remotes(&server.storage).remotes.is_empty();
        let [one, two, three] = &mut changes;
        tokio::select! {
            _ = one.changed() => {}
            _ = two.changed(), if others => {}
            _ = three.changed(), if others => {}
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            Some(ended) = running.join_next() => match ended {
                Ok((name, passed)) => if let Some(watched) = known.get_mut(&name) {
                    watched.running = false;
                    watched.failures = if passed { 0 } else { watched.failures + 1 };
                    let pause = RETRY * 2u32.saturating_pow(watched.failures.saturating_sub(1)).min(300);
                    watched.next = Instant::now() + if passed { AGAIN } else { pause.min(AGAIN) };
                },
                Err(e) => {
                    tracing::error!(error = %e, "the check of an APIService broke");
                    known.values_mut().for_each(|w| w.running = false);
                }
            },
        }
    }
}

type Due = Vec<(String, Option<Arc<Remote>>)>;

/// The APIServices to look at now, those of other servers with who they are.
fn look(server: &Arc<Server>, known: &mut BTreeMap<String, Watched>, metrics: &Metrics) -> Due {
    let services = server.aggregation.remotes(&server.storage);
    known.retain(|name, _| {
        let kept = services.snapshot.objects.contains_key(name.as_str());
        if !kept {
            // A name that comes back begins anew.
            drop(metrics.unavailable.remove_label_values(&[name]));
        }
        kept
    });
    let now = Instant::now();
    let mut due = Vec::new();
    for (name, stored) in &services.snapshot.objects {
        let remote = services.remotes.get(&**name);
        let seen = Seen {
            service: stored.revision,
            own: remote.map_or(0, |r| service_revision(&server.storage, r)),
            endpoints: remote.map_or_else(Vec::new, |r| {
                resolve::slices(&server.storage, &r.backend).iter().map(|s| s.revision).collect()
            }),
        };
        match known.get_mut(&**name) {
            Some(watched) if watched.running => continue,
            Some(watched) => {
                let late = remote.is_some() && watched.next <= now;
                if watched.seen == seen && !late {
                    continue;
                }
                (watched.seen, watched.running) = (seen, true);
            }
            None => {
                known.insert(name.to_string(), Watched { seen, next: now, failures: 0, running: true });
            }
        }
        due.push((name.to_string(), remote.cloned()));
    }
    // What is served here is looked at when it changes alone.
    for (name, watched) in known.iter_mut().filter(|(name, _)| !services.remotes.contains_key(*name)) {
        if !due.iter().any(|(n, _)| n == name) {
            watched.next = now + AGAIN * 1000;
        }
    }
    due
}

fn service_revision(storage: &Storage, remote: &Remote) -> i64 {
    let key = format!("{}/{}", remote.backend.namespace, remote.backend.service);
    storage.cache(TABLE.store("", "services")).get(&key).map_or(0, |s| s.revision)
}

/// Finds out about an APIService and writes it down; false when it is to be looked at again soon.
async fn settle(server: &Arc<Server>, name: &str, remote: Option<&Remote>, metrics: &Metrics) -> bool {
    let verdict = match remote {
        None => Verdict::local(),
        Some(remote) => check(server, remote).await,
    };
    let available = verdict.status == "True";
    metrics.unavailable.with_label_values(&[name]).set(i64::from(!available));
    let passed = available || verdict.reason != "FailedDiscoveryCheck";
    match write(server, name, &verdict).await {
        Ok(false) => passed,
        Ok(true) => {
            if !available {
                metrics.became.with_label_values(&[name, verdict.reason]).inc();
            }
            tracing::info!(
                name,
                status = verdict.status,
                reason = verdict.reason,
                message = verdict.message,
                "changed the availability of an APIService"
            );
            passed
        }
        Err(e) => {
            tracing::warn!(name, error = %e, "could not write the status of an APIService");
            false
        }
    }
}

/// Writes the condition; false when it is there already.
async fn write(server: &Arc<Server>, name: &str, verdict: &Verdict) -> Result<bool> {
    let cached = server.storage.cache(TABLE.store("apiregistration.k8s.io", "apiservices")).get(name);
    let Some(present) = cached.map(|s| s.object()) else { return Ok(false) };
    if with(&present, verdict) == present {
        return Ok(false);
    }
    let row = TABLE.find_any_version("apiregistration.k8s.io", "apiservices").expect("a built-in resource");
    let mut call = Call::new(server.clone(), row, UserInfo::server());
    call.name = name.to_owned();
    call.subresource = "status".to_owned();
    call.write.manager = "kube-apiserver".to_owned();
    // What was found out is about the spec that was looked at.
    let written = call
        .update(|old| {
            Ok(if old.get("spec") == present.get("spec") { with(old, verdict) } else { old.clone() })
        })
        .await;
    match written {
        Err(e) if e.is_not_found() => Ok(false),
        written => written.map(|_| true),
    }
}

/// The APIService with the condition; its time changes with the status alone.
fn with(service: &Value, verdict: &Verdict) -> Value {
    let mut new = service.clone();
    let now = api::time::format(jiff::Timestamp::now());
    let conditions = new.make_object().entry("status").make_object().entry("conditions").make_array();
    match conditions.iter_mut().find(|c| c.str_at(&["type"]) == "Available") {
        Some(condition) => {
            if condition.str_at(&["status"]) != verdict.status {
                condition.set(&["status"], verdict.status);
                condition.set(&["lastTransitionTime"], now);
            }
            condition.set(&["reason"], verdict.reason);
            condition.set(&["message"], verdict.message.as_str());
        }
        None => conditions.push(object!({
            "type": "Available", "status": (verdict.status), "lastTransitionTime": now,
            "reason": (verdict.reason), "message": (verdict.message.as_str()),
        })),
    }
    new
}

async fn check(server: &Arc<Server>, remote: &Remote) -> Verdict {
    if let Some(verdict) = check_objects(&server.storage, remote) {
        return verdict;
    }
    let transport = match remote.backend.transport(&server.aggregation.identity).await {
        Ok(transport) => transport,
        Err(why) => return Verdict::no("FailedDiscoveryCheck", why),
    };
    let mut attempts = JoinSet::new();
    for _ in 0..ATTEMPTS {
        let address = server.aggregation.address(&server.storage, remote);
        let (group, version) = (remote.group.clone(), remote.version.clone());
        let transport = transport.clone();
        attempts.spawn(async move {
            let (host, port) = address?;
            let path =
                if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
            let url = format!("https://{}{path}", crate::proxy::authority(&host, port));
            let user = aggregator(&["system:masters"]);
            let failed = |why: String| format!("failing or missing response from {url}: {why}");
            match transport.ask(&url, &user, &[], (LIMIT, BODY)).await {
                Ok(a) if a.status.is_success() => Ok(()),
                Ok(a) => Err(failed(format!("bad status from {url}: {}", a.status.as_u16()))),
                Err(why) => Err(failed(format!("Get {}: {why}", field::go_quote(&url)))),
            }
        });
    }
    let mut last = String::new();
    while let Some(ended) = attempts.join_next().await {
        match ended {
            Ok(Ok(())) => return Verdict::passed(),
            Ok(Err(why)) => last = why,
            Err(e) => last = e.to_string(),
        }
    }
    Verdict::no("FailedDiscoveryCheck", last)
}

/// The user as whom the server asks others for itself.
pub(super) fn aggregator(groups: &[&str]) -> UserInfo {
    let groups = groups.iter().map(|g| (*g).to_owned()).collect();
    UserInfo { name: "system:kube-aggregator".to_owned(), groups, ..UserInfo::default() }
}

/// What the Service and its endpoints already say against it.
fn check_objects(storage: &Storage, remote: &Remote) -> Option<Verdict> {
    let backend = &remote.backend;
    let named = format!("service/{} in {}", backend.service, field::go_quote(&backend.namespace));
    let key = format!("{}/{}", backend.namespace, backend.service);
    let Some(service) = storage.cache(TABLE.store("", "services")).get(&key).map(|s| s.object()) else {
        return Some(Verdict::no("ServiceNotFound", format!("{named} is not present")));
    };
    if service.str_at(&["spec", "type"]) != "ClusterIP" {
        return None;
    }
    let Ok(port) = resolve::service_port(&service, backend) else {
        let why = format!("{named} is not listening on port {}", backend.port);
        return Some(Verdict::no("ServicePortError", why));
    };
    let slices: Vec<Value> = resolve::slices(storage, backend).iter().map(|s| s.object()).collect();
    if slices.is_empty() {
        return Some(Verdict::no("EndpointsNotFound", format!("cannot find endpointslices for {named}")));
    }
    let name = port.str_at(&["name"]);
    let serves = |slice: &Value| {
        slice.array_at(&["endpoints"]).iter().any(resolve::is_ready)
            && slice
                .array_at(&["ports"])
                .iter()
                .any(|p| p.str_at(&["name"]) == name && !p.get("port").is_null())
    };
    if slices.iter().any(serves) {
        return None;
    }
    let why =
        format!("endpointslices for {named} have no addresses with port name {}", field::go_quote(name));
    Some(Verdict::no("MissingEndpoints", why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_condition_changes_with_its_status_alone() {
        let time = "2020-01-01T00:00:00Z";
        let old = object!({"status": {"conditions": [
            {"type": "Other", "status": "True"},
            {"type": "Available", "status": "False", "lastTransitionTime": time, "reason": "ServiceNotFound", "message": "m"},
        ]}});
        let at = |value: &Value| {
            value.array_at(&["status", "conditions"])[1].str_at(&["lastTransitionTime"]).to_owned()
        };
        let same = with(&old, &Verdict::no("ServiceNotFound", "m".to_owned()));
        assert_eq!(same, old);
        let other = with(&old, &Verdict::no("MissingEndpoints", "n".to_owned()));
        assert_eq!((at(&other), other != old), (time.to_owned(), true));
        assert_ne!(at(&with(&old, &Verdict::passed())), time);
        let first = with(&Value::object(), &Verdict::local());
        assert_eq!(first.array_at(&["status", "conditions"]).len(), 1);
    }
}
