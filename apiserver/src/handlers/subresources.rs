//! Parts of objects that are written apart, and actions on objects.

use api::error::Result;
use api::selector::LabelSelector;
use api::{ApiError, Value, object};
use http::{Method, Response, StatusCode};
use jiff::Timestamp;
use serve::Body;

use super::patch::{self, Kind, Patch};
use super::{connect, eviction, method_not_allowed, options, token};
use crate::admission::{self, Operation};
use crate::http::Exchange;
use crate::kinds::check::At;
use crate::kinds::pod;
use crate::registry::Call;
use crate::render;
use crate::resources::{Resource, Row, Subresource};

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
    if !sub.verbs.contains(&exchange.info.verb) && !asks_options {
        return Err(match row.custom {
            Some(_) => ApiError::not_supported(row.group, row.plural, exchange.info.verb),
            None => method_not_allowed(),
        });
    }
    if row.custom.is_some() {
        return if name == "scale" { scale(exchange, row).await } else { part(exchange, row).await };
    }
    match (row.plural, name.as_str()) {
        (_, "scale") => scale(exchange, row).await,
        ("pods", "binding") => bind(exchange, row, sub).await,
        ("pods", "eviction") => eviction::evict(exchange, row).await,
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
    call.check_name(&new)?;
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
    let set = |workload: &mut Value, replicas| match row.custom.as_ref().map(|c| c.version().scale.as_ref()) {
        Some(Some(custom)) => custom.set(workload, replicas),
        _ => workload.set(&["spec", "replicas"], replicas),
    };
    let mut applied = object!({"apiVersion": (row.api_version()), "kind": (row.kind), "metadata": {"name": (call.name.as_str())}});
    if let Some(replicas) = configuration.at(&["spec", "replicas"]).as_i64() {
        set(&mut applied, replicas);
    }
    let mut live = old.clone();
    let mut replicas = Value::object();
    set(&mut replicas, 0);
    call.own_unowned(&mut live, &replicas);
    call.apply_patch(Some(&live), &applied).map_err(|mut error| {
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

/// The scale of a workload is checked by itself, that of a custom resource with the rest of it.
fn check_scale(call: &Call, scale: &mut Value) -> Result<()> {
    use api::field::{FieldError, Path};
    let spec = Path::new("spec");
    match scale.at(&["spec", "replicas"]).as_i64() {
        Some(n) if n < 0 && call.row.custom.is_none() => {
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
    call.check_namespace(&mut binding)?;
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
    let target = At::of(binding, "target");
    let mut errors = Vec::new();
    if !matches!(target.get("kind").text(), "" | "Node") {
        target.get("kind").unsupported(&mut errors, &["Node", "<empty>"]);
    }
    if target.get("name").text().is_empty() {
        target.get("name").required(&mut errors, "");
    }
    if !errors.is_empty() {
        return Err(ApiError::plain(api::field::aggregate(&errors)));
    }
    admission::validate(asked, Operation::Create, Some(binding), None).await?;
    call.bind(binding, |pod| pod::bind(pod, binding, &api::time::format(Timestamp::now()))).await
}
