//! The generic registry: reading and writing objects of any kind over storage.
//!
//! The write path of every kind is the same chain: decode and default, field managers, mutating admission, the kind's
//! preparation, validation, validating admission, one guarded transaction. For updates everything but the decoding of
//! the request runs again whenever the object turns out to have changed meanwhile.

mod carry;
mod convert;
mod custom;
mod delete;
mod devices;
mod fields;
mod options;
mod read;
mod rewrite;
mod settle;
mod watch;
mod write;

pub use convert::{from_storage, to_storage};
pub use delete::Deleted;
pub use options::{DeleteOptions, FieldValidation, WriteOptions};
pub use read::{ListOptions, Page, parse_revision};
pub use watch::{Change, WatchOptions, bookmark};

use std::sync::Arc;

use api::error::Result;
use api::{ApiError, Value};
use schema::Ty;

use crate::audit::Trail;
use crate::authn::UserInfo;
use crate::http::Warnings;
use crate::metrics::Elsewhere;
use crate::resources::{Resource, Row};
use crate::server::Server;
use crate::storage::Cache;

/// One request to a resource: who asks, for what, and what to tell them besides.
pub struct Call {
    /// The server.
    pub server: Arc<Server>,
    /// The resource.
    pub row: Row,
    /// Who asks.
    pub user: UserInfo,
    /// Namespace; empty for requests of the cluster.
    pub namespace: String,
    /// Name of the object; empty for collections.
    pub name: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
    /// Verb of the request; empty for what the server does by itself.
    pub verb: &'static str,
    /// Options of writes.
    pub write: WriteOptions,
    /// What the client is told besides the answer.
    pub warnings: Warnings,
    /// What is recorded of the request.
    pub trail: Trail,
    /// Time that the request spends with others.
    pub elsewhere: Elsewhere,
}

impl Call {
    /// A call to a resource.
    pub fn new(server: Arc<Server>, row: &Row, user: UserInfo) -> Self {
        Self {
            server,
            row: row.clone(),
            user,
            namespace: String::new(),
            name: String::new(),
            subresource: String::new(),
            verb: "",
            write: WriteOptions::default(),
            warnings: Warnings::default(),
            trail: Trail::default(),
            elsewhere: Elsewhere::default(),
        }
    }

    /// A call of the server itself, to another resource.
    pub fn internal(&self, row: &Row, namespace: &str, name: &str) -> Self {
        let mut call = Self::new(self.server.clone(), row, UserInfo::server());
        call.namespace = namespace.to_owned();
        call.name = name.to_owned();
        call.write = self.write.clone();
        "kube-apiserver".clone_into(&mut call.write.manager);
        call
    }

    /// Tells the client something in a `Warning` header.
    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.add(text.into());
    }

    /// The type of the resource's objects.
    pub fn ty(&self) -> Ty<'_> {
        schema_of(&self.row)
    }

    fn key(&self) -> String {
        self.row.key(&self.namespace, &self.name)
    }

    fn cache(&self) -> Result<Arc<Cache>> {
        match (&self.row.custom, self.row.store) {
            (Some(custom), _) => Ok(custom.cache.clone()),
            (None, Some(store)) => Ok(self.server.storage.cache(store).clone()),
            (None, None) => Err(ApiError::method_not_allowed(
                "the server does not allow this method on the requested resource",
            )),
        }
    }

    fn not_found(&self) -> ApiError {
        ApiError::not_found(self.row.group, self.row.plural, &self.name)
    }
}

/// The type of a resource's objects.
pub fn schema_of(row: &Resource) -> Ty<'_> {
    if let Some(custom) = &row.custom {
        return custom.version().ty.ty();
    }
    schema::kind(row.group, row.version, row.kind).expect("every row of the table has a schema")
}

/// Sets kind and apiVersion, in front of everything else.
pub fn set_type(object: &mut Value, row: &Resource) {
    let map = object.make_object();
    map.insert("kind", row.kind);
    map.insert("apiVersion", row.api_version());
    map.sort_by_key(|key| match key {
        "kind" => 0,
        "apiVersion" => 1,
        _ => 2,
    });
}
