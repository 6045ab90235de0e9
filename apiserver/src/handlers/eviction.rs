//! Eviction: a deletion that disruption budgets may refuse.
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/>.

use api::error::{Cause, Result};
use api::field::{FieldError, Path};
use api::selector::LabelSelector;
use api::{ApiError, Value, object};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serve::Body;

use crate::admission::{self, Operation};
use crate::http::Exchange;
use crate::kinds::pod;
use crate::registry::{Call, DeleteOptions, from_storage};
use crate::render;
use crate::resources::{Row, TABLE};

/// The versions in which evictions are written.
const VERSIONS: [&str; 2] = ["policy/v1", "policy/v1beta1"];
/// Evicted pods that a budget remembers until its controller has seen that they are gone.
const MAX_DISRUPTED: usize = 2000;
const REFUSAL: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Deletes a pod if its disruption budgets allow it.
pub(super) async fn evict(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form_of_action()?;
    let mut call = exchange.write_call(row, "CreateOptions")?;
    let ty = schema::kind("policy", "v1", "Eviction").expect("Eviction is a known kind");
    let mut eviction = exchange.object_of(&call, &VERSIONS, "Eviction", ty).await?;
    call.check_namespace(&mut eviction)?;
    admission::mutate(&call, Operation::Create, &mut eviction, None).await?;
    if call.name != eviction.name() {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = options_of(&call, &eviction)?;
    call.write.dry_run = options.dry_run;
    admission::validate(&call, Operation::Create, Some(&eviction), None).await?;
    let pod = render::object_of(row, &*call.get(None).await?);
    if needs_budget(&pod) {
        match budget_of(&call, &pod) {
            Err(several) => return Ok(render::value(StatusCode::INTERNAL_SERVER_ERROR, &several, form)),
            // It must still be unready when it is deleted.
            Ok(Some(budget)) if !is_ready(&pod) && spares_unready(&budget) => {
                options.resource_version.get_or_insert_with(|| pod.resource_version().to_owned());
            }
            Ok(Some(budget)) => spend(&call, &budget, pod.name()).await?,
            Ok(None) => {}
        }
    }
    call.subresource = String::new();
    if !call.write.dry_run {
        let marked = mark(&call, &options).await?;
        // The mark is this server's own change.
        options.resource_version.iter_mut().for_each(|v| marked.resource_version().clone_into(v));
    }
    call.delete_admitted(&options).await?;
    let answer =
        object!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(render::value(StatusCode::CREATED, &answer, form))
}

/// How the pod is to be deleted. Either of the request and of the body may say that all is tried only.
fn options_of(call: &Call, eviction: &Value) -> Result<DeleteOptions> {
    let given = eviction.get("deleteOptions");
    if given.get("ignoreStoreReadErrorWithClusterBreakingPotential").as_bool() == Some(true) {
        let path = Path::new("deleteOptions.ignoreStoreReadErrorWithClusterBreakingPotential");
        let why = "can not be set for pod eviction, try after removing the option";
        let error = FieldError::invalid(&path, true, why);
        return Err(ApiError::invalid("policy", "Eviction", &call.name, &[error]));
    }
    let mut options = DeleteOptions::from_body(given)?;
    options.dry_run |= call.write.dry_run;
    Ok(options)
}

/// Says in the status of a pod why it is deleted, if it is the one that is meant.
async fn mark(call: &Call, options: &DeleteOptions) -> Result<Value> {
    let now = api::time::format(Timestamp::now());
    let condition = object!({
        "type": "DisruptionTarget", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
        "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
    });
    let marked = call.rewrite(|pod| {
        call.check_preconditions(pod, options)?;
        pod::set_condition(pod, condition.clone());
        Ok(())
    });
    marked.await
}

/// Pods that have ended, or never ran, disrupt nothing.
fn needs_budget(pod: &Value) -> bool {
    let phase = pod.str_at(&["status", "phase"]);
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && !pod.is_terminating()
}

/// The disruption budget of a pod, if it has one. Several are answered with this status.
fn budget_of(call: &Call, pod: &Value) -> std::result::Result<Option<Value>, Value> {
    let row = TABLE.find_any_version("policy", "poddisruptionbudgets").expect("a built-in resource");
    let cache = call.server.storage.cache(TABLE.store("policy", "poddisruptionbudgets"));
    let prefix = format!("{}/", call.namespace);
    let selects = |budget: &Value| {
        let selector = LabelSelector::from_object(budget.at(&["spec", "selector"])).ok().flatten();
        selector.is_some_and(|s| s.matches_object(pod))
    };
    let snapshot = cache.snapshot();
    let mut budgets = snapshot.below(&prefix).map(|s| from_storage(row, s.object())).filter(selects);
    let budget = budgets.next();
    match budgets.next() {
        None => Ok(budget),
        Some(_) => Err(object!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            "code": 500,
        })),
    }
}

