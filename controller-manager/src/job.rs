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
    let Some(job) = cx.informers.jobs().store().get(&key) else {
        // Nobody counts these any more.
        let orphans = store.in_namespace(key.namespace()).into_iter().filter(|p| is_of(&key, None, p));
        return cx.apply(orphans.map(|p| plan::untrack(&p)).collect()).await;
    };
    let manager = job.str_at(&["spec", "managedBy"]);
    if !manager.is_empty() && manager != "kubernetes.io/job-controller" {
        return Ok(Next::Done);
    }
    let Some(selector) = selector(&job) else { return Ok(Next::Done) };
    let mut candidates = store.by_index(BY_OWNER, job.uid());
    let orphan = |p: &Value| controller_of(p).is_none() && selector.matches_object(p);
    let mut untracked = Vec::new();
    for pod in store.in_namespace(job.namespace()) {
        if orphan(&pod) {
            candidates.push(pod);
        } else if is_of(&key, Some(job.uid()), &pod) {
            untracked.push(plan::untrack(&pod));
        }
    }
    let (pods, mut actions) = claim(&PODS, &job, &selector, &candidates);
    // A pod that is let go is counted by nobody, from the same write on.
    actions.iter_mut().for_each(plan::untrack_released);
    actions.append(&mut untracked);
    actions.extend(plan::plan(&job, &pods, cx.now()));
    cx.apply(actions).await
}

/// True for a pod that waits to be counted for a Job of this name which is not the present one.
fn is_of(key: &Key, present: Option<&str>, pod: &Value) -> bool {
    plan::is_tracked(pod)
        && controller_of(pod).is_some_and(|owner| {
            owner.kind() == "Job"
                && owner.str_at(&["name"]) == key.name()
                && present != Some(owner.str_at(&["uid"]))
        })
}
