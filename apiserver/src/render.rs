//! Answers: objects, lists and watches in the form that the client asked for.

pub mod gzip;
mod listed;
mod recent;
mod yaml;

use std::sync::Arc;

use api::error::Result;
use api::meta::GroupVersion;
use api::{ApiError, Map, Value, object};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serve::Body;

use self::listed::Listed;
pub use self::recent::Recent;
use self::recent::Told;
use crate::audit::{Answer, Level};
use crate::metrics::Streaming;
use crate::negotiate::{Encoding, Form, Shape};
use crate::registry::{Call, Change, Page, bookmark, from_storage};
use crate::resources::{Resource, Row, TABLE};
use crate::storage::Stored;
use crate::table;

/// Encodes a value. JSON ends in a newline unless it is laid out for people, as upstream's does.
pub fn encode(value: &Value, encoding: Encoding, pretty: bool) -> Bytes {
    match encoding {
        Encoding::Json if pretty => serde_json::to_vec_pretty(value).unwrap_or_default().into(),
        Encoding::Json => {
            let mut out = value.to_json();
            out.push(b'\n');
            out.into()
        }
        Encoding::Yaml => yaml::print(value).into(),
        Encoding::Protobuf => match type_of(value) {
            Some(ty) => schema::proto::encode_object(value, ty).into(),
            None => value.to_json().into(),
        },
    }
}

/// The type of a value that says what it is.
fn type_of(value: &Value) -> Option<schema::Ty<'static>> {
    let gv = GroupVersion::parse(value.api_version())?;
    schema::kind(&gv.group, &gv.version, value.kind())
}