/// True when pods that are not ready go without being counted.
fn spares_unready(budget: &Value) -> bool {
    let enough = count(budget, "desiredHealthy") > 0
        && count(budget, "currentHealthy") >= count(budget, "desiredHealthy");
    enough || budget.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow"
}

fn count(budget: &Value, field: &str) -> i64 {
    budget.at(&["status", field]).as_i64().unwrap_or(0)
}

fn is_ready(pod: &Value) -> bool {
    let ready = |c: &Value| c.str_at(&["type"]) == "Ready" && c.str_at(&["status"]) == "True";
    pod.array_at(&["status", "conditions"]).iter().any(ready)
}

/// Takes one disruption from a budget, for a pod.
async fn spend(call: &Call, budget: &Value, pod: &str) -> Result<()> {
    let row = TABLE.find_any_version("policy", "poddisruptionbudgets").expect("a built-in resource");
    let mut inner = call.internal(row, &call.namespace, budget.name());
    inner.subresource = "status".to_owned();
    let now = api::time::format(Timestamp::now());
    let spent = inner.update(|old| {
        refusal(old).map_or(Ok(()), Err)?;
        let mut new = old.clone();
        let left = count(old, "disruptionsAllowed") - 1;
        new.set(&["status", "disruptionsAllowed"], left);
        new.set(&["status", "disruptedPods", pod], now.as_str());
        if left == 0 {
            let condition = object!({
                "type": "DisruptionAllowed", "status": "False", "lastTransitionTime": (now.as_str()),
                "observedGeneration": (count(old, "observedGeneration")),
                "reason": "InsufficientPods", "message": "",
            });
            pod::set_condition(&mut new, condition);
        }
        Ok(new)
    });
    spent.await.map(|_| ())
}

/// Why a budget allows no disruption, if it allows none.
fn refusal(budget: &Value) -> Option<ApiError> {
    let name = budget.name();
    if count(budget, "observedGeneration") < budget.at(&["metadata", "generation"]).as_i64().unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Some(too_many(10, why));
    }
    let forbidden = |why: &str| Some(ApiError::forbidden("policy", "poddisruptionbudget", name, why));
    let disrupted = budget.at(&["status", "disruptedPods"]).as_object().map_or(0, |pods| pods.len());
    match count(budget, "disruptionsAllowed") {
        ..0 => return forbidden("pdb disruptions allowed is negative"),
        _ if disrupted > MAX_DISRUPTED => {
            return forbidden(
                "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            );
        }
        0 => {}
        1.. => return None,
    }
    let conditions = budget.array_at(&["status", "conditions"]);
    let told = conditions.iter().find(|c| {
        let refuses = c.str_at(&["type"]) == "DisruptionAllowed" && c.str_at(&["status"]) == "False";
        refuses && !c.str_at(&["message"]).is_empty()
    });
    let told = told.map(|c| (c.str_at(&["reason"]), c.str_at(&["message"])));
    let (current, desired) = (count(budget, "currentHealthy"), count(budget, "desiredHealthy"));
    let none = format!("The disruption budget {name} does not allow evicting pods currently");
    let why = match told {
        // The counts cannot be trusted.
        Some(("SyncFailed", message)) => format!("{none} because it failed sync: {message}"),
        _ if current <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
        }
        Some((reason, message)) => format!("{none} ({reason}): {message}"),
        None => none,
    };
    Some(too_many(0, why))
}

fn too_many(retry_after: u32, message: String) -> ApiError {
    let mut error = ApiError::too_many_requests(REFUSAL, retry_after);
    error.status_mut().details.causes =
        vec![Cause { reason: "DisruptionBudget".to_owned(), message, field: String::new() }];
    error
}
