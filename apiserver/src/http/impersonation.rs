//! Acting as another user, where the sender may: as one of a kind and for a verb only (constrained), or as anybody and for
//! everything.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/>.

use api::error::Result;
use api::field::go_quote;
use api::{ApiError, names};
use http::HeaderMap;

use super::{Exchange, check};
use crate::authn::UserInfo;
use crate::authz::Attributes;
use crate::server::Server;

const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
const NODE: &str = "system:node:";
/// With so many checks of the same kind, one of all is tried first.
const MANY: usize = 4;

/// The ways to act as somebody, in the order in which they are tried.
const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Anybody];

/// Whom one acts as, and how that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// As the node that the sender, a ServiceAccount, runs on.
    AssociatedNode,
    /// As a node.
    ArbitraryNode,
    /// As a ServiceAccount.
    ServiceAccount,
    /// As somebody who is neither.
    UserInfo,
    /// As anybody, for everything.
    Anybody,
}

/// Acts as another user, where the sender is allowed to.
pub(super) async fn impersonate(exchange: &mut Exchange) -> Result<()> {
    let Some(wanted) = wanted(exchange.headers())? else { return Ok(()) };
    let mut refusal = None;
    for mode in MODES {
        if !mode.fits(&wanted, &exchange.user) {
            continue;
        }
        match mode.check(exchange, &wanted).await {
            Ok(user) => {
                exchange.trail.impersonates(&user, &mode.constraint());
                exchange.user = user;
                forget(&mut exchange.head.headers);
                return Ok(());
            }
            Err(e) => refusal = refusal.or(Some(e)),
        }
    }
    Err(refusal.unwrap_or_else(|| ApiError::internal("all impersonation modes failed")))
}

/// Whom the headers ask for, if they ask.
fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>> {
    let values = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
    };
    let first = |name: &str| values(name).into_iter().next().unwrap_or_default();
    let mut wanted = UserInfo {
        name: first("impersonate-user"),
        uid: first("impersonate-uid"),
        groups: values("impersonate-group"),
        ..UserInfo::default()
    };
    for header in headers.keys() {
        let Some(key) = header.as_str().strip_prefix(EXTRA) else { continue };
        let decoded = percent_encoding::percent_decode_str(key).decode_utf8();
        let key = decoded.map_or_else(|_| key.to_owned(), std::borrow::Cow::into_owned);
        wanted.extra.push((key, values(header.as_str())));
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty() {
        return Ok(None);
    }
    let why = format!("requested {} without impersonating a user name", go_user(&wanted));
    Err(ApiError::bad_request(why))
}

/// A user as Go's `%#v` prints it.
fn go_user(user: &UserInfo) -> String {
    let list = |texts: &[String]| {
        let quoted: Vec<String> = texts.iter().map(|text| go_quote(text)).collect();
        format!("[]string{{{}}}", quoted.join(", "))
    };
    let groups = if user.groups.is_empty() { "[]string(nil)".to_owned() } else { list(&user.groups) };
    let mut pairs: Vec<String> =
        user.extra.iter().map(|(key, values)| format!("{}:{}", go_quote(key), list(values))).collect();
    pairs.sort_unstable();
    let extra = match pairs.as_slice() {
        [] => "map[string][]string(nil)".to_owned(),
        pairs => format!("map[string][]string{{{}}}", pairs.join(", ")),
    };
    let (name, uid) = (go_quote(&user.name), go_quote(&user.uid));
    format!("&user.DefaultInfo{{Name:{name}, UID:{uid}, Groups:{groups}, Extra:{extra}}}")
}

