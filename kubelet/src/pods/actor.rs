//! The loop of one pod.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use api::Value;
use client::events::Kind;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use super::backoff::{Backoffs, go_duration};
use super::observed::{Observed, State};
use super::plan::{self, Plan, View};
use super::report::Reports;
use super::status::{self, Context};
use super::{echo, resize, resources, spec, words};
use crate::Kubelet;
use crate::claims::without_claimed;
use crate::events;
use crate::eviction::{self, Eviction};
use crate::managers;
use crate::metrics::Worker;
use crate::probes::Probes;
use crate::volumes::Mounted;

/// How long to wait after a failure of the runtime or the API server: first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// How long the status of a pod that has ended may take to be told before the machine goes down.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What is wanted of a pod.
#[derive(Clone)]
pub(super) struct Desired {
    /// The pod, as the API server or a file has it.
    pub(super) pod: Arc<Value>,
    /// The pod's status as the API server has it, for static pods that of the mirror.
    pub(super) mirror: Option<Arc<Value>>,
    /// Nobody wants the pod any more.
    pub(super) removed: bool,
}

impl Desired {
    /// Whether everything of the pod is to be stopped.
    pub(super) fn ends(&self) -> bool {
        self.removed || self.pod.is_terminating()
    }
}

/// One pod's actor.
pub(super) struct Actor {
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) desired: watch::Receiver<Desired>,
    pub(super) wake: Arc<Notify>,
    pub(super) observed: Observed,
    /// The runtime has nothing of the pod, and need not be asked for the first plan.
    untouched: bool,
    /// What was wanted when the last round began.
    seen: Option<Desired>,
    pub(super) probes: Probes,
    pub(super) backoffs: Backoffs,
    pub(super) image_backoffs: Backoffs,
    /// The runtime's handler for the pod, once a container was started.
    pub(super) handler: String,
    /// Why containers wait: reason and message by name.
    pub(super) waiting: HashMap<String, (String, String)>,
    pub(super) evictions: watch::Receiver<Option<Eviction>>,
    /// The node made the pod go.
    pub(super) evicted: Option<Eviction>,
    /// Why the whole pod failed.
    pub(super) verdict: Option<(String, String)>,
    pub(super) mounted: Mounted,
    pub(super) reports: Reports,
    admitted: bool,
    retry: Duration,
    /// When the pod came.
    pub(super) came: Instant,
    /// The phase that was reported last.
    pub(super) phase: String,
}

/// What a round of work came to.
pub(super) enum Round {
    /// Something was done: look again at once.
    Again,
    /// Nothing to do before this time, or before somebody wakes the actor.
    Rest(Duration),
    /// The pod has run its course.
    Done,
}

impl Actor {
    pub(super) fn new(
        kubelet: Arc<Kubelet>,
        desired: watch::Receiver<Desired>,
        evictions: watch::Receiver<Option<Eviction>>,
        wake: Arc<Notify>,
        reports: Reports,
    ) -> Self {
        let untouched = is_untouched(&desired.borrow().pod, |uid| kubelet.relisted.had_nothing_of(uid));
        let longest = kubelet.config.file.crash_loop_back_off.max_container_restart_period.0;
        let (runtime, recorder) = (kubelet.runtime.clone(), kubelet.recorder.clone());
        let probes = Probes::new(runtime, recorder, kubelet.probe_metrics.clone(), wake.clone());
        Self {
            kubelet,
            desired,
            wake,
            observed: Observed::default(),
            untouched,
            seen: None,
            probes,
            backoffs: Backoffs::up_to(longest.as_nanos() as i64),
            image_backoffs: Backoffs::default(),
            handler: String::new(),
            waiting: HashMap::new(),
            evictions,
            evicted: None,
            verdict: None,
            mounted: Mounted::new(),
            reports,
            admitted: false,
            retry: RETRY_FIRST,
            came: Instant::now(),
            phase: String::new(),
        }
    }

