//! The types of objects, from the documents in which an API server describes them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use api::{Map, Value, object};
use cel::Decl;
use client::Client;
use http::Method;

const REFERENCE: &str = "#/components/schemas/";
/// Deepest schema that is read.
const MAX_DEPTH: usize = 100;

/// A kind of objects in a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupVersionKind {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
}

impl GroupVersionKind {
    pub(super) fn new(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() }
    }
}

impl fmt::Display for GroupVersionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

/// The documents that have been read so far.
pub(super) struct Types<'c> {
    client: &'c Client,
    documents: HashMap<String, Value>,
}

fn path(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

impl<'c> Types<'c> {
    pub(super) fn new(client: &'c Client) -> Self {
        Self { client, documents: HashMap::new() }
    }

    async fn document(&mut self, path: String) -> client::Result<&Value> {
        if !self.documents.contains_key(&path) {
            let read = match self.client.request(Method::GET, &path, None).await {
                Err(e) if e.is_not_found() => Value::Null,
                read => read?,
            };
            self.documents.insert(path.clone(), read);
        }
        Ok(self.documents.get(&path).unwrap_or(&Value::Null))
    }

    /// The kind of the objects of a resource.
    pub(super) async fn kind(
        &mut self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> client::Result<Option<GroupVersionKind>> {
        let list = self.document(format!("/{}", path(group, version))).await?;
        let found = list.array_at(&["resources"]).iter().find(|r| r.str_at(&["name"]) == plural);
        Ok(found.map(|r| GroupVersionKind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: r.kind().to_owned(),
        }))
    }

    /// The schema of a kind, with what it refers to in its place.
    pub(super) async fn schema(&mut self, kind: &GroupVersionKind) -> client::Result<Option<Value>> {
        let document = self.document(format!("/openapi/v3/{}", path(&kind.group, &kind.version))).await?;
        let schemas = document.at(&["components", "schemas"]).as_object();
        let is = |schema: &Value| {
            schema.array_at(&["x-kubernetes-group-version-kind"]).iter().any(|k| {
                k.str_at(&["group"]) == kind.group
                    && k.str_at(&["version"]) == kind.version
                    && k.kind() == kind.kind
            })
        };
        let found = schemas.and_then(|all| all.iter().find(|(_, schema)| is(schema)));
        Ok(schemas.zip(found).map(|(all, (name, schema))| populate(all, schema, &mut vec![name])))
    }
}

/// The name that a schema refers to, by itself or as the only one of all that it is.
fn reference(schema: &Value) -> Option<&str> {
    let direct = schema.get("$ref").as_str().and_then(|r| r.strip_prefix(REFERENCE));
    direct.or_else(|| schema.array_at(&["allOf"]).iter().find_map(reference))
}

/// A schema with what it refers to in its place; what refers to itself is an object of which nothing is known.
fn populate<'s>(all: &'s Map, schema: &'s Value, within: &mut Vec<&'s str>) -> Value {
    let Some(name) = reference(schema) else { return populate_members(all, schema, within) };
    let target = all.get(name).filter(|_| within.len() < MAX_DEPTH && !within.contains(&name));
    let Some(target) = target else { return object!({"type": "object"}) };
    within.push(name);
    let populated = populate_members(all, target, within);
    within.pop();
    populated
}

fn populate_members<'s>(all: &'s Map, schema: &'s Value, within: &mut Vec<&'s str>) -> Value {
    let Some(members) = schema.as_object() else { return schema.clone() };
    let mut out = Map::with_capacity(members.len());
    for (member, value) in members.iter() {
        let populated = match (member, value) {
            ("description" | "example", _) => continue,
            ("properties", Value::Object(properties)) => {
                let each = properties.iter().map(|(name, p)| (name, populate(all, p, within)));
                Value::Object(each.collect())
            }
            ("items" | "additionalProperties", Value::Object(_)) => populate(all, value, within),
            _ => value.clone(),
        };
        out.push(member, populated);
    }
    Value::Object(out)
}

/// What expressions know of objects with a schema.
pub(super) fn declare(schema: &Value, name: &str) -> Option<Arc<Decl>> {
    Decl::from_schema(schema, name, true).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_by_what_they_refer_to() {
        let all = object!({
            "A": {"type": "object", "properties": {
                "b": {"allOf": [{"$ref": "#/components/schemas/B"}], "default": {}},
                "list": {"type": "array", "items": {"$ref": "#/components/schemas/B"}},
            }},
            "B": {"type": "object", "description": "long", "properties": {"b": {"$ref": "#/components/schemas/B"}, "n": {"type": "integer"}}},
        });
        let map = all.as_object().unwrap();
        let b =
            object!({"type": "object", "properties": {"b": {"type": "object"}, "n": {"type": "integer"}}});
        let want = object!({"type": "object", "properties": {"b": (b.clone()), "list": {"type": "array", "items": b}}});
        assert_eq!(populate(map, all.get("A"), &mut vec!["A"]), want);
    }
}
