//! What an API server would have refused of a pod and this node would act upon: paths that lead elsewhere, things that name
//! what is not there, values that nothing can be made of. In its words.

use std::collections::HashSet;

use api::field::{FieldError, Path};
use api::{Value, names};

use crate::pods::spec;

/// All annotations together, in bytes.
const ANNOTATIONS: usize = 256 << 10;
const NO_BACKSTEPS: &str = "must not contain '..'";
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];

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
            self::container(container, &known, &path.index(i))?;
        }
    }
    let deadline = pod.at(&["spec", "activeDeadlineSeconds"]);
    if deadline.as_i64().is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds)) {
        let why = "must be between 1 and 2147483647, inclusive";
        return Err(FieldError::invalid(&root.child("activeDeadlineSeconds"), deadline.clone(), why));
    }
    for field in ["hostname", "subdomain"] {
        let name = pod.str_at(&["spec", field]);
        if let Some(why) = Some(name).filter(|name| !name.is_empty()).and_then(|n| names::dns_label(n).pop())
        {
            return Err(FieldError::invalid(&root.child(field), name, why));
        }
    }
    one_of(pod.get("spec"), "restartPolicy", &RESTART_POLICIES, &root)
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

fn one_of(object: &Value, field: &str, supported: &[&str], path: &Path<'_>) -> Checked {
    match object.str_at(&[field]) {
        text if text.is_empty() || supported.contains(&text) => Ok(()),
        text => Err(FieldError::not_supported(&path.child(field), text, supported)),
    }
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
        if let Some((kind, source)) = sources.first() {
            volume_source(kind, source, &path.child(kind))?;
        }
    }
    Ok(known)
}

