//! Making room for a pod by having less important ones go.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::filter::{Filter, Rejection};
use crate::pod::Pod;
use crate::volumes::Claims;

/// A node and the pods that would have to go there.
#[derive(Debug)]
pub(crate) struct Victims {
    pub(crate) node: String,
    pub(crate) pods: Vec<Arc<Pod>>,
}

/// The best node to make room on, or upstream's sentence about why there is none.
pub(crate) fn preempt(
    cluster: &mut Cluster,
    pod: &Pod,
    claims: &Claims,
    rejections: &[(String, Rejection)],
) -> Result<Victims, String> {
    let total = rejections.len();
    if pod.never_preempts {
        return Err("preemption: not eligible due to preemptionPolicy=Never.".to_owned());
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut candidates = Vec::new();
    for (name, rejection) in rejections {
        if !rejection.resolvable {
            *counts.entry("Preemption is not helpful for scheduling").or_default() += 1;
            continue;
        }
        match victims(cluster, pod, claims, name) {
            Some(victims) => candidates.push(victims),
            None => {
                let why = "No preemption victims found for incoming pod";
                *counts.entry(why).or_default() += 1;
            }
        }
    }
    // Least harm: the lowest highest priority, the lowest sum of priorities, the fewest pods, the youngest of the highest.
    let harm = |v: &Victims| {
        let highest = v.pods.iter().map(|p| p.priority).max().unwrap_or(i64::MIN);
        let sum: i64 = v.pods.iter().map(|p| p.priority.saturating_add(1 << 31)).sum();
        let started = v.pods.iter().filter(|p| p.priority == highest).map(|p| p.created).min();
        (highest, sum, v.pods.len(), Reverse(started))
    };
    candidates.into_iter().min_by_key(harm).ok_or_else(|| {
        let texts: Vec<String> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        let list = if texts.is_empty() { String::new() } else { format!(" {}.", texts.join(", ")) };
        format!("preemption: 0/{total} nodes are available:{list}")
    })
}

/// The fewest pods of lower priority whose going makes the pod fit on the node.
fn victims(cluster: &mut Cluster, pod: &Pod, claims: &Claims, name: &str) -> Option<Victims> {
    let mut lower: Vec<Arc<Pod>> =
        cluster.node(name)?.pods.values().filter(|p| p.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    for p in &lower {
        cluster.remove(&p.key);
    }
    let fits = |cluster: &Cluster| {
        let node = cluster.node(name)?;
        Filter::new(cluster, pod, claims).node(cluster, node).ok()
    };
    let possible = fits(cluster).is_some();
    // Those that matter most come back first, as long as there is room.
    lower.sort_by_key(|p| (Reverse(p.priority), p.created));
    let mut gone = Vec::new();
    for p in &lower {
        cluster.place(Arc::clone(p));
        if possible && fits(cluster).is_none() {
            cluster.remove(&p.key);
            gone.push(Arc::clone(p));
        }
    }
    for p in &gone {
        cluster.place(Arc::clone(p));
    }
    (possible && !gone.is_empty()).then(|| Victims { node: name.to_owned(), pods: gone })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{node, pod};
    use crate::queue::Plugin;
    use api::object;

    #[test]
    fn the_least_important_that_suffice_go() {
        let mut cluster = Cluster::default();
        cluster.set_node(node("n", object!({})));
        let asks = |cpu: &str, priority: i64, place: &str| {
            object!({
                "nodeName": place, "priority": priority,
                "containers": [{"resources": {"requests": {"cpu": cpu}}}],
            })
        };
        cluster.place(pod("low", asks("1", 1, "n")));
        cluster.place(pod("middle", asks("1", 5, "n")));
        let rejection = Rejection { plugin: Plugin::Room, reasons: Vec::new(), resolvable: true };
        let rejections = [("n".to_owned(), rejection)];
        let important = pod("new", asks("1", 9, ""));
        let victims = preempt(&mut cluster, &important, &Claims::default(), &rejections).unwrap();
        assert_eq!(victims.pods.iter().map(|p| p.key.name()).collect::<Vec<_>>(), ["low"]);
        assert_eq!(cluster.node("n").unwrap().pods.len(), 2, "nobody has gone yet");
        let humble = pod("new", asks("1", 1, ""));
        assert_eq!(
            preempt(&mut cluster, &humble, &Claims::default(), &rejections).unwrap_err(),
            "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        );
    }
}
