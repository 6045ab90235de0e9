//! Affinity between pods, and spreading over topologies.

use std::collections::HashMap;

use placement::{NodeView, matches_affinity, tolerates};

use crate::cluster::{Cluster, Node};
use crate::pod::{Pod, PodTerm, Relations, Spread};

pub(crate) const NEAR: &str = "node(s) didn't match pod affinity rules";
pub(crate) const APART: &str = "node(s) didn't match pod anti-affinity rules";
pub(crate) const OTHERS: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
pub(crate) const SPREAD: &str = "node(s) didn't match pod topology spread constraints";
pub(crate) const SPREAD_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";

/// What one look at the whole cluster tells about a pod's relations; then every node is judged by it.
pub(crate) struct Judge<'p> {
    pod: &'p Pod,
    /// For each term of affinity: how many pods it speaks of, by topology value.
    near: Vec<(&'p PodTerm, HashMap<String, i64>)>,
    apart: Vec<(&'p PodTerm, HashMap<String, i64>)>,
    /// Topologies in which a pod is that wants none like this one near.
    shunned: Vec<(String, String)>,
    spread: Vec<(&'p Spread, HashMap<String, i64>)>,
    /// Nobody matches the affinity yet but the pod itself: the first of a group may go anywhere.
    first_of_group: bool,
}

fn counts(cluster: &Cluster, term: &PodTerm) -> HashMap<String, i64> {
    let labels_of = |ns: &str| cluster.labels_of(ns);
    let mut counts = HashMap::new();
    for node in cluster.nodes() {
        let Some(value) = node.view.labels.get(&term.topology) else { continue };
        let found = node.pods.values().filter(|p| !p.terminating && term.matches(p, &labels_of)).count();
        if found > 0 {
            *counts.entry(value.to_owned()).or_default() += i64::try_from(found).unwrap_or(i64::MAX);
        }
    }
    counts
}

/// Pods like the selector's on each eligible domain.
fn domains(cluster: &Cluster, pod: &Pod, spread: &Spread) -> HashMap<String, i64> {
    let mut counts = HashMap::new();
    for node in cluster.nodes().filter(|n| eligible(pod, &n.view, spread)) {
        let Some(value) = node.view.labels.get(&spread.topology) else { continue };
        let like = |p: &&std::sync::Arc<Pod>| {
            !p.terminating
                && p.key.namespace() == pod.key.namespace()
                && spread.selector.matches(|k| p.labels.get(k))
        };
        let found = i64::try_from(node.pods.values().filter(like).count()).unwrap_or(i64::MAX);
        *counts.entry(value.to_owned()).or_default() += found;
    }
    counts
}

fn eligible(pod: &Pod, node: &NodeView, spread: &Spread) -> bool {
    (!spread.honor_affinity || matches_affinity(&pod.view, node).is_ok())
        && (!spread.honor_taints || tolerates(&pod.view, node).is_ok())
}

impl<'p> Judge<'p> {
    pub(crate) fn new(cluster: &Cluster, pod: &'p Pod) -> Self {
        static NONE: Relations =
            Relations { near: Vec::new(), apart: Vec::new(), preferred: Vec::new(), spread: Vec::new() };
        let relations = pod.relations.as_deref().unwrap_or(&NONE);
        let labels_of = |ns: &str| cluster.labels_of(ns);
        let near: Vec<_> = relations.near.iter().map(|t| (t, counts(cluster, t))).collect();
        let first_of_group = near.iter().all(|(_, c)| c.is_empty())
            && relations.near.iter().all(|t| t.matches(pod, &labels_of));
        Self {
            pod,
            first_of_group,
            near,
            apart: relations.apart.iter().map(|t| (t, counts(cluster, t))).collect(),
            shunned: shunned(cluster, pod),
            spread: relations
                .spread
                .iter()
                .filter(|s| s.hard)
                .map(|s| (s, domains(cluster, pod, s)))
                .collect(),
        }
    }

    /// Why the node will not do, if so.
    pub(crate) fn reason(&self, node: &NodeView) -> Option<&'static str> {
        self.spread_reason(node).or_else(|| self.affinity_reason(node))
    }

    fn affinity_reason(&self, node: &NodeView) -> Option<&'static str> {
        for (term, counts) in &self.near {
            let Some(value) = node.labels.get(&term.topology) else { return Some(NEAR) };
            if !counts.contains_key(value) && !self.first_of_group {
                return Some(NEAR);
            }
        }
        let here = |term: &PodTerm, counts: &HashMap<String, i64>| {
            node.labels.get(&term.topology).is_some_and(|v| counts.contains_key(v))
        };
        if self.apart.iter().any(|(term, counts)| here(term, counts)) {
            return Some(APART);
        }
        let shunned = self.shunned.iter().any(|(key, value)| node.labels.get(key) == Some(value.as_str()));
        shunned.then_some(OTHERS)
    }

    fn spread_reason(&self, node: &NodeView) -> Option<&'static str> {
        for (spread, domains) in &self.spread {
            let Some(value) = node.labels.get(&spread.topology) else { return Some(SPREAD_LABEL) };
            let too_few = i64::try_from(domains.len()).unwrap_or(i64::MAX) < spread.min_domains;
            let least = if too_few { 0 } else { domains.values().copied().min().unwrap_or(0) };
            let own = i64::from(spread.selector.matches(|k| self.pod.labels.get(k)));
            let here = domains.get(value).copied().unwrap_or(0);
            if here + own - least > spread.max_skew {
                return Some(SPREAD);
            }
        }
        None
    }
}

