//! Lifecycle hooks.

use std::sync::Arc;
use std::time::Duration;

use api::Value;
use client::events::Kind;
use prometheus::IntCounter;

use crate::probes::{Target, http_hook};
use crate::{Kubelet, events};

/// How long a hook that has no limit of its own may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// The container that a hook belongs to.
pub(super) fn target(pod: &Arc<Value>, definition: &Value, id: &str, ips: &[String]) -> Target {
    Target {
        pod: pod.clone(),
        container: definition.clone(),
        id: id.to_owned(),
        ip: ips.first().cloned().unwrap_or_default(),
        started: 0,
    }
}

/// Counts a sleep that is given up before it ends.
struct Asleep<'m>(Option<&'m IntCounter>);

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        if let Some(cut) = self.0 {
            cut.inc();
        }
    }
}

/// Runs a hook; an error is a sentence.
pub(super) async fn run(kubelet: &Kubelet, hook: &Value, target: &Target) -> Result<(), String> {
    if let Some(seconds) = hook.at(&["sleep", "seconds"]).as_i64() {
        let mut asleep = Asleep(Some(&kubelet.metrics.outcomes.cut_sleeps));
        tokio::time::sleep(Duration::from_secs(seconds.max(0).unsigned_abs())).await;
        asleep.0 = None;
        return Ok(());
    }
    if !hook.get("exec").is_null() {
        let words = hook.array_at(&["exec", "command"]).iter().filter_map(Value::as_str).map(str::to_owned);
        let words: Vec<String> = words.collect();
        return match kubelet.runtime.exec_sync(&target.id, &words, PATIENCE).await {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => Err(format!(
                "command {:?} exited with {}: {}",
                words.join(" "),
                answer.exit_code,
                String::from_utf8_lossy(&answer.stderr)
            )),
            Err(error) => Err(error.to_string()),
        };
    }
    if !hook.get("httpGet").is_null() {
        if let Some(host) = http_hook(hook.get("httpGet"), target).await? {
            kubelet.metrics.outcomes.http_fallbacks.inc();
            let message = format!(
                "request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded"
            );
            let (recorder, pod) = (&kubelet.recorder, &target.pod);
            events::of_pod(recorder, pod, Kind::Warning, "LifecycleHTTPFallback", &message);
        }
        return Ok(());
    }
    Err("invalid handler".to_owned())
}
