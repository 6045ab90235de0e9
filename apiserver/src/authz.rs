//! Authorization: whether a user may do what a request asks for. Authorizers are asked in order; the first with an
//! opinion decides, and without any the request is refused.

mod node;
mod rbac;

pub use rbac::{Rbac, Rule, covers};

use crate::authn::UserInfo;
use crate::request::RequestInfo;
use crate::storage::Storage;

/// What is to be allowed: the attributes of a request, or of a review.
#[derive(Clone, Debug, Default)]
pub struct Attributes<'a> {
    /// Verb.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Resource; empty for other paths.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Name of the object.
    pub name: &'a str,
    /// Path, when no resource is asked for.
    pub path: &'a str,
    /// API version.
    pub version: &'a str,
}

impl<'a> Attributes<'a> {
    /// The attributes of a request.
    pub fn of(info: &'a RequestInfo) -> Self {
        Self {
            verb: info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            version: &info.version,
        }
    }

    /// `pods/log`, or the resource alone.
    pub fn combined(&self) -> String {
        match self.subresource {
            "" => self.resource.to_owned(),
            sub => format!("{}/{sub}", self.resource),
        }
    }

    /// Upstream's sentence for a refusal.
    pub fn refusal(&self, user: &UserInfo) -> String {
        let who = api::field::go_quote(&user.name);
        if self.resource.is_empty() {
            return format!("User {who} cannot {} path {}", self.verb, api::field::go_quote(self.path));
        }
        let what = api::field::go_quote(&self.combined());
        let group = api::field::go_quote(self.group);
        let place = match self.namespace {
            "" => "at the cluster scope".to_owned(),
            ns => format!("in the namespace {}", api::field::go_quote(ns)),
        };
        format!("User {who} cannot {} resource {what} in API group {group} {place}", self.verb)
    }
}

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, with the reason.
    Allow(String),
    /// No opinion, perhaps with a reason.
    NoOpinion(String),
}

/// One of `--authorization-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything is allowed.
    AlwaysAllow,
    /// Nothing is.
    AlwaysDeny,
    /// Kubelets may do what concerns their node.
    Node,
    /// Roles and bindings.
    Rbac,
}

impl Mode {
    /// Reads the name of a mode.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "AlwaysAllow" => Ok(Mode::AlwaysAllow),
            "AlwaysDeny" => Ok(Mode::AlwaysDeny),
            "Node" => Ok(Mode::Node),
            "RBAC" => Ok(Mode::Rbac),
            "ABAC" | "Webhook" => Err(format!("authorization mode {name} is not supported yet")),
            _ => Err(format!("authorization mode {name} is not known")),
        }
    }
}

/// The chain of authorizers.
pub struct Authorizer {
    /// The modes in order.
    pub modes: Vec<Mode>,
    /// Paths that anyone may read.
    pub always_allowed: Vec<String>,
    /// The RBAC authorizer.
    pub rbac: Rbac,
}

impl Authorizer {
    /// Whether `user` may do it.
    pub fn authorize(&self, storage: &Storage, user: &UserInfo, what: &Attributes<'_>) -> Decision {
        if user.is_in("system:masters") {
            return Decision::Allow(String::new());
        }
        let path_matches =
            |p: &String| p.strip_suffix('*').map_or(p == what.path, |prefix| what.path.starts_with(prefix));
        if what.resource.is_empty() && self.always_allowed.iter().any(path_matches) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for mode in &self.modes {
            let decision = match mode {
                Mode::AlwaysAllow => Decision::Allow(String::new()),
                Mode::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".to_owned()),
                Mode::Node => node::authorize(storage, user, what),
                Mode::Rbac => self.rbac.authorize(storage, user, what),
            };
            match decision {
                Decision::Allow(reason) => return Decision::Allow(reason),
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
            }
        }
        Decision::NoOpinion(reasons.join(", "))
    }
}
