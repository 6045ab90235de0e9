//! From a pod to the configuration of its sandbox.

use api::Value;
use k8s_cri::v1 as cri;

use super::{security, spec};
use crate::config::Config;
use crate::cri::labels;
use crate::network;
use crate::users::Users;

/// The configuration; an error is a sentence. `resolv_conf` is the text of the host's resolver file; without `users` the pod has the node's.
pub(crate) fn config(
    pod: &Value,
    config: &Config,
    attempt: u32,
    resolv_conf: &str,
    users: Option<Users>,
) -> Result<cri::PodSandboxConfig, String> {
    let logs = config.pod_logs(pod.namespace(), pod.name(), pod.uid());
    let hostname = match spec::host_network(pod) {
        true => String::new(),
        false => network::kernel_hostname(pod, &config.file)?,
    };
    let mut annotations = labels::strings(pod.at(&["metadata", "annotations"]));
    annotations.entry(spec::SOURCE.to_owned()).or_insert_with(|| "api".to_owned());
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt,
        }),
        hostname,
        log_directory: logs.to_string_lossy().into_owned(),
        dns_config: Some(network::dns(pod, &config.file, resolv_conf)),
        port_mappings: if spec::host_network(pod) { Vec::new() } else { ports(pod) },
        labels: labels::of_sandbox(pod),
        annotations,
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: format!("/{}", config.groups.pod(pod)),
            security_context: Some(security(pod, users)),
            sysctls: sysctls(pod),
            ..Default::default()
        }),
        windows: None,
    })
}

fn ports(pod: &Value) -> Vec<cri::PortMapping> {
    let ports = spec::all_containers(pod).flat_map(|container| container.array_at(&["ports"]));
    ports
        .map(|port| cri::PortMapping {
            protocol: match port.str_at(&["protocol"]) {
                "UDP" => cri::Protocol::Udp as i32,
                "SCTP" => cri::Protocol::Sctp as i32,
                _ => cri::Protocol::Tcp as i32,
            },
            container_port: number(port.get("containerPort")),
            host_port: number(port.get("hostPort")),
            host_ip: port.str_at(&["hostIP"]).to_owned(),
        })
        .collect()
}

fn number(value: &Value) -> i32 {
    value.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or_default()
}

fn sysctls(pod: &Value) -> std::collections::HashMap<String, String> {
    let sysctls = pod.array_at(&["spec", "securityContext", "sysctls"]).iter();
    sysctls.map(|s| (s.str_at(&["name"]).to_owned(), s.str_at(&["value"]).to_owned())).collect()
}

/// Which namespaces the pod shares, and with whom.
pub(crate) fn namespaces(pod: &Value, users: Option<Users>) -> cri::NamespaceOption {
    let is = |field: &str| pod.at(&["spec", field]).as_bool().unwrap_or_default();
    let node = |on: bool| if on { cri::NamespaceMode::Node as i32 } else { cri::NamespaceMode::Pod as i32 };
    let pid = match (is("hostPID"), is("shareProcessNamespace")) {
        (true, _) => cri::NamespaceMode::Node as i32,
        (_, true) => cri::NamespaceMode::Pod as i32,
        _ => cri::NamespaceMode::Container as i32,
    };
    cri::NamespaceOption {
        network: node(is("hostNetwork")),
        ipc: node(is("hostIPC")),
        pid,
        userns_options: Some(Users::namespace(users)),
        ..Default::default()
    }
}

fn security(pod: &Value, users: Option<Users>) -> cri::LinuxSandboxSecurityContext {
    let context = pod.at(&["spec", "securityContext"]);
    let int = |field: &str| context.get(field).as_i64().map(|value| cri::Int64Value { value });
    let privileged =
        |container: &Value| container.at(&["securityContext", "privileged"]).as_bool() == Some(true);
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, users)),
        selinux_options: security::selinux(context.get("seLinuxOptions")),
        run_as_user: int("runAsUser"),
        run_as_group: int("runAsUser").and(int("runAsGroup")),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: security::groups_policy(pod),
        privileged: spec::all_containers(pod).any(privileged),
        seccomp: Some(cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::RuntimeDefault as i32,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The groups that all of the pod's processes belong to besides their own.
pub(crate) fn supplemental_groups(pod: &Value) -> Vec<i64> {
    let context = pod.at(&["spec", "securityContext"]);
    let own = context.array_at(&["supplementalGroups"]).iter().filter_map(Value::as_i64);
    context.get("fsGroup").as_i64().into_iter().chain(own).collect()
}

/// Settings of the kernel that are the pod's own and harmless to others; upstream's list.
const SAFE_SYSCTLS: [&str; 13] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
];

/// A setting of the kernel that the pod asks for and may not have.
pub(crate) fn forbidden_sysctl<'p>(pod: &'p Value, allowed: &[String]) -> Option<&'p str> {
    let matches = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    };
    let names = pod.array_at(&["spec", "securityContext", "sysctls"]).iter().map(|s| s.str_at(&["name"]));
    let mut forbidden = names
        .filter(|name| !SAFE_SYSCTLS.contains(name) && !allowed.iter().any(|pattern| matches(pattern, name)));
    forbidden.next()
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn namespaces_are_shared_as_the_spec_says() {
        use cri::NamespaceMode::{Container, Node, Pod};
        for (spec, network, pid) in [
            (object!({}), Pod, Container),
            (object!({"hostNetwork": true, "hostPID": true}), Node, Node),
            (object!({"shareProcessNamespace": true}), Pod, Pod),
        ] {
            let options = namespaces(&object!({"spec": (spec.clone())}), None);
            assert_eq!((options.network, options.pid), (network as i32, pid as i32), "{spec:?}");
        }
    }

    #[test]
    fn only_harmless_sysctls_are_allowed() {
        let pod =
            |name: &str| object!({"spec": {"securityContext": {"sysctls": [{"name": name, "value": "1"}]}}});
        assert_eq!(forbidden_sysctl(&pod("net.ipv4.tcp_syncookies"), &[]), None);
        assert_eq!(forbidden_sysctl(&pod("kernel.msgmax"), &[]), Some("kernel.msgmax"));
        assert_eq!(forbidden_sysctl(&pod("kernel.msgmax"), &["kernel.msg*".to_owned()]), None);
    }

    #[test]
    fn annotations_of_any_permitted_size_fit_a_message() {
        use prost::Message;
        let long = "x".repeat(256 << 10);
        let containers = (0..1000).map(|i| object!({"name": (format!("c{i}")), "image": "x"})).collect();
        let pod = object!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "annotations": {"a": (long.as_str())}},
            "spec": {"containers": (Value::Array(containers))},
        });
        let annotations = labels::strings(pod.at(&["metadata", "annotations"]));
        assert_eq!(annotations["a"], long);
        let config =
            cri::PodSandboxConfig { annotations, labels: labels::of_sandbox(&pod), ..Default::default() };
        // The least that gRPC servers take.
        assert!(config.encoded_len() < 4 << 20);
        // The containers do not repeat them.
        let container = spec::containers(&pod).last().unwrap();
        assert!(labels::annotations(&pod, container, 0).values().all(|value| value.len() < 1024));
    }
}
