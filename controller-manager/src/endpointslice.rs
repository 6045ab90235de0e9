//! EndpointSlices: for each Service with a selector, slices that list its pods' addresses and conditions.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Map, Value, object};
use client::resource::ENDPOINT_SLICES;
use client::{Key, Next, Queue};

use crate::act::{Action, head};
use crate::context::Context;
use crate::endpoints::{follow_pods, hostname, is_headless, is_listed, selector, target_port};
use crate::informers::BY_SERVICE;
use crate::objects::{is_ready, owner_reference};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const US: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let i = &cx.informers;
    let (services, pods, slices, nodes) = (i.services(), i.pods(), i.endpoint_slices(), i.nodes());
    Context::follow(services, &queue);
    follow_pods(pods, services, &queue);
    let changed = queue.clone();
    slices.on_change(move |change| {
        let slice = change.object();
        if let (Some(US), Some(service)) = (slice.label(MANAGED_BY), slice.label(SERVICE_NAME)) {
            changed.add(Key::new(slice.namespace(), service));
        }
    });
    let caches = [services, pods, slices, nodes];
    cx.work(queue, cx.config.workers.endpointslice, &caches, reconcile);
}

async fn reconcile(cx: Context, key: Key) -> anyhow::Result<Next> {
    let i = &cx.informers;
    // Slices of a Service that is gone are the garbage collector's.
    let Some(service) = i.services().store().get(&key) else { return Ok(Next::Done) };
    let Some(selector) = selector(&service) else { return Ok(Next::Done) };
    if service.is_terminating() {
        return Ok(Next::Done);
    }
    let mut pods = i.pods().store().in_namespace(key.namespace());
    pods.retain(|p| selector.matches_object(p) && is_listed(p, true));
    let zone = |node: &str| {
        let node = i.nodes().store().find("", node)?;
        node.label("topology.kubernetes.io/zone").map(str::to_owned)
    };
    let groups = groups(&service, &pods, &zone);
    let mut slices = i.endpoint_slices().store().by_index(BY_SERVICE, key.as_str());
    slices.retain(|s| s.label(MANAGED_BY) == Some(US) && !s.is_terminating());
    cx.apply(plan(&service, groups, &slices, cx.config.max_endpoints_per_slice)).await
}

/// Endpoints that share an address type and ports.
struct Group {
    family: &'static str,
    ports: Value,
    endpoints: BTreeMap<String, Value>,
}

fn families(service: &Value) -> Vec<&'static str> {
    let listed = service.array_at(&["spec", "ipFamilies"]);
    let v6 = |f: &Value| if f.as_str() == Some("IPv6") { "IPv6" } else { "IPv4" };
    if listed.is_empty() { vec!["IPv4"] } else { listed.iter().map(v6).collect() }
}

fn groups(service: &Value, pods: &[Arc<Value>], zone: &dyn Fn(&str) -> Option<String>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for family in families(service) {
        let before = groups.len();
        for pod in pods {
            let Some(ports) = ports(service, pod) else { continue };
            let Some(endpoint) = endpoint(service, pod, family, zone) else { continue };
            let at =
                groups.iter().position(|g| g.family == family && g.ports == ports).unwrap_or_else(|| {
                    groups.push(Group { family, ports, endpoints: BTreeMap::new() });
                    groups.len() - 1
                });
            groups[at].endpoints.insert(pod.uid().to_owned(), endpoint);
        }
        if groups.len() == before {
            // A slice without endpoints says that there are none.
            groups.push(Group { family, ports: Value::Null, endpoints: BTreeMap::new() });
        }
    }
    groups
}

/// The ports of a pod for a Service; none when it has none of them.
fn ports(service: &Value, pod: &Value) -> Option<Value> {
    let wanted = service.array_at(&["spec", "ports"]);
    if wanted.is_empty() {
        return is_headless(service).then(|| Value::Array(Vec::new()));
    }
    let found = wanted.iter().filter_map(|port| {
        let mut out = object!({
            "name": (port.str_at(&["name"])),
            "port": (target_port(port, pod)?),
            "protocol": (port.get("protocol")),
        });
        let app = port.get("appProtocol");
        if !app.is_empty() {
            out.set(&["appProtocol"], app);
        }
        Some(out)
    });
    let mut ports: Vec<Value> = found.collect();
    ports.sort_by_cached_key(Value::to_json);
    (!ports.is_empty()).then(|| Value::from(ports))
}

