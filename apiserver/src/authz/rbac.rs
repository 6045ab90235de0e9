//! Role-based access control: rules granted by bindings.
//!
//! The bindings are kept compiled, by subject, for as long as none of the four kinds changes.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/rbac/>.

use std::collections::HashMap;
use std::sync::Arc;

use api::Value;
use parking_lot::Mutex;

use super::{Attributes, Decision};
use crate::authn::UserInfo;
use crate::resources::TABLE;
use crate::storage::{Cache, Storage};

const GROUP: &str = "rbac.authorization.k8s.io";

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Verbs, or `*`.
    pub verbs: Vec<String>,
    /// API groups, or `*`.
    pub groups: Vec<String>,
    /// Resources, `resource/subresource`, `*/subresource` or `*`.
    pub resources: Vec<String>,
    /// Names of objects; empty for all.
    pub names: Vec<String>,
    /// Paths outside the API, `*` at the end matching the rest.
    pub paths: Vec<String>,
}

impl Rule {
    /// Reads a PolicyRule.
    pub fn parse(rule: &Value) -> Self {
        let list = |field: &str| -> Vec<String> {
            rule.array_at(&[field]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            paths: list("nonResourceURLs"),
        }
    }

    /// True when the rule allows it.
    pub fn allows(&self, what: &Attributes<'_>) -> bool {
        let has = |list: &[String], v: &str| list.iter().any(|x| x == "*" || x == v);
        if !has(&self.verbs, what.verb) {
            return false;
        }
        if what.resource.is_empty() {
            let matches = |p: &String| {
                p.strip_suffix('*').map_or(p == what.path, |prefix| what.path.starts_with(prefix))
            };
            return self.paths.iter().any(matches);
        }
        let combined = what.combined();
        let any_of = |r: &String| {
            r == "*"
                || *r == combined
                || (!what.subresource.is_empty()
                    && r.strip_prefix("*/").is_some_and(|s| s == what.subresource))
        };
        has(&self.groups, what.group)
            && self.resources.iter().any(any_of)
            && (self.names.is_empty() || self.names.iter().any(|n| n == what.name))
    }
}

struct Grant {
    /// Namespace it holds in; empty for everywhere.
    namespace: String,
    /// Its rules; or which role is missing.
    rules: Result<Arc<Vec<Rule>>, String>,
    reason: String,
}

#[derive(Default)]
struct Compiled {
    revisions: [i64; 4],
    by_subject: HashMap<String, Vec<Arc<Grant>>>,
}

impl Compiled {
    /// What is granted to a user in a namespace, and everywhere.
    fn of<'c>(&'c self, user: &'c UserInfo, namespace: &'c str) -> impl Iterator<Item = &'c Grant> {
        let groups = user.groups.iter().map(|group| format!("Group {group}"));
        let subjects = std::iter::once(format!("User {}", user.name)).chain(groups);
        let grants = subjects.flat_map(|subject| self.by_subject.get(&subject).into_iter().flatten());
        grants.map(Arc::as_ref).filter(move |g| g.namespace.is_empty() || g.namespace == namespace)
    }
}

/// The RBAC authorizer.
#[derive(Default)]
pub struct Rbac {
    compiled: Mutex<Arc<Compiled>>,
}

const KINDS: [&str; 4] = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];

impl Rbac {
    /// Whether a binding grants it.
    pub fn authorize(&self, storage: &Storage, user: &UserInfo, what: &Attributes<'_>) -> Decision {
        let mut missing: Vec<String> = Vec::new();
        for grant in self.current(storage).of(user, what.namespace) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule.allows(what)) => {
                    return Decision::Allow(grant.reason.clone());
                }
                Err(role) if !missing.contains(role) => missing.push(role.clone()),
                _ => {}
            }
        }
        Decision::NoOpinion(match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            several => format!("RBAC: [{}]", several.join(", ")),
        })
    }

    /// All rules that hold for `user` in `namespace` (and everywhere).
    pub fn rules(&self, storage: &Storage, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let compiled = self.current(storage);
        let known = compiled.of(user, namespace).filter_map(|grant| grant.rules.as_ref().ok());
        known.flat_map(|rules| rules.iter().cloned()).collect()
    }

    fn current(&self, storage: &Storage) -> Arc<Compiled> {
        let caches = KINDS.map(|plural| storage.cache(TABLE.store(GROUP, plural)));
        let revisions = caches.map(|c| c.snapshot().revision);
        let mut compiled = self.compiled.lock();
        if compiled.revisions != revisions {
            *compiled = Arc::new(Compiled { revisions, by_subject: compile(caches) });
        }
        compiled.clone()
    }
}

