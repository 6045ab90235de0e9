//! Rules and selectors that say which requests somebody is asked about.

use std::borrow::Cow;

use api::error::Result;
use api::selector::LabelSelector;
use api::{ApiError, Value};

use super::Request;
use crate::resources::{Resource, Row};

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
pub(in crate::admission) struct Criteria {
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
    pub(in crate::admission) fn new(resources: &Value) -> std::result::Result<Self, String> {
        let open = resources.array_at(&["resourceRules"]).is_empty();
        Self::read(resources, "resourceRules", open)
    }

    /// Reads a webhook, which is asked about nothing unless a rule says so.
    ///
    /// # Errors
    /// What is wrong with a selector.
    pub(in crate::admission) fn of_webhook(hook: &Value) -> std::result::Result<Self, String> {
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
    pub(in crate::admission) fn matches(&self, request: &Request<'_>) -> Result<Option<Row>> {
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
