//! RuntimeClass: a pod of a class takes over its overhead and where it runs.

use api::error::Result;
use api::quantity::Quantity;
use api::{ApiError, Map, Value};

use super::{Operation, forbid, is, name_of, tolerations, unusable_name};
use crate::registry::Call;
use crate::resources::TABLE;

const OTHER: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const NONE: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

/// The class of a pod, if it names one.
async fn class_of(call: &Call, pod: &Value) -> Result<Option<Value>> {
    let Some(name) = pod.at(&["spec", "runtimeClassName"]).as_str() else { return Ok(None) };
    let cache = call.server.storage.cache(TABLE.store("node.k8s.io", "runtimeclasses"));
    if let Some(why) = unusable_name(name) {
        return Err(ApiError::new(http::StatusCode::INTERNAL_SERVER_ERROR, "", why));
    }
    if cache.get(name).is_none() {
        call.server.storage.catch_up().await?;
    }
    let quoted = api::field::go_quote(name);
    let missing = || forbid(call, name_of(pod), format!("pod rejected: RuntimeClass {quoted} not found"));
    Ok(Some(cache.get(name).ok_or_else(missing)?.object()))
}

fn is_concerned(call: &Call, operation: Operation) -> bool {
    operation == Operation::Create && is(call, "", "pods")
}

/// True when two lists of resources have the same amounts.
fn same(a: &Value, b: &Value) -> bool {
    let read = |v: &Value| -> Option<Vec<(String, Quantity)>> {
        let mut all: Vec<(String, Quantity)> = v
            .as_object()
            .into_iter()
            .flat_map(Map::iter)
            .map(|(name, q)| Some((name.to_owned(), q.as_str()?.parse().ok()?)))
            .collect::<Option<_>>()?;
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Some(all)
    };
    read(a).is_some_and(|a| Some(a) == read(b))
}

pub(super) async fn mutate(call: &Call, operation: Operation, pod: &mut Value) -> Result<()> {
    if !is_concerned(call, operation) {
        return Ok(());
    }
    let Some(class) = class_of(call, pod).await? else { return Ok(()) };
    if !class.get("overhead").is_null() {
        let (given, fixed) = (pod.at(&["spec", "overhead"]), class.at(&["overhead", "podFixed"]));
        if !given.is_empty() && !same(given, fixed) {
            return Err(forbid(call, name_of(pod), OTHER));
        }
        if fixed.is_empty() {
            pod.remove_at(&["spec", "overhead"]);
        } else {
            pod.set(&["spec", "overhead"], fixed);
        }
    }
    let selector = class.at(&["scheduling", "nodeSelector"]).as_object();
    for (key, value) in selector.into_iter().flat_map(Map::iter) {
        let own = pod.at(&["spec", "nodeSelector", key]);
        if !own.is_null() && own != value {
            let (is, was) = (value.as_str().unwrap_or_default(), own.as_str().unwrap_or_default());
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {is}; pod.spec.nodeSelector[{key}] = {was}"
            );
            return Err(forbid(call, name_of(pod), why));
        }
        pod.set(&["spec", "nodeSelector", key], value);
    }
    let more = class.array_at(&["scheduling", "tolerations"]).to_vec();
    if !more.is_empty() {
        let own = pod.make_object().entry("spec").make_object().entry("tolerations").make_array();
        tolerations::merge(own, more);
    }
    Ok(())
}

pub(super) async fn validate(call: &Call, operation: Operation, pod: &Value) -> Result<()> {
    if !is_concerned(call, operation) {
        return Ok(());
    }
    let class = class_of(call, pod).await?;
    let defined = class.as_ref().filter(|class| !class.get("overhead").is_null());
    let given = pod.at(&["spec", "overhead"]);
    let why = match defined {
        Some(class) if !same(given, class.at(&["overhead", "podFixed"])) => OTHER,
        None if !given.is_null() => NONE,
        _ => return Ok(()),
    };
    Err(forbid(call, name_of(pod), why))
}
