//! The spec of a pod or of a template of pods.

use std::collections::{HashMap, HashSet};

use api::field::Path;
use api::{Value, names};

use super::{affinity, container, resources, security, volumes, windows};
use crate::kinds::Errors;
use crate::kinds::check::At;

/// What the rules for a spec depend on besides it.
pub(in crate::kinds) struct Subject<'a> {
    /// Metadata of the pod; none for a template.
    pub metadata: Option<&'a Value>,
}

impl Subject<'_> {
    /// True for a pod, false for a template.
    pub(super) fn is_pod(&self) -> bool {
        self.metadata.is_some()
    }

    /// Name of the pod; empty for a template and for names that are still to be generated.
    pub(super) fn name(&self) -> &str {
        self.metadata.map_or("", |m| m.str_at(&["name"]))
    }
}

/// What the rules for containers depend on besides the container.
pub(super) struct Pod<'a> {
    pub spec: At<'a>,
    /// Sources of the volumes by name; those that are not valid are left out.
    pub volumes: HashMap<&'a str, &'a Value>,
    pub claims: HashSet<&'a str>,
}

impl Pod<'_> {
    /// The containers of a pod share the users of the node.
    pub(super) fn host_users(&self) -> bool {
        self.spec.get("hostUsers").value.as_bool() != Some(false)
    }

    /// Seconds that a container has to end.
    pub(super) fn grace(&self) -> Option<i64> {
        self.spec.get("terminationGracePeriodSeconds").value.as_i64()
    }
}

/// Checks the labels and annotations of a template.
pub(in crate::kinds) fn validate_template_labels(template: &At<'_>, errors: &mut Errors) {
    let metadata = template.value.get("metadata");
    template.get("labels").with(metadata.get("labels")).labels(errors);
    let annotations = template.get("annotations");
    crate::kinds::metadata::validate_annotations(&annotations.path, metadata.get("annotations"), errors);
    security::validate_annotations(
        &annotations.with(metadata.get("annotations")),
        &template.get("spec"),
        errors,
    );
}

/// Checks a template: its metadata and its spec.
pub(in crate::kinds) fn validate_template(template: &At<'_>, errors: &mut Errors) {
    validate_template_labels(template, errors);
    let metadata = template.value.get("metadata");
    let spec = template.get("spec");
    validate_spec(&spec, &Subject { metadata: None }, errors);
    security::annotations_match_fields(metadata.get("annotations"), &spec, errors);
    if spec.get("ephemeralContainers").len() > 0 {
        spec.get("ephemeralContainers").forbidden(errors, "ephemeral containers not allowed in pod template");
    }
}

/// Checks a pod's spec.
pub(in crate::kinds) fn validate_spec(spec: &At<'_>, subject: &Subject<'_>, errors: &mut Errors) {
    let grace = spec.get("terminationGracePeriodSeconds");
    if !grace.is_set() {
        grace.required(errors, "");
    }
    let list = spec.get("volumes");
    let volumes = volumes::validate(&list, subject, errors);
    let claims = resources::validate_claims(&spec.get("resourceClaims"), subject, errors);
    let pod = Pod { spec: *spec, volumes, claims };
    container::validate_all(&pod, errors);
    resources::validate_pod(&pod, errors);
    validate_host_network(spec, subject, errors);
    spec.get("restartPolicy").required_one_of(errors, &["Always", "OnFailure", "Never"]);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    spec.get("dnsPolicy").required_one_of(errors, &policies);
    spec.get("nodeSelector").labels(errors);
    security::validate_pod(spec, errors);
    for secret in spec.get("imagePullSecrets").items() {
        let bare = secret.value.as_object().is_none_or(|m| m.keys().all(|k| k == "name"));
        if !bare {
            secret.invalid_struct(errors, "core/v1.LocalObjectReference", "only name may be set");
        }
    }
    affinity::validate(&spec.get("affinity"), errors);
    validate_dns_config(spec, errors);
    for gate in spec.get("readinessGates").items() {
        gate.get("conditionType").qualified(errors);
    }
    validate_scheduling_gates(&spec.get("schedulingGates"), errors);
    affinity::validate_spread(&spec.get("topologySpreadConstraints"), errors);
    windows::validate_host_process(spec, errors);
    security::validate_host_users(spec, errors);
    validate_names(spec, errors);
    for alias in spec.get("hostAliases").items() {
        alias.get("ip").legacy_ip(errors, &[]);
        for name in alias.get("hostnames").items() {
            name.named(errors, names::dns_subdomain);
        }
    }
    validate_classes(spec, errors);
    container::validate_file_keys(&pod, errors);
}

