//! The pods of this node, as objects.

use std::sync::Arc;

use api::{Map, Value, object};
use http::{Response, StatusCode};
use serve::Body;

use crate::Kubelet;
use crate::cri::labels;

/// All pods, each with its latest status.
pub(super) fn list(kubelet: &Kubelet) -> Response<Body> {
    let pods = kubelet.pods.lock();
    let with_status = pods.values().map(|known| {
        let mut pod = Value::clone(&known.pod);
        if !known.status.is_null() {
            pod.set(&["status"], known.status.clone());
        }
        pod
    });
    let list = object!({
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {},
        "items": (Value::Array(with_status.collect())),
    });
    serve::json(StatusCode::OK, list.to_json())
}

/// The pods that have containers running, as the runtime knows them.
pub(super) async fn running(kubelet: &Kubelet) -> Response<Body> {
    let containers = match kubelet.runtime.containers(None).await {
        Ok(containers) => containers,
        Err(error) => return serve::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut pods = std::collections::BTreeMap::<String, Value>::new();
    for container in containers.into_iter().filter(|container| container.state == 1) {
        let label = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
        let pod = pods.entry(label(labels::POD_UID)).or_insert_with(|| {
            object!({
                "metadata": {
                    "name": (label(labels::POD_NAME)),
                    "namespace": (label(labels::POD_NAMESPACE)),
                    "uid": (label(labels::POD_UID)),
                },
                "spec": {"containers": []},
                "status": {},
            })
        });
        let mut shown = Map::new();
        shown.push("name", label(labels::CONTAINER_NAME).into());
        shown.push("image", container.image_ref.clone().into());
        shown.push("resources", Value::object());
        if let Some(list) = pod.at_mut(&["spec", "containers"]).and_then(Value::as_array_mut) {
            list.push(Value::Object(shown));
        }
    }
    let items = Value::Array(pods.into_values().collect());
    let list = object!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": (items)});
    serve::json(StatusCode::OK, list.to_json())
}

/// A pod by its name, with the status that it has.
pub(super) fn find(kubelet: &Kubelet, namespace: &str, name: &str) -> Option<(Arc<Value>, Value)> {
    let pods = kubelet.pods.lock();
    // A pod that is going may still be there beside its successor of the same name.
    let mut found: Vec<_> = pods
        .values()
        .filter(|known| known.pod.namespace() == namespace && known.pod.name() == name)
        .collect();
    found.sort_by_key(|known| known.pod.is_terminating());
    found.first().map(|known| (known.pod.clone(), known.status.clone()))
}
