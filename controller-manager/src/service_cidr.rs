//! ServiceCIDRs: they stay while an address of a Service would be left in none, and say whether they can be used.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::Value;
use client::resource::{IP_ADDRESSES, SERVICE_CIDRS};
use client::{Change, Informer, Key, Next, Queue};
use ipnet::IpNet;
use jiff::Timestamp;

use crate::act::Action;
use crate::context::Context;
use crate::objects::{Condition, set_condition, time_at};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

/// For as long a range that goes is kept: API servers may take addresses of it until they have heard of it.
const GRACE: i64 = 10;

pub(crate) fn start(cx: &Context) {
    let queue = Queue::new();
    let ranges = cx.informers.service_cidrs();
    // Of an address its name is all there is to know.
    let allocated = "ipaddress.kubernetes.io/managed-by=ipallocator.k8s.io";
    let addresses = Informer::of(IP_ADDRESSES, |address| address.name().parse::<IpAddr>().ok())
        .labels(allocated)
        .metadata_only()
        .build();
    let (changed, store) = (queue.clone(), ranges.clone());
    ranges.on_change(move |change| {
        changed.add(Key::of(change.object()));
        if let Change::Added(new) = change {
            let fresh = cidrs(new);
            let overlaps = |other: &Value| cidrs(other).iter().any(|c| fresh.iter().any(|f| overlap(c, f)));
            store.store().list().iter().filter(|o| overlaps(o)).for_each(|o| changed.add(Key::of(o)));
        }
    });
    let (changed, store) = (queue.clone(), ranges.clone());
    addresses.on_change(move |change| {
        if !matches!(change, Change::Updated(..)) {
            let holders = store.store().list();
            holders.iter().filter(|r| holds(r, change.object())).for_each(|r| changed.add(Key::of(r)));
        }
    });
    // Fed and waited for here: it holds no objects that others could use.
    let (feed, client, stop) = (addresses.clone(), cx.reader.clone(), cx.tasks.token());
    cx.tasks.critical(cx.name, async move {
        feed.run(client, stop).await;
        Ok(())
    });
    cx.work(queue, 5, &[ranges], move |cx, key| {
        let addresses = addresses.clone();
        async move {
            addresses.synced().await;
            let all = cx.informers.service_cidrs().store();
            let Some(range) = all.get(&key) else { return Ok(Next::Done) };
            let actions = plan(&range, &all.list(), &addresses.store().list(), cx.now());
            cx.apply(actions).await
        }
    });
}

fn cidrs(range: &Value) -> Vec<IpNet> {
    let texts = range.array_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str);
    texts.filter_map(|t| t.parse().ok()).collect()
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn holds(range: &Value, address: &IpAddr) -> bool {
    cidrs(range).iter().any(|c| c.contains(address))
}

/// Whether no address would be left without a range.
fn can_go(range: &Value, all: &[Arc<Value>], addresses: &[Arc<IpAddr>]) -> bool {
    let others: Vec<&Arc<Value>> = all.iter().filter(|r| r.name() != range.name()).collect();
    let within_another = |own: &IpNet| others.iter().any(|r| cidrs(r).iter().any(|c| c.contains(own)));
    let own = cidrs(range);
    let needs = |a: &IpAddr| own.iter().any(|c| c.contains(a)) && !others.iter().any(|r| holds(r, a));
    own.iter().all(within_another) || !addresses.iter().any(|a| needs(a))
}

