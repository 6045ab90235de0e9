//! Noticing what happens to containers, by asking the runtime for the list of them every second.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use k8s_cri::v1 as cri;
use parking_lot::RwLock;

use crate::Kubelet;
use crate::cri::{Result, labels};
use crate::metrics::Relists;

const PERIOD: Duration = Duration::from_secs(1);
/// Without a list for this long the kubelet is not healthy.
const PATIENCE: i64 = 180;

/// What the last list was.
#[derive(Default)]
pub(crate) struct Health {
    /// When it was had, in seconds since the epoch.
    last: AtomicI64,
    /// The pods of which the runtime had anything; none before the first list.
    pods: RwLock<Option<HashSet<String>>>,
}

impl Health {
    /// Whether the runtime had nothing of a pod when it was asked last. Before that nobody knows.
    pub(crate) fn had_nothing_of(&self, uid: &str) -> bool {
        self.pods.read().as_ref().is_some_and(|pods| !pods.contains(uid))
    }

    fn note(&self, picture: &Picture) {
        self.last.store(jiff::Timestamp::now().as_second(), Ordering::Relaxed);
        let same = |pods: &HashSet<String>| {
            pods.len() == picture.len() && picture.keys().all(|uid| pods.contains(uid))
        };
        if !self.pods.read().as_ref().is_some_and(same) {
            *self.pods.write() = Some(picture.keys().cloned().collect());
        }
    }

    /// Why the relisting is not healthy, if it is not.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        let last = self.last.load(Ordering::Relaxed);
        let age = jiff::Timestamp::now().as_second() - last;
        if last == 0 {
            return Err("pleg has yet to be successful".to_owned());
        }
        match age > PATIENCE {
            true => Err(format!("pleg was last seen active {age}s ago; threshold is {PATIENCE}s")),
            false => Ok(()),
        }
    }
}

/// What is compared: the state of every sandbox and container, by pod.
type Picture = HashMap<String, Vec<(String, i32)>>;

/// The picture, the number of pods with a sandbox that runs, and that of containers by their states.
async fn picture(kubelet: &Kubelet) -> Result<(Picture, usize, [i64; 4])> {
    let mut picture = Picture::new();
    let (mut running, mut states) = (HashSet::new(), [0; 4]);
    let mut put = |labels: &HashMap<String, String>, id: String, state: i32| {
        if let Some(uid) = labels.get(labels::POD_UID) {
            picture.entry(uid.clone()).or_default().push((id, state));
        }
    };
    for sandbox in kubelet.runtime.sandboxes(None).await? {
        if sandbox.state == cri::PodSandboxState::SandboxReady as i32 {
            running.extend(sandbox.labels.get(labels::POD_UID).cloned());
        }
        put(&sandbox.labels, sandbox.id, sandbox.state);
    }
    for container in kubelet.runtime.containers(None).await? {
        if container.labels.contains_key(labels::POD_UID) {
            let state = usize::try_from(container.state).unwrap_or(usize::MAX);
            states.get_mut(state).into_iter().for_each(|count| *count += 1);
        }
        put(&container.labels, container.id, container.state);
    }
    picture.values_mut().for_each(|states| states.sort());
    Ok((picture, running.len(), states))
}

fn show(metrics: &Relists, pods: usize, states: [i64; 4]) {
    metrics.pods.set(i64::try_from(pods).unwrap_or(i64::MAX));
    for (gauge, count) in metrics.containers.iter().zip(states) {
        gauge.set(count);
    }
}

/// Runs until the process ends.
pub(super) async fn run(kubelet: Arc<Kubelet>) {
    let mut before = Picture::new();
    let mut failing = false;
    let metrics = &kubelet.metrics.relists;
    let mut last = None::<Instant>;
    loop {
        let (began, since) = (Instant::now(), jiff::Timestamp::now().as_second());
        if let Some(last) = last.replace(began) {
            metrics.intervals.observe((began - last).as_secs_f64());
        }
        let seen = picture(&kubelet).await;
        metrics.durations.observe(began.elapsed().as_secs_f64());
        match seen {
            Ok((now, pods, states)) => {
                metrics.seen.set(since);
                show(metrics, pods, states);
                kubelet.relisted.note(&now);
                failing = false;
                for uid in before.keys().chain(now.keys()) {
                    if before.get(uid) != now.get(uid) {
                        kubelet.wake(uid);
                    }
                }
                before = now;
            }
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(err = %error, "Cannot list the runtime's containers");
            }
            Err(_) => {}
        }
        tokio::time::sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_of_pods_before_the_first_list() {
        let health = Health::default();
        assert!(!health.had_nothing_of("a"));
        assert!(health.check().is_err());
        let picture = |uids: &[&str]| -> Picture {
            uids.iter().map(|uid| ((*uid).to_owned(), vec![("id".to_owned(), 0)])).collect()
        };
        for (listed, nothing_of) in
            [(&["a"][..], "b"), (&["b"], "a"), (&["a", "b"], "c"), (&["b"], "a"), (&[], "b")]
        {
            health.note(&picture(listed));
            assert!(health.had_nothing_of(nothing_of), "{listed:?}");
            assert!(listed.iter().all(|uid| !health.had_nothing_of(uid)), "{listed:?}");
        }
        assert_eq!(health.check(), Ok(()));
    }
}
