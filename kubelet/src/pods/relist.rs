//! Noticing what happens to containers, by asking the runtime for the list of them every second.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use k8s_cri::v1 as cri;

use crate::Kubelet;
use crate::cri::{Result, labels};
use crate::metrics::Relists;

const PERIOD: Duration = Duration::from_secs(1);
/// Without a list for this long the kubelet is not healthy.
const PATIENCE: i64 = 180;

/// When the last list was had, in seconds since the epoch.
#[derive(Default)]
pub(crate) struct Health(AtomicI64);

impl Health {
    /// Why the relisting is not healthy, if it is not.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        let last = self.0.load(Ordering::Relaxed);
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
                kubelet.relisted.0.store(jiff::Timestamp::now().as_second(), Ordering::Relaxed);
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