/// Whoever the request is handed on to sees the user, and not what the sender asked for.
fn forget(headers: &mut HeaderMap) {
    let asked = |name: &http::HeaderName| name.as_str().starts_with("impersonate-");
    let names: Vec<http::HeaderName> = headers.keys().filter(|name| asked(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn node(name: &str) -> Option<&str> {
    name.strip_prefix(NODE).filter(|node| names::dns_subdomain(node).is_empty())
}

fn account(name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (names::dns_label(namespace).is_empty() && names::dns_subdomain(name).is_empty())
        .then_some((namespace, name))
}

/// The node that a ServiceAccount runs on, as its token says.
fn own_node(sender: &UserInfo) -> Option<&str> {
    account(&sender.name)?;
    let (_, nodes) = sender.extra.iter().find(|(key, _)| key == "authentication.kubernetes.io/node-name")?;
    match nodes.as_slice() {
        [one] => Some(one),
        _ => None,
    }
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Anybody => "",
        }
    }

    fn is_constrained(self) -> bool {
        self != Mode::Anybody
    }

    fn verb(self) -> String {
        match self {
            Mode::Anybody => "impersonate".to_owned(),
            mode => format!("impersonate:{}", mode.name()),
        }
    }

    /// What the audit log tells of it.
    fn constraint(self) -> String {
        if self.is_constrained() { self.verb() } else { String::new() }
    }

    /// True for a way that could lead to the user that is wanted.
    fn fits(self, wanted: &UserInfo, sender: &UserInfo) -> bool {
        let bare = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        match self {
            Mode::AssociatedNode => {
                bare && node(&wanted.name).is_some_and(|node| own_node(sender) == Some(node))
            }
            Mode::ArbitraryNode => bare && node(&wanted.name).is_some(),
            Mode::ServiceAccount => bare && account(&wanted.name).is_some(),
            Mode::UserInfo => node(&wanted.name).is_none() && account(&wanted.name).is_none(),
            Mode::Anybody => true,
        }
    }

    /// The user, if the sender may act as it in this way.
    async fn check(self, exchange: &Exchange, wanted: &UserInfo) -> Result<UserInfo> {
        let sender = self.sender(&exchange.user);
        let checker = Checker { server: &exchange.server, sender: &sender, mode: self, verb: &self.verb() };
        if self.is_constrained() {
            let asked = Attributes::of(&exchange.info);
            let verb = format!("impersonate-on:{}:{}", self.name(), asked.verb);
            check(&exchange.server, &sender, &Attributes { verb: &verb, ..asked }).await?;
        }
        let mut user = wanted.clone();
        checker.name(wanted, &mut user).await?;
        if !wanted.uid.is_empty() {
            checker.may(AUTHENTICATION, "uids", "", &wanted.uid).await?;
        }
        checker.groups(&wanted.groups).await?;
        checker.extra(&wanted.extra).await?;
        let everybody = match user.name.as_str() {
            "system:anonymous" => "system:unauthenticated",
            _ if user.is_in("system:unauthenticated") => return Ok(user),
            _ => "system:authenticated",
        };
        if !user.is_in(everybody) {
            user.groups.push(everybody.to_owned());
        }
        Ok(user)
    }

    /// The sender as authorizers see it.
    fn sender(self, sender: &UserInfo) -> UserInfo {
        let mut sender = sender.clone();
        if self == Mode::AssociatedNode {
            let mut keys: Vec<String> = sender.extra.iter().map(|(key, _)| key.clone()).collect();
            keys.sort();
            sender.extra = vec![("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)];
        }
        sender
    }
}

/// Checks what the sender may act as.
struct Checker<'a> {
    server: &'a Server,
    sender: &'a UserInfo,
    mode: Mode,
    verb: &'a str,
}

impl<'a> Checker<'a> {
    fn attributes(
        &self,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        name: &'a str,
    ) -> Attributes<'a> {
        Attributes {
            verb: self.verb,
            group,
            resource,
            subresource,
            name,
            version: "v1",
            ..Attributes::default()
        }
    }

    async fn may(
        &self,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        name: &'a str,
    ) -> Result<()> {
        check(self.server, self.sender, &self.attributes(group, resource, subresource, name)).await
    }

    /// The group of the resources of users and groups.
    fn group(&self) -> &'static str {
        if self.mode.is_constrained() { AUTHENTICATION } else { "" }
    }

    fn refuse(&self, what: &Attributes<'_>, why: &str) -> ApiError {
        let why = format!("{}: {why}", what.refusal(self.sender));
        ApiError::forbidden(what.group, what.resource, what.name, &why)
    }

    async fn name(&self, wanted: &'a UserInfo, user: &mut UserInfo) -> Result<()> {
        let mut what = self.attributes(self.group(), "users", "", &wanted.name);
        if let Some(node) = node(&wanted.name).filter(|_| self.mode.is_constrained()) {
            what.resource = "nodes";
            what.name = if self.mode == Mode::AssociatedNode { "*" } else { node };
            user.groups = vec!["system:nodes".to_owned()];
        }
        if let Some((namespace, name)) = account(&wanted.name) {
            (what.resource, what.namespace, what.name) = ("serviceaccounts", namespace, name);
            if wanted.groups.is_empty() {
                user.groups =
                    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
            }
        }
        check(self.server, self.sender, &what).await
    }

    async fn groups(&self, groups: &'a [String]) -> Result<()> {
        let of = self.group();
        if self.mode.is_constrained() {
            for (group, why) in [
                ("", "impersonating the empty string group is not allowed"),
                ("system:masters", "impersonating the system:masters group is not allowed"),
            ] {
                if groups.iter().any(|g| g == group) {
                    return Err(self.refuse(&self.attributes(of, "groups", "", group), why));
                }
            }
            if groups.len() >= MANY && self.may(of, "groups", "", "*").await.is_ok() {
                return Ok(());
            }
        }
        for group in groups {
            self.may(of, "groups", "", group).await?;
        }
        Ok(())
    }

    async fn extra(&self, extra: &'a [(String, Vec<String>)]) -> Result<()> {
        if self.mode.is_constrained() {
            if let Some(why) = extra.iter().find_map(|(key, values)| wrong_extra(key, values)) {
                return Err(self.refuse(&self.attributes(AUTHENTICATION, "userextras", "", ""), &why));
            }
            let count: usize = extra.iter().map(|(_, values)| values.len()).sum();
            if count >= MANY && self.may(AUTHENTICATION, "userextras", "*", "*").await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.may(AUTHENTICATION, "userextras", key, value).await?;
            }
        }
        Ok(())
    }
}

