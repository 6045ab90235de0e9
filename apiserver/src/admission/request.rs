//! A write as policies and webhooks see it, and the rules that say which writes they are asked about.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-rules>.

mod criteria;
mod versions;

use std::borrow::Cow;
use std::sync::Arc;

use api::error::Result;
use api::{Value, object};

use super::Operation;
use crate::handlers::{scale_of, user_value};
use crate::registry::Call;
use crate::resources::{Resource, TABLE};
use crate::storage::Stored;

pub(super) use criteria::Criteria;

/// A write as policies and webhooks see it.
pub(super) struct Request<'a> {
    pub call: &'a Call,
    pub operation: Operation,
    pub object: Option<Cow<'a, Value>>,
    pub old: Option<Cow<'a, Value>>,
    /// The namespace that the object is in.
    pub home: Option<Arc<Stored>>,
}

impl Operation {
    /// How many there are.
    pub(crate) const COUNT: usize = 4;

    /// The name that rules use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

impl<'a> Request<'a> {
    pub(super) async fn new(
        call: &'a Call,
        operation: Operation,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> Result<Self> {
        let seen = |object: Option<&'a Value>| {
            object.map(|o| match call.subresource.as_str() {
                "scale" => Cow::Owned(scale_of(&call.row, o)),
                _ => Cow::Borrowed(o),
            })
        };
        let mut request = Self { call, operation, object: seen(object), old: seen(old), home: None };
        if !request.is_namespace() && !request.namespace().is_empty() {
            let storage = &call.server.storage;
            let cache = storage.cache(TABLE.store("", "namespaces"));
            request.home = cache.get(request.namespace());
            if request.home.is_none() {
                // The cache may be behind.
                storage.catch_up().await?;
                request.home = cache.get(request.namespace());
            }
        }
        Ok(request)
    }

    /// True for requests to namespaces themselves.
    fn is_namespace(&self) -> bool {
        self.call.row.group.is_empty() && self.call.row.built_in() == "namespaces"
    }

    /// Name of the object; empty where it has none, and where a whole collection is deleted.
    pub(super) fn name(&self) -> &str {
        match (self.call.name.as_str(), &self.object) {
            _ if self.call.verb == "deletecollection" => "",
            ("", Some(object)) => object.name(),
            (name, _) => name,
        }
    }

    /// Namespace of the object; that of a namespace is itself.
    pub(super) fn namespace(&self) -> &str {
        if self.is_namespace() { self.name() } else { &self.call.namespace }
    }

    /// The resource of the request, for expressions that ask about access to it.
    pub(super) fn attributes(&self) -> cel::Attributes {
        cel::Attributes {
            group: self.call.row.group.into(),
            resource: self.call.row.plural.into(),
            subresource: self.call.subresource.as_str().into(),
            namespace: self.namespace().into(),
            name: self.name().into(),
            ..cel::Attributes::default()
        }
    }

    /// The `AdmissionRequest` without the objects, as `row` shows it.
    pub(super) fn describe(&self, row: &Resource) -> Value {
        let (call, part) = (self.call, self.call.subresource.as_str());
        let mut out = object!({
            "kind": (kind(row, part)), "resource": (resource(row)),
            "requestKind": (kind(&call.row, part)), "requestResource": (resource(&call.row)),
            "operation": (self.operation.name()), "userInfo": (user_value(&call.user)), "dryRun": (call.write.dry_run),
            "options": (self.options()),
        });
        let texts = [
            ("name", self.name()),
            ("namespace", self.namespace()),
            ("subResource", part),
            ("requestSubResource", part),
        ];
        for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            out.set(&[field], text);
        }
        out
    }

    fn options(&self) -> Value {
        let (write, kind) = (
            &self.call.write,
            match self.operation {
                Operation::Create => "CreateOptions",
                Operation::Update => "UpdateOptions",
                Operation::Delete => "DeleteOptions",
                Operation::Connect => return Value::Null,
            },
        );
        let mut options = object!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if write.dry_run {
            options.set(&["dryRun"], vec!["All"]);
        }
        if self.operation != Operation::Delete {
            if write.manager_given {
                options.set(&["fieldManager"], write.manager.as_str());
            }
            match write.validation {
                schema::decode::Mode::Strict => options.set(&["fieldValidation"], "Strict"),
                schema::decode::Mode::Ignore => options.set(&["fieldValidation"], "Ignore"),
                schema::decode::Mode::Warn => {}
            }
        }
        options
    }
}

fn kind(row: &Resource, part: &str) -> Value {
    let sub = row.subresource(part);
    let (group, version) = sub.and_then(|s| s.group_version).unwrap_or((row.group, row.version));
    object!({"group": group, "version": version, "kind": (sub.map_or(row.kind, |s| s.kind))})
}

fn resource(row: &Resource) -> Value {
    object!({"group": (row.group), "version": (row.version), "resource": (row.plural)})
}
