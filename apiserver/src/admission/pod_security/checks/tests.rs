use api::{Value, object};

use super::{CHECKS, Pod, details, evaluate};
use crate::admission::pod_security::level::{Level, Standard, Version};

fn check(level: Level, minor: u64, template: &Value, want: &str) {
    let standard = Standard { level, version: Version(Some(minor)) };
    assert_eq!(details(&evaluate(&standard, &Pod::new(template))), want, "{standard}: {template}");
}

fn pod(spec: Value, container: Value) -> Value {
    let mut container = container;
    container.set(&["name"], "a");
    let mut spec = spec;
    spec.set(&["containers"], vec![container]);
    object!({"metadata": {}, "spec": spec})
}

/// A pod that the strictest standard allows.
fn hardened() -> Value {
    let context = object!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    });
    let own = object!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    pod(
        object!({"securityContext": own, "volumes": [{"name": "v", "emptyDir": {}}]}),
        object!({"securityContext": context}),
    )
}

#[test]
fn checks_are_in_order() {
    let ids: Vec<(Level, &str)> = CHECKS.iter().map(|c| (c.level, c.id)).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    for check in &CHECKS {
        assert!(check.versions.iter().map(|s| s.minor).is_sorted(), "{}", check.id);
        for replaced in check.versions.iter().map(|s| s.instead_of).filter(|id| !id.is_empty()) {
            assert!(ids.contains(&(Level::Baseline, replaced)), "{replaced}");
        }
    }
}

#[test]
fn plain_pods_are_allowed_but_not_hardened() {
    let plain = pod(Value::object(), Value::object());
    check(Level::Baseline, 36, &plain, "");
    check(Level::Privileged, 36, &pod(object!({"hostNetwork": true}), Value::object()), "");
    check(
        Level::Restricted,
        36,
        &plain,
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
    );
    check(Level::Restricted, 36, &hardened(), "");
    // What is asked for today was not asked for always.
    check(
        Level::Restricted,
        7,
        &plain,
        "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)",
    );
    let mut windows = plain;
    windows.set(&["spec", "os", "name"], "windows");
    windows.set(&["spec", "securityContext", "runAsNonRoot"], true);
    check(Level::Restricted, 25, &windows, "");
}

#[test]
fn what_reaches_for_the_node_is_told() {
    let told = |spec: Value, container: Value, want: &str| {
        check(Level::Baseline, 36, &pod(spec, container), want);
    };
    let none = Value::object;
    told(
        object!({"hostNetwork": true, "hostIPC": true}),
        none(),
        "host namespaces (hostNetwork=true, hostIPC=true)",
    );
    told(object!({"volumes": [{"name": "h", "hostPath": {}}]}), none(), "hostPath volumes (volume \"h\")");
    told(
        none(),
        object!({"ports": [{"hostPort": 80}, {"hostPort": 443}, {"hostPort": 0}]}),
        "hostPort (container \"a\" uses hostPorts 443, 80)",
    );
    told(
        none(),
        object!({"livenessProbe": {"httpGet": {"host": "h"}}, "lifecycle": {"preStop": {"tcpSocket": {"host": "i"}}}}),
        "probe or lifecycle host (container \"a\" uses probe or lifecycle hosts \"h\", \"i\")",
    );
    told(
        none(),
        object!({"securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN", "KILL"]}}}),
        "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add), privileged (container \"a\" must not set securityContext.privileged=true)",
    );
    let unmasked = || object!({"securityContext": {"procMount": "Unmasked"}});
    told(
        none(),
        unmasked(),
        "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
    );
    told(object!({"hostUsers": false}), unmasked(), "");
    told(
        object!({"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}}),
        object!({"securityContext": {"seLinuxOptions": {"role": "r"}}}),
        "seLinuxOptions (pod and container \"a\" set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set; role may not be set)",
    );
    told(
        object!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "kernel.x"}]}}),
        none(),
        "forbidden sysctls (kernel.x)",
    );
    let mut annotated =
        pod(none(), object!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}));
    annotated
        .set(&["metadata", "annotations", "container.apparmor.security.beta.kubernetes.io/a"], "unconfined");
    let want = "forbidden AppArmor profiles (container \"a\" and annotation must not set AppArmor profile type to \"Unconfined\", \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")";
    check(Level::Baseline, 36, &annotated, want);
}

#[test]
fn stricter_rules_stand_for_looser_ones() {
    let mut bad = hardened();
    bad.set(
        &["spec", "volumes"],
        vec![object!({"name": "h", "hostPath": {}}), object!({"name": "n", "nfs": {}})],
    );
    let want =
        "restricted volume types (volumes \"h\", \"n\" use restricted volume types \"hostPath\", \"nfs\")";
    check(Level::Restricted, 36, &bad, want);
    let mut root = hardened();
    root.set(&["spec", "securityContext", "runAsUser"], 0);
    check(Level::Restricted, 36, &root, "runAsUser=0 (pod must not set runAsUser=0)");
    root.set(&["spec", "hostUsers"], false);
    check(Level::Restricted, 36, &root, "");
    check(Level::Restricted, 34, &root, "runAsUser=0 (pod must not set runAsUser=0)");
}
