//! Escalation: nobody grants what they do not have, unless they may `escalate` or `bind`.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping>.

use api::Value;
use api::error::Result;

use super::{Operation, forbid};
use crate::authz::{Attributes, Decision, Rule, covers};
use crate::registry::Call;
use crate::resources::TABLE;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn validate(
    call: &Call,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<()> {
    let (Some(new), Operation::Create | Operation::Update) = (object, operation) else { return Ok(()) };
    if call.row.group != GROUP || call.user.is_in("system:masters") {
        return Ok(());
    }
    match call.row.built_in() {
        "roles" | "clusterroles" => {
            if old.is_some_and(|o| o.get("rules") == new.get("rules"))
                || may(call, "escalate", call.row.plural, new.name())
            {
                return Ok(());
            }
            check(call, new, &rules(new))
        }
        _ => {
            if old.is_some_and(|o| {
                o.get("roleRef") == new.get("roleRef") && o.get("subjects") == new.get("subjects")
            }) {
                return Ok(());
            }
            let reference = new.get("roleRef");
            let (plural, name) = match reference.kind() {
                "ClusterRole" => ("clusterroles", reference.str_at(&["name"])),
                _ => ("roles", reference.str_at(&["name"])),
            };
            if may(call, "bind", plural, name) {
                return Ok(());
            }
            let row = TABLE.find_any_version(GROUP, plural).expect("a built-in resource");
            let key = row.key(&call.namespace, name);
            let role = call.server.storage.cache(TABLE.store(GROUP, plural)).get(&key);
            let missing = || api::ApiError::not_found(GROUP, plural, name);
            check(call, new, &rules(&role.ok_or_else(missing)?.object()))
        }
    }
}

fn rules(role: &Value) -> Vec<Rule> {
    role.array_at(&["rules"]).iter().map(Rule::parse).collect()
}

fn may(call: &Call, verb: &str, resource: &str, name: &str) -> bool {
    let what = Attributes {
        verb,
        group: GROUP,
        resource,
        name,
        namespace: &call.namespace,
        version: "v1",
        ..Attributes::default()
    };
    let decision = call.server.authorizer.authorize_now(&call.server.storage, &call.user, &what);
    matches!(decision, Decision::Allow(_))
}

fn check(call: &Call, object: &Value, wanted: &[Rule]) -> Result<()> {
    let own = call.server.authorizer.rbac.rules(&call.server.storage, &call.user, &call.namespace);
    let missing: Vec<String> = wanted.iter().filter(|rule| !covers(&own, rule)).map(describe).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = call.user.groups.iter().map(|g| api::field::go_quote(g)).collect();
    let why = format!(
        "user {} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        api::field::go_quote(&call.user.name),
        groups.join(" "),
        missing.join("\n")
    );
    Err(forbid(call, object.name(), why))
}

fn describe(rule: &Rule) -> String {
    let list = |name: &str, items: &[String]| {
        let quoted: Vec<String> = items.iter().map(|i| api::field::go_quote(i)).collect();
        (!items.is_empty()).then(|| format!("{name}:[{}]", quoted.join(" ")))
    };
    let parts = [
        list("APIGroups", &rule.groups),
        list("Resources", &rule.resources),
        list("ResourceNames", &rule.names),
        list("NonResourceURLs", &rule.paths),
        list("Verbs", &rule.verbs),
    ];
    format!("{{{}}}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}
