//! Jobs: pods run until so many of them have succeeded.
//!
//! Every pod is counted exactly once: its uid is noted in the status before its finalizer goes, and its count moves on only
//! when the finalizer is gone.

mod indexes;
mod per_index;
mod plan;
mod policy;

use api::Value;
use client::resource::PODS;
use client::{Key, Next, Queue};

use crate::claim::{claim, selector};
use crate::context::Context;
use crate::informers::BY_OWNER;
use crate::objects::controller_of;

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let (jobs, pods) = (cx.informers.jobs(), cx.informers.pods());
    Context::follow(jobs, &queue);
    Context::follow_owned(pods, "Job", &queue);
    cx.work(queue, cx.config.workers.job, &[jobs, pods], reconcile);
}

async fn reconcile(cx: Context, key: Key) -> anyhow::Result<Next> {
    let store = cx.informers.pods().store();
    let Some(job) = cx.informers.jobs().store().get(&key) else { return Ok(Next::Done) };
    let manager = job.str_at(&["spec", "managedBy"]);
    if !manager.is_empty() && manager != "kubernetes.io/job-controller" {
        return Ok(Next::Done);
    }
    let Some(selector) = selector(&job) else { return Ok(Next::Done) };
    let mut candidates = store.by_index(BY_OWNER, job.uid());
    let orphan = |p: &Value| controller_of(p).is_none() && selector.matches_object(p);
    candidates.extend(store.in_namespace(job.namespace()).into_iter().filter(|p| orphan(p)));
    let (pods, mut actions) = claim(&PODS, &job, &selector, &candidates);
    actions.extend(plan::plan(&job, &pods, cx.now()));
    cx.apply(actions).await
}
