//! Endpoints that somebody writes by hand, for a Service without a selector, are mirrored into EndpointSlices: one for each
//! address family and set of ports.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::{Map, Value, object};
use client::events::Kind;
use client::resource::ENDPOINT_SLICES;
use client::{Key, Next, Queue};

use crate::act::{Action, head};
use crate::context::Context;
use crate::informers::BY_SERVICE;
use crate::objects::{canonical, owner_reference};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const US: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Annotations that are about the Endpoints alone.
const OWN_ANNOTATIONS: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let i = &cx.informers;
    let (endpoints, services, slices) = (i.endpoints(), i.services(), i.endpoint_slices());
    let changed = queue.clone();
    endpoints.on_change(move |change| {
        let (new, old) = (change.object(), change.old());
        if is_mirrored(new) || old.is_some_and(|o| is_mirrored(o)) {
            changed.add(Key::of(new));
        }
    });
    let changed = queue.clone();
    services.on_change(move |change| {
        let selects = |s: &Value| !s.at(&["spec", "selector"]).is_empty();
        let new = selects(change.object());
        if change.old().map_or(!new, |old| selects(old) != new) {
            changed.add(Key::of(change.object()));
        }
    });
    let changed = queue.clone();
    slices.on_change(move |change| {
        for slice in change.old().into_iter().chain([change.object()]) {
            if let (Some(US), Some(service)) = (slice.label(MANAGED_BY), slice.label(SERVICE_NAME)) {
                changed.add(Key::new(slice.namespace(), service));
            }
        }
    });
    cx.work(queue, cx.config.workers.mirroring, &[endpoints, services, slices], reconcile);
}

/// Neither what asks not to be, nor what is a lock and not an address.
fn is_mirrored(endpoints: &Value) -> bool {
    endpoints.label(SKIP) != Some("true") && endpoints.annotation(LEADER).is_none()
}

async fn reconcile(cx: Context, key: Key) -> anyhow::Result<Next> {
    let i = &cx.informers;
    let mut slices = i.endpoint_slices().store().by_index(BY_SERVICE, key.as_str());
    slices.retain(|s| s.label(MANAGED_BY) == Some(US) && !s.is_terminating());
    slices.sort_by(|a, b| a.name().cmp(b.name()));
    let service = i.services().store().get(&key).filter(|s| s.at(&["spec", "selector"]).is_empty());
    let endpoints = i.endpoints().store().get(&key).filter(|e| is_mirrored(e) && service.is_some());
    let actions = match endpoints {
        Some(endpoints) => plan(&endpoints, &slices, cx.config.max_mirrored_endpoints),
        None => slices.iter().map(|s| Action::delete(ENDPOINT_SLICES, s)).collect(),
    };
    cx.apply(actions).await
}

/// A port as it is compared: name, number, protocol, application protocol.
type Port = (String, i64, String, String);

fn ports_of(holder: &Value) -> Vec<Port> {
    let ports = holder.array_at(&["ports"]).iter();
    let text = |p: &Value, key: &str| p.str_at(&[key]).to_owned();
    let mut ports: Vec<Port> = ports
        .map(|p| {
            let protocol = Some(text(p, "protocol")).filter(|t| !t.is_empty());
            let protocol = protocol.unwrap_or_else(|| "TCP".to_owned());
            (text(p, "name"), p.get("port").as_i64().unwrap_or(0), protocol, text(p, "appProtocol"))
        })
        .collect();
    ports.sort();
    ports.dedup();
    ports
}

fn show(port: &Port) -> Value {
    let (name, number, protocol, app) = port;
    let mut shown = object!({"name": name, "port": (*number), "protocol": protocol});
    if !app.is_empty() {
        shown.set(&["appProtocol"], app.as_str());
    }
    shown
}

