//! Advice about pods and templates: what is accepted, and yet most likely not meant.

use std::collections::{HashMap, HashSet};

use api::field::{Path, go_quote};
use api::quantity::Quantity;
use api::{Value, names};

use super::paths::about_paths;
use super::spec::each_container;
use crate::kinds::check::At;

/// Labels of nodes that have a successor, or none.
const LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#,
    ),
    (
        "beta.kubernetes.io/instance-type",
        r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#,
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", r#"use "node-role.kubernetes.io/control-plane" instead"#),
];

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
];

const VOLUMES: [(&str, &str, &str); 9] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

fn label_message(key: &str) -> Option<&'static str> {
    LABELS.iter().find(|(label, _)| *label == key).map(|(_, message)| *message)
}

/// Advice about a pod.
pub(super) fn of_pod(pod: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let found = names::dns_label(pod.name());
    if !found.is_empty() {
        let list = found.join(" ");
        out.push(format!("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{list}]"));
    }
    let spec = At { value: pod.get("spec"), path: Path::new("spec") };
    let metadata = Path::new("metadata");
    collect(&spec, &At { value: pod.get("metadata"), path: metadata }, &mut out);
    out
}

/// Advice about the name of an object whose pods are called after it.
pub(in crate::kinds) fn of_name_for_pods(object: &Value) -> Option<String> {
    let found = names::dns_label(object.name());
    let list = found.join(" ");
    (!found.is_empty()).then(|| format!("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{list}]"))
}

/// Advice about a template at `path`.
pub(in crate::kinds) fn of_template(path: &Path<'_>, template: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let spec = At { value: template.get("spec"), path: path.child("spec") };
    let metadata = At { value: template.get("metadata"), path: path.child("metadata") };
    collect(&spec, &metadata, &mut out);
    out
}

fn collect(spec: &At<'_>, metadata: &At<'_>, out: &mut Vec<String>) {
    about_nodes(spec, out);
    let annotations = metadata.get("annotations");
    for (key, message) in ANNOTATIONS {
        if !annotations.value.get(key).is_null() {
            out.push(format!("{}: {message}", annotations.path.key(key)));
        }
    }
    for volume in spec.get("volumes").items() {
        for (field, shown, message) in VOLUMES {
            if volume.get(field).is_set() {
                out.push(format!("{}: {message}", volume.get(shown).path));
            }
        }
    }
    about_paths(spec, out);
    about_duplicates(&spec.get("hostAliases"), "ip", "ip", out);
    about_duplicates(&spec.get("imagePullSecrets"), "name", "name", out);
    for secret in spec.get("imagePullSecrets").items() {
        if secret.get("name").text().is_empty() {
            out.push(format!("{}: invalid empty name \"\"", secret.get("name").path));
        }
    }
    about_fractions(&spec.get("overhead"), out);
    if !spec.get("securityContext.seccompProfile").is_set() && !annotations.value.get(SECCOMP_POD).is_null() {
        let path = annotations.path.key(SECCOMP_POD);
        out.push(format!(r#"{path}: non-functional in v1.27+; use the "seccompProfile" field instead"#));
    }
    each_container(spec, |container| about_container(container, &annotations, out));
    about_ports(spec, out);
    if spec.get("terminationGracePeriodSeconds").int() < 0 {
        let path = spec.get("terminationGracePeriodSeconds");
        let path = path.path;
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    about_affinity(spec, out);
}

fn about_nodes(spec: &At<'_>, out: &mut Vec<String>) {
    for (key, selector) in spec.get("nodeSelector").entries() {
        if let Some(message) = label_message(key) {
            out.push(format!("{}: {message}", selector.path));
        }
    }
    let node = spec.get("affinity.nodeAffinity");
    for term in node.get("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms").items() {
        about_term(&term, false, out);
    }
    for term in node.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        about_term(&term.get("preference"), true, out);
    }
    for constraint in spec.get("topologySpreadConstraints").items() {
        let key = constraint.get("topologyKey");
        if let Some(message) = label_message(key.text()) {
            out.push(format!("{}: {} is {message}", key.path, key.text()));
        }
        about_selector(&constraint.get("labelSelector"), out);
    }
}

/// Advice about a term of a selector of nodes.
pub(in crate::kinds) fn of_term(term: &At<'_>, out: &mut Vec<String>) {
    about_term(term, false, out);
}

fn about_term(term: &At<'_>, values: bool, out: &mut Vec<String>) {
    for expression in term.get("matchExpressions").items() {
        let key = expression.get("key");
        if let Some(message) = label_message(key.text()) {
            out.push(format!("{}: {} is {message}", key.path, key.text()));
        }
        for value in expression.get("values").items().filter(|_| values) {
            for why in names::label_value(value.text()) {
                out.push(format!("{}: {} is invalid, {why}", value.path, value.text()));
            }
        }
    }
}

fn about_selector(selector: &At<'_>, out: &mut Vec<String>) {
    if !selector.is_set() {
        out.push(format!("{}: a null labelSelector results in matching no pod", selector.path));
    }
}

fn about_affinity(spec: &At<'_>, out: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.get("affinity");
        let affinity = affinity.get(kind);
        for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            about_selector(&term.get("labelSelector"), out);
        }
        for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            about_selector(&term.get("podAffinityTerm.labelSelector"), out);
        }
    }
}

