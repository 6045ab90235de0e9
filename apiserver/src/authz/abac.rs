//! Access by a file of policies, one on each line: attribute-based access control.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/abac/>.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{Attributes, Decision};
use crate::authn::UserInfo;

const VERSION: &str = "abac.authorization.kubernetes.io/v1beta1";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Line {
    api_version: String,
    kind: String,
    spec: Option<Policy>,
    #[serde(flatten)]
    unversioned: Policy,
}

/// What a subject may do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

/// Policies of a file.
#[derive(Clone, Debug, Default)]
pub struct Abac(Vec<Policy>);

impl Abac {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, or a line is no policy.
    pub fn read(path: &Path) -> Result<Self> {
        let text = crate::config_file::text(path)?;
        let mut policies = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = || format!("error reading policy file {}, line {}: {line}", path.display(), i + 1);
            policies.push(Policy::parse(line).with_context(at)?);
        }
        Ok(Self(policies))
    }

    /// Whether `user` may do it.
    pub(super) fn authorize(&self, user: &UserInfo, what: &Attributes<'_>) -> Decision {
        match self.0.iter().any(|p| p.is_for(user) && p.allows(what)) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion("No policy matched.".to_owned()),
        }
    }
}

impl Policy {
    fn parse(line: &str) -> Result<Self> {
        let line: Line = serde_json::from_str(line)?;
        let mut policy = match (line.api_version.as_str(), line.kind.as_str(), line.spec) {
            (VERSION, "Policy", spec) => spec.unwrap_or_default(),
            ("", "", None) => {
                // The oldest form: what is not named is everything.
                let mut old = line.unversioned;
                if old.user.is_empty() && old.group.is_empty() {
                    "*".clone_into(&mut old.group);
                }
                if old.namespace.is_empty() && old.resource.is_empty() {
                    "*".clone_into(&mut old.non_resource_path);
                }
                for field in [&mut old.namespace, &mut old.resource] {
                    if field.is_empty() {
                        "*".clone_into(field);
                    }
                }
                "*".clone_into(&mut old.api_group);
                old
            }
            (version, kind, _) => bail!("no kind {kind:?} is registered for version {version:?}"),
        };
        // Everybody is everybody who is authenticated.
        if policy.user == "*" || policy.group == "*" {
            policy.user.clear();
            "system:authenticated".clone_into(&mut policy.group);
        }
        Ok(policy)
    }

    fn is_for(&self, user: &UserInfo) -> bool {
        if self.user.is_empty() && self.group.is_empty() {
            return false;
        }
        (self.user.is_empty() || self.user == user.name) && (self.group.is_empty() || user.is_in(&self.group))
    }

    fn allows(&self, what: &Attributes<'_>) -> bool {
        let fits = |pattern: &str, value: &str| pattern == "*" || pattern == value;
        if self.readonly && !matches!(what.verb, "get" | "list" | "watch") {
            return false;
        }
        if what.resource.is_empty() {
            let path = self.non_resource_path.as_str();
            return path == what.path || path.strip_suffix('*').is_some_and(|p| what.path.starts_with(p));
        }
        fits(&self.namespace, what.namespace)
            && fits(&self.resource, what.resource)
            && fits(&self.api_group, what.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: &str, (name, group): (&str, &str), what: Attributes<'_>, want: bool) {
        let abac = Abac(vec![Policy::parse(policy).unwrap()]);
        let user = UserInfo { name: name.into(), groups: vec![group.into()], ..UserInfo::default() };
        let allowed = matches!(abac.authorize(&user, &what), Decision::Allow(_));
        assert_eq!(allowed, want, "{policy} {name} {what:?}");
    }

    #[test]
    fn policies_allow_what_they_name() {
        let pods = |verb| Attributes { verb, resource: "pods", namespace: "a", ..Attributes::default() };
        let path = |path| Attributes { verb: "get", path, ..Attributes::default() };
        let new = r#"{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"ann","namespace":"a","resource":"pods","apiGroup":"","readonly":true}}"#;
        let everybody = "system:authenticated";
        check(new, ("ann", everybody), pods("list"), true);
        check(new, ("ann", everybody), pods("create"), false);
        check(new, ("bob", everybody), pods("list"), false);
        check(new, ("ann", everybody), path("/version"), false);
        let all = r#"{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"*","nonResourcePath":"/v*"}}"#;
        check(all, ("bob", everybody), path("/version"), true);
        check(all, ("bob", "system:unauthenticated"), path("/version"), false);
        let old = r#"{"user":"ann"}"#;
        check(old, ("ann", everybody), pods("create"), true);
        check(old, ("ann", everybody), path("/version"), true);
        let old = r#"{"group":"dev","resource":"pods"}"#;
        check(old, ("bob", "dev"), pods("create"), true);
        check(old, ("bob", "dev"), path("/version"), false);
        assert!(Policy::parse(r#"{"apiVersion":"v9","kind":"Policy"}"#).is_err());
        assert!(Policy::parse("user: ann").is_err());
    }
}
