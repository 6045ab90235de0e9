//! Lifecycle hooks.

use std::sync::Arc;
use std::time::Duration;

use api::Value;

use crate::cri::Runtime;
use crate::probes::{Outcome, Target, http_get};

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

/// Runs a hook; an error is a sentence.
pub(super) async fn run(runtime: &Runtime, hook: &Value, target: &Target) -> Result<(), String> {
    if let Some(seconds) = hook.at(&["sleep", "seconds"]).as_i64() {
        tokio::time::sleep(Duration::from_secs(seconds.max(0).unsigned_abs())).await;
        return Ok(());
    }
    if !hook.get("exec").is_null() {
        let words = hook.array_at(&["exec", "command"]).iter().filter_map(Value::as_str).map(str::to_owned);
        let words: Vec<String> = words.collect();
        return match runtime.exec_sync(&target.id, &words, PATIENCE).await {
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
        return match http_get(hook.get("httpGet"), target, "kube-lifecycle/1.36").await {
            Outcome::Success | Outcome::Warning(_) => Ok(()),
            Outcome::Failure(why) | Outcome::Unknown(why) => Err(why),
        };
    }
    Err("invalid handler".to_owned())
}
