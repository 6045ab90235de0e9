//! The taints that conditions stand for. `NoSchedule` follows them at once; `NoExecute` evicts pods, so only its end does.

use api::{Value, object, time};
use client::Patch;
use client::resource::NODES;
use jiff::Timestamp;

use crate::act::{Action, head};
use crate::objects::condition;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep new pods away while they hold.
const PRESSURES: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// The status of the condition Ready; empty without one.
pub(super) fn ready(node: &Value) -> &str {
    condition(node, "Ready").str_at(&["status"])
}

/// The taint that stands for what Ready is.
fn key_of(ready: &str) -> Option<&'static str> {
    match ready {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        _ => None,
    }
}

fn is(taint: &Value, key: &str, effect: &str) -> bool {
    taint.str_at(&["key"]) == key && taint.str_at(&["effect"]) == effect
}

fn of(node: &Value) -> &[Value] {
    node.array_at(&["spec", "taints"])
}

fn taint(key: &str, effect: &str, now: Timestamp) -> Value {
    object!({"key": key, "effect": effect, "timeAdded": (time::format(now))})
}

/// Whether the taint evicts, and is one that this controller sets.
fn evicts(taint: &Value) -> bool {
    is(taint, NOT_READY, "NoExecute") || is(taint, UNREACHABLE, "NoExecute")
}

/// The taints the node should have for its conditions, if they are not those it has. Of those that evict, none are added, and
/// they go from a node that is ready.
pub(super) fn settled(node: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let ready = ready(node);
    // Nothing posted yet: the taint that came with the node stays.
    let mut wanted = Vec::from_iter(if ready.is_empty() { Some(NOT_READY) } else { key_of(ready) });
    let pressing = PRESSURES.iter().filter(|(kind, _)| condition(node, kind).str_at(&["status"]) == "True");
    wanted.extend(pressing.map(|(_, key)| *key));
    if node.at(&["spec", "unschedulable"]).as_bool() == Some(true) {
        wanted.push(UNSCHEDULABLE);
    }
    let managed = |key: &str| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, k)| *k == key)
    };
    let stays = |t: &&Value| {
        let (key, effect) = (t.str_at(&["key"]), t.str_at(&["effect"]));
        let outdated = effect == "NoSchedule" && managed(key) && !wanted.contains(&key);
        let over = ready == "True" && evicts(t);
        !outdated && !over
    };
    let have = of(node);
    let mut list: Vec<Value> = have.iter().filter(stays).cloned().collect();
    for key in wanted.iter().filter(|key| !have.iter().any(|t| is(t, key, "NoSchedule"))) {
        list.push(taint(key, "NoSchedule", now));
    }
    (list != have).then_some(list)
}

/// What is to become of the taint of a node that evicts its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    /// It has the one it should have, or needs none.
    Settled,
    /// It has the one for another state than it is in: no further pod is evicted if the right one takes its place.
    Swap,
    /// It has none, and should have one.
    Wait,
}

impl Eviction {
    pub(super) fn of(node: &Value) -> Self {
        let Some(key) = key_of(ready(node)) else { return Self::Settled };
        let mut evicting = of(node).iter().filter(|t| evicts(t));
        match evicting.next() {
            None => Self::Wait,
            Some(first) if is(first, key, "NoExecute") && evicting.next().is_none() => Self::Settled,
            Some(_) => Self::Swap,
        }
    }
}

/// Whether the node has a taint of this controller that evicts.
pub(super) fn is_evicted(node: &Value) -> bool {
    of(node).iter().any(evicts)
}

/// The taints of a node whose pods are evicted for what Ready is now, and for nothing else; none when it has these.
pub(super) fn evicting(node: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let key = key_of(ready(node))?;
    let mut list: Vec<Value> =
        of(node).iter().filter(|t| !evicts(t) || is(t, key, "NoExecute")).cloned().collect();
    if !list.iter().any(evicts) {
        list.push(taint(key, "NoExecute", now));
    }
    (list != of(node)).then_some(list)
}

/// The taints of a node without those that evict; none when it has none of them.
pub(super) fn spared(node: &Value) -> Option<Vec<Value>> {
    is_evicted(node).then(|| of(node).iter().filter(|t| !evicts(t)).cloned().collect())
}

