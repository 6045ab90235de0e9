//! DaemonSets: one pod on every node that suits it.

mod plan;

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
    let (sets, pods, nodes, revisions) = (i.daemon_sets(), i.pods(), i.nodes(), i.controller_revisions());
    Context::follow(sets, &queue);
    Context::follow_owned(pods, "DaemonSet", &queue);
    let (all, store) = (queue.clone(), sets.clone());
    nodes.on_change(move |change| {
        let view = |n: &Value| (n.at(&["metadata", "labels"]).clone(), n.at(&["spec", "taints"]).clone());
        if change.old().is_none_or(|old| view(old) != view(change.object()))
            || matches!(change, client::Change::Deleted(_))
        {
            store.store().keys().into_iter().for_each(|key| all.add(key));
        }
    });
    cx.work(queue, cx.config.workers.daemonset, &[sets, pods, nodes, revisions], reconcile);
}

async fn reconcile(cx: Context, key: Key) -> anyhow::Result<Next> {
    let i = &cx.informers;
    let Some(set) = i.daemon_sets().store().get(&key) else { return Ok(Next::Done) };
    let Some(selector) = selector(&set) else {
        let text = "This daemon set is selecting all pods. A non-empty selector is required.";
        cx.recorder.warning(&set, "SelectingAll", text);
        return Ok(Next::Done);
    };
    let mut candidates = i.pods().store().by_index(BY_OWNER, set.uid());
    let orphan = |p: &Value| controller_of(p).is_none() && selector.matches_object(p);
    candidates.extend(i.pods().store().in_namespace(set.namespace()).into_iter().filter(|p| orphan(p)));
    let (pods, mut actions) = claim(&PODS, &set, &selector, &candidates);
    let revisions = i.controller_revisions().store().by_index(BY_OWNER, set.uid());
    let nodes = i.nodes().store().list();
    actions.extend(plan::plan(&set, &pods, &nodes, &revisions, cx.now()));
    cx.apply(actions).await
}
