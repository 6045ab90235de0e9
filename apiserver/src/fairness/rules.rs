//! Which FlowSchema a request belongs to.

use std::hash::{DefaultHasher, Hash, Hasher};

use api::Value;

use crate::authn::UserInfo;
use crate::request::RequestInfo;

/// What stands for everything in a list.
const ALL: &str = "*";

/// The strings of a list, or all there are.
enum List {
    All,
    These(Vec<String>),
}

impl List {
    fn of(value: &Value, field: &str) -> Self {
        let strings: Vec<String> =
            value.array_at(&[field]).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
        if strings.len() == 1 && strings[0] == ALL { List::All } else { List::These(strings) }
    }

    fn has(&self, one: &str) -> bool {
        match self {
            List::All => true,
            List::These(list) => list.iter().any(|l| l == one),
        }
    }
}

enum Subject {
    Anybody,
    User(String),
    Group(String),
    /// `system:serviceaccount:NAMESPACE:`
    ServiceAccounts(String),
}

struct ResourceRule {
    verbs: List,
    groups: List,
    resources: List,
    namespaces: List,
    cluster: bool,
}

struct PathRule {
    verbs: List,
    paths: Vec<String>,
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

/// What makes flows of the requests of a schema.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

/// The rules of a FlowSchema.
pub(super) struct Rules {
    rules: Vec<Rule>,
    distinguisher: Distinguisher,
}

impl Rules {
    /// Reads the spec of a FlowSchema.
    pub(super) fn new(spec: &Value) -> Self {
        let distinguisher = match spec.str_at(&["distinguisherMethod", "type"]) {
            "ByUser" => Distinguisher::User,
            "ByNamespace" => Distinguisher::Namespace,
            _ => Distinguisher::None,
        };
        Self { rules: spec.array_at(&["rules"]).iter().map(Rule::new).collect(), distinguisher }
    }

    /// True when the request belongs to the schema.
    pub(super) fn match_request(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        self.rules.iter().any(|r| r.matches(info, user))
    }

    /// What tells flows of the schema apart.
    pub(super) fn flow<'r>(&self, info: &'r RequestInfo, user: &'r UserInfo) -> &'r str {
        match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => &info.namespace,
        }
    }
}

/// A number for a flow of a schema, by which it is dealt to queues.
pub(super) fn hash(schema: &str, flow: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (schema, flow).hash(&mut hasher);
    hasher.finish()
}

impl Rule {
    fn new(rule: &Value) -> Self {
        let resources = rule.array_at(&["resourceRules"]).iter().map(|r| ResourceRule {
            verbs: List::of(r, "verbs"),
            groups: List::of(r, "apiGroups"),
            resources: List::of(r, "resources"),
            namespaces: List::of(r, "namespaces"),
            cluster: r.get("clusterScope").as_bool().unwrap_or(false),
        });
        let paths = rule.array_at(&["nonResourceRules"]).iter().map(|r| PathRule {
            verbs: List::of(r, "verbs"),
            paths: r
                .array_at(&["nonResourceURLs"])
                .iter()
                .filter_map(|p| p.as_str().map(str::to_owned))
                .collect(),
        });
        Self {
            subjects: rule.array_at(&["subjects"]).iter().filter_map(Subject::new).collect(),
            resources: resources.collect(),
            paths: paths.collect(),
        }
    }

    fn matches(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        self.subjects.iter().any(|s| s.is(user))
            && if info.is_resource {
                self.resources.iter().any(|r| r.matches(info))
            } else {
                self.paths.iter().any(|r| r.matches(info))
            }
    }
}

impl Subject {
    fn new(subject: &Value) -> Option<Self> {
        let name = |member: &str| subject.at(&[member, "name"]).as_str();
        Some(match subject.kind() {
            "User" if name("user")? == ALL => Subject::Anybody,
            "Group" if name("group")? == ALL => Subject::Anybody,
            "User" => Subject::User(name("user")?.to_owned()),
            "Group" => Subject::Group(name("group")?.to_owned()),
            "ServiceAccount" => {
                let namespace = subject.str_at(&["serviceAccount", "namespace"]);
                let prefix = format!("system:serviceaccount:{namespace}:");
                match name("serviceAccount")? {
                    ALL => Subject::ServiceAccounts(prefix),
                    name => Subject::User(format!("{prefix}{name}")),
                }
            }
            _ => return None,
        })
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Subject::Anybody => true,
            Subject::User(name) => user.name == *name,
            Subject::Group(name) => user.is_in(name),
            Subject::ServiceAccounts(prefix) => user.name.starts_with(prefix.as_str()),
        }
    }
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let resource = || match (&self.resources, info.subresource.as_str()) {
            (List::All, _) => true,
            (list, "") => list.has(&info.resource),
            (List::These(list), sub) => list.iter().any(|l| {
                let rest = l.strip_prefix(info.resource.as_str()).and_then(|r| r.strip_prefix('/'));
                rest == Some(sub)
            }),
        };
        let scope = || match info.namespace.as_str() {
            "" => self.cluster,
            namespace => self.namespaces.has(namespace),
        };
        self.verbs.has(info.verb) && resource() && self.groups.has(&info.group) && scope()
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let below = |pattern: &String| {
            let prefix = pattern.trim_end_matches('*');
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            info.path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        };
        self.verbs.has(info.verb) && self.paths.iter().any(|p| p == ALL || *p == info.path || below(p))
    }
}

