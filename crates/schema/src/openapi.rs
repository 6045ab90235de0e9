//! OpenAPI documents: what kubectl explains, completes and validates with.
//!
//! Documents are made from the types, their descriptions and the caller's table of resources ([`Resource`]). Nothing is
//! kept: descriptions are unpacked when a document is made and dropped after, so that a server which nobody asks pays
//! for nothing. Callers keep the bytes, and make them again when the resources change.
//!
//! [`v3`] makes the document of one group and version, [`v2`] the one of everything; [`gnostic()`] encodes the latter as
//! protobuf.
//!
// DIVERGES: version 2 repeats parameters where upstream refers to shared ones named by hashes.

use api::{Map, Value, object};

mod custom;
mod definitions;
mod descriptions;
mod gnostic;
mod operations;
mod parameters;

pub use gnostic::gnostic;

use definitions::Definitions;
use descriptions::Descriptions;

/// One row of the table of resources: a resource or a subresource of one group and version.
#[derive(Clone, Debug, Default)]
pub struct Resource<'a> {
    /// API group; empty for core.
    pub group: &'a str,
    /// Version.
    pub version: &'a str,
    /// `pods`, or `pods/status`.
    pub name: &'a str,
    /// Lives in a namespace.
    pub namespaced: bool,
    /// Kind of the objects that are sent and answered: `Pod`, `Eviction`, `Scale`.
    pub kind: &'a str,
    /// Group and version of that kind where they are not the resource's own.
    pub of: Option<(&'a str, &'a str)>,
    /// Verbs: `create`, `delete`, `deletecollection`, `get`, `list`, `patch`, `update`, `watch`.
    pub verbs: &'a [&'a str],
    /// What a subresource that connects takes.
    pub connect: Option<Connect<'a>>,
    /// Name of a type whose fields are query parameters of GET, and whether the answer is plain text: logs.
    pub options: Option<&'a str>,
    /// A custom resource, or a subresource of one.
    pub custom: bool,
    /// The schema of a custom resource.
    pub schema: Option<&'a Value>,
    /// Fields by which objects of a custom resource can be selected: `spec.size`.
    pub selectable: Vec<&'a str>,
}

/// A subresource that connects to something: exec, proxy.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    /// Name of the type whose fields are the query parameters: `core/v1.PodExecOptions`.
    pub options: &'a str,
    /// HTTP methods, in capitals.
    pub methods: &'a [&'a str],
    /// Anything may follow in the path.
    pub with_path: bool,
}

/// Which document is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    V2,
    V3,
}

impl Format {
    fn reference(self, definition: &str) -> Value {
        let prefix = match self {
            Format::V2 => "#/definitions/",
            Format::V3 => "#/components/schemas/",
        };
        object!({"$ref": (format!("{prefix}{definition}"))})
    }
}

/// Title and version of documents, and of those of custom resources.
const TITLE: (&str, &str) = ("Kubernetes", "unversioned");
const CUSTOM_TITLE: (&str, &str) = ("Kubernetes CRD Swagger", "v0.1.0");

/// The version 3 document of one group and version.
pub fn v3(group: &str, version: &str, resources: &[Resource<'_>]) -> Value {
    let descriptions = Descriptions::load();
    let mut definitions =
        Definitions::new(Format::V3, &descriptions, vec![(group.to_owned(), version.to_owned())]);
    let rows: Vec<&Resource<'_>> =
        resources.iter().filter(|r| r.group == group && r.version == version).collect();
    let mut paths = Map::new();
    operations::add_version(&mut paths, &mut definitions, group, version, &rows);
    paths.sort_keys();
    let mut components = object!({"schemas": (definitions.finish())});
    let custom = rows.iter().any(|row| row.custom);
    let (title, number) = if custom { CUSTOM_TITLE } else { TITLE };
    if !custom {
        components.set(&["securitySchemes"], security());
    }
    object!({
        "openapi": "3.0.0",
        "info": {"title": title, "version": number},
        "paths": paths,
        "components": components,
    })
}

/// The version 2 document of all resources.
pub fn v2(resources: &[Resource<'_>]) -> Value {
    let descriptions = Descriptions::load();
    let mut versions: Vec<(String, String)> = Vec::new();
    for r in resources {
        let version = (r.group.to_owned(), r.version.to_owned());
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    let mut definitions = Definitions::new(Format::V2, &descriptions, versions.clone());
    let mut paths = Map::new();
    for (group, version) in &versions {
        let rows: Vec<&Resource<'_>> =
            resources.iter().filter(|r| r.group == group && r.version == version).collect();
        operations::add_version(&mut paths, &mut definitions, group, version, &rows);
    }
    paths.sort_keys();
    object!({
        "swagger": "2.0",
        "info": {"title": (TITLE.0), "version": (TITLE.1)},
        "paths": paths,
        "definitions": (definitions.finish()),
        "securityDefinitions": (security()),
        "security": [{"BearerToken": []}],
    })
}

fn security() -> Value {
    object!({"BearerToken": {
        "description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey",
    }})
}

/// The path under which the document of a group and version is found: `api/v1`, `apis/apps/v1`.
pub fn v3_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

#[cfg(test)]
mod tests;
