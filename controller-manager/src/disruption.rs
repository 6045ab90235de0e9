//! PodDisruptionBudgets: how many of the pods they select may be disrupted now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::selector::LabelSelector;
use api::{Value, object, time};
use client::resource::POD_DISRUPTION_BUDGETS;
use client::{Key, Next, Queue};
use jiff::Timestamp;

use crate::act::Action;
use crate::context::Context;
use crate::objects::{
    Condition, controller_of, int, int_or_percent, is_finished, is_ready, set_condition, time_at,
};

/// An eviction that has not led to a deletion by then will not.
const DISRUPTED: i64 = 120;

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let i = &cx.informers;
    let (budgets, pods) = (i.pod_disruption_budgets(), i.pods());
    // Only for the numbers of pods they are asked for.
    let owners = [i.deployments(), i.replica_sets(), i.stateful_sets()];
    Context::follow(budgets, &queue);
    let (changed, store) = (queue.clone(), budgets.clone());
    pods.on_change(move |change| {
        for budget in store.store().in_namespace(change.object().namespace()) {
            let fits = |p: &Value| selector(&budget).is_some_and(|s| s.matches_object(p));
            if fits(change.object()) || change.old().is_some_and(|o| fits(o)) {
                changed.add(Key::of(&budget));
            }
        }
    });
    let caches = [budgets, pods, owners[0], owners[1], owners[2]];
    cx.work(queue, 1, &caches, reconcile);
}

fn selector(budget: &Value) -> Option<LabelSelector> {
    LabelSelector::from_object(budget.at(&["spec", "selector"])).ok().flatten()
}

async fn reconcile(cx: Context, key: Key) -> anyhow::Result<Next> {
    let Some(budget) = cx.informers.pod_disruption_budgets().store().get(&key) else { return Ok(Next::Done) };
    let mut pods = cx.informers.pods().store().in_namespace(key.namespace());
    let selector = selector(&budget);
    pods.retain(|p| selector.as_ref().is_some_and(|s| s.matches_object(p)) && !is_finished(p));
    let scale = |owner: &Value, namespace: &str| scale(&cx, owner, namespace);
    let expected = expected(&budget, &pods, &scale);
    cx.apply(plan(&budget, &pods, expected, cx.now())).await
}

/// The number of pods a controller is asked for, with its uid: through a ReplicaSet its Deployment's.
fn scale(cx: &Context, owner: &Value, namespace: &str) -> Option<(String, i64)> {
    let i = &cx.informers;
    let name = owner.str_at(&["name"]);
    let size = |o: &Value| Some((o.uid().to_owned(), int(o, &["spec", "replicas"], 1)));
    match owner.kind() {
        "ReplicaSet" => {
            let set = i.replica_sets().store().find(namespace, name)?;
            let above = controller_of(&set).filter(|o| o.kind() == "Deployment");
            match above.and_then(|o| i.deployments().store().find(namespace, o.str_at(&["name"]))) {
                Some(deployment) => size(&deployment),
                None => size(&set),
            }
        }
        "StatefulSet" => size(&*i.stateful_sets().store().find(namespace, name)?),
        _ => None,
    }
}

/// Finds a controller by reference: its uid, and the number of pods it is asked for.
type Scale<'s> = dyn Fn(&Value, &str) -> Option<(String, i64)> + 's;

/// How many pods there should be: what their controllers ask for, or as many as there are.
fn expected(budget: &Value, pods: &[Arc<Value>], scale: &Scale<'_>) -> Result<i64, String> {
    let relative = !budget.at(&["spec", "maxUnavailable"]).is_null()
        || budget.at(&["spec", "minAvailable"]).as_str().is_some();
    if !relative {
        return Ok(i64::try_from(pods.len()).unwrap_or(i64::MAX));
    }
    let mut sizes: BTreeMap<String, i64> = BTreeMap::new();
    for pod in pods {
        let owner =
            controller_of(pod).ok_or_else(|| format!("found no controller ref for pod {:?}", pod.name()))?;
        let found = scale(owner, pod.namespace());
        let (uid, size) = found.ok_or_else(|| format!("found no controllers for pod {:?}", pod.name()))?;
        sizes.insert(uid, size);
    }
    Ok(sizes.values().sum())
}

