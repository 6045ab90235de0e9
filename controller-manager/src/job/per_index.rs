//! `spec.backoffLimitPerIndex`: every index of a Job has failures, back-off and an end of its own.
//!
//! How often an index has failed is written on its pod. So the last failed pod of an index keeps its finalizer until
//! the pod that replaces it carries its count on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::Value;
use jiff::Timestamp;

use super::indexes;
use super::plan::index_of;
use super::policy::{Verdict, judge};
use crate::objects::time_at;

const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const BACKOFF_FIRST: i64 = 10;
const BACKOFF_MAX: i64 = 600;

/// The indexes of a Job and how they failed.
pub(super) struct PerIndex<'j> {
    job: &'j Value,
    /// Indexes that are not tried again.
    pub(super) failed: BTreeSet<i64>,
    /// The last failed pod of each index that wants another.
    last: BTreeMap<i64, Arc<Value>>,
}

impl<'j> PerIndex<'j> {
    /// `pods` have failed and are not counted yet; the indexes in `settled` have succeeded or have an active pod.
    pub(super) fn new<'p>(
        job: &'j Value,
        limit: i64,
        pods: impl Iterator<Item = &'p Arc<Value>>,
        settled: &BTreeSet<i64>,
    ) -> Self {
        let completions = job.at(&["spec", "completions"]).as_i64().unwrap_or(0);
        let pods: Vec<(i64, &Arc<Value>)> = pods
            .filter_map(|p| Some((index_of(p)?, p)))
            .filter(|(i, _)| (0..completions).contains(i))
            .collect();
        let mut failed = indexes::parse(job.str_at(&["status", "failedIndexes"]), completions);
        let hopeless = |pod: &Value| match judge(job, pod) {
            Verdict::FailIndex => true,
            Verdict::Ignore => false,
            Verdict::Count | Verdict::FailJob(_) => count(pod, FAILURES) >= limit,
        };
        failed.extend(pods.iter().filter(|(_, p)| hopeless(p)).map(|(i, _)| *i));
        let mut last: BTreeMap<i64, Arc<Value>> = BTreeMap::new();
        for (index, pod) in pods.into_iter().filter(|(i, _)| !failed.contains(i) && !settled.contains(i)) {
            let age = |p: &Value| (tries(p), finished(p));
            if last.get(&index).is_none_or(|known| age(known) <= age(pod)) {
                last.insert(index, Arc::clone(pod));
            }
        }
        Self { job, failed, last }
    }

    /// True for a pod that must be kept until it is replaced.
    pub(super) fn awaits_replacement(&self, pod: &Value) -> bool {
        index_of(pod).and_then(|i| self.last.get(&i)).is_some_and(|last| last.uid() == pod.uid())
    }

    /// Reason and message when too many indexes have failed, or none is left to try.
    pub(super) fn verdict(&self, job: &Value, succeeded: usize) -> Option<(&'static str, &'static str)> {
        let spec = |field: &str| job.at(&["spec", field]).as_i64().and_then(|n| usize::try_from(n).ok());
        if spec("maxFailedIndexes").is_some_and(|most| self.failed.len() > most) {
            return Some((
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes",
            ));
        }
        let all = spec("completions").is_some_and(|n| self.failed.len() + succeeded >= n);
        (all && !self.failed.is_empty()).then_some(("FailedIndexes", "Job has failed indexes"))
    }

    /// Seconds until an index may be tried again.
    pub(super) fn wait(&self, index: i64, now: Timestamp) -> i64 {
        let Some(pod) = self.last.get(&index) else { return 0 };
        let tries = usize::try_from(tries(pod)).unwrap_or(usize::MAX);
        finished(pod).map_or(0, |end| wait(tries.saturating_add(1), end, now))
    }

    /// What is to be written on the next pod of an index.
    pub(super) fn counts(&self, index: i64) -> Vec<(&'static str, i64)> {
        let Some(pod) = self.last.get(&index) else { return vec![(FAILURES, 0)] };
        let ignored = i64::from(judge(self.job, pod) == Verdict::Ignore);
        let mut counts = vec![(FAILURES, count(pod, FAILURES) + 1 - ignored)];
        let ignored = count(pod, IGNORED) + ignored;
        if ignored > 0 {
            counts.push((IGNORED, ignored));
        }
        counts
    }
}

fn count(pod: &Value, annotation: &str) -> i64 {
    let written = pod.annotation(annotation).and_then(|text| text.parse::<i32>().ok());
    written.filter(|n| *n >= 0).unwrap_or(0).into()
}

/// How often the index had failed when the pod was made.
fn tries(pod: &Value) -> i64 {
    count(pod, FAILURES) + count(pod, IGNORED)
}

/// When a pod ended.
pub(super) fn finished(pod: &Value) -> Option<Timestamp> {
    let statuses = pod.array_at(&["status", "containerStatuses"]).iter();
    let last = statuses.filter_map(|s| time_at(s, &["state", "terminated", "finishedAt"])).max();
    last.or_else(|| time_at(pod, &["metadata", "deletionTimestamp"]))
}

/// Seconds to wait after so many failures in a row, the last of them at that time.
pub(super) fn wait(failures: usize, last: Timestamp, now: Timestamp) -> i64 {
    let doubled = BACKOFF_FIRST << failures.saturating_sub(1).min(10);
    (last.as_second() + doubled.min(BACKOFF_MAX) - now.as_second()).max(0)
}
