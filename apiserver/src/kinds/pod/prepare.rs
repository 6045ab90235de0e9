//! What the server makes of a pod before it is written, whatever the client sent.

use api::{Value, object};

use super::qos::qos_class;
use super::set_condition;

/// A new pod waits to be scheduled.
pub(super) fn create(pod: &mut Value) {
    if pod.at(&["spec", "terminationGracePeriodSeconds"]).as_i64().is_some_and(|s| s < 0) {
        pod.set(&["spec", "terminationGracePeriodSeconds"], 1);
    }
    let class = qos_class(pod.get("spec"));
    pod.set(&["status"], object!({"phase": "Pending", "qosClass": class}));
    if !pod.array_at(&["spec", "schedulingGates"]).is_empty() {
        set_condition(
            pod,
            object!({
                "type": "PodScheduled", "status": "False", "lastProbeTime": null,
                "lastTransitionTime": (api::time::format(jiff::Timestamp::now())),
                "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates",
            }),
        );
    }
    let labels = pod.at(&["metadata", "labels"]).clone();
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (list, inner) in [
            ("preferredDuringSchedulingIgnoredDuringExecution", Some("podAffinityTerm")),
            ("requiredDuringSchedulingIgnoredDuringExecution", None),
        ] {
            let terms = pod.at_mut(&["spec", "affinity", kind, list]).and_then(Value::as_array_mut);
            for term in terms.into_iter().flatten() {
                let term = match inner {
                    Some(name) => term.make_object().entry(name),
                    None => term,
                };
                merge_label_keys(term, &labels);
            }
        }
    }
    let constraints = pod.at_mut(&["spec", "topologySpreadConstraints"]).and_then(Value::as_array_mut);
    for constraint in constraints.into_iter().flatten() {
        merge_label_keys(constraint, &labels);
    }
}

/// Keys whose values are the pod's own become part of the selector.
fn merge_label_keys(term: &mut Value, labels: &Value) {
    if term.get("labelSelector").is_null() {
        return;
    }
    for (keys, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term.array_at(&[keys]).to_vec() {
            let Some(value) = key.as_str().map(|k| labels.get(k)).filter(|v| !v.is_null()) else { continue };
            let requirement = object!({"key": key, "operator": operator, "values": [value]});
            let selector = term.make_object().entry("labelSelector");
            selector.make_object().entry("matchExpressions").make_array().push(requirement);
        }
    }
}

/// What a writer of the status leaves out stays as it was.
pub(super) fn status(new: &mut Value, old: &Value) {
    let before = old.get("status");
    let status = new.make_object().entry("status");
    super::super::default_if_empty(status, "qosClass", before.get("qosClass"));
    if status.get("qosClass").is_null() {
        status.make_object().remove("qosClass");
    }
    keep_generation(status, before);
    let mut known: Vec<&Value> = before.array_at(&["conditions"]).iter().collect();
    let conditions = status.make_object().get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let same = known.iter().position(|k| k.get("type") == condition.get("type"));
        let was = same.map_or(&Value::Null, |i| known.remove(i));
        keep_generation(condition, was);
    }
}

fn keep_generation(new: &mut Value, old: &Value) {
    let generation = old.get("observedGeneration");
    if new.get("observedGeneration").is_empty() && !generation.is_empty() {
        new.set(&["observedGeneration"], generation);
    }
}

/// Everything but the containers that are added stays.
pub(super) fn ephemeral_containers(new: &mut Value, old: &Value) {
    let added = new.at(&["spec", "ephemeralContainers"]).clone();
    restore_all(new, old);
    if added.is_null() {
        new.remove_at(&["spec", "ephemeralContainers"]);
    } else {
        new.set(&["spec", "ephemeralContainers"], added);
    }
}

/// Everything but resources and their policies stays; a change of the lists themselves is left to the validation.
pub(super) fn resize(new: &mut Value, old: &Value) {
    let lists = ["containers", "initContainers"];
    let same_length =
        lists.iter().all(|l| new.array_at(&["spec", l]).len() == old.array_at(&["spec", l]).len());
    if !same_length {
        return;
    }
    let asked: Vec<Vec<Value>> = lists.iter().map(|l| new.array_at(&["spec", l]).to_vec()).collect();
    let resources = new.at(&["spec", "resources"]).clone();
    restore_all(new, old);
    put(new.make_object().entry("spec"), "resources", &resources);
    for (list, asked) in lists.iter().zip(asked) {
        if asked.is_empty() {
            continue;
        }
        let present = new.at_mut(&["spec", list]).and_then(Value::as_array_mut);
        let Some(present) = present else { continue };
        let renamed = present.iter().zip(&asked).any(|(a, b)| a.get("name") != b.get("name"));
        if renamed {
            *present = asked;
            continue;
        }
        for (container, asked) in present.iter_mut().zip(&asked) {
            put(container, "resources", asked.get("resources"));
            put(container, "resizePolicy", asked.get("resizePolicy"));
        }
    }
}

fn put(object: &mut Value, field: &str, value: &Value) {
    if value.is_null() {
        object.make_object().remove(field);
    } else {
        object.set(&[field], value);
    }
}

/// The old object with the new one's version and managers.
fn restore_all(new: &mut Value, old: &Value) {
    let managed = new.at(&["metadata", "managedFields"]).clone();
    let version = new.at(&["metadata", "resourceVersion"]).clone();
    *new = old.clone();
    put(new.make_object().entry("metadata"), "managedFields", &managed);
    put(new.make_object().entry("metadata"), "resourceVersion", &version);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_keys_select_pods_like_this_one() {
        let mut pod = object!({
            "metadata": {"labels": {"v": "1"}},
            "spec": {"topologySpreadConstraints": [{"matchLabelKeys": ["v", "w"], "labelSelector": {}}]},
        });
        create(&mut pod);
        let constraint = &pod.array_at(&["spec", "topologySpreadConstraints"])[0];
        let want = object!([{"key": "v", "operator": "In", "values": ["1"]}]);
        assert_eq!(constraint.at(&["labelSelector", "matchExpressions"]), &want);
    }

    #[test]
    fn a_resize_changes_nothing_but_resources() {
        let old = object!({"spec": {"containers": [{"name": "a", "image": "i", "resources": {}}]}});
        let mut new = object!({"spec": {"nodeName": "n", "containers": [{"name": "a", "image": "j", "resources": {"limits": {"cpu": "1"}}}]}});
        resize(&mut new, &old);
        let want =
            object!({"containers": [{"name": "a", "image": "i", "resources": {"limits": {"cpu": "1"}}}]});
        assert_eq!(new.get("spec"), &want);
    }
}
