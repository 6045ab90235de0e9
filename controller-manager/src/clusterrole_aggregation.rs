//! ClusterRoles with an `aggregationRule` take over the rules of the roles it selects.

use std::sync::Arc;

use api::Value;
use api::selector::LabelSelector;
use client::resource::CLUSTER_ROLES;
use client::{Key, Next, Queue};

use crate::act::Action;
use crate::context::Context;

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let roles = cx.informers.cluster_roles();
    let (changed, store) = (queue.clone(), roles.clone());
    roles.on_change(move |_| {
        // Any role may be part of any other.
        for role in store.store().list() {
            if !role.get("aggregationRule").is_null() {
                changed.add(Key::of(&role));
            }
        }
    });
    cx.work(queue, 1, &[roles], |cx, key| async move {
        let store = cx.informers.cluster_roles().store();
        let Some(role) = store.get(&key) else { return Ok(Next::Done) };
        cx.apply(plan(&role, &store.list()).into_iter().collect()).await
    });
}

fn plan(role: &Value, roles: &[Arc<Value>]) -> Option<Action> {
    let selectors = role.array_at(&["aggregationRule", "clusterRoleSelectors"]);
    if selectors.is_empty() || role.is_terminating() {
        return None;
    }
    let mut sources: Vec<&Arc<Value>> = roles.iter().filter(|r| r.name() != role.name()).collect();
    sources.sort_by_key(|r| r.name());
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors {
        let Ok(Some(selector)) = LabelSelector::from_object(selector) else { continue };
        for source in sources.iter().filter(|r| selector.matches_object(r)) {
            for rule in source.array_at(&["rules"]) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    if role.array_at(&["rules"]) == rules {
        return None;
    }
    let mut updated = role.clone();
    updated.set(&["rules"], rules);
    Some(Action::Update(CLUSTER_ROLES, updated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn rules_are_gathered_once_each() {
        let part = |name: &str, rule: &str| {
            Arc::new(object!({"metadata": {"name": name, "labels": {"to": "admin"}}, "rules": [rule]}))
        };
        let all = object!({
            "metadata": {"name": "admin"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "admin"}}]},
        });
        let roles = [part("b", "two"), part("a", "one"), part("c", "two")];
        let Some(Action::Update(_, updated)) = plan(&all, &roles) else { panic!() };
        assert_eq!(updated.get("rules"), &object!(["one", "two"]));
        assert!(plan(&updated, &roles).is_none());
    }
}
