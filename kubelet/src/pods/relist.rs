//! Noticing what happens to containers, by asking the runtime for the list of them every second.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::Kubelet;
use crate::cri::{Result, labels};

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

async fn picture(kubelet: &Kubelet) -> Result<Picture> {
    let mut picture = Picture::new();
    let mut put = |labels: &HashMap<String, String>, id: String, state: i32| {
        if let Some(uid) = labels.get(labels::POD_UID) {
            picture.entry(uid.clone()).or_default().push((id, state));
        }
    };
    for sandbox in kubelet.runtime.sandboxes(None).await? {
        put(&sandbox.labels, sandbox.id, sandbox.state);
    }
    for container in kubelet.runtime.containers(None).await? {
        put(&container.labels, container.id, container.state);
    }
    picture.values_mut().for_each(|states| states.sort());
    Ok(picture)
}

/// Runs until the process ends.
pub(super) async fn run(kubelet: Arc<Kubelet>) {
    let mut before = Picture::new();
    let mut failing = false;
    loop {
        match picture(&kubelet).await {
            Ok(now) => {
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