fn validate_host_network(spec: &At<'_>, subject: &Subject<'_>, errors: &mut Errors) {
    if !spec.get("hostNetwork").is_true() {
        return;
    }
    for container in spec.get("containers").items() {
        for port in container.get("ports").items() {
            let (host, own) = (port.get("hostPort"), port.get("containerPort").int());
            if (subject.is_pod() || host.int() != 0) && host.int() != own {
                let why = "must match `containerPort` when `hostNetwork` is true";
                host.invalid_as(errors, host.int(), why);
            }
        }
    }
}

const NAMESERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_BYTES: usize = 2048;

fn validate_dns_config(spec: &At<'_>, errors: &mut Errors) {
    let config = spec.get("dnsConfig");
    let servers = config.get("nameservers");
    if spec.get("dnsPolicy").text() == "None" {
        if !config.is_set() {
            return config.required(errors, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.len() == 0 {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return servers.required(errors, why);
        }
    }
    if servers.len() > NAMESERVERS {
        servers.invalid(errors, format!("must not have more than {NAMESERVERS} nameservers"));
    }
    for server in servers.items() {
        server.legacy_ip(errors, &[]);
    }
    let searches = config.get("searches");
    if searches.len() > SEARCHES {
        searches.invalid(errors, format!("must not have more than {SEARCHES} search paths"));
    }
    if searches.texts().join(" ").len() > SEARCH_BYTES {
        let why = format!(
            "must not have more than {SEARCH_BYTES} characters (including spaces) in the search list"
        );
        searches.invalid(errors, why);
    }
    for search in searches.items().filter(|s| s.text() != ".") {
        let bare = Value::from(search.text().strip_suffix('.').unwrap_or(search.text()));
        search.with(&bare).named(errors, names::search_domain);
    }
    for option in config.get("options").items() {
        if option.get("name").text().is_empty() {
            option.required(errors, "must not be empty");
        }
    }
}

fn validate_scheduling_gates(gates: &At<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for gate in gates.items() {
        let name = gate.value.get("name");
        let at = gate.with(name);
        at.qualified(errors);
        if !seen.insert(at.text().to_owned()) {
            at.duplicate(errors);
        }
    }
}

fn validate_names(spec: &At<'_>, errors: &mut Errors) {
    let name = spec.get("hostnameOverride");
    if name.is_set() {
        if spec.get("setHostnameAsFQDN").is_true() {
            name.forbidden(errors, "may not be specified when setHostnameAsFQDN is true");
        }
        if spec.get("hostNetwork").is_true() {
            name.forbidden(errors, "may not be specified when hostNetwork is true");
        }
        name.not_longer(errors, 64);
        name.named(errors, names::dns_subdomain);
    }
    spec.get("serviceAccountName").named_if_any(errors, names::dns_subdomain);
    spec.get("nodeName").named_if_any(errors, names::dns_subdomain);
    spec.get("activeDeadlineSeconds").within(errors, 1, i64::from(i32::MAX));
    spec.get("hostname").named_if_any(errors, names::dns_label);
    spec.get("subdomain").named_if_any(errors, names::dns_label);
    affinity::validate_tolerations(&spec.get("tolerations"), errors);
}

fn validate_classes(spec: &At<'_>, errors: &mut Errors) {
    spec.get("priorityClassName").named_if_any(errors, names::dns_subdomain);
    let runtime = spec.get("runtimeClassName");
    if runtime.is_set() {
        runtime.named(errors, names::dns_subdomain);
    }
    let preemption = spec.get("preemptionPolicy");
    if preemption.is_set() {
        preemption.required_one_of(errors, &["PreemptLowerPriority", "Never"]);
    }
    let overhead = spec.get("overhead");
    if overhead.is_set() {
        resources::validate_limits(&overhead, errors);
    }
    if spec.get("os").is_set() {
        windows::validate_os(spec, errors);
    }
    let group = spec.get("schedulingGroup");
    if group.is_set() {
        let name = group.get("podGroupName");
        if name.is_set() {
            name.named(errors, names::dns_subdomain);
        } else {
            name.invalid(errors, "must specify one of: `podGroupName`");
        }
    }
}

/// Every container of a spec, in upstream's order of visiting.
pub(super) fn each_container(spec: &At<'_>, mut visit: impl FnMut(&At<'_>)) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.get(list).items() {
            visit(&container);
        }
    }
}

/// A path below `spec`.
pub(super) fn spec_of(pod: &Value) -> At<'_> {
    At { value: pod.get("spec"), path: Path::new("spec") }
}
