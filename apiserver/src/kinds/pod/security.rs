//! Security contexts of pods and containers, and the annotations that came before some of their fields.

use std::collections::HashSet;

use api::{Map, Value};

use super::spec::each_container;
use super::{MIRROR, mounts, windows};
use crate::kinds::Errors;
use crate::kinds::check::At;

const SYSCTL: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const LAST_ID: i64 = i32::MAX as i64;

/// Checks the security context of a pod.
pub(super) fn validate_pod(spec: &At<'_>, errors: &mut Errors) {
    let context = spec.get("securityContext");
    for id in ["fsGroup", "runAsUser", "runAsGroup"] {
        context.get(id).within(errors, 0, LAST_ID);
    }
    for group in context.get("supplementalGroups").items() {
        group.within(errors, 0, LAST_ID);
    }
    if spec.get("shareProcessNamespace").is_true() && spec.get("hostPID").is_true() {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        context.get("shareProcessNamespace").invalid_as(errors, true, why);
    }
    validate_sysctls(spec, &context.get("sysctls"), errors);
    context.get("fsGroupChangePolicy").one_of(errors, &["Always", "OnRootMismatch"]);
    validate_seccomp(&context.get("seccompProfile"), errors);
    windows::validate_options(&context.get("windowsOptions"), errors);
    validate_app_armor(&context.get("appArmorProfile"), errors);
    context.get("supplementalGroupsPolicy").one_of(errors, &["Merge", "Strict"]);
    context.get("seLinuxChangePolicy").one_of(errors, &["Recursive"]);
}

fn validate_sysctls(spec: &At<'_>, sysctls: &At<'_>, errors: &mut Errors) {
    let segment = |s: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        s.starts_with(plain) && s.ends_with(plain) && s.chars().all(|c| plain(c) || "-_".contains(c))
    };
    let mut seen = HashSet::new();
    for sysctl in sysctls.items() {
        let name = sysctl.get("name");
        let text = name.text();
        if text.is_empty() {
            name.required(errors, "");
        } else if text.len() > 253 || !text.split(['.', '/']).all(segment) {
            name.invalid(errors, SYSCTL);
        } else if seen.contains(text) {
            name.duplicate(errors);
        }
        let dotted = text.replace('/', ".");
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| dotted.starts_with(p))
            || dotted == "kernel.sem";
        if spec.get("hostNetwork").is_true() && dotted.starts_with("net.") {
            name.invalid(errors, "may not be specified when 'hostNetwork' is true");
        } else if spec.get("hostIPC").is_true() && ipc {
            name.invalid(errors, "may not be specified when 'hostIPC' is true");
        }
        seen.insert(text.to_owned());
    }
}

/// Checks the security context of a container.
pub(super) fn validate_container(context: &At<'_>, host_users: bool, errors: &mut Errors) {
    if !context.is_set() {
        return;
    }
    for id in ["runAsUser", "runAsGroup"] {
        context.get(id).within(errors, 0, LAST_ID);
    }
    let mount = context.get("procMount");
    mount.one_of(errors, &["Default", "Unmasked"]);
    if host_users && mount.text() == "Unmasked" {
        mount.invalid(errors, "`hostUsers` must be false to use `Unmasked`");
    }
    validate_seccomp(&context.get("seccompProfile"), errors);
    if context.get("allowPrivilegeEscalation").value.as_bool() == Some(false) {
        const TYPE: &str = "core/v1.SecurityContext";
        if context.get("privileged").is_true() {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            context.invalid_struct(errors, TYPE, why);
        }
        let added = context.get("capabilities.add").texts();
        for _ in added.iter().filter(|c| **c == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            context.invalid_struct(errors, TYPE, why);
        }
    }
    windows::validate_options(&context.get("windowsOptions"), errors);
    validate_app_armor(&context.get("appArmorProfile"), errors);
}

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

fn validate_seccomp(profile: &At<'_>, errors: &mut Errors) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    if kind.text().is_empty() {
        kind.required(errors, "type is required when seccompProfile is set");
    } else {
        kind.one_of(errors, &PROFILES);
    }
    if kind.text() == "Localhost" {
        if local.is_set() {
            mounts::descending(&local, errors);
        } else {
            local.required(errors, "must be set when seccomp type is Localhost");
        }
    } else if local.is_set() {
        let shown = crate::kinds::check::view(profile.value, "core/v1.SeccompProfile");
        local.invalid_as(errors, shown, "can only be set when seccomp type is Localhost");
    }
}