#[cfg(test)]
mod tests {
    use api::object;
    use http::Method;

    use super::*;
    use crate::request::Query;

    fn info(method: Method, path: &str) -> RequestInfo {
        RequestInfo::new(&method, path, &Query::default())
    }

    fn user(name: &str, group: &str) -> UserInfo {
        UserInfo { name: name.to_owned(), groups: vec![group.to_owned()], ..UserInfo::default() }
    }

    #[test]
    fn rules_match_who_asks_for_what() {
        let check = |subject: Value, rule: Value, method: Method, path: &str, want: bool| {
            let field =
                if rule.get("nonResourceURLs").is_null() { "resourceRules" } else { "nonResourceRules" };
            let mut rules = object!({"subjects": [(subject.clone())]});
            rules.set(&[field], vec![rule.clone()]);
            let rules = Rules::new(&object!({"rules": [rules]}));
            let who = user("system:serviceaccount:a:b", "g");
            let got = rules.match_request(&info(method, path), &who);
            assert_eq!(got, want, "{subject} {rule} {path}");
        };
        let group = || object!({"kind": "Group", "group": {"name": "g"}});
        let account = |namespace: &str, name: &str| object!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}});
        let all = || object!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]});
        let pods =
            || object!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["a"]});
        let pod = "/api/v1/namespaces/a/pods/p";
        check(group(), all(), Method::GET, pod, true);
        check(object!({"kind": "Group", "group": {"name": "h"}}), all(), Method::GET, pod, false);
        check(object!({"kind": "User", "user": {"name": "*"}}), all(), Method::GET, pod, true);
        check(account("a", "b"), all(), Method::GET, pod, true);
        check(account("a", "*"), all(), Method::GET, pod, true);
        check(account("", "*"), all(), Method::GET, pod, false);
        check(account("a", "c"), all(), Method::GET, pod, false);
        check(group(), pods(), Method::GET, pod, true);
        check(group(), pods(), Method::DELETE, pod, false);
        check(group(), pods(), Method::GET, "/api/v1/namespaces/b/pods/p", false);
        check(group(), pods(), Method::GET, "/api/v1/namespaces/a/pods/p/status", false);
        check(group(), all(), Method::GET, "/healthz", false);
        let mut status = pods();
        status.set(&["resources"], vec!["pods/status"]);
        check(group(), status.clone(), Method::GET, "/api/v1/namespaces/a/pods/p/status", true);
        check(group(), status, Method::GET, pod, false);
        let mut cluster = all();
        cluster.set(&["clusterScope"], false);
        check(group(), cluster.clone(), Method::GET, "/api/v1/nodes/n", false);
        check(group(), cluster, Method::GET, pod, true);
        let health = || object!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]});
        check(group(), health(), Method::GET, "/healthz", true);
        check(group(), health(), Method::GET, "/healthz/etcd", true);
        check(group(), health(), Method::GET, "/healthzz", false);
        check(group(), health(), Method::POST, "/healthz", false);
        check(group(), health(), Method::GET, pod, false);
        check(group(), object!({"verbs": ["*"], "nonResourceURLs": ["/a/*"]}), Method::GET, "/a/b", true);
    }

    #[test]
    fn flows_are_told_apart_as_the_schema_says() {
        let check = |method: &str, want: &str| {
            let rules = Rules::new(&object!({"distinguisherMethod": {"type": method}}));
            let info = info(Method::GET, "/api/v1/namespaces/a/pods/p");
            assert_eq!(rules.flow(&info, &user("u", "g")), want);
        };
        check("ByUser", "u");
        check("ByNamespace", "a");
        check("", "");
        assert_ne!(hash("a", "bc"), hash("ab", "c"));
    }
}
