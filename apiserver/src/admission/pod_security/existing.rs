//! Pods that are there when their namespace becomes stricter.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use api::Value;
use api::field::go_quote;

use super::checks::{Pod, evaluate, reasons};
use super::level::Standard;
use crate::registry::Call;
use crate::resources::TABLE;

/// Most pods that are looked at.
const MOST: usize = 3000;
/// How long they are looked at.
const TIME: Duration = Duration::from_secs(1);

/// Warnings of the pods of a namespace that violate what is to hold there. Of the pods of one controller one comes
/// before those of others are looked at again.
pub(super) fn check(call: &Call, namespace: &str, standard: &Standard) -> Vec<String> {
    let start = Instant::now();
    let exemptions = &call.server.config.admission.pod_security.exemptions;
    let snapshot = call.server.storage.cache(TABLE.store("", "pods")).snapshot();
    let prefix = format!("{namespace}/");
    let (mut first, mut others) = (Vec::new(), Vec::new());
    let mut controllers: HashSet<String> = HashSet::new();
    for stored in snapshot.below(&prefix) {
        let pod = stored.object();
        if exemptions.covers_class(pod.str_at(&["spec", "runtimeClassName"])) {
            continue;
        }
        match controller(&pod) {
            Some(uid) if !controllers.insert(uid.clone()) => others.push(stored),
            _ => first.push(stored),
        }
    }
    let total = first.len() + others.len();
    let mut checked = 0;
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for stored in first.into_iter().chain(others).take(MOST) {
        let pod = stored.object();
        let violations = evaluate(standard, &Pod::new(&pod));
        if !violations.is_empty() {
            let (name, count) =
                found.entry(reasons(&violations)).or_insert_with(|| (pod.name().to_owned(), 0));
            if pod.name() < name.as_str() {
                *name = pod.name().to_owned();
            }
            *count += 1;
        }
        checked += 1;
        if start.elapsed() > TIME {
            break;
        }
    }
    let mut warnings = Vec::new();
    if checked < total {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
        ));
    }
    if !found.is_empty() {
        let (namespace, standard) = (go_quote(namespace), go_quote(&standard.to_string()));
        warnings.push(format!(
            "existing pods in namespace {namespace} violate the new PodSecurity enforce level {standard}"
        ));
    }
    let mut each: Vec<String> = found
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            more => format!("{name} (and {} other pods): {reasons}", more - 1),
        })
        .collect();
    each.sort_unstable();
    warnings.append(&mut each);
    warnings
}

fn controller(pod: &Value) -> Option<String> {
    let owners = pod.array_at(&["metadata", "ownerReferences"]);
    let owner = owners.iter().find(|o| o.get("controller").as_bool() == Some(true))?;
    Some(owner.str_at(&["uid"]).to_owned())
}
