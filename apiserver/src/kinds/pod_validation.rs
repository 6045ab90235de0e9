//! Validation of pods and pod templates.

use std::collections::HashSet;

use api::field::{FieldError, Path};
use api::quantity::Quantity;
use api::{Map, Value, names};

use super::{Errors, check_name, metadata, not_negative, one_of};

/// Checks a template: its labels and its spec.
pub(super) fn validate_template(path: &Path<'_>, template: &Value, errors: &mut Errors) {
    let meta = path.child("metadata");
    metadata::validate_labels(&meta.child("labels"), template.at(&["metadata", "labels"]), errors);
    validate_pod_spec(&path.child("spec"), template.get("spec"), errors);
}

/// Checks a pod's spec.
pub(super) fn validate_pod_spec(path: &Path<'_>, spec: &Value, errors: &mut Errors) {
    let volumes = validate_volumes(&path.child("volumes"), spec.array_at(&["volumes"]), errors);
    let containers = spec.array_at(&["containers"]);
    if containers.is_empty() {
        errors.push(FieldError::required(&path.child("containers"), ""));
    }
    let mut seen = HashSet::new();
    for (list, required) in [("containers", true), ("initContainers", true), ("ephemeralContainers", false)] {
        let path = path.child(list);
        for (i, container) in spec.array_at(&[list]).iter().enumerate() {
            let path = path.index(i);
            validate_container(&path, container, &volumes, required, errors);
            let name = container.str_at(&["name"]);
            if !name.is_empty() && !seen.insert(name.to_owned()) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
    }
    one_of(
        &path.child("restartPolicy"),
        spec.get("restartPolicy"),
        &["Always", "OnFailure", "Never"],
        errors,
    );
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(&path.child("dnsPolicy"), spec.get("dnsPolicy"), &dns, errors);
    not_negative(
        &path.child("terminationGracePeriodSeconds"),
        spec.get("terminationGracePeriodSeconds"),
        errors,
    );
    if let Some(n) = spec.get("activeDeadlineSeconds").as_i64()
        && !(1..=i64::from(i32::MAX)).contains(&n)
    {
        let why = format!("must be between 1 and {}, inclusive", i32::MAX);
        errors.push(FieldError::invalid(&path.child("activeDeadlineSeconds"), n, why));
    }
    metadata::validate_labels(&path.child("nodeSelector"), spec.get("nodeSelector"), errors);
    for (field, rule) in [
        ("serviceAccountName", names::dns_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::dns_subdomain),
        ("priorityClassName", names::dns_subdomain),
        ("runtimeClassName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
    ] {
        let value = spec.str_at(&[field]);
        if !value.is_empty() {
            check_name(&path.child(field), value, rule, errors);
        }
    }
    validate_tolerations(&path.child("tolerations"), spec.array_at(&["tolerations"]), errors);
    validate_sysctls(path, spec, errors);
}

fn validate_sysctls(path: &Path<'_>, spec: &Value, errors: &mut Errors) {
    let context = path.child("securityContext");
    let path = context.child("sysctls");
    for (i, sysctl) in spec.array_at(&["securityContext", "sysctls"]).iter().enumerate() {
        let name = sysctl.str_at(&["name"]);
        let path = path.index(i);
        let path = path.child("name");
        let segment = |s: &str| {
            let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            ends(s.chars().next())
                && ends(s.chars().last())
                && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
        };
        if name.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if name.len() > 253 || !name.split(['.', '/']).all(segment) {
            let why = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(FieldError::invalid(&path, name, why));
        }
    }
}

fn validate_tolerations(path: &Path<'_>, tolerations: &[Value], errors: &mut Errors) {
    for (i, t) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let (key, operator) = (t.str_at(&["key"]), t.str_at(&["operator"]));
        if key.is_empty() && operator != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&path.child("operator"), operator, why));
        }
        if !key.is_empty() {
            check_name(&path.child("key"), key, names::qualified_name, errors);
        }
        if !t.get("tolerationSeconds").is_null() && t.str_at(&["effect"]) != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&path.child("effect"), t.str_at(&["effect"]), why));
        }
        if operator == "Exists" && !t.str_at(&["value"]).is_empty() {
            let why = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(&path.child("operator"), t.clone(), why));
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if !t.str_at(&["effect"]).is_empty() {
            one_of(&path.child("effect"), t.get("effect"), &effects, errors);
        }
    }
}