    /// Runs until the pod is gone from the node and from the API.
    pub(super) async fn run(mut self) {
        let kubelet = self.kubelet.clone();
        let metrics = &kubelet.metrics.pods;
        loop {
            let desired = self.desired.borrow_and_update().clone();
            let before = self.seen.replace(desired.clone());
            let worker = worker(before.as_ref().map(|before| &before.pod), &desired);
            if worker == Worker::Create {
                metrics.began(&desired.pod, self.came.elapsed());
            }
            let began = Instant::now();
            if desired.ends() {
                let ended = self.end(&desired).await;
                metrics.worked(worker, began.elapsed());
                if ended {
                    return;
                }
                self.rest(Duration::from_secs(5)).await;
                continue;
            }
            self.note_eviction();
            // The end of a pod interrupts whatever is under way, a long pull for instance.
            let (mut desired_changes, mut evictions) = (self.desired.clone(), self.evictions.clone());
            let may_be_evicted = self.verdict.is_none();
            let round = tokio::select! {
                round = self.round(&desired.pod) => round,
                _ = desired_changes.wait_for(Desired::ends) => Round::Again,
                Ok(_) = evictions.wait_for(Option::is_some), if may_be_evicted => Round::Again,
            };
            metrics.worked(worker, began.elapsed());
            match round {
                Round::Again => {}
                Round::Rest(pause) => self.rest(pause).await,
                Round::Done => self.rest(Duration::from_secs(3600)).await,
            }
        }
    }

