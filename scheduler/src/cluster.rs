//! The picture that decisions are made on: nodes, and the pods on them, assumed ones included.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::Key;
use compact_str::CompactString;
use placement::{HostPorts, Labels, NodeView, Resources};

use crate::pod::Pod;

/// A node and what runs on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) view: NodeView,
    pub(crate) pods: HashMap<Key, Arc<Pod>>,
    pub(crate) used: Resources,
    /// What is used, with a guess for pods that ask for nothing: what scores go by.
    pub(crate) weighed: Resources,
}

/// Asked for by nobody, so counted as this much by the scores.
const GUESS_MILLI_CPU: i64 = 100;
const GUESS_MEMORY: i64 = 200 * 1024 * 1024;

/// What a pod weighs in scores.
pub(crate) fn weight(pod: &Pod) -> Resources {
    let mut asked = pod.view.requests.clone();
    if asked.milli_cpu == 0 {
        asked.milli_cpu = GUESS_MILLI_CPU;
    }
    if asked.memory == 0 {
        asked.memory = GUESS_MEMORY;
    }
    asked
}

impl Node {
    fn add(&mut self, pod: Arc<Pod>) {
        self.used.add(&pod.view.requests);
        self.weighed.add(&weight(&pod));
        self.pods.insert(pod.key.clone(), pod);
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Pod>> {
        let pod = self.pods.remove(key)?;
        self.used.subtract(&pod.view.requests);
        self.weighed.subtract(&weight(&pod));
        Some(pod)
    }

    /// Whether the ports are free.
    pub(crate) fn has_free(&self, ports: &HostPorts) -> bool {
        ports.0.is_empty() || !self.pods.values().any(|p| p.view.ports.conflicts(ports))
    }
}

/// The picture.
#[derive(Default)]
pub(crate) struct Cluster {
    /// Nodes by name, those that exist and those that only have pods so far.
    nodes: BTreeMap<CompactString, (bool, Node)>,
    /// Where each pod is.
    places: HashMap<Key, CompactString>,
    /// Labels of namespaces.
    pub(crate) namespaces: HashMap<CompactString, Labels>,
    /// Volumes promised to claims that are not bound yet.
    pub(crate) promised: HashMap<CompactString, Key>,
}

impl Cluster {
    /// The nodes that exist.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|(exists, _)| *exists).map(|(_, node)| node)
    }

    /// A node that exists.
    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name).filter(|(exists, _)| *exists).map(|(_, node)| node)
    }

    /// Puts a node in, or brings it up to date. Returns whether anything that matters changed.
    pub(crate) fn set_node(&mut self, view: NodeView) -> bool {
        let (exists, node) = self.nodes.entry(view.name.clone()).or_default();
        if *exists && node.view == view {
            return false;
        }
        (*exists, node.view) = (true, view);
        true
    }

    /// Takes a node out; its pods stay known until they go themselves.
    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Some((exists, node)) = self.nodes.get_mut(name) {
            *exists = false;
            if node.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Puts a pod on the node it names, in place of what was known of it.
    pub(crate) fn place(&mut self, pod: Arc<Pod>) {
        self.remove(&pod.key);
        let name = pod.view.node_name.clone();
        self.places.insert(pod.key.clone(), name.clone());
        self.nodes.entry(name).or_default().1.add(pod);
    }

    /// Takes a pod off its node.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Pod>> {
        let name = self.places.remove(key)?;
        let (exists, node) = self.nodes.get_mut(&name)?;
        let pod = node.remove(key);
        if !*exists && node.pods.is_empty() {
            self.nodes.remove(&name);
        }
        pod
    }

    /// Whether the pod is on a node, or assumed to be.
    pub(crate) fn holds(&self, pod: &Pod) -> bool {
        let place = self.places.get(&pod.key).and_then(|n| self.nodes.get(n));
        place.and_then(|(_, n)| n.pods.get(&pod.key)).is_some_and(|p| p.uid == pod.uid)
    }

    /// Labels of a namespace.
    pub(crate) fn labels_of(&self, namespace: &str) -> Option<Labels> {
        self.namespaces.get(namespace).cloned()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use api::{Value, object};

    pub(crate) fn node(name: &str, labels: Value) -> NodeView {
        NodeView::of(&object!({
            "metadata": {"name": name, "labels": labels},
            "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}},
        }))
    }

    pub(crate) fn pod(name: &str, spec: Value) -> Arc<Pod> {
        labelled(name, object!({}), spec)
    }

    pub(crate) fn labelled(name: &str, labels: Value, spec: Value) -> Arc<Pod> {
        let meta = object!({"namespace": "d", "name": name, "uid": name, "labels": labels});
        Arc::new(Pod::of(&object!({"metadata": meta, "spec": spec})).unwrap())
    }

    #[test]
    fn usage_follows_the_pods() {
        let mut cluster = Cluster::default();
        cluster.set_node(node("n", object!({})));
        let asks = object!({"nodeName": "n", "containers": [{"resources": {"requests": {"cpu": "1"}}}]});
        let p = pod("p", asks);
        cluster.place(Arc::clone(&p));
        cluster.place(Arc::clone(&p));
        assert_eq!(cluster.node("n").unwrap().used.milli_cpu, 1000);
        assert!(cluster.holds(&p));
        cluster.remove(&p.key);
        assert_eq!(cluster.node("n").unwrap().used.milli_cpu, 0);
        assert!(!cluster.holds(&p));
    }
}
