//! Pods go from nodes with `NoExecute` taints they do not tolerate, at once or when their patience ends.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api::{Value, object, time};
use client::events::Kind;
use client::resource::PODS;
use client::{Key, Next, Patch, Queue};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::act::{Action, head};
use crate::context::Context;
use crate::informers::BY_NODE;
use crate::objects::time_at;

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let (nodes, pods) = (cx.informers.nodes(), cx.informers.pods());
    Context::follow(pods, &queue);
    let (evict, store) = (queue.clone(), pods.clone());
    nodes.on_change(move |change| {
        let taints = |n: &Value| n.at(&["spec", "taints"]).clone();
        let node = change.object();
        if change.old().is_some_and(|old| taints(old) == taints(node)) {
            return;
        }
        for pod in store.store().by_index(BY_NODE, node.name()) {
            evict.add(Key::of(&pod));
        }
    });
    let waiting = Arc::new(Mutex::new(HashSet::new()));
    cx.work(queue, 4, &[nodes, pods], move |cx, key| reconcile(cx, Arc::clone(&waiting), key));
}

/// Pods whose patience is running out.
type Waiting = Arc<Mutex<HashSet<Key>>>;

async fn reconcile(cx: Context, waiting: Waiting, key: Key) -> anyhow::Result<Next> {
    let pod = cx.informers.pods().store().get(&key);
    let actions = match &pod {
        None => Vec::new(),
        Some(pod) => match cx.informers.nodes().store().find("", pod.str_at(&["spec", "nodeName"])) {
            Some(node) => plan(pod, &node, cx.now()),
            // The pod goes with the node: nothing is called off.
            None => {
                waiting.lock().remove(&key);
                return Ok(Next::Done);
            }
        },
    };
    let actions = tell(&mut waiting.lock(), &key, pod.as_deref(), actions);
    cx.apply(actions).await
}

/// What to do for a pod, if it still is there; for one that was to go and no longer is, that is to say so.
fn tell(waiting: &mut HashSet<Key>, key: &Key, pod: Option<&Value>, mut actions: Vec<Action>) -> Vec<Action> {
    if matches!(actions[..], [Action::Later(_)]) {
        waiting.insert(key.clone());
    } else if waiting.remove(key) && actions.is_empty() {
        let about = pod.map_or_else(
            || {
                object!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"namespace": (key.namespace()), "name": (key.name())},
                })
            },
            head,
        );
        let text = format!("Cancelling deletion of Pod {key}");
        actions.push(Action::Event(about, Kind::Normal, "TaintManagerEviction", text));
    }
    actions
}

/// How long the pod may stay: for ever, or so many seconds after `timeAdded`.
fn patience(pod: &Value, taint: &Value) -> Option<i64> {
    let matches = |t: &&Value| {
        let field = |f: &str| t.str_at(&[f]);
        let (key, effect) = (field("key"), field("effect"));
        (effect.is_empty() || effect == "NoExecute")
            && (key.is_empty() || key == taint.str_at(&["key"]))
            && (field("operator") == "Exists" || field("value") == taint.str_at(&["value"]))
    };
    let mut seconds = None;
    let mut tolerated = false;
    for toleration in pod.array_at(&["spec", "tolerations"]).iter().filter(matches) {
        tolerated = true;
        if let Some(limit) = toleration.get("tolerationSeconds").as_i64() {
            seconds = Some(seconds.map_or(limit, |s: i64| s.min(limit)));
        }
    }
    if tolerated { seconds.map(|s| s.max(0)).or(Some(i64::MAX)) } else { None }
}

fn plan(pod: &Value, node: &Value, now: Timestamp) -> Vec<Action> {
    let taints: Vec<&Value> =
        node.array_at(&["spec", "taints"]).iter().filter(|t| t.str_at(&["effect"]) == "NoExecute").collect();
    if taints.is_empty() || pod.is_terminating() || crate::objects::is_finished(pod) {
        return Vec::new();
    }
    let mut wait = i64::MAX;
    for taint in taints {
        let Some(seconds) = patience(pod, taint) else { return evict(pod, now) };
        if seconds != i64::MAX {
            let since = time_at(taint, &["timeAdded"]).unwrap_or(now).as_second();
            wait = wait.min(since.saturating_add(seconds) - now.as_second());
        }
    }
    match wait {
        i64::MAX => Vec::new(),
        ..=0 => evict(pod, now),
        seconds => vec![Action::Later(Duration::from_secs(u64::try_from(seconds).unwrap_or(1)))],
    }
}

fn evict(pod: &Value, now: Timestamp) -> Vec<Action> {
    let text = format!("Marking for deletion Pod {}", Key::of(pod));
    let condition = object!({"status": {"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "lastTransitionTime": (time::format(now)),
    }]}});
    vec![
        Action::Event(head(pod), Kind::Normal, "TaintManagerEviction", text),
        Action::Patch(PODS, head(pod), "status", Patch::Strategic, condition),
        Action::delete(PODS, pod),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_when_the_toleration_says() {
        let node = object!({"spec": {"taints": [
            {"key": "k", "effect": "NoExecute", "timeAdded": "1970-01-01T00:01:40Z"},
        ]}});
        let now = Timestamp::from_second(200).unwrap();
        let check = |tolerations: Value, want: &str| {
            let pod = object!({"metadata": {"name": "p"}, "spec": {"tolerations": tolerations}});
            let got = match &plan(&pod, &node, now)[..] {
                [] => "stays".to_owned(),
                [Action::Later(d)] => format!("{}s", d.as_secs()),
                [.., Action::Delete(..)] => "goes".to_owned(),
                other => format!("{other:?}"),
            };
            assert_eq!(got, want, "{pod}");
        };
        check(object!([]), "goes");
        check(object!([{"key": "k", "operator": "Exists"}]), "stays");
        check(object!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}]), "200s");
        check(object!([{"key": "k", "operator": "Exists", "tolerationSeconds": 50}]), "goes");
        check(object!([{"operator": "Exists", "effect": "NoSchedule"}]), "goes");
    }

    #[test]
    fn a_deletion_that_is_called_off_is_told_of_once() {
        let (mut waiting, key) = (HashSet::new(), Key::new("n", "p"));
        let mut told = |actions: Vec<Action>| match &tell(&mut waiting, &key, None, actions)[..] {
            [Action::Event(_, Kind::Normal, "TaintManagerEviction", text)] => text.clone(),
            other => format!("{} actions", other.len()),
        };
        let later = || vec![Action::Later(Duration::from_secs(300))];
        let pod = object!({"metadata": {"namespace": "n", "name": "p"}});
        assert_eq!(told(Vec::new()), "0 actions");
        assert_eq!(told(later()), "1 actions");
        assert_eq!(told(Vec::new()), "Cancelling deletion of Pod n/p");
        assert_eq!(told(Vec::new()), "0 actions");
        assert_eq!(told(later()), "1 actions");
        assert_eq!(told(evict(&pod, Timestamp::UNIX_EPOCH)), "3 actions");
        assert_eq!(told(Vec::new()), "0 actions");
    }
}
