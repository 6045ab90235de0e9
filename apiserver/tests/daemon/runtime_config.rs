//! Versions and resources that are switched off.

use super::*;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

fn switched(cluster: &mut Cluster, setting: &str) {
    cluster.kill();
    cluster.arguments.retain(|a| !a.starts_with("--runtime-config"));
    cluster.arguments.push(format!("--runtime-config={setting}"));
    cluster.run();
}

#[test]
fn what_is_switched_off_is_neither_shown_nor_answered() {
    let mut cluster = Cluster::start();
    let one = format!("{SERVICES}/v1.autoscaling");
    assert_eq!(cluster.get(&one).code, 200);
    switched(&mut cluster, "autoscaling/v1=false,batch/v1/jobs=false,events.k8s.io/v1=false");

    let groups = read(&cluster.get("/apis"));
    let autoscaling = groups.array_at(&["groups"]).iter().find(|g| g.str_at(&["name"]) == "autoscaling");
    assert_eq!(autoscaling.unwrap().array_at(&["versions"]).len(), 1, "{groups}");
    assert!(!groups.to_string().contains("events.k8s.io"), "{groups}");
    assert!(!cluster.get("/apis/batch/v1").body.contains("\"jobs\""));
    assert!(cluster.get("/apis/batch/v1").body.contains("\"cronjobs\""));
    let index = cluster.get("/openapi/v3").body;
    assert!(index.contains("apis/autoscaling/v2") && !index.contains("apis/autoscaling/v1"), "{index}");
    assert!(!cluster.get("/openapi/v2").body.contains("/apis/batch/v1/jobs"));

    // Of a group that has other versions the API says so; of one that has none nobody does.
    let said = |path: &str| {
        let answer = cluster.get(path);
        (answer.code, answer.body.starts_with("404 page not found"))
    };
    assert_eq!(said("/apis/autoscaling/v1/horizontalpodautoscalers"), (404, false));
    assert_eq!(said("/apis/batch/v1/jobs"), (404, false));
    assert_eq!(said("/apis/events.k8s.io/v1/events"), (404, true));
    assert_eq!(said("/apis/events.k8s.io"), (404, true));
    assert_eq!(said("/api/v1/events"), (200, false));
    assert_eq!(cluster.get(&one).code, 404);

    switched(&mut cluster, "storage.k8s.io/v1beta1,networking.k8s.io/v1beta1/ipaddresses");
    let classes = "/apis/storage.k8s.io/v1beta1/volumeattributesclasses";
    let class = object!({"metadata": {"name": "fast"}, "driverName": "d", "parameters": {"a": "b"}});
    let made = cluster.create(classes, &class);
    assert_eq!(made.api_version(), "storage.k8s.io/v1beta1");
    let newer = cluster.get("/apis/storage.k8s.io/v1/volumeattributesclasses/fast");
    assert_eq!(read(&newer).get("parameters"), made.get("parameters"));
    let warning = cluster.get(classes).header("warning").map(str::to_owned).unwrap_or_default();
    let told = "storage.k8s.io/v1beta1 VolumeAttributesClass is deprecated in v1.34+, unavailable in v1.37+; use storage.k8s.io/v1 VolumeAttributesClass";
    assert!(warning.contains(told), "{warning}");
    assert!(cluster.get("/apis/storage.k8s.io").body.contains("v1beta1"));
    assert_eq!(cluster.get("/apis/networking.k8s.io/v1beta1/ipaddresses").code, 200);
    assert_eq!(cluster.get("/apis/networking.k8s.io/v1beta1/servicecidrs").code, 404);

    switched(&mut cluster, "api/v1");
    assert_eq!(cluster.get("/apis/autoscaling/v1/horizontalpodautoscalers").code, 200);
    assert_eq!(cluster.get(&one).code, 200);
}

#[test]
fn what_is_not_there_cannot_be_switched_on() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::make(dir.path()).unwrap();
    let mut arguments = arguments(&pki, "http://127.0.0.1:1", free_port().unwrap());
    arguments.push("--runtime-config=resource.k8s.io/v1beta1=true".to_owned());
    let mut server = Process::start(DAEMON, &arguments, &dir.path().join("server.log")).unwrap();
    wait_until("the server ends", SOON, || !server.is_running()).unwrap();
    assert!(server.output().contains("not implemented: resource.k8s.io/v1beta1"), "{}", server.output());
}

#[test]
fn storage_version_migrations_are_there_when_they_are_switched_on() {
    const MIGRATIONS: &str = "/apis/storagemigration.k8s.io/v1beta1/storageversionmigrations";
    const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:controller:storage-version-migrator-controller";
    let mut cluster = Cluster::start();
    assert_eq!((cluster.get(MIGRATIONS).code, cluster.get(ROLE).code), (404, 404));
    cluster.arguments.push("--feature-gates=StorageVersionMigrator=true".to_owned());
    switched(&mut cluster, "storagemigration.k8s.io/v1beta1=true");
    assert_eq!(cluster.get(ROLE).code, 200);

    let wanted = object!({"metadata": {"name": "m"}, "spec": {"resource": {"group": "apps", "resource": "deployments"}},
        "status": {"resourceVersion": "1"}});
    let made = cluster.create(MIGRATIONS, &wanted);
    assert!(made.at(&["status", "resourceVersion"]).is_null(), "{made}");
    let one = format!("{MIGRATIONS}/m");
    let status = r#"{"status":{"resourceVersion":"12"},"spec":{"resource":{"resource":"other"}}}"#;
    let changed = cluster.send("PATCH", &format!("{one}/status"), "application/merge-patch+json", status);
    let changed = read(&changed);
    assert_eq!(changed.str_at(&["status", "resourceVersion"]), "12");
    assert_eq!(changed.get("spec"), made.get("spec"));
    let other = r#"{"spec":{"resource":{"resource":"daemonsets"}}}"#;
    let refused = cluster.send("PATCH", &one, "application/merge-patch+json", other);
    assert!(refused.code == 422 && refused.body.contains("field is immutable"), "{}", refused.body);
    let table = cluster.client.with(&[("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1")]);
    let table = read(&table.send("GET", MIGRATIONS, None).unwrap());
    assert_eq!(table.array_at(&["rows"])[0].get("cells"), &object!(["m", "deployments.apps", "Unknown"]));
    let stored = super::encryption::stored(&cluster, "/registry/storageversionmigrations/m");
    assert!(stored.starts_with(b"k8s\0"));
}
