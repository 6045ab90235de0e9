//! What a pod asks for as a whole.

use std::collections::BTreeSet;

use crate::quantity::Quantity;
use crate::{Map, Value};

/// Fills in what a pod asks for as a whole, when it says something of that: limits of huge pages are those of its
/// containers, requests those of its containers, or else its limits.
pub(super) fn default(spec: &mut Value) {
    let whole = spec.get("resources");
    let given = |kind: &str, name: &str| !whole.at(&[kind, name]).is_null();
    if whole.get("limits").is_empty() && whole.get("requests").is_empty() {
        return;
    }
    let mut missing: Vec<(&str, String, Value)> = Vec::new();
    for name in names_of(spec, "limits").into_iter().filter(|n| is_huge_page(n)) {
        if !given("requests", name)
            && !given("limits", name)
            && let Some(sum) = effective(spec, "limits", name)
        {
            missing.push(("limits", name.to_owned(), sum.to_string().into()));
        }
    }
    let limits = whole.get("limits").as_object().into_iter().flat_map(Map::iter);
    let mut limits: Vec<(String, Value)> = limits.map(|(n, q)| (n.to_owned(), q.clone())).collect();
    limits.extend(missing.iter().map(|(_, name, limit)| (name.clone(), limit.clone())));
    if !limits.is_empty() {
        let mut asked: BTreeSet<String> = BTreeSet::new();
        for name in names_of(spec, "requests").into_iter().filter(|n| matches!(*n, "cpu" | "memory")) {
            if !given("requests", name)
                && let Some(sum) = effective(spec, "requests", name)
            {
                asked.insert(name.to_owned());
                missing.push(("requests", name.to_owned(), sum.to_string().into()));
            }
        }
        for (name, limit) in limits {
            if is_pod_level(&name) && !given("requests", &name) && !asked.contains(&name) {
                missing.push(("requests", name, limit));
            }
        }
    }
    for (kind, name, amount) in missing {
        spec.set(&["resources", kind, &name], amount);
        if let Some(map) = spec.at_mut(&["resources", kind]).and_then(Value::as_object_mut) {
            map.sort_keys();
        }
    }
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

/// What the containers of a pod have requests or limits of.
fn names_of<'s>(spec: &'s Value, kind: &str) -> BTreeSet<&'s str> {
    let containers = ["containers", "initContainers"].into_iter().flat_map(|l| spec.array_at(&[l]));
    let maps = containers.filter_map(|c| c.at(&["resources", kind]).as_object());
    maps.flat_map(Map::keys).collect()
}

/// What the containers of a pod ask for together: those that run side by side, or one that runs before.
pub fn effective(spec: &Value, kind: &str, name: &str) -> Option<Quantity> {
    let amount =
        |c: &Value| c.at(&["resources", kind, name]).as_str().and_then(|q| q.parse::<Quantity>().ok());
    let sum = |items: &mut dyn Iterator<Item = &Value>| items.filter_map(amount).reduce(Quantity::plus);
    let sidecar = |c: &&Value| c.str_at(&["restartPolicy"]) == "Always";
    let mut running = spec.array_at(&["containers"]).iter();
    let mut total = sum(&mut running);
    let (mut sidecars, mut largest): (Option<Quantity>, Option<Quantity>) = (None, None);
    for init in spec.array_at(&["initContainers"]) {
        let own = amount(init);
        let with_sidecars = match (own, sidecars) {
            (Some(a), Some(b)) => Some(a.plus(b)),
            (a, b) => a.or(b),
        };
        if sidecar(&init) {
            sidecars = with_sidecars;
        }
        largest = largest.max(with_sidecars);
    }
    total = match (total, sidecars) {
        (Some(a), Some(b)) => Some(a.plus(b)),
        (a, b) => a.or(b),
    };
    total.max(largest)
}
