//! Defaults of pods and of the templates that workloads make pods from: what servers fill in, and nodes in the pods that
//! only they know.
//!
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/>.

mod level;
pub mod references;

use std::sync::LazyLock;

use regex::Regex;

use crate::defaults::{default_if_empty, default_to};
use crate::{Map, Value, object};
pub use level::effective;

/// Fills in a pod template below `template` of a workload's spec.
pub fn default_pod_template(spec: &mut Value) {
    let template = spec.make_object().entry("template");
    if template.is_null() {
        return;
    }
    default_pod_spec(template.make_object().entry("spec"));
}

/// Fills in a pod's spec.
pub fn default_pod_spec(spec: &mut Value) {
    default_if_empty(spec, "dnsPolicy", "ClusterFirst");
    default_if_empty(spec, "restartPolicy", "Always");
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_to(spec, "securityContext", Value::object());
    default_if_empty(spec, "schedulerName", "default-scheduler");
    mirror_service_account(spec);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        items(spec, list).for_each(default_container);
    }
    for volume in items(spec, "volumes") {
        default_volume(volume);
    }
}

/// The old and the new name of one field have the same value.
fn mirror_service_account(spec: &mut Value) {
    let (new, old) =
        (spec.str_at(&["serviceAccountName"]).to_owned(), spec.str_at(&["serviceAccount"]).to_owned());
    let name = if new.is_empty() { old } else { new };
    if !name.is_empty() {
        spec.set(&["serviceAccountName"], name.as_str());
        spec.set(&["serviceAccount"], name);
    }
}

/// Fills in a pod, and what belongs to pods alone, not to templates.
pub fn default_pod(pod: &mut Value) {
    let spec = pod.make_object().entry("spec");
    default_pod_spec(spec);
    for list in ["initContainers", "containers"] {
        items(spec, list).for_each(|c| default_requests(c.make_object().get_mut("resources")));
    }
    level::default(spec);
    default_to(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork").as_bool() == Some(true) {
        for list in ["initContainers", "containers"] {
            for port in items(spec, list)
                .flat_map(|c| c.make_object().get_mut("ports"))
                .filter_map(Value::as_array_mut)
                .flatten()
            {
                let number = port.get("containerPort").clone();
                default_if_empty(port, "hostPort", number);
            }
        }
    }
    align_addresses(pod.make_object().entry("status"));
}

/// The address of a pod is the first of its addresses; where they differ, who wrote knows of one alone.
fn align_addresses(status: &mut Value) {
    let first = status.array_at(&["podIPs"]).first().map(|a| a.str_at(&["ip"]).to_owned());
    let single = status.str_at(&["podIP"]).to_owned();
    match first {
        Some(first) if single.is_empty() => status.set(&["podIP"], first),
        Some(first) if first == single => {}
        _ if single.is_empty() => {}
        _ => status.set(&["podIPs"], object!([{"ip": single}])),
    }
}

