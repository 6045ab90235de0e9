//! Custom resources: rows of the table of resources that come and go with CustomResourceDefinitions.
//!
//! A [`CustomKind`] is made of a definition whenever its spec or its accepted names change; it has a cache of its own
//! and the rows of its served versions. [`CustomResources`] is what is served at the moment. The feed of the storage
//! brings it up to date between two revisions, so that whoever has seen that a definition is established finds its
//! resource served.
//!
//! Mirrors apiextensions-apiserver's customresource_handler.

mod columns;
pub mod controller;
mod conversion;
mod json_path;
mod kind;
mod scale;
mod served;
mod version;

pub use columns::Column;
pub(crate) use conversion::Conversion;
pub use json_path::JsonPath;
pub use kind::CustomKind;
pub use scale::Scale;
pub use served::{CustomResources, Definition, Served};
pub use version::{Version, compare_versions};

use std::sync::Arc;

use api::Value;

use crate::storage::Cache;

/// The store of the definitions.
pub fn definitions_store() -> usize {
    crate::resources::TABLE.store("apiextensions.k8s.io", "customresourcedefinitions")
}

/// True when a definition has that condition.
pub fn is_true(definition: &Value, condition: &str) -> bool {
    let conditions = definition.array_at(&["status", "conditions"]);
    conditions.iter().any(|c| c.str_at(&["type"]) == condition && c.str_at(&["status"]) == "True")
}

/// What a row of a custom resource has that others have not.
#[derive(Clone)]
pub struct Custom {
    /// The kind, in all its versions.
    pub kind: Arc<CustomKind>,
    /// Its objects.
    pub cache: Arc<Cache>,
    version: usize,
}

impl Custom {
    /// The version of the row.
    pub fn version(&self) -> &Version {
        &self.kind.versions[self.version]
    }

    /// The kind of lists.
    pub fn list_kind(&self) -> &str {
        &self.kind.list_kind
    }

    /// Where the selectable field `label` stands among the values that are kept of each object.
    pub fn field_index(&self, label: &str) -> Option<usize> {
        self.version().fields.iter().find(|(l, _)| l == label).map(|(_, at)| *at)
    }

    /// True when objects can be selected by fields of their own.
    pub fn has_fields(&self) -> bool {
        !self.version().fields.is_empty()
    }
}
