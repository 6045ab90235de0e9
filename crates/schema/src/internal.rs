//! Values as the server's internal types print: what messages of validation quote.
//!
//! Upstream validates internal structs, which have no JSON tags: their fields print with Go names, in the order of the
//! internal declaration, with every zero value. Where that order or a name is not what the served type says stands in
//! `data/internal.txt`; types of the meta group are the same inside and outside.

use std::collections::HashMap;
use std::sync::LazyLock;

use api::{Map, Value};
use similar::TextDiff;

use crate::types::{Field, Shape, Struct, Ty};

/// An internal field: its name, and where its value is.
struct Row {
    go: &'static str,
    from: From,
}

enum From {
    /// A served field whose name differs in case, if at all.
    Same,
    /// The same, and zero when it is absent.
    Filled,
    Named(&'static str),
    /// A field of the struct around this one.
    Outer(&'static str),
    Null,
    Zero,
}

static TABLE: LazyLock<HashMap<&'static str, Vec<Row>>> = LazyLock::new(|| {
    let lines = include_str!("../data/internal.txt").lines().filter(|l| !l.starts_with('#'));
    let parsed = lines.filter_map(|line| {
        let (name, fields) = line.split_once(' ')?;
        Some((name, fields.split(' ').map(row).collect()))
    });
    parsed.collect()
});

fn row(text: &'static str) -> Row {
    let (go, from) = match text.split_once('=') {
        None => match text.strip_suffix('!') {
            Some(go) => (go, From::Filled),
            None => (text, From::Same),
        },
        Some((go, "null")) => (go, From::Null),
        Some((go, "0")) => (go, From::Zero),
        Some((go, name)) => (go, name.strip_prefix('^').map_or(From::Named(name), From::Outer)),
    };
    Row { go, from }
}

/// A served value of type `ty` as the internal type prints.
pub fn view(value: &Value, ty: Ty<'_>) -> Value {
    of(value, ty, &Outer::default())
}

/// How two served values of type `ty` differ, as upstream's messages show it; empty when they do not.
pub fn difference(old: &Value, new: &Value, ty: Ty<'_>) -> String {
    let text = |v: &Value| {
        let mut out = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b" ");
        let mut writer = serde_json::Serializer::with_formatter(&mut out, format);
        serde::Serialize::serialize(&view(v, ty), &mut writer).expect("a value can be written to memory");
        out.push(b'\n');
        String::from_utf8(out).expect("JSON is UTF-8")
    };
    let (old, new) = (text(old), text(new));
    TextDiff::from_lines(&old, &new).unified_diff().context_radius(3).to_string()
}

/// The struct around a value and its type.
#[derive(Default)]
struct Outer<'a>(Option<(&'a Value, Ty<'a>)>);

fn of(value: &Value, ty: Ty<'_>, outer: &Outer<'_>) -> Value {
    let name: &str = &ty.get().name;
    if name.starts_with("meta/") || ty.is_custom() {
        return if value.is_null() { zero(ty) } else { sorted(value) };
    }
    match (ty.shape(), value) {
        (Shape::Struct(s), _) => structure(value, ty, s, outer),
        (_, Value::Null) => zero(ty),
        (Shape::List(l), Value::Array(items)) => {
            Value::Array(items.iter().map(|v| of(v, ty.at(l.item), &Outer::default())).collect())
        }
        (Shape::Map(m), Value::Object(members)) => {
            let view = |(k, v)| (k, of(v, ty.at(m.value), &Outer::default()));
            let mut out: Map = members.iter().map(view).collect();
            out.sort_keys();
            Value::Object(out)
        }
        (Shape::SchemaOrBool(id), value) => {
            let schema = value.as_object().map_or(Value::Null, |_| of(value, ty.at(*id), &Outer::default()));
            let allows = value.as_bool().unwrap_or(true);
            Map::from_iter([("Allows", Value::Bool(allows)), ("Schema", schema)]).into()
        }
        (Shape::SchemaOrArray(id) | Shape::SchemaOrStrings(id), value) => {
            let one = value.as_object().map_or(Value::Null, |_| of(value, ty.at(*id), &Outer::default()));
            let (name, several) = match (ty.shape(), value) {
                (Shape::SchemaOrArray(_), Value::Array(items)) => {
                    let all = items.iter().map(|v| of(v, ty.at(*id), &Outer::default())).collect();
                    ("JSONSchemas", Value::Array(all))
                }
                (Shape::SchemaOrArray(_), _) => ("JSONSchemas", Value::Null),
                (_, Value::Array(_)) => ("Property", value.clone()),
                _ => ("Property", Value::Null),
            };
            Map::from_iter([("Schema", one), (name, several)]).into()
        }
        _ => value.clone(),
    }
}

/// Maps inside types of the meta group print in order of their keys.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k, sorted(v))).collect::<Map>().into(),
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

fn zero(ty: Ty<'_>) -> Value {
    match ty.shape() {
        Shape::Struct(_) => Value::object(),
        Shape::String => "".into(),
        Shape::Bool => false.into(),
        Shape::Int32 | Shape::Int64 | Shape::Float | Shape::IntOrString => 0.into(),
        Shape::Quantity => "0".into(),
        Shape::Duration => "0s".into(),
        _ => Value::Null,
    }
}

