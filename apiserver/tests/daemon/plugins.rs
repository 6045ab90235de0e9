//! What plug-ins of admission make of writes.

use std::sync::Arc;

use parking_lot::Mutex;

use super::*;

const NAMESPACES: &str = "/api/v1/namespaces";
const NODES: &str = "/api/v1/nodes";

fn pods(namespace: &str) -> String {
    format!("{NAMESPACES}/{namespace}/pods")
}

/// A namespace with its account.
fn namespace(cluster: &Cluster, name: &str, metadata: &Value) {
    let mut whole = metadata.clone();
    whole.set(&["name"], name);
    let path = format!("{NAMESPACES}/{name}");
    if cluster.get(&path).code == 200 {
        let patch = object!({"metadata": metadata}).to_string();
        assert_eq!(cluster.send("PATCH", &path, "application/merge-patch+json", &patch).code, 200);
    } else {
        cluster.create(NAMESPACES, &object!({"apiVersion": "v1", "kind": "Namespace", "metadata": whole}));
    }
    let account = object!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    cluster.create(&format!("{path}/serviceaccounts"), &account);
}

fn pod(name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    if spec.get("containers").is_null() {
        spec.set(&["containers"], vec![object!({"name": "c", "image": "i"})]);
    }
    object!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

fn refused(cluster: &Cluster, path: &str, object: &Value, code: u16) -> String {
    let response = cluster.send("POST", path, JSON, &object.to_string());
    assert_eq!(response.code, code, "{}", response.body);
    read(&response).str_at(&["message"]).to_owned()
}

/// Tries until the cache that plug-ins look at has caught up.
fn soon(cluster: &Cluster, path: &str, object: &Value, code: u16) -> Value {
    let dry = format!("{path}?dryRun=All");
    let send = || cluster.send("POST", &dry, JSON, &object.to_string());
    let result = wait_until("the answer is as wanted", SOON, || send().code == code);
    result.unwrap_or_else(|e| panic!("{e}: {}", send().body));
    read(&send())
}

#[test]
fn pods_keep_to_the_standard_of_their_namespace() {
    let cluster = Cluster::start_with(|pki| {
        let file = pki.file("admission.yaml");
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: PodSecurity\n  configuration:\n    apiVersion: pod-security.admission.config.k8s.io/v1\n    kind: PodSecurityConfiguration\n    defaults: {enforce: baseline}\n    exemptions: {namespaces: [free]}\n";
        std::fs::write(&file, text).unwrap();
        vec![format!("--admission-control-config-file={}", file.display())]
    });
    let labels = |level: &str| object!({"labels": {"pod-security.kubernetes.io/enforce": level}});
    let host = pod("host", &object!({"hostNetwork": true}));
    for name in ["free", "plain"] {
        namespace(&cluster, name, &object!({}));
    }
    namespace(&cluster, "strict", &labels("restricted"));
    namespace(&cluster, "open", &labels("privileged"));
    cluster.create(&pods("free"), &host);
    soon(&cluster, &pods("open"), &host, 201);
    let why = "pods \"host\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    assert_eq!(refused(&cluster, &pods("plain"), &host, 403), why);
    let plain = pod("plain", &object!({}));
    cluster.create(&pods("plain"), &plain);
    let told = soon(&cluster, &pods("strict"), &plain, 403);
    let start = "pods \"plain\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" must set";
    assert!(told.str_at(&["message"]).starts_with(start), "{told}");
    // Templates are only warned of.
    let deployment = object!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}
    });
    cluster.create("/apis/apps/v1/namespaces/strict/deployments", &deployment);
    // Labels have to make sense.
    let patch = |level: &str| {
        let body = object!({"metadata": (labels(level))}).to_string();
        cluster.send("PATCH", &format!("{NAMESPACES}/plain"), "application/merge-patch+json", &body)
    };
    let wrong = patch("none");
    let why = "Namespace \"plain\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"none\": must be one of privileged, baseline, restricted";
    assert_eq!((wrong.code, read(&wrong).str_at(&["message"])), (422, why));
    assert_eq!(patch("restricted").code, 200);
}

