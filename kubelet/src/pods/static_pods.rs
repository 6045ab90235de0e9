//! Static pods: read from files on this node or from a URL, and shown to the API server by mirror pods.

mod check;
mod fetch;
mod identity;
mod read;
mod types;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{Value, object};
use client::DeleteOptions;
use client::events::Kind;
use client::resource::PODS;
use tokio::time::Instant;

use super::actor::Desired;
use super::{Manager, spec};
use crate::Kubelet;
use crate::events;

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
    let in_files = (!file.static_pod_path.is_empty()).then_some(Path::new(&file.static_pod_path));
    let mut manifests = in_files.map(|path| read::Manifests::new(path, node));
    let mut url = fetch::Url::of(file, node);
    let mut next_fetch = Instant::now();
    let mut known = Pods::new();
    let mut refused = HashSet::new();
    loop {
        let in_files = manifests.as_mut().map(read::Manifests::pods);
        let (mut now, mut twice) = by_uid(in_files.unwrap_or_default());
        if let Some(url) = &mut url {
            if next_fetch <= Instant::now() {
                url.fetch().await;
                next_fetch = Instant::now() + file.http_check_frequency.0;
            }
            let (of_url, again) = by_uid(url.pods());
            now.extend(of_url);
            twice.extend(again);
        }
        for pod in twice.iter().filter(|pod| refused.insert(pod.uid().to_owned())) {
            events::of_pod(&kubelet.recorder, pod, Kind::Warning, "FailedValidation", &namesake(pod));
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

/// The pods of one place, and those that have the name of one before them, which are not run.
fn by_uid(pods: Vec<Arc<Value>>) -> (Pods, Vec<Arc<Value>>) {
    let mut names = HashSet::new();
    let is_first = |pod: &Arc<Value>| names.insert((pod.namespace().to_owned(), pod.name().to_owned()));
    let (first, twice): (Vec<_>, Vec<_>) = pods.into_iter().partition(is_first);
    (first.into_iter().map(|pod| (pod.uid().to_owned(), pod)).collect(), twice)
}

fn namesake(pod: &Value) -> String {
    let (name, place) = (pod.name(), pod.annotation(spec::SOURCE).unwrap_or_default());
    let shown = format!("{name}_{}({})", pod.namespace(), pod.uid());
    format!("Error validating pod {shown} from {place} due to duplicate pod name {name:?}, ignoring")
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
    fn of_two_pods_with_one_name_the_first_is_run() {
        let pod = |namespace: &str, uid: &str| {
            let annotations = Value::Object([(spec::SOURCE, Value::from("file"))].into_iter().collect());
            let metadata = object!({
                "name": "web-n1", "namespace": namespace, "uid": uid, "annotations": (annotations),
            });
            Arc::new(object!({"metadata": (metadata)}))
        };
        let (run, twice) = by_uid(vec![pod("a", "1"), pod("a", "2"), pod("b", "3")]);
        let mut uids: Vec<_> = run.into_keys().collect();
        uids.sort();
        assert_eq!(uids, ["1", "3"]);
        let said: Vec<_> = twice.iter().map(|pod| namesake(pod)).collect();
        assert_eq!(
            said,
            ["Error validating pod web-n1_a(2) from file due to duplicate pod name \"web-n1\", ignoring"]
        );
    }
}
