//! Static pods: read from files on this node, and shown to the API server by mirror pods.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::{Value, names, object};
use client::DeleteOptions;
use client::resource::PODS;
use sha2::{Digest, Sha256};

use super::actor::Desired;
use super::{Manager, spec};
use crate::Kubelet;

/// Files are looked at this often for changes.
const PERIOD: Duration = Duration::from_secs(5);
/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 10 << 20;

/// Follows the folder of static pods until the process ends.
pub(crate) async fn run(kubelet: Arc<Kubelet>, manager: Arc<Manager>) {
    let path = kubelet.config.file.static_pod_path.clone();
    let mut known = HashMap::<String, Arc<Value>>::new();
    let period = PERIOD.min(kubelet.config.file.file_check_frequency.0);
    loop {
        let mut now = read_all(Path::new(&path), &kubelet.config.node_name);
        for (uid, gone) in known.iter().filter(|(uid, _)| !now.contains_key(*uid)) {
            tracing::info!(uid, "The file of a static pod is gone");
            manager.tell(Desired { pod: gone.clone(), mirror: None, removed: true });
        }
        // The successor of a pod starts when its predecessor is gone.
        now.retain(|uid, pod| known.contains_key(uid) || !manager.has_namesake(pod));
        for pod in now.iter().filter(|(uid, _)| !known.contains_key(*uid)).map(|(_, pod)| pod) {
            let mirror = manager.mirror(pod.namespace(), pod.name());
            manager.tell(Desired { pod: pod.clone(), mirror, removed: false });
        }
        known = now;
        mirror_all(&kubelet, &manager, &known).await;
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = kubelet.mirrors_changed.notified() => {}
        }
    }
}

fn read_all(path: &Path, node: &str) -> HashMap<String, Arc<Value>> {
    let mut files = BTreeMap::new();
    let entries = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => vec![path.to_owned()],
        Ok(_) => fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    for file in entries {
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && file.is_file() {
            match read(&file, node) {
                Ok(pod) => drop(files.insert(pod.uid().to_owned(), Arc::new(pod))),
                Err(error) => {
                    tracing::warn!(file = %file.display(), err = format!("{error:#}"), "Cannot read a static pod");
                }
            }
        }
    }
    files.into_iter().collect()
}

fn read(file: &Path, node: &str) -> anyhow::Result<Value> {
    let mut text = String::new();
    fs::File::open(file)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        anyhow::bail!("longer than {MAX_FILE} bytes");
    }
    let mut pod: Value = serde_saphyr::from_str(&text).context("not a YAML object")?;
    if pod.kind() != "Pod" || pod.api_version() != "v1" || pod.name().is_empty() {
        anyhow::bail!("not a v1 Pod with a name");
    }
    check_names(&pod)?;
    let digest =
        Sha256::digest([text.as_bytes(), node.as_bytes(), file.to_string_lossy().as_bytes()].concat());
    let hash: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("{}-{node}", pod.name());
    pod.set(&["metadata", "name"], name);
    pod.set(&["metadata", "uid"], hash.as_str());
    if pod.namespace().is_empty() {
        pod.set(&["metadata", "namespace"], "default");
    }
    pod.set(&["metadata", "annotations", spec::CONFIG_HASH], hash);
    pod.set(&["metadata", "annotations", spec::SOURCE], "file");
    let seen = api::time::format_micro(jiff::Timestamp::now());
    pod.set(&["metadata", "annotations", spec::SEEN], seen);
    pod.set(&["spec", "nodeName"], node);
    default(&mut pod);
    Ok(pod)
}

/// Names become parts of paths on this node. Pods of the API server have been checked; nobody else has looked at a file.
fn check_names(pod: &Value) -> anyhow::Result<()> {
    let label = |what: &str, name: &str| match names::dns_label(name).pop() {
        Some(problem) => anyhow::bail!("{what} {name:?}: {problem}"),
        None => Ok(()),
    };
    if let Some(problem) = names::dns_subdomain(pod.name()).pop() {
        anyhow::bail!("metadata.name {:?}: {problem}", pod.name());
    }
    if !pod.namespace().is_empty() {
        label("metadata.namespace", pod.namespace())?;
    }
    let mut known = HashSet::new();
    for container in spec::all_containers(pod).chain(spec::ephemeral_containers(pod)) {
        let name = container.str_at(&["name"]);
        label("the name of a container", name)?;
        if !known.insert(name) {
            anyhow::bail!("two containers are called {name:?}");
        }
    }
    spec::volumes(pod).iter().try_for_each(|volume| label("the name of a volume", volume.str_at(&["name"])))
}

