//! Sending what a case says.

use std::time::Duration;

use anyhow::{Context, Result};
use api::{Map, Value, object};
use testing::{Client, wait_until};

use super::compare::neutral;

/// What earlier steps saved, by name.
type Saved = Vec<(String, String)>;

/// Sends requests to one server.
pub(super) struct Sender {
    client: Client,
}

impl Sender {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Sends a request; the answer without what differs from server to server.
    pub(super) fn send(&self, request: &Value, bases: &Map, saved: &mut Saved) -> Result<Value> {
        let body = fill(&body(request, bases)?, saved);
        let path = fill(request.str_at(&["path"]), saved);
        let usual = if body.is_empty() { "GET" } else { "POST" };
        let method = request.get("method").as_str().unwrap_or(usual);
        let headers = request.get("headers").as_object();
        let header = |name: &str| headers.and_then(|h| h.get(name)).and_then(Value::as_str);
        let mut others = vec![("Accept", header("Accept").unwrap_or("application/json"))];
        let given = headers.into_iter().flat_map(Map::iter);
        others.extend(
            given
                .filter(|(name, _)| !["Accept", "Content-Type"].contains(name))
                .filter_map(|(name, value)| Some((name, value.as_str()?))),
        );
        let media_type = header("Content-Type").unwrap_or("application/json");
        let sent = (!body.is_empty()).then_some((media_type, body.as_bytes()));
        let response = self.client.with(&others).send(method, &path, sent).with_context(|| path.clone())?;
        let read = match api::json::decode(response.body.as_bytes()) {
            Ok(read) => read.value,
            Err(_) => Value::from(response.body.as_str()),
        };
        for (name, pointer) in request.get("save").as_object().into_iter().flat_map(Map::iter) {
            let at = at_pointer(&read, pointer.as_str().unwrap_or_default());
            let text = at.as_str().map_or_else(|| at.to_string(), str::to_owned);
            saved.push((name.to_owned(), text));
        }
        let kind = response.header("content-type").unwrap_or_default();
        let warnings: Vec<Value> =
            response.headers.iter().filter(|(n, _)| n == "warning").map(|(_, v)| v.as_str().into()).collect();
        Ok(object!({
            "code": (i64::from(response.code)),
            "type": (kind.split(',').next().unwrap_or_default().replace(' ', "")),
            "warnings": (Value::Array(warnings)),
            "body": (neutral(read)),
        }))
    }

    /// Waits until what a request of the setup made can be used: definitions of resources become served.
    pub(super) fn settle(&self, request: &Value) -> Result<()> {
        let definition = request.get("body");
        if definition.kind() != "CustomResourceDefinition" {
            return Ok(());
        }
        let (group, plural) =
            (definition.str_at(&["spec", "group"]), definition.str_at(&["spec", "names", "plural"]));
        let versions = definition.array_at(&["spec", "versions"]);
        for version in versions.iter().filter(|v| v.get("served").as_bool() == Some(true)) {
            let path = format!("/apis/{group}/{}/{plural}?limit=1", version.str_at(&["name"]));
            let served = || self.client.send("GET", &path, None).is_ok_and(|r| r.code == 200);
            wait_until(&path, Duration::from_secs(30), served)?;
        }
        Ok(())
    }
}

/// The body of a request as text, empty for none.
fn body(request: &Value, bases: &Map) -> Result<String> {
    if let Some(text) = request.get("body").as_str() {
        return Ok(text.to_owned());
    }
    if !request.get("body").is_null() {
        return Ok(request.get("body").to_string());
    }
    let Some(name) = request.get("of").as_str() else { return Ok(String::new()) };
    let mut object = bases.get(name).with_context(|| format!("no base {name}"))?.clone();
    for (pointer, value) in request.get("set").as_object().into_iter().flat_map(Map::iter) {
        *slot(&mut object, pointer)? = value.clone();
    }
    for pointer in request.array_at(&["unset"]).iter().filter_map(Value::as_str) {
        let (parent, last) = pointer.rsplit_once('/').context("an empty pointer")?;
        match slot(&mut object, parent)? {
            Value::Array(items) => drop(items.remove(last.parse()?)),
            parent => drop(parent.make_object().remove(&unescape(last))),
        }
    }
    Ok(object.to_string())
}

/// The place a pointer names, made where it is not there.
fn slot<'v>(object: &'v mut Value, pointer: &str) -> Result<&'v mut Value> {
    let mut at = object;
    for step in pointer.split('/').skip(1) {
        let index = step.parse::<usize>().ok().filter(|_| matches!(at, Value::Array(_) | Value::Null));
        at = match index {
            Some(index) => {
                let items = at.make_array();
                items.resize_with(items.len().max(index + 1), Value::object);
                &mut items[index]
            }
            None => at.make_object().entry(&unescape(step)),
        };
    }
    Ok(at)
}

/// The value a pointer names.
fn at_pointer<'v>(value: &'v Value, pointer: &str) -> &'v Value {
    pointer.split('/').skip(1).fold(value, |at, step| match at {
        Value::Array(items) => step.parse().ok().and_then(|i: usize| items.get(i)).unwrap_or(&Value::Null),
        other => other.get(&unescape(step)),
    })
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// Writes what was saved where it is named.
fn fill(text: &str, saved: &Saved) -> String {
    saved.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value))
}
