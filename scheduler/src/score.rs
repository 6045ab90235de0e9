//! Which of the nodes a pod fits on is best: upstream's scores and weights.

use placement::{Effect, Resources, untolerated};
use rand::Rng;

use crate::cluster::{Cluster, Node, weight};
use crate::pod::Pod;
use crate::relations::{crowding, preferences};

const BEST: f64 = 100.0;

/// The index of the best node; one of them by chance when several are equal.
pub(crate) fn best(cluster: &Cluster, pod: &Pod, nodes: &[&Node]) -> Option<usize> {
    if nodes.len() < 2 {
        return (!nodes.is_empty()).then_some(0);
    }
    let scores = scores(cluster, pod, nodes);
    let top = scores.iter().copied().fold(f64::MIN, f64::max);
    let best: Vec<usize> = (0..nodes.len()).filter(|i| scores[*i] >= top).collect();
    Some(best[rand::rng().random_range(0..best.len())])
}

fn scores(cluster: &Cluster, pod: &Pod, nodes: &[&Node]) -> Vec<f64> {
    let asked = weight(pod);
    let soft = |node: &&Node| {
        let taints = node.view.taints.iter().filter(|t| t.effect == Effect::PreferNoSchedule);
        taints.filter(|t| untolerated([*t], &pod.view.tolerations).is_some()).count() as f64
    };
    let wished: Vec<f64> = nodes.iter().map(|n| pod.view.affinity.preference(&n.view) as f64).collect();
    let liked: Vec<f64> = preferences(cluster, pod, nodes).into_iter().map(|n| n as f64).collect();
    let parts = [
        (3.0, fewest(&nodes.iter().map(soft).collect::<Vec<_>>())),
        (2.0, most(&wished)),
        (2.0, fewest(&crowding(cluster, pod, nodes))),
        (2.0, between(&liked)),
        (1.0, nodes.iter().map(|n| least_allocated(n, &asked)).collect()),
        (1.0, nodes.iter().map(|n| balanced(n, &asked)).collect()),
    ];
    let total = |i: usize| parts.iter().map(|(weight, part)| weight * part[i]).sum();
    (0..nodes.len()).map(total).collect()
}

/// The most is best.
fn most(values: &[f64]) -> Vec<f64> {
    let max = values.iter().copied().fold(0.0, f64::max);
    values.iter().map(|v| if max > 0.0 { BEST * v / max } else { 0.0 }).collect()
}

/// The fewest is best.
fn fewest(values: &[f64]) -> Vec<f64> {
    let max = values.iter().copied().fold(0.0, f64::max);
    values.iter().map(|v| if max > 0.0 { BEST * (max - v) / max } else { BEST }).collect()
}

/// From the worst to the best, whatever their signs.
fn between(values: &[f64]) -> Vec<f64> {
    let max = values.iter().copied().fold(f64::MIN, f64::max);
    let min = values.iter().copied().fold(f64::MAX, f64::min);
    values.iter().map(|v| if max > min { BEST * (v - min) / (max - min) } else { 0.0 }).collect()
}

fn fractions(node: &Node, asked: &Resources) -> [f64; 2] {
    let part = |used: i64, asked: i64, total: i64| {
        if total <= 0 { 1.0 } else { ((used + asked) as f64 / total as f64).min(1.0) }
    };
    let (used, total) = (&node.weighed, &node.view.allocatable);
    [part(used.milli_cpu, asked.milli_cpu, total.milli_cpu), part(used.memory, asked.memory, total.memory)]
}

fn least_allocated(node: &Node, asked: &Resources) -> f64 {
    let [cpu, memory] = fractions(node, asked);
    BEST * (1.0 - f64::midpoint(cpu, memory))
}

/// Processors and memory used in like parts are best.
fn balanced(node: &Node, asked: &Resources) -> f64 {
    let [cpu, memory] = fractions(node, asked);
    BEST * (1.0 - (cpu - memory).abs() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{node, pod};
    use api::object;

    #[test]
    fn the_emptier_node_is_better() {
        let mut cluster = Cluster::default();
        cluster.set_node(node("n1", object!({})));
        cluster.set_node(node("n2", object!({})));
        let asks = object!({"nodeName": "n1", "containers": [{"resources": {"requests": {"cpu": "1"}}}]});
        cluster.place(pod("there", asks));
        let nodes: Vec<&Node> = cluster.nodes().collect();
        for _ in 0..10 {
            assert_eq!(best(&cluster, &pod("new", object!({})), &nodes), Some(1));
        }
    }

    #[test]
    fn wishes_outweigh_room() {
        let mut cluster = Cluster::default();
        cluster.set_node(node("n1", object!({"disk": "ssd"})));
        cluster.set_node(node("n2", object!({})));
        let asks = object!({"nodeName": "n1", "containers": [{"resources": {"requests": {"cpu": "1"}}}]});
        cluster.place(pod("there", asks));
        let wish = object!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}},
        ]}}});
        let nodes: Vec<&Node> = cluster.nodes().collect();
        assert_eq!(best(&cluster, &pod("new", wish), &nodes), Some(0));
    }

    #[test]
    fn normalizing_spans_the_range() {
        assert_eq!(most(&[0.0, 5.0, 10.0]), [0.0, 50.0, 100.0]);
        assert_eq!(fewest(&[0.0, 5.0, 10.0]), [100.0, 50.0, 0.0]);
        assert_eq!(between(&[-2.0, 0.0, 2.0]), [0.0, 50.0, 100.0]);
        assert_eq!(fewest(&[0.0, 0.0]), [100.0, 100.0]);
    }
}
