//! Which labels a kubelet may give its node: a label could bring workloads there that belong elsewhere.

use api::Value;

/// Labels below kubernetes.io that kubelets set.
const OWN: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// The labels that differ and are not a kubelet's to change, in order.
pub(super) fn forbidden<'n>(new: &'n Value, old: &'n Value) -> Vec<&'n str> {
    let (new, old) = (new.at(&["metadata", "labels"]), old.at(&["metadata", "labels"]));
    let all = [new, old].into_iter().filter_map(Value::as_object).flat_map(|labels| labels.iter());
    let changed = all.map(|(key, _)| key).filter(|key| new.get(key) != old.get(key));
    let mut forbidden: Vec<&str> = changed.filter(|key| is_forbidden(key)).collect();
    forbidden.sort_unstable();
    forbidden.dedup();
    forbidden
}

fn is_forbidden(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    let within =
        |of: &str| domain.strip_suffix(of).is_some_and(|below| below.is_empty() || below.ends_with('.'));
    if within("node-restriction.kubernetes.io") {
        return true;
    }
    let kubelets = within("kubelet.kubernetes.io") || within("node.kubernetes.io") || OWN.contains(&label);
    (within("kubernetes.io") || within("k8s.io")) && !kubelets
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    #[test]
    fn labels_of_the_project_are_not_a_kubelets_to_change() {
        let node = |labels: Value| object!({"metadata": {"labels": labels}});
        let new = node(object!({
            "kubernetes.io/os": "linux", "node.kubernetes.io/x": "1", "a.kubelet.kubernetes.io/x": "1", "mine": "1",
            "example.com/x": "1", "notkubernetes.io/x": "1", "kept.k8s.io/x": "1",
            "node-restriction.kubernetes.io/x": "1", "x.node-restriction.kubernetes.io/x": "1", "foo.k8s.io/x": "1",
        }));
        let old = node(object!({"kept.k8s.io/x": "1", "gone.kubernetes.io/x": "1", "gone": "1"}));
        let want = [
            "foo.k8s.io/x",
            "gone.kubernetes.io/x",
            "node-restriction.kubernetes.io/x",
            "x.node-restriction.kubernetes.io/x",
        ];
        assert_eq!(forbidden(&new, &old), want);
        assert!(forbidden(&old, &old).is_empty());
    }
}
