//! Endpoints: for each Service with a selector one object that lists its pods' addresses. The older form of EndpointSlices.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::selector::LabelSelector;
use api::{Map, Value, object};
use client::resource::ENDPOINTS;
use client::{Change, Informer, Key, Next, Queue};

use crate::act::Action;
use crate::context::Context;
use crate::objects::{is_finished, is_ready};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let (services, pods, endpoints) =
        (cx.informers.services(), cx.informers.pods(), cx.informers.endpoints());
    Context::follow(services, &queue);
    Context::follow(endpoints, &queue);
    follow_pods(pods, services, &queue);
    cx.work(queue, cx.config.workers.endpoint, &[services, pods, endpoints], reconcile);
}

/// Puts the Services that select a changed pod (or did) into the queue.
pub(crate) fn follow_pods(pods: &Informer<Value>, services: &Informer<Value>, queue: &Queue<Key>) {
    let (queue, services) = (queue.clone(), services.clone());
    pods.on_change(move |change: &Change<Value>| {
        let (new, old) = (change.object(), change.old());
        if old.is_some_and(|old| same_endpoint(old, new)) {
            return;
        }
        for service in services.store().in_namespace(new.namespace()) {
            let Some(selector) = selector(&service) else { continue };
            if selector.matches_object(new) || old.is_some_and(|o| selector.matches_object(o)) {
                queue.add(Key::of(&service));
            }
        }
    });
}

/// Whether two states of a pod make the same endpoint.
fn same_endpoint(a: &Value, b: &Value) -> bool {
    let paths: [&[&str]; 6] = [
        &["metadata", "labels"],
        &["metadata", "uid"],
        &["status", "podIPs"],
        &["status", "podIP"],
        &["spec", "nodeName"],
        &["status", "phase"],
    ];
    paths.iter().all(|p| a.at(p) == b.at(p))
        && is_ready(a) == is_ready(b)
        && a.is_terminating() == b.is_terminating()
}

/// The selector of a Service that has endpoints made for it.
pub(crate) fn selector(service: &Value) -> Option<LabelSelector> {
    let labels = service.at(&["spec", "selector"]);
    let made = !labels.is_empty() && service.str_at(&["spec", "type"]) != "ExternalName";
    made.then(|| LabelSelector::from_map(labels))
}

/// The number of the pod's port that a Service port means; none when the pod has no port of that name.
pub(crate) fn target_port(port: &Value, pod: &Value) -> Option<i64> {
    let target = port.get("targetPort");
    let Some(name) = target.as_str() else {
        return target.as_i64().filter(|n| *n != 0).or_else(|| port.get("port").as_i64());
    };
    let sidecars = pod.array_at(&["spec", "initContainers"]).iter();
    let sidecars = sidecars.filter(|c| c.str_at(&["restartPolicy"]) == "Always");
    let containers = pod.array_at(&["spec", "containers"]).iter().chain(sidecars);
    let protocol = |p: &Value| match p.str_at(&["protocol"]) {
        "" => "TCP".to_owned(),
        other => other.to_owned(),
    };
    containers
        .flat_map(|c| c.array_at(&["ports"]))
        .find(|p| p.str_at(&["name"]) == name && protocol(p) == protocol(port))
        .and_then(|p| p.get("containerPort").as_i64())
}

/// Whether a pod is listed at all: it has an address and has not ended.
pub(crate) fn is_listed(pod: &Value, terminating_too: bool) -> bool {
    !is_finished(pod)
        && !pod.str_at(&["status", "podIP"]).is_empty()
        && (terminating_too || !pod.is_terminating())
}

/// Whether the pod has a name of its own under the Service.
pub(crate) fn hostname<'p>(pod: &'p Value, service: &Value) -> Option<&'p str> {
    let name = pod.str_at(&["spec", "hostname"]);
    (!name.is_empty() && pod.str_at(&["spec", "subdomain"]) == service.name()).then_some(name)
}

pub(crate) fn is_headless(service: &Value) -> bool {
    matches!(service.str_at(&["spec", "clusterIP"]), "None" | "")
}

async fn reconcile(cx: Context, key: Key) -> anyhow::Result<Next> {
    let found = cx.informers.endpoints().store().get(&key);
    let Some(service) = cx.informers.services().store().get(&key) else {
        let ours = found.filter(|e| e.label(MANAGED_BY).is_some());
        return cx.apply(ours.map(|e| Action::delete(ENDPOINTS, &e)).into_iter().collect()).await;
    };
    let Some(selector) = selector(&service) else { return Ok(Next::Done) };
    let mut pods = cx.informers.pods().store().in_namespace(key.namespace());
    pods.retain(|p| selector.matches_object(p));
    cx.apply(plan(&service, &pods, found.as_deref())).await
}

