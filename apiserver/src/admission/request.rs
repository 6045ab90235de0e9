//! A write as policies and webhooks see it, and the rules that say which writes they are asked about.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-rules>.

use std::borrow::Cow;
use std::sync::Arc;

use api::error::Result;
use api::selector::LabelSelector;
use api::{ApiError, Value, object};

use super::Operation;
use crate::handlers::{scale_of, user_value};
use crate::registry::{Call, from_storage, to_storage};
use crate::resources::{Resource, Row, TABLE};
use crate::storage::Stored;

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
    /// The name that rules use.
    pub(super) fn name(self) -> &'static str {
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

    /// Name of the object; empty where it has none.
    pub(super) fn name(&self) -> &str {
        match (self.call.name.as_str(), &self.object) {
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

    /// The other resources that have the same objects.
    fn equivalents(&self) -> Vec<Row> {
        let (row, part) = (&self.call.row, self.call.subresource.as_str());
        let rows: Vec<Row> = if row.custom.is_some() {
            let served = self.call.server.storage.custom().load();
            served.definition(row.group, row.plural).map(|d| d.rows.clone()).unwrap_or_default()
        } else {
            let same = |r: &&Row| r.store.is_some() && r.store == row.store;
            TABLE.rows.iter().filter(same).cloned().collect()
        };
        let other = |r: &Row| (r.group, r.version, r.plural) != (row.group, row.version, row.plural);
        let serves = |r: &Row| part.is_empty() || r.subresource(part).is_some();
        rows.into_iter().filter(|r| other(r) && serves(r)).collect()
    }

    /// The objects as `row` shows them.
    ///
    /// # Errors
    /// When a webhook that converts does not.
    pub(super) async fn seen_as(
        &self,
        row: &Row,
    ) -> Result<(Option<Cow<'_, Value>>, Option<Cow<'_, Value>>)> {
        Ok((self.convert(self.object.as_deref(), row).await?, self.convert(self.old.as_deref(), row).await?))
    }

    async fn convert<'v>(&self, object: Option<&'v Value>, row: &Row) -> Result<Option<Cow<'v, Value>>> {
        let Some(object) = object else { return Ok(None) };
        let own = &self.call.row;
        if (row.group, row.version) == (own.group, own.version) || self.call.subresource == "scale" {
            return Ok(Some(Cow::Borrowed(object)));
        }
        let Some(custom) = &row.custom else {
            return Ok(Some(Cow::Owned(from_storage(row, to_storage(own, object.clone())))));
        };
        let storage = &self.call.server.storage;
        let mut converted = custom.kind.convert(storage, vec![object.clone()], custom.version()).await?;
        Ok(converted.pop().map(Cow::Owned))
    }

    /// An object that `row` shows as the resource of the request does.
    ///
    /// # Errors
    /// When a webhook that converts does not.
    pub(super) async fn seen_from(&self, row: &Row, object: Value) -> Result<Value> {
        let own = &self.call.row;
        if (row.group, row.version) == (own.group, own.version) {
            return Ok(object);
        }
        let Some(custom) = &own.custom else { return Ok(from_storage(own, to_storage(row, object))) };
        let storage = &self.call.server.storage;
        let mut converted = custom.kind.convert(storage, vec![object], custom.version()).await?;
        Ok(converted.pop().unwrap_or_default())
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

/// Operations on resources.
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
    names: Vec<String>,
}