/// Gives the node these taints, if it still is as it was seen.
pub(super) fn patch(node: &Value, taints: Vec<Value>) -> Action {
    let patch = object!({
        "metadata": {"resourceVersion": (node.resource_version())},
        "spec": {"taints": taints},
    });
    Action::Patch(NODES, head(node), "", Patch::Merge, patch)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn node(ready: &str, taints: &[(&str, &str)]) -> Value {
        let taints: Vec<Value> = taints.iter().map(|(k, e)| object!({"key": (*k), "effect": (*e)})).collect();
        let mut node = object!({
            "metadata": {"name": "n"}, "spec": {"taints": taints},
        });
        if !ready.is_empty() {
            node.set(&["status", "conditions"], object!([{"type": "Ready", "status": ready}]));
        }
        node
    }

    fn texts(taints: Option<Vec<Value>>) -> Option<Vec<String>> {
        let text = |t: &Value| format!("{}:{}", t.str_at(&["key"]), t.str_at(&["effect"]));
        taints.map(|list| list.iter().map(text).collect())
    }

    fn same(got: Option<Vec<Value>>, want: Option<&[&str]>, node: &Value) {
        let want = want.map(|w| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(texts(got), want, "{node}");
    }

    const SILENT: (&str, &str) = (UNREACHABLE, "NoExecute");
    const FAILING: (&str, &str) = (NOT_READY, "NoExecute");

    #[test]
    fn taints_follow_the_conditions() {
        let check =
            |node: Value, want: Option<&[&str]>| same(settled(&node, Timestamp::UNIX_EPOCH), want, &node);
        check(node("True", &[]), None);
        check(node("True", &[(NOT_READY, "NoSchedule"), ("mine", "NoSchedule")]), Some(&["mine:NoSchedule"]));
        check(node("True", &[SILENT, ("mine", "NoExecute")]), Some(&["mine:NoExecute"]));
        check(node("", &[(NOT_READY, "NoSchedule")]), None);
        check(node("Unknown", &[]), Some(&["node.kubernetes.io/unreachable:NoSchedule"]));
        check(
            node("Unknown", &[FAILING, (NOT_READY, "NoSchedule")]),
            Some(&["node.kubernetes.io/not-ready:NoExecute", "node.kubernetes.io/unreachable:NoSchedule"]),
        );
        check(node("True", &[("node.kubernetes.io/disk-pressure", "NoExecute")]), None);
        let mut cordoned = node("True", &[]);
        cordoned.set(&["spec", "unschedulable"], true);
        check(cordoned, Some(&["node.kubernetes.io/unschedulable:NoSchedule"]));
    }

    #[test]
    fn a_node_waits_to_be_evicted_unless_it_is_already() {
        for (ready, taints, want) in [
            ("True", &[][..], Eviction::Settled),
            ("", &[], Eviction::Settled),
            ("False", &[], Eviction::Wait),
            ("Unknown", &[(UNREACHABLE, "NoSchedule")], Eviction::Wait),
            ("Unknown", &[SILENT], Eviction::Settled),
            ("Unknown", &[FAILING], Eviction::Swap),
            ("False", &[SILENT], Eviction::Swap),
            ("False", &[FAILING, SILENT], Eviction::Swap),
        ] {
            assert_eq!(Eviction::of(&node(ready, taints)), want, "{ready} {taints:?}");
        }
    }

    #[test]
    fn an_evicted_node_has_one_taint_for_it_and_a_spared_one_none() {
        let check =
            |ready: &str, taints: &[(&str, &str)], want: Option<&[&str]>, without: Option<&[&str]>| {
                let node = node(ready, taints);
                same(evicting(&node, Timestamp::UNIX_EPOCH), want, &node);
                same(spared(&node), without, &node);
            };
        check("True", &[], None, None);
        check("Unknown", &[], Some(&["node.kubernetes.io/unreachable:NoExecute"]), None);
        check("Unknown", &[SILENT], None, Some(&[]));
        check(
            "Unknown",
            &[FAILING, ("mine", "NoExecute")],
            Some(&["mine:NoExecute", "node.kubernetes.io/unreachable:NoExecute"]),
            Some(&["mine:NoExecute"]),
        );
        check("False", &[SILENT], Some(&["node.kubernetes.io/not-ready:NoExecute"]), Some(&[]));
    }
}