fn endpoint(
    service: &Value,
    pod: &Value,
    family: &str,
    zone: &dyn Fn(&str) -> Option<String>,
) -> Option<Value> {
    let ips = pod.array_at(&["status", "podIPs"]).iter().map(|ip| ip.str_at(&["ip"]));
    let fits = |ip: &&str| !ip.is_empty() && ip.contains(':') == (family == "IPv6");
    let ip = ips.chain([pod.str_at(&["status", "podIP"])]).find(fits)?;
    let unready_too = service.at(&["spec", "publishNotReadyAddresses"]).as_bool() == Some(true);
    let (serving, terminating) = (is_ready(pod), pod.is_terminating());
    let mut endpoint = object!({
        "addresses": [ip],
        "conditions": {
            "ready": (unready_too || (serving && !terminating)),
            "serving": serving,
            "terminating": terminating,
        },
    });
    if let Some(name) = hostname(pod, service) {
        endpoint.set(&["hostname"], name);
    }
    let target = object!({
        "kind": "Pod", "namespace": (pod.namespace()), "name": (pod.name()), "uid": (pod.uid()),
    });
    endpoint.set(&["targetRef"], target);
    let node = pod.str_at(&["spec", "nodeName"]);
    if !node.is_empty() {
        endpoint.set(&["nodeName"], node);
    }
    if let Some(zone) = zone(node) {
        endpoint.set(&["zone"], zone);
    }
    Some(endpoint)
}

fn labels(service: &Value) -> Value {
    let mut labels: Map = service.at(&["metadata", "labels"]).as_object().cloned().unwrap_or_default();
    labels.retain(|k, _| !matches!(k, HEADLESS | SERVICE_NAME | MANAGED_BY));
    if is_headless(service) {
        labels.insert(HEADLESS, "");
    }
    labels.insert(SERVICE_NAME, service.name());
    labels.insert(MANAGED_BY, US);
    Value::Object(labels)
}

/// Changes as few slices as will do: endpoints stay where they are, new ones fill what room there is.
fn plan(service: &Value, groups: Vec<Group>, slices: &[Arc<Value>], max: usize) -> Vec<Action> {
    let labels = labels(service);
    let mut free: Vec<&Arc<Value>> = slices.iter().collect();
    free.sort_by_key(|s| s.name());
    let (mut writes, mut leftovers) = (Vec::new(), Vec::new());
    for group in groups {
        let fits = |s: &Value| s.str_at(&["addressType"]) == group.family && same_ports(s, &group.ports);
        let (own, rest) = free.into_iter().partition(|s| fits(s));
        free = rest;
        leftovers.push((group, own));
    }
    for (mut group, mut own) in leftovers {
        if own.is_empty()
            && let Some(at) = free.iter().position(|s| s.str_at(&["addressType"]) == group.family)
        {
            own.push(free.remove(at));
        }
        writes.extend(place(service, &labels, &mut group, &own, max, &mut free));
    }
    // Only now: nothing may be missing from all slices in between.
    writes.extend(free.into_iter().map(|s| Action::delete(ENDPOINT_SLICES, s)));
    writes
}

fn same_ports(slice: &Value, ports: &Value) -> bool {
    let found = slice.get("ports");
    found == ports || (found.is_empty() && ports.is_empty())
}

/// Puts a group's endpoints into its slices and new ones; slices left empty go to `spare`.
fn place<'s>(
    service: &Value,
    labels: &Value,
    group: &mut Group,
    own: &[&'s Arc<Value>],
    max: usize,
    spare: &mut Vec<&'s Arc<Value>>,
) -> Vec<Action> {
    let mut writes = Vec::new();
    let mut filled: Vec<(&Arc<Value>, Vec<Value>)> = Vec::new();
    for slice in own {
        let stay = slice.array_at(&["endpoints"]).iter();
        let stay = stay.filter_map(|e| group.endpoints.remove(e.str_at(&["targetRef", "uid"])));
        filled.push((slice, stay.collect()));
    }
    let mut waiting = std::mem::take(&mut group.endpoints).into_values();
    for (_, endpoints) in &mut filled {
        let room = max.saturating_sub(endpoints.len());
        endpoints.extend(waiting.by_ref().take(room));
    }
    let waiting: Vec<Value> = waiting.collect();
    let any = filled.iter().any(|(_, e)| !e.is_empty()) || !waiting.is_empty();
    for (i, (slice, endpoints)) in filled.into_iter().enumerate() {
        // One empty slice stays when there is nothing to list.
        if endpoints.is_empty() && (any || i > 0) {
            spare.push(slice);
            continue;
        }
        let unchanged = slice.array_at(&["endpoints"]) == endpoints
            && slice.at(&["metadata", "labels"]) == labels
            && same_ports(slice, &group.ports);
        if !unchanged {
            writes.push(update(slice, labels, &group.ports, endpoints));
        }
    }
    if !waiting.is_empty() || (!any && own.is_empty()) {
        let mut chunks: Vec<Vec<Value>> = waiting.chunks(max).map(<[Value]>::to_vec).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        writes.extend(chunks.into_iter().map(|c| create(service, labels, group, c)));
    }
    writes
}

