//! Containers: regular ones, those that run first, and those added to a running pod.

use std::collections::HashSet;

use api::{Value, names};

use super::spec::{Pod, each_container};
use super::{environment, mounts, probes, resources, security};
use crate::kinds::Errors;
use crate::kinds::check::At;

/// Checks the containers of all three lists.
pub(super) fn validate_all(pod: &Pod<'_>, errors: &mut Errors) {
    validate_regular(pod, errors);
    validate_init(pod, errors);
    validate_ephemeral(pod, errors);
}

fn validate_regular(pod: &Pod<'_>, errors: &mut Errors) {
    let list = pod.spec.get("containers");
    if list.len() == 0 {
        return list.required(errors, "");
    }
    let mut seen = HashSet::new();
    for container in list.items() {
        validate(&container, pod, errors);
        let name = container.get("name");
        if !seen.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
        probes::validate_lifecycle(&container.get("lifecycle"), pod, errors);
        probes::validate_probes(&container, errors);
        validate_restart_policy(&container, errors);
    }
    let mut taken = HashSet::new();
    for container in list.items() {
        validate_host_ports(&container, &mut taken, errors);
    }
}

fn validate_init(pod: &Pod<'_>, errors: &mut Errors) {
    let regular = pod.spec.get("containers");
    let mut seen: HashSet<String> = regular.items().map(|c| c.get("name").text().to_owned()).collect();
    for container in pod.spec.get("initContainers").items() {
        validate(&container, pod, errors);
        let policy = container.get("restartPolicy");
        if policy.is_set() {
            validate_restart_policy(&container, errors);
        } else if container.get("restartPolicyRules").len() > 0 {
            policy.required(errors, RULES_NEED_POLICY);
        }
        let sidecar = policy.text() == "Always";
        let name = container.get("name");
        if seen.contains(name.text()) {
            name.duplicate(errors);
        } else if !name.text().is_empty() {
            seen.insert(name.text().to_owned());
        }
        validate_host_ports(&container, &mut HashSet::new(), errors);
        if sidecar {
            probes::validate_lifecycle(&container.get("lifecycle"), pod, errors);
            probes::validate_probes(&container, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.get(field).is_set() {
                let why = "may not be set for init containers without restartPolicy=Always";
                container.get(field).forbidden(errors, why);
            }
        }
        for policy in container.get("resizePolicy").items() {
            let restart = policy.get("restartPolicy");
            if restart.text() == "RestartContainer" {
                let why = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                restart.invalid(errors, why);
            }
        }
    }
}

/// What a container that is added to a running pod may have besides name and image.
const EPHEMERAL_FORBIDDEN: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

fn validate_ephemeral(pod: &Pod<'_>, errors: &mut Errors) {
    let mut others: HashSet<String> = HashSet::new();
    for list in ["containers", "initContainers"] {
        others.extend(pod.spec.get(list).items().map(|c| c.get("name").text().to_owned()));
    }
    let mut seen = others.clone();
    for container in pod.spec.get("ephemeralContainers").items() {
        validate(&container, pod, errors);
        validate_image_spaces(&container, errors);
        let name = container.get("name");
        if !seen.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
        let target = container.get("targetContainerName");
        if !target.text().is_empty() && !others.contains(target.text()) {
            target.not_found(errors);
        }
        for field in EPHEMERAL_FORBIDDEN {
            let member = container.get(field);
            let set = if field == "resources" { member.len() > 0 } else { member.is_set() };
            if set {
                member.forbidden(errors, "cannot be set for an Ephemeral Container");
            }
        }
        for mount in container.get("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.get(field).text().is_empty() {
                    mount.get(field).forbidden(errors, "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

/// Names of images are taken as they are, so that spaces around them are a mistake.
pub(super) fn validate_image_spaces(container: &At<'_>, errors: &mut Errors) {
    let image = container.get("image");
    if image.text().trim() != image.text() {
        image.invalid(errors, "must not have leading or trailing whitespace");
    }
}

/// What holds for every container.
fn validate(container: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    container.get("name").required_name(errors, names::dns_label);
    container.get("image").not_empty(errors);
    container.get("terminationMessagePolicy").required_one_of(errors, &["File", "FallbackToLogsOnError"]);
    validate_ports(&container.get("ports"), errors);
    environment::validate(&container.get("env"), errors);
    environment::validate_sources(&container.get("envFrom"), errors);
    mounts::validate(container, pod, errors);
    container.get("imagePullPolicy").required_one_of(errors, &["Always", "IfNotPresent", "Never"]);
    resources::validate(&container.get("resources"), &pod.claims, errors);
    resources::validate_resize_policy(container, pod, errors);
    security::validate_container(&container.get("securityContext"), pod.host_users(), errors);
}

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

fn validate_ports(ports: &At<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.text().is_empty() {
            let found = names::port_name(name.text());
            if !found.is_empty() {
                name.named(errors, names::port_name);
            } else if !seen.insert(name.text().to_owned()) {
                name.duplicate(errors);
            }
        }
        let number = port.get("containerPort");
        if number.int() == 0 {
            number.required(errors, "");
        } else {
            number.port(errors);
        }
        if port.get("hostPort").int() != 0 {
            port.get("hostPort").port(errors);
        }
        port.get("protocol").required_one_of(errors, &PROTOCOLS);
    }
}

fn validate_host_ports(container: &At<'_>, taken: &mut HashSet<String>, errors: &mut Errors) {
    for port in container.get("ports").items() {
        let number = port.get("hostPort");
        if number.int() == 0 {
            continue;
        }
        let key = format!("{}/{}/{}", port.get("protocol").text(), port.get("hostIP").text(), number.int());
        if !taken.insert(key.clone()) {
            number.with(&Value::from(key)).duplicate(errors);
        }
    }
}

const RULES_NEED_POLICY: &str = "must specify restartPolicy when restart rules are used";
const RESTART_RULES: usize = 20;
const RESTART_CODES: usize = 255;

fn validate_restart_policy(container: &At<'_>, errors: &mut Errors) {
    let (policy, rules) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    if policy.is_set() {
        policy.one_of(errors, &["Always", "Never", "OnFailure"]);
    } else if rules.len() > 0 {
        policy.required(errors, RULES_NEED_POLICY);
    }
    rules.not_more(errors, RESTART_RULES);
    for rule in rules.items() {
        let action = rule.get("action");
        let actions = ["Restart", "RestartAllContainers"];
        if !actions.contains(&action.text()) {
            action.unsupported(errors, &actions);
        }
        let codes = rule.get("exitCodes");
        if !codes.is_set() {
            codes.required(errors, "must be specified");
            continue;
        }
        let operator = codes.get("operator");
        if !["In", "NotIn"].contains(&operator.text()) {
            operator.unsupported(errors, &["In", "NotIn"]);
        }
        codes.get("values").not_more(errors, RESTART_CODES);
    }
}

/// Variables that come from files name an empty directory of the pod.
pub(super) fn validate_file_keys(pod: &Pod<'_>, errors: &mut Errors) {
    each_container(&pod.spec, |container| {
        for variable in container.get("env").items() {
            let reference = variable.get("valueFrom.fileKeyRef");
            if !reference.is_set() {
                continue;
            }
            let name = reference.get("volumeName");
            let list = pod.spec.get("volumes");
            let found = list.items().find(|v| v.get("name").text() == name.text());
            match found {
                None => name.not_found(errors),
                Some(volume) if !volume.get("emptyDir").is_set() => {
                    name.invalid(errors, "referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    });
}
