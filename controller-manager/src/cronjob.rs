//! CronJobs: a Job at every time of a schedule.

mod plan;
mod schedule;

use api::Value;
use client::{Key, Next, Queue};

use crate::context::Context;
use crate::objects::controller_of;

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let (crons, jobs) = (cx.informers.cron_jobs(), cx.informers.jobs());
    Context::follow(crons, &queue);
    Context::follow_owned(jobs, "CronJob", &queue);
    cx.work(queue, cx.config.workers.cronjob, &[crons, jobs], reconcile);
}

async fn reconcile(cx: Context, key: Key) -> anyhow::Result<Next> {
    let Some(cron) = cx.informers.cron_jobs().store().get(&key) else { return Ok(Next::Done) };
    let mut jobs = cx.informers.jobs().store().in_namespace(key.namespace());
    let ours = |j: &Value| controller_of(j).is_some_and(|o| o.str_at(&["uid"]) == cron.uid());
    jobs.retain(|j| ours(j));
    match cx.apply(plan::plan(&cron, &jobs, cx.now())).await {
        // The Job of this time is there already; the status follows with its event.
        Err(e) if e.downcast_ref::<client::Error>().is_some_and(client::Error::is_already_exists) => {
            Ok(Next::Done)
        }
        other => other,
    }
}