const NOT_SOURCES: [&str; 1] = ["name"];

/// Checks volumes and returns their names.
fn validate_volumes(path: &Path<'_>, volumes: &[Value], errors: &mut Errors) -> HashSet<String> {
    let mut seen = HashSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let name = volume.str_at(&["name"]);
        let at = path.child("name");
        if name.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else {
            check_name(&at, name, names::dns_label, errors);
            if !seen.insert(name.to_owned()) {
                errors.push(FieldError::duplicate(&at, name));
            }
        }
        let sources: Vec<&str> = volume
            .as_object()
            .into_iter()
            .flat_map(Map::iter)
            .filter(|(k, v)| !NOT_SOURCES.contains(k) && !v.is_null())
            .map(|(k, _)| k)
            .collect();
        if sources.is_empty() {
            errors.push(FieldError::required(&path, "must specify a volume type"));
        }
        for more in sources.iter().skip(1) {
            errors.push(FieldError::forbidden(&path.child(more), "may not specify more than 1 volume type"));
        }
        for source in sources.iter().take(1) {
            validate_source(&path.child(source), source, volume.get(source), errors);
        }
    }
    seen
}

fn validate_source(path: &Path<'_>, kind: &str, source: &Value, errors: &mut Errors) {
    let required: &[&str] = match kind {
        "configMap" => &["name"],
        "secret" => &["secretName"],
        "persistentVolumeClaim" => &["claimName"],
        "hostPath" => &["path"],
        "nfs" => &["server", "path"],
        "csi" => &["driver"],
        _ => &[],
    };
    for field in required {
        if source.str_at(&[field]).is_empty() {
            errors.push(FieldError::required(&path.child(field), ""));
        }
    }
    if kind == "hostPath" {
        if source.str_at(&["path"]).split('/').any(|p| p == "..") {
            errors.push(FieldError::invalid(
                &path.child("path"),
                source.str_at(&["path"]),
                "must not contain '..'",
            ));
        }
        let kinds = [
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ];
        one_of(&path.child("type"), source.get("type"), &kinds, errors);
    }
    if let Some(mode) = source.get("defaultMode").as_i64()
        && !(0..=0o777).contains(&mode)
    {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(&path.child("defaultMode"), mode, why));
    }
    let items = path.child("items");
    for (i, item) in source.array_at(&["items"]).iter().enumerate() {
        let path = items.index(i);
        if kind != "downwardAPI" && item.str_at(&["key"]).is_empty() {
            errors.push(FieldError::required(&path.child("key"), ""));
        }
        validate_local_path(&path.child("path"), item.str_at(&["path"]), errors);
    }
}

/// A path inside a volume: relative, without `..`.
fn validate_local_path(path: &Path<'_>, value: &str, errors: &mut Errors) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if value.starts_with('/') {
        errors.push(FieldError::invalid(path, value, "must be a relative path"));
    } else if value.split('/').any(|p| p == "..") {
        errors.push(FieldError::invalid(path, value, "must not contain '..'"));
    } else if value.starts_with("..") {
        errors.push(FieldError::invalid(path, value, "must not start with '..'"));
    }
}