/// An answer of `content`.
pub fn respond(code: StatusCode, media_type: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(serve::full(content.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// An answer of what was encoded, compressed if that is wanted and worth it.
fn sent(code: StatusCode, encoding: Encoding, body: Bytes, form: Form) -> Response<Body> {
    let mut response = respond(code, encoding.media_type(), body.clone());
    if form.gzip && gzip::is_large(&body) {
        gzip::pack(&mut response, std::iter::once(body));
    }
    response
}

/// An answer of any value.
pub fn value(code: StatusCode, value: &Value, form: Form) -> Response<Body> {
    let encoding = match form.encoding {
        // What has no protobuf form is sent as JSON.
        Encoding::Protobuf if type_of(value).is_none() => Encoding::Json,
        other => other,
    };
    let body = encode(value, encoding, form.pretty);
    let mut response = sent(code, encoding, body.clone(), form);
    record(&mut response, form, Some(value), || match encoding {
        Encoding::Json => body,
        Encoding::Yaml | Encoding::Protobuf => value.to_json().into(),
    });
    response
}

/// Shows an answer to those who record it.
fn record(response: &mut Response<Body>, form: Form, value: Option<&Value>, json: impl FnOnce() -> Bytes) {
    if form.recorded == Level::None {
        return;
    }
    let status = value.filter(|v| v.kind() == "Status").cloned();
    let json = (form.recorded == Level::RequestResponse).then(json);
    if status.is_some() || json.is_some() {
        response.extensions_mut().insert(Answer { status, json });
    }
}

/// An answer of JSON that was encoded before.
fn encoded(json: Bytes, form: Form) -> Response<Body> {
    let mut response = sent(StatusCode::OK, Encoding::Json, json.clone(), form);
    record(&mut response, form, None, || json);
    response
}

/// An answer of one object.
pub fn one(call: &Call, code: StatusCode, object: &Value, form: Form) -> Result<Response<Body>> {
    let shaped = match form.shape {
        _ if object.kind() == "Status" => None,
        Shape::Object => None,
        Shape::Table if object.kind() == table::SCALE => Some(table::of_scale(&call.row, object, form)),
        // What is no object of the resource has no columns here.
        Shape::Table if object.kind() != call.row.kind => None,
        Shape::Table => {
            let objects = std::slice::from_ref(object);
            Some(table::of(&call.row, objects, &list_metadata_of(object), true, form))
        }
        Shape::Metadata => Some(metadata_of(object, form)),
        Shape::MetadataList => return Err(no_list(&call.row, object.kind())),
    };
    Ok(value(code, shaped.as_ref().unwrap_or(object), form))
}

/// The refusal to show one object as a list.
fn no_list(row: &Resource, kind: &str) -> ApiError {
    if row.custom.is_some() && kind == row.kind {
        return ApiError::plain("content is not a list");
    }
    let found = type_name(row, kind, "");
    ApiError::no_such_shape(format!(
        "you requested PartialObjectMetadataList, but the requested object is not a list ({found})"
    ))
}

/// The name that errors give the type of an object or a list (`suffix`) of the row.
fn type_name(row: &Resource, kind: &str, suffix: &str) -> String {
    let package = match (row.group, kind) {
        (_, "Scale") if row.custom.is_some() => "v1",
        (_, "Scale") => "autoscaling",
        (_, "TokenRequest") => "authentication",
        _ if row.custom.is_some() => return format!("*unstructured.Unstructured{suffix}"),
        ("" | "events.k8s.io", _) => "core",
        (group, _) => group.split('.').next().unwrap_or(group),
    };
    format!("*{package}.{kind}{suffix}")
}

fn list_metadata_of(object: &Value) -> Value {
    match object.resource_version() {
        "" => Value::object(),
        version => object!({"resourceVersion": version}),
    }
}

/// The metadata of an object, as an object of their own.
pub fn metadata_of(object: &Value, form: Form) -> Value {
    let mut metadata = object.get("metadata").clone();
    let shown = SHOWN_AS_ANNOTATIONS.iter().filter(|(kind, _)| *kind == object.kind());
    for (_, annotation) in shown.filter(|(_, name)| object.annotation(name).is_some()) {
        let annotations = metadata.make_object().entry("annotations").make_object();
        annotations.remove(annotation);
        if annotations.is_empty() {
            metadata.make_object().remove("annotations");
        }
    }
    object!({"kind": "PartialObjectMetadata", "apiVersion": (form.meta_version()), "metadata": metadata})
}

/// What upstream keeps as fields of a kind, and shows as annotations of whole objects alone.
const SHOWN_AS_ANNOTATIONS: [(&str, &str); 5] = [
    ("DaemonSet", "deprecated.daemonset.template.generation"),
    ("HorizontalPodAutoscaler", "autoscaling.alpha.kubernetes.io/behavior"),
    ("HorizontalPodAutoscaler", "autoscaling.alpha.kubernetes.io/conditions"),
    ("HorizontalPodAutoscaler", "autoscaling.alpha.kubernetes.io/current-metrics"),
    ("HorizontalPodAutoscaler", "autoscaling.alpha.kubernetes.io/metrics"),
];

/// True when the stored bytes are what the row serves.
fn served_as_stored(row: &Resource) -> bool {
    // The registry has brought custom resources into the row's version already.
    row.custom.is_some() || row.store.is_some_and(|s| std::ptr::eq(&**TABLE.storage_row(s), row))
}

/// The object in the version of the row.
pub fn object_of(row: &Resource, stored: &Stored) -> Value {
    from_storage(row, stored.object())
}

/// The answer of one stored object.
pub fn stored(call: &Call, stored: &Stored, form: Form) -> Result<Response<Body>> {
    let plain = form.shape == Shape::Object && form.encoding == Encoding::Json && !form.pretty;
    if plain && served_as_stored(&call.row) {
        let mut body = BytesMut::with_capacity(stored.json.len() + 1);
        body.extend_from_slice(&stored.json);
        body.put_u8(b'\n');
        return Ok(encoded(body.freeze(), form));
    }
    one(call, StatusCode::OK, &object_of(&call.row, stored), form)
}

/// The answer of a list.
pub fn list(call: &Call, page: Page, form: Form) -> Result<Response<Body>> {
    let plain = form.shape == Shape::Object && form.encoding == Encoding::Json && !form.pretty;
    if plain && served_as_stored(&call.row) {
        return Ok(listed(Listed::new(&call.row, page), form));
    }
    let objects: Vec<Value> = page.items.iter().map(|s| object_of(&call.row, s)).collect();
    Ok(value(StatusCode::OK, &shaped_list(&call.row, objects, page.metadata(), form)?, form))
}

/// An answer of a list. A large one is sent while it is put together, unless all of it is to be recorded.
fn listed(mut list: Listed, form: Form) -> Response<Body> {
    let first = match form.recorded {
        Level::RequestResponse => None,
        _ => list.next(),
    };
    let Some(first) = first else { return encoded(list.whole(), form) };
    if list.is_told() {
        return encoded(first, form);
    }
    let pieces = std::iter::once(first).chain(list);
    let mut response = respond(StatusCode::OK, Encoding::Json.media_type(), Bytes::new());
    match form.gzip {
        true => gzip::pack(&mut response, pieces),
        false => {
            *response.body_mut() = serve::stream(stream::iter(pieces.map(Ok::<_, std::convert::Infallible>)));
        }
    }
    response
}

/// A list of objects in the shape of the form.
pub fn shaped_list(row: &Resource, objects: Vec<Value>, metadata: Value, form: Form) -> Result<Value> {
    Ok(match form.shape {
        Shape::Table => table::of(row, &objects, &metadata, true, form),
        Shape::Metadata => {
            let found = type_name(row, row.kind, "List");
            return Err(ApiError::no_such_shape(format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({found})"
            )));
        }
        Shape::MetadataList => {
            // Without any item there is no list of them.
            let items = match objects.as_slice() {
                [] => Value::Null,
                objects => objects.iter().map(|o| metadata_of(o, form)).collect::<Vec<_>>().into(),
            };
            object!({
                "kind": "PartialObjectMetadataList", "apiVersion": (form.meta_version()), "metadata": metadata,
                "items": items,
            })
        }
        Shape::Object if row.custom.is_some() => custom_list(row, metadata, objects),
        Shape::Object => {
            let items: Vec<Value> = objects.into_iter().map(without_type).collect();
            object!({
                "kind": (row.list_kind()), "apiVersion": (row.api_version()), "metadata": metadata, "items": items,
            })
        }
    })
}

/// Lists of custom resources are in order of name, and their items say what they are.
fn custom_list(row: &Resource, metadata: Value, items: Vec<Value>) -> Value {
    // Upstream writes where to go on even when there is nothing more.
    let next = metadata.str_at(&["continue"]).to_owned();
    let mut shown = object!({"continue": next});
    for (key, value) in metadata.as_object().into_iter().flat_map(Map::iter) {
        shown.set(&[key], value);
    }
    shown.make_object().sort_keys();
    object!({
        "apiVersion": (row.api_version()), "items": items, "kind": (row.list_kind()), "metadata": shown,
    })
}

/// Objects in a list do not say what they are.
fn without_type(mut object: Value) -> Value {
    let map = object.make_object();
    map.remove("kind");
    map.remove("apiVersion");
    object
}

/// The answer of a watch.
pub fn watch(
    row: Row,
    changes: impl Stream<Item = Vec<Change>> + Send + 'static,
    form: Form,
    (streaming, recent): (Streaming, Arc<Recent>),
) -> Response<Body> {
    let mut first = true;
    let pieces = changes.map(move |batch| {
        const AROUND: usize = 40;
        let size = batch.iter().map(|change| change.stored().map_or(0, |s| s.json.len()) + AROUND).sum();
        let mut out = BytesMut::with_capacity(size);
        for change in batch {
            let before = out.len();
            event(&row, &change, form, (&mut first, &recent), &mut out);
            streaming.sent(out.len() - before);
        }
        Ok::<_, std::convert::Infallible>(out.freeze())
    });
    let mut response = Response::new(serve::stream(pieces));
    let media_type = match form.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Encoding::Yaml => "application/yaml;stream=watch",
        Encoding::Json => "application/json",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn event(row: &Row, change: &Change, form: Form, (first, recent): (&mut bool, &Recent), out: &mut BytesMut) {
    let (what, object) = match change {
        Change::Added(s) => ("ADDED", s),
        Change::Modified(s) => ("MODIFIED", s),
        Change::Deleted(s) => ("DELETED", s),
        Change::Bookmark(revision, end) => {
            let object = shaped_event(row, bookmark(row, *revision, *end), form, first);
            return frame("BOOKMARK", &object, form, out);
        }
        Change::Error(e) => return frame("ERROR", &error_object(e), form, out),
    };
    if form.shape == Shape::Object && form.encoding == Encoding::Json && served_as_stored(row) {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(what.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        out.extend_from_slice(&object.json);
        out.extend_from_slice(b"}\n");
        return;
    }
    let mut made = |out: &mut BytesMut| {
        let shaped = shaped_event(row, object_of(row, object), form, first);
        frame(what, &shaped, form, out);
    };
    if form.shape == Shape::Table {
        // Not all tables name the columns.
        return made(out);
    }
    out.extend_from_slice(&recent.frame(&Told { row, what, object, form }, || {
        let mut frame = BytesMut::new();
        made(&mut frame);
        frame.freeze()
    }));
}

fn error_object(e: &ApiError) -> Value {
    e.to_value()
}

/// The first table of a watch names the columns, later ones do not, but for those of APIServices.
fn shaped_event(row: &Resource, object: Value, form: Form, first: &mut bool) -> Value {
    match form.shape {
        Shape::Object => object,
        Shape::Metadata | Shape::MetadataList => metadata_of(&object, form),
        Shape::Table => {
            let metadata = list_metadata_of(&object);
            let head = std::mem::take(first) || row.built_in() == "apiservices";
            table::of(row, std::slice::from_ref(&object), &metadata, head, form)
        }
    }
}

fn frame(kind: &str, object: &Value, form: Form, out: &mut BytesMut) {
    match form.encoding {
        Encoding::Json => {
            let event = object!({"type": kind, "object": object});
            out.extend_from_slice(&event.to_json());
            out.put_u8(b'\n');
        }
        Encoding::Yaml => {
            out.extend_from_slice(b"---\n");
            out.extend_from_slice(yaml::print(&object!({"type": kind, "object": object})).as_bytes());
        }
        Encoding::Protobuf => {
            let event = schema::proto::watch_event(kind, &encode(object, Encoding::Protobuf, false));
            out.put_u32(u32::try_from(event.len()).unwrap_or(u32::MAX));
            out.extend_from_slice(&event);
        }
    }
}