fn structure(value: &Value, ty: Ty<'_>, s: &Struct, outer: &Outer<'_>) -> Value {
    let mut out = Map::new();
    if s.fields.iter().any(|f| f.name == "metadata") {
        // The metadata is embedded, and prints as it is served.
        for (key, member) in value.get("metadata").as_object().into_iter().flat_map(Map::iter) {
            out.push(key, sorted(member));
        }
    }
    let Some(rows) = TABLE.get(ty.get().name.as_ref()) else {
        for field in s.fields.iter().filter(|f| f.name != "metadata") {
            out.push(capital(&field.name), member(value, ty, field));
        }
        return Value::Object(out);
    };
    for row in rows {
        let found = |name: &str| s.fields.iter().find(|f| f.name.eq_ignore_ascii_case(name));
        let shown = match row.from {
            From::Same => found(row.go).map(|f| member(value, ty, f)),
            From::Filled => found(row.go).map(|f| match value.get(&f.name) {
                Value::Null => zero(ty.at(f.ty)),
                _ => member(value, ty, f),
            }),
            From::Named(name) => found(name).map(|f| member(value, ty, f)),
            From::Outer(name) => outer.0.and_then(|(v, t)| t.field(name).map(|f| member(v, t, f))),
            From::Null => Some(Value::Null),
            From::Zero => Some(0.into()),
        };
        out.push(row.go, shown.unwrap_or_default());
    }
    Value::Object(out)
}

fn member(value: &Value, ty: Ty<'_>, field: &Field) -> Value {
    let inner = value.get(&field.name);
    if inner.is_null() && field.pointer {
        return Value::Null;
    }
    of(inner, ty.at(field.ty), &Outer(Some((value, ty))))
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::named;
    use api::object;

    fn check(name: &str, value: Value, want: &str) {
        assert_eq!(view(&value, named(name).unwrap()).to_string(), want);
    }

    #[test]
    fn structs_print_go_names_and_zero_values() {
        check(
            "core/v1.ServicePort",
            object!({"protocol": "TCP", "port": 80}),
            r#"{"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}"#,
        );
        check(
            "policy/v1.PodDisruptionBudgetSpec",
            object!({"minAvailable": "50%", "maxUnavailable": 1, "selector": {"matchLabels": {"app": "a"}}}),
            r#"{"MinAvailable":"50%","Selector":{"matchLabels":{"app":"a"}},"MaxUnavailable":1,"UnhealthyPodEvictionPolicy":null}"#,
        );
        check(
            "apps/v1.DeploymentStrategy",
            object!({"type": "Nope", "rollingUpdate": {"maxSurge": 1}}),
            r#"{"Type":"Nope","RollingUpdate":{"MaxUnavailable":0,"MaxSurge":1}}"#,
        );
        check(
            "rbac/v1.RoleRef",
            object!({"apiGroup": "g", "kind": "Role", "name": "n"}),
            r#"{"APIGroup":"g","Kind":"Role","Name":"n"}"#,
        );
    }

    #[test]
    fn schemas_print_what_stands_for_several_things_in_full() {
        let seen = |schema: Value| view(&schema, named("apiextensions/v1.JSONSchemaProps").unwrap());
        let schema = object!({"type": "array", "items": {"type": "string"}, "additionalProperties": false});
        let shown = seen(schema);
        assert_eq!(shown.at(&["Items", "Schema", "Type"]).as_str(), Some("string"));
        assert_eq!(shown.at(&["Items", "JSONSchemas"]), &Value::Null);
        assert_eq!(shown.get("AdditionalProperties").to_string(), r#"{"Allows":false,"Schema":null}"#);
        assert_eq!(seen(object!({"x-kubernetes-list-type": "set"})).str_at(&["XListType"]), "set");
    }

    #[test]
    fn fields_that_moved_are_found() {
        let spec = object!({"hostNetwork": true, "securityContext": {}, "containers": []});
        let seen = view(&spec, named("core/v1.PodSpec").unwrap());
        assert_eq!(seen.at(&["SecurityContext", "HostNetwork"]), &Value::Bool(true));
        assert_eq!(seen.at(&["SecurityContext", "HostUsers"]), &Value::Null);
        assert!(seen.as_object().unwrap().keys().all(|k| k != "HostNetwork"));
    }

    #[test]
    fn every_row_of_the_table_names_fields_that_exist() {
        for (name, rows) in TABLE.iter() {
            let ty = named(name).unwrap_or_else(|| panic!("{name} is no type"));
            for row in rows {
                let name = match row.from {
                    From::Same | From::Filled => row.go,
                    From::Named(name) => name,
                    _ => continue,
                };
                let known = ty.as_struct().unwrap().fields.iter().any(|f| f.name.eq_ignore_ascii_case(name));
                assert!(known, "{} has no {name}", ty.get().name);
            }
        }
    }

    #[test]
    fn a_difference_reads_as_upstreams() {
        let of = |size: &str| object!({"resources": {"requests": {"storage": size}}});
        let ty = named("core/v1.PersistentVolumeClaimSpec").unwrap();
        assert_eq!(
            difference(&of("1Gi"), &of("2Gi"), ty),
            "@@ -4,7 +4,7 @@\n  \"Resources\": {\n   \"Limits\": null,\n   \"Requests\": {\n-   \"storage\": \"1Gi\"\n+   \"storage\": \"2Gi\"\n   }\n  },\n  \"VolumeName\": \"\",\n"
        );
        assert_eq!(difference(&of("1"), &of("1"), ty), "");
    }
}
