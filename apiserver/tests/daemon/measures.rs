//! What the server measures of itself, and what its checks of health are called.

use super::*;

const LABELS: &str = "component=\"apiserver\"";

#[test]
fn requests_are_counted_under_the_names_that_dashboards_use() {
    let cluster = Cluster::start_with(|_| vec!["--allow-privileged=true".to_owned()]);
    let map = object!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    cluster.create(MAPS, &map);
    assert_eq!(cluster.get(&format!("{MAPS}/a")).code, 200);
    assert_eq!(cluster.get(MAPS).code, 200);
    assert_eq!(cluster.get(&format!("{MAPS}?watch=1&timeoutSeconds=1")).code, 200);
    assert_eq!(cluster.get(&format!("{MAPS}/a/nothing")).code, 404);
    let account = object!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    cluster.create("/api/v1/namespaces/default/serviceaccounts", &account);
    let pod = object!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    });
    cluster.create("/api/v1/namespaces/default/pods", &pod);
    let metrics = cluster.get("/metrics").body;
    let has = |line: &str| assert!(metrics.contains(&format!("\n{line}")), "{line} is not in\n{metrics}");
    let asked = |verb: &str, scope: &str| {
        format!(
            "group=\"\",resource=\"configmaps\",scope=\"{scope}\",subresource=\"\",verb=\"{verb}\",version=\"v1\"}}"
        )
    };
    has(&format!(
        "apiserver_request_total{{code=\"201\",{LABELS},dry_run=\"\",{} 1\n",
        asked("POST", "resource")
    ));
    has(&format!(
        "apiserver_request_duration_seconds_count{{{LABELS},dry_run=\"\",{} 1\n",
        asked("GET", "resource")
    ));
    has(&format!(
        "apiserver_request_sli_duration_seconds_count{{{LABELS},{} 1\n",
        asked("LIST", "namespace")
    ));
    has(&format!("apiserver_response_sizes_count{{{LABELS},{} 1\n", asked("LIST", "namespace")));
    has(&format!("apiserver_longrunning_requests{{{LABELS},{} ", asked("WATCH", "namespace")));
    has("apiserver_watch_events_total{group=\"\",resource=\"configmaps\",version=\"v1\"} ");
    has(
        "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"false\",type=\"validate\"} ",
    );
    has(
        "pod_security_evaluations_total{decision=\"allow\",mode=\"enforce\",policy_level=\"privileged\",policy_version=\"latest\",request_operation=\"create\",resource=\"pod\",subresource=\"\"} 1\n",
    );
    has("apiserver_client_certificate_expiration_seconds_count ");
    has("authentication_attempts{result=\"success\"} ");
    has("authorization_attempts_total{result=\"allowed\"} ");
    has("apiserver_storage_objects{resource=\"deployments.apps\"} 0\n");
    has("apiserver_resource_objects{group=\"apps\",resource=\"deployments\"} 0\n");
    has("etcd_requests_total{group=\"\",operation=\"create\",resource=\"configmaps\"} ");
    has("apiserver_storage_size_bytes{storage_cluster_id=\"etcd-0\"} ");
    assert!(!metrics.contains("subresource=\"nothing\""), "clients cannot make series");
    let slis = cluster.get("/metrics/slis").body;
    assert!(slis.contains("kubernetes_healthcheck{name=\"etcd-readiness\",type=\"readyz\"} 1\n"), "{slis}");
}

#[test]
fn checks_have_the_names_that_people_exclude() {
    let cluster = Cluster::start_with(|_| Vec::new());
    let ready = cluster.get("/readyz?verbose").body;
    let begin = "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]etcd-readiness ok\n[+]informer-sync ok\n[+]poststarthook/start-apiserver-admission-initializer ok\n";
    assert!(ready.starts_with(begin) && ready.ends_with("[+]shutdown ok\nreadyz check passed\n"), "{ready}");
    let without = cluster.get("/livez?verbose&exclude=poststarthook/rbac/bootstrap-roles&exclude=none").body;
    assert!(without.contains("\n[+]poststarthook/rbac/bootstrap-roles excluded: ok\n"), "{without}");
    let end = "warn: some health checks cannot be excluded: no matches for \"none\"\nlivez check passed\n";
    assert!(without.ends_with(end), "{without}");
    let paths = cluster.get("/").body;
    assert!(paths.contains("\"/readyz/shutdown\"") && !paths.contains("\"/livez/shutdown\""), "{paths}");
}
