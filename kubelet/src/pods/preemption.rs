//! Which pods have to go so that one that the node cannot do without finds room, as upstream's `preemption` decides: few
//! rather than many, those that were promised little rather than those that were promised much. Touches nothing.

use std::sync::Arc;

use api::Value;

use super::needs::{Needs, Taken};
use super::{resources, spec};

/// How much is missing of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub resource: String,
    pub amount: i64,
}

/// The pods that go for `pod`; an error is a sentence.
pub(super) fn victims<'t>(
    pod: &Value,
    missing: &[Missing],
    others: &'t [Taken],
) -> Result<Vec<&'t Arc<Value>>, String> {
    let of_class = |class: &str| -> Vec<&Taken> {
        others.iter().filter(|(other, _)| gives_way(other, pod) && spec::qos(other) == class).collect()
    };
    let [best_effort, burstable, guaranteed] = ["BestEffort", "Burstable", "Guaranteed"].map(of_class);
    // Of each class as few as are needed after all of those below it.
    let below = [best_effort.clone(), burstable.clone()].concat();
    let guaranteed = nearest(guaranteed, rest(missing, &below))?;
    let below = [best_effort.clone(), guaranteed.clone()].concat();
    let burstable = nearest(burstable, rest(missing, &below))?;
    let above = [burstable, guaranteed].concat();
    let best_effort = nearest(best_effort, rest(missing, &above))?;
    Ok([best_effort, above].concat().into_iter().map(|(victim, _)| victim).collect())
}

fn gives_way(other: &Value, pod: &Value) -> bool {
    let priority = |pod: &Value| pod.at(&["spec", "priority"]).as_i64();
    (resources::is_critical(pod) && !resources::is_critical(other))
        || priority(pod).zip(priority(other)).is_some_and(|(own, other)| own > other)
}

/// What is still missing when these pods are gone.
fn rest(missing: &[Missing], gone: &[&Taken]) -> Vec<Missing> {
    let left = missing.iter().filter_map(|Missing { resource, amount }| {
        let amount =
            gone.iter().fold(*amount, |left, (_, needs)| left.saturating_sub(needs.amount(resource)));
        (amount > 0).then(|| Missing { resource: resource.clone(), amount })
    });
    left.collect()
}

/// As few of these pods as have what is missing: again and again the one that leaves least to be found, of equals the one
/// that asks for less.
fn nearest(mut pods: Vec<&Taken>, mut missing: Vec<Missing>) -> Result<Vec<&Taken>, String> {
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let order =
            |(_, needs): &Taken| (distance(&missing, needs), needs.requests.memory, needs.requests.milli_cpu);
        let best = pods.iter().enumerate().min_by(|(_, one), (_, other)| {
            let (one, other) = (order(one), order(other));
            one.0.total_cmp(&other.0).then((one.1, one.2).cmp(&(other.1, other.2)))
        });
        let Some((best, _)) = best else { return Err(none_found(&missing)) };
        let victim = pods.swap_remove(best);
        missing = rest(&missing, &[victim]);
        chosen.push(victim);
    }
    Ok(chosen)
}

/// How far a pod is from having all that is missing, by the share of each resource.
fn distance(missing: &[Missing], needs: &Needs) -> f64 {
    let share = |Missing { resource, amount }: &Missing| {
        let left = amount.saturating_sub(needs.amount(resource)).max(0);
        (left as f64 / *amount as f64).powi(2)
    };
    missing.iter().map(share).sum()
}

fn none_found(missing: &[Missing]) -> String {
    let each = missing.iter().map(|missing| format!("(res: {}, q: {}), ", missing.resource, missing.amount));
    format!("no set of running pods found to reclaim resources: [{}]", each.collect::<String>())
}

#[cfg(test)]
mod tests {
    use api::object;

    use super::*;

    /// A pod by its name, class and request for processors in thousandths.
    fn pod(name: &str, class: &str, cpu: i64, priority: i64) -> Taken {
        let requests = object!({"cpu": (format!("{cpu}m"))});
        let pod = Arc::new(object!({
            "metadata": {"name": name},
            "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": (requests)}}]},
            "status": {"qosClass": class},
        }));
        let needs = Arc::new(Needs::of(&pod));
        (pod, needs)
    }

    fn check(others: &[Taken], cpu: i64, expected: Result<&[&str], &str>) {
        let critical = object!({"spec": {"priority": 2_000_000_000}});
        let missing = [Missing { resource: "cpu".to_owned(), amount: cpu }];
        let found = victims(&critical, &missing, others);
        let found = found.map(|pods| pods.into_iter().map(|pod| pod.name()).collect::<Vec<_>>());
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{cpu}");
    }

    #[test]
    fn few_pods_of_low_classes_go() {
        let others = [
            pod("guaranteed", "Guaranteed", 1000, 0),
            pod("small", "Burstable", 100, 0),
            pod("middle", "Burstable", 300, 0),
            pod("large", "Burstable", 600, 0),
            pod("none", "BestEffort", 0, 0),
            pod("critical", "Burstable", 1000, 2_000_000_000),
        ];
        check(&others, 50, Ok(&["small"]));
        check(&others, 200, Ok(&["middle"]));
        check(&others, 700, Ok(&["large", "small"]));
        check(&others, 1500, Ok(&["large", "guaranteed"]));
        let why = "no set of running pods found to reclaim resources: [(res: cpu, q: 1), ]";
        check(&others, 2001, Err(why));
    }
}