#[test]
fn pods_are_placed_as_plugins_say() {
    let plugins = "PodNodeSelector,PodTolerationRestriction,ExtendedResourceToleration,AlwaysPullImages,LimitPodHardAntiAffinityTopology";
    let cluster = Cluster::start_with(|_| {
        vec![
            format!("--enable-admission-plugins={plugins}"),
            "--disable-admission-plugins=DefaultTolerationSeconds".to_owned(),
        ]
    });
    let allowed = r#"[{"operator":"Exists","key":"a"},{"operator":"Exists","key":"example.com/gpu"},{"operator":"Exists","key":"node.kubernetes.io/memory-pressure"}]"#;
    let annotations = object!({
        "scheduler.alpha.kubernetes.io/node-selector": "disk=fast",
        "scheduler.alpha.kubernetes.io/defaultTolerations": r#"[{"operator":"Exists","key":"a"}]"#,
        "scheduler.alpha.kubernetes.io/tolerationsWhitelist": allowed,
    });
    namespace(&cluster, "n", &object!({"annotations": annotations}));
    let node = object!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1", "kubernetes.io/hostname": "n1"}}
    });
    cluster.create(NODES, &node);
    let resources = object!({"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}});
    let asking = object!({"containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "Never", "resources": resources}]});
    let made = soon(&cluster, &pods("n"), &pod("p", &asking), 201);
    assert_eq!(made.at(&["spec", "nodeSelector"]), &object!({"disk": "fast"}));
    let keys: Vec<&str> =
        made.array_at(&["spec", "tolerations"]).iter().map(|t| t.str_at(&["key"])).collect();
    assert_eq!(keys, ["a", "example.com/gpu"]);
    assert_eq!(made.array_at(&["spec", "containers"])[0].str_at(&["imagePullPolicy"]), "Always");
    let conflicts = pod("p", &object!({"nodeSelector": {"disk": "slow"}}));
    let why =
        "pods \"p\" is forbidden: pod node label selector conflicts with its namespace node label selector";
    assert_eq!(refused(&cluster, &pods("n"), &conflicts, 403), why);
    let tolerant = pod("p", &object!({"tolerations": [{"key": "b", "operator": "Exists"}]}));
    let why = "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist";
    assert_eq!(refused(&cluster, &pods("n"), &tolerant, 500), why);
    let term = object!({"topologyKey": "topology.kubernetes.io/zone", "labelSelector": {}});
    let apart = object!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    let why = refused(&cluster, &pods("n"), &pod("p", &object!({"affinity": apart})), 403);
    assert!(
        why.ends_with(
            "has TopologyKey topology.kubernetes.io/zone but only key kubernetes.io/hostname is allowed"
        ),
        "{why}"
    );
    // Pods know where their node is, when they are made there and when they are bound to it.
    let placed = soon(&cluster, &pods("n"), &pod("placed", &object!({"nodeName": "n1"})), 201);
    assert_eq!(placed.at(&["metadata", "labels"]), &object!({"topology.kubernetes.io/zone": "z1"}));
    cluster.create(&pods("n"), &pod("bound", &object!({})));
    let binding = object!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bound"}, "target": {"kind": "Node", "name": "n1"}});
    let path = format!("{}/bound", pods("n"));
    assert_eq!(cluster.send("POST", &format!("{path}/binding"), JSON, &binding.to_string()).code, 201);
    let bound = read(&cluster.get(&path));
    assert_eq!(bound.str_at(&["metadata", "labels", "topology.kubernetes.io/zone"]), "z1");
}

#[test]
fn owners_services_and_classes_are_guarded() {
    let cluster = Cluster::start_with(|_| {
        vec![
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement,DenyServiceExternalIPs"
                .to_owned(),
        ]
    });
    let port = cluster.arguments.iter().find_map(|a| a.strip_prefix("--secure-port=")).unwrap();
    let user = Client::of(&cluster.pki, "user", port.parse().unwrap()).unwrap();
    let role = object!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "maps"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update", "patch", "get"]}]
    });
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    cluster.create(&format!("{rbac}/clusterroles"), &role);
    let binding = object!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "maps"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "maps"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "user"}]
    });
    cluster.create(&format!("{rbac}/clusterrolebindings"), &binding);
    let send = |method: &str, path: &str, media_type: &str, body: &Value| {
        user.send(method, path, Some((media_type, body.to_string().as_bytes()))).unwrap()
    };
    let owner = |blocks: bool| object!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u", "blockOwnerDeletion": blocks});
    let owned = |blocks: bool| {
        let mut map = map("a", "1");
        map.set(&["metadata", "ownerReferences"], vec![owner(blocks)]);
        map
    };
    let dry = format!("{MAPS}?dryRun=All");
    wait_until("the user may create", SOON, || send("POST", &dry, JSON, &map("a", "1")).code == 201).unwrap();
    let refused = send("POST", MAPS, JSON, &owned(true));
    let why = "configmaps \"a\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>";
    assert_eq!((refused.code, read(&refused).str_at(&["message"])), (403, why));
    assert_eq!(send("POST", MAPS, JSON, &owned(false)).code, 201);
    let patch = object!({"metadata": {"ownerReferences": null}});
    let refused = send("PATCH", &format!("{MAPS}/a"), "application/merge-patch+json", &patch);
    let why = "configmaps \"a\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>";
    assert_eq!((refused.code, read(&refused).str_at(&["message"])), (403, why));
    let service = object!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80}], "externalIPs": ["192.0.2.7"]}
    });
    let told = super::plugins::refused(&cluster, "/api/v1/namespaces/default/services", &service, 403);
    assert_eq!(told, "services \"s\" is forbidden: Use of external IPs is denied by admission control");
    // A class has an overhead that pods cannot change.
    let class = object!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "k"}, "handler": "h",
        "overhead": {"podFixed": {"cpu": "1"}}, "scheduling": {"nodeSelector": {"k": "v"}, "tolerations": [{"key": "k"}]},
    });
    cluster.create("/apis/node.k8s.io/v1/runtimeclasses", &class);
    namespace(&cluster, "n", &object!({}));
    let made = soon(&cluster, &pods("n"), &pod("p", &object!({"runtimeClassName": "k"})), 201);
    assert_eq!(made.at(&["spec", "overhead"]), &object!({"cpu": "1"}));
    assert_eq!(made.at(&["spec", "nodeSelector"]), &object!({"k": "v"}));
    let check = |spec: Value, why: &str| {
        let told = super::plugins::refused(&cluster, &pods("n"), &pod("p", &spec), 403);
        assert_eq!(told, format!("pods \"p\" is forbidden: {why}"));
    };
    check(
        object!({"runtimeClassName": "k", "overhead": {"cpu": "2"}}),
        "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
    );
    check(
        object!({"overhead": {"cpu": "2"}}),
        "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
    );
    check(
        object!({"runtimeClassName": "k", "nodeSelector": {"k": "w"}}),
        "conflict: runtimeClass.scheduling.nodeSelector[k] = v; pod.spec.nodeSelector[k] = w",
    );
}

