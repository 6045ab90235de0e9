//! What an API server would have refused of a pod and this node would act upon: paths that lead elsewhere, things that name
//! what is not there, values that nothing can be made of. In its words. What holds for one field alone is in the tables of
//! `rules`.

mod actions;
mod rules;
mod security;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use api::field::{FieldError, Path};
use api::{Value, names};

use crate::pods::spec;

/// All annotations together, in bytes.
const ANNOTATIONS: usize = 256 << 10;
const NO_BACKSTEPS: &str = "must not contain '..'";

type Checked = Result<(), FieldError>;

/// The first thing that is wrong.
pub(super) fn first(pod: &Value) -> Checked {
    let metadata = Path::new("metadata");
    annotations(pod, &metadata.child("annotations"))?;
    let labels = metadata.child("labels");
    for (key, value) in pod.at(&["metadata", "labels"]).as_object().into_iter().flat_map(|map| map.iter()) {
        let problem = names::qualified_name(key).pop();
        let problem = problem.or_else(|| names::label_value(value.as_str().unwrap_or_default()).pop());
        problem.map_or(Ok(()), |why| Err(FieldError::invalid(&labels, key, why)))?;
    }
    let root = Path::new("spec");
    let known = volumes(pod, &root.child("volumes"))?;
    if spec::containers(pod).is_empty() {
        return Err(FieldError::required(&root.child("containers"), ""));
    }
    for list in ["initContainers", "containers"] {
        let path = root.child(list);
        for (i, container) in pod.array_at(&["spec", list]).iter().enumerate() {
            let path = path.index(i);
            self::container(pod, container, &known, &path)?;
            match list {
                "initContainers" if !spec::is_sidecar(container) => has_no_life(container, &path)?,
                _ => {
                    let grace =
                        pod.at(&["spec", "terminationGracePeriodSeconds"]).as_i64().unwrap_or_default();
                    actions::hooks(container, grace, &path)?;
                    actions::probes(container, &path)?;
                }
            }
        }
    }
    dns(pod, &root.child("dnsConfig"))?;
    rules::hold(rules::POD, pod.get("spec"), &root)?;
    security::of_pod(pod, &root)
}

/// Init containers that come to an end are neither probed nor told of anything.
fn has_no_life(container: &Value, path: &Path<'_>) -> Checked {
    let mut fields = ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"].into_iter();
    match fields.find(|field| !container.get(field).is_null()) {
        None => Ok(()),
        Some(field) => {
            let why = "may not be set for init containers without restartPolicy=Always";
            Err(FieldError::forbidden(&path.child(field), why))
        }
    }
}

