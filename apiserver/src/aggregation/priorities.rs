//! Where groups and versions that this server serves itself stand in discovery: the higher, the earlier.
//!
//! Source: upstream's `cmd/kube-apiserver/app/aggregator.go`.

/// Groups of custom resources.
pub const CUSTOM_GROUP: i64 = 1000;
/// Versions of custom resources, which are then in order of their names.
pub const CUSTOM_VERSION: i64 = 100;

/// A group, its priority, and those of its versions.
type Group = (&'static str, i64, &'static [(&'static str, i64)]);

const BUILT_IN: &[Group] = &[
    ("", 18_000, &[("v1", 1)]),
    ("apps", 17_800, &[("v1", 15)]),
    ("events.k8s.io", 17_750, &[("v1", 15)]),
    ("authentication.k8s.io", 17_700, &[("v1", 15)]),
    ("authorization.k8s.io", 17_600, &[("v1", 15)]),
    ("autoscaling", 17_500, &[("v1", 15), ("v2", 30)]),
    ("batch", 17_400, &[("v1", 15)]),
    ("certificates.k8s.io", 17_300, &[("v1", 15)]),
    ("networking.k8s.io", 17_200, &[("v1", 15), ("v1beta1", 9)]),
    ("policy", 17_100, &[("v1", 15)]),
    ("rbac.authorization.k8s.io", 17_000, &[("v1", 15)]),
    ("storage.k8s.io", 16_800, &[("v1", 15), ("v1beta1", 9)]),
    ("apiextensions.k8s.io", 16_700, &[("v1", 15)]),
    ("admissionregistration.k8s.io", 16_700, &[("v1", 15), ("v1beta1", 12), ("v1alpha1", 9)]),
    ("scheduling.k8s.io", 16_600, &[("v1", 15)]),
    ("coordination.k8s.io", 16_500, &[("v1", 15)]),
    ("node.k8s.io", 16_300, &[("v1", 15)]),
    ("discovery.k8s.io", 16_200, &[("v1", 15)]),
    ("resource.k8s.io", 16_200, &[("v1", 21)]),
    ("flowcontrol.apiserver.k8s.io", 16_100, &[("v1", 21)]),
    ("storagemigration.k8s.io", 15_800, &[("v1beta1", 9)]),
];

/// The priorities of a built-in group and its version. None for the group of APIServices, which has none and is always
/// the first.
pub fn built_in_priority(group: &str, version: &str) -> Option<(i64, i64)> {
    let (_, priority, versions) = BUILT_IN.iter().find(|(g, ..)| *g == group)?;
    let (_, version) = versions.iter().find(|(v, _)| *v == version)?;
    Some((*priority, *version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::TABLE;

    #[test]
    fn every_built_in_version_has_a_priority() {
        for row in TABLE.rows.iter().filter(|r| r.group != "apiregistration.k8s.io") {
            assert!(built_in_priority(row.group, row.version).is_some(), "{}/{}", row.group, row.version);
        }
    }
}
