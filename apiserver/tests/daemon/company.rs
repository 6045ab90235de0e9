//! Several servers on one etcd.

use std::collections::HashSet;

use super::*;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/kubernetes";

/// Another server on the etcd of a cluster, and a client of it.
fn another(cluster: &Cluster, address: &str) -> (Process, Client) {
    let port = free_port().unwrap();
    let mut arguments = cluster.arguments.clone();
    arguments.push(format!("--secure-port={port}"));
    arguments.push(format!("--advertise-address={address}"));
    let server = Process::start(DAEMON, &arguments, &cluster.dir.path().join("another.log")).unwrap();
    let client = Client::new(&cluster.pki, port).unwrap();
    let ready = || client.send("GET", "/readyz", None).is_ok_and(|r| r.code == 200);
    let result = wait_until("the other server is ready", SOON, ready);
    result.unwrap_or_else(|e| panic!("{e}: {}", server.output()));
    (server, client)
}

fn endpoints(cluster: &Cluster) -> Vec<String> {
    let endpoints = read(&cluster.get(ENDPOINTS));
    let subsets = endpoints.array_at(&["subsets"]).iter();
    let addresses = subsets.flat_map(|s| s.array_at(&["addresses"]));
    addresses.map(|a| a.str_at(&["ip"]).to_owned()).collect()
}

#[test]
fn the_endpoints_are_the_servers_that_are_there() {
    let cluster = Cluster::start();
    let shows = |wanted: &[&str]| {
        let what = format!("the endpoints are {wanted:?}");
        let result = wait_until(&what, SOON * 2, || endpoints(&cluster) == wanted);
        result.unwrap_or_else(|e| panic!("{e}: {:?}", endpoints(&cluster)));
    };
    let (second, _) = another(&cluster, "192.0.2.2");
    let (mut third, _) = another(&cluster, "192.0.2.3");
    shows(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    // One that ends takes itself out; one that dies is missed.
    third.terminate().unwrap();
    assert_eq!(third.exit_code(SOON).unwrap(), Some(0));
    assert_eq!(endpoints(&cluster), ["192.0.2.1", "192.0.2.2"]);
    drop(second);
    shows(&["192.0.2.1"]);
    let leases = cluster.get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases");
    let identity = "apiserver.kubernetes.io/identity";
    let leases = read(&leases);
    let lease = leases.array_at(&["items"]).iter().find(|l| l.label(identity) == Some("kube-apiserver"));
    assert!(lease.expect("a Lease").str_at(&["spec", "holderIdentity"]).starts_with("apiserver-"));
}

fn service(name: &str, node_port: Option<i64>) -> Value {
    let mut port = object!({"port": 80});
    if let Some(number) = node_port {
        port.set(&["nodePort"], number);
    }
    object!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [port]}})
}

#[test]
fn no_two_servers_hand_out_the_same() {
    let cluster = Cluster::start_with(|_| vec!["--service-node-port-range=30000-30099".to_owned()]);
    let (_second, client) = another(&cluster, "192.0.2.2");
    let create = |client: &Client, service: &Value| {
        client.send("POST", SERVICES, Some((JSON, service.to_string().as_bytes()))).unwrap()
    };
    let many = |client: &Client, who: &str| -> Vec<Value> {
        let one = |i: usize| create(client, &service(&format!("{who}{i}"), None));
        (0..40).map(one).inspect(|r| assert_eq!(r.code, 201, "{}", r.body)).map(|r| read(&r)).collect()
    };
    let all: Vec<Value> = std::thread::scope(|scope| {
        let here = scope.spawn(|| many(&cluster.client, "a"));
        let there = scope.spawn(|| many(&client, "b"));
        [here.join().unwrap(), there.join().unwrap()].concat()
    });
    let addresses: HashSet<&str> = all.iter().map(|s| s.str_at(&["spec", "clusterIP"])).collect();
    let port = |s: &Value| s.array_at(&["spec", "ports"])[0].get("nodePort").as_i64().unwrap();
    let ports: HashSet<i64> = all.iter().map(port).collect();
    assert_eq!((addresses.len(), ports.len()), (80, 80));
    // Without a choice the first ports of the range come last; what one server gives back the other hands out.
    assert!(ports.iter().all(|port| *port >= 30016), "{ports:?}");
    assert_eq!(create(&client, &service("c", Some(30007))).code, 201);
    let taken = create(&cluster.client, &service("d", Some(30007)));
    assert!(
        taken
            .body
            .contains("spec.ports[0].nodePort: Invalid value: 30007: provided port is already allocated")
    );
    assert_eq!(client.send("DELETE", &format!("{SERVICES}/c"), None).unwrap().code, 200);
    assert_eq!(create(&cluster.client, &service("d", Some(30007))).code, 201);
}

#[test]
fn services_have_addresses_of_both_families_and_of_further_ranges() {
    let cluster =
        Cluster::start_with(|_| vec!["--service-cluster-ip-range=10.96.0.0/30,fd00:96::/112".to_owned()]);
    let create = |name: &str, policy: &str| {
        let object = object!({
            "kind": "Service", "apiVersion": "v1", "metadata": {"name": name},
            "spec": {"ipFamilyPolicy": policy, "ports": [{"port": 80}]}
        });
        cluster.send("POST", SERVICES, JSON, &object.to_string())
    };
    let addresses = |service: &Response| -> Vec<String> {
        let service = read(service);
        service.array_at(&["spec", "clusterIPs"]).iter().map(|a| a.as_str().unwrap().to_owned()).collect()
    };
    // The Service of the server has the other one of the two addresses.
    let both = addresses(&create("both", "PreferDualStack"));
    assert_eq!(both[0], "10.96.0.2");
    assert!(both[1].starts_with("fd00:96::"), "{both:?}");
    let full = create("one", "SingleStack");
    assert_eq!(full.code, 500);
    assert!(
        full.body.contains("failed to allocate a serviceIP for Service \\\"one\\\": range is full"),
        "{}",
        full.body
    );
    let range = object!({
        "kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.97.0.0/24"]}
    });
    cluster.create("/apis/networking.k8s.io/v1/servicecidrs", &range);
    assert!(addresses(&create("one", "SingleStack"))[0].starts_with("10.97.0."));
    // Who no longer wants two gives the second back.
    let path = format!("{SERVICES}/both");
    let single = r#"{"spec":{"ipFamilyPolicy":"SingleStack"}}"#;
    let changed = cluster.send("PATCH", &path, "application/merge-patch+json", single);
    assert_eq!(addresses(&changed), ["10.96.0.2"]);
    let recorded = format!("/apis/networking.k8s.io/v1/ipaddresses/{}", both[1]);
    assert_eq!(cluster.get(&recorded).code, 404);
    let double = r#"{"spec":{"ipFamilyPolicy":"RequireDualStack"}}"#;
    let changed = cluster.send("PATCH", &path, "application/merge-patch+json", double);
    assert_eq!(addresses(&changed).len(), 2, "{}", changed.body);
}