fn volume_source(kind: &str, source: &Value, path: &Path<'_>) -> Checked {
    let field = path.child("path");
    match (kind, source.str_at(&["path"])) {
        ("hostPath", "") => return Err(FieldError::required(&field, "")),
        ("hostPath", host) if has_backsteps(host) => {
            return Err(FieldError::invalid(&field, host, NO_BACKSTEPS));
        }
        _ => {}
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

fn container(container: &Value, volumes: &HashSet<&str>, path: &Path<'_>) -> Checked {
    let image = container.str_at(&["image"]);
    if image.is_empty() {
        return Err(FieldError::required(&path.child("image"), ""));
    }
    if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        return Err(FieldError::invalid(&path.child("image"), image, why));
    }
    one_of(container, "imagePullPolicy", &PULL_POLICIES, path)?;
    let mut seen = HashSet::new();
    for (i, mount) in container.array_at(&["volumeMounts"]).iter().enumerate() {
        self::mount(mount, (volumes, &mut seen), &path.child("volumeMounts").index(i))?;
    }
    for (i, port) in container.array_at(&["ports"]).iter().enumerate() {
        for (field, least) in [("containerPort", 1), ("hostPort", 0)] {
            let number = port.get(field).as_i64().unwrap_or(least);
            if !(least..=65535).contains(&number) {
                let ports = path.child("ports");
                let path = ports.index(i);
                let why = "must be between 1 and 65535, inclusive";
                return Err(FieldError::invalid(&path.child(field), number, why));
            }
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

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    fn check(path: &[&str], value: Value, expected: &str) {
        let mut pod = object!({
            "metadata": {"name": "p"},
            "spec": {
                "containers": [{"name": "c", "image": "x"}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        });
        pod.set(path, value);
        let found = first(&pod).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(found, expected, "{path:?}");
    }

    fn check_container(more: Value, expected: &str) {
        let mut container = object!({"name": "c", "image": "x"});
        for (field, value) in more.as_object().unwrap().iter() {
            container.set(&[field], value.clone());
        }
        check(&["spec", "containers"], Value::Array(vec![container]), expected);
    }

    fn check_mount(more: Value, expected: &str) {
        let mut mount = object!({"name": "v", "mountPath": "/m"});
        for (field, value) in more.as_object().unwrap().iter() {
            mount.set(&[field], value.clone());
        }
        let expected = match expected {
            "" => String::new(),
            expected => format!("spec.containers[0].volumeMounts[0].{expected}"),
        };
        check_container(object!({"volumeMounts": [mount]}), &expected);
    }

    #[test]
    fn mounts_stay_in_their_volumes() {
        check_mount(object!({}), "");
        check_mount(object!({"subPath": "a/b..c"}), "");
        check_mount(object!({"subPath": "../x"}), r#"subPath: Invalid value: "../x": must not contain '..'"#);
        check_mount(
            object!({"subPath": "a/../../x"}),
            r#"subPath: Invalid value: "a/../../x": must not contain '..'"#,
        );
        check_mount(
            object!({"subPath": "/etc"}),
            r#"subPath: Invalid value: "/etc": must be a relative path"#,
        );
        check_mount(
            object!({"subPathExpr": "$(A)/.."}),
            r#"subPathExpr: Invalid value: "$(A)/..": must not contain '..'"#,
        );
        check_mount(object!({"name": "other"}), r#"name: Not found: "other""#);
        check_mount(object!({"mountPath": ""}), "mountPath: Required value");
    }

    #[test]
    fn volumes_lead_nowhere_else() {
        let volumes =
            |volume: Value, expected: &str| check(&["spec", "volumes"], Value::Array(vec![volume]), expected);
        volumes(object!({"name": "v", "hostPath": {"path": "/var/log"}}), "");
        volumes(
            object!({"name": "v", "hostPath": {"path": "/var/../etc"}}),
            r#"spec.volumes[0].hostPath.path: Invalid value: "/var/../etc": must not contain '..'"#,
        );
        volumes(
            object!({"name": "v", "downwardAPI": {"items": [{"path": "../../x"}]}}),
            r#"spec.volumes[0].downwardAPI.items[0].path: Invalid value: "../../x": must not start with '..'"#,
        );
        volumes(
            object!({"name": "v", "projected": {"sources": [{"downwardAPI": {"items": [{"path": "/x"}]}}]}}),
            r#"spec.volumes[0].projected.sources[0].downwardAPI.items[0].path: Invalid value: "/x": must be a relative path"#,
        );
        volumes(
            object!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        );
        let twice = object!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]);
        check(&["spec", "volumes"], twice, r#"spec.volumes[1].name: Duplicate value: "v""#);
    }

    #[test]
    fn annotations_have_their_limit() {
        let annotations = |size: usize| object!({"a": ("x".repeat(size))});
        check(&["metadata", "annotations"], annotations(ANNOTATIONS - 1), "");
        let too_long = "metadata.annotations: Too long: may not be more than 262144 bytes";
        check(&["metadata", "annotations"], annotations(ANNOTATIONS), too_long);
        let many: Value =
            Value::Object((0..4000).map(|n| (format!("k{n}"), Value::from("x".repeat(100)))).collect());
        check(&["metadata", "annotations"], many, too_long);
    }

    #[test]
    fn values_that_nothing_can_be_made_of_are_refused() {
        check(&["spec", "containers"], Value::Array(Vec::new()), "spec.containers: Required value");
        check_container(object!({"image": ""}), "spec.containers[0].image: Required value");
        check_container(
            object!({"imagePullPolicy": "Sometimes"}),
            r#"spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never""#,
        );
        check_container(
            object!({"ports": [{"containerPort": 70000}]}),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        );
        check(
            &["spec", "activeDeadlineSeconds"],
            0.into(),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        );
        check(
            &["spec", "restartPolicy"],
            "Perhaps".into(),
            r#"spec.restartPolicy: Unsupported value: "Perhaps": supported values: "Always", "OnFailure", "Never""#,
        );
    }

    #[test]
    fn a_thousand_containers_are_looked_at() {
        let container = |n: usize, image: &str| object!({"name": (format!("c{n}")), "image": image});
        let mut all: Vec<_> = (0..1000).map(|n| container(n, "x")).collect();
        check(&["spec", "containers"], Value::Array(all.clone()), "");
        all[999] = container(999, "");
        check(&["spec", "containers"], Value::Array(all), "spec.containers[999].image: Required value");
    }
}
