//! Parts of objects that are written apart, and actions on objects.

use api::error::{Cause, Result};
use api::selector::LabelSelector;
use api::{ApiError, Value, object};
use http::{Method, Response, StatusCode};
use jiff::Timestamp;
use serve::Body;

use super::patch::{self, Kind, Patch};
use super::{connect, method_not_allowed, options, token};
use crate::admission::{self, Operation};
use crate::http::Exchange;
use crate::kinds::pod;
use crate::registry::{Call, DeleteOptions, from_storage};
use crate::render;
use crate::resources::{Resource, Row, Subresource, TABLE};

/// Answers a request to a subresource.
pub(super) async fn handle(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let name = exchange.info.subresource.clone();
    let unknown = || match row.custom {
        Some(_) => ApiError::not_found(row.group, row.plural, &exchange.info.name),
        None => ApiError::path_not_found(),
    };
    let sub = row.subresource(&name).ok_or_else(unknown)?;
    // What is proxied may be asked for its options, for which there is no verb.
    let asks_options = name == "proxy" && exchange.head.method == Method::OPTIONS;
    if row.custom.is_some() && exchange.info.verb.is_empty() {
        return Err(ApiError::not_supported(row.group, row.plural, ""));
    }
    if !sub.verbs.contains(&exchange.info.verb) && !asks_options {
        return Err(method_not_allowed());
    }
    if row.custom.is_some() {
        return if name == "scale" { scale(exchange, row).await } else { part(exchange, row).await };
    }
    match (row.plural, name.as_str()) {
        (_, "scale") => scale(exchange, row).await,
        ("pods", "binding") => bind(exchange, row, sub).await,
        ("pods", "eviction") => evict(exchange, row, sub).await,
        ("serviceaccounts", "token") => token::request(exchange, row).await,
        ("namespaces", "finalize") => finalize(exchange, row).await,
        ("pods", "log") => {
            exchange.form_of_action()?;
            let options = options::of_log(&exchange.query, &exchange.info.name)?;
            crate::proxy::log(exchange, row, &options).await
        }
        ("pods", "exec" | "attach" | "portforward") => {
            connect::admit(&mut exchange, row, sub).await?;
            crate::proxy::stream(exchange, row).await
        }
        (_, "proxy") => {
            connect::admit(&mut exchange, row, sub).await?;
            crate::proxy::proxy(exchange, row).await
        }
        _ => part(exchange, row).await,
    }
}

/// A part that has the object's own type: status, approval, ephemeral containers, resize.
async fn part(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = match exchange.info.subresource.as_str() {
        "ephemeralcontainers" | "resize" => exchange.form_of_action()?,
        _ => exchange.form()?,
    };
    match exchange.info.verb {
        "get" => {
            let call = exchange.call(row);
            let stored = call.get(exchange.revision(row)?).await?;
            render::stored(&call, &stored, form)
        }
        "update" => {
            let call = exchange.write_call(row, "UpdateOptions")?;
            let mut new = exchange.own_object(&call).await?;
            call.check_namespace(&mut new)?;
            call.check_name(&new)?;
            call.drop_repeated_owners(&mut new, "");
            let updated = call.update(|old| call.check_uid(&new, old).map(|()| new.clone())).await?;
            render::one(&call, StatusCode::OK, &updated, form)
        }
        _ => patch::handle(exchange, row).await,
    }
}

/// A namespace goes when nothing finalizes it any more.
async fn finalize(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form()?;
    let call = exchange.write_call(row, "UpdateOptions")?;
    let new = exchange.own_object(&call).await?;
    let updated = call.finalize_namespace(new.at(&["spec", "finalizers"])).await?;
    render::one(&call, StatusCode::OK, &updated, form)
}

/// The group and version in which a resource's scale is written.
const SCALE: (&str, &str, &str) = ("autoscaling", "v1", "Scale");

