//! Deployments: roll a template out through ReplicaSets.

mod plan;
mod scale;
mod status;

use std::sync::Arc;

use api::Value;
use client::resource::{DEPLOYMENTS, REPLICA_SETS};
use client::{Key, Next, Queue};

use crate::act::Action;
use crate::claim::{claim, selector};
use crate::context::Context;
use crate::informers::BY_OWNER;
use crate::objects::{controller_of, int};

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let i = &cx.informers;
    let (deployments, sets, pods) = (i.deployments(), i.replica_sets(), i.pods());
    Context::follow(deployments, &queue);
    Context::follow_owned(sets, "Deployment", &queue);
    // With the Recreate strategy the end of the last old pod lets the new ones begin.
    let (gone, store) = (queue.clone(), sets.clone());
    pods.on_change(move |change| {
        let pod = change.object();
        let Some(owner) = controller_of(pod).filter(|o| o.kind() == "ReplicaSet") else { return };
        let Some(set) = store.store().find(pod.namespace(), owner.str_at(&["name"])) else { return };
        if let Some(owner) = controller_of(&set) {
            gone.add(Key::new(pod.namespace(), owner.str_at(&["name"])));
        }
    });
    cx.work(queue, cx.config.workers.deployment, &[deployments, sets, pods], reconcile);
}

async fn reconcile(cx: Context, key: Key) -> anyhow::Result<Next> {
    let Some(deployment) = cx.informers.deployments().store().get(&key) else { return Ok(Next::Done) };
    let Some(selector) = selector(&deployment) else {
        cx.recorder.warning(
            &deployment,
            "SelectingAll",
            "This deployment is selecting all pods. A non-empty selector is required.",
        );
        return Ok(Next::Done);
    };
    let store = cx.informers.replica_sets().store();
    let mut candidates = store.by_index(BY_OWNER, deployment.uid());
    let orphans = store.in_namespace(deployment.namespace()).into_iter();
    candidates.extend(orphans.filter(|s| controller_of(s).is_none()));
    let (sets, mut actions) = claim(&REPLICA_SETS, &deployment, &selector, &candidates);
    let view = View::new(&deployment, &sets, |set| cx.informers.pods().store().by_index(BY_OWNER, set.uid()));
    actions.extend(plan::plan(&view, cx.now()));
    match cx.apply(actions).await {
        Err(e) if is_name_taken(&e) => {
            // Another ReplicaSet has that name: count the collision, which changes the hash.
            let mut counted = (*deployment).clone();
            counted
                .set(&["status", "collisionCount"], int(&deployment, &["status", "collisionCount"], 0) + 1);
            cx.apply(vec![Action::UpdateStatus(DEPLOYMENTS, counted)]).await
        }
        other => other,
    }
}

fn is_name_taken(e: &anyhow::Error) -> bool {
    e.downcast_ref::<client::Error>().is_some_and(client::Error::is_already_exists)
}

/// A Deployment and its ReplicaSets, as a plan sees them.
struct View {
    deployment: Arc<Value>,
    /// The set of the present template, if there is one.
    new: Option<Arc<Value>>,
    /// The others, oldest first.
    old: Vec<Arc<Value>>,
    /// Whether pods of the others have not ended yet.
    old_pods_running: bool,
}

impl View {
    fn new(deployment: &Arc<Value>, sets: &[Arc<Value>], pods: impl Fn(&Value) -> Vec<Arc<Value>>) -> Self {
        let mut old = sets.to_vec();
        old.sort_by_cached_key(|s| (crate::objects::created(s), s.name().to_owned()));
        let wanted = plan::bare_template(deployment);
        let at = old.iter().position(|s| plan::bare_template(s) == wanted);
        let new = at.map(|at| old.remove(at));
        let running = |set: &Arc<Value>| pods(set).iter().any(|p| !crate::objects::is_finished(p));
        let old_pods_running = old.iter().any(running);
        Self { deployment: Arc::clone(deployment), new, old, old_pods_running }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.new.iter().chain(&self.old)
    }

    fn replicas(&self) -> i64 {
        int(&self.deployment, &["spec", "replicas"], 1)
    }

    fn rolling(&self) -> bool {
        self.deployment.str_at(&["spec", "strategy", "type"]) != "Recreate"
    }
}

/// The replicas a set is asked for.
fn wanted(set: &Value) -> i64 {
    int(set, &["spec", "replicas"], 1)
}

fn sum<'s>(sets: impl IntoIterator<Item = &'s Arc<Value>>, of: impl Fn(&Value) -> i64) -> i64 {
    sets.into_iter().map(|s| of(s)).sum()
}