fn plan(service: &Value, pods: &[Arc<Value>], found: Option<&Value>) -> Vec<Action> {
    let subsets = subsets(service, pods);
    let mut labels = service.at(&["metadata", "labels"]).as_object().cloned().unwrap_or_default();
    if is_headless(service) {
        labels.insert(HEADLESS, "");
    } else {
        labels.remove(HEADLESS);
    }
    labels.insert(MANAGED_BY, "endpoint-controller");
    let labels = Value::Object(labels);
    let Some(found) = found else {
        let object = object!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"namespace": (service.namespace()), "name": (service.name()), "labels": labels},
            "subsets": subsets,
        });
        return vec![Action::Create(ENDPOINTS, object, None)];
    };
    if found.array_at(&["subsets"]) == subsets && found.at(&["metadata", "labels"]) == &labels {
        return Vec::new();
    }
    let mut updated = found.clone();
    updated.set(&["metadata", "labels"], labels);
    updated.set(&["subsets"], subsets);
    vec![Action::Update(ENDPOINTS, updated)]
}

fn address(service: &Value, pod: &Value) -> Option<Value> {
    let v6 = service.array_at(&["spec", "ipFamilies"]).first().and_then(Value::as_str) == Some("IPv6");
    let ips = pod.array_at(&["status", "podIPs"]).iter().map(|ip| ip.str_at(&["ip"]));
    let ip =
        ips.chain([pod.str_at(&["status", "podIP"])]).find(|ip| ip.contains(':') == v6 && !ip.is_empty())?;
    let mut address = object!({"ip": ip});
    if let Some(name) = hostname(pod, service) {
        address.set(&["hostname"], name);
    }
    let node = pod.str_at(&["spec", "nodeName"]);
    if !node.is_empty() {
        address.set(&["nodeName"], node);
    }
    address.set(
        &["targetRef"],
        object!({"kind": "Pod", "namespace": (pod.namespace()), "name": (pod.name()), "uid": (pod.uid())}),
    );
    Some(address)
}

fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let ports = service.array_at(&["spec", "ports"]).iter().filter_map(|port| {
        let number = target_port(port, pod)?;
        let mut out = Map::new();
        for (key, value) in [
            ("name", port.get("name").clone()),
            ("port", Value::from(number)),
            ("protocol", port.get("protocol").clone()),
            ("appProtocol", port.get("appProtocol").clone()),
        ] {
            if !value.is_empty() {
                out.push(key, value);
            }
        }
        Some(Value::Object(out))
    });
    let mut ports: Vec<Value> = ports.collect();
    ports.sort_by_cached_key(Value::to_json);
    ports
}

/// Addresses that share their ports stand together.
fn subsets(service: &Value, pods: &[Arc<Value>]) -> Vec<Value> {
    let unready_too = service.at(&["spec", "publishNotReadyAddresses"]).as_bool() == Some(true);
    let mut groups: BTreeMap<Vec<u8>, Subset> = BTreeMap::new();
    for pod in pods.iter().filter(|p| is_listed(p, unready_too)) {
        let ports = ports(service, pod);
        let portless = service.array_at(&["spec", "ports"]).is_empty() && is_headless(service);
        let Some(address) = address(service, pod).filter(|_| portless || !ports.is_empty()) else { continue };
        let key = Value::from(ports.clone()).to_json();
        let group = groups.entry(key).or_insert_with(|| Subset { ports, ..Subset::default() });
        let ready = unready_too || is_ready(pod);
        (if ready { &mut group.ready } else { &mut group.unready }).push(address);
    }
    groups.into_values().map(Subset::into_value).collect()
}

/// Addresses that share their ports.
#[derive(Default)]
struct Subset {
    ports: Vec<Value>,
    ready: Vec<Value>,
    unready: Vec<Value>,
}

impl Subset {
    fn into_value(self) -> Value {
        let mut subset = Map::new();
        for (key, mut list) in [("addresses", self.ready), ("notReadyAddresses", self.unready)] {
            list.sort_by(|a, b| a.str_at(&["ip"]).cmp(b.str_at(&["ip"])));
            if !list.is_empty() {
                subset.push(key, Value::from(list));
            }
        }
        if !self.ports.is_empty() {
            subset.push("ports", Value::from(self.ports));
        }
        Value::Object(subset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_by_number_and_by_name() {
        let pod = object!({"spec": {"containers": [
            {"ports": [{"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
        ]}});
        let check = |port: Value, want: Option<i64>| assert_eq!(target_port(&port, &pod), want, "{port}");
        check(object!({"port": 80, "targetPort": 81}), Some(81));
        check(object!({"port": 80}), Some(80));
        check(object!({"port": 80, "targetPort": "web", "protocol": "TCP"}), Some(8080));
        check(object!({"port": 80, "targetPort": "dns", "protocol": "TCP"}), None);
        check(object!({"port": 80, "targetPort": "dns", "protocol": "UDP"}), Some(53));
    }
}
