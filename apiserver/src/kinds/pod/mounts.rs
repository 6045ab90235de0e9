//! What containers see of volumes: mounts, block devices, and the paths that name them.

use std::collections::HashSet;

use super::spec::Pod;
use crate::kinds::Errors;
use crate::kinds::check::At;

/// Checks a container's mounts and devices.
pub(super) fn validate(container: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    validate_mounts(container, pod, errors);
    validate_devices(container, pod, errors);
}

fn validate_mounts(container: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let devices = container.get("volumeDevices");
    let list = container.get("volumeMounts");
    let mut points = HashSet::new();
    for mount in list.items() {
        let (name, point) = (mount.get("name"), mount.get("mountPath"));
        name.not_empty(errors);
        if !pod.volumes.contains_key(name.text()) {
            name.not_found(errors);
        }
        point.not_empty(errors);
        if !points.insert(point.text().to_owned()) {
            point.invalid(errors, "must be unique");
        }
        if devices.items().any(|d| d.get("name").text() == name.text()) {
            name.invalid(errors, "must not already exist in volumeDevices");
        }
        if devices.items().any(|d| d.get("devicePath").text() == point.text()) {
            point.invalid(errors, "must not already exist as a path in volumeDevices");
        }
        let (sub, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
        if !sub.text().is_empty() {
            descending(&list.get("subPath").with(sub.value), errors);
        }
        if !expression.text().is_empty() {
            if !sub.text().is_empty() {
                expression.invalid(errors, "subPathExpr and subPath are mutually exclusive");
            }
            descending(&list.get("subPathExpr").with(expression.value), errors);
        }
        validate_propagation(&list, &mount, container, errors);
    }
}

fn validate_propagation(list: &At<'_>, mount: &At<'_>, container: &At<'_>, errors: &mut Errors) {
    let propagation = mount.get("mountPropagation");
    let at = list.get("mountPropagation");
    let at = at.with(propagation.value);
    at.one_of(errors, &["Bidirectional", "HostToContainer", "None"]);
    if propagation.text() == "Bidirectional" && !container.get("securityContext.privileged").is_true() {
        at.forbidden(errors, "Bidirectional mount propagation is available only to privileged containers");
    }
    let recursive = mount.get("recursiveReadOnly");
    let at = list.get("recursiveReadOnly");
    let at = at.with(recursive.value);
    match recursive.text() {
        _ if !recursive.is_set() => {}
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.get("readOnly").is_true() {
                at.forbidden(errors, "may only be specified when readOnly is true");
            }
            if propagation.is_set() && propagation.text() != "None" {
                at.forbidden(errors, "may only be specified when mountPropagation is None or not specified");
            }
        }
        _ => at.unsupported(errors, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn validate_devices(container: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let mounts = container.get("volumeMounts");
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for device in container.get("volumeDevices").items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        name.not_empty(errors);
        if names.contains(name.text()) {
            name.invalid(errors, "must be unique");
        }
        match pod.volumes.get(name.text()) {
            None => name.not_found(errors),
            Some(source)
                if source.get("persistentVolumeClaim").is_null() && source.get("ephemeral").is_null() =>
            {
                let why =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                name.invalid(errors, why);
            }
            Some(_) => {}
        }
        path.not_empty(errors);
        if paths.contains(path.text()) {
            path.invalid(errors, "must be unique");
        }
        if has_back_steps(path.text()) {
            path.invalid(errors, "can not contain backsteps ('..')");
        } else {
            paths.insert(path.text().to_owned());
        }
        if mounts.items().any(|m| m.get("name").text() == name.text()) {
            name.invalid(errors, "must not already exist in volumeMounts");
        }
        if mounts.items().any(|m| m.get("mountPath").text() == path.text()) {
            path.invalid(errors, "must not already exist as a path in volumeMounts");
        }
        if !name.text().is_empty() {
            names.insert(name.text().to_owned());
        }
    }
}

fn has_back_steps(path: &str) -> bool {
    path.split('/').any(|step| step == "..")
}

/// A path may not lead upwards.
pub(in crate::kinds) fn no_back_steps(path: &At<'_>, errors: &mut Errors) {
    if has_back_steps(path.text()) {
        path.invalid(errors, "must not contain '..'");
    }
}

/// A path must stay below where it starts.
pub(in crate::kinds) fn descending(path: &At<'_>, errors: &mut Errors) {
    if path.text().starts_with('/') {
        path.invalid(errors, "must be a relative path");
    }
    no_back_steps(path, errors);
}

/// A path inside a volume that the kubelet writes: its own files begin with two dots.
pub(super) fn not_reserved(path: &At<'_>, errors: &mut Errors) {
    descending(path, errors);
    let text = path.text();
    if text.starts_with("..") && !text.starts_with("../") {
        path.invalid_as(errors, text, "must not start with '..'");
    }
}
