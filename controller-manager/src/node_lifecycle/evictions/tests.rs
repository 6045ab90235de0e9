use std::time::Duration;

use api::object;
use jiff::Timestamp;

use super::super::taints::{NOT_READY, UNREACHABLE};
use super::*;

/// Nodes with their taints as the decisions leave them, and a clock.
struct Cluster {
    nodes: BTreeMap<String, Value>,
    evictions: Evictions,
    start: Instant,
    second: u64,
    /// Names of nodes and the seconds in which they were evicted.
    evicted: Vec<(String, u64)>,
}

const LIMITS: EvictionLimits = EvictionLimits::DEFAULT;

impl Cluster {
    /// Zones and the number of nodes in each, all of which are ready: `a0`, `a1`, `b0`.
    fn new(zones: &[(&str, usize)]) -> Self {
        let named = |zone: &str, i: usize| {
            let name = format!("{zone}{i}");
            let node = object!({
                "metadata": {"name": (name.clone()), "labels": {"topology.kubernetes.io/zone": zone}},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            });
            (name, node)
        };
        let nodes = zones.iter().flat_map(|(zone, count)| (0..*count).map(move |i| named(zone, i))).collect();
        let start = Instant::now();
        Self { nodes, evictions: Evictions::new(LIMITS), start, second: 0, evicted: Vec::new() }
    }

    /// What Ready is on nodes whose names begin so.
    fn set(&mut self, prefix: &str, ready: &str) -> &mut Self {
        for (_, node) in self.nodes.iter_mut().filter(|(name, _)| name.starts_with(prefix)) {
            node.set(&["status", "conditions"], object!([{"type": "Ready", "status": ready}]));
            // What the reconciler of single nodes does.
            if let Some(taints) = taints::settled(node, Timestamp::UNIX_EPOCH) {
                node.set(&["spec", "taints"], taints);
            }
        }
        self
    }

    fn retaint(&mut self, name: &str, change: impl Fn(&Value) -> Option<Vec<Value>>) -> bool {
        let node = self.nodes.get_mut(name).unwrap();
        let taints = change(node);
        let changed = taints.is_some();
        if let Some(taints) = taints {
            node.set(&["spec", "taints"], taints);
        }
        changed
    }

    /// Lets seconds pass, with a review every five.
    fn run(&mut self, seconds: u64) -> &mut Self {
        for _ in 0..seconds {
            let now = self.start + Duration::from_secs(self.second);
            if self.second.is_multiple_of(5) {
                let nodes: Vec<_> = self.nodes.values().cloned().map(Arc::new).collect();
                let review = self.evictions.review(&nodes, now);
                for name in review.spare {
                    self.retaint(&name, taints::spared);
                }
                for name in review.swap {
                    self.retaint(&name, |node| taints::evicting(node, Timestamp::UNIX_EPOCH));
                }
            }
            while let Some(name) = self.evictions.next(now) {
                if self.retaint(&name, |node| taints::evicting(node, Timestamp::UNIX_EPOCH)) {
                    self.evicted.push((name, self.second));
                }
            }
            self.second += 1;
        }
        self
    }

    /// The nodes that were evicted since this was last asked.
    #[track_caller]
    fn went(&mut self, want: &[(&str, u64)]) -> &mut Self {
        let got: Vec<_> = self.evicted.iter().map(|(name, second)| (name.as_str(), *second)).collect();
        assert_eq!(got, want);
        self.evicted.clear();
        self
    }

    /// The nodes that have a taint that evicts, and which.
    #[track_caller]
    fn tainted(&mut self, want: &[(&str, &str)]) -> &mut Self {
        let taints = |node: &Value| node.array_at(&["spec", "taints"]).to_vec();
        let all = self.nodes.iter().flat_map(|(name, node)| taints(node).into_iter().map(move |t| (name, t)));
        let evicting: Vec<_> = all
            .filter(|(_, taint)| taint.str_at(&["effect"]) == "NoExecute")
            .map(|(name, taint)| (name.clone(), taint.str_at(&["key"]).to_owned()))
            .collect();
        let want: Vec<_> = want.iter().map(|(n, k)| ((*n).to_owned(), (*k).to_owned())).collect();
        assert_eq!(evicting, want);
        self
    }
}

#[test]
fn nodes_that_fail_alone_are_evicted_one_by_one() {
    let mut cluster = Cluster::new(&[("a", 5)]);
    cluster.run(12).went(&[]).set("a1", "Unknown").set("a3", "False").run(60);
    cluster.went(&[("a1", 15), ("a3", 25)]).tainted(&[("a1", UNREACHABLE), ("a3", NOT_READY)]);
}

