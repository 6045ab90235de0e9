//! What is said of pods whose resources change, in upstream's words.

use api::{Map, Value};

use crate::pods::spec;

/// The reason of a change that can never be.
pub(super) const INFEASIBLE: &str = "Infeasible";
/// The reason of a change that waits for room.
pub(super) const DEFERRED: &str = "Deferred";
/// The reason of a change that failed halfway.
pub(crate) const ERROR: &str = "Error";

/// The message of an event: what happened, and what the pod's containers ask for.
pub(crate) fn message(what: &str, pod: &Value, generation: i64, error: &str) -> String {
    let mut summary = Map::new();
    let lists = [("initContainers", spec::init_containers(pod)), ("containers", spec::containers(pod))];
    for (field, containers) in lists.into_iter().filter(|(_, containers)| !containers.is_empty()) {
        summary.push(field, Value::Array(containers.iter().map(of_container).collect()));
    }
    summary.push("generation", generation.into());
    if !error.is_empty() {
        summary.push("error", error.into());
    }
    format!("{what}: {}", String::from_utf8_lossy(&Value::Object(summary).to_json()))
}

fn of_container(container: &Value) -> Value {
    let mut resources = Map::new();
    for kind in ["limits", "requests"] {
        if let Some(list) = container.at(&["resources", kind]).as_object().filter(|list| !list.is_empty()) {
            let mut list = list.clone();
            list.sort_keys();
            resources.push(kind, Value::Object(list));
        }
    }
    let mut out = Map::new();
    out.push("name", container.get("name").clone());
    out.push("resources", Value::Object(resources));
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn events_read_as_upstreams() {
        let pod = object!({"spec": {
            "initContainers": [{"name": "c0", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}}],
            "containers": [{"name": "c1", "image": "x", "resources": {"requests": {"memory": "100", "cpu": "1"}}}, {"name": "c2"}],
        }});
        let expected = concat!(
            r#"Pod resize completed: {"initContainers":[{"name":"c0","resources":{"limits":{"cpu":"200m"},"requests":{"cpu":"100m"}}}],"#,
            r#""containers":[{"name":"c1","resources":{"requests":{"cpu":"1","memory":"100"}}},{"name":"c2","resources":{}}],"generation":2}"#,
        );
        assert_eq!(message("Pod resize completed", &pod, 2, ""), expected);
        let failed = message("Pod resize error", &object!({"spec": {}}), 3, "no");
        assert_eq!(failed, r#"Pod resize error: {"generation":3,"error":"no"}"#);
    }
}