#[test]
fn events_come_at_a_rate() {
    let cluster = Cluster::start_with(|pki| {
        let file = pki.file("admission.yaml");
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: EventRateLimit\n  configuration:\n    apiVersion: eventratelimit.admission.k8s.io/v1alpha1\n    kind: Configuration\n    limits:\n    - {type: User, qps: 1, burst: 3}\n";
        std::fs::write(&file, text).unwrap();
        vec![
            "--enable-admission-plugins=EventRateLimit".to_owned(),
            format!("--admission-control-config-file={}", file.display()),
        ]
    });
    let event = object!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "e-"}, "reason": "R", "type": "Normal",
        "involvedObject": {"kind": "ConfigMap", "namespace": "default", "name": "a"},
    });
    let send = || cluster.send("POST", "/api/v1/namespaces/default/events", JSON, &event.to_string());
    let answers: Vec<Response> = (0..8).map(|_| send()).collect();
    assert_eq!(answers[..3].iter().map(|r| r.code).collect::<Vec<_>>(), [201; 3]);
    let refused = answers.iter().find(|r| r.code == 429).expect("one too many");
    let why = "Too many requests: limit reached on type User for key admin";
    assert_eq!(read(refused).str_at(&["message"]), why);
}

#[test]
fn what_running_pods_are_given_is_limited_too() {
    let cluster = Cluster::start();
    namespace(&cluster, "limited", &object!({}));
    let path = pods("limited");
    let resources = object!({"requests": {"cpu": "100m"}, "limits": {"cpu": "100m"}});
    let container = object!({"name": "c", "image": "i", "resources": resources});
    let spec = object!({"containers": (vec![container])});
    cluster.create(&path, &pod("p", &spec));
    let quota = object!({"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "300m"}}});
    cluster.create(&format!("{NAMESPACES}/limited/resourcequotas"), &quota);
    let resize = |cpu: &str| {
        let resources = format!(r#"{{"requests":{{"cpu":"{cpu}"}},"limits":{{"cpu":"{cpu}"}}}}"#);
        let patch = format!(r#"{{"spec":{{"containers":[{{"name":"c","resources":{resources}}}]}}}}"#);
        let target = format!("{path}/p/resize?dryRun=All");
        cluster.send("PATCH", &target, "application/strategic-merge-patch+json", &patch)
    };
    let refuses = |cpu: &str, why: &str| {
        let said = || resize(cpu);
        wait_until("the resize is refused", SOON, || said().code == 403)
            .unwrap_or_else(|e| panic!("{e}: {}", said().body));
        assert!(said().body.contains(why), "{}", said().body);
    };
    refuses("2", "exceeded quota: q, requested: requests.cpu=1900m");
    assert_eq!(resize("200m").code, 200, "{}", resize("200m").body);
    let limits = object!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "150m"}}]}});
    cluster.create(&format!("{NAMESPACES}/limited/limitranges"), &limits);
    refuses("200m", "maximum cpu usage per Container is 150m, but limit is 200m");
}