impl Rule {
    fn new(rule: &Value) -> Self {
        let texts = |field: &str| -> Vec<String> {
            rule.array_at(&[field]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            scope: rule.str_at(&["scope"]).to_owned(),
            names: texts("resourceNames"),
        }
    }

    fn matches(&self, request: &Request<'_>, row: &Resource) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        let cluster = request.is_namespace() || request.namespace().is_empty();
        let part = request.call.subresource.as_str();
        let in_scope = match self.scope.as_str() {
            "" | "*" => true,
            "Namespaced" => !cluster,
            "Cluster" => cluster,
            _ => false,
        };
        in_scope
            && has(&self.operations, request.operation.name())
            && has(&self.groups, row.group)
            && has(&self.versions, row.version)
            && self.resources.iter().any(|wanted| {
                let (resource, sub) = wanted.split_once('/').unwrap_or((wanted, ""));
                (resource == "*" || resource == row.plural) && (sub == "*" || sub == part)
            })
            && (self.names.is_empty() || self.names.iter().any(|n| n == request.name()))
    }
}

/// Which requests somebody is asked about.
pub(super) struct Criteria {
    namespaces: LabelSelector,
    objects: LabelSelector,
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    exact: bool,
    /// Without rules all requests are meant.
    open: bool,
}

impl Criteria {
    /// Reads `MatchResources`.
    ///
    /// # Errors
    /// What is wrong with a selector.
    pub(super) fn new(resources: &Value) -> std::result::Result<Self, String> {
        let open = resources.array_at(&["resourceRules"]).is_empty();
        Self::read(resources, "resourceRules", open)
    }

    /// Reads a webhook, which is asked about nothing unless a rule says so.
    ///
    /// # Errors
    /// What is wrong with a selector.
    pub(super) fn of_webhook(hook: &Value) -> std::result::Result<Self, String> {
        Self::read(hook, "rules", false)
    }

    fn read(resources: &Value, list: &str, open: bool) -> std::result::Result<Self, String> {
        let rules = |field: &str| resources.array_at(&[field]).iter().map(Rule::new).collect();
        let selector = |field: &str, what: &str| {
            LabelSelector::from_object(resources.get(field))?.ok_or_else(|| {
                format!("a nil {what} selector was passed, please ensure selectors are initialized properly")
            })
        };
        Ok(Self {
            namespaces: selector("namespaceSelector", "namespace")?,
            objects: selector("objectSelector", "object")?,
            rules: rules(list),
            open,
            excluded: rules("excludeResourceRules"),
            exact: resources.str_at(&["matchPolicy"]) != "Equivalent",
        })
    }

    /// The resource by which the request is meant, if it is.
    ///
    /// # Errors
    /// When the namespace of the request does not exist.
    pub(super) fn matches(&self, request: &Request<'_>) -> Result<Option<Row>> {
        let namespace = self.matches_namespace(request);
        let selects =
            |o: &Option<Cow<'_, Value>>| o.as_deref().is_some_and(|o| self.objects.matches_object(o));
        let object = self.objects.is_everything() || selects(&request.object) || selects(&request.old);
        if matches!(namespace, Ok(false)) || !object || self.find(&self.excluded, request).is_some() {
            return Ok(None);
        }
        let found = if self.open { Some(request.call.row.clone()) } else { self.find(&self.rules, request) };
        // Whether the namespace exists matters only where the rest is met.
        if found.is_some() {
            namespace?;
        }
        Ok(found)
    }

    fn find(&self, rules: &[Rule], request: &Request<'_>) -> Option<Row> {
        let own = &request.call.row;
        if rules.iter().any(|rule| rule.matches(request, own)) {
            return Some(own.clone());
        }
        if self.exact || rules.is_empty() {
            return None;
        }
        let others = request.equivalents();
        rules.iter().find_map(|rule| others.iter().find(|row| rule.matches(request, row))).cloned()
    }

    fn matches_namespace(&self, request: &Request<'_>) -> Result<bool> {
        let is_namespace = request.is_namespace();
        if self.namespaces.is_everything() || (request.namespace().is_empty() && !is_namespace) {
            return Ok(true);
        }
        if is_namespace {
            // What a namespace is about to be; for a deletion, what it is.
            let object = request.object.as_deref().or(request.old.as_deref());
            return Ok(object.is_some_and(|o| self.namespaces.matches_object(o)));
        }
        match &request.home {
            Some(home) => Ok(self.namespaces.matches(|key| home.label(key))),
            None => Err(ApiError::not_found("", "namespaces", request.namespace())),
        }
    }
}
