//! What of a request is recorded: the `Policy` of `audit.k8s.io/v1`.

use std::path::Path as FilePath;

use anyhow::{Result, bail};
use api::field::{FieldError, Path};
use serde::{Deserialize, Serialize};

use crate::authn::UserInfo;
use crate::authz::Attributes;

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what, when, and the code of the answer.
    Metadata,
    /// The body of the request as well.
    Request,
    /// The answer as well.
    RequestResponse,
}

/// When in the life of a request an event is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Stage {
    /// Before anybody deals with it.
    RequestReceived,
    /// The head of the answer to a long-running request is on its way.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// It broke.
    Panic,
}

const LEVELS: [(&str, Level); 4] = [
    ("None", Level::None),
    ("Metadata", Level::Metadata),
    ("Request", Level::Request),
    ("RequestResponse", Level::RequestResponse),
];

const STAGES: [(&str, Stage); 4] = [
    ("RequestReceived", Stage::RequestReceived),
    ("ResponseStarted", Stage::ResponseStarted),
    ("ResponseComplete", Stage::ResponseComplete),
    ("Panic", Stage::Panic),
];

impl Level {
    /// Its name.
    pub fn name(self) -> &'static str {
        LEVELS[self as usize].0
    }
}

impl Stage {
    /// Its name.
    pub fn name(self) -> &'static str {
        STAGES[self as usize].0
    }
}

/// Stages, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stages(u8);

impl Stages {
    pub(super) fn contains(self, stage: Stage) -> bool {
        self.0 & (1 << stage as u8) != 0
    }
}

