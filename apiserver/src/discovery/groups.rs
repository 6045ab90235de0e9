//! All groups and versions, of this server and of others, in the order in which clients prefer them.

use std::sync::Arc;

use api::{Value, object};

use crate::aggregation::discovery::{Listed, Listing};
use crate::aggregation::{CUSTOM_GROUP, CUSTOM_VERSION, built_in_priority};
use crate::custom::compare_versions;
use crate::resources::Row;

/// The group of APIServices is before all others, which can have 20000 at most.
const FIRST: i64 = 20_001;

/// A group.
pub(super) struct Group {
    pub(super) name: String,
    priority: i64,
    pub(super) versions: Vec<Version>,
}

/// A version of a group.
pub(super) struct Version {
    pub(super) name: String,
    priority: i64,
    /// Another server's resources, and whether they are stale; none for what is served here.
    pub(super) remote: Option<(Arc<Vec<Value>>, bool)>,
}

// DIVERGES: what is served here stands where upstream puts it by default, also when its APIService says otherwise.
/// The named groups; a version that another server is registered for is that server's.
pub(super) fn groups(rows: &[Row], listing: &Listing) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for row in rows.iter().filter(|r| !r.group.is_empty()) {
        let here = built_in_priority(row.group, row.version);
        let priorities = match &row.custom {
            Some(_) => (CUSTOM_GROUP, CUSTOM_VERSION),
            None => here.unwrap_or((FIRST, 0)),
        };
        add(&mut groups, (row.group, row.version), priorities, None);
    }
    for Listed { group, version, group_priority, version_priority, resources, stale } in &listing.versions {
        let remote = Some((resources.clone(), *stale));
        add(&mut groups, (group, version), (*group_priority, *version_priority), remote);
    }
    for group in &mut groups {
        group
            .versions
            .sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| compare_versions(&a.name, &b.name)));
    }
    groups.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name)));
    groups
}

fn add(
    groups: &mut Vec<Group>,
    (group, version): (&str, &str),
    (group_priority, priority): (i64, i64),
    remote: Option<(Arc<Vec<Value>>, bool)>,
) {
    let at = groups.iter().position(|g| g.name == group).unwrap_or_else(|| {
        groups.push(Group { name: group.to_owned(), priority: group_priority, versions: Vec::new() });
        groups.len() - 1
    });
    let found = &mut groups[at];
    found.priority = found.priority.max(group_priority);
    let present = found.versions.iter_mut().find(|v| v.name == version);
    match (present, remote) {
        (Some(_), None) => {}
        (Some(present), remote) => (present.priority, present.remote) = (priority, remote),
        (None, remote) => found.versions.push(Version { name: version.to_owned(), priority, remote }),
    }
}

impl Group {
    /// The members of an APIGroup.
    pub(super) fn describe(&self) -> Value {
        let name = &self.name;
        let versions: Vec<Value> = self
            .versions
            .iter()
            .map(|v| object!({"groupVersion": (format!("{name}/{}", v.name)), "version": (v.name.as_str())}))
            .collect();
        let preferred = versions.first().cloned().unwrap_or_default();
        object!({"name": (name.as_str()), "versions": versions, "preferredVersion": preferred})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::TABLE;

    fn listed(group: &str, version: &str, group_priority: i64, version_priority: i64) -> Listed {
        Listed {
            group: group.to_owned(),
            version: version.to_owned(),
            group_priority,
            version_priority,
            resources: Arc::default(),
            stale: false,
        }
    }

    #[test]
    fn groups_of_others_stand_among_ours_by_priority() {
        let versions = vec![
            listed("metrics.k8s.io", "v1beta1", 100, 100),
            listed("early.example.com", "v1", 17_790, 10),
            listed("early.example.com", "v2", 17_000, 10),
            listed("apps", "v1", 17_800, 15),
        ];
        let all = groups(&TABLE.rows, &Listing { serial: 1, versions });
        let names: Vec<&str> = all.iter().map(|g| g.name.as_str()).collect();
        assert_eq!(names[..4], ["apiregistration.k8s.io", "apps", "early.example.com", "events.k8s.io"]);
        assert_eq!(names.last(), Some(&"metrics.k8s.io"));
        let versions: Vec<&str> = all[2].versions.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(versions, ["v2", "v1"]);
        assert!(all[1].versions[0].remote.is_some());
    }

    #[test]
    fn our_own_groups_are_in_the_order_of_the_table() {
        let mut rows: Vec<&str> = TABLE.rows.iter().map(|r| r.group).filter(|g| !g.is_empty()).collect();
        rows.dedup();
        let all = groups(&TABLE.rows, &Listing::default());
        assert_eq!(all.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(), rows);
    }
}
