//! What a Job does next.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::{Value, object, time};
use client::events::Kind;
use client::resource::{JOBS, PODS};
use client::{DeleteOptions, Patch};
use jiff::Timestamp;

use super::indexes;
use super::per_index::{self, PerIndex};
use super::policy::{Verdict, judge, succeeds};
use crate::act::{Action, Note, head};
use crate::objects::{
    Condition, condition_true, int, is_active, is_finished, is_ready, phase, pod_from_template,
    set_condition, time_at,
};

const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Why Jobs fail.
const REASONS: [&str; 5] = [
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "FailedIndexes",
    "MaxFailedIndexesExceeded",
    "PodFailurePolicy",
];
/// Pods created by one look at most.
const BURST: i64 = 500;
/// Uids noted at a time.
const UNCOUNTED_MAX: usize = 500;

/// How a Job ends, or is about to.
struct Verdicts<'j> {
    /// `SuccessCriteriaMet` or `FailureTarget`.
    interim: &'j str,
    reason: String,
    message: String,
}

struct Round<'j> {
    job: &'j Value,
    pods: &'j [Arc<Value>],
    now: Timestamp,
    active: Vec<&'j Arc<Value>>,
    terminating: i64,
    indexed: bool,
    /// Present when every index has a limit of its own.
    per_index: Option<PerIndex<'j>>,
}

/// What the status notes about pods that have ended.
struct Count {
    succeeded: i64,
    failed: i64,
    /// Uids noted, their pods still holding the finalizer.
    noted_ok: Vec<String>,
    noted_bad: Vec<String>,
    indexes: BTreeSet<i64>,
    /// Pods whose finalizer may go once the status is written.
    release: Vec<Arc<Value>>,
    fail_job: Option<String>,
}

pub(super) fn plan(job: &Value, pods: &[Arc<Value>], now: Timestamp) -> Vec<Action> {
    if condition_true(job, "Complete") || condition_true(job, "Failed") {
        return pods.iter().filter(|p| is_tracked(p)).map(|p| untrack(p)).collect();
    }
    let active: Vec<_> = pods.iter().filter(|p| is_active(p)).collect();
    let terminating = pods.iter().filter(|p| p.is_terminating() && !is_finished(p)).count();
    let mut round = Round {
        job,
        pods,
        now,
        active,
        terminating: i64::try_from(terminating).unwrap_or(i64::MAX),
        indexed: job.str_at(&["spec", "completionMode"]) == "Indexed",
        per_index: None,
    };
    if let Some(limit) = round.spec("backoffLimitPerIndex").filter(|_| round.indexed) {
        let failed = pods.iter().filter(|p| is_tracked(p) && round.has_failed(p));
        let busy = round.active.iter().filter_map(|p| index_of(p));
        let done = round.completed().into_iter().chain(busy).collect();
        round.per_index = Some(PerIndex::new(job, limit, failed, &done));
    }
    round.plan()
}

fn later(seconds: i64) -> Action {
    Action::Later(Duration::from_secs(u64::try_from(seconds).unwrap_or(1)))
}

pub(super) fn is_tracked(pod: &Value) -> bool {
    pod.array_at(&["metadata", "finalizers"]).iter().any(|f| f.as_str() == Some(FINALIZER))
}

/// Adds to the release of a pod that it is not tracked any longer.
pub(super) fn untrack_released(action: &mut Action) {
    if let Action::Patch(_, _, _, Patch::Strategic, patch) = action
        && patch.array_at(&["metadata", "ownerReferences"]).iter().any(|o| o.str_at(&["$patch"]) == "delete")
    {
        patch.set(&["metadata", "$deleteFromPrimitiveList/finalizers"], vec![FINALIZER]);
    }
}

pub(super) fn untrack(pod: &Value) -> Action {
    let gone = object!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
    Action::Patch(PODS, head(pod), "", Patch::Strategic, gone)
}

pub(super) fn index_of(pod: &Value) -> Option<i64> {
    pod.annotation(INDEX).or_else(|| pod.label(INDEX))?.parse().ok()
}