/// What is recorded of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub level: Level,
    pub omitted: Stages,
    pub omit_managed_fields: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuleFile {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PolicyFile {
    #[serde(rename = "metadata")]
    _metadata: serde_json::Map<String, serde_json::Value>,
    rules: Vec<RuleFile>,
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
}

struct Rule {
    decision: Decision,
    file: RuleFile,
}

/// The rules, of which the first that matches decides.
pub struct Policy {
    rules: Vec<Rule>,
    otherwise: Decision,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// It cannot be read, or is no valid policy. Unknown fields are told of and otherwise ignored, as upstream does.
    pub fn read(path: &FilePath) -> Result<Self> {
        let (file, findings) = crate::config_file::read::<PolicyFile>(path, &["audit.k8s.io/v1"], "Policy")
            .map_err(|e| anyhow::anyhow!("loading audit policy file: {e:#}"))?;
        for finding in findings {
            tracing::warn!("Audit policy contains errors, falling back to lenient decoding: {finding}");
        }
        Self::new(file)
            .map_err(|e| anyhow::anyhow!("loading audit policy file: {e}: from file {}", path.display()))
    }

    pub(crate) fn new(file: PolicyFile) -> Result<Self> {
        let mut errors = Vec::new();
        let everywhere = stages(&file.omit_stages, &Path::new("omitStages"), &mut errors);
        let root = Path::new("rules");
        let rules: Vec<Rule> = file
            .rules
            .into_iter()
            .enumerate()
            .map(|(i, rule)| {
                let path = root.index(i);
                let level = level(&rule.level, &path.child("level"), &mut errors);
                check_urls(&rule, &path.child("nonResourceURLs"), &mut errors);
                check_resources(&rule, &path.child("resources"), &mut errors);
                let omitted = stages(&rule.omit_stages, &path.child("omitStages"), &mut errors);
                let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
                if of_resources && !rule.non_resource_urls.is_empty() {
                    let why = "rules cannot apply to both regular resources and non-resource URLs";
                    let path = path.child("nonResourceURLs");
                    errors.push(FieldError::invalid(&path, rule.non_resource_urls.clone(), why));
                }
                let omit_managed_fields = rule.omit_managed_fields.unwrap_or(file.omit_managed_fields);
                let omitted = Stages(everywhere.0 | omitted.0);
                Rule { decision: Decision { level, omitted, omit_managed_fields }, file: rule }
            })
            .collect();
        match errors.as_slice() {
            [] if rules.is_empty() => bail!("loaded illegal policy with 0 rules"),
            [] => {}
            [one] => bail!("{one}"),
            many => bail!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        }
        let omit_managed_fields = file.omit_managed_fields;
        let otherwise = Decision { level: Level::None, omitted: everywhere, omit_managed_fields };
        Ok(Self { rules, otherwise })
    }

    /// What is recorded of a request; `user` is none when nobody was authenticated.
    pub(super) fn decide(&self, what: &Attributes<'_>, user: Option<&UserInfo>) -> Decision {
        let rule = self.rules.iter().find(|r| matches(&r.file, what, user));
        rule.map_or(self.otherwise, |r| r.decision)
    }
}

fn level(name: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Level {
    if let Some((_, level)) = LEVELS.iter().find(|(n, _)| *n == name) {
        return *level;
    }
    errors.push(match name {
        "" => FieldError::required(path, ""),
        _ => FieldError::not_supported(path, name, &LEVELS.map(|(n, _)| n)),
    });
    Level::None
}

fn stages(names: &[String], path: &Path<'_>, errors: &mut Vec<FieldError>) -> Stages {
    let mut set = Stages::default();
    for (i, name) in names.iter().enumerate() {
        match STAGES.iter().find(|(n, _)| n == name) {
            Some((_, stage)) => set.0 |= 1 << *stage as u8,
            None => {
                let all = STAGES.map(|(n, _)| n).join(",");
                errors.push(FieldError::invalid(
                    &path.index(i),
                    name.as_str(),
                    format!("allowed stages are {all}"),
                ));
            }
        }
    }
    set
}

fn check_urls(rule: &RuleFile, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (i, url) in rule.non_resource_urls.iter().enumerate().filter(|(_, url)| *url != "*") {
        let path = path.index(i);
        if !url.starts_with('/') {
            let why = "non-resource URL rules must begin with a '/' character";
            errors.push(FieldError::invalid(&path, url.as_str(), why));
        }
        if url.find('*').is_some_and(|at| at + 1 < url.len()) {
            let why = "non-resource URL wildcards '*' must be the final character of the rule";
            errors.push(FieldError::invalid(&path, url.as_str(), why));
        }
    }
}

fn check_resources(rule: &RuleFile, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for resource in &rule.resources {
        if !matches!(resource.group.as_str(), "" | "*") {
            for why in api::names::dns_subdomain(&resource.group) {
                errors.push(FieldError::invalid(&path.child("group"), resource.group.as_str(), why));
            }
        }
        if !resource.resource_names.is_empty() && resource.resources.is_empty() {
            let why = "using resourceNames requires at least one resource";
            let names = resource.resource_names.clone();
            errors.push(FieldError::invalid(&path.child("resourceNames"), names, why));
        }
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted)
}

fn matches(rule: &RuleFile, what: &Attributes<'_>, user: Option<&UserInfo>) -> bool {
    let is_resource = !what.resource.is_empty();
    if !rule.users.is_empty() && !user.is_some_and(|u| has(&rule.users, &u.name)) {
        return false;
    }
    if !rule.user_groups.is_empty()
        && !user.is_some_and(|u| u.groups.iter().any(|g| has(&rule.user_groups, g)))
    {
        return false;
    }
    if !rule.verbs.is_empty() && !has(&rule.verbs, what.verb) {
        return false;
    }
    if !rule.namespaces.is_empty() || !rule.resources.is_empty() {
        return is_resource
            && (rule.namespaces.is_empty() || has(&rule.namespaces, what.namespace))
            && (rule.resources.is_empty() || rule.resources.iter().any(|r| matches_resource(r, what)));
    }
    if !rule.non_resource_urls.is_empty() {
        return !is_resource
            && rule.non_resource_urls.iter().any(|url| {
                url == what.path || url.strip_suffix('*').is_some_and(|prefix| what.path.starts_with(prefix))
            });
    }
    true
}

fn matches_resource(rule: &GroupResources, what: &Attributes<'_>) -> bool {
    if rule.group != "*" && rule.group != what.group {
        return false;
    }
    if rule.resources.is_empty() {
        return true;
    }
    if !rule.resource_names.is_empty() && !has(&rule.resource_names, what.name) {
        return false;
    }
    let whole = |text: &str| match text.split_once('/') {
        None => what.subresource.is_empty() && text == what.resource,
        Some((resource, sub)) => {
            !what.subresource.is_empty() && resource == what.resource && sub == what.subresource
        }
    };
    rule.resources.iter().any(|r| {
        r == "*"
            || whole(r)
            || (!what.subresource.is_empty() && r.strip_prefix("*/") == Some(what.subresource))
            || r.strip_suffix("/*") == Some(what.resource)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<Policy> {
        Policy::new(serde_json::from_value(crate::config_file::document(text).unwrap().0).unwrap())
    }

    fn check(rule: &str, what: &str, want: bool) {
        let policy = policy(&format!("rules: [{{level: Request, {rule}}}]")).unwrap();
        let (words, path): (Vec<&str>, &str) = match what.split_once(" /") {
            Some((verb, _)) => (vec![verb], &what[verb.len() + 1..]),
            None => (what.split(' ').collect(), ""),
        };
        let word = |i: usize| words.get(i).copied().unwrap_or_default();
        let (resource, subresource) = word(2).split_once('/').unwrap_or((word(2), ""));
        let what_is = Attributes {
            verb: word(0),
            group: word(1).trim_matches('-'),
            resource,
            subresource,
            namespace: word(3),
            name: word(4),
            path,
            version: "v1",
            ..Attributes::default()
        };
        let user = UserInfo { name: "ann".into(), groups: vec!["dev".into()], ..UserInfo::default() };
        let got = policy.decide(&what_is, Some(&user)).level == Level::Request;
        assert_eq!(got, want, "{rule} {what}");
    }

    #[test]
    fn rules_match_as_upstream() {
        check("", "get - pods default a", true);
        check("users: [ann]", "get - pods default a", true);
        check("users: [bob]", "get - pods default a", false);
        check("userGroups: [ops, dev]", "get - pods default a", true);
        check("userGroups: [ops]", "get - pods default a", false);
        check("verbs: [list]", "get - pods default a", false);
        check("namespaces: [kube-system]", "get - pods default a", false);
        check("namespaces: [default]", "get /healthz", false);
        check("resources: [{group: '', resources: [pods]}]", "get - pods default a", true);
        check("resources: [{group: '', resources: [pods]}]", "get - pods/log default a", false);
        check("resources: [{group: '', resources: [pods/log]}]", "get - pods/log default a", true);
        check("resources: [{group: '', resources: [pods/*]}]", "get - pods/log default a", true);
        check("resources: [{group: '', resources: ['*/log']}]", "get - pods/log default a", true);
        check("resources: [{group: '', resources: ['*']}]", "get - pods/log default a", true);
        check("resources: [{group: apps}]", "get - pods default a", false);
        check("resources: [{group: '*'}]", "get apps deployments default a", true);
        check("resources: [{resources: [pods], resourceNames: [b]}]", "get - pods default a", false);
        check("nonResourceURLs: ['/healthz*']", "get /healthz/etcd", true);
        check("nonResourceURLs: ['/healthz*']", "get - pods default a", false);
        check("nonResourceURLs: ['*']", "get /version", true);
        check("nonResourceURLs: ['/version']", "get /versions", false);
    }

    #[test]
    fn stages_and_managed_fields_are_left_out_by_rule_or_everywhere() {
        let text = "omitStages: [RequestReceived]\nomitManagedFields: true\n\
                    rules: [{level: Metadata, users: [x], omitStages: [Panic], omitManagedFields: false}, {level: Request}]";
        let policy = policy(text).unwrap();
        let user = |name: &str| UserInfo { name: name.into(), ..UserInfo::default() };
        let one = policy.decide(&Attributes::default(), Some(&user("x")));
        assert!(one.omitted.contains(Stage::RequestReceived) && one.omitted.contains(Stage::Panic));
        assert!(!one.omit_managed_fields && !one.omitted.contains(Stage::ResponseComplete));
        let two = policy.decide(&Attributes::default(), None);
        assert!(two.omit_managed_fields && !two.omitted.contains(Stage::Panic));
    }

    #[test]
    fn mistakes_are_told_as_upstream_tells_them() {
        for (text, want) in [
            ("rules: []", "loaded illegal policy with 0 rules"),
            ("rules: [{}]", "rules[0].level: Required value"),
            (
                "rules: [{level: All}]",
                "rules[0].level: Unsupported value: \"All\": supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\"",
            ),
            (
                "rules: [{level: None, nonResourceURLs: [x]}]",
                "rules[0].nonResourceURLs[0]: Invalid value: \"x\": non-resource URL rules must begin with a '/' character",
            ),
            (
                "rules: [{level: None, omitStages: [Never]}]",
                "rules[0].omitStages[0]: Invalid value: \"Never\": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic",
            ),
            (
                "rules: [{level: None, resources: [{resourceNames: [a]}]}]",
                "rules[0].resources.resourceNames: Invalid value: [\"a\"]: using resourceNames requires at least one resource",
            ),
        ] {
            assert_eq!(policy(text).err().map(|e| e.to_string()).as_deref(), Some(want), "{text}");
        }
    }
}
