//! The pods of this node, as a shutdown sees them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ::api::Value;
use async_trait::async_trait;

use super::logind::Logind;
use super::state::State;
use super::{MESSAGE, Manager, Pods, REASON, plan};
use crate::Kubelet;
use crate::eviction::Eviction;

/// The folder of logind's additional configuration.
const CONFIG_DIR: &str = "/etc/systemd/logind.conf.d";

struct NodePods(Arc<Kubelet>);

#[async_trait]
impl Pods for NodePods {
    fn active(&self) -> Vec<Arc<Value>> {
        self.0.admitted("")
    }

    fn end(&self, uid: &str, grace: i64) {
        let pods = self.0.pods.lock();
        if let Some(known) = pods.get(uid).filter(|known| known.eviction.borrow().is_none()) {
            let message = MESSAGE.to_owned();
            let disruption = Some(message.clone());
            known.eviction.send_replace(Some(Eviction { reason: REASON, message, grace, disruption }));
        }
    }

    async fn gone(&self, uids: &[String]) {
        self.0.gone(uids).await;
    }

    fn note(&self, shutting_down: bool) {
        let kubelet = &self.0;
        let what = if shutting_down { "event" } else { "cancellation" };
        let message = format!("Shutdown manager detected shutdown {what}");
        kubelet.recorder.normal(&kubelet.node_reference(), "NodeShutdown", message);
        kubelet.shutting_down.store(shutting_down, Ordering::Relaxed);
        kubelet.node_changed.notify_one();
    }
}

/// Watches for shutdowns until the process ends, if the configuration says so.
pub(crate) fn start(kubelet: &Arc<Kubelet>) {
    let periods = plan::periods(&kubelet.config.file);
    if periods.is_empty() {
        return;
    }
    let state = State::load(&kubelet.config.root, kubelet.shutdown_metrics.clone());
    let logind = Logind { address: None, config_dir: Path::new(CONFIG_DIR).to_owned() };
    let pods = NodePods(kubelet.clone());
    let manager = Manager { pods, periods, logind, state };
    let stop = kubelet.tasks.token();
    kubelet.tasks.critical("shutdown", async move {
        tokio::select! {
            () = manager.run() => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    });
}
