//! What may change about a pod.

use api::Value;
use api::field::{FieldError, Path};

use super::spec::spec_of;
use super::{MIRROR, affinity, refuse};
use crate::kinds::Errors;
use crate::kinds::check::{At, difference, view};

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SPEC: &str = "core/v1.PodSpec";

/// Checks a change of the pod itself.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    validate_annotations(new, old, errors);
    let (spec, before) = (spec_of(new), old.get("spec"));
    for list in ["containers", "initContainers"] {
        let at = spec.get(list);
        if at.len() != before.array_at(&[list]).len() {
            return at.forbidden(errors, "pod updates may not add or remove containers");
        }
        for container in at.items() {
            container.get("image").not_empty(errors);
            super::container::validate_image_spaces(&container, errors);
        }
    }
    if !validate_deadline(&spec, before, errors) {
        return;
    }
    validate_tolerations(&spec.get("tolerations"), before.array_at(&["tolerations"]), errors);
    let gates = before.array_at(&["schedulingGates"]);
    for gate in spec.get("schedulingGates").items().filter(|g| !gates.contains(g.value)) {
        let name = gate.get("name");
        let why = format!("only deletion is allowed, but found new scheduling gate '{}'", name.text());
        name.forbidden(errors, why);
    }
    if spec.value == before {
        return;
    }
    let rest = without_changes(&spec, before, errors);
    if rest != *before {
        let shown = schema::named(SPEC).map(|_| difference(before, &rest, SPEC)).unwrap_or_default();
        spec.forbidden(errors, format!("{FIXED}\n{shown}"));
    }
}

/// False when the change of the deadline is refused.
fn validate_deadline(spec: &At<'_>, before: &Value, errors: &mut Errors) -> bool {
    let deadline = spec.get("activeDeadlineSeconds");
    let was = before.get("activeDeadlineSeconds").as_i64();
    if !deadline.is_set() {
        if was.is_some() {
            deadline.invalid(errors, "must not update from a positive integer to nil value");
        }
        return true;
    }
    if !(0..=i64::from(i32::MAX)).contains(&deadline.int()) {
        deadline.within(errors, 0, i64::from(i32::MAX));
        return false;
    }
    if was.is_some_and(|was| was < deadline.int()) {
        deadline.invalid(errors, "must be less than or equal to previous value");
        return false;
    }
    true
}

fn validate_tolerations(tolerations: &At<'_>, before: &[Value], errors: &mut Errors) {
    let bare = |t: &Value| {
        let mut t = t.clone();
        t.make_object().remove("tolerationSeconds");
        t
    };
    let present: Vec<Value> = tolerations.value.as_array().into_iter().flatten().map(bare).collect();
    if before.iter().any(|t| !present.contains(&bare(t))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        return tolerations.forbidden(errors, why);
    }
    affinity::validate_tolerations(tolerations, errors);
}

/// The new spec with what may change as it was; what is wrong with the change of a waiting pod is reported.
fn without_changes(spec: &At<'_>, before: &Value, errors: &mut Errors) -> Value {
    let mut rest = spec.value.clone();
    for list in ["containers", "initContainers"] {
        let after = rest.make_object().get_mut(list).and_then(Value::as_array_mut);
        for (container, was) in after.into_iter().flatten().zip(before.array_at(&[list])) {
            container.set(&["image"], was.get("image"));
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        restore(&mut rest, before, field);
    }
    let grace = |s: &Value| s.get("terminationGracePeriodSeconds").as_i64();
    if grace(before).is_some_and(|g| g < 0) && grace(&rest) == Some(1) {
        restore(&mut rest, before, "terminationGracePeriodSeconds");
    }
    if !before.array_at(&["schedulingGates"]).is_empty() {
        validate_narrowing(spec, before, errors);
        restore(&mut rest, before, "nodeSelector");
        let node = before.at(&["affinity", "nodeAffinity"]);
        if rest.at(&["affinity", "nodeAffinity"]) != node {
            let others = ["podAffinity", "podAntiAffinity"];
            if !node.is_null() {
                rest.set(&["affinity", "nodeAffinity"], node);
            } else if before.get("affinity").is_null()
                && others.iter().all(|k| rest.at(&["affinity", k]).is_null())
            {
                rest.make_object().remove("affinity");
            } else {
                rest.remove_at(&["affinity", "nodeAffinity"]);
            }
        }
    }
    rest
}

/// A pod that waits to be scheduled may be given fewer nodes, not others.
fn validate_narrowing(spec: &At<'_>, before: &Value, errors: &mut Errors) {
    let selector = spec.get("nodeSelector");
    let was = before.get("nodeSelector").as_object();
    if was.into_iter().flat_map(api::Map::iter).any(|(key, value)| selector.value.get(key) != value) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        selector.invalid(errors, why);
    }
    const TERMS: &str =
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let terms = spec.get(TERMS);
    let path: Vec<&str> = TERMS.split('.').collect();
    let was = before.array_at(&path);
    if was.is_empty() {
        return;
    }
    if was.len() != terms.len() {
        let items = terms.value.as_array().into_iter().flatten();
        let shown: Vec<Value> = items.map(|t| view(t, "core/v1.NodeSelectorTerm")).collect();
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        let shown = if shown.is_empty() { Value::Null } else { shown.into() };
        return terms.invalid_as(errors, shown, why);
    }
    for (term, was) in terms.items().zip(was) {
        let lists = ["matchExpressions", "matchFields"];
        let empty = lists.iter().all(|l| was.array_at(&[l]).is_empty());
        let fits = lists.iter().all(|list| {
            let (is, was) = (term.value.array_at(&[list]), was.array_at(&[list]));
            if empty { is.is_empty() } else { is.starts_with(was) }
        });
        if !fits {
            let why = "only additions are allowed (no mutations or deletions)";
            term.invalid_struct(errors, "core/v1.NodeSelectorTerm", why);
        }
    }
}

