//! ResourceQuotas: their status says how much of what they limit is used.
//!
//! Admission adds what it lets in; here is counted anew what is there, when something goes or comes to use less. Pods, Services
//! and claims are in caches that others share. Of all other resources only those are watched that some quota counts, and of
//! their objects nothing is kept but the namespace.

mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Map, Value};
use client::resource::RESOURCE_QUOTAS;
use client::{Change, Informer, Key, Next, Queue};
use jiff::Timestamp;
use quota::{Source, Usage, in_scope, quantities, usage};

use crate::act::Action;
use crate::context::Context;
use tally::Tallies;

/// How soon to ask again for a resource that a quota counts and nobody serves: its definition may come later.
const REDISCOVER: Duration = Duration::from_secs(30);

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let i = &cx.informers;
    let (quotas, pods, services, claims) =
        (i.resource_quotas(), i.pods(), i.services(), i.persistent_volume_claims());
    let changed = queue.clone();
    quotas.on_change(move |change| {
        // Not its status: admission charges before the object that is charged for can be seen.
        if change.old().is_none_or(|old| old.get("spec") != change.object().get("spec")) {
            changed.add(Key::of(change.object()));
        }
    });
    for (source, informer) in [(Source::Pods, pods), (Source::Services, services), (Source::Claims, claims)] {
        replenish(source, informer, quotas, &queue);
    }
    let tallies = Arc::new(Tallies::new(quotas.clone(), queue.clone()));
    let workers = cx.config.workers.quota;
    cx.work(queue, workers, &[quotas, pods, services, claims], move |cx, key| {
        let tallies = Arc::clone(&tallies);
        async move { reconcile(cx, &tallies, key).await }
    });
}

/// Counts again when an object goes, or comes to use less or other things than before.
fn replenish(source: Source, informer: &Informer<Value>, quotas: &Informer<Value>, queue: &Queue<Key>) {
    let (quotas, queue) = (quotas.clone(), queue.clone());
    informer.on_change(move |change| {
        let object = change.object();
        let in_namespace = quotas.store().in_namespace(object.namespace());
        if in_namespace.is_empty() {
            return;
        }
        let now = Timestamp::now();
        let amounts = |o: &Value| usage(&source, o, now);
        for quota in in_namespace {
            let touched = match change {
                Change::Added(_) => false,
                Change::Deleted(_) => true,
                Change::Updated(old, new) => {
                    in_scope(&quota, &source, old) != in_scope(&quota, &source, new)
                        || amounts(old) != amounts(new)
                }
            };
            if touched {
                queue.add(Key::of(&quota));
            }
        }
    });
}

async fn reconcile(cx: Context, tallies: &Tallies, key: Key) -> anyhow::Result<Next> {
    let quotas = cx.informers.resource_quotas().store();
    tallies.forget_unwanted(&quotas.list());
    let Some(quota) = quotas.get(&key) else { return Ok(Next::Done) };
    let i = &cx.informers;
    let (mut used, mut unserved) = (Usage::new(), false);
    let now = cx.now();
    for (source, names) in by_source(&quota) {
        let objects = match &source {
            Source::Pods => i.pods().store().in_namespace(key.namespace()),
            Source::Services => i.services().store().in_namespace(key.namespace()),
            Source::Claims => i.persistent_volume_claims().store().in_namespace(key.namespace()),
            Source::Objects { group, plural } => {
                // What is not served cannot be counted; what was counted before stays.
                let Some(found) = tallies.count(&cx, group, plural, key.namespace()).await? else {
                    unserved = true;
                    continue;
                };
                let limited = has_scopes(&quota);
                let found = if limited { 0 } else { found };
                let found = api::quantity::Quantity::from_units(found, api::quantity::Format::DecimalSi);
                used.extend(names.into_iter().map(|name| (name, found)));
                continue;
            }
        };
        used.extend(sum(&quota, &source, &names, &objects, now));
    }
    let next = cx.apply(plan(&quota, &used).into_iter().collect()).await?;
    Ok(match cx.config.quota_sync_period {
        _ if unserved => Next::After(REDISCOVER),
        period if period.is_zero() => next,
        period => Next::After(period),
    })
}

