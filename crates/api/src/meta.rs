//! Names of types and objects: group, version, kind and resource, and views of an object's metadata.

use std::fmt;

use crate::value::Value;

/// A group and version, such as `apps/v1`; the core group is empty and prints as `v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// API group; empty for the core group.
    pub group: String,
    /// Version within the group.
    pub version: String,
}

impl GroupVersion {
    /// Joins a group and a version.
    pub fn new(group: impl Into<String>, version: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into() }
    }

    /// Reads an `apiVersion`: `v1` or `apps/v1`.
    pub fn parse(api_version: &str) -> Option<Self> {
        match api_version.split_once('/') {
            None if api_version.is_empty() => None,
            None => Some(Self::new("", api_version)),
            Some((g, v)) if !g.is_empty() && !v.is_empty() && !v.contains('/') => Some(Self::new(g, v)),
            Some(_) => None,
        }
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.version)
        } else {
            write!(f, "{}/{}", self.group, self.version)
        }
    }
}

/// The metadata of any object, by the field names of `ObjectMeta`.
impl Value {
    /// `apiVersion`.
    pub fn api_version(&self) -> &str {
        self.str_at(&["apiVersion"])
    }
    /// `kind`.
    pub fn kind(&self) -> &str {
        self.str_at(&["kind"])
    }
    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.str_at(&["metadata", "name"])
    }
    /// `metadata.namespace`; empty for objects of the cluster.
    pub fn namespace(&self) -> &str {
        self.str_at(&["metadata", "namespace"])
    }
    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.str_at(&["metadata", "uid"])
    }
    /// `metadata.resourceVersion`.
    pub fn resource_version(&self) -> &str {
        self.str_at(&["metadata", "resourceVersion"])
    }
    /// The value of the label `key`.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.at(&["metadata", "labels"]).get(key).as_str()
    }
    /// The value of the annotation `key`.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.at(&["metadata", "annotations"]).get(key).as_str()
    }
    /// True once the object is being deleted.
    pub fn is_terminating(&self) -> bool {
        !self.at(&["metadata", "deletionTimestamp"]).is_null()
    }
}