fn uids(list: &[Value]) -> Vec<String> {
    list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

impl Round<'_> {
    fn spec(&self, field: &str) -> Option<i64> {
        self.job.at(&["spec", field]).as_i64()
    }

    fn suspended(&self) -> bool {
        self.job.at(&["spec", "suspend"]).as_bool() == Some(true)
    }

    /// Only pods that have really failed are replaced.
    fn waits_for_failure(&self) -> bool {
        self.job.str_at(&["spec", "podReplacementPolicy"]) == "Failed"
            || !self.job.at(&["spec", "podFailurePolicy"]).is_null()
    }

    fn has_failed(&self, pod: &Value) -> bool {
        phase(pod) == "Failed"
            || (pod.is_terminating()
                && phase(pod) != "Succeeded"
                && (!self.waits_for_failure() || phase(pod) == "Pending"))
    }

    fn count(&self) -> Count {
        let status = self.job.get("status");
        let noted = |f: &str| uids(status.array_at(&["uncountedTerminatedPods", f]));
        let tracked = |uid: &String| self.pods.iter().any(|p| p.uid() == uid.as_str() && is_tracked(p));
        let (still_ok, counted_ok): (Vec<_>, Vec<_>) = noted("succeeded").into_iter().partition(tracked);
        let (still_bad, counted_bad): (Vec<_>, Vec<_>) = noted("failed").into_iter().partition(tracked);
        let add = |n: i64, list: &Vec<String>| n + i64::try_from(list.len()).unwrap_or(0);
        let mut count = Count {
            succeeded: add(int(status, &["succeeded"], 0), &counted_ok),
            failed: add(int(status, &["failed"], 0), &counted_bad),
            noted_ok: still_ok,
            noted_bad: still_bad,
            indexes: if self.indexed { self.completed() } else { BTreeSet::new() },
            release: Vec::new(),
            fail_job: None,
        };
        for pod in self.pods {
            if count.noted_ok.len() + count.noted_bad.len() >= UNCOUNTED_MAX {
                break;
            }
            self.note(&mut count, pod);
        }
        if self.indexed {
            count.succeeded = i64::try_from(count.indexes.len()).unwrap_or(i64::MAX);
        }
        count
    }

    /// The indexes that have succeeded, counted or not.
    fn completed(&self) -> BTreeSet<i64> {
        let limit = self.spec("completions").unwrap_or(0);
        let mut set = indexes::parse(self.job.str_at(&["status", "completedIndexes"]), limit);
        let fresh = self.pods.iter().filter(|p| is_tracked(p) && phase(p) == "Succeeded");
        set.extend(fresh.filter_map(|p| index_of(p)).filter(|i| (0..limit).contains(i)));
        set
    }

    fn note(&self, count: &mut Count, pod: &Arc<Value>) {
        let uid = pod.uid().to_owned();
        if !is_tracked(pod) {
            return;
        }
        if count.noted_ok.contains(&uid) || count.noted_bad.contains(&uid) {
            count.release.push(Arc::clone(pod));
        } else if phase(pod) == "Succeeded" {
            if !self.indexed {
                count.noted_ok.push(uid);
            }
            count.release.push(Arc::clone(pod));
        } else if self.per_index.as_ref().is_some_and(|p| p.awaits_replacement(pod)) && !self.ends() {
            // Its replacement is to carry on its count of failures.
        } else if self.has_failed(pod) {
            match judge(self.job, pod) {
                Verdict::Ignore => {}
                verdict => {
                    if let Verdict::FailJob(why) = verdict {
                        count.fail_job.get_or_insert(why);
                    }
                    count.noted_bad.push(uid);
                }
            }
            count.release.push(Arc::clone(pod));
        } else if self.job.is_terminating() {
            count.release.push(Arc::clone(pod));
        }
    }

    /// The end has been decided on already, by an earlier look or by who deletes the Job.
    fn ends(&self) -> bool {
        let decided = |kind: &&str| condition_true(self.job, kind);
        self.job.is_terminating() || ["SuccessCriteriaMet", "FailureTarget"].iter().any(decided)
    }

    fn plan(&self) -> Vec<Action> {
        let count = self.count();
        let failed = count.failed + i64::try_from(count.noted_bad.len()).unwrap_or(0);
        let succeeded = if self.indexed {
            count.succeeded
        } else {
            count.succeeded + i64::try_from(count.noted_ok.len()).unwrap_or(0)
        };
        let verdict = self.verdict(&count, succeeded, failed);
        let mut work = Vec::new();
        let mut later = Vec::new();
        match &verdict {
            Some(_) => work.extend(self.active.iter().map(|p| self.delete(p))),
            None if self.job.is_terminating() => {}
            None => (work, later) = self.manage(succeeded, &count.indexes),
        }
        if verdict.is_none()
            && let (Some(deadline), Some(start)) = (self.spec("activeDeadlineSeconds"), self.started())
            && !self.suspended()
        {
            let left = start.as_second() + deadline - self.now.as_second();
            later.push(Action::Later(Duration::from_secs(u64::try_from(left).unwrap_or(0).max(1))));
        }
        let (status, mut events) = self.status(&count, verdict.as_ref(), &work);
        let mut actions = Vec::new();
        if let Some(status) = status {
            actions.push(Action::UpdateStatus(JOBS, status));
        }
        // The status is written by now: the finalizers of what it notes may go.
        actions.extend(count.release.iter().map(|p| untrack(p)));
        actions.append(&mut work);
        actions.append(&mut events);
        actions.append(&mut later);
        actions
    }

    fn started(&self) -> Option<Timestamp> {
        time_at(self.job, &["status", "startTime"])
    }

    /// Whether the Job is to end, and why.
    fn verdict(&self, count: &Count, succeeded: i64, failed: i64) -> Option<Verdicts<'static>> {
        for kind in ["SuccessCriteriaMet", "FailureTarget"] {
            if condition_true(self.job, kind) {
                let c = crate::objects::condition(self.job, kind);
                let text = |f: &str| c.str_at(&[f]).to_owned();
                return Some(Verdicts { interim: kind, reason: text("reason"), message: text("message") });
            }
        }
        let fails = |reason: &str, message: &str| {
            Some(Verdicts {
                interim: "FailureTarget",
                reason: reason.to_owned(),
                message: message.to_owned(),
            })
        };
        if let Some(why) = &count.fail_job {
            return fails("PodFailurePolicy", why);
        }
        let limit = self.spec("backoffLimit").unwrap_or(6);
        if failed > limit
            || self.restarts() > limit.max(0) && self.restarts() > 0 && limit >= 0 && self.on_failure()
        {
            return fails("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if let (Some(deadline), Some(start)) = (self.spec("activeDeadlineSeconds"), self.started())
            && !self.suspended()
            && self.now.as_second() - start.as_second() >= deadline
        {
            return fails("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        if let Some((reason, message)) =
            self.per_index.as_ref().and_then(|p| p.verdict(self.job, count.indexes.len()))
        {
            return fails(reason, message);
        }
        if let Some(rule) = succeeds(self.job, &count.indexes) {
            return Some(Verdicts {
                interim: "SuccessCriteriaMet",
                reason: "SuccessPolicy".to_owned(),
                message: format!("Matched rules at index {rule}"),
            });
        }
        let busy = self.active.len();
        let done = match self.spec("completions") {
            None => succeeded > 0 && busy == 0,
            Some(wanted) => succeeded >= wanted && (busy == 0 || wanted > 0),
        };
        done.then(|| Verdicts {
            interim: "SuccessCriteriaMet",
            reason: "CompletionsReached".to_owned(),
            message: "Reached expected number of succeeded pods".to_owned(),
        })
    }

    fn on_failure(&self) -> bool {
        self.job.str_at(&["spec", "template", "spec", "restartPolicy"]) == "OnFailure"
    }

    fn restarts(&self) -> i64 {
        let lists = ["containerStatuses", "initContainerStatuses"];
        let running = self.pods.iter().filter(|p| matches!(phase(p), "Running" | "Pending"));
        running
            .flat_map(|p| lists.iter().flat_map(|l| p.array_at(&["status", l])))
            .map(|s| int(s, &["restartCount"], 0))
            .sum()
    }

    /// Creates and deletes pods so that as many run as should.
    fn manage(&self, succeeded: i64, completed: &BTreeSet<i64>) -> (Vec<Action>, Vec<Action>) {
        let active = i64::try_from(self.active.len()).unwrap_or(i64::MAX);
        let parallelism = self.spec("parallelism").unwrap_or(1);
        let wanted = match self.spec("completions") {
            _ if self.suspended() => 0,
            None if succeeded > 0 => active,
            None => parallelism,
            Some(completions) => (completions - succeeded).clamp(0, parallelism),
        };
        let surplus = usize::try_from(active - wanted).unwrap_or(0);
        let doomed = self.surplus(surplus);
        if !doomed.is_empty() {
            return (doomed.into_iter().map(|p| self.delete(p)).collect(), Vec::new());
        }
        let held = if self.waits_for_failure() { self.terminating } else { 0 };
        let missing = (wanted - active - held).clamp(0, BURST);
        if missing == 0 {
            return (Vec::new(), Vec::new());
        }
        let note = || Some(Note::pod_created(self.job));
        let create = |pod: Value| Action::Create(PODS, pod, note());
        if self.per_index.is_none() {
            let wait = self.backoff();
            if wait > 0 {
                return (Vec::new(), vec![later(wait)]);
            }
        }
        let missing = usize::try_from(missing).unwrap_or(0);
        if !self.indexed {
            return ((0..missing).map(|_| create(self.pod(None))).collect(), Vec::new());
        }
        let (mut pods, mut waits) = (Vec::new(), Vec::new());
        for index in self.free(completed).take(missing) {
            match self.per_index.as_ref().map_or(0, |p| p.wait(index, self.now)) {
                0 => pods.push(create(self.pod(Some(index)))),
                wait => waits.push(wait),
            }
        }
        (pods, waits.into_iter().min().map(later).into_iter().collect())
    }

    /// The indexes that want a pod, in order.
    fn free<'a>(&'a self, completed: &'a BTreeSet<i64>) -> impl Iterator<Item = i64> + 'a {
        let mut busy: BTreeSet<i64> = self.active.iter().filter_map(|p| index_of(p)).collect();
        if self.waits_for_failure() {
            let ending = self.pods.iter().filter(|p| p.is_terminating() && !is_finished(p));
            busy.extend(ending.filter_map(|p| index_of(p)));
        }
        if let Some(p) = &self.per_index {
            busy.extend(&p.failed);
        }
        let all = 0..self.spec("completions").unwrap_or(0);
        all.filter(move |i| !completed.contains(i) && !busy.contains(i))
    }

    /// Active pods to delete: those whose index is beyond the completions or has another pod, and then others until
    /// there are `least`.
    fn surplus(&self, least: usize) -> Vec<&Arc<Value>> {
        let mut pods = self.active.clone();
        // Those that are furthest come last.
        pods.sort_by_key(|p| (is_ready(p), std::cmp::Reverse(crate::objects::created(p))));
        let (mut doomed, mut left) = (Vec::new(), Vec::new());
        let mut taken = BTreeSet::new();
        let completions = self.spec("completions").unwrap_or(0);
        for pod in pods.into_iter().rev() {
            let own = |i: i64| (0..completions).contains(&i) && taken.insert(i);
            let keeps = !self.indexed || index_of(pod).is_some_and(own);
            if keeps { left.push(pod) } else { doomed.push(pod) }
        }
        let more = least.saturating_sub(doomed.len());
        doomed.extend(left.into_iter().rev().take(more));
        doomed
    }

    /// Seconds to wait after the failures since the last success.
    fn backoff(&self) -> i64 {
        let ends = |want: &str| {
            let pods = self.pods.iter().filter(|p| phase(p) == want);
            pods.filter_map(|p| per_index::finished(p)).collect::<Vec<_>>()
        };
        let success = ends("Succeeded").into_iter().max();
        let failures: Vec<Timestamp> =
            ends("Failed").into_iter().filter(|t| success.is_none_or(|s| *t > s)).collect();
        let Some(last) = failures.iter().max() else { return 0 };
        per_index::wait(failures.len(), *last, self.now)
    }

    fn pod(&self, index: Option<i64>) -> Value {
        let job = self.job;
        let mut pod = pod_from_template(job.at(&["spec", "template"]), job, job.name());
        let mut finalizers = pod.array_at(&["metadata", "finalizers"]).to_vec();
        finalizers.push(FINALIZER.into());
        pod.set(&["metadata", "finalizers"], finalizers);
        let Some(index) = index else { return pod };
        let text = index.to_string();
        pod.set(&["metadata", "generateName"], format!("{}-{index}-", job.name()));
        pod.set(&["metadata", "annotations", INDEX], text.as_str());
        for (annotation, count) in self.per_index.iter().flat_map(|p| p.counts(index)) {
            pod.set(&["metadata", "annotations", annotation], count.to_string());
        }
        pod.set(&["metadata", "labels", INDEX], text.as_str());
        pod.set(&["spec", "hostname"], format!("{}-{index}", job.name()));
        for list in ["containers", "initContainers"] {
            let Some(Value::Array(containers)) = pod.at_mut(&["spec", list]) else { continue };
            for container in containers {
                let mut env = container.array_at(&["env"]).to_vec();
                if env.iter().all(|e| e.str_at(&["name"]) != "JOB_COMPLETION_INDEX") {
                    env.push(object!({
                        "name": "JOB_COMPLETION_INDEX",
                        "valueFrom": {"fieldRef": {"fieldPath": (format!("metadata.labels['{INDEX}']"))}},
                    }));
                    container.set(&["env"], env);
                }
            }
        }
        pod
    }

    fn delete(&self, pod: &Value) -> Action {
        let note = Note::pod_deleted(self.job);
        Action::Delete(PODS, head(pod), DeleteOptions::uid(pod.uid()), Some(note))
    }

    /// The new status, if it differs, and the events that go with it.
    fn status(
        &self,
        count: &Count,
        verdict: Option<&Verdicts<'_>>,
        work: &[Action],
    ) -> (Option<Value>, Vec<Action>) {
        let old = self.job.get("status");
        let mut status = old.clone();
        let mut conditions = old.array_at(&["conditions"]).to_vec();
        let mut events = Vec::new();
        let stamp = time::format(self.now);
        if old.get("startTime").is_null() && !self.suspended() {
            status.set(&["startTime"], stamp.as_str());
        }
        let created = work.iter().filter(|a| matches!(a, Action::Create(..))).count();
        let deleted = work.iter().filter(|a| matches!(a, Action::Delete(..))).count();
        // Creations that fail are put right by the next look.
        let active = (self.active.len() + created).saturating_sub(deleted);
        status.set(&["active"], active);
        status.set(&["ready"], self.active.iter().filter(|p| is_ready(p)).count());
        status.set(&["terminating"], self.terminating + i64::try_from(deleted).unwrap_or(0));
        status.set(&["succeeded"], count.succeeded);
        status.set(&["failed"], count.failed);
        if self.indexed {
            status.set(&["completedIndexes"], indexes::format(&count.indexes));
        }
        if let Some(p) = &self.per_index {
            status.set(&["failedIndexes"], indexes::format(&p.failed));
        }
        let mut noted = api::Map::new();
        for (key, list) in [("succeeded", &count.noted_ok), ("failed", &count.noted_bad)] {
            if !list.is_empty() {
                noted.push(key, Value::from(list.clone()));
            }
        }
        status.set(&["uncountedTerminatedPods"], noted);
        self.suspension(&mut conditions, &mut status, &mut events, verdict.is_some());
        if let Some(verdict) = verdict {
            self.conclude(verdict, count, active, &mut conditions, &mut status, &mut events);
        }
        status.set(&["conditions"], conditions);
        if let Value::Object(map) = &mut status {
            let always = ["failedIndexes", "ready", "terminating", "uncountedTerminatedPods"];
            map.retain(|k, v| always.contains(&k) || !v.is_empty());
        }
        if &status == old {
            return (None, events);
        }
        let mut updated = self.job.clone();
        updated.set(&["status"], status);
        (Some(updated), events)
    }

    fn suspension(
        &self,
        conditions: &mut Vec<Value>,
        status: &mut Value,
        events: &mut Vec<Action>,
        ending: bool,
    ) {
        let was = condition_true(self.job, "Suspended");
        if ending || was == self.suspended() {
            return;
        }
        let event = |reason, text: &str| Action::Event(head(self.job), Kind::Normal, reason, text.to_owned());
        let (state, reason, text) = if self.suspended() {
            events.push(event("Suspended", "Job suspended"));
            status.set(&["startTime"], Value::Null);
            ("True", "JobSuspended", "Job suspended")
        } else {
            events.push(event("Resumed", "Job resumed"));
            status.set(&["startTime"], time::format(self.now));
            ("False", "JobResumed", "Job resumed")
        };
        self.set(conditions, "Suspended", state, (reason, text));
    }

    fn set(&self, conditions: &mut Vec<Value>, kind: &str, status: &str, (reason, message): (&str, &str)) {
        if set_condition(conditions, self.now, &Condition { kind, status, reason, message })
            && let Some(c) = conditions.iter_mut().find(|c| c.str_at(&["type"]) == kind)
        {
            c.set(&["lastProbeTime"], time::format(self.now));
        }
    }

    /// Notes the verdict; and when no pod is left to count, the end.
    fn conclude(
        &self,
        verdict: &Verdicts<'_>,
        count: &Count,
        active: usize,
        conditions: &mut Vec<Value>,
        status: &mut Value,
        events: &mut Vec<Action>,
    ) {
        let why = (verdict.reason.as_str(), verdict.message.as_str());
        self.set(conditions, verdict.interim, "True", why);
        let left = self.pods.iter().any(|p| is_tracked(p));
        let uncounted = !count.noted_ok.is_empty() || !count.noted_bad.is_empty();
        if left || uncounted || active > 0 || self.terminating > 0 {
            return;
        }
        if verdict.interim == "SuccessCriteriaMet" {
            self.set(conditions, "Complete", "True", why);
            status.set(&["completionTime"], time::format(self.now));
            events.push(Action::Event(head(self.job), Kind::Normal, "Completed", "Job completed".to_owned()));
        } else {
            self.set(conditions, "Failed", "True", why);
            let reason = REASONS.into_iter().find(|r| *r == why.0).unwrap_or("Failed");
            events.push(Action::Event(head(self.job), Kind::Warning, reason, verdict.message.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
