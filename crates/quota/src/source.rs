//! Which resource a name in a quota counts.

/// `<class>.storageclass.storage.k8s.io/requests.storage`: by storage class.
pub(crate) const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";

/// Counted by number under these names besides `count/<name>`.
const ALIASED: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// The resource whose objects are counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Pods: their number and what they ask for.
    Pods,
    /// Services: their number and what they take of nodes and of the cloud.
    Services,
    /// PersistentVolumeClaims: their number and their storage.
    Claims,
    /// Objects of any other resource: their number.
    Objects {
        /// API group; empty for the core group.
        group: String,
        /// Plural name.
        plural: String,
    },
}

impl Source {
    /// The source that objects of a resource are.
    pub fn of(group: &str, plural: &str) -> Self {
        match (group, plural) {
            ("", "pods") => Source::Pods,
            ("", "services") => Source::Services,
            ("", "persistentvolumeclaims") => Source::Claims,
            _ => Source::Objects { group: group.to_owned(), plural: plural.to_owned() },
        }
    }

    /// The source of the amount with this name; none for a name that nothing counts.
    pub fn counted_as(name: &str) -> Option<Self> {
        if let Some(counted) = name.strip_prefix("count/") {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            return Some(Self::of(group, plural));
        }
        let bare = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
        match name {
            _ if ALIASED.contains(&name) => Some(Self::of("", name)),
            "pods" => Some(Source::Pods),
            "services" | "services.nodeports" | "services.loadbalancers" => Some(Source::Services),
            "persistentvolumeclaims" | "requests.storage" => Some(Source::Claims),
            _ if ["persistentvolumeclaims", "requests.storage"]
                .iter()
                .any(|end| name.strip_suffix(end).is_some_and(|rest| rest.ends_with(STORAGE_CLASS))) =>
            {
                Some(Source::Claims)
            }
            _ if matches!(bare, "cpu" | "memory" | "ephemeral-storage") => Some(Source::Pods),
            _ if bare.starts_with("hugepages-") && !name.starts_with("limits.") => Some(Source::Pods),
            _ if name.starts_with("requests.") && is_extended(bare) => Some(Source::Pods),
            _ => None,
        }
    }

    /// `count/<plural>[.<group>]`.
    pub fn count_name(&self) -> String {
        let (group, plural) = match self {
            Source::Pods => ("", "pods"),
            Source::Services => ("", "services"),
            Source::Claims => ("", "persistentvolumeclaims"),
            Source::Objects { group, plural } => (group.as_str(), plural.as_str()),
        };
        let dot = if group.is_empty() { "" } else { "." };
        format!("count/{plural}{dot}{group}")
    }

    /// The other name of the number of objects, from before there was `count/`.
    pub(crate) fn alias(&self) -> Option<&str> {
        match self {
            Source::Services => Some("services"),
            Source::Objects { group, plural } if group.is_empty() => {
                ALIASED.contains(&plural.as_str()).then_some(plural)
            }
            _ => None,
        }
    }
}

/// Whether a resource of nodes is one that somebody else has defined.
pub(crate) fn is_extended(name: &str) -> bool {
    name.starts_with("deviceclass.resource.kubernetes.io/")
        || (name.contains('/') && !name.contains("kubernetes.io/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_their_source() {
        let objects = |group, plural| Some(Source::of(group, plural));
        for (name, want) in [
            ("count/deployments.apps", objects("apps", "deployments")),
            ("count/widgets.example.com", objects("example.com", "widgets")),
            ("secrets", objects("", "secrets")),
            ("count/pods", Some(Source::Pods)),
            ("limits.cpu", Some(Source::Pods)),
            ("hugepages-2Mi", Some(Source::Pods)),
            ("limits.hugepages-2Mi", None),
            ("requests.nvidia.com/gpu", Some(Source::Pods)),
            ("nvidia.com/gpu", None),
            ("services.nodeports", Some(Source::Services)),
            ("requests.storage", Some(Source::Claims)),
            ("a.storageclass.storage.k8s.io/requests.storage", Some(Source::Claims)),
            ("a.storageclass.storage.k8s.io/limits.storage", None),
        ] {
            assert_eq!(Source::counted_as(name), want, "{name}");
        }
    }
}