    /// Waits until there is something to look at, or so long.
    async fn rest(&mut self, pause: Duration) {
        let until = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = self.wake.notified() => return,
                Ok(()) = self.evictions.changed() => return,
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        // The manager is gone: the process ends.
                        std::future::pending::<()>().await;
                    }
                }
                () = tokio::time::sleep_until(until) => return,
            }
            let now = self.desired.borrow_and_update().clone();
            if !self.seen.as_ref().is_some_and(|before| echo::is_echo(before, &now)) {
                return;
            }
            self.seen = Some(now);
        }
    }

    /// One look at the pod and the steps that follow from it.
    async fn round(&mut self, pod: &Arc<Value>) -> Round {
        if !std::mem::take(&mut self.untouched)
            && let Err(error) = self.observe(pod).await
        {
            tracing::warn!(pod = %spec::describe(pod), err = %error, "Cannot see the pod's containers");
            return self.failed();
        }
        if spec::is_terminal(pod) {
            return self.finished(pod).await;
        }
        self.judge(pod).await;
        if self.verdict.is_none() {
            self.kubelet.ask_for(pod);
        }
        // What is given is known before anything is made of it.
        self.kubelet.allocations.save().await;
        let pod = &self.kubelet.allocations.allocated(pod);
        let actuated = self.kubelet.allocations.actuated(pod.uid());
        self.kubelet.note_progress(pod, resize::in_progress(pod, &self.observed, &actuated));
        self.update_probes(pod, false);
        let now = now();
        let plan = plan::plan(View {
            pod,
            observed: &self.observed,
            verdicts: &self.probes.verdicts(),
            backoffs: &self.backoffs,
            actuated: &actuated,
            now,
        });
        self.note_held(pod, &plan);
        self.report(pod, false);
        if plan.done || self.verdict.is_some() {
            return self.finished(pod).await;
        }
        match self.apply(pod, &plan).await {
            Ok(true) => {
                self.retry = RETRY_FIRST;
                Round::Again
            }
            Ok(false) => {
                self.retry = RETRY_FIRST;
                self.collect_garbage(pod).await;
                Round::Rest(self.pause(pod, &plan, now))
            }
            Err(()) => self.failed(),
        }
    }

    async fn finished(&mut self, pod: &Arc<Value>) -> Round {
        if !self.finish(pod).await {
            return self.failed();
        }
        if self.kubelet.shutting_down.load(Ordering::Relaxed) {
            // Once every pod is over the machine goes down, and an API server that cannot be reached does not hold it up.
            let _ = tokio::time::timeout(LAST_WORDS, self.reports.told()).await;
        }
        self.kubelet.note_over(pod.uid());
        Round::Done
    }

    fn failed(&mut self) -> Round {
        let pause = self.retry;
        self.retry = (self.retry * 2).min(RETRY_LAST);
        Round::Rest(pause)
    }

    /// Asks the runtime what there is.
    pub(super) async fn observe(&mut self, pod: &Value) -> crate::cri::Result<()> {
        self.untouched = false;
        let began = Instant::now();
        let observed = Observed::of_pod(&self.kubelet.runtime, pod.uid()).await;
        self.kubelet.metrics.relists.of_pods.observe(began.elapsed().as_secs_f64());
        let mut observed = observed?;
        observed.containers.iter_mut().for_each(words::fill);
        let actuated = self.kubelet.allocations.actuated(pod.uid());
        for container in observed.containers.iter_mut().filter(|container| container.state == State::Running)
        {
            let resources = actuated.container_resources.get(&container.name);
            container.resources.memory_request =
                resources.and_then(|resources| resources::amount(resources, "requests", "memory"));
        }
        self.observed = observed;
        Ok(())
    }

    /// Asks the runtime about a sandbox that has just been made, when nothing else of the pod has changed.
    pub(super) async fn observe_sandbox(&mut self, id: &str) -> crate::cri::Result<()> {
        if let Some(made) = self.kubelet.runtime.sandbox_status(id).await? {
            self.observed.add(made);
        }
        Ok(())
    }

    /// Starts and stops probes by what runs.
    pub(super) fn update_probes(&mut self, pod: &Arc<Value>, ending: bool) {
        let ips = self.ips(pod);
        self.probes.update(pod, &self.observed, &ips, ending);
    }

    /// The addresses at which the pod can be reached.
    pub(super) fn ips(&self, pod: &Value) -> Vec<String> {
        match self.observed.sandboxes.first() {
            Some(_) if spec::host_network(pod) => self.kubelet.host_ips.clone(),
            Some(sandbox) => sandbox.ips.clone(),
            None => Vec::new(),
        }
    }

    /// Takes notice that the node makes the pod go.
    pub(super) fn note_eviction(&mut self) {
        let eviction = self.evictions.borrow_and_update().clone();
        if let Some(eviction) = eviction.filter(|_| self.verdict.is_none()) {
            self.verdict = Some((eviction.reason.to_owned(), eviction.message.clone()));
            self.evicted = Some(eviction);
        }
    }

    /// Decides whether the pod may run at all, and whether its time is over.
    async fn judge(&mut self, pod: &Arc<Value>) {
        if self.verdict.is_some() {
            return;
        }
        if !self.admitted
            && let Err((reason, message)) = self.admit(pod).await
        {
            events::of_pod(&self.kubelet.recorder, pod, Kind::Warning, &reason, &message);
            self.kubelet.metrics.outcomes.rejected(&reason);
            self.verdict = Some((reason, format!("Pod was rejected: {message}")));
            return;
        }
        self.admitted = true;
        if let Some(deadline) = deadline(pod)
            && now() >= deadline
        {
            let message = "Pod was active on the node longer than the specified deadline";
            events::of_pod(&self.kubelet.recorder, pod, Kind::Normal, "DeadlineExceeded", message);
            self.verdict = Some(("DeadlineExceeded".to_owned(), message.to_owned()));
        }
    }

    /// Gives the pod its share of the node, and turns it away if it cannot have that.
    async fn admit(&self, pod: &Arc<Value>) -> Result<(), (String, String)> {
        let runs: HashSet<&str> = self.observed.running().map(|container| container.name.as_str()).collect();
        let known = !self.observed.sandboxes.is_empty();
        // What comes with a claim is no matter of device plug-ins.
        let asked = without_claimed(pod);
        let request = managers::Request { pod: &asked, running: &|name| runs.contains(name), known };
        self.kubelet.managers.admit(&self.kubelet.devices, request).await?;
        let leaving = self.kubelet.let_in(pod, known)?;
        eviction::leave(&self.kubelet, &leaving).await;
        Ok(())
    }

    /// Containers in their pause are shown as such.
    fn note_held(&mut self, pod: &Value, plan: &Plan) {
        for held in &plan.held {
            let delay = go_duration(held.delay);
            let place = format!("container={} pod={}", held.name, spec::describe(pod));
            let message = format!("back-off {delay} restarting failed {place}");
            let shown = ("CrashLoopBackOff".to_owned(), message);
            if self.waiting.get(&held.name) != Some(&shown) {
                let message = format!(
                    "Back-off restarting failed container {} in pod {}",
                    held.name,
                    spec::describe(pod)
                );
                let recorder = &self.kubelet.recorder;
                events::of_container(recorder, pod, &held.name, Kind::Warning, "BackOff", &message);
                self.waiting.insert(held.name.clone(), shown);
            }
        }
        for container in self.observed.running() {
            self.waiting.remove(&container.name);
        }
    }

    /// When to look again although nobody called.
    fn pause(&self, pod: &Value, plan: &Plan, now: i64) -> Duration {
        let regular = self.kubelet.config.sync_frequency().as_nanos() as i64;
        let held = plan.held.iter().map(|held| held.until - now);
        let deadline = deadline(pod).map(|deadline| deadline - now);
        let next = held.chain(deadline).min().unwrap_or(regular).clamp(10_000_000, regular);
        // Pods that were started together should not all look again together.
        let spread = if next == regular { rand::random_range(0..regular / 2) } else { 0 };
        Duration::from_nanos((next + spread).unsigned_abs())
    }

    /// The pod's status as it is now.
    pub(super) fn status(&self, pod: &Value, ending: bool) -> Value {
        let now = api::time::format(Timestamp::now());
        let group = self.kubelet.config.groups.pod(pod);
        let conditions = self.kubelet.allocations.conditions(pod.uid());
        status::generate(&Context {
            pod,
            resize: &conditions,
            devices: &|name| {
                let mut devices = self.kubelet.devices.health(pod.uid(), name);
                devices.extend(self.kubelet.claims.health(pod, name));
                devices
            },
            limits: &|| self.kubelet.cgroups.limits(&group),
            recursive_read_only: self
                .kubelet
                .abilities
                .read()
                .as_ref()
                .is_some_and(|can| can.recursive_read_only(&self.handler)),
            observed: &self.observed,
            verdicts: &self.probes.verdicts(),
            waiting: &|name| self.waiting.get(name).cloned(),
            verdict: self.verdict.as_ref(),
            disruption: self.evicted.as_ref().and_then(|eviction| eviction.disruption.as_deref()),
            ending,
            host_ips: &self.kubelet.host_ips,
            now: &now,
        })
    }
}

