//! The labels and annotations by which containers are known to be Kubernetes', and to which pod they belong. They are
//! upstream's, so that either kubelet can take over the other's containers.

use std::collections::HashMap;

use api::{Value, object};

/// The pod's name.
pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace.
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's uid.
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name.
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The hash of what cannot change without a new container.
pub(crate) const HASH: &str = "io.kubernetes.container.hash";
/// How often the container was started before.
pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Where the container leaves its last words.
pub(crate) const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// `File` or `FallbackToLogsOnError`.
pub(crate) const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// The pod's grace period when the container was made.
pub(crate) const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// The deletion's grace period when the container was made.
pub(crate) const DELETION_GRACE_PERIOD: &str = "io.kubernetes.pod.deletionGracePeriod";
/// The hook to run before stopping, as JSON.
pub(crate) const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
/// The container's ports, as JSON.
pub(crate) const PORTS: &str = "io.kubernetes.container.ports";

/// The labels of a pod's sandbox: its own, and those that name it.
pub(crate) fn of_sandbox(pod: &Value) -> HashMap<String, String> {
    let mut labels = strings(pod.at(&["metadata", "labels"]));
    labels.extend(identity(pod));
    labels
}

/// The labels of a container.
pub(crate) fn of_container(pod: &Value, container: &Value) -> HashMap<String, String> {
    let mut labels: HashMap<_, _> = identity(pod).into();
    labels.insert(CONTAINER_NAME.to_owned(), container.str_at(&["name"]).to_owned());
    labels
}

/// The annotations of a container.
pub(crate) fn annotations(pod: &Value, container: &Value, restarts: u32) -> HashMap<String, String> {
    let mut out = HashMap::new();
    let mut put = |key: &str, value: String| out.insert(key.to_owned(), value);
    put(HASH, hash(container));
    put(RESTART_COUNT, restarts.to_string());
    put(TERMINATION_PATH, container.str_at(&["terminationMessagePath"]).to_owned());
    put(TERMINATION_POLICY, container.str_at(&["terminationMessagePolicy"]).to_owned());
    for (key, path) in [
        (GRACE_PERIOD, ["spec", "terminationGracePeriodSeconds"]),
        (DELETION_GRACE_PERIOD, ["metadata", "deletionGracePeriodSeconds"]),
    ] {
        if let Some(seconds) = pod.at(&path).as_i64() {
            put(key, seconds.to_string());
        }
    }
    for (key, value) in [(PRE_STOP, container.at(&["lifecycle", "preStop"])), (PORTS, container.get("ports"))]
    {
        if !value.is_empty() {
            put(key, String::from_utf8_lossy(&value.to_json()).into_owned());
        }
    }
    out
}

fn identity(pod: &Value) -> [(String, String); 3] {
    [(POD_NAME, pod.name()), (POD_NAMESPACE, pod.namespace()), (POD_UID, pod.uid())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// A map of strings.
pub(crate) fn strings(map: &Value) -> HashMap<String, String> {
    let pairs = map.as_object().into_iter().flat_map(|map| map.iter());
    pairs.map(|(key, value)| (key.to_owned(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// The hash of a container's name and image.
///
/// Upstream marshals both as JSON and feeds Go's dump of those bytes to FNV-1a; the same is done here, so that a kubelet
/// that takes over does not restart every container.
pub(crate) fn hash(container: &Value) -> String {
    let picked = object!({
        "image": (container.str_at(&["image"])),
        "name": (container.str_at(&["name"])),
    });
    let bytes: Vec<String> = go_json(&picked).bytes().map(|byte| byte.to_string()).collect();
    let dump = format!("([]uint8)[{}]", bytes.join(" "));
    let hash =
        dump.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:x}")
}

/// JSON as Go writes it: `<`, `>` and `&` escaped.
fn go_json(value: &Value) -> String {
    let text = String::from_utf8_lossy(&value.to_json()).into_owned();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_name_and_image_only() {
        let container = object!({"name": "c", "image": "busybox", "command": ["sh"]});
        let other = object!({"name": "c", "image": "busybox:1"});
        assert_eq!(hash(&container), hash(&object!({"image": "busybox", "name": "c"})));
        assert_ne!(hash(&container), hash(&other));
    }

    #[test]
    fn a_container_carries_what_a_later_kubelet_needs() {
        let pod = object!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"terminationGracePeriodSeconds": 7},
        });
        let container =
            object!({"name": "c", "image": "i", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}});
        let annotations = annotations(&pod, &container, 3);
        assert_eq!(annotations[RESTART_COUNT], "3");
        assert_eq!(annotations[GRACE_PERIOD], "7");
        assert_eq!(annotations[PRE_STOP], r#"{"sleep":{"seconds":1}}"#);
        assert_eq!(of_container(&pod, &container)[CONTAINER_NAME], "c");
    }
}