fn items<'v>(object: &'v mut Value, list: &str) -> impl Iterator<Item = &'v mut Value> {
    object.make_object().get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn default_container(container: &mut Value) {
    let policy = pull_policy(container.str_at(&["image"]));
    default_if_empty(container, "imagePullPolicy", policy);
    default_if_empty(container, "terminationMessagePath", "/dev/termination-log");
    default_if_empty(container, "terminationMessagePolicy", "File");
    for port in items(container, "ports") {
        default_if_empty(port, "protocol", "TCP");
    }
    for env in items(container, "env") {
        if let Some(field) = env.at_mut(&["valueFrom", "fieldRef"]).filter(|f| !f.is_null()) {
            default_if_empty(field, "apiVersion", "v1");
        }
        if let Some(file) = env.at_mut(&["valueFrom", "fileKeyRef"]).filter(|f| !f.is_null()) {
            default_to(file, "optional", false);
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.make_object().get_mut(kind).filter(|p| !p.is_null()) {
            default_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(get) = container.at_mut(&["lifecycle", hook, "httpGet"]).filter(|g| !g.is_null()) {
            default_http_get(get);
        }
    }
}

/// A container that sets a limit and no request asks for the limit.
fn default_requests(resources: Option<&mut Value>) {
    let Some(resources) = resources else { return };
    let limits = resources.get("limits").clone();
    for (name, limit) in limits.as_object().into_iter().flat_map(Map::iter) {
        default_to(resources.make_object().entry("requests"), name, limit);
    }
    if let Some(requests) = resources.make_object().get_mut("requests").and_then(Value::as_object_mut) {
        requests.sort_keys();
    }
}

/// The grammar of names of images: a host and a port, a path, a tag and a digest.
static IMAGE: LazyLock<Regex> = LazyLock::new(|| {
    const PART: &str = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
    const LABEL: &str = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    let host = format!(r"(?:{LABEL}(?:\.{LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?");
    let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    let whole =
        format!(r"^(?:{host}/)?{PART}(?:/{PART})*(?::[0-9A-Za-z_][0-9A-Za-z_.-]{{0,127}})?(?:@{digest})?$");
    Regex::new(&whole).expect("a valid expression")
});

/// Longest name of an image without tag and digest.
const IMAGE_BYTES: usize = 255;

/// Images named by the tag `latest`, or by none, are pulled always. What is no name has no tag.
fn pull_policy(image: &str) -> &'static str {
    let reference = image.split('@').next().unwrap_or_default();
    if image.contains('@') || !IMAGE.is_match(image) || reference.len() > IMAGE_BYTES {
        return "IfNotPresent";
    }
    let last = reference.rsplit('/').next().unwrap_or_default();
    match last.rsplit_once(':') {
        Some((_, tag)) if tag != "latest" => "IfNotPresent",
        _ => "Always",
    }
}

fn default_probe(probe: &mut Value) {
    default_if_empty(probe, "timeoutSeconds", 1);
    default_if_empty(probe, "periodSeconds", 10);
    default_if_empty(probe, "successThreshold", 1);
    default_if_empty(probe, "failureThreshold", 3);
    if let Some(get) = probe.make_object().get_mut("httpGet").filter(|g| !g.is_null()) {
        default_http_get(get);
    }
    if let Some(grpc) = probe.make_object().get_mut("grpc").filter(|g| !g.is_null()) {
        default_to(grpc, "service", "");
    }
}

fn default_http_get(get: &mut Value) {
    default_if_empty(get, "path", "/");
    default_if_empty(get, "scheme", "HTTP");
}

/// A volume without a source is an empty directory.
fn default_volume(volume: &mut Value) {
    let without_source = volume.as_object().is_none_or(|m| m.iter().all(|(k, v)| k == "name" || v.is_null()));
    if without_source {
        volume.set(&["emptyDir"], Value::object());
    }
    default_volume_source(volume);
}

const MODE: i32 = 0o644;

/// Fills in a volume's source, of pods and of PersistentVolumes.
pub fn default_volume_source(volume: &mut Value) {
    let mut each = |source: &str, f: &dyn Fn(&mut Value)| {
        if let Some(v) = volume.make_object().get_mut(source).filter(|v| !v.is_null()) {
            f(v);
        }
    };
    let mode = |v: &mut Value| default_to(v, "defaultMode", MODE);
    each("configMap", &mode);
    each("secret", &mode);
    each("downwardAPI", &|v| {
        mode(v);
        items(v, "items").for_each(default_downward_item);
    });
    each("projected", &|v| {
        mode(v);
        for source in items(v, "sources") {
            if let Some(token) = source.make_object().get_mut("serviceAccountToken").filter(|t| !t.is_null())
            {
                default_to(token, "expirationSeconds", 3600);
            }
            if let Some(api) = source.make_object().get_mut("downwardAPI").filter(|a| !a.is_null()) {
                items(api, "items").for_each(default_downward_item);
            }
        }
    });
    each("hostPath", &|v| default_to(v, "type", ""));
    each("iscsi", &|v| default_if_empty(v, "iscsiInterface", "default"));
    each("rbd", &|v| {
        for (key, value) in [("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")] {
            default_if_empty(v, key, value);
        }
    });
    each("azureDisk", &|v| {
        for (key, value) in [("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")] {
            default_to(v, key, value);
        }
        default_to(v, "readOnly", false);
    });
    each("scaleIO", &|v| {
        default_if_empty(v, "storageMode", "ThinProvisioned");
        default_if_empty(v, "fsType", "xfs");
    });
    each("ephemeral", &|v| {
        if let Some(spec) = v.at_mut(&["volumeClaimTemplate", "spec"]) {
            default_to(spec, "volumeMode", "Filesystem");
        }
    });
    each("image", &|v| {
        let policy = pull_policy(v.str_at(&["reference"]));
        default_if_empty(v, "pullPolicy", policy);
    });
}

fn default_downward_item(item: &mut Value) {
    if let Some(field) = item.make_object().get_mut("fieldRef").filter(|f| !f.is_null()) {
        default_if_empty(field, "apiVersion", "v1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies_follow_the_tag() {
        for (image, want) in [
            ("a", "Always"),
            ("a:latest", "Always"),
            ("a:1", "IfNotPresent"),
            ("h:5000/a", "Always"),
            ("h:5000/a:1", "IfNotPresent"),
            ("a@sha256:00", "IfNotPresent"),
            ("a:latest@sha256:00", "IfNotPresent"),
            ("No Image", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), want, "{image}");
        }
    }
}
