//! The file that names authorizers: `AuthorizationConfiguration` of `apiserver.config.k8s.io`.

use std::collections::HashSet;
use std::path::Path as FilePath;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::field::{FieldError, Path};
use cel::Type;
use cel::access::{About, Expression};
use daemon::GoDuration;
use serde::Deserialize;

use super::webhook::{self, Webhook};
use super::{Abac, Method, Methods};
use crate::kubeconfig::{Answers, Remote};

const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
const MODES: [&str; 6] = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_CONDITIONS: usize = 64;

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    authorizers: Vec<AuthorizerFile>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthorizerFile {
    r#type: String,
    name: String,
    webhook: Option<WebhookFile>,
}

/// How a webhook is asked.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WebhookFile {
    #[serde(rename = "authorizedTTL")]
    pub authorized_ttl: Option<GoDuration>,
    pub cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    pub unauthorized_ttl: Option<GoDuration>,
    pub cache_unauthorized_requests: Option<bool>,
    pub timeout: Option<GoDuration>,
    pub subject_access_review_version: String,
    pub match_condition_subject_access_review_version: String,
    pub failure_policy: String,
    pub connection_info: ConnectionFile,
    pub match_conditions: Vec<ConditionFile>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ConnectionFile {
    pub r#type: String,
    pub kube_config_file: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ConditionFile {
    pub expression: String,
}

/// Reads a configuration; `abac` has the policies for that mode, if there are any.
///
/// # Errors
/// It is no valid configuration, or asks for what is not supported.
pub(super) fn parse(text: &str, abac: Option<&Abac>) -> Result<Methods> {
    let file: File = crate::config_file::parse_strictly(text, &VERSIONS, "AuthorizationConfiguration")?;
    let mut errors = Vec::new();
    let root = Path::new("authorizers");
    if file.authorizers.is_empty() {
        errors.push(FieldError::required(&root, "at least one authorization mode must be defined"));
    }
    let (mut types, mut names) = (HashSet::new(), HashSet::new());
    let mut webhooks = Vec::new();
    for (i, authorizer) in file.authorizers.iter().enumerate() {
        let path = root.index(i);
        let kind = authorizer.r#type.as_str();
        if kind.is_empty() {
            errors.push(FieldError::required(&path.child("type"), ""));
            continue;
        }
        if !MODES.contains(&kind) {
            errors.push(FieldError::not_supported(&path.child("type"), kind, &MODES));
            continue;
        }
        if !types.insert(kind) && kind != "Webhook" {
            errors.push(FieldError::duplicate(&path.child("type"), kind));
            continue;
        }
        check_name(&authorizer.name, &path.child("name"), &mut names, &mut errors);
        match (&authorizer.webhook, kind) {
            (Some(webhook), "Webhook") => webhooks.push(webhook.check(&path, &mut errors)),
            (None, "Webhook") => {
                errors.push(FieldError::required(&path.child("webhook"), "required when type=Webhook"))
            }
            (Some(_), _) => {
                let why = "may only be specified when type=Webhook";
                errors.push(FieldError::invalid(&path.child("webhook"), "non-null", why));
            }
            (None, _) => {}
        }
    }
    match errors.as_slice() {
        [] => {}
        [one] => bail!("{one}"),
        many => bail!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
    let mut webhooks = webhooks.into_iter();
    file.authorizers
        .into_iter()
        .map(|authorizer| {
            let method = match (authorizer.r#type.as_str(), authorizer.webhook) {
                ("Webhook", Some(webhook)) => webhook.build(webhooks.next().unwrap_or_default()),
                (kind, _) => method(kind, abac),
            };
            Ok((authorizer.name, method?))
        })
        .collect()
}

/// The authorizer of a mode that needs nothing but its name.
pub(super) fn method(kind: &str, abac: Option<&Abac>) -> Result<Method> {
    Ok(match (kind, abac) {
        ("AlwaysAllow", _) => Method::AlwaysAllow,
        ("AlwaysDeny", _) => Method::AlwaysDeny,
        ("Node", _) => Method::Node,
        ("RBAC", _) => Method::Rbac,
        ("ABAC", Some(policies)) => Method::Abac(policies.clone()),
        ("ABAC", None) => bail!("authorization-mode ABAC's authorization policy file not passed"),
        (other, _) => bail!("authorization-mode {other:?} is not a valid mode"),
    })
}

fn check_name<'n>(name: &'n str, path: &Path<'_>, seen: &mut HashSet<&'n str>, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if !seen.insert(name) {
        errors.push(FieldError::duplicate(path, name));
    } else {
        let wrong = api::names::dns_subdomain(name);
        if !wrong.is_empty() {
            let why = format!("authorizer name is invalid: {}", wrong.join(", "));
            errors.push(FieldError::invalid(path, name, why));
        }
    }
}

impl WebhookFile {
    /// What is wrong with it goes into `errors`; the conditions are compiled.
    fn check(&self, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Vec<(Expression, String)> {
        match self.timeout {
            None => errors.push(FieldError::required(&path.child("timeout"), "")),
            Some(t) if t.is_zero() => errors.push(FieldError::required(&path.child("timeout"), "")),
            Some(t) if t.0 > MAX_TIMEOUT => {
                let why = "must be > 0s and <= 30s";
                errors.push(FieldError::invalid(&path.child("timeout"), t.to_string(), why));
            }
            Some(_) => {}
        }
        let mut one_of = |field: &str, value: &str, known: &[&str]| {
            let path = path.child(field);
            if value.is_empty() {
                errors.push(FieldError::required(&path, ""));
            } else if !known.contains(&value) {
                errors.push(FieldError::not_supported(&path, value, known));
            }
        };
        one_of("subjectAccessReviewVersion", &self.subject_access_review_version, &["v1", "v1beta1"]);
        one_of("failurePolicy", &self.failure_policy, &["NoOpinion", "Deny"]);
        let version = self.match_condition_subject_access_review_version.as_str();
        let at = path.child("matchConditionSubjectAccessReviewVersion");
        match version {
            "" if !self.match_conditions.is_empty() => {
                errors.push(FieldError::required(&at, "required if match conditions are specified"));
            }
            "" | "v1" => {}
            other => errors.push(FieldError::not_supported(&at, other, &["v1"])),
        }
        self.connection_info.check(&path.child("connectionInfo"), errors);
        self.conditions(&path.child("matchConditions"), errors)
    }

    fn conditions(&self, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Vec<(Expression, String)> {
        let count = self.match_conditions.len();
        if count > MAX_CONDITIONS {
            errors.push(FieldError::too_many(path, count, MAX_CONDITIONS));
            return Vec::new();
        }
        let mut conditions: Vec<(Expression, String)> = Vec::new();
        let mut seen = HashSet::new();
        for (i, condition) in self.match_conditions.iter().enumerate() {
            let path = path.index(i);
            let (path, text) = (path.child("expression"), condition.expression.as_str());
            if text.trim().is_empty() {
                errors.push(FieldError::required(&path, ""));
            } else if !seen.insert(text) {
                errors.push(FieldError::duplicate(&path, text));
            } else {
                match Expression::compile(About::Review, text, &[Type::Bool]) {
                    Ok(expression) => conditions.push((expression, text.to_owned())),
                    Err(why) => errors.push(FieldError::invalid(&path, text, why)),
                }
            }
        }
        conditions
    }

    /// The authorizer.
    pub(super) fn build(self, conditions: Vec<(Expression, String)>) -> Result<Method> {
        let file = self.connection_info.kube_config_file.unwrap_or_default();
        let remote = Remote::read(FilePath::new(&file)).context("the webhook of authorization")?;
        let ttl = |given: Option<GoDuration>, keeps: Option<bool>, default: u64| match keeps {
            Some(false) => Duration::ZERO,
            _ => given.filter(|d| !d.is_zero()).map_or(Duration::from_secs(default), |d| d.0),
        };
        Ok(Method::Webhook(Box::new(Webhook {
            remote,
            version: if self.subject_access_review_version == "v1beta1" { "v1beta1" } else { "v1" },
            ttl: (
                ttl(self.authorized_ttl, self.cache_authorized_requests, 300),
                ttl(self.unauthorized_ttl, self.cache_unauthorized_requests, 30),
            ),
            timeout: self.timeout.map_or(MAX_TIMEOUT, |t| t.0),
            denies: self.failure_policy == "Deny",
            conditions,
            answers: Answers::new(webhook::ANSWERS),
        })))
    }
}

impl ConnectionFile {
    fn check(&self, path: &Path<'_>, errors: &mut Vec<FieldError>) {
        let file = path.child("kubeConfigFile");
        match (self.r#type.as_str(), self.kube_config_file.as_deref().unwrap_or_default()) {
            ("", _) => errors.push(FieldError::required(&path.child("type"), "")),
            ("KubeConfigFile", "") => errors.push(FieldError::required(&file, "")),
            ("KubeConfigFile", given) if !given.starts_with('/') => {
                errors.push(FieldError::invalid(&file, given, "must be an absolute path"));
            }
            ("KubeConfigFile", given) => match std::fs::metadata(given) {
                Err(e) => errors.push(FieldError::invalid(&file, given, format!("error loading file: {e}"))),
                Ok(found) if !found.is_file() => {
                    errors.push(FieldError::invalid(&file, given, "must be a regular file"));
                }
                Ok(_) => {}
            },
            ("InClusterConfig", _) => {
                let why = "an API server does not run in its own cluster";
                errors.push(FieldError::invalid(&path.child("type"), "InClusterConfig", why));
            }
            (other, _) => {
                errors.push(FieldError::not_supported(
                    &path.child("type"),
                    other,
                    &["InClusterConfig", "KubeConfigFile"],
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(authorizers: &str, want: &str) {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{authorizers}]\n"
        );
        let got = parse(&text, None).err().map_or_else(String::new, |e| format!("{e:#}"));
        assert!(if want.is_empty() { got.is_empty() } else { got.contains(want) }, "{authorizers}: {got}");
    }

    #[test]
    fn configurations_are_checked_as_upstream_checks_them() {
        check("{type: Node, name: node}, {type: RBAC, name: rbac}", "");
        check("", "authorizers: Required value: at least one authorization mode must be defined");
        check("{type: Nobody, name: x}", "authorizers[0].type: Unsupported value: \"Nobody\"");
        check(
            "{type: RBAC, name: a}, {type: RBAC, name: b}",
            "authorizers[1].type: Duplicate value: \"RBAC\"",
        );
        check("{type: RBAC}", "authorizers[0].name: Required value");
        check("{type: RBAC, name: A}", "authorizer name is invalid");
        check(
            "{type: Webhook, name: w}",
            "authorizers[0].webhook: Required value: required when type=Webhook",
        );
        let webhook = |more: &str| {
            format!(
                "{{type: Webhook, name: w, webhook: {{timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, connectionInfo: {{type: KubeConfigFile, kubeConfigFile: /no/such}}, {more}}}}}"
            )
        };
        check(&webhook(""), "connectionInfo.kubeConfigFile: Invalid value: \"/no/such\": error loading file");
        check(
            &webhook("matchConditions: [{expression: 'true'}]"),
            "required if match conditions are specified",
        );
        check(
            &webhook(
                "matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{expression: request.user}]",
            ),
            "must evaluate to bool but got string",
        );
        check("{type: ABAC, name: abac}", "policy file not passed");
    }
}