/// Without a policy there have to be servers.
fn dns(pod: &Value, path: &Path<'_>) -> Checked {
    let config = pod.at(&["spec", "dnsConfig"]);
    match pod.str_at(&["spec", "dnsPolicy"]) {
        "None" if config.is_null() => {
            Err(FieldError::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"))
        }
        "None" if config.array_at(&["nameservers"]).is_empty() => {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            Err(FieldError::required(&path.child("nameservers"), why))
        }
        _ => Ok(()),
    }
}

fn annotations(pod: &Value, path: &Path<'_>) -> Checked {
    let mut size = 0;
    let all = pod.at(&["metadata", "annotations"]).as_object();
    for (key, value) in all.into_iter().flat_map(|map| map.iter()) {
        if let Some(why) = names::qualified_name(&key.to_lowercase()).pop() {
            return Err(FieldError::invalid(path, key, why));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS { Err(FieldError::too_long(path, ANNOTATIONS)) } else { Ok(()) }
}

/// Checks the volumes, and returns their names.
fn volumes<'p>(pod: &'p Value, path: &Path<'_>) -> Result<HashSet<&'p str>, FieldError> {
    let mut known = HashSet::new();
    for (i, volume) in spec::volumes(pod).iter().enumerate() {
        let path = path.index(i);
        let name = volume.str_at(&["name"]);
        if !known.insert(name) {
            return Err(FieldError::duplicate(&path.child("name"), name));
        }
        let sources: Vec<_> = volume.as_object().into_iter().flat_map(|map| map.iter()).collect();
        let sources: Vec<_> = sources.into_iter().filter(|(kind, _)| *kind != "name").collect();
        if let [_, (second, _), ..] = sources[..] {
            return Err(FieldError::forbidden(
                &path.child(second),
                "may not specify more than 1 volume type",
            ));
        }
        rules::hold(rules::VOLUME, volume, &path)?;
        if let Some((kind, source)) = sources.first() {
            volume_source(kind, source, &path.child(kind))?;
        }
    }
    Ok(known)
}

fn volume_source(kind: &str, source: &Value, path: &Path<'_>) -> Checked {
    let host = source.str_at(&["path"]);
    if kind == "hostPath" && has_backsteps(host) {
        return Err(FieldError::invalid(&path.child("path"), host, NO_BACKSTEPS));
    }
    if rules::amount(source.get("sizeLimit")).is_some_and(|limit| limit.is_negative()) {
        let why = "SizeLimit field must be a valid resource quantity";
        return Err(FieldError::forbidden(&path.child("sizeLimit"), why));
    }
    items(source, path)?;
    for (i, part) in source.array_at(&["sources"]).iter().enumerate() {
        for (kind, source) in part.as_object().into_iter().flat_map(|map| map.iter()) {
            items(source, &path.child("sources").index(i).child(kind))?;
        }
    }
    Ok(())
}

/// Where files of a volume are to be.
fn items(source: &Value, path: &Path<'_>) -> Checked {
    for (i, item) in source.array_at(&["items"]).iter().enumerate() {
        local_path(item.str_at(&["path"]), &path.child("items").index(i).child("path"))?;
    }
    Ok(())
}

fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

fn local_path(text: &str, path: &Path<'_>) -> Checked {
    match text {
        "" => Err(FieldError::required(path, "")),
        text if text.starts_with("..") => Err(FieldError::invalid(path, text, "must not start with '..'")),
        text => below(text, path),
    }
}

/// A path that stays where it is put.
fn below(text: &str, path: &Path<'_>) -> Checked {
    match text {
        text if text.starts_with('/') => Err(FieldError::invalid(path, text, "must be a relative path")),
        text if has_backsteps(text) => Err(FieldError::invalid(path, text, NO_BACKSTEPS)),
        _ => Ok(()),
    }
}

fn container(pod: &Value, container: &Value, volumes: &HashSet<&str>, path: &Path<'_>) -> Checked {
    rules::hold(rules::CONTAINER, container, path)?;
    let image = container.str_at(&["image"]);
    if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        return Err(FieldError::invalid(&path.child("image"), image, why));
    }
    let privileged = container.at(&["securityContext", "privileged"]).as_bool() == Some(true);
    let mut seen = HashSet::new();
    for (i, mount) in container.array_at(&["volumeMounts"]).iter().enumerate() {
        let list = path.child("volumeMounts");
        self::mount(mount, (volumes, &mut seen), &list.index(i))?;
        if mount.str_at(&["mountPropagation"]) == "Bidirectional" && !privileged {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            return Err(FieldError::forbidden(&list.child("mountPropagation"), why));
        }
    }
    if let Some(device) = container.array_at(&["volumeDevices"]).first() {
        let (list, name) = (path.child("volumeDevices"), device.str_at(&["name"]));
        let item = list.index(0);
        let path = item.child("name");
        let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
        return Err(match volumes.contains(name) {
            true => FieldError::invalid(&path, name, why),
            false => FieldError::not_found(&path, name),
        });
    }
    let rules = container.array_at(&["restartPolicyRules"]);
    if !rules.is_empty() && container.str_at(&["restartPolicy"]).is_empty() {
        let why = "must specify restartPolicy when restart rules are used";
        return Err(FieldError::required(&path.child("restartPolicy"), why));
    }
    requests(container.get("resources"), &path.child("resources"))?;
    security::of_container(pod, container, path)
}

/// Nobody asks for more than they may have.
fn requests(resources: &Value, path: &Path<'_>) -> Checked {
    let requests = resources.get("requests").as_object();
    for (name, request) in requests.into_iter().flat_map(|map| map.iter()) {
        let (asked, limit) = (rules::amount(request), rules::amount(resources.at(&["limits", name])));
        if let (Some(asked), Some(limit)) = (asked, limit)
            && asked > limit
        {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            return Err(FieldError::invalid(&path.child("requests"), request.clone(), why));
        }
    }
    Ok(())
}

fn mount<'p>(
    mount: &'p Value,
    (volumes, seen): (&HashSet<&str>, &mut HashSet<&'p str>),
    path: &Path<'_>,
) -> Checked {
    let (name, inside) = (mount.str_at(&["name"]), mount.str_at(&["mountPath"]));
    if !volumes.contains(name) {
        return Err(FieldError::not_found(&path.child("name"), name));
    }
    if inside.is_empty() {
        return Err(FieldError::required(&path.child("mountPath"), ""));
    }
    if !seen.insert(inside) {
        return Err(FieldError::invalid(&path.child("mountPath"), inside, "must be unique"));
    }
    let (part, expression) = (mount.str_at(&["subPath"]), mount.str_at(&["subPathExpr"]));
    if !part.is_empty() && !expression.is_empty() {
        let why = "subPathExpr and subPath are mutually exclusive";
        return Err(FieldError::invalid(&path.child("subPathExpr"), expression, why));
    }
    below(part, &path.child("subPath"))?;
    below(expression, &path.child("subPathExpr"))
}