fn validate_app_armor(profile: &At<'_>, errors: &mut Errors) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.text() {
        "Localhost" => {
            if !local.is_set() {
                local.required(errors, "must be set when AppArmor type is Localhost");
                return;
            }
            if local.text().trim() != local.text() {
                local.invalid(errors, "must not be padded with whitespace");
            } else if local.text().is_empty() {
                local.required(errors, "must be set when AppArmor type is Localhost");
            }
            local.not_longer(errors, 4095);
        }
        "RuntimeDefault" | "Unconfined" => {
            if local.is_set() {
                local.invalid(errors, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => kind.required(errors, "type is required when appArmorProfile is set"),
        _ => kind.unsupported(errors, &PROFILES),
    }
}

/// A pod with users of its own shares no other namespace with the node.
pub(super) fn validate_host_users(spec: &At<'_>, errors: &mut Errors) {
    if spec.get("hostUsers").value.as_bool() != Some(false) {
        return;
    }
    let why = "when `hostUsers` is false";
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.get(field).is_true() {
            spec.get(shown).forbidden(errors, why);
        }
    }
    each_container(spec, |container| {
        if container.get("volumeDevices").len() > 0 {
            container.get("volumeDevices").forbidden(errors, why);
        }
    });
}

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Checks annotations that mean something for a pod.
pub(super) fn validate_annotations(annotations: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    for (key, value) in annotations.entries() {
        if key == MIRROR && spec.get("nodeName").text().is_empty() {
            value.invalid(errors, "must set spec.nodeName if mirror pod annotation is set");
        }
        if key == DELETION_COST && !is_deletion_cost(value.text()) {
            value.invalid(errors, "must be a 32bit integer");
        }
    }
    for (key, value) in annotations.entries() {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            let at = At { value: value.value, path: annotations.path.child(key) };
            validate_seccomp_annotation(&at, errors);
        }
    }
    for (key, value) in annotations.entries() {
        let Some(name) = key.strip_prefix(APP_ARMOR) else { continue };
        let mut known = false;
        each_container(spec, |c| known |= c.get("name").text() == name);
        if !known {
            value.invalid_as(errors, name, "container not found");
        }
        let profile = value.text();
        if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with("localhost/") {
            let why = format!("invalid AppArmor profile name: {}", api::field::go_quote(profile));
            value.invalid(errors, why);
        }
    }
}

fn is_deletion_cost(text: &str) -> bool {
    let plain = !text.starts_with('+') && (text == "0" || !text.starts_with('0')) && !text.starts_with("-0");
    plain && text.parse::<i32>().is_ok()
}

fn validate_seccomp_annotation(at: &At<'_>, errors: &mut Errors) {
    match at.text() {
        "runtime/default" | "docker/default" | "unconfined" => {}
        text => match text.strip_prefix("localhost/") {
            Some(path) => mounts::descending(&at.with(&Value::from(path)), errors),
            None => at.invalid(errors, "must be a valid seccomp profile"),
        },
    }
}

/// Annotations say the same as the fields that replaced them.
pub(super) fn annotations_match_fields(annotations: &Value, spec: &At<'_>, errors: &mut Errors) {
    let annotation =
        |key: &str| annotations.as_object().and_then(|m: &Map| m.get(key)).and_then(Value::as_str);
    let own = spec.get("securityContext.seccompProfile");
    if let Some(text) = annotation(SECCOMP_POD) {
        match_profile(&own, text, "seccomp", &["runtime/default", "docker/default"], errors);
    }
    each_container(spec, |container| {
        let name = container.get("name").text();
        let profile = container.get("securityContext.seccompProfile");
        if let Some(text) = annotation(&format!("{SECCOMP_CONTAINER}{name}")) {
            match_profile(&profile, text, "seccomp", &["runtime/default", "docker/default"], errors);
        }
    });
    if spec.get("os.name").text() == "windows" {
        return;
    }
    each_container(spec, |container| {
        let name = container.get("name").text();
        let profile = container.get("securityContext.appArmorProfile");
        let inherited = spec.get("securityContext.appArmorProfile");
        let effective = if profile.is_set() { profile } else { profile.with(inherited.value) };
        if let Some(text) = annotation(&format!("{APP_ARMOR}{name}")) {
            match_profile(&effective, text, "apparmor", &["runtime/default"], errors);
        }
    });
}

fn match_profile(profile: &At<'_>, annotation: &str, what: &str, runtime: &[&str], errors: &mut Errors) {
    let local = annotation.strip_prefix("localhost/");
    let fits = match profile.get("type").text() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => runtime.contains(&annotation),
        "Localhost" => local.is_some(),
        _ => return,
    };
    if !fits {
        let why = format!("{what} type in annotation and field must match");
        profile.get("type").forbidden(errors, why);
    } else if profile.get("type").text() == "Localhost"
        && local != profile.get("localhostProfile").value.as_str()
    {
        let why = format!("{what} profile in annotation and field must match");
        profile.get("localhostProfile").forbidden(errors, why);
    }
}