/// Whether the runtime need not be asked about a pod that comes: when it was asked last it had nothing of the pod, and no
/// kubelet has begun with it since. A static pod may come back under its old uid, and what there was of it may not be gone.
fn is_untouched(pod: &Value, had_nothing_of: impl Fn(&str) -> bool) -> bool {
    !spec::is_static(pod) && pod.at(&["status", "startTime"]).is_null() && had_nothing_of(pod.uid())
}

/// What a round is for, after one for the pod as it was `before`.
fn worker(before: Option<&Arc<Value>>, desired: &Desired) -> Worker {
    match before {
        _ if desired.ends() => Worker::Kill,
        None => Worker::Create,
        Some(before) if Arc::ptr_eq(before, &desired.pod) => Worker::Sync,
        Some(_) => Worker::Update,
    }
}

/// Nanoseconds since the epoch.
pub(super) fn now() -> i64 {
    Timestamp::now().as_nanosecond() as i64
}

fn deadline(pod: &Value) -> Option<i64> {
    let seconds = pod.at(&["spec", "activeDeadlineSeconds"]).as_i64()?;
    let started = api::time::parse(pod.str_at(&["status", "startTime"]))?;
    Some((started.as_second() + seconds).saturating_mul(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn only_a_pod_that_nobody_has_begun_with_is_planned_without_a_look() {
        let new = object!({"metadata": {"uid": "u"}, "status": {"phase": "Pending"}});
        assert!(is_untouched(&new, |uid| uid == "u"));
        assert!(!is_untouched(&new, |_| false));
        let begun = object!({"metadata": {"uid": "u"}, "status": {"startTime": "2026-01-01T00:00:00Z"}});
        assert!(!is_untouched(&begun, |_| true));
        let from_file =
            object!({"metadata": {"uid": "u", "annotations": {"kubernetes.io/config.source": "file"}}});
        assert!(!is_untouched(&from_file, |_| true));
    }

    #[test]
    fn rounds_are_told_apart_by_what_is_wanted() {
        let first = Arc::new(object!({"metadata": {"uid": "u"}}));
        let desired = |pod: &Arc<Value>, removed| Desired { pod: pod.clone(), mirror: None, removed };
        assert_eq!(worker(None, &desired(&first, false)), Worker::Create);
        assert_eq!(worker(Some(&first), &desired(&first, false)), Worker::Sync);
        assert_eq!(worker(Some(&first), &desired(&Arc::new((*first).clone()), false)), Worker::Update);
        assert_eq!(worker(Some(&first), &desired(&first, true)), Worker::Kill);
    }
}
