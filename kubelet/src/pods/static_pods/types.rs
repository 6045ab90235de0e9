//! What a pod is made of, and decoding it: manifests of static pods have passed no API server.

use std::collections::HashMap;
use std::sync::LazyLock;

use api::quantity::Quantity;
use api::{Map, Value};

/// The type of a whole pod.
pub(super) const POD: &str = "core.Pod";

/// A field of a struct.
pub(super) struct Field {
    /// Its name in Go; none of a field that is served alone.
    pub(super) go: Option<&'static str>,
    pub(super) ty: &'static str,
    pub(super) place: Place,
}

/// Where the value of a field is.
pub(super) enum Place {
    Member(&'static str),
    /// A member of the object around.
    Outer(&'static str),
    /// The fields of the inner struct are members of this object.
    Inline,
}

enum Definition {
    Struct(Vec<Field>),
    Alias(&'static str),
}

/// How values of a type look.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Text,
    Bool,
    /// A number of so many bits.
    Int(u32),
    Quantity,
    IntOrString,
    Time,
    /// Any JSON, kept as it is written.
    Raw,
    Struct(&'static [Field]),
    Pointer(&'static str),
    List(&'static str),
    /// From texts to what is named.
    Map(&'static str),
}

static TABLE: LazyLock<HashMap<&'static str, Definition>> = LazyLock::new(|| {
    let mut table = HashMap::new();
    let mut current = "";
    for line in include_str!("../../../data/pod_types.txt").lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (line.starts_with('\t'), &words[..]) {
            (true, [go, ty, place]) => {
                let place = match place.strip_prefix('^') {
                    Some(name) => Place::Outer(name),
                    None if *place == "=" => Place::Inline,
                    None => Place::Member(place),
                };
                let field = Field { go: (*go != "-").then_some(*go), ty, place };
                if let Some(Definition::Struct(fields)) = table.get_mut(current) {
                    fields.push(field);
                }
            }
            (false, [name, "=", ty]) => drop(table.insert(*name, Definition::Alias(ty))),
            (_, [name]) => {
                current = name;
                table.insert(current, Definition::Struct(Vec::new()));
            }
            _ => {}
        }
    }
    table
});

/// How values of type `ty` look.
pub(super) fn shape(ty: &'static str) -> Shape {
    match ty {
        "string" => Shape::Text,
        "bool" => Shape::Bool,
        "int32" => Shape::Int(32),
        "int64" => Shape::Int(64),
        "resource.Quantity" => Shape::Quantity,
        "intstr.IntOrString" => Shape::IntOrString,
        "v1.Time" => Shape::Time,
        "v1.FieldsV1" => Shape::Raw,
        _ => composite(ty),
    }
}

fn composite(ty: &'static str) -> Shape {
    if let Some(inner) = ty.strip_prefix('*') {
        return Shape::Pointer(inner);
    }
    if let Some(item) = ty.strip_prefix("[]") {
        return Shape::List(item);
    }
    if let Some((_, value)) = ty.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
        return Shape::Map(value);
    }
    match TABLE.get(ty) {
        Some(Definition::Struct(fields)) => Shape::Struct(fields),
        Some(Definition::Alias(other)) => shape(other),
        None => unreachable!("every type that the table names is in it"),
    }
}

/// A value is not of the type that belongs where it is.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{path}: {found} where there should be {wanted}")]
pub(super) struct Mismatch {
    path: String,
    found: &'static str,
    wanted: &'static str,
}

/// What is known of a value of type `ty`, without members that are null.
pub(super) fn decode(ty: &'static str, value: &Value, path: &str) -> Result<Value, Mismatch> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    let mismatch = |wanted| Mismatch { path: path.to_owned(), found: value.kind_name(), wanted };
    match (shape(ty), value) {
        (Shape::Pointer(inner), _) => decode(inner, value, path),
        (Shape::Raw, Value::Object(_)) | (Shape::Text, Value::String(_)) | (Shape::Bool, Value::Bool(_)) => {
            Ok(value.clone())
        }
        (Shape::IntOrString, Value::String(_)) => Ok(value.clone()),
        (Shape::IntOrString, _) => number(value, 32).ok_or_else(|| mismatch("a number or a text")),
        (Shape::Int(bits), _) => number(value, bits).ok_or_else(|| mismatch("a whole number")),
        (Shape::Time, Value::String(text)) if api::time::parse(text).is_some() => Ok(value.clone()),
        (Shape::Quantity, _) => quantity(value).ok_or_else(|| mismatch("a quantity")),
        (Shape::List(item), Value::Array(items)) => {
            let each = items.iter().enumerate();
            let each = each.map(|(at, item_value)| decode(item, item_value, &format!("{path}[{at}]")));
            Ok(Value::Array(each.collect::<Result<_, _>>()?))
        }
        (Shape::Map(of), Value::Object(members)) => {
            let mut out = Map::new();
            for (key, member) in members.iter() {
                out.insert(key, decode(of, member, &format!("{path}.{key}"))?);
            }
            out.sort_keys();
            Ok(Value::Object(out))
        }
        (Shape::Struct(fields), Value::Object(members)) => {
            let mut out = Map::new();
            members_of(fields, members, path, &mut out)?;
            Ok(Value::Object(out))
        }
        (Shape::Text, _) => Err(mismatch("a text")),
        (Shape::Bool, _) => Err(mismatch("true or false")),
        (Shape::Time, _) => Err(mismatch("a time")),
        (Shape::List(_), _) => Err(mismatch("a list")),
        _ => Err(mismatch("an object")),
    }
}

fn members_of(fields: &'static [Field], from: &Map, path: &str, out: &mut Map) -> Result<(), Mismatch> {
    for field in fields {
        match (&field.place, shape(field.ty)) {
            (Place::Inline, Shape::Struct(inner)) => members_of(inner, from, path, out)?,
            (Place::Member(name), _) => {
                let path = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
                let member = from.get(name).map(|member| decode(field.ty, member, &path)).transpose()?;
                if let Some(member) = member.filter(|member| !member.is_null()) {
                    out.insert(*name, member);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn number(value: &Value, bits: u32) -> Option<Value> {
    let number = value.as_i64()?;
    (bits == 64 || i32::try_from(number).is_ok()).then(|| number.into())
}

/// Quantities may be written as numbers.
fn quantity(value: &Value) -> Option<Value> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Int(_) | Value::Float(_) => value.to_string(),
        _ => return None,
    };
    text.parse::<Quantity>().ok().map(|_| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn every_type_that_the_table_names_is_in_it() {
        for definition in TABLE.values() {
            let named: Vec<_> = match definition {
                Definition::Struct(fields) => fields.iter().map(|field| field.ty).collect(),
                Definition::Alias(other) => vec![*other],
            };
            for mut ty in named {
                while let Shape::Pointer(inner) | Shape::List(inner) | Shape::Map(inner) = shape(ty) {
                    ty = inner;
                }
            }
        }
        assert!(TABLE.len() > 150);
    }

    #[test]
    fn what_is_unknown_or_null_is_left_out_and_what_is_of_another_type_refused() {
        let pod = |spec: Value| decode(POD, &object!({"spec": spec}), "");
        let spec = object!({"nope": 1, "hostname": null, "nodeSelector": {}, "hostPID": true});
        let want = object!({"spec": {"nodeSelector": {}, "hostPID": true}});
        assert_eq!(pod(spec), Ok(want));
        for (spec, want) in [
            (object!({"hostPID": "yes"}), "spec.hostPID: string where there should be true or false"),
            (object!({"containers": {"name": "c"}}), "spec.containers: object where there should be a list"),
            (
                object!({"containers": [{"name": 1}]}),
                "spec.containers[0].name: number where there should be a text",
            ),
            (
                object!({"priority": 4294967296i64}),
                "spec.priority: number where there should be a whole number",
            ),
            (
                object!({"overhead": {"cpu": "x"}}),
                "spec.overhead.cpu: string where there should be a quantity",
            ),
        ] {
            assert_eq!(pod(spec).unwrap_err().to_string(), want);
        }
        let sources = object!({"volumes": [{"name": "v", "hostPath": {"path": "/a", "x": 1}}]});
        let want = object!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/a"}}]}});
        assert_eq!(pod(sources), Ok(want));
    }
}