fn about_duplicates(list: &At<'_>, field: &str, what: &str, out: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for item in list.items() {
        let at = item.get(field);
        if !seen.insert(at.text().to_owned()) {
            out.push(format!("{}: duplicate {what} {}", at.path, go_quote(at.text())));
        }
    }
}

fn about_fractions(amounts: &At<'_>, out: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        let value = amounts.value.get(name);
        let quantity = value.as_str().and_then(|q| q.parse::<Quantity>().ok());
        if quantity.is_some_and(|q| q.millis() % 1000 != 0) {
            let quoted = go_quote(value.as_str().unwrap_or_default());
            let path = amounts.path.key(name);
            out.push(format!("{path}: fractional byte value {quoted} is invalid, must be an integer"));
        }
    }
}

fn about_container(container: &At<'_>, annotations: &At<'_>, out: &mut Vec<String>) {
    let key = format!("{SECCOMP_CONTAINER}{}", container.get("name").text());
    if !container.get("securityContext.seccompProfile").is_set() && !annotations.value.get(&key).is_null() {
        let path = annotations.path.key(&key);
        out.push(format!(r#"{path}: non-functional in v1.27+; use the "seccompProfile" field instead"#));
    }
    about_fractions(&container.get("resources.limits"), out);
    about_fractions(&container.get("resources.requests"), out);
    let mut seen = HashSet::new();
    for variable in container.get("env").items() {
        let name = variable.get("name").text();
        if seen.insert(name.to_owned()) {
            continue;
        }
        let reference = format!("$({name})");
        let value = variable.get("value").text();
        if variable.get("valueFrom").is_set() || value == reference || !value.contains(&reference) {
            out.push(format!(
                "{}: hides previous definition of {}, which may be dropped when using apply",
                variable.path,
                go_quote(name)
            ));
        }
    }
}

struct Port {
    path: String,
    address: String,
    host: i64,
}

fn about_ports(spec: &At<'_>, out: &mut Vec<String>) {
    let mut all: HashMap<String, Vec<Port>> = HashMap::new();
    each_container(spec, |container| {
        for port in container.get("ports").items() {
            if !port.get("hostIP").text().is_empty() && port.get("hostPort").int() == 0 {
                out.push(format!(
                    "{}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{}}}",
                    port.path,
                    port.get("name").text(),
                    port.get("containerPort").int(),
                    port.get("protocol").text(),
                    port.get("hostIP").text(),
                ));
            }
            let is = Port {
                path: port.path.to_string(),
                address: port.get("hostIP").text().to_owned(),
                host: port.get("hostPort").int(),
            };
            let key = format!("{}/{}", port.get("containerPort").int(), port.get("protocol").text());
            let others = all.entry(key).or_default();
            for other in others.iter() {
                let what = if is.address == other.address && is.host == other.host {
                    "duplicate"
                } else if is.host == 0 || other.host == 0 {
                    "overlapping"
                } else if is.host == other.host && (is.address.is_empty() != other.address.is_empty()) {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                out.push(format!("{}: {what} port definition with {}", is.path, other.path));
            }
            others.push(is);
        }
    });
    let mut names: HashMap<String, String> = HashMap::new();
    each_container(spec, |container| {
        for port in container.get("ports").items() {
            let name = port.get("name").text();
            if name.is_empty() {
                continue;
            }
            match names.get(name) {
                Some(other) => out.push(format!(
                    "{}: duplicate port name {} with {other}, services and probes that select ports by name will use {other}",
                    port.path,
                    go_quote(name)
                )),
                None => {
                    names.insert(name.to_owned(), port.path.to_string());
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn advice_about_a_pod() {
        let check = |spec: Value, want: &[&str]| {
            assert_eq!(of_pod(&object!({"metadata": {"name": "p"}, "spec": spec})), want);
        };
        check(
            object!({"containers": [{"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]}),
            &[
                r#"spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply"#,
            ],
        );
        check(
            object!({"containers": [{"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 1, "name": "a"}]}]}),
            &[
                "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
                r#"spec.containers[0].ports[1]: duplicate port name "a" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]"#,
            ],
        );
        check(
            object!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
            &[
                r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#,
            ],
        );
    }
}