#[test]
fn another_server_says_which_images_pods_may_have() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let cluster = Cluster::start_with(|pki| {
        let port = documents::serve(pki, move |_, review| {
            seen.lock().push(review.get("spec").clone());
            let mut answer = review.clone();
            let bad = review.array_at(&["spec", "containers"]).iter().any(|c| c.str_at(&["image"]) == "bad");
            answer.set(&["status"], object!({"allowed": (!bad), "reason": "it is bad"}));
            answer
        });
        let kubeconfig = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k}}}}]\n\
             clusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:{port}/', certificate-authority: ca.crt}}}}]\n"
        );
        std::fs::write(pki.file("images.yaml"), kubeconfig).unwrap();
        let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: ImagePolicyWebhook\n  configuration: {imagePolicy: {kubeConfigFile: images.yaml, allowTTL: 60}}\n";
        std::fs::write(pki.file("admission.yaml"), text).unwrap();
        vec![
            "--enable-admission-plugins=ImagePolicyWebhook".to_owned(),
            format!("--admission-control-config-file={}", pki.file("admission.yaml").display()),
        ]
    });
    namespace(&cluster, "a", &object!({}));
    let images = |image: &str| object!({"containers": [{"name": "c", "image": image}]});
    let message = refused(&cluster, &pods("a"), &pod("p", &images("bad")), 403);
    let want = "pods \"p\" is forbidden: image policy webhook backend denied one or more images: it is bad";
    assert_eq!(message, want);
    let mut good = pod("p", &images("good"));
    good.set(&["metadata", "annotations"], object!({"x.image-policy.k8s.io/ticket": "1", "other": "2"}));
    cluster.create(&pods("a"), &good);
    let annotations = object!({"x.image-policy.k8s.io/ticket": "1"});
    let spec = object!({"containers": [{"image": "good"}], "annotations": annotations, "namespace": "a"});
    assert_eq!(asked.lock().last(), Some(&spec));
    // The answer holds for the next pod.
    good.set(&["metadata", "name"], "q");
    cluster.create(&pods("a"), &good);
    assert_eq!(asked.lock().len(), 2);
}
