//! Who gets what.

use std::sync::Arc;
use std::time::Duration;

use api::Value;
use client::events::Kind;
use jiff::Timestamp;

use super::{queue, words};
use crate::Kubelet;
use crate::events;
use crate::managers::resize;
use crate::pods::{admission, spec};

/// Pods that wait for room are looked at this often, whatever happens.
const PERIOD: Duration = Duration::from_secs(180);

/// Why a change of resources can never be, whatever there is room for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Infeasible {
    /// What is counted.
    pub(crate) detail: &'static str,
    /// What is told; a sentence.
    pub(crate) message: String,
}

/// What has pods that wait for room looked at again.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trigger {
    /// A pod asks for something else.
    Updated,
    /// A pod has what it was given.
    Resized,
    /// Nothing of a pod runs any more.
    Terminated,
    /// A pod is gone.
    Removed,
    /// Time has passed.
    Periodic,
}

impl Trigger {
    fn name(self) -> &'static str {
        match self {
            Self::Updated => "pod_updated",
            Self::Resized => "pod_resized",
            Self::Terminated => "pod_terminated",
            Self::Removed => "pods_removed",
            Self::Periodic => "periodic_retry",
        }
    }
}

impl Kubelet {
    /// Gives a new pod what it asks for if there is room. `running`: it was let in by a kubelet before this one. Returns
    /// which pods, by uid, have to be gone before it may start; the error is the reason and message with which it is turned
    /// away.
    pub(crate) fn let_in(&self, pod: &Arc<Value>, running: bool) -> Result<Vec<String>, (String, String)> {
        let _turn = self.allocations.turn.lock();
        self.allocations.take_over(pod);
        let known = self.allocations.has(pod.uid());
        let leaving = match running {
            true => Vec::new(),
            false => admission::check(self, &self.allocations.allocated(pod))?,
        };
        if !known {
            self.allocations.allocate(pod);
        }
        if running && !known {
            self.assume_actuated(pod);
        }
        Ok(leaving)
    }

    /// A pod that ran before anything was written down runs with what its status shows.
    fn assume_actuated(&self, pod: &Value) {
        let shown = ["initContainerStatuses", "containerStatuses"];
        for container in spec::all_containers(pod) {
            let name = container.str_at(&["name"]);
            let mut statuses = shown.iter().flat_map(|field| pod.array_at(&["status", field]));
            let resources = match statuses.find(|status| status.str_at(&["name"]) == name) {
                Some(status) if !status.get("resources").is_null() => status.get("resources"),
                _ => container.get("resources"),
            };
            self.allocations.actuate(pod, name, resources.clone());
        }
        self.allocations.actuate_pod(pod);
    }

    /// Looks whether the pod asks for something else than it has, and gives it if there is room.
    pub(crate) fn ask_for(&self, pod: &Arc<Value>) {
        let uid = pod.uid();
        let generation = pod.at(&["metadata", "generation"]).as_i64().unwrap_or_default();
        let other = self.allocations.wants_other(pod);
        {
            let mut state = self.allocations.state.lock();
            let infeasible = state.conditions.get(uid).and_then(|conditions| conditions.pending.as_ref());
            let refused =
                infeasible.is_some_and(|c| c.reason == words::INFEASIBLE && c.generation == generation);
            let known = state.pending.iter().any(|(pending, g)| pending == uid && *g == generation);
            if other && (known || refused) {
                return;
            }
            state.pending.retain(|(pending, _)| pending != uid);
            if !other {
                if let Some(conditions) = state.conditions.get_mut(uid) {
                    conditions.pending = None;
                }
                return;
            }
            state.pending.push((uid.to_owned(), generation));
        }
        self.retry(Trigger::Updated);
    }

