//! The verbs on objects and collections.

use api::error::Result;
use api::{ApiError, Value};
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{Response, StatusCode};
use serve::Body;

use super::{method_not_allowed, patch};
use crate::http::Exchange;
use crate::negotiate::Encoding;
use crate::registry::{Call, DeleteOptions, ListOptions, WatchOptions};
use crate::render;
use crate::resources::Row;
use crate::websocket;

/// Answers a request to a resource.
pub(super) async fn handle(exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let verb = exchange.info.verb;
    // A POST to one object, a PUT to a collection and the like are no verbs at all.
    let to_one = exchange.info.to_one;
    let fits = match verb {
        // Custom resources are created at every path of theirs.
        "create" if row.custom.is_some() => true,
        "create" | "deletecollection" | "list" => !to_one,
        "watch" => true,
        _ => to_one,
    };
    if row.custom.is_some() && !row.serves(verb) {
        return Err(ApiError::not_supported(row.group, row.plural, verb));
    }
    if verb == "watch" && row.serves("list") && !row.serves(verb) {
        return Err(ApiError::not_supported(row.group, row.plural, verb));
    }
    if !row.serves(verb) || !fits {
        return Err(method_not_allowed());
    }
    if row.namespaced && exchange.info.namespace.is_empty() && !matches!(verb, "list" | "watch") {
        return Err(method_not_allowed());
    }
    if row.plural == "componentstatuses" {
        return Box::pin(super::components::handle(exchange, row)).await;
    }
    if !row.is_stored() {
        return Box::pin(super::reviews::handle(exchange, row)).await;
    }
    // Each in a box of its own: else every request would carry what the largest needs.
    let answer: BoxFuture<'_, Result<Response<Body>>> = match verb {
        "get" => Box::pin(get(exchange, row)),
        // A long one takes long to put together.
        "list" => {
            return serve::apart(list(exchange, row.clone())).await.map_err(ApiError::internal)?;
        }
        "watch" => Box::pin(watch(exchange, row)),
        "create" => Box::pin(create(exchange, row)),
        "update" => Box::pin(update(exchange, row)),
        "patch" => Box::pin(patch::handle(exchange, row)),
        "delete" => Box::pin(delete(exchange, row)),
        "deletecollection" => Box::pin(delete_collection(exchange, row)),
        _ => return Err(method_not_allowed()),
    };
    answer.await
}

async fn get(exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form()?;
    check_export(&exchange)?;
    let call = exchange.call(row);
    let stored = call.get(exchange.revision(row)?).await?;
    render::stored(&call, &stored, form)
}

/// An old way to read objects without what the server adds, which nothing serves any more.
fn check_export(exchange: &Exchange) -> Result<()> {
    match exchange.query.is_true("export") {
        true => {
            Err(ApiError::bad_request("the export parameter, deprecated since v1.14, is no longer supported"))
        }
        false => Ok(()),
    }
}

async fn list(exchange: Exchange, row: Row) -> Result<Response<Body>> {
    let form = exchange.form()?;
    let mut call = exchange.call(&row);
    call.name.clear();
    let options = ListOptions::parse(&exchange.query, &row)?;
    let page = call.list(&options).await?;
    render::list(&call, page, form)
}

async fn watch(exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form()?;
    let mut options = WatchOptions::parse(&exchange.query, row)?;
    let call = exchange.call(row);
    if !call.name.is_empty() && options.list.fields.exact("metadata.name").is_none() {
        let term = api::selector::FieldTerm {
            field: "metadata.name".to_owned(),
            value: call.name.clone(),
            equal: true,
        };
        options.list.fields.terms.push(term);
    }
    let streaming = exchange.server.metrics.requests.stream(&exchange.head, &exchange.info);
    let recent = exchange.server.recent.clone();
    let changes = call.watch(options).await;
    let form = form.streamed()?;
    // What goes wrong before the first event is an event too, as the client is promised a stream.
    let changes = match changes {
        Ok(changes) => changes.left_stream(),
        Err(e) if e.reason() == "Expired" => {
            futures::stream::iter([vec![crate::registry::Change::Error(e)]]).right_stream()
        }
        Err(e) => return Err(e),
    };
    if !websocket::is_wanted(&exchange) {
        return Ok(render::watch(row.clone(), changes, form, (streaming, recent)));
    }
    let one_by_one = changes.flat_map(|batch| futures::stream::iter(batch.into_iter().map(|c| vec![c])));
    let events = render::watch(row.clone(), one_by_one, form, (streaming, recent));
    websocket::events(exchange, events, form.encoding == Encoding::Json)
}

async fn create(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form()?;
    let call = exchange.write_call(row, "CreateOptions")?;
    let mut object = exchange.own_object(&call).await?;
    call.drop_repeated_owners(&mut object, "");
    let mut call = call;
    call.name = object.name().to_owned();
    let created = call.create(object).await?;
    render::one(&call, StatusCode::CREATED, &created, form)
}

async fn update(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form()?;
    let call = exchange.write_call(row, "UpdateOptions")?;
    let mut new = exchange.own_object(&call).await?;
    call.check_namespace(&mut new)?;
    call.check_name(&new)?;
    call.drop_repeated_owners(&mut new, "");
    let replace = |old: &Value| call.check_uid(&new, old).map(|()| new.clone());
    match call.update(replace).await {
        Ok(updated) => render::one(&call, StatusCode::OK, &updated, form),
        Err(e) if e.is_not_found() && row.strategy.create_on_update && call.subresource.is_empty() => {
            new.remove_at(&["metadata", "resourceVersion"]);
            let created = call.create(new).await?;
            render::one(&call, StatusCode::CREATED, &created, form)
        }
        Err(e) => Err(e),
    }
}

/// The options of a deletion: from the query, or from a body.
async fn delete_options(exchange: &mut Exchange) -> Result<DeleteOptions> {
    let body = exchange.body().await?;
    if body.is_empty() {
        return DeleteOptions::from_query(&exchange.query);
    }
    // A body says it all: the query does not count any more.
    let given = crate::negotiate::decode_options(exchange.headers(), &body)?;
    let options = super::check_options_type(given)?;
    exchange.trail.request_object(&Value::Null, || options.clone());
    DeleteOptions::from_body(&options)
}

/// The call of a deletion, which takes nothing but a dry run from those who write.
fn delete_call(exchange: &Exchange, row: &Row, options: &DeleteOptions) -> Call {
    let mut call = exchange.call(row);
    call.write.dry_run = options.dry_run;
    call
}

/// Pods of Jobs stay, which surprises.
fn advise(call: &Call, options: &DeleteOptions) {
    if call.row.plural == "jobs" && call.row.strategy.orphans_by_default && options.propagation.is_none() {
        call.warn("child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning");
    }
}

async fn delete(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form()?;
    let options = delete_options(&mut exchange).await?;
    let call = delete_call(&exchange, row, &options);
    advise(&call, &options);
    let deleted = call.delete(&options).await?;
    let code = if !deleted.gone && options.cascades { StatusCode::ACCEPTED } else { StatusCode::OK };
    render::one(&call, code, &deleted.answer, form)
}

async fn delete_collection(mut exchange: Exchange, row: &Row) -> Result<Response<Body>> {
    let form = exchange.form()?;
    let list = ListOptions::parse(&exchange.query, row)?;
    let options = delete_options(&mut exchange).await?;
    let mut call = delete_call(&exchange, row, &options);
    call.name.clear();
    advise(&call, &options);
    let (objects, metadata) = call.delete_collection(&list, &options).await?;
    Ok(render::value(StatusCode::OK, &render::shaped_list(row, objects, metadata, form)?, form))
}