/// The names that a quota limits, by what they count.
fn by_source(quota: &Value) -> BTreeMap<Source, Vec<String>> {
    let mut sources: BTreeMap<Source, Vec<String>> = BTreeMap::new();
    for (name, _) in quantities(quota.at(&["spec", "hard"])) {
        if let Some(source) = Source::counted_as(&name) {
            sources.entry(source).or_default().push(name);
        }
    }
    sources
}

/// A quota with scopes has none of the resources that know no scopes.
fn has_scopes(quota: &Value) -> bool {
    !quota.array_at(&["spec", "scopes"]).is_empty()
        || !quota.array_at(&["spec", "scopeSelector", "matchExpressions"]).is_empty()
}

/// How much of each of these names the objects use.
fn sum(quota: &Value, source: &Source, names: &[String], objects: &[Arc<Value>], now: Timestamp) -> Usage {
    let zero = api::quantity::Quantity::ZERO;
    let mut used: Usage = names.iter().map(|name| (name.clone(), zero)).collect();
    for object in objects.iter().filter(|o| in_scope(quota, source, o)) {
        for (name, amount) in usage(source, object, now) {
            if let Some(total) = used.get_mut(&name) {
                *total = total.plus(amount);
            }
        }
    }
    used
}

/// The new status, if that differs.
fn plan(quota: &Value, counted: &Usage) -> Option<Action> {
    let hard: Usage = quantities(quota.at(&["spec", "hard"])).collect();
    let shown: Usage = quantities(quota.at(&["status", "used"])).collect();
    let mut used = shown.clone();
    used.extend(counted.iter().map(|(name, amount)| (name.clone(), *amount)));
    used.retain(|name, _| hard.contains_key(name));
    let known = !quota.at(&["status", "hard"]).is_null() && !quota.at(&["status", "used"]).is_null();
    if known && used == shown && hard == quantities(quota.at(&["status", "hard"])).collect::<Usage>() {
        return None;
    }
    let list = |amounts: &Usage| {
        let mut map = Map::default();
        amounts.iter().for_each(|(name, amount)| {
            map.insert(name.as_str(), amount.to_string());
        });
        Value::Object(map)
    };
    let mut updated = quota.clone();
    updated.set(&["status"], api::object!({"hard": (list(&hard)), "used": (list(&used))}));
    Some(Action::UpdateStatus(RESOURCE_QUOTAS, updated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn quota() -> Value {
        object!({"spec": {"hard": {"pods": "4", "requests.cpu": "2", "count/deployments.apps": "1"}}})
    }

    fn counted(pods: &[Arc<Value>]) -> Usage {
        let names = ["pods".to_owned(), "requests.cpu".to_owned()];
        sum(&quota(), &Source::Pods, &names, pods, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn names_are_gathered_by_what_they_count() {
        let sources = by_source(&quota());
        assert_eq!(sources[&Source::Pods], ["pods", "requests.cpu"]);
        assert_eq!(sources[&Source::of("apps", "deployments")], ["count/deployments.apps"]);
    }

    #[test]
    fn the_status_tells_what_is_used_and_settles() {
        let pod = Arc::new(object!({"spec": {"containers": [{"resources": {"requests": {"cpu": "300m"}}}]}}));
        let used = counted(&[Arc::clone(&pod), pod]);
        let Some(Action::UpdateStatus(_, updated)) = plan(&quota(), &used) else { panic!() };
        assert_eq!(updated.str_at(&["status", "used", "requests.cpu"]), "600m");
        assert_eq!(updated.str_at(&["status", "used", "pods"]), "2");
        assert_eq!(updated.str_at(&["status", "hard", "pods"]), "4");
        // Nothing is said about what could not be counted.
        assert!(updated.at(&["status", "used", "count/deployments.apps"]).is_null());
        assert!(plan(&updated, &used).is_none());
        let Some(Action::UpdateStatus(_, fewer)) = plan(&updated, &counted(&[])) else { panic!() };
        assert_eq!(fewer.str_at(&["status", "used", "pods"]), "0");
    }

    #[test]
    fn what_is_limited_no_more_goes_from_the_status() {
        let mut quota = quota();
        quota.set(&["status"], object!({"hard": {"secrets": "1"}, "used": {"secrets": "1"}}));
        let Some(Action::UpdateStatus(_, updated)) = plan(&quota, &counted(&[])) else { panic!() };
        assert!(updated.at(&["status", "used", "secrets"]).is_null());
    }
}
