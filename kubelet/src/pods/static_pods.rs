//! Static pods: read from files on this node or from a URL, and shown to the API server by mirror pods.

mod fetch;
mod identity;
mod read;
mod references;
mod types;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{Value, object};
use client::DeleteOptions;
use client::resource::PODS;
use tokio::time::Instant;

use super::actor::Desired;
use super::{Manager, spec};
use crate::Kubelet;

/// Files are looked at this often for changes.
const PERIOD: Duration = Duration::from_secs(5);

/// Where a static pod comes from.
enum Source {
    File(PathBuf),
    Url(String),
}

/// Pods by their uids.
type Pods = HashMap<String, Arc<Value>>;

/// Follows the folder and the URL of static pods until the process ends.
pub(crate) async fn run(kubelet: Arc<Kubelet>, manager: Arc<Manager>) {
    let file = &kubelet.config.file;
    let node = &kubelet.config.node_name;
    let period = PERIOD.min(file.file_check_frequency.0);
    let mut url = fetch::Url::of(file, node);
    let mut next_fetch = Instant::now();
    let mut known = Pods::new();
    loop {
        let mut now = if file.static_pod_path.is_empty() {
            Pods::new()
        } else {
            read::all(Path::new(&file.static_pod_path), node)
        };
        if let Some(url) = &mut url {
            if next_fetch <= Instant::now() {
                url.fetch().await;
                next_fetch = Instant::now() + file.http_check_frequency.0;
            }
            now.extend(url.pods());
        }
        for (uid, gone) in known.iter().filter(|(uid, _)| !now.contains_key(*uid)) {
            tracing::info!(uid, "The manifest of a static pod is gone");
            manager.tell(Desired { pod: gone.clone(), mirror: None, removed: true });
        }
        // The successor of a pod starts when its predecessor is gone.
        now.retain(|uid, pod| known.contains_key(uid) || !manager.has_namesake(pod));
        for pod in now.iter().filter(|(uid, _)| !known.contains_key(*uid)).map(|(_, pod)| pod) {
            let mirror = manager.mirror(pod.namespace(), pod.name());
            manager.tell(Desired { pod: pod.clone(), mirror, removed: false });
        }
        // A pod that goes on keeps the object that it was first told with.
        now.iter_mut().for_each(|(uid, pod)| {
            if let Some(before) = known.get(uid) {
                pod.clone_from(before);
            }
        });
        known = now;
        if url.as_ref().is_none_or(fetch::Url::was_read) {
            kubelet.manifests_read.send_replace(true);
        }
        mirror_all(&kubelet, &manager, &known).await;
        let wake =
            (Instant::now() + period).min(if url.is_some() { next_fetch } else { Instant::now() + period });
        tokio::select! {
            () = tokio::time::sleep_until(wake) => {}
            () = kubelet.mirrors_changed.notified() => {}
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