    /// Looks again at the pods that wait for room.
    pub(crate) fn retry(&self, trigger: Trigger) {
        let _turn = self.allocations.turn.lock();
        let pending = std::mem::take(&mut self.allocations.state.lock().pending);
        if pending.is_empty() {
            return;
        }
        let mut waiting: Vec<_> = pending
            .into_iter()
            .filter_map(|(uid, generation)| {
                let pod = self.pods.lock().get(&uid)?.pod.clone();
                let since = self.allocations.conditions(&uid).pending.map(|condition| condition.since);
                let rank = queue::rank(&pod, &self.allocations.allocated(&pod), since.as_deref());
                Some((rank, pod, generation))
            })
            .collect();
        waiting.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        for (_, pod, generation) in waiting {
            let before = self.allocations.conditions(pod.uid());
            let (given, wait) = self.decide(&pod);
            if given && before.is_deferred() {
                self.metrics.outcomes.resize_follows(trigger.name());
            }
            if wait {
                self.allocations.state.lock().pending.push((pod.uid().to_owned(), generation));
            }
            if given || self.allocations.conditions(pod.uid()) != before {
                self.wake(pod.uid());
            }
        }
    }

    /// Whether the pod got what it asks for, and whether it goes on waiting.
    fn decide(&self, pod: &Arc<Value>) -> (bool, bool) {
        if !self.allocations.wants_other(pod) {
            self.allocations.clear_pending(pod.uid());
            return (false, false);
        }
        let now = api::time::format(Timestamp::now());
        let generation = pod.at(&["metadata", "generation"]).as_i64().unwrap_or_default();
        let allocated = self.allocations.allocated(pod);
        let infeasible = self.swap.infeasible(pod, &allocated);
        let infeasible =
            infeasible.or_else(|| resize::infeasible(&self.config.file.managers, pod, &allocated));
        let detail = infeasible.as_ref().map(|infeasible| infeasible.detail);
        let checked = match infeasible {
            Some(Infeasible { message, .. }) => Err((words::INFEASIBLE.to_owned(), message)),
            None => admission::check(self, pod),
        };
        match checked {
            // Their end has it looked at again.
            Ok(leaving) if !leaving.is_empty() => (false, true),
            Ok(_) => {
                self.allocations.allocate(pod);
                self.allocations.clear_pending(pod.uid());
                self.allocations.clear_in_progress(pod.uid());
                self.allocations.set_in_progress(pod, "", "", &now);
                let message = words::message("Pod resize started", pod, generation, "");
                events::of_pod(&self.recorder, pod, Kind::Normal, "ResizeStarted", &message);
                (true, false)
            }
            Err((reason, message)) => {
                let infeasible = reason == words::INFEASIBLE;
                if self.allocations.set_pending(pod, &reason, &message, &now) {
                    let event = if infeasible { "ResizeInfeasible" } else { "ResizeDeferred" };
                    detail.into_iter().for_each(|detail| self.metrics.outcomes.resize_refused(detail));
                    let message = words::message(&format!("Pod resize {reason}"), pod, generation, &message);
                    events::of_pod(&self.recorder, pod, Kind::Warning, event, &message);
                }
                (false, !infeasible)
            }
        }
    }

    /// Says whether what the pod was given is in effect.
    pub(crate) fn note_progress(&self, pod: &Value, in_progress: bool) {
        if in_progress {
            let now = api::time::format(Timestamp::now());
            self.allocations.set_in_progress(pod, "", "", &now);
        } else if let Some(generation) = self.allocations.clear_in_progress(pod.uid()) {
            let message = words::message("Pod resize completed", pod, generation, "");
            events::of_pod(&self.recorder, pod, Kind::Normal, "ResizeCompleted", &message);
            self.retry(Trigger::Resized);
        }
    }

    /// Says that what the pod was given could not be put into effect.
    pub(crate) fn note_failure(&self, pod: &Value, error: &str) {
        let now = api::time::format(Timestamp::now());
        if self.allocations.set_in_progress(pod, words::ERROR, error, &now) {
            let generation = pod.at(&["metadata", "generation"]).as_i64().unwrap_or_default();
            let message = words::message("Pod resize error", pod, generation, error);
            events::of_pod(&self.recorder, pod, Kind::Warning, "ResizeError", &message);
        }
    }
}

/// Looks at waiting pods now and then until the process ends.
pub(crate) async fn keep_trying(kubelet: Arc<Kubelet>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        kubelet.retry(Trigger::Periodic);
    }
}
