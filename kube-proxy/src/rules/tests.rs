//! The rules recorded from upstream's v1.36.2 for a set of Services, and single facts about the plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Value, object};

use super::{Local, Rules, Settings, Table, hash, plan};
use crate::endpoint::Slice;
use crate::service::Service;

fn settings() -> Settings {
    Settings {
        v6: false,
        local: Local::Source("10.42.0.0/16".parse().unwrap()),
        masquerade_all: false,
        mark: 0x4000,
        localhost_node_ports: true,
        node_port_ips: None,
        liberal_tracking: false,
        node_ips: vec!["192.0.2.2".parse().unwrap()],
        zone: String::new(),
    }
}

fn yaml(text: &str) -> Value {
    let json: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    Value::from_serialize(&json).unwrap()
}

/// The Services that upstream's rules were recorded for, with what the API server adds to them.
fn recorded_services() -> Vec<Arc<Service>> {
    let mut list = yaml(include_str!("../../tests/data/services.yaml"));
    let mut services: Vec<Value> = list.at_mut(&["items"]).unwrap().as_array_mut().unwrap().clone();
    for service in &mut services {
        if service.name() == "local" {
            service.set(&["spec", "healthCheckNodePort"], 30781);
            service.set(&["status", "loadBalancer", "ingress"], vec![object!({"ip": "192.0.2.210"})]);
        }
    }
    services.push(object!({
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "spec": {"clusterIP": "10.43.0.1", "ports": [{"name": "https", "port": 443}]},
    }));
    services.iter().filter_map(Service::of).map(Arc::new).collect()
}

fn slice(service: &str, ports: &[(&str, &str, u16)], endpoints: &[(&str, &str)]) -> Arc<Slice> {
    let ports: Vec<Value> =
        ports.iter().map(|(n, p, port)| object!({"name": (*n), "protocol": (*p), "port": (*port)})).collect();
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(ip, node)| object!({"addresses": [(*ip)], "nodeName": (*node), "conditions": {"ready": true}}))
        .collect();
    let slice = object!({
        "metadata": {"namespace": "default", "name": "x", "labels": {"kubernetes.io/service-name": (service)}},
        "ports": (ports),
        "endpoints": (endpoints),
    });
    Arc::new(Slice::of(&slice, "n1").unwrap())
}

fn recorded_slices() -> Vec<Arc<Slice>> {
    let pods = [("10.42.0.11", "n1"), ("10.42.1.12", "n2")];
    let mut slices: Vec<_> = ["sticky", "node", "local", "ext"]
        .iter()
        .map(|service| slice(service, &[("a", "TCP", 8080)], &pods))
        .collect();
    slices.push(slice("cluster", &[("a", "TCP", 8080), ("u", "UDP", 5353)], &pods));
    slices.push(slice("kubernetes", &[("https", "TCP", 6443)], &[("192.0.2.2", "")]));
    slices
}

/// The chains of ours in a saved rule set. Upstream writes Services in no order, so chains shared by all are sorted.
fn saved(text: &str) -> BTreeMap<String, Table> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    let mut table = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(chain) = line.strip_prefix(':') {
            let chain = chain.split(' ').next().unwrap();
            if chain.starts_with("KUBE-") && !chain.ends_with("CANARY") && !chain.ends_with("HINT") {
                tables.entry(table.clone()).or_default().insert(chain.to_owned(), Vec::new());
            }
        } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|l| l.split_once(' ')) {
            let nfacct = "-m nfacct --nfacct-name  ct_state_invalid_dropped_pkts ";
            let rules = tables.entry(table.clone()).or_default().get_mut(chain);
            if let Some(rules) = rules.filter(|_| !rule.contains("localhost_nps_accepted_pkts")) {
                rules.push(rule.replace(nfacct, ""));
            }
        }
    }
    tables
}

fn sorted(mut table: Table) -> Table {
    for (_, rules) in table.iter_mut().filter(|(name, _)| !super::is_service_chain(name)) {
        rules.sort();
    }
    table
}

#[test]
fn rules_are_those_upstream_writes() {
    let Rules { filter, nat } = plan(&recorded_services(), &recorded_slices(), &settings());
    let recorded = saved(include_str!("../../tests/data/upstream-rules.txt"));
    let order = |table: &Table, chain: &str| table[chain].last().cloned();
    assert_eq!(order(&nat, "KUBE-SERVICES"), order(&recorded["nat"], "KUBE-SERVICES"));
    for (ours, name) in [(filter, "filter"), (nat, "nat")] {
        let (ours, theirs) = (sorted(ours), sorted(recorded[name].clone()));
        for (chain, rules) in &theirs {
            assert_eq!(ours.get(chain), Some(rules), "{chain}");
        }
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    }
}

#[test]
fn chain_names_are_hashes_in_base32() {
    assert_eq!(hash(&["default/kubernetes:https", "tcp"]), "NPX46M4PTMTKRN6Y");
    assert_eq!(hash(&["default/kubernetes:https", "tcp", "192.0.2.2:6443"]), "Z2MNHJ5OI4BMQIBS");
}

fn one(spec: Value) -> Vec<Arc<Service>> {
    let object = object!({"metadata": {"name": "s", "namespace": "default"}, "spec": (spec)});
    Service::of(&object).into_iter().map(Arc::new).collect()
}

#[test]
fn services_without_endpoints_answer_by_policy() {
    let node_port = |policy: &str| {
        one(object!({
            "clusterIP": "10.43.0.9", "type": "NodePort", "externalTrafficPolicy": (policy),
            "ports": [{"port": 80, "nodePort": 30009}],
        }))
    };
    let far = [slice("s", &[("", "TCP", 80)], &[("10.42.1.1", "n2")])];
    for (policy, slices, filter_rule) in [
        (
            "Cluster",
            &[][..],
            "-p tcp -m comment --comment \"default/s has no endpoints\" -m addrtype --dst-type LOCAL -m tcp --dport 30009 -j REJECT --reject-with icmp-port-unreachable",
        ),
        (
            "Local",
            &far[..],
            "-p tcp -m comment --comment \"default/s has no local endpoints\" -m addrtype --dst-type LOCAL -m tcp --dport 30009 -j DROP",
        ),
    ] {
        let rules = plan(&node_port(policy), slices, &settings());
        assert_eq!(rules.filter["KUBE-EXTERNAL-SERVICES"], [filter_rule]);
    }
}

#[test]
fn headless_and_external_services_have_no_rules() {
    for spec in [
        object!({"clusterIP": "None", "ports": [{"port": 80}]}),
        object!({"type": "ExternalName", "externalName": "x.example"}),
    ] {
        assert!(one(spec).is_empty());
    }
}

#[test]
fn node_ports_keep_to_their_addresses() {
    let last = |settings: &Settings| plan(&[], &[], settings).nat["KUBE-SERVICES"].join("\n");
    let only = |ips: &[&str]| Some(ips.iter().map(|ip| ip.parse().unwrap()).collect());
    let addresses = Settings { node_port_ips: only(&["192.0.2.2", "127.0.0.1", "::1"]), ..settings() };
    assert!(last(&addresses).contains("-d 192.0.2.2/32 ") && last(&addresses).contains("-d 127.0.0.1/32 "));
    let closed = Settings { localhost_node_ports: false, ..addresses };
    assert!(!last(&closed).contains("127.0.0.1"));
    let all = Settings { localhost_node_ports: false, ..settings() };
    assert!(last(&all).starts_with("! -d 127.0.0.0/8 "));
}
