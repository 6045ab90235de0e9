//! Who has to go first.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use api::Value;

use super::thresholds::Signal;
use super::usage::{Parts, PodUsage};
use crate::pods::resources;

fn priority(pod: &Value) -> i64 {
    pod.at(&["spec", "priority"]).as_i64().unwrap_or_default()
}

/// Which part of a pod's use of disks weighs on a signal. `dedicated`: images and layers have a disk of their own.
fn parts(signal: Signal, dedicated: bool) -> Parts {
    let images = matches!(signal, Signal::ImageDisk | Signal::ImageInodes);
    Parts { layers: !dedicated || images, rest: !dedicated || !images }
}

/// Sorts pods by who has to go first when a signal says that the node runs short. Of whom nothing is known, they go first.
pub(super) fn sort(
    pods: &mut [Arc<Value>],
    usage: &HashMap<String, PodUsage>,
    signal: Signal,
    dedicated: bool,
) {
    let of = |pod: &Value| usage.get(pod.uid());
    match signal {
        Signal::Memory | Signal::PodsMemory => pods.sort_by_cached_key(|pod| {
            let request = resources::request(pod, "memory");
            let over = of(pod).map_or(0, |usage| usage.memory - request);
            (of(pod).is_some(), over <= 0, priority(pod), Reverse(over))
        }),
        Signal::Pids => pods.sort_by_cached_key(|pod| {
            (priority(pod), of(pod).is_some(), Reverse(of(pod).map_or(0, |usage| usage.processes)))
        }),
        Signal::NodeDisk | Signal::ImageDisk | Signal::NodeInodes | Signal::ImageInodes => {
            pods.sort_by_cached_key(|pod| {
                let used = of(pod).map(|usage| usage.disk(pod, parts(signal, dedicated))).unwrap_or_default();
                let storage = resources::request(pod, "ephemeral-storage");
                // Nobody can request inodes.
                let (used, request) =
                    if signal.resource() == "inodes" { (used.inodes, 0) } else { (used.bytes, storage) };
                (of(pod).is_some(), used <= request, priority(pod), Reverse(used - storage))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;
    use crate::usage::Used;

    fn pod(uid: &str, priority: i64, memory: &str) -> Arc<Value> {
        Arc::new(object!({
            "metadata": {"uid": uid},
            "spec": {
                "priority": priority,
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{"name": "c", "resources": {"requests": {"memory": memory}}}],
            },
        }))
    }

    fn order(signal: Signal, pods: &[(&str, i64, &str, i64)]) -> Vec<String> {
        let of = |used: i64| PodUsage {
            memory: used,
            processes: used,
            volumes: vec![("v".to_owned(), Used { bytes: used, inodes: used })],
            ..PodUsage::default()
        };
        let known = pods.iter().filter(|(.., used)| *used >= 0);
        let usage = known.map(|(uid, _, _, used)| ((*uid).to_owned(), of(*used))).collect();
        let mut pods: Vec<_> = pods.iter().map(|(uid, p, memory, _)| pod(uid, *p, memory)).collect();
        sort(&mut pods, &usage, signal, false);
        pods.iter().map(|pod| pod.uid().to_owned()).collect()
    }

    #[test]
    fn who_uses_more_than_it_asked_for_goes_first_then_by_priority_and_excess() {
        let pods = [
            ("modest", 0, "100", 50),
            ("important", 100, "100", 900),
            ("greedy", 0, "100", 500),
            ("greedier", 0, "100", 600),
            ("unknown", 100, "100", -1),
        ];
        assert_eq!(order(Signal::Memory, &pods), ["unknown", "greedier", "greedy", "important", "modest"]);
    }

    #[test]
    fn processes_are_counted_within_a_priority_and_disks_measured() {
        let pods = [("few", 0, "0", 5), ("many", 0, "0", 50), ("important", 9, "0", 500)];
        assert_eq!(order(Signal::Pids, &pods), ["many", "few", "important"]);
        assert_eq!(order(Signal::NodeInodes, &pods), ["many", "few", "important"]);
    }
}
