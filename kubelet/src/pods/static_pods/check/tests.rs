use api::object;

use super::*;

fn check(path: &[&str], value: Value, expected: &str) {
    let mut pod = object!({
        "metadata": {"name": "p"},
        "spec": {
            "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "c", "image": "x"}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    });
    pod.set(path, value);
    let found = first(&pod).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(found, expected, "{path:?}");
}

fn check_container(more: Value, expected: &str) {
    let mut container = object!({"name": "c", "image": "x"});
    for (field, value) in more.as_object().unwrap().iter() {
        container.set(&[field], value.clone());
    }
    check(&["spec", "containers"], Value::Array(vec![container]), expected);
}

fn check_mount(more: Value, expected: &str) {
    let mut mount = object!({"name": "v", "mountPath": "/m"});
    for (field, value) in more.as_object().unwrap().iter() {
        mount.set(&[field], value.clone());
    }
    let expected = match expected {
        "" => String::new(),
        expected => format!("spec.containers[0].volumeMounts[0].{expected}"),
    };
    check_container(object!({"volumeMounts": [mount]}), &expected);
}

#[test]
fn mounts_stay_in_their_volumes() {
    check_mount(object!({}), "");
    check_mount(object!({"subPath": "a/b..c"}), "");
    check_mount(object!({"subPath": "../x"}), r#"subPath: Invalid value: "../x": must not contain '..'"#);
    check_mount(
        object!({"subPath": "a/../../x"}),
        r#"subPath: Invalid value: "a/../../x": must not contain '..'"#,
    );
    check_mount(object!({"subPath": "/etc"}), r#"subPath: Invalid value: "/etc": must be a relative path"#);
    check_mount(
        object!({"subPathExpr": "$(A)/.."}),
        r#"subPathExpr: Invalid value: "$(A)/..": must not contain '..'"#,
    );
    check_mount(object!({"name": "other"}), r#"name: Not found: "other""#);
    check_mount(object!({"mountPath": ""}), "mountPath: Required value");
}

#[test]
fn volumes_lead_nowhere_else() {
    let volumes =
        |volume: Value, expected: &str| check(&["spec", "volumes"], Value::Array(vec![volume]), expected);
    volumes(object!({"name": "v", "hostPath": {"path": "/var/log"}}), "");
    volumes(
        object!({"name": "v", "hostPath": {"path": "/var/../etc"}}),
        r#"spec.volumes[0].hostPath.path: Invalid value: "/var/../etc": must not contain '..'"#,
    );
    volumes(
        object!({"name": "v", "downwardAPI": {"items": [{"path": "../../x"}]}}),
        r#"spec.volumes[0].downwardAPI.items[0].path: Invalid value: "../../x": must not start with '..'"#,
    );
    volumes(
        object!({"name": "v", "projected": {"sources": [{"downwardAPI": {"items": [{"path": "/x"}]}}]}}),
        r#"spec.volumes[0].projected.sources[0].downwardAPI.items[0].path: Invalid value: "/x": must be a relative path"#,
    );
    volumes(
        object!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}),
        "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
    );
    let twice = object!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]);
    check(&["spec", "volumes"], twice, r#"spec.volumes[1].name: Duplicate value: "v""#);
}

#[test]
fn annotations_have_their_limit() {
    let annotations = |size: usize| object!({"a": ("x".repeat(size))});
    check(&["metadata", "annotations"], annotations(ANNOTATIONS - 1), "");
    let too_long = "metadata.annotations: Too long: may not be more than 262144 bytes";
    check(&["metadata", "annotations"], annotations(ANNOTATIONS), too_long);
    let many: Value =
        Value::Object((0..4000).map(|n| (format!("k{n}"), Value::from("x".repeat(100)))).collect());
    check(&["metadata", "annotations"], many, too_long);
}

#[test]
fn values_that_nothing_can_be_made_of_are_refused() {
    check(&["spec", "containers"], Value::Array(Vec::new()), "spec.containers: Required value");
    check_container(object!({"image": ""}), "spec.containers[0].image: Required value");
    check_container(
        object!({"imagePullPolicy": "Sometimes"}),
        r#"spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never""#,
    );
    check_container(
        object!({"ports": [{"containerPort": 70000}]}),
        "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
    );
    check(
        &["spec", "activeDeadlineSeconds"],
        0.into(),
        "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
    );
    check(
        &["spec", "restartPolicy"],
        "Perhaps".into(),
        r#"spec.restartPolicy: Unsupported value: "Perhaps": supported values: "Always", "OnFailure", "Never""#,
    );
}

#[test]
fn a_thousand_containers_are_looked_at() {
    let container = |n: usize, image: &str| object!({"name": (format!("c{n}")), "image": image});
    let mut all: Vec<_> = (0..1000).map(|n| container(n, "x")).collect();
    check(&["spec", "containers"], Value::Array(all.clone()), "");
    all[999] = container(999, "");
    check(&["spec", "containers"], Value::Array(all), "spec.containers[999].image: Required value");
}

#[test]
fn probes_and_hooks_are_of_one_kind() {
    let probe = |probe: Value, expected: &str| {
        check_container(
            object!({"livenessProbe": probe}),
            &format!("spec.containers[0].livenessProbe{expected}"),
        );
    };
    check_container(
        object!({"livenessProbe": {"httpGet": {"path": "/", "port": "web", "scheme": "HTTPS"}}}),
        "",
    );
    probe(object!({}), ": Required value: must specify a handler type");
    probe(
        object!({"exec": {"command": ["true"]}, "tcpSocket": {"port": 1}}),
        ".tcpSocket: Forbidden: may not specify more than 1 handler type",
    );
    probe(object!({"exec": {}}), ".exec.command: Required value");
    probe(
        object!({"httpGet": {"path": "/", "port": 70000}}),
        ".httpGet.port: Invalid value: 70000: must be between 1 and 65535, inclusive",
    );
    probe(
        object!({"grpc": {"port": 1}, "periodSeconds": (-1)}),
        ".periodSeconds: Invalid value: -1: must be greater than or equal to 0",
    );
    probe(
        object!({"grpc": {"port": 1}, "successThreshold": 2}),
        ".successThreshold: Invalid value: 2: must be 1",
    );
    check_container(
        object!({"readinessProbe": {"grpc": {"port": 1}, "terminationGracePeriodSeconds": 1}}),
        "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
    );
    check_container(
        object!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
        "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
    );
    check(
        &["spec", "initContainers"],
        object!([{"name": "i", "image": "x", "startupProbe": {"grpc": {"port": 1}}}]),
        "spec.initContainers[0].startupProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
    );
}

#[test]
fn security_contexts_make_sense() {
    let context = |context: Value, expected: &str| {
        let expected = format!("spec.containers[0].securityContext{expected}");
        check_container(object!({"securityContext": context}), &expected);
    };
    context(
        object!({"runAsUser": (-1)}),
        ".runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
    );
    context(
        object!({"procMount": "Unmasked"}),
        r#".procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`"#,
    );
    context(
        object!({"allowPrivilegeEscalation": false, "privileged": true}),
        ": Invalid value: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
    );
    context(
        object!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}),
        r#".seccompProfile.localhostProfile: Invalid value: "../x": must not contain '..'"#,
    );
    context(
        object!({"appArmorProfile": {"type": "Localhost"}}),
        ".appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost",
    );
    let pod = |value: Value, expected: &str| check(&["spec", "securityContext"], value, expected);
    pod(
        object!({"fsGroup": 1, "supplementalGroups": [1], "sysctls": [{"name": "net.a/b", "value": "1"}]}),
        "",
    );
    pod(
        object!({"supplementalGroups": [1, (-1)]}),
        "spec.securityContext.supplementalGroups[1]: Invalid value: -1: must be between 0 and 2147483647, inclusive",
    );
    pod(object!({"sysctls": [{"value": "1"}]}), "spec.securityContext.sysctls[0].name: Required value");
    pod(
        object!({"seccompProfile": {"type": "Other"}}),
        r#"spec.securityContext.seccompProfile.type: Unsupported value: "Other": supported values: "Localhost", "RuntimeDefault", "Unconfined""#,
    );
}

#[test]
fn amounts_and_names_of_the_network_are_checked() {
    check_container(
        object!({"resources": {"limits": {"cpu": "-1"}}}),
        r#"spec.containers[0].resources.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0"#,
    );
    check_container(
        object!({"resources": {"limits": {"memory": "1Mi"}, "requests": {"memory": "2Mi"}}}),
        r#"spec.containers[0].resources.requests: Invalid value: "2Mi": must be less than or equal to memory limit of 1Mi"#,
    );
    check_mount(object!({"mountPropagation": "None"}), "");
    check_container(
        object!({"volumeMounts": [{"name": "v", "mountPath": "/m", "mountPropagation": "Bidirectional"}]}),
        "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
    );
    check(
        &["spec", "hostAliases"],
        object!([{"ip": "1.2.3.4", "hostnames": ["a b"]}]),
        r#"spec.hostAliases[0].hostnames[0]: Invalid value: "a b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
    );
    check(
        &["spec", "dnsConfig"],
        object!({"nameservers": ["1.2.3.4", "one"]}),
        r#"spec.dnsConfig.nameservers[1]: Invalid value: "one": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
    );
    check(
        &["spec", "dnsPolicy"],
        "None".into(),
        "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
    );
}
