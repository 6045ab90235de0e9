//! Finished Jobs go when their `ttlSecondsAfterFinished` is over.

use std::time::Duration;

use api::Value;
use client::resource::JOBS;
use client::{DeleteOptions, Key, Next, Propagation, Queue};
use jiff::Timestamp;

use crate::act::{Action, head};
use crate::context::Context;
use crate::objects::{condition, time_at};

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let jobs = cx.informers.jobs();
    Context::follow(jobs, &queue);
    cx.work(queue, 5, &[jobs], |cx, key: Key| async move {
        let Some(job) = cx.informers.jobs().store().get(&key) else { return Ok(Next::Done) };
        cx.apply(plan(&job, cx.now()).into_iter().collect()).await
    });
}

fn plan(job: &Value, now: Timestamp) -> Option<Action> {
    let ttl = job.at(&["spec", "ttlSecondsAfterFinished"]).as_i64()?;
    if job.is_terminating() {
        return None;
    }
    let ends = ["Complete", "Failed"].map(|kind| condition(job, kind));
    let end = ends.into_iter().find(|c| c.str_at(&["status"]) == "True")?;
    let left = time_at(end, &["lastTransitionTime"])?.as_second() + ttl - now.as_second();
    if left > 0 {
        return Some(Action::Later(Duration::from_secs(u64::try_from(left).unwrap_or(1))));
    }
    // What is known may be stale, but not the revision.
    let options = DeleteOptions {
        resource_version: Some(job.resource_version().to_owned()),
        propagation: Some(Propagation::Foreground),
        ..DeleteOptions::uid(job.uid())
    };
    Some(Action::Delete(JOBS, head(job), options, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn a_finished_job_goes_when_its_time_is_over() {
        let at = |now: i64| {
            let job = object!({
                "metadata": {"name": "j"}, "spec": {"ttlSecondsAfterFinished": 60},
                "status": {"conditions": [
                    {"type": "Complete", "status": "True", "lastTransitionTime": "1970-01-01T00:01:40Z"},
                ]},
            });
            plan(&job, Timestamp::from_second(now).unwrap())
        };
        assert!(matches!(at(150), Some(Action::Later(d)) if d.as_secs() == 10));
        assert!(matches!(at(160), Some(Action::Delete(..))));
    }
}