/// The scale of a workload.
pub(crate) fn scale_of(row: &Resource, workload: &Value) -> Value {
    if let Some(scale) = row.custom.as_ref().and_then(|c| c.version().scale.as_ref()) {
        return scale.of(workload);
    }
    let metadata = workload.get("metadata");
    let mut own = Value::object();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !metadata.get(field).is_null() {
            own.set(&[field], metadata.get(field));
        }
    }
    let mut spec = Value::object();
    if let Some(n) = workload.at(&["spec", "replicas"]).as_i64().filter(|n| *n != 0) {
        spec.set(&["replicas"], n);
    }
    let selector = workload.at(&["spec", "selector"]);
    let selector = if row.plural == "replicationcontrollers" {
        Some(LabelSelector::from_map(selector))
    } else {
        LabelSelector::from_object(selector).ok().flatten()
    };
    let mut status = object!({"replicas": (workload.at(&["status", "replicas"]).as_i64().unwrap_or(0))});
    if let Some(text) = selector.map(|s| s.to_string()).filter(|t| !t.is_empty()) {
        status.set(&["selector"], text);
    }
    object!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": own, "spec": spec, "status": status})
}

async fn scale(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form()?;
    let ty = schema::kind(SCALE.0, SCALE.1, SCALE.2).expect("Scale is a known kind");
    let api_version = "autoscaling/v1";
    if exchange.info.verb == "get" {
        let call = exchange.call(row);
        let stored = call.get(exchange.revision(row)?).await?;
        let object = render::object_of(row, &stored);
        let scale = match row.custom.as_ref().and_then(|c| c.version().scale.as_ref()) {
            Some(custom) => custom.get(&object)?,
            None => scale_of(row, &object),
        };
        return render::one(&call, StatusCode::OK, &scale, form);
    }
    let update = exchange.info.verb == "update";
    let kind = if update { None } else { Some(Kind::of(exchange.headers())?.suits(row)?) };
    let mut call = match kind {
        Some(kind) => exchange.patch_call(row, kind)?,
        None => exchange.write_call(row, "UpdateOptions")?,
    };
    let patch = match kind {
        None => None,
        Some(kind) => {
            let body = exchange.body().await?;
            call.write.applying = kind == Kind::Apply;
            let patch = Patch::read(kind, &body, call.write.validation)?;
            patch.check_configuration(&call)?;
            Some(patch)
        }
    };
    let given = match update {
        true => {
            let mut given = exchange.object(&call, api_version, "Scale", ty).await?;
            call.check_namespace(&mut given)?;
            call.check_name(&given)?;
            given
        }
        false => Value::Null,
    };
    call.subresource = "scale".to_owned();
    let changed = call
        .update(|old| {
            if let Some(configuration) = patch.as_ref().and_then(Patch::configuration) {
                return apply_scale(&call, row, old, configuration);
            }
            let mut scale = match &patch {
                Some(patch) => patch.apply_to(&call, &scale_of(row, old), ty)?,
                None => given.clone(),
            };
            check_scale(&call, &mut scale)?;
            let mut new = old.clone();
            let replicas = scale.at(&["spec", "replicas"]).as_i64().unwrap_or(0);
            match row.custom.as_ref().and_then(|c| c.version().scale.as_ref()) {
                Some(custom) => custom.set(&mut new, replicas),
                None => new.set(&["spec", "replicas"], replicas),
            }
            let version = scale.resource_version().to_owned();
            if !version.is_empty() {
                new.set(&["metadata", "resourceVersion"], version);
            }
            Ok(new)
        })
        .await?;
    render::one(&call, StatusCode::OK, &scale_of(row, &changed), form)
}

/// The workload after the configuration of a scale was applied: its manager owns the replicas of the workload.
fn apply_scale(call: &Call, row: &Row, old: &Value, configuration: &Value) -> Result<Value> {
    let (version, kind) = (configuration.api_version(), configuration.kind());
    if kind != SCALE.2 || version != "autoscaling/v1" {
        let gv = api::meta::GroupVersion::parse(version).unwrap_or_default();
        let why = format!("invalid object type: {}/{}, Kind={kind}", gv.group, gv.version);
        return Err(ApiError::bad_request(why));
    }
    check_scale(call, &mut configuration.clone())?;
    let mut applied = object!({"apiVersion": (row.api_version()), "kind": (row.kind), "metadata": {"name": (call.name.as_str())}});
    if let Some(replicas) = configuration.at(&["spec", "replicas"]).as_i64() {
        match row.custom.as_ref().and_then(|c| c.version().scale.as_ref()) {
            Some(custom) => custom.set(&mut applied, replicas),
            None => applied.set(&["spec", "replicas"], replicas),
        }
    }
    call.apply_patch(Some(old), &applied).map_err(|mut error| {
        // Whoever owns the replicas is told of in the words of the scale.
        let (from, to) = (format!(" using {}", row.api_version()), " using autoscaling/v1");
        let status = error.status_mut();
        status.message = status.message.replace(&from, to);
        for cause in &mut status.details.causes {
            cause.message = cause.message.replace(&from, to);
        }
        error
    })
}

