//! Which nodes a pod fits on, and why not on the others.

use std::collections::BTreeMap;

use placement::{fits, matches_affinity, schedulable, tolerates};

use crate::cluster::{Cluster, Node};
use crate::pod::Pod;
use crate::queue::Plugin;
use crate::relations::Judge;
use crate::volumes::{Choice, Claims};

/// Why a node was turned down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) plugin: Plugin,
    pub(crate) reasons: Vec<String>,
    /// Whether it could help to make other pods go.
    pub(crate) resolvable: bool,
}

impl Rejection {
    fn of(plugin: Plugin, reason: impl ToString, resolvable: bool) -> Self {
        Self { plugin, reasons: vec![reason.to_string()], resolvable }
    }
}

/// What stands for all nodes while one pod is looked at.
pub(crate) struct Filter<'p> {
    pub(crate) pod: &'p Pod,
    pub(crate) claims: &'p Claims,
    judge: Judge<'p>,
}

impl<'p> Filter<'p> {
    pub(crate) fn new(cluster: &Cluster, pod: &'p Pod, claims: &'p Claims) -> Self {
        Self { pod, claims, judge: Judge::new(cluster, pod) }
    }

    /// Judges one node: what to do about volumes there, or why not.
    pub(crate) fn node(&self, cluster: &Cluster, node: &Node) -> Result<Vec<Choice>, Rejection> {
        let view = &self.pod.view;
        let fixed = |reason: placement::Reason| Rejection::of(Plugin::Node, reason, false);
        schedulable(view, &node.view).map_err(fixed)?;
        tolerates(view, &node.view).map_err(fixed)?;
        matches_affinity(view, &node.view).map_err(fixed)?;
        if !node.has_free(&view.ports) {
            return Err(Rejection::of(Plugin::Room, placement::Reason::Ports, true));
        }
        let short = fits(view, &node.view, &node.used, node.pods.len());
        if !short.is_empty() {
            let reasons = short.iter().map(ToString::to_string).collect();
            // No pod's going makes a node larger.
            let alone = fits(view, &node.view, &placement::Resources::default(), 0).is_empty();
            return Err(Rejection { plugin: Plugin::Room, reasons, resolvable: alone });
        }
        let choices = self.claims.on_node(&node.view, cluster, &self.pod.key);
        let choices = choices.map_err(|reason| Rejection::of(Plugin::Volumes, reason, false))?;
        match self.judge.reason(&node.view) {
            Some(reason) => Err(Rejection::of(Plugin::Relations, reason, true)),
            None => Ok(choices),
        }
    }
}

/// `0/3 nodes are available: 1 node(s) ..., 2 Insufficient cpu.`, as upstream writes it.
pub(crate) fn message(total: usize, rejections: &[Rejection]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in rejections.iter().flat_map(|r| &r.reasons) {
        *counts.entry(reason).or_default() += 1;
    }
    let mut texts: Vec<String> = counts.into_iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    texts.sort();
    match texts.len() {
        0 => format!("0/{total} nodes are available:"),
        _ => format!("0/{total} nodes are available: {}.", texts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{node, pod};
    use api::{Value, object};

    #[test]
    fn reasons_read_as_upstream() {
        let rejection = |reasons: &[&str]| Rejection {
            plugin: Plugin::Room,
            reasons: reasons.iter().map(|r| (*r).to_owned()).collect(),
            resolvable: true,
        };
        let all = [rejection(&["Insufficient cpu", "Insufficient memory"]), rejection(&["Insufficient cpu"])];
        assert_eq!(message(2, &all), "0/2 nodes are available: 1 Insufficient memory, 2 Insufficient cpu.");
        assert_eq!(message(0, &[]), "0/0 nodes are available:");
    }

    #[test]
    fn a_node_is_judged_in_order() {
        let mut cluster = Cluster::default();
        cluster.set_node(node("n", object!({"zone": "a"})));
        let port = object!({"containers": [{"ports": [{"containerPort": 80, "hostPort": 80}]}]});
        let mut placed = port.clone();
        placed.set(&["nodeName"], "n");
        cluster.place(pod("there", placed));
        let check = |spec: Value, want: Option<(&str, bool)>| {
            let pod = pod("new", spec.clone());
            let claims = Claims::default();
            let filter = Filter::new(&cluster, &pod, &claims);
            let got = filter.node(&cluster, cluster.node("n").unwrap());
            let got = got.err().map(|r| (r.reasons[0].clone(), r.resolvable));
            assert_eq!(got, want.map(|(w, r)| (w.to_owned(), r)), "{spec}");
        };
        check(object!({}), None);
        check(port, Some(("node(s) didn't have free ports for the requested pod ports", true)));
        let selector = object!({"nodeSelector": {"zone": "b"}});
        check(selector, Some(("node(s) didn't match Pod's node affinity/selector", false)));
        let huge = object!({"containers": [{"resources": {"requests": {"cpu": "64"}}}]});
        check(huge, Some(("Insufficient cpu", false)));
    }
}
