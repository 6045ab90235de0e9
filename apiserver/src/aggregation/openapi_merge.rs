//! Version 2 documents put together: paths that are there stay, definitions of the same name and another content are
//! renamed. Mirrors the aggregator of kube-openapi.

use std::collections::{BTreeMap, BTreeSet};

use api::{Map, Value};

const GVKS: &str = "x-kubernetes-group-version-kind";
/// The parts that can be referred to.
const PARTS: [&str; 2] = ["definitions", "parameters"];

/// The document with the paths that `keep` wants, and without the definitions that only others referred to.
pub(super) fn filter(mut document: Value, keep: impl Fn(&str) -> bool) -> Value {
    let before = used(&document);
    if let Some(paths) = document.at_mut(&["paths"]).and_then(Value::as_object_mut) {
        paths.retain(|path, _| keep(path));
    }
    let after = used(&document);
    if let Some(definitions) = document.at_mut(&["definitions"]).and_then(Value::as_object_mut) {
        definitions.retain(|name, _| after.contains(name) || !before.contains(name));
    }
    document
}

/// The names of the definitions that the paths refer to, by however many steps.
fn used(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut pending = vec![document.get("paths"), document.get("parameters"), document.get("responses")];
    while let Some(value) = pending.pop() {
        each_reference(value, &mut |reference| {
            if let Some(name) = reference.strip_prefix("#/definitions/")
                && found.insert(name.to_owned())
            {
                pending.push(document.get("definitions").get(name));
            }
        });
    }
    found
}

fn each_reference<'v>(value: &'v Value, see: &mut impl FnMut(&'v str)) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter() {
                match value.as_str() {
                    Some(reference) if key == "$ref" => see(reference),
                    _ => each_reference(value, see),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|v| each_reference(v, see)),
        _ => {}
    }
}

/// Adds what `theirs` has and `ours` has not.
pub(super) fn merge(ours: &mut Value, theirs: &Value) {
    let has = |path: &str| !ours.get("paths").get(path).is_null();
    let paths = theirs.get("paths").as_object();
    if paths.is_none_or(|p| p.keys().all(has)) {
        return;
    }
    let mut theirs = filter(theirs.clone(), |path| !has(path));
    let mut renames = BTreeMap::new();
    for part in PARTS {
        names(part, ours.get(part), theirs.get(part), &mut renames);
    }
    if !renames.is_empty() {
        rename(&mut theirs, &renames);
    }
    for part in ["paths", "definitions", "parameters"] {
        let Value::Object(members) = theirs.get(part).clone() else { continue };
        let target = ours.make_object().entry(part).make_object();
        for (name, value) in members.iter() {
            // A reference is `#/definitions/NAME`.
            let name =
                renames.get(&format!("#/{part}/{name}")).and_then(|r| r.rsplit('/').next()).unwrap_or(name);
            match target.get_mut(name) {
                Some(present) => merge_kinds(present, value),
                None => target.push(name, value.clone()),
            }
        }
        target.sort_keys();
    }
}

/// Finds new names for what is called the same and is another thing.
fn names(part: &str, ours: &Value, theirs: &Value, renames: &mut BTreeMap<String, String>) {
    let empty = Map::new();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for (name, value) in theirs.as_object().unwrap_or(&empty).iter() {
        let present = ours.get(name);
        if present.is_null() || same(present, value) {
            continue;
        }
        let free = (2..).map(|i| format!("{name}_v{i}")).find(|new| {
            let present = ours.get(new);
            let usable = present.is_null() && theirs.get(new).is_null() && !taken.contains(new);
            usable || (!present.is_null() && same(present, value))
        });
        if let Some(new) = free {
            renames.insert(format!("#/{part}/{name}"), format!("#/{part}/{new}"));
            taken.insert(new);
        }
    }
}

/// Equal but for the kinds that a definition stands for.
fn same(a: &Value, b: &Value) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return a == b };
    let covers = |x: &Map, y: &Map| x.iter().all(|(key, value)| key == GVKS || y.get(key) == Some(value));
    covers(a, b) && covers(b, a)
}

fn merge_kinds(present: &mut Value, other: &Value) {
    let more: Vec<Value> =
        other.array_at(&[GVKS]).iter().filter(|k| !present.array_at(&[GVKS]).contains(k)).cloned().collect();
    if !more.is_empty() {
        present.make_object().entry(GVKS).make_array().extend(more);
    }
}

fn rename(value: &mut Value, renames: &BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match value.as_str().filter(|_| key == "$ref").and_then(|r| renames.get(r)) {
                    Some(new) => *value = Value::from(new.as_str()),
                    None => rename(value, renames),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|v| rename(v, renames)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn document(path: &str, name: &str, definition: Value) -> Value {
        let mut definitions = Value::object();
        definitions.set(&[name], definition);
        let mut paths = Value::object();
        paths.set(&[path], object!({"get": {"schema": {"$ref": (format!("#/definitions/{name}"))}}}));
        object!({"swagger": "2.0", "paths": paths, "definitions": definitions})
    }

    fn kind(group: &str) -> Value {
        object!([{"group": group, "kind": "T", "version": "v1"}])
    }

    #[test]
    fn definitions_of_one_name_and_another_content_are_renamed_with_their_references() {
        let mut ours = document("/a", "t", object!({"type": "object"}));
        let theirs = document("/b", "t", object!({"type": "string"}));
        merge(&mut ours, &theirs);
        assert_eq!(ours.at(&["definitions", "t_v2"]), &object!({"type": "string"}));
        assert_eq!(ours.at(&["definitions", "t"]), &object!({"type": "object"}));
        assert_eq!(ours.str_at(&["paths", "/b", "get", "schema", "$ref"]), "#/definitions/t_v2");
        // The same once more finds the definition that was renamed.
        merge(&mut ours, &document("/c", "t", object!({"type": "string"})));
        assert_eq!(ours.str_at(&["paths", "/c", "get", "schema", "$ref"]), "#/definitions/t_v2");
        assert_eq!(ours.get("definitions").as_object().unwrap().len(), 2);
    }

    #[test]
    fn equal_definitions_are_shared_and_stand_for_the_kinds_of_both() {
        let definition = |group: &str| {
            let mut d = object!({"type": "object"});
            d.set(&[GVKS], kind(group));
            d
        };
        let mut ours = document("/a", "t", definition("a"));
        merge(&mut ours, &document("/b", "t", definition("b")));
        assert_eq!(ours.get("definitions").as_object().unwrap().len(), 1);
        assert_eq!(ours.array_at(&["definitions", "t", GVKS]).len(), 2);
    }

    #[test]
    fn paths_that_are_there_stay_and_bring_no_definitions() {
        let mut ours = document("/a", "t", object!({"type": "object"}));
        let before = ours.clone();
        merge(&mut ours, &document("/a", "u", object!({"type": "string"})));
        assert_eq!(ours, before);
    }

    #[test]
    fn definitions_go_with_the_paths_that_referred_to_them() {
        let mut both = document("/a", "t", object!({"properties": {"u": {"$ref": "#/definitions/u"}}}));
        both.set(&["definitions", "u"], object!({"type": "string"}));
        both.set(&["definitions", "never"], object!({"type": "string"}));
        let names = |v: &Value| {
            v.get("definitions").as_object().unwrap().keys().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(names(&filter(both.clone(), |p| p == "/a")), ["t", "u", "never"]);
        assert_eq!(names(&filter(both, |_| false)), ["never"]);
    }
}