fn wrong_extra(key: &str, values: &[String]) -> Option<String> {
    let (domain, rest) = key.split_once('/').unwrap_or(("", ""));
    if key.is_empty() {
        return Some("impersonating the empty string key in extra is not allowed".to_owned());
    }
    if rest.is_empty() || !names::dns_subdomain(domain).is_empty() {
        return Some(format!(
            "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {key:?}: must be a domain-prefixed path (such as \"acme.io/foo\")"
        ));
    }
    if key.to_lowercase() != key {
        return Some(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"));
    }
    if values.iter().any(String::is_empty) {
        return Some("impersonating the empty string value in extra is not allowed".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserInfo {
        UserInfo { name: name.to_owned(), ..UserInfo::default() }
    }

    #[test]
    fn each_user_is_reached_in_the_ways_that_fit() {
        let check = |wanted: &UserInfo, sender: &UserInfo, want: &[Mode]| {
            let got: Vec<Mode> = MODES.into_iter().filter(|m| m.fits(wanted, sender)).collect();
            assert_eq!(got, want, "{wanted:?}");
        };
        let agent = UserInfo {
            extra: vec![("authentication.kubernetes.io/node-name".to_owned(), vec!["n1".to_owned()])],
            ..user("system:serviceaccount:a:agent")
        };
        check(&user("ann"), &agent, &[Mode::UserInfo, Mode::Anybody]);
        check(&user("system:serviceaccount:a:b"), &agent, &[Mode::ServiceAccount, Mode::Anybody]);
        check(&user("system:node:n2"), &agent, &[Mode::ArbitraryNode, Mode::Anybody]);
        check(&user("system:node:n1"), &agent, &[Mode::AssociatedNode, Mode::ArbitraryNode, Mode::Anybody]);
        check(&user("system:node:n1"), &user("ann"), &[Mode::ArbitraryNode, Mode::Anybody]);
        let grouped = UserInfo { groups: vec!["g".to_owned()], ..user("system:node:n1") };
        check(&grouped, &agent, &[Mode::Anybody]);
    }

    #[test]
    fn headers_name_the_user() {
        let mut headers = HeaderMap::new();
        assert!(wanted(&headers).unwrap().is_none());
        headers.insert("impersonate-group", "g".parse().unwrap());
        assert!(wanted(&headers).is_err());
        headers.insert("impersonate-user", "ann".parse().unwrap());
        headers.insert("impersonate-extra-acme.io%2fteam", "a".parse().unwrap());
        let wanted = wanted(&headers).unwrap().unwrap();
        assert_eq!((wanted.name.as_str(), wanted.groups.as_slice()), ("ann", &["g".to_owned()][..]));
        assert_eq!(wanted.extra, [("acme.io/team".to_owned(), vec!["a".to_owned()])]);
    }

    #[test]
    fn extra_is_checked() {
        assert_eq!(wrong_extra("acme.io/team", &["a".to_owned()]), None);
        assert!(wrong_extra("team", &["a".to_owned()]).unwrap().contains("domain-prefixed"));
        assert!(wrong_extra("acme.io/Team", &["a".to_owned()]).unwrap().contains("non-lowercase"));
        assert!(wrong_extra("acme.io/team", &[String::new()]).unwrap().contains("empty string value"));
    }
}