fn update(slice: &Value, labels: &Value, ports: &Value, endpoints: Vec<Value>) -> Action {
    let mut updated = slice.clone();
    updated.set(&["metadata", "labels"], labels);
    updated.set(&["ports"], ports);
    updated.set(&["endpoints"], endpoints);
    Action::Update(ENDPOINT_SLICES, updated)
}

fn create(service: &Value, labels: &Value, group: &Group, endpoints: Vec<Value>) -> Action {
    let mut name = format!("{}-", service.name());
    name.truncate(58);
    let slice = object!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": name,
            "namespace": (service.namespace()),
            "labels": labels,
            "ownerReferences": [(owner_reference(&as_service(service)))],
        },
        "addressType": (group.family),
        "endpoints": endpoints,
        "ports": (&group.ports),
    });
    Action::Create(ENDPOINT_SLICES, slice, None)
}

/// The head of a Service, with its type whether or not the cache kept it.
fn as_service(service: &Value) -> Value {
    let mut head = head(service);
    head.set(&["apiVersion"], "v1");
    head.set(&["kind"], "Service");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Value {
        object!({
            "metadata": {"namespace": "d", "name": "web", "uid": "s", "labels": {"l": "1"}},
            "spec": {
                "clusterIP": "10.43.0.9", "ipFamilies": ["IPv4"], "selector": {"a": "b"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            },
        })
    }

    fn pod(n: usize, ready: bool) -> Arc<Value> {
        let status = if ready { "True" } else { "False" };
        let (name, ip) = (format!("p{n}"), format!("10.42.0.{n}"));
        Arc::new(object!({
            "metadata": {"namespace": "d", "name": (&name), "uid": (&name)},
            "spec": {"nodeName": "n1"},
            "status": {
                "phase": "Running", "podIP": (&ip), "podIPs": [{"ip": (&ip)}],
                "conditions": [{"type": "Ready", "status": status}],
            },
        }))
    }

    fn run(service: &Value, pods: &[Arc<Value>], slices: &[Arc<Value>]) -> Vec<Action> {
        plan(service, groups(service, pods, &|_| Some("z".to_owned())), slices, 2)
    }

    /// The slices after the plan.
    fn after(slices: &[Arc<Value>], actions: &[Action]) -> Vec<Arc<Value>> {
        let mut slices = slices.to_vec();
        for (i, action) in actions.iter().enumerate() {
            match action {
                Action::Create(_, s, _) => {
                    let mut s = s.clone();
                    s.set(&["metadata", "name"], format!("web-{}-{i}", slices.len()));
                    slices.push(Arc::new(s));
                }
                Action::Update(_, s) => {
                    let at = slices.iter().position(|o| o.name() == s.name()).unwrap();
                    slices[at] = Arc::new(s.clone());
                }
                Action::Delete(_, s, ..) => slices.retain(|o| o.name() != s.name()),
                other => panic!("{other:?}"),
            }
        }
        slices
    }

    #[test]
    fn slices_follow_the_pods_and_settle() {
        let service = service();
        let none = after(&[], &run(&service, &[], &[]));
        assert_eq!(none.len(), 1, "an empty slice says there are none");
        assert!(run(&service, &[], &none).is_empty());
        let pods = [pod(1, true), pod(2, false), pod(3, true)];
        let some = after(&none, &run(&service, &pods, &none));
        assert_eq!(some.len(), 2);
        assert!(run(&service, &pods, &some).is_empty());
        let endpoint = &some[0].array_at(&["endpoints"])[0];
        assert_eq!(endpoint.at(&["conditions", "ready"]).as_bool(), Some(true));
        assert_eq!(endpoint.str_at(&["zone"]), "z");
        assert_eq!(some[0].label(SERVICE_NAME), Some("web"));
        let fewer = after(&some, &run(&service, &pods[2..], &some));
        assert_eq!(fewer.len(), 1);
        assert!(run(&service, &pods[2..], &fewer).is_empty());
    }

    #[test]
    fn only_the_slice_of_a_changed_pod_is_written() {
        let service = service();
        let pods = [pod(1, true), pod(2, true), pod(3, true)];
        let slices = after(&[], &run(&service, &pods, &[]));
        let changed = [pod(1, true), pod(2, true), pod(3, false)];
        let actions = run(&service, &changed, &slices);
        assert!(matches!(actions[..], [Action::Update(..)]), "{actions:?}");
    }
}