fn validate_container(
    path: &Path<'_>,
    c: &Value,
    volumes: &HashSet<String>,
    probes: bool,
    errors: &mut Errors,
) {
    let name = c.str_at(&["name"]);
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else {
        check_name(&path.child("name"), name, names::dns_label, errors);
    }
    let image = c.str_at(&["image"]);
    if image.is_empty() {
        errors.push(FieldError::required(&path.child("image"), ""));
    } else if image.trim() != image {
        errors.push(FieldError::invalid(
            &path.child("image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
    one_of(
        &path.child("terminationMessagePolicy"),
        c.get("terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
        errors,
    );
    one_of(
        &path.child("imagePullPolicy"),
        c.get("imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
        errors,
    );
    validate_ports(&path.child("ports"), c.array_at(&["ports"]), errors);
    validate_env(&path.child("env"), c.array_at(&["env"]), errors);
    validate_mounts(&path.child("volumeMounts"), c.array_at(&["volumeMounts"]), volumes, errors);
    validate_resources(&path.child("resources"), c.get("resources"), errors);
    if probes {
        for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
            if !c.get(kind).is_null() {
                validate_probe(&path.child(kind), c.get(kind), kind != "readinessProbe", errors);
            }
        }
    }
}

fn validate_ports(path: &Path<'_>, ports: &[Value], errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = port.str_at(&["name"]);
        if !name.is_empty() {
            errors.extend(
                port_name(name).into_iter().map(|e| FieldError::invalid(&path.child("name"), name, e)),
            );
            if !seen.insert(name.to_owned()) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
        match port.get("containerPort").as_i64() {
            None | Some(0) => errors.push(FieldError::required(&path.child("containerPort"), "")),
            Some(n) => check_port(&path.child("containerPort"), n, errors),
        }
        if let Some(n) = port.get("hostPort").as_i64().filter(|n| *n != 0) {
            check_port(&path.child("hostPort"), n, errors);
        }
        one_of(&path.child("protocol"), port.get("protocol"), &["TCP", "UDP", "SCTP"], errors);
    }
}

/// Checks a port number.
pub(super) fn check_port(path: &Path<'_>, n: i64, errors: &mut Errors) {
    if !(1..=65_535).contains(&n) {
        errors.push(FieldError::invalid(path, n, "must be between 1 and 65535, inclusive"));
    }
}

/// The rule for names of ports: an IANA service name.
pub(super) fn port_name(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 15 {
        errors.push("must be no more than 15 characters".to_owned());
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

const FIELD_REFS: [&str; 10] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "metadata.annotations",
];

fn validate_env(path: &Path<'_>, env: &[Value], errors: &mut Errors) {
    for (i, var) in env.iter().enumerate() {
        let path = path.index(i);
        let name = var.str_at(&["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if name.bytes().any(|b| !(0x20..0x7f).contains(&b) || b == b'=') {
            let why = "a valid environment variable name must consist only of printable ASCII characters other than '='";
            errors.push(FieldError::invalid(&path.child("name"), name, why));
        }
        let from = var.get("valueFrom");
        if from.is_null() {
            continue;
        }
        let path = path.child("valueFrom");
        let sources: Vec<&str> = from
            .as_object()
            .into_iter()
            .flat_map(Map::iter)
            .filter(|(_, v)| !v.is_null())
            .map(|(k, _)| k)
            .collect();
        if !var.str_at(&["value"]).is_empty() && !sources.is_empty() {
            errors.push(FieldError::invalid(&path, "", "may not be specified when `value` is not empty"));
        } else if sources.is_empty() {
            let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef`, or `fileKeyRef`";
            errors.push(FieldError::invalid(&path, "", why));
        } else if sources.len() > 1 {
            errors.push(FieldError::invalid(
                &path,
                "",
                "may not have more than one field specified at a time",
            ));
        }
        if !from.get("fieldRef").is_null() {
            validate_field_ref(&path.child("fieldRef"), from.get("fieldRef"), errors);
        }
        for kind in ["configMapKeyRef", "secretKeyRef"] {
            if !from.get(kind).is_null() && from.str_at(&[kind, "key"]).is_empty() {
                errors.push(FieldError::required(&path.child(kind).child("key"), ""));
            }
        }
    }
}

fn validate_field_ref(path: &Path<'_>, reference: &Value, errors: &mut Errors) {
    let field = reference.str_at(&["fieldPath"]);
    let path = path.child("fieldPath");
    if field.is_empty() {
        errors.push(FieldError::required(&path, ""));
        return;
    }
    let subscripted = ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .any(|p| field.starts_with(p) && field.ends_with("']"));
    if subscripted || FIELD_REFS[..9].contains(&field) {
        return;
    }
    let known = field.starts_with("metadata.") || field.starts_with("spec.") || field.starts_with("status.");
    if known && FIELD_REFS.contains(&field) {
        errors.push(FieldError::not_supported(&path, field, &FIELD_REFS[..9]));
    } else {
        errors.push(FieldError::invalid(
            &path,
            field,
            format!("error converting fieldPath: field label not supported: {field}"),
        ));
    }
}

fn validate_mounts(path: &Path<'_>, mounts: &[Value], volumes: &HashSet<String>, errors: &mut Errors) {
    let mut points = HashSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let path = path.index(i);
        let name = mount.str_at(&["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if !volumes.contains(name) {
            errors.push(FieldError::not_found(&path.child("name"), name));
        }
        let point = mount.str_at(&["mountPath"]);
        if point.is_empty() {
            errors.push(FieldError::required(&path.child("mountPath"), ""));
        } else if !points.insert(point.to_owned()) {
            errors.push(FieldError::invalid(&path.child("mountPath"), point, "must be unique"));
        }
        for field in ["subPath", "subPathExpr"] {
            let sub = mount.str_at(&[field]);
            if !sub.is_empty() {
                validate_local_path(&path.child(field), sub, errors);
            }
        }
        if !mount.str_at(&["subPath"]).is_empty() && !mount.str_at(&["subPathExpr"]).is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(&path.child("subPathExpr"), mount.str_at(&["subPathExpr"]), why));
        }
    }
}

/// Checks requests and limits.
pub(super) fn validate_resources(path: &Path<'_>, resources: &Value, errors: &mut Errors) {
    let quantity = |kind: &str, name: &str| {
        resources.at(&[kind, name]).as_str().and_then(|q| q.parse::<Quantity>().ok())
    };
    for kind in ["limits", "requests"] {
        let path = path.child(kind);
        for (name, value) in resources.get(kind).as_object().into_iter().flat_map(Map::iter) {
            errors
                .extend(names::qualified_name(name).into_iter().map(|e| FieldError::invalid(&path, name, e)));
            if quantity(kind, name).is_some_and(|q| q.is_negative()) {
                errors.push(FieldError::invalid(
                    &path.key(name),
                    value.clone(),
                    "must be greater than or equal to 0",
                ));
            }
            if !name.contains('/')
                && !matches!(name, "cpu" | "memory" | "ephemeral-storage" | "storage")
                && !name.starts_with("hugepages-")
            {
                errors.push(FieldError::invalid(
                    &path.key(name),
                    name,
                    "must be a standard resource type or fully qualified",
                ));
                errors.push(FieldError::invalid(
                    &path.key(name),
                    name,
                    "must be a standard resource for containers",
                ));
            }
        }
    }
    let path = path.child("requests");
    for (name, value) in resources.get("requests").as_object().into_iter().flat_map(Map::iter) {
        if let (Some(request), Some(limit)) = (quantity("requests", name), quantity("limits", name))
            && request > limit
        {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(&path, value.clone(), why));
        }
    }
}

fn validate_probe(path: &Path<'_>, probe: &Value, once: bool, errors: &mut Errors) {
    let handlers: Vec<&str> =
        ["exec", "httpGet", "tcpSocket", "grpc"].into_iter().filter(|h| !probe.get(h).is_null()).collect();
    match handlers.as_slice() {
        [] => errors.push(FieldError::required(path, "must specify a handler type")),
        [_] => {}
        [_, more @ ..] => errors.extend(
            more.iter()
                .map(|h| FieldError::forbidden(&path.child(h), "may not specify more than 1 handler type")),
        ),
    }
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        not_negative(&path.child(field), probe.get(field), errors);
    }
    if once && probe.get("successThreshold").as_i64().is_some_and(|n| n != 1) {
        errors.push(FieldError::invalid(
            &path.child("successThreshold"),
            probe.get("successThreshold").clone(),
            "must be 1",
        ));
    }
    for handler in ["httpGet", "tcpSocket"] {
        let port = probe.at(&[handler, "port"]);
        let at = path.child(handler);
        match port {
            Value::Int(n) => check_port(&at.child("port"), *n, errors),
            Value::String(s) => {
                errors.extend(
                    port_name(s).into_iter().map(|e| FieldError::invalid(&at.child("port"), s.as_str(), e)),
                );
            }
            _ => {}
        }
    }
    if !probe.get("exec").is_null() && probe.array_at(&["exec", "command"]).is_empty() {
        errors.push(FieldError::required(&path.child("exec").child("command"), ""));
    }
}
