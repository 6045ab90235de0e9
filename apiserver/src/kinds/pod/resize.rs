//! Changing the resources of a running pod.

use api::Value;

use super::qos::qos_class;
use super::spec::spec_of;
use super::{MIRROR, refuse};
use crate::kinds::Errors;
use crate::kinds::check::At;

const FIXED: &str = "only cpu and memory resources are mutable";

/// Checks a resize.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    if old.annotation(MIRROR).is_some() {
        return refuse(errors, "static pods cannot be resized");
    }
    if old.str_at(&["spec", "os", "name"]) == "windows" {
        return refuse(errors, "windows pods cannot be resized");
    }
    let (spec, before) = (spec_of(new), old.get("spec"));
    let class = match old.str_at(&["status", "qosClass"]) {
        "" => qos_class(before),
        class => class,
    };
    if class != qos_class(spec.value) {
        let why = "Pod QOS Class may not change as a result of resizing";
        spec.invalid_as(errors, new.str_at(&["status", "qosClass"]), why);
    }
    let running = old.array_at(&["status", "containerStatuses"]);
    let running = running.iter().find(|c| !c.at(&["state", "running"]).is_null());
    if running.is_some_and(|c| c.get("resources").is_null()) {
        spec.forbidden(errors, "Pod running on node without support for resize");
    }
    validate_pod_level(&spec, before, errors);
    if !validate_order(&spec, before, errors) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (container, was) in spec.get(list).items().zip(before.array_at(&[list])) {
            let at = container.get("resources");
            let removed = |kind: &str| was_removed(at.value.get(kind), was.at(&["resources", kind]));
            if removed("requests") {
                at.get("requests").forbidden(errors, "resource requests cannot be removed");
            }
            if removed("limits") {
                at.get("limits").forbidden(errors, "resource limits cannot be removed");
            }
        }
    }
    validate_rest(&spec, before, errors);
}

fn was_removed(new: &Value, old: &Value) -> bool {
    old.as_object().into_iter().flat_map(api::Map::keys).any(|name| new.get(name).is_null())
}

fn validate_pod_level(spec: &At<'_>, before: &Value, errors: &mut Errors) {
    let (is, was) = (spec.get("resources"), before.get("resources"));
    let sets = |v: &Value| !v.get("requests").is_empty() || !v.get("limits").is_empty();
    if !sets(is.value) && !sets(was) {
        return;
    }
    if !was.is_null() && !is.is_set() {
        return is.forbidden(errors, "pod-level resources cannot be removed");
    }
    for kind in ["requests", "limits"] {
        if was_removed(is.value.get(kind), was.get(kind)) {
            is.get(kind).forbidden(errors, format!("pod-level resource {kind} cannot be removed"));
        }
    }
    if scalable_as_before(is.value, was) != normal(was) {
        spec.forbidden(errors, "only cpu and memory resources are mutable at pod-level");
    }
}

/// Requests and limits with processors and memory as they were.
fn scalable_as_before(new: &Value, old: &Value) -> Value {
    let mut out = new.clone();
    for kind in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            match old.at(&[kind, name]) {
                Value::Null => {
                    out.remove_at(&[kind, name]);
                }
                value => out.set(&[kind, name], value),
            }
        }
    }
    normal(&out)
}

/// Without empty maps, which mean the same as none.
fn normal(resources: &Value) -> Value {
    let mut out = resources.clone();
    out.make_object().retain(|_, v| !v.is_empty());
    out
}

fn validate_order(spec: &At<'_>, before: &Value, errors: &mut Errors) -> bool {
    let found = errors.len();
    for list in ["containers", "initContainers"] {
        let (is, was) = (spec.get(list), before.array_at(&[list]));
        if is.len() != was.len() {
            is.forbidden(errors, format!("{list} may not be added or removed on resize"));
            continue;
        }
        for (container, was) in is.items().zip(was) {
            if container.value.get("name") != was.get("name") {
                let why = format!("{list} may not be renamed or reordered on resize");
                container.get("name").forbidden(errors, why);
            }
        }
    }
    errors.len() == found
}

fn validate_rest(spec: &At<'_>, before: &Value, errors: &mut Errors) {
    let mut rest = spec.value.clone();
    for list in ["containers", "initContainers"] {
        let items = spec.get(list);
        let after = rest.make_object().get_mut(list).and_then(Value::as_array_mut);
        for ((container, was), at) in
            after.into_iter().flatten().zip(before.array_at(&[list])).zip(items.items())
        {
            let changed = container != was;
            let resources = scalable_as_before(container.get("resources"), was.get("resources"));
            container.set(&["resources"], resources);
            let mut was = was.clone();
            was.set(&["resources"], normal(was.get("resources")));
            let sidecar = container.str_at(&["restartPolicy"]) == "Always";
            if *container != was {
                if list == "containers" {
                    spec.forbidden(errors, FIXED);
                } else {
                    let why = "only cpu and memory resources for init or sidecar containers are mutable";
                    at.forbidden(errors, why);
                }
            }
            let restarts = at.get("resizePolicy");
            if list == "initContainers"
                && changed
                && !sidecar
                && restarts.items().any(|p| p.get("restartPolicy").text() == "RestartContainer")
            {
                let why =
                    "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                at.forbidden(errors, why);
            }
        }
    }
    let outer = |spec: &Value| {
        let mut spec = spec.clone();
        for field in ["containers", "initContainers", "resources"] {
            spec.make_object().remove(field);
        }
        spec
    };
    if errors.is_empty() && outer(&rest) != outer(before) {
        spec.forbidden(errors, FIXED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn pod(resources: Value) -> Value {
        object!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
    }

    #[test]
    fn processors_may_change_and_nothing_else() {
        let check = |new: Value, want: &[&str]| {
            let old = pod(object!({"requests": {"cpu": "1", "a.b/c": "1"}, "limits": {"a.b/c": "1"}}));
            let mut errors = Vec::new();
            validate(&pod(new), &old, &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
        };
        check(object!({"requests": {"cpu": "2", "a.b/c": "1"}, "limits": {"a.b/c": "1"}}), &[]);
        check(
            object!({"requests": {"cpu": "2", "a.b/c": "2"}, "limits": {"a.b/c": "1"}}),
            &["spec: Forbidden: only cpu and memory resources are mutable"],
        );
        check(
            object!({"requests": {"a.b/c": "1"}, "limits": {"a.b/c": "1"}}),
            &[
                "spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing",
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
            ],
        );
    }
}