/// Topologies of pods whose anti-affinity speaks of this one.
fn shunned(cluster: &Cluster, pod: &Pod) -> Vec<(String, String)> {
    let labels_of = |ns: &str| cluster.labels_of(ns);
    let mut found = Vec::new();
    for node in cluster.nodes() {
        for other in node.pods.values() {
            let Some(relations) = &other.relations else { continue };
            for term in relations.apart.iter().filter(|t| t.matches(pod, &labels_of)) {
                if let Some(value) = node.view.labels.get(&term.topology) {
                    found.push((term.topology.to_string(), value.to_owned()));
                }
            }
        }
    }
    found
}

/// How much the pod, and those already there, would like it to be on each node: the sum of weights.
pub(crate) fn preferences(cluster: &Cluster, pod: &Pod, nodes: &[&Node]) -> Vec<i64> {
    let labels_of = |ns: &str| cluster.labels_of(ns);
    let mut by_topology: HashMap<(String, String), i64> = HashMap::new();
    let own = pod.relations.as_deref();
    for node in cluster.nodes() {
        let mut note = |topology: &str, weight: i64| {
            if let Some(value) = node.view.labels.get(topology) {
                *by_topology.entry((topology.to_owned(), value.to_owned())).or_default() += weight;
            }
        };
        for other in node.pods.values() {
            for (weight, term) in own.iter().flat_map(|r| &r.preferred) {
                if term.matches(other, &labels_of) {
                    note(&term.topology, *weight);
                }
            }
            let Some(theirs) = &other.relations else { continue };
            for (weight, term) in &theirs.preferred {
                if term.matches(pod, &labels_of) {
                    note(&term.topology, *weight);
                }
            }
            // Who needs such pods near is glad of one.
            for term in theirs.near.iter().filter(|t| t.matches(pod, &labels_of)) {
                note(&term.topology, 1);
            }
        }
    }
    let sum = |node: &&Node| {
        let here = |((key, value), weight): (&(String, String), &i64)| {
            (node.view.labels.get(key) == Some(value.as_str())).then_some(*weight)
        };
        by_topology.iter().filter_map(here).sum()
    };
    nodes.iter().map(sum).collect()
}

