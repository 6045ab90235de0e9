//! Probes: one task for each probe of a running container, whose verdicts wake the pod's actor.

mod check;
mod http;
mod metrics;
mod redirect;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::Value;
use client::Recorder;
use client::events::Kind;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use crate::cri::Runtime;
use crate::events;
use crate::pods::observed::{Observed, State};
use crate::pods::plan::Verdicts;
use crate::pods::spec;

pub(crate) use check::{Outcome, Target};
pub(crate) use http::hook as http_hook;
pub(crate) use metrics::Metrics;

/// The kinds of probes, in the words of events.
const STARTUP: &str = "startup";
const LIVENESS: &str = "liveness";
const READINESS: &str = "readiness";

/// A container that is no older than this is not ready because it has just been started: it is looked at again soon.
const YOUNG: Duration = Duration::from_secs(1);
/// How soon at the earliest.
const SOON: Duration = Duration::from_millis(200);

/// The probes of one pod.
pub(crate) struct Probes {
    runtime: Runtime,
    recorder: Recorder,
    metrics: Metrics,
    /// Of whom there are figures: one target for each probe of the spec.
    counted: Vec<(&'static str, Target)>,
    verdicts: Arc<Mutex<Verdicts>>,
    /// Tells probes that wait for it that some container has started.
    begun: Arc<Notify>,
    wake: Arc<Notify>,
    running: HashMap<String, Vec<AbortHandle>>,
    tasks: JoinSet<()>,
}

impl Probes {
    /// No probes yet; `wake` is notified of every new verdict.
    pub(crate) fn new(runtime: Runtime, recorder: Recorder, metrics: Metrics, wake: Arc<Notify>) -> Self {
        Self {
            runtime,
            recorder,
            metrics,
            counted: Vec::new(),
            verdicts: Arc::default(),
            begun: Arc::default(),
            wake,
            running: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// What is known now.
    pub(crate) fn verdicts(&self) -> Verdicts {
        self.verdicts.lock().clone()
    }

    /// Notes that a container's hook after the start failed.
    pub(crate) fn hook_failed(&self, id: &str, message: &str) {
        self.verdicts.lock().hook_failed.insert(id.to_owned(), message.to_owned());
    }

    /// Starts the probes of containers that run and stops those of containers that do not.
    pub(crate) fn update(&mut self, pod: &Arc<Value>, observed: &Observed, ips: &[String], ending: bool) {
        while self.tasks.try_join_next().is_some() {}
        let alive: Vec<_> = observed.containers.iter().filter(|c| c.state == State::Running).collect();
        let verdicts = &self.verdicts;
        self.running.retain(|id, handles| {
            let keep = alive.iter().any(|container| container.id == *id);
            if !keep {
                handles.iter().for_each(AbortHandle::abort);
                let mut verdicts = verdicts.lock();
                verdicts.started.remove(id);
                verdicts.ready.remove(id);
                verdicts.failed.remove(id);
                verdicts.hook_failed.remove(id);
            }
            keep
        });
        for container in alive {
            if self.running.contains_key(&container.id) {
                continue;
            }
            let Some(definition) = spec::container(pod, &container.name) else { continue };
            let target = Target {
                pod: pod.clone(),
                container: definition.clone(),
                id: container.id.clone(),
                ip: ips.first().cloned().unwrap_or_default(),
                started: container.started,
            };
            let handles = self.start(target, ending);
            self.running.insert(container.id.clone(), handles);
        }
    }

    fn start(&mut self, target: Target, ending: bool) -> Vec<AbortHandle> {
        let has = |field: &str| !target.container.get(field).is_null();
        // What was known before a restart of the kubelet still counts until the probe says otherwise.
        let known = known(&target);
        {
            let mut verdicts = self.verdicts.lock();
            let started = !has("startupProbe") || known.0;
            verdicts.started.insert(target.id.clone(), started);
            verdicts.ready.insert(target.id.clone(), started && (!has("readinessProbe") || known.1));
        }
        let mut handles = Vec::new();
        for (field, kind) in
            [("startupProbe", STARTUP), ("livenessProbe", LIVENESS), ("readinessProbe", READINESS)]
        {
            // A pod that is going is not restarted for its health any more.
            if !has(field) || (ending && kind != READINESS) || (kind == STARTUP && known.0) {
                continue;
            }
            let name = target.container.str_at(&["name"]);
            let same = |(k, t): &(&str, Target)| *k == kind && t.container.str_at(&["name"]) == name;
            if !self.counted.iter().any(same) {
                self.counted.push((kind, target.clone()));
            }
            let worker = Worker {
                probe: target.container.get(field).clone(),
                kind,
                target: target.clone(),
                runtime: self.runtime.clone(),
                recorder: self.recorder.clone(),
                metrics: self.metrics.clone(),
                verdicts: self.verdicts.clone(),
                begun: self.begun.clone(),
                wake: self.wake.clone(),
            };
            handles.push(self.tasks.spawn(worker.run()));
        }
        handles
    }
}

/// Whether the last status showed this very container as started and as ready.
fn known(target: &Target) -> (bool, bool) {
    let id = format!("containerd://{}", target.id);
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let mut all = statuses.iter().flat_map(|field| target.pod.array_at(&["status", field]));
    let status = all.find(|status| status.str_at(&["containerID"]) == id);
    let is = |field: &str| status.is_some_and(|status| status.get(field).as_bool().unwrap_or_default());
    (is("started"), is("ready"))
}

struct Worker {
    probe: Value,
    kind: &'static str,
    target: Target,
    runtime: Runtime,
    recorder: Recorder,
    metrics: Metrics,
    verdicts: Arc<Mutex<Verdicts>>,
    begun: Arc<Notify>,
    wake: Arc<Notify>,
}

/// The figures of a pod's probes go with the pod.
impl Drop for Probes {
    fn drop(&mut self) {
        for (kind, target) in &self.counted {
            self.metrics.forget(kind, target);
        }
    }
}

/// A word with a capital.
fn capitalized(word: &str) -> String {
    let mut word = word.to_owned();
    word[..1].make_ascii_uppercase();
    word
}

impl Worker {
    fn number(&self, field: &str, default: u64) -> u64 {
        self.probe
            .get(field)
            .as_i64()
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| *n > 0)
            .unwrap_or(default)
    }

    async fn run(self) {
        let period = Duration::from_secs(self.number("periodSeconds", 10));
        let timeout = Duration::from_secs(self.number("timeoutSeconds", 1));
        self.initial_delay(period).await;
        let mut streak = Streak::default();
        loop {
            if self.kind != STARTUP {
                until_started(&self.verdicts, &self.begun, &self.target.id).await;
            }
            let began = tokio::time::Instant::now();
            let outcome = check::run(&self.probe, &self.target, &self.runtime, timeout).await;
            self.metrics.count(self.kind, &self.target, &outcome, began.elapsed());
            if self.judge(outcome, &mut streak) {
                return;
            }
            let failing = self.kind == READINESS && !streak.good;
            tokio::time::sleep(if failing { again(self.age(), period) } else { period }).await;
        }
    }

    async fn initial_delay(&self, period: Duration) {
        let delay = Duration::from_secs(self.number("initialDelaySeconds", 0));
        tokio::time::sleep(pause(delay, self.age(), period, rand::random_range(0.0..1.0))).await;
    }

    /// How long ago the container was started.
    fn age(&self) -> Duration {
        let age = jiff::Timestamp::now().as_nanosecond() as i64 - self.target.started;
        Duration::from_nanos(age.max(0).unsigned_abs())
    }

    fn warn(&self, reason: &str, message: &str) {
        let container = self.target.container.str_at(&["name"]);
        events::of_container(&self.recorder, &self.target.pod, container, Kind::Warning, reason, message);
    }

    /// Draws the conclusion; true when there is nothing left to find out.
    fn judge(&self, outcome: Outcome, streak: &mut Streak) -> bool {
        let (good, message) = match outcome {
            Outcome::Success => (true, String::new()),
            Outcome::Warning(message) => {
                self.warn("ProbeWarning", &format!("{} probe warning: {message}", capitalized(self.kind)));
                (true, message)
            }
            Outcome::Failure(message) => (false, message),
            // Nothing was learned.
            Outcome::Unknown(message) => {
                tracing::debug!(message, probe = self.kind, "Probe could not be run");
                return false;
            }
        };
        if !good {
            self.warn("Unhealthy", &format!("{} probe failed: {message}", capitalized(self.kind)));
        }
        let needed = match good {
            true => self.number("successThreshold", 1),
            false => self.number("failureThreshold", 3),
        };
        if !streak.reached(good, needed) {
            return false;
        }
        let id = self.target.id.clone();
        let mut verdicts = self.verdicts.lock();
        let before = verdicts.clone();
        let done = match (self.kind, good) {
            (READINESS, _) => {
                verdicts.ready.insert(id, good);
                false
            }
            (STARTUP, true) => {
                verdicts.started.insert(id.clone(), true);
                if self.target.container.get("readinessProbe").is_null() {
                    verdicts.ready.insert(id, true);
                }
                self.begun.notify_waiters();
                true
            }
            (_, true) => false,
            (kind, false) => {
                verdicts.failed.insert(id, kind);
                true
            }
        };
        if *verdicts != before {
            self.wake.notify_one();
        }
        done
    }
}

/// The other probes of a container have nothing to say before its startup probe has.
async fn until_started(verdicts: &Mutex<Verdicts>, begun: &Notify, id: &str) {
    loop {
        // Whoever begins from here on is not missed.
        let next = begun.notified();
        if verdicts.lock().started.get(id).copied().unwrap_or_default() {
            return;
        }
        next.await;
    }
}

/// How long to wait with the first probe of a container of this age. When it is older than it should be by then, the kubelet
/// has just come back: so that not all containers of the node are probed at one time, each waits for a part of its period.
fn pause(delay: Duration, age: Duration, period: Duration, part: f64) -> Duration {
    if age > delay + period { period.mul_f64(part) } else { delay.saturating_sub(age) }
}

/// How long to wait after a container of this age was not ready. The first look often comes before a program listens, and
/// for that nobody should wait a whole period: until the container is no longer young, the pauses double.
fn again(age: Duration, period: Duration) -> Duration {
    if age > YOUNG { period } else { age.max(SOON).min(period) }
}

/// How often in a row a probe had the same outcome.
#[derive(Default)]
struct Streak {
    good: bool,
    length: u64,
}

impl Streak {
    fn reached(&mut self, good: bool, needed: u64) -> bool {
        if self.good != good {
            self.length = 0;
        }
        self.good = good;
        self.length += 1;
        self.length >= needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn probes_wait_until_their_container_has_started() {
        use futures::FutureExt;
        let (verdicts, begun) = (Mutex::new(Verdicts::default()), Notify::new());
        let waiting = until_started(&verdicts, &begun, "c");
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        for (id, over) in [("other", false), ("c", true)] {
            verdicts.lock().started.insert(id.to_owned(), true);
            begun.notify_waiters();
            assert_eq!(waiting.as_mut().now_or_never().is_some(), over, "{id}");
        }
    }

    #[test]
    fn probes_of_a_kubelet_that_came_back_are_spread() {
        let seconds = Duration::from_secs;
        for (delay, age, expected) in [(0, 0, 0), (5, 2, 3), (5, 7, 0), (5, 16, 4), (0, 3600, 4)] {
            assert_eq!(
                pause(seconds(delay), seconds(age), seconds(10), 0.4),
                seconds(expected),
                "{delay} {age}"
            );
        }
    }

    #[test]
    fn a_container_that_has_just_been_started_is_looked_at_again_soon() {
        let (mut age, mut ages) = (Duration::from_millis(5), Vec::new());
        for _ in 0..5 {
            age += again(age, Duration::from_secs(10));
            ages.push(age.as_millis());
        }
        assert_eq!(ages, [205, 410, 820, 1640, 11_640]);
        assert_eq!(again(Duration::from_secs(1), Duration::from_millis(500)), Duration::from_millis(500));
    }

    #[test]
    fn a_verdict_takes_as_many_equal_outcomes_as_the_threshold_says() {
        let mut streak = Streak::default();
        let outcomes =
            [(false, 3, false), (false, 3, false), (true, 1, true), (false, 3, false), (false, 3, false)];
        for (good, needed, reached) in outcomes {
            assert_eq!(streak.reached(good, needed), reached);
        }
        assert!(streak.reached(false, 3));
    }
}
