//! StatefulSets: pods with names and claims of their own, made, replaced and removed in order.

mod plan;
mod retention;

use api::Value;
use client::resource::PODS;
use client::{Key, Next, Queue};

use crate::claim::{claim, selector};
use crate::context::Context;
use crate::informers::BY_OWNER;
use crate::objects::controller_of;

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let i = &cx.informers;
    let (sets, pods, claims) = (i.stateful_sets(), i.pods(), i.persistent_volume_claims());
    let revisions = i.controller_revisions();
    Context::follow(sets, &queue);
    Context::follow_owned(pods, "StatefulSet", &queue);
    let caches = [sets, pods, claims, revisions];
    cx.work(queue, cx.config.workers.statefulset, &caches, reconcile);
}

async fn reconcile(cx: Context, key: Key) -> anyhow::Result<Next> {
    let i = &cx.informers;
    let Some(set) = i.stateful_sets().store().get(&key) else { return Ok(Next::Done) };
    let Some(selector) = selector(&set) else { return Ok(Next::Done) };
    let mut candidates = i.pods().store().by_index(BY_OWNER, set.uid());
    let ours = |p: &Value| controller_of(p).is_none() && plan::ordinal(&set, p).is_some();
    candidates.extend(i.pods().store().in_namespace(set.namespace()).into_iter().filter(|p| ours(p)));
    let (pods, adoptions) = claim(&PODS, &set, &selector, &candidates);
    let revisions = i.controller_revisions().store().by_index(BY_OWNER, set.uid());
    let claims = i.persistent_volume_claims().store();
    let claim_named = |name: &str| claims.find(set.namespace(), name);
    let mut actions = adoptions;
    {
        let view = plan::View { set: &set, pods: &pods, revisions: &revisions, claim_named: &claim_named };
        actions.extend(plan::plan(&view, cx.now()));
    }
    cx.apply(actions).await
}
