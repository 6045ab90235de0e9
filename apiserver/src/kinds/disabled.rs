//! Fields of features that a v1.36 server has switched off: what clients write there is dropped, unless the object has it
//! already.

use api::{Map, Value};

use crate::resources::Resource;

/// A field below some object; the empty name stands for each item of a list or member of a map.
type Place = &'static [&'static str];

/// Fields of the spec of pods, also within templates.
const OF_PODS: &[Place] = &[
    &["schedulingGroup"],
    &["containers", "", "lifecycle", "stopSignal"],
    &["initContainers", "", "lifecycle", "stopSignal"],
    &["ephemeralContainers", "", "lifecycle", "stopSignal"],
    &["volumes", "", "projected", "sources", "", "clusterTrustBundle"],
    &["volumes", "", "projected", "sources", "", "podCertificate"],
];

/// Where kinds have the spec of a pod.
const PODS: &[(&str, &str, Place)] = &[
    ("", "pods", &["spec"]),
    ("", "podtemplates", &["template", "spec"]),
    ("", "replicationcontrollers", &["spec", "template", "spec"]),
    ("apps", "daemonsets", &["spec", "template", "spec"]),
    ("apps", "deployments", &["spec", "template", "spec"]),
    ("apps", "replicasets", &["spec", "template", "spec"]),
    ("apps", "statefulsets", &["spec", "template", "spec"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template", "spec"]),
    ("batch", "jobs", &["spec", "template", "spec"]),
];

/// Fields of other kinds.
const OTHERS: &[(&str, &str, Place)] = &[
    ("", "nodes", &["spec", "configSource"]),
    ("", "nodes", &["status", "config"]),
    ("coordination.k8s.io", "leases", &["spec", "preferredHolder"]),
    ("coordination.k8s.io", "leases", &["spec", "strategy"]),
    ("apps", "statefulsets", &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]),
    ("resource.k8s.io", "resourceslices", &["spec", "devices", "", "attributes", "", "ints"]),
    ("resource.k8s.io", "resourceslices", &["spec", "devices", "", "attributes", "", "bools"]),
    ("resource.k8s.io", "resourceslices", &["spec", "devices", "", "attributes", "", "strings"]),
    ("resource.k8s.io", "resourceslices", &["spec", "devices", "", "attributes", "", "versions"]),
    ("resource.k8s.io", "resourceslices", &["spec", "devices", "", "nodeAllocatableResourceMappings"]),
];

/// Drops what `old` has not of fields that are switched off.
pub fn drop_disabled(row: &Resource, object: &mut Value, old: Option<&Value>) {
    let is = |(group, plural, _): &&(&str, &str, Place)| *group == row.group && *plural == row.plural;
    for (_, _, place) in PODS.iter().filter(is) {
        let before = old.map(|old| old.at(place));
        if let Some(spec) = object.at_mut(place) {
            OF_PODS.iter().for_each(|place| drop_field(spec, before, place));
        }
    }
    for (_, _, place) in OTHERS.iter().filter(is) {
        drop_field(object, old, place);
    }
}

fn drop_field(object: &mut Value, old: Option<&Value>, place: Place) {
    if !old.is_some_and(|old| is_used(old, place)) {
        remove(object, place);
    }
}

fn is_used(object: &Value, place: Place) -> bool {
    match place {
        [] => !object.is_null(),
        ["", rest @ ..] => match object {
            Value::Array(items) => items.iter().any(|i| is_used(i, rest)),
            Value::Object(members) => members.iter().any(|(_, m)| is_used(m, rest)),
            _ => false,
        },
        [name, rest @ ..] => is_used(object.get(name), rest),
    }
}

fn remove(object: &mut Value, place: Place) {
    match place {
        [] => {}
        ["", rest @ ..] => match object {
            Value::Array(items) => items.iter_mut().for_each(|item| remove(item, rest)),
            Value::Object(members) => members.iter_mut().for_each(|(_, member)| remove(member, rest)),
            _ => {}
        },
        [name] => {
            if let Some(map) = object.as_object_mut() {
                map.remove(name);
            }
        }
        // Hooks that were nothing but a signal go with it.
        ["lifecycle", last] => {
            let Some(map) = object.as_object_mut() else { return };
            let removed = map.get_mut("lifecycle").and_then(|hooks| hooks.as_object_mut()?.remove(last));
            if removed.is_some() && map.get("lifecycle").and_then(Value::as_object).is_some_and(Map::is_empty)
            {
                map.remove("lifecycle");
            }
        }
        [name, rest @ ..] => {
            if let Some(inner) = object.at_mut(&[name]) {
                remove(inner, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn what_is_there_already_stays() {
        let with =
            |signal: Value| object!({"containers": [{"lifecycle": {"stopSignal": signal, "preStop": {}}}]});
        let place: Place = &["containers", "", "lifecycle", "stopSignal"];
        let mut new = with("SIGTERM".into());
        drop_field(&mut new, None, place);
        assert_eq!(new, object!({"containers": [{"lifecycle": {"preStop": {}}}]}));
        let mut kept = with("SIGTERM".into());
        drop_field(&mut kept, Some(&with("SIGINT".into())), place);
        assert_eq!(kept, with("SIGTERM".into()));
    }
}