fn check_scale(call: &Call, scale: &mut Value) -> Result<()> {
    use api::field::{FieldError, Path};
    let spec = Path::new("spec");
    match scale.at(&["spec", "replicas"]).as_i64() {
        Some(n) if n < 0 => {
            let error = FieldError::invalid(&spec.child("replicas"), n, "must be greater than or equal to 0");
            Err(ApiError::invalid("autoscaling", "Scale", &call.name, &[error]))
        }
        _ => Ok(()),
    }
}

/// Assigns a pod to a node.
async fn bind(mut exchange: Exchange, row: &Row, sub: &Subresource) -> Result<Response<Body>> {
    let form = exchange.form_of_action()?;
    let call = exchange.write_call(row, "CreateOptions")?;
    let ty = schema::kind("", "v1", sub.kind).expect("Binding is a known kind");
    let mut binding = exchange.object(&call, "v1", sub.kind, ty).await?;
    admission::mutate(&call, Operation::Create, &mut binding, None).await?;
    bind_pod(&call, &call, &binding).await?;
    Ok(render::value(
        StatusCode::CREATED,
        &object!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
        form,
    ))
}

/// Assigns a pod to the node that `binding` names; `asked` is the request that says so.
pub(super) async fn bind_pod(asked: &Call, call: &Call, binding: &Value) -> Result<()> {
    if call.name != binding.name() {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    let target = binding.str_at(&["target", "kind"]);
    if !matches!(target, "" | "Node") {
        let error = api::field::FieldError::not_supported(
            &api::field::Path::new("target.kind"),
            target,
            &["Node", "<empty>"],
        );
        return Err(ApiError::invalid("", "Binding", &call.name, &[error]));
    }
    admission::validate(asked, Operation::Create, Some(binding), None).await?;
    let wanted_uid = binding.uid().to_owned();
    call.bind(|pod| {
        if !wanted_uid.is_empty() && wanted_uid != pod.uid() {
            return Err(format!(
                "Precondition failed: UID in precondition: {wanted_uid}, UID in object meta: {}",
                pod.uid()
            ));
        }
        pod::bind(pod, binding, &api::time::format(Timestamp::now()))
    })
    .await
}

/// Deletes a pod if its disruption budgets allow it.
async fn evict(mut exchange: Exchange, row: &Row, sub: &Subresource) -> Result<Response<Body>> {
    let form = exchange.form_of_action()?;
    let mut call = exchange.write_call(row, "CreateOptions")?;
    let ty = schema::kind("policy", "v1", sub.kind).expect("Eviction is a known kind");
    let mut eviction = exchange.object(&call, "policy/v1", sub.kind, ty).await?;
    admission::mutate(&call, Operation::Create, &mut eviction, None).await?;
    if call.name != eviction.name() {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    admission::validate(&call, Operation::Create, Some(&eviction), None).await?;
    let given = eviction.get("deleteOptions").clone();
    if given.array_at(&["dryRun"]).iter().any(|d| d.as_str() == Some("All")) {
        call.write.dry_run = true;
    }
    let options = match given.is_null() {
        true => DeleteOptions::from_query(&exchange.query)?,
        false => DeleteOptions::from_body(&given)?,
    };
    let pod = render::object_of(row, &*call.get(None).await?);
    if needs_budget(&pod) {
        spend_budget(&call, &pod).await?;
    }
    call.subresource = String::new();
    if !call.write.dry_run {
        mark_evicted(&call).await?;
    }
    call.delete_admitted(&options).await?;
    let answer =
        object!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(render::value(StatusCode::CREATED, &answer, form))
}

/// Says in the status of a pod why it is deleted.
async fn mark_evicted(call: &Call) -> Result<()> {
    let now = api::time::format(Timestamp::now());
    let marked = call.rewrite(|pod| {
        let condition = object!({
            "type": "DisruptionTarget", "observedGeneration": (pod.at(&["metadata", "generation"]).clone()),
            "status": "True", "lastTransitionTime": (now.as_str()), "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        });
        let conditions = pod.make_object().entry("status").make_object().entry("conditions").make_array();
        conditions.retain(|c| c.str_at(&["type"]) != "DisruptionTarget");
        conditions.push(condition);
    });
    marked.await.map(|_| ())
}

/// Pods that have ended, or never ran, disrupt nothing.
fn needs_budget(pod: &Value) -> bool {
    let phase = pod.str_at(&["status", "phase"]);
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && !pod.is_terminating()
}

async fn spend_budget(call: &Call, pod: &Value) -> Result<()> {
    let row = TABLE.find_any_version("policy", "poddisruptionbudgets").expect("a built-in resource");
    let cache = call.server.storage.cache(TABLE.store("policy", "poddisruptionbudgets"));
    let prefix = format!("{}/", call.namespace);
    let snapshot = cache.snapshot();
    let selects = |budget: &Value| {
        LabelSelector::from_object(budget.at(&["spec", "selector"]))
            .ok()
            .flatten()
            .is_some_and(|s| s.matches_object(pod))
    };
    let budgets: Vec<Value> = snapshot
        .objects
        .values()
        .filter(|s| s.key.starts_with(&prefix))
        .map(|s| from_storage(row, s.object()))
        .filter(selects)
        .collect();
    let budget = match budgets.as_slice() {
        [] => return Ok(()),
        [one] => one,
        _ => {
            let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::internal(why));
        }
    };
    if spares_unready(budget) && !is_ready(pod) {
        return Ok(());
    }
    let mut inner = call.internal(row, &call.namespace, budget.name());
    inner.subresource = "status".to_owned();
    let pod_name = pod.name().to_owned();
    let now = api::time::format(Timestamp::now());
    inner
        .update(|old| {
            let observed = old.at(&["status", "observedGeneration"]).as_i64().unwrap_or(0);
            let allowed = old.at(&["status", "disruptionsAllowed"]).as_i64().unwrap_or(0);
            let current = observed >= old.at(&["metadata", "generation"]).as_i64().unwrap_or(0);
            if !current || allowed < 1 {
                return Err(budget_refusal(old, current));
            }
            let mut new = old.clone();
            new.set(&["status", "disruptionsAllowed"], allowed - 1);
            new.set(&["status", "disruptedPods", &pod_name], now.as_str());
            Ok(new)
        })
        .await
        .map(|_| ())
}

/// True when pods that are not ready go whatever the budget says.
fn spares_unready(budget: &Value) -> bool {
    let count = |field: &str| budget.at(&["status", field]).as_i64().unwrap_or(0);
    let enough = count("desiredHealthy") > 0 && count("currentHealthy") >= count("desiredHealthy");
    enough || budget.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow"
}

fn is_ready(pod: &Value) -> bool {
    let ready = |c: &Value| c.str_at(&["type"]) == "Ready" && c.str_at(&["status"]) == "True";
    pod.array_at(&["status", "conditions"]).iter().any(ready)
}

fn budget_refusal(budget: &Value, current: bool) -> ApiError {
    let mut error = ApiError::too_many_requests(
        "Cannot evict pod as it would violate the pod's disruption budget.",
        if current { 0 } else { 10 },
    );
    let message = if current {
        format!(
            "The disruption budget {} needs {} healthy pods and has {} currently",
            budget.name(),
            budget.at(&["status", "desiredHealthy"]).as_i64().unwrap_or(0),
            budget.at(&["status", "currentHealthy"]).as_i64().unwrap_or(0)
        )
    } else {
        format!("The disruption budget {} is still being processed by the server.", budget.name())
    };
    error.status_mut().details.causes =
        vec![Cause { reason: "DisruptionBudget".to_owned(), message, field: String::new() }];
    error
}