#[test]
fn a_node_that_is_ready_again_in_time_is_not_evicted() {
    let mut cluster = Cluster::new(&[("a", 5)]);
    cluster.set("a0", "Unknown").set("a1", "Unknown").run(6).set("a1", "True").run(60);
    cluster.went(&[("a0", 0)]).tainted(&[("a0", UNREACHABLE)]).set("a0", "True").tainted(&[]);
}

#[test]
fn a_taint_for_another_state_is_swapped_whatever_the_rate() {
    let mut cluster = Cluster::new(&[("a", 5)]);
    cluster.set("a0", "Unknown").set("a1", "Unknown").run(20).went(&[("a0", 0), ("a1", 10)]);
    cluster.set("a0", "False").set("a1", "False").run(1);
    cluster.went(&[]).tainted(&[("a0", NOT_READY), ("a1", NOT_READY)]);
}

#[test]
fn no_node_is_evicted_when_most_of_a_small_zone_fails() {
    let mut cluster = Cluster::new(&[("a", 5), ("b", 3)]);
    cluster.run(5).set("a0", "Unknown").set("a1", "Unknown").set("a2", "Unknown").set("b0", "Unknown");
    cluster.run(100).went(&[("b0", 5)]);
    // Two of five are no disruption any more: who is left waits the time of a node first.
    cluster.set("a0", "True").run(100).went(&[("a1", 115), ("a2", 125)]);
}

#[test]
fn nodes_of_a_large_zone_go_slowly_when_most_of_it_fails() {
    let mut cluster = Cluster::new(&[("a", 60)]);
    // 44 of 60.
    for prefix in ["a1", "a2", "a3", "a4"] {
        cluster.set(prefix, "Unknown");
    }
    cluster.run(250);
    let seconds: Vec<u64> = cluster.evicted.iter().map(|(_, second)| *second).collect();
    assert_eq!(seconds, [0, 100, 200]);
}

#[test]
fn a_zone_that_fails_as_a_whole_is_evicted_while_another_lives() {
    let mut cluster = Cluster::new(&[("a", 3), ("b", 3)]);
    cluster.run(5).set("a", "Unknown").run(60).went(&[("a0", 5), ("a1", 15), ("a2", 25)]);
}

#[test]
fn evictions_are_called_off_when_the_whole_cluster_fails() {
    let mut cluster = Cluster::new(&[("a", 3), ("b", 2)]);
    cluster.run(5).set("a", "Unknown").run(13).went(&[("a0", 5), ("a1", 15)]);
    cluster.set("b", "Unknown").run(300).went(&[]).tainted(&[]);
    // When one node is back, those that are not go as before; the first after the time of a node.
    cluster.set("b0", "True").run(30);
    let first_review = 320;
    cluster.went(&[("a2", first_review + 10), ("b1", first_review + 10), ("a0", first_review + 20)]);
}

#[test]
fn the_only_node_is_never_evicted() {
    let mut cluster = Cluster::new(&[("", 1)]);
    cluster.run(20).set("", "Unknown").run(300).went(&[]).tainted(&[]);
    cluster.set("", "False").run(300).went(&[]).set("", "True").run(10).went(&[]).tainted(&[]);
}

#[test]
fn taints_from_before_this_program_began_go_when_no_node_is_ready() {
    let mut cluster = Cluster::new(&[("a", 2)]);
    cluster.set("a", "Unknown");
    cluster.retaint("a0", |node| taints::evicting(node, Timestamp::UNIX_EPOCH));
    cluster.run(1).tainted(&[]);
}

#[test]
fn a_taint_that_could_not_be_taken_is_taken_with_the_next_review() {
    let mut cluster = Cluster::new(&[("a", 2)]);
    cluster.set("a", "Unknown");
    cluster.retaint("a0", |node| taints::evicting(node, Timestamp::UNIX_EPOCH));
    let nodes: Vec<_> = cluster.nodes.values().cloned().map(Arc::new).collect();
    for _ in 0..2 {
        assert_eq!(cluster.evictions.review(&nodes, cluster.start).spare, ["a0"]);
    }
}

#[test]
fn an_excluded_node_is_evicted_but_says_nothing_about_its_zone() {
    let mut cluster = Cluster::new(&[("a", 2), ("b", 1)]);
    let label = ["metadata", "labels", "node.kubernetes.io/exclude-disruption"];
    cluster.nodes.get_mut("b0").unwrap().set(&label, "");
    cluster.run(5).set("a", "Unknown").set("b", "Unknown").run(60).went(&[("b0", 5)]);
}