fn plan(range: &Value, all: &[Arc<Value>], addresses: &[Arc<IpAddr>], now: Timestamp) -> Vec<Action> {
    let mut finalizers = range.array_at(&["metadata", "finalizers"]).to_vec();
    let guarded = finalizers.iter().any(|f| f.as_str() == Some(FINALIZER));
    let mut updated = range.clone();
    if let Some(since) = time_at(range, &["metadata", "deletionTimestamp"]) {
        if !can_go(range, all, addresses) {
            let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            let told = Condition { kind: "Ready", status: "False", reason: "Terminating", message };
            return tell(range, &told, now).into_iter().collect();
        }
        let left = since.as_second() + GRACE - now.as_second();
        if left > 0 {
            return vec![Action::Later(Duration::from_secs(u64::try_from(left).unwrap_or(1)))];
        }
        if !guarded {
            return Vec::new();
        }
        finalizers.retain(|f| f.as_str() != Some(FINALIZER));
        updated.set(&["metadata", "finalizers"], finalizers);
        return vec![Action::Update(SERVICE_CIDRS, updated)];
    }
    if !guarded {
        finalizers.push(FINALIZER.into());
        updated.set(&["metadata", "finalizers"], finalizers);
        // The change leads here again, then to the condition.
        return vec![Action::Update(SERVICE_CIDRS, updated)];
    }
    let message = "Kubernetes Service CIDR is ready";
    let told = Condition { kind: "Ready", status: "True", reason: "", message };
    tell(range, &told, now).into_iter().collect()
}

/// The range with this condition, unless it has it.
fn tell(range: &Value, condition: &Condition<'_>, now: Timestamp) -> Option<Action> {
    let mut conditions = range.array_at(&["status", "conditions"]).to_vec();
    if !set_condition(&mut conditions, now, condition) {
        return None;
    }
    for condition in &mut conditions {
        // Conditions of this style always have one.
        if condition.get("reason").is_null() {
            condition.set(&["reason"], "");
        }
    }
    let mut updated = range.clone();
    updated.set(&["status", "conditions"], conditions);
    Some(Action::UpdateStatus(SERVICE_CIDRS, updated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn range(name: &str, cidr: &str, deleted: bool) -> Arc<Value> {
        let mut range = object!({
            "metadata": {"name": name, "finalizers": [FINALIZER]}, "spec": {"cidrs": [cidr]},
        });
        if deleted {
            range.set(&["metadata", "deletionTimestamp"], "1970-01-01T00:16:40Z");
        }
        Arc::new(range)
    }

    fn run(all: &[Arc<Value>], addresses: &[&str], now: i64) -> Vec<Action> {
        let addresses: Vec<_> = addresses.iter().map(|a| Arc::new(a.parse().unwrap())).collect();
        plan(&all[0], all, &addresses, Timestamp::from_second(now).unwrap())
    }

    #[test]
    fn a_new_range_is_guarded_and_then_ready() {
        let bare = Arc::new(object!({"metadata": {"name": "a"}, "spec": {"cidrs": ["10.0.0.0/24"]}}));
        let [Action::Update(_, guarded)] = &run(&[bare], &[], 0)[..] else { panic!() };
        assert_eq!(guarded.at(&["metadata", "finalizers"]), &object!([FINALIZER]));
        let [Action::UpdateStatus(_, ready)] = &run(&[Arc::new(guarded.clone())], &[], 0)[..] else {
            panic!()
        };
        assert_eq!(ready.array_at(&["status", "conditions"])[0].str_at(&["status"]), "True");
        assert_eq!(ready.array_at(&["status", "conditions"])[0].get("reason").as_str(), Some(""));
        assert!(run(&[Arc::new(ready.clone())], &[], 9).is_empty());
    }

    #[test]
    fn a_range_stays_while_addresses_need_it() {
        let going = range("a", "10.0.0.0/24", true);
        let check = |others: &[Arc<Value>], addresses: &[&str], stays: bool| {
            let mut all = vec![Arc::clone(&going)];
            all.extend(others.iter().cloned());
            let got = run(&all, addresses, 2000);
            assert_eq!(matches!(got[..], [Action::UpdateStatus(..)]), stays, "{addresses:?}: {got:?}");
            assert_eq!(matches!(got[..], [Action::Update(..)]), !stays, "{addresses:?}: {got:?}");
        };
        check(&[], &[], false);
        check(&[], &["10.0.0.5"], true);
        check(&[], &["10.1.0.5"], false);
        check(&[range("b", "10.0.0.0/16", false)], &["10.0.0.5"], false);
        check(&[range("b", "10.0.0.0/28", false)], &["10.0.0.5"], false);
        check(&[range("b", "10.0.0.0/28", false)], &["10.0.0.5", "10.0.0.77"], true);
        assert!(matches!(run(&[going], &[], 1003)[..], [Action::Later(d)] if d.as_secs() == 7));
    }
}
