//! Requests that must wait for their turn, or are refused. Slow ones are those of another server.

use super::aggregation::{Age, BASE, available, extension, register, service, start, trusted};
use super::*;

/// So few seats that a level with one share has one seat.
const FEW: [&str; 2] = ["--max-requests-inflight=20", "--max-mutating-requests-inflight=20"];
const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

/// A server with a slow extension, where jane may do everything.
fn cluster(extra: &[&str]) -> (Cluster, Client) {
    let cluster = start(extra);
    let port = extension(&cluster.pki, Age::New);
    service(&cluster, port);
    register(&cluster, i64::from(port), trusted(&cluster));
    available(&cluster, "Passed");
    let binding = object!({
        "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    cluster.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding);
    let jane = cluster.client.with(&[("Impersonate-User", "jane")]);
    let may = || jane.send("GET", MAPS, None).unwrap().code == 200;
    wait_until("jane may", SOON, may).unwrap();
    (cluster, jane)
}

fn slow(client: &Client) -> std::thread::JoinHandle<Response> {
    let client = client.clone();
    std::thread::spawn(move || client.send("GET", &format!("{BASE}/slow"), None).unwrap())
}

/// A level with one seat, for what jane reads.
fn level_of_one(cluster: &Cluster, response: Value) {
    let spec = object!({
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response},
    });
    cluster.create(
        &format!("{FLOW}/prioritylevelconfigurations"),
        &object!({"metadata": {"name": "one"}, "spec": spec}),
    );
    let rules = object!([{
        "subjects": [{"kind": "User", "user": {"name": "jane"}}],
        "resourceRules": [{"verbs": ["get", "list"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}],
    }]);
    let spec = object!({"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "one"}, "distinguisherMethod": {"type": "ByUser"}, "rules": rules});
    cluster.create(&format!("{FLOW}/flowschemas"), &object!({"metadata": {"name": "jane"}, "spec": spec}));
}

fn schema_uid(cluster: &Cluster, name: &str) -> String {
    read(&cluster.get(&format!("{FLOW}/flowschemas/{name}"))).uid().to_owned()
}

fn running(cluster: &Cluster, level: &str, waiting: &str, executing: &str) {
    let mut last = String::new();
    wait_until("the requests are there", SOON, || {
        last = cluster.get("/debug/api_priority_and_fairness/dump_priority_levels").body;
        let row = last.lines().find(|l| l.starts_with(&format!("{level},"))).unwrap_or_default();
        let cells: Vec<&str> = row.split(',').map(str::trim).collect();
        cells.get(4..6) == Some(&[waiting, executing][..])
    })
    .unwrap_or_else(|e| panic!("{e}: {last}"));
}

#[test]
fn answers_name_the_schema_and_the_level() {
    let cluster = Cluster::start();
    let check = |client: &Client, path: &str, schema: &str, level: &str| {
        let response = client.send("GET", path, None).unwrap();
        let level = read(&cluster.get(&format!("{FLOW}/prioritylevelconfigurations/{level}")));
        assert_eq!(
            response.header("x-kubernetes-pf-flowschema-uid"),
            Some(schema_uid(&cluster, schema).as_str())
        );
        assert_eq!(response.header("x-kubernetes-pf-prioritylevel-uid"), Some(level.uid()));
    };
    let known = || {
        let response = cluster.get(MAPS);
        response.header("x-kubernetes-pf-flowschema-uid") == Some(schema_uid(&cluster, "exempt").as_str())
    };
    wait_until("the schemas are in force", SOON, known).unwrap();
    check(&cluster.client, MAPS, "exempt", "exempt");
    check(&cluster.client.with(&[("Impersonate-User", "jane")]), MAPS, "global-default", "global-default");
    let scheduler = cluster.client.with(&[("Impersonate-User", "system:kube-scheduler")]);
    check(&scheduler, MAPS, "kube-scheduler", "workload-high");
    let metrics = cluster.get("/metrics").body;
    for line in [
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245",
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"kube-scheduler\",priority_level=\"workload-high\"} 1",
        "apiserver_flowcontrol_current_executing_requests{flow_schema=\"kube-scheduler\",priority_level=\"workload-high\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[test]
fn schemas_say_whether_their_level_is_there() {
    let cluster = Cluster::start();
    let spec =
        object!({"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "late"}, "rules": []});
    cluster.create(&format!("{FLOW}/flowschemas"), &object!({"metadata": {"name": "s"}, "spec": spec}));
    let condition = |status: &str| {
        let mut last = Value::Null;
        wait_until("the condition", SOON, || {
            let schema = read(&cluster.get(&format!("{FLOW}/flowschemas/s")));
            last = schema.array_at(&["status", "conditions"]).first().cloned().unwrap_or_default();
            last.str_at(&["status"]) == status
        })
        .unwrap_or_else(|e| panic!("{e}: {last}"));
        last
    };
    let missing = condition("True");
    assert_eq!((missing.str_at(&["type"]), missing.str_at(&["reason"])), ("Dangling", "NotFound"));
    let why = "This FlowSchema references the PriorityLevelConfiguration object named \"late\" but there is no such object";
    assert_eq!(missing.str_at(&["message"]), why);
    let spec = object!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}});
    cluster.create(
        &format!("{FLOW}/prioritylevelconfigurations"),
        &object!({"metadata": {"name": "late"}, "spec": spec}),
    );
    assert_eq!(condition("False").str_at(&["reason"]), "Found");
}

#[test]
fn levels_that_are_full_refuse() {
    let (cluster, jane) = cluster(&FEW);
    level_of_one(&cluster, object!({"type": "Reject"}));
    let uid = schema_uid(&cluster, "jane");
    let in_force = || {
        jane.send("GET", MAPS, None).unwrap().header("x-kubernetes-pf-flowschema-uid") == Some(uid.as_str())
    };
    wait_until("the schema is in force", SOON, in_force).unwrap();
    let first = slow(&jane);
    running(&cluster, "one", "0", "1");
    let refused = jane.send("GET", MAPS, None).unwrap();
    assert_eq!((refused.code, refused.body.as_str()), (429, "Too many requests, please try again later.\n"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("x-kubernetes-pf-flowschema-uid"), Some(uid.as_str()));
    // Others are not touched by that, nor is what the schema does not match.
    assert_eq!(cluster.get(MAPS).code, 200);
    assert_eq!(jane.send("GET", "/version", None).unwrap().code, 200);
    assert_eq!(cluster.get(&format!("{BASE}/release")).code, 200);
    assert_eq!(first.join().unwrap().code, 200);
    running(&cluster, "one", "0", "0");
    assert_eq!(jane.send("GET", MAPS, None).unwrap().code, 200);
}

#[test]
fn levels_that_are_full_let_requests_wait() {
    let (cluster, jane) = cluster(&[FEW[0], FEW[1], "--request-timeout=20s"]);
    level_of_one(
        &cluster,
        object!({"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 1}}),
    );
    let uid = schema_uid(&cluster, "jane");
    let in_force = || {
        jane.send("GET", MAPS, None).unwrap().header("x-kubernetes-pf-flowschema-uid") == Some(uid.as_str())
    };
    wait_until("the schema is in force", SOON, in_force).unwrap();
    let first = slow(&jane);
    running(&cluster, "one", "0", "1");
    let second = slow(&jane);
    running(&cluster, "one", "1", "1");
    let requests = cluster.get("/debug/api_priority_and_fairness/dump_requests").body;
    assert!(requests.lines().any(|l| l.starts_with("one,") && l.contains("jane,")), "{requests}");
    // The first lets the second run, who lets nobody wait for ever.
    cluster.get(&format!("{BASE}/release"));
    cluster.get(&format!("{BASE}/release"));
    assert_eq!((first.join().unwrap().code, second.join().unwrap().code), (200, 200));
    let third = slow(&jane);
    running(&cluster, "one", "0", "1");
    // A quarter of the time of a request is the longest wait.
    let late = jane.send("GET", MAPS, None).unwrap();
    assert_eq!(late.code, 429);
    running(&cluster, "one", "0", "1");
    cluster.get(&format!("{BASE}/release"));
    assert_eq!(third.join().unwrap().code, 200);
}

#[test]
fn requests_end_when_their_time_is_over() {
    let (cluster, jane) = cluster(&[]);
    let late = jane.send("GET", &format!("{BASE}/slow?timeout=200ms"), None).unwrap();
    assert_eq!(late.code, 504);
    let status = read(&late);
    assert_eq!(status.str_at(&["reason"]), "Timeout");
    let wrong = jane.send("GET", &format!("{MAPS}?timeout=soon"), None).unwrap();
    assert_eq!(wrong.code, 400);
    let message = read(&wrong).str_at(&["message"]).to_owned();
    assert!(message.starts_with("invalid timeout specified in the request URL"), "{message}");
    assert_eq!(cluster.get(&format!("{MAPS}?timeout=0s")).code, 200);
}

#[test]
fn without_fairness_their_number_is_limited() {
    let (cluster, jane) = cluster(&["--enable-priority-and-fairness=false", "--max-requests-inflight=1"]);
    let first = loop {
        let first = slow(&jane);
        let decided = || first.is_finished() || cluster.get(&format!("{BASE}/waiting")).body == "1";
        wait_until("a slow request runs or is refused", SOON, decided).unwrap();
        if !first.is_finished() {
            break first;
        }
        // The end of an answer may be seen before its request has given its place back.
        assert_eq!(first.join().unwrap().code, 429);
    };
    let refused = jane.send("GET", MAPS, None).unwrap();
    assert_eq!(refused.code, 429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("x-kubernetes-pf-flowschema-uid"), None);
    // Administrators always get an answer, and writes have a limit of their own.
    assert_eq!(cluster.get(MAPS).code, 200);
    assert_eq!(
        jane.send("POST", MAPS, Some((JSON, map("m", "1").to_string().as_bytes()))).unwrap().code,
        201
    );
    cluster.get(&format!("{BASE}/release"));
    assert_eq!(first.join().unwrap().code, 200);
    wait_until("requests run again", SOON, || jane.send("GET", MAPS, None).unwrap().code == 200).unwrap();
}