fn compile(
    [cluster_roles, roles, cluster_bindings, bindings]: [&Arc<Cache>; 4],
) -> HashMap<String, Vec<Arc<Grant>>> {
    let rules_of = |cache: &Arc<Cache>| -> HashMap<String, Arc<Vec<Rule>>> {
        let snapshot = cache.snapshot();
        let rules = |o: Value| Arc::new(o.array_at(&["rules"]).iter().map(Rule::parse).collect());
        snapshot.objects.iter().map(|(key, s)| (key.to_string(), rules(s.object()))).collect()
    };
    let (cluster_roles, roles) = (rules_of(cluster_roles), rules_of(roles));
    let mut by_subject: HashMap<String, Vec<Arc<Grant>>> = HashMap::new();
    for (cache, kind) in [(cluster_bindings, "ClusterRoleBinding"), (bindings, "RoleBinding")] {
        for stored in cache.snapshot().objects.values() {
            let binding = stored.object();
            let (role_kind, role) =
                (binding.str_at(&["roleRef", "kind"]), binding.str_at(&["roleRef", "name"]));
            let namespace = binding.namespace();
            let rules = match role_kind {
                "ClusterRole" => cluster_roles.get(role),
                _ => roles.get(&format!("{namespace}/{role}")),
            };
            let missing =
                || format!("{}.{GROUP} {} not found", role_kind.to_lowercase(), api::field::go_quote(role));
            let rules = rules.cloned().ok_or_else(missing);
            for subject in binding.array_at(&["subjects"]) {
                let Some((key, text)) = subject_key(subject, namespace) else { continue };
                let name = if namespace.is_empty() {
                    binding.name().to_owned()
                } else {
                    format!("{}/{namespace}", binding.name())
                };
                let reason = format!("RBAC: allowed by {kind} {name:?} of {role_kind} {role:?} to {text}");
                let grant = Grant { namespace: namespace.to_owned(), rules: rules.clone(), reason };
                by_subject.entry(key).or_default().push(Arc::new(grant));
            }
        }
    }
    by_subject
}

fn subject_key(subject: &Value, namespace: &str) -> Option<(String, String)> {
    let name = subject.str_at(&["name"]);
    match subject.kind() {
        "User" => Some((format!("User {name}"), format!("User {name:?}"))),
        "Group" => Some((format!("Group {name}"), format!("Group {name:?}"))),
        "ServiceAccount" => {
            let own = subject.str_at(&["namespace"]);
            let ns = if own.is_empty() { namespace } else { own };
            Some((
                format!("User system:serviceaccount:{ns}:{name}"),
                format!("ServiceAccount \"{name}/{ns}\""),
            ))
        }
        _ => None,
    }
}

/// True when `granted` together allow everything that `wanted` does.
pub fn covers(granted: &[Rule], wanted: &Rule) -> bool {
    let names: Vec<&str> =
        if wanted.names.is_empty() { vec![""] } else { wanted.names.iter().map(String::as_str).collect() };
    let paths_covered = wanted.verbs.iter().all(|verb| {
        wanted
            .paths
            .iter()
            .all(|path| granted.iter().any(|g| g.allows(&Attributes { verb, path, ..Attributes::default() })))
    });
    paths_covered
        && wanted.verbs.iter().all(|verb| {
            wanted.groups.iter().all(|group| {
                wanted.resources.iter().all(|resource| {
                    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                    names.iter().all(|name| {
                        let what =
                            Attributes { verb, group, resource, subresource, name, ..Attributes::default() };
                        granted.iter().any(|g| g.allows(&what))
                    })
                })
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        let list = |t: &str| t.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect();
        Rule {
            verbs: list(verbs),
            groups: vec![groups.to_owned()],
            resources: list(resources),
            names: list(names),
            paths: vec![],
        }
    }

    #[test]
    fn rules_match_resources_subresources_and_names() {
        let what = |resource, subresource, name| Attributes {
            verb: "get",
            resource,
            subresource,
            name,
            ..Default::default()
        };
        let check = |r: &Rule, w: Attributes<'_>, want: bool| assert_eq!(r.allows(&w), want, "{r:?} {w:?}");
        check(&rule("get", "", "pods", ""), what("pods", "", "x"), true);
        check(&rule("get", "", "pods", ""), what("pods", "log", "x"), false);
        check(&rule("get", "", "pods/log", ""), what("pods", "log", "x"), true);
        check(&rule("*", "*", "*/log", ""), what("pods", "log", "x"), true);
        check(&rule("get", "", "*", "a,b"), what("pods", "", "b"), true);
        check(&rule("get", "", "*", "a,b"), what("pods", "", "c"), false);
        check(&rule("list", "", "*", ""), what("pods", "", ""), false);
    }

    #[test]
    fn escalation_is_seen_rule_by_rule() {
        let granted = [rule("get,list", "", "pods", ""), rule("get", "", "secrets", "a")];
        assert!(covers(&granted, &rule("list", "", "pods", "")));
        assert!(covers(&granted, &rule("get", "", "secrets", "a")));
        assert!(!covers(&granted, &rule("get", "", "secrets", "")));
        assert!(!covers(&granted, &rule("delete", "", "pods", "")));
    }
}