fn plan(budget: &Value, pods: &[Arc<Value>], expected: Result<i64, String>, now: Timestamp) -> Vec<Action> {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut disrupted = budget.at(&["status", "disruptedPods"]).as_object().cloned().unwrap_or_default();
    let there = |name: &str| pods.iter().any(|p| p.name() == name && !p.is_terminating());
    let fresh = |since: &str| time::parse(since).is_some_and(|t| t.as_second() + DISRUPTED > now.as_second());
    disrupted.retain(|name, since| there(name) && fresh(since.as_str().unwrap_or_default()));
    let next = disrupted.values().filter_map(|t| time_at(t, &[])).min();
    let healthy =
        pods.iter().filter(|p| is_ready(p) && !p.is_terminating() && !disrupted.contains_key(p.name()));
    let healthy = count(healthy.count());
    let (total, problem) = match expected {
        Ok(total) => (total, None),
        Err(why) => (0, Some(why)),
    };
    let spec = budget.get("spec");
    let desired = if problem.is_some() {
        0
    } else if !spec.get("maxUnavailable").is_null() {
        (total - int_or_percent(spec.get("maxUnavailable"), total, true)).max(0)
    } else {
        int_or_percent(spec.get("minAvailable"), total, true)
    };
    let allowed = if problem.is_some() || total == 0 { 0 } else { (healthy - desired).max(0) };
    let mut conditions = budget.array_at(&["status", "conditions"]).to_vec();
    let (status, reason) = match (&problem, allowed) {
        (Some(_), _) => ("False", "SyncFailed"),
        (None, 0) => ("False", "InsufficientPods"),
        (None, _) => ("True", "SufficientPods"),
    };
    let message = problem.unwrap_or_default();
    set_condition(
        &mut conditions,
        now,
        &Condition { kind: "DisruptionAllowed", status, reason, message: &message },
    );
    for c in &mut conditions {
        // Conditions of this style always have these.
        c.set(&["observedGeneration"], budget.at(&["metadata", "generation"]));
        if c.get("message").is_null() {
            c.set(&["message"], "");
        }
    }
    let mut fresh = object!({
        "observedGeneration": (budget.at(&["metadata", "generation"])),
        "disruptedPods": disrupted,
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": total,
        "conditions": conditions,
    });
    if let Value::Object(map) = &mut fresh {
        map.retain(|k, v| k != "disruptedPods" || !v.is_empty());
    }
    let mut actions = Vec::new();
    if &fresh != budget.get("status") {
        let mut updated = budget.clone();
        updated.set(&["status"], fresh);
        actions.push(Action::UpdateStatus(POD_DISRUPTION_BUDGETS, updated));
    }
    if next.is_some() {
        actions.push(Action::Later(Duration::from_secs(u64::try_from(DISRUPTED).unwrap_or(120))));
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_go_follows_from_what_is_healthy() {
        let pod = |name: &str, ready: &str| {
            Arc::new(object!({
                "metadata": {"name": name},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
            }))
        };
        let pods = [pod("a", "True"), pod("b", "True"), pod("c", "False")];
        let check = |spec: Value, want: (i64, i64)| {
            let budget = object!({"metadata": {"name": "b"}, "spec": (&spec)});
            let [Action::UpdateStatus(_, b)] = &plan(&budget, &pods, Ok(3), Timestamp::UNIX_EPOCH)[..] else {
                panic!("{spec}")
            };
            let field = |f: &str| int(b, &["status", f], -1);
            assert_eq!((field("desiredHealthy"), field("disruptionsAllowed")), want, "{spec}");
        };
        check(object!({"minAvailable": 1}), (1, 1));
        check(object!({"minAvailable": 2}), (2, 0));
        check(object!({"minAvailable": "50%"}), (2, 0));
        check(object!({"maxUnavailable": 2}), (1, 1));
    }
}