/// What the Endpoints say, by address family and ports; and how many addresses are none, and too many.
#[derive(Default)]
struct Wanted {
    groups: BTreeMap<(&'static str, Vec<Port>), BTreeMap<IpAddr, Value>>,
    invalid: usize,
    surplus: usize,
}

fn wanted(endpoints: &Value, max: usize) -> Wanted {
    let mut wanted = Wanted::default();
    let mut sizes: BTreeMap<Vec<Port>, usize> = BTreeMap::new();
    for subset in endpoints.array_at(&["subsets"]) {
        let ports = ports_of(subset);
        let size = sizes.entry(ports.clone()).or_default();
        for (list, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in subset.array_at(&[list]) {
                let ip = address.str_at(&["ip"]).parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
                let family = if ip.is_some_and(|ip| ip.is_ipv4()) { "IPv4" } else { "IPv6" };
                let key = (family, ports.clone());
                let known = ip.and_then(|ip| wanted.groups.get_mut(&key)?.get_mut(&ip));
                match (known, ip) {
                    // Listed twice, it is ready only if it is so everywhere.
                    (Some(known), _) if !ready => known.set(&["conditions", "ready"], false),
                    (Some(_), _) => {}
                    (None, _) if *size >= max => wanted.surplus += 1,
                    (None, None) => wanted.invalid += 1,
                    (None, Some(ip)) => {
                        *size += 1;
                        wanted.groups.entry(key).or_default().insert(ip, endpoint(ip, address, ready));
                    }
                }
            }
        }
    }
    wanted
}

fn endpoint(ip: IpAddr, address: &Value, ready: bool) -> Value {
    let mut endpoint = object!({"addresses": [(ip.to_string())], "conditions": {"ready": ready}});
    for key in ["hostname", "nodeName", "targetRef"] {
        let value = address.get(key);
        if !value.is_empty() {
            endpoint.set(&[key], value);
        }
    }
    endpoint
}

fn plan(endpoints: &Value, slices: &[Arc<Value>], max: usize) -> Vec<Action> {
    let Wanted { groups, invalid, surplus } = wanted(endpoints, max);
    let mut actions = Vec::new();
    let mut warn = |reason, text| actions.push(Action::Event(head(endpoints), Kind::Warning, reason, text));
    if invalid > 0 {
        let text = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        warn("InvalidIPAddress", text);
    }
    if surplus > 0 {
        let skipped = surplus + invalid;
        let text = format!(
            "A max of {max} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were skipped"
        );
        warn("TooManyAddressesToMirror", text);
    }
    let mut free: Vec<&Arc<Value>> = slices.iter().collect();
    let mut homeless = Vec::new();
    for ((family, ports), members) in groups {
        let fits = |s: &Arc<Value>| s.str_at(&["addressType"]) == family && ports_of(s) == ports;
        let at = free.iter().position(|s| fits(s));
        let members: Vec<Value> = members.into_values().collect();
        match at.map(|at| free.remove(at)) {
            Some(slice) => actions.extend(update(endpoints, slice, &ports, members)),
            None => homeless.push((family, ports, members)),
        }
    }
    for (family, ports, members) in homeless {
        // A slice that would go is used again.
        match free.iter().position(|s| s.str_at(&["addressType"]) == family) {
            Some(at) => actions.extend(update(endpoints, free.remove(at), &ports, members)),
            None if endpoints.is_terminating() => {}
            None => actions.push(create(endpoints, family, &ports, members)),
        }
    }
    actions.extend(free.into_iter().map(|s| Action::delete(ENDPOINT_SLICES, s)));
    actions
}

/// The metadata that a slice has from its Endpoints.
fn metadata(endpoints: &Value) -> [(&'static str, Value); 3] {
    let members = |key| endpoints.at(&["metadata", key]).as_object().cloned().unwrap_or_default();
    let (mut labels, mut annotations): (Map, Map) = (members("labels"), members("annotations"));
    labels.insert(SERVICE_NAME, endpoints.name());
    labels.insert(MANAGED_BY, US);
    annotations.retain(|key, _| !OWN_ANNOTATIONS.contains(&key));
    let mut owner = endpoints.clone();
    owner.set(&["apiVersion"], "v1");
    owner.set(&["kind"], "Endpoints");
    [
        ("labels", Value::Object(labels)),
        ("annotations", Value::Object(annotations)),
        ("ownerReferences", Value::from(vec![owner_reference(&owner)])),
    ]
}

/// The slice as it shall be, if that is not how it is.
fn update(endpoints: &Value, slice: &Value, ports: &[Port], members: Vec<Value>) -> Option<Action> {
    let mut updated = slice.clone();
    for (key, value) in metadata(endpoints) {
        if value.is_empty() {
            updated.remove_at(&["metadata", key]);
        } else {
            updated.set(&["metadata", key], value);
        }
    }
    if ports_of(slice) != ports {
        updated.set(&["ports"], ports.iter().map(show).collect::<Vec<_>>());
    }
    let by_address = |list: &[Value]| {
        let mut list: Vec<Vec<u8>> = list.iter().map(canonical).collect();
        list.sort();
        list
    };
    if by_address(slice.array_at(&["endpoints"])) != by_address(&members) {
        updated.set(&["endpoints"], members);
    }
    (canonical(&updated) != canonical(slice)).then(|| Action::Update(ENDPOINT_SLICES, updated))
}

fn create(endpoints: &Value, family: &str, ports: &[Port], members: Vec<Value>) -> Action {
    let mut slice = object!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": (format!("{}-", endpoints.name())),
            "namespace": (endpoints.namespace()),
        },
        "addressType": family,
        "endpoints": members,
        "ports": (ports.iter().map(show).collect::<Vec<_>>()),
    });
    for (key, value) in metadata(endpoints) {
        slice.set(&["metadata", key], value);
    }
    Action::Create(ENDPOINT_SLICES, slice, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(subsets: Value) -> Value {
        object!({
            "metadata": {
                "namespace": "d", "name": "e", "uid": "u", "labels": {"l": "1"},
                "annotations": {"a": "1", "endpoints.kubernetes.io/last-change-trigger-time": "t"},
            },
            "subsets": subsets,
        })
    }

    fn settled(endpoints: &Value, slices: &[Arc<Value>]) -> Vec<Arc<Value>> {
        let mut after = slices.to_vec();
        for action in plan(endpoints, slices, 3) {
            match action {
                Action::Create(_, mut s, _) => {
                    s.set(&["metadata", "name"], format!("e-{}", after.len()));
                    after.push(Arc::new(s));
                }
                Action::Update(_, s) => {
                    let at = after.iter().position(|o| o.name() == s.name()).unwrap();
                    after[at] = Arc::new(s);
                }
                Action::Delete(_, s, ..) => after.retain(|o| o.name() != s.name()),
                Action::Event(..) => {}
                other => panic!("{other:?}"),
            }
        }
        after
    }

    #[test]
    fn a_slice_for_each_family_and_set_of_ports() {
        let both = endpoints(object!([{
            "addresses": [{"ip": "10.0.0.1", "nodeName": "n"}, {"ip": "fd00::1"}],
            "notReadyAddresses": [{"ip": "10.0.0.2"}],
            "ports": [{"name": "http", "port": 80}],
        }, {
            // Ready above, but not here.
            "notReadyAddresses": [{"ip": "fd00::1"}], "ports": [{"name": "http", "port": 80}],
        }]));
        let slices = settled(&both, &[]);
        assert_eq!(slices.len(), 2);
        assert!(plan(&both, &slices, 3).is_empty());
        let v4 = &slices[0];
        assert_eq!(v4.label(SERVICE_NAME), Some("e"));
        assert_eq!(v4.label("l"), Some("1"));
        assert_eq!(v4.at(&["metadata", "annotations"]), &object!({"a": "1"}));
        let [first, second] = v4.array_at(&["endpoints"]) else { panic!("{v4}") };
        assert_eq!(first.str_at(&["nodeName"]), "n");
        assert_eq!(second.at(&["conditions", "ready"]).as_bool(), Some(false));
        let elsewhere = &slices[1].array_at(&["endpoints"])[0];
        assert_eq!(elsewhere.at(&["conditions", "ready"]).as_bool(), Some(false));
        // Other ports, same slice; no address, no slice.
        let moved = endpoints(object!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 81}]}]));
        let after = settled(&moved, &slices);
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].name(), v4.name());
        assert!(settled(&endpoints(object!([])), &after).is_empty());
    }

    #[test]
    fn what_cannot_be_mirrored_is_told() {
        let many = endpoints(object!([{"addresses": [
            {"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "nonsense"}, {"ip": "10.0.0.3"}, {"ip": "10.0.0.4"},
        ]}]));
        let actions = plan(&many, &[], 3);
        let told: Vec<&str> = actions
            .iter()
            .filter_map(|a| if let Action::Event(_, _, reason, _) = a { Some(*reason) } else { None })
            .collect();
        assert_eq!(told, ["InvalidIPAddress", "TooManyAddressesToMirror"]);
        let Some(Action::Create(_, slice, _)) = actions.last() else { panic!("{actions:?}") };
        assert_eq!(slice.array_at(&["endpoints"]).len(), 3);
    }

    #[test]
    fn locks_and_what_asks_for_it_are_left_alone() {
        let with = |meta: Value| is_mirrored(&object!({"metadata": meta}));
        assert!(with(object!({})));
        assert!(!with(object!({"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}})));
        assert!(!with(object!({"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}})));
    }
}