fn restore(spec: &mut Value, before: &Value, field: &str) {
    match before.get(field) {
        Value::Null => {
            spec.make_object().remove(field);
        }
        value => spec.set(&[field], value),
    }
}

/// Checks changes of annotations that mean something for a pod.
pub(super) fn validate_annotations(new: &Value, old: &Value, errors: &mut Errors) {
    let metadata = Path::new("metadata");
    let path = metadata.child("annotations");
    let members = |pod: &Value| {
        let map = pod.at(&["metadata", "annotations"]).as_object().cloned().unwrap_or_default();
        map.into_iter().collect::<Vec<_>>()
    };
    let special = |key: &str| -> Option<&'static str> {
        if key.starts_with(APP_ARMOR) {
            Some("AppArmor annotations")
        } else {
            (key == MIRROR).then_some("mirror pod annotation")
        }
    };
    for (key, value) in members(old) {
        if new.annotation(&key) != value.as_str()
            && let Some(what) = special(&key)
        {
            let why = format!("may not remove or update {what}");
            errors.push(FieldError::forbidden(&path.key(&key), why));
        }
    }
    for (key, _) in members(new) {
        if old.annotation(&key).is_none()
            && let Some(what) = special(&key)
        {
            errors.push(FieldError::forbidden(&path.key(&key), format!("may not add {what}")));
        }
    }
}

/// Containers are added to a running pod for good.
pub(super) fn validate_ephemeral_containers(new: &Value, old: &Value, errors: &mut Errors) {
    if old.annotation(MIRROR).is_some() {
        return refuse(errors, "static pods do not support ephemeral containers");
    }
    let spec = spec_of(new);
    let list = spec.get("ephemeralContainers");
    for was in old.array_at(&["spec", "ephemeralContainers"]) {
        let name = was.str_at(&["name"]);
        let quoted = api::field::go_quote(name);
        match list.items().find(|c| c.get("name").text() == name) {
            None => {
                let why = format!("existing ephemeral containers {quoted} may not be removed\n");
                list.forbidden(errors, why);
            }
            Some(is) if is.value != was => {
                let shown = difference(was, is.value, "core/v1.EphemeralContainer");
                let why = format!("existing ephemeral containers {quoted} may not be changed\n{shown}");
                list.forbidden(errors, why);
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn check(new: Value, old: Value, want: &[&str]) {
        let pod = |spec: Value| object!({"metadata": {"name": "p"}, "spec": spec});
        let mut errors = Vec::new();
        validate(&pod(new), &pod(old), &mut errors);
        let first = |e: &FieldError| e.to_string().lines().next().unwrap_or_default().to_owned();
        assert_eq!(errors.iter().map(first).collect::<Vec<_>>(), want);
    }

    #[test]
    fn images_and_gates_may_change_and_commands_not() {
        let spec = |image: &str| object!({"containers": [{"name": "c", "image": image}]});
        check(spec("a"), spec("b"), &[]);
        let mut other = spec("a");
        other.make_object().entry("containers").make_array()[0].set(&["command"], vec!["x"]);
        check(other, spec("b"), &[&format!("spec: Forbidden: {FIXED}")]);
        let mut gated = spec("a");
        gated.set(&["schedulingGates"], object!([{"name": "a.b/c"}]));
        check(spec("a"), gated.clone(), &[]);
        check(
            gated,
            spec("a"),
            &[
                "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a.b/c'",
            ],
        );
    }

    #[test]
    fn deadlines_only_come_closer() {
        check(object!({"activeDeadlineSeconds": 5}), object!({"activeDeadlineSeconds": 9}), &[]);
        check(
            object!({"activeDeadlineSeconds": 9}),
            object!({"activeDeadlineSeconds": 5}),
            &["spec.activeDeadlineSeconds: Invalid value: 9: must be less than or equal to previous value"],
        );
    }
}