/// What the API server would have filled in.
fn default(pod: &mut Value) {
    let fill = |object: &mut Value, field: &str, value: Value| {
        if object.get(field).is_null() {
            object.set(&[field], value);
        }
    };
    pod.remove_at(&["status"]);
    if let Some(spec) = pod.at_mut(&["spec"]) {
        fill(spec, "restartPolicy", "Always".into());
        fill(spec, "dnsPolicy", "ClusterFirst".into());
        fill(spec, "terminationGracePeriodSeconds", 30.into());
        fill(spec, "securityContext", Value::object());
        fill(spec, "enableServiceLinks", true.into());
        // Whatever taint comes, a static pod stays.
        let everything = object!({"operator": "Exists", "effect": "NoExecute"});
        let mut tolerations = spec.array_at(&["tolerations"]).to_vec();
        if !tolerations.contains(&everything) {
            tolerations.push(everything);
        }
        spec.set(&["tolerations"], Value::Array(tolerations));
    }
    for field in ["initContainers", "containers"] {
        let containers = pod.at_mut(&["spec", field]).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let image = container.str_at(&["image"]);
            let tag = image.rsplit('/').next().unwrap_or_default().split_once(':').map(|(_, tag)| tag);
            let latest = !image.contains('@') && matches!(tag, None | Some("latest"));
            fill(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" }.into());
            fill(container, "terminationMessagePath", "/dev/termination-log".into());
            fill(container, "terminationMessagePolicy", "File".into());
        }
    }
}

/// Makes the mirrors that are missing and removes those that show nothing.
async fn mirror_all(kubelet: &Kubelet, manager: &Manager, pods: &HashMap<String, Arc<Value>>) {
    for mirror in manager.mirrors() {
        let hash = mirror.annotation(spec::MIRROR).unwrap_or_default();
        if pods.contains_key(hash) && !mirror.is_terminating() {
            continue;
        }
        let options = DeleteOptions { grace_period: Some(0), ..DeleteOptions::uid(mirror.uid()) };
        if let Err(error) = kubelet.client.delete(&PODS, mirror.namespace(), mirror.name(), &options).await
            && !error.is_not_found()
        {
            tracing::warn!(pod = mirror.name(), err = %error, "Cannot delete a mirror pod");
        }
    }
    let Some(node) = kubelet.node_uid() else { return };
    for pod in pods.values() {
        if manager.mirror(pod.namespace(), pod.name()).is_some() {
            continue;
        }
        let mut mirror = (**pod).clone();
        mirror.remove_at(&["metadata", "uid"]);
        let hash = pod.annotation(spec::CONFIG_HASH).unwrap_or_default().to_owned();
        mirror.set(&["metadata", "annotations", spec::MIRROR], hash);
        let owner = object!({
            "apiVersion": "v1",
            "kind": "Node",
            "name": (kubelet.config.node_name.as_str()),
            "uid": (node.as_str()),
            "controller": true,
        });
        mirror.set(&["metadata", "ownerReferences"], Value::Array(vec![owner]));
        match kubelet.client.create(&PODS, pod.namespace(), &mirror).await {
            Err(error) if !error.is_already_exists() => {
                tracing::warn!(pod = pod.name(), err = %error, "Cannot make a mirror pod");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_a_defaulted_pod_of_this_node() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("web.yaml");
        let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: c\n    image: x:1\n";
        fs::write(&file, text).unwrap();
        let pod = read(&file, "n1").unwrap();
        assert_eq!((pod.name(), pod.namespace()), ("web-n1", "default"));
        assert!(spec::is_static(&pod) && !spec::is_mirror(&pod));
        assert_eq!(pod.uid(), pod.annotation(spec::CONFIG_HASH).unwrap());
        assert_eq!(spec::containers(&pod)[0].str_at(&["imagePullPolicy"]), "IfNotPresent");
        fs::write(dir.path().join("bad.yaml"), "kind: Service\n").unwrap();
        assert_eq!(read_all(dir.path(), "n1").len(), 1);
    }

    #[test]
    fn names_that_would_lead_elsewhere_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pod.yaml");
        let refused = |metadata: &str, spec: &str| {
            fs::write(&file, format!("apiVersion: v1\nkind: Pod\nmetadata: {metadata}\nspec: {spec}\n"))
                .unwrap();
            read(&file, "n1").is_err()
        };
        let fine = "{containers: [{name: c, image: x}]}";
        assert!(!refused("{name: p}", fine));
        for metadata in ["{name: ../../etc}", "{name: p, namespace: ../x}", "{name: \"a\\0b\"}", "{name: /p}"]
        {
            assert!(refused(metadata, fine), "{metadata}");
        }
        for spec in [
            "{containers: [{name: ../c}]}",
            "{containers: [{name: c}, {name: c}]}",
            "{containers: [{name: c}], initContainers: [{name: ..}]}",
            "{containers: [{name: c}], volumes: [{name: ../../../etc, emptyDir: {}}]}",
        ] {
            assert!(refused("{name: p}", spec), "{spec}");
        }
        let long = "x".repeat(MAX_FILE as usize);
        assert!(refused(&format!("{{name: p, annotations: {{a: {long}}}}}"), fine));
    }
}