/// How many pods like it each node's domains hold already, weighed by how rare domains are: fewer is better.
pub(crate) fn crowding(cluster: &Cluster, pod: &Pod, nodes: &[&Node]) -> Vec<f64> {
    let soft: Vec<&Spread> = pod.relations.iter().flat_map(|r| &r.spread).filter(|s| !s.hard).collect();
    if soft.is_empty() {
        // DIVERGES: without constraints upstream spreads by the Services and sets that select the pod; its own siblings
        // by controller make nearly the same picture without four more caches.
        let siblings = |n: &&Node| {
            let alike = |p: &&std::sync::Arc<Pod>| p.owner == pod.owner && !p.terminating;
            n.pods.values().filter(alike).count() as f64
        };
        return if pod.owner.is_empty() {
            vec![0.0; nodes.len()]
        } else {
            nodes.iter().map(siblings).collect()
        };
    }
    let domains: Vec<_> = soft.iter().map(|s| (*s, domains(cluster, pod, s))).collect();
    let crowd = |node: &&Node| {
        let one = |(spread, domains): &(&Spread, HashMap<String, i64>)| {
            let here = node.view.labels.get(&spread.topology).and_then(|v| domains.get(v));
            let rarity = (domains.len() as f64 + 2.0).ln();
            here.map_or(0.0, |n| *n as f64 * rarity + (spread.max_skew - 1) as f64)
        };
        domains.iter().map(one).sum()
    };
    nodes.iter().map(crowd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{labelled, node};
    use api::{Value, object};

    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        for (name, zone) in [("n1", "a"), ("n2", "a"), ("n3", "b")] {
            cluster.set_node(node(name, object!({"zone": zone, "host": name})));
        }
        cluster
    }

    fn on(cluster: &mut Cluster, name: &str, place: &str, mut spec: Value) {
        spec.set(&["nodeName"], place);
        cluster.place(labelled(name, object!({"app": "web"}), spec));
    }

    fn judged(cluster: &Cluster, spec: Value) -> Vec<Option<&'static str>> {
        let pod = labelled("new", object!({"app": "web"}), spec);
        let judge = Judge::new(cluster, &pod);
        cluster.nodes().map(|n| judge.reason(&n.view)).collect()
    }

    fn term(kind: &str, topology: &str) -> Value {
        let terms = object!([{"topologyKey": topology, "labelSelector": {"matchLabels": {"app": "web"}}}]);
        let mut spec = Value::object();
        spec.set(&["affinity", kind, "requiredDuringSchedulingIgnoredDuringExecution"], terms);
        spec
    }

    #[test]
    fn the_first_of_a_group_may_go_anywhere_and_the_rest_follow() {
        let mut c = cluster();
        assert_eq!(judged(&c, term("podAffinity", "zone")), [None, None, None]);
        on(&mut c, "p", "n1", object!({}));
        assert_eq!(judged(&c, term("podAffinity", "zone")), [None, None, Some(NEAR)]);
    }

    #[test]
    fn anti_affinity_holds_in_both_directions() {
        let mut c = cluster();
        on(&mut c, "p", "n1", object!({}));
        assert_eq!(judged(&c, term("podAntiAffinity", "host")), [Some(APART), None, None]);
        let mut c = cluster();
        on(&mut c, "p", "n1", term("podAntiAffinity", "zone"));
        assert_eq!(judged(&c, object!({})), [Some(OTHERS), Some(OTHERS), None]);
    }

    #[test]
    fn pods_spread_within_the_skew() {
        let mut c = cluster();
        let spec = object!({"topologySpreadConstraints": [{
            "topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}},
        }]});
        assert_eq!(judged(&c, spec.clone()), [None, None, None]);
        on(&mut c, "p", "n1", object!({}));
        assert_eq!(judged(&c, spec), [Some(SPREAD), Some(SPREAD), None]);
    }
}
