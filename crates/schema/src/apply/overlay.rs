//! Laying a configuration over an object without recording who set what, as mutating admission policies do.

use api::Value;

use super::element::Element;
use super::merge::merge;
use super::tree::{Atom, Shaped};
use super::validate::validate;
use crate::types::Ty;

/// The object `live` with all that `config` sets. Lists and maps that are one value cannot be set: what the configuration
/// leaves out of them would go. The result is not yet decoded.
///
/// # Errors
/// What does not fit, in the words of upstream.
pub fn overlay(live: &Value, config: &Value, ty: Ty<'_>) -> Result<Value, String> {
    validate(config, ty, false)
        .map_err(|errors| format!("failed to convert patch object to typed object: {errors}"))?;
    let mut found = Vec::new();
    find_atomic(config, Shaped::Of(ty), &mut Vec::new(), &mut found);
    if !found.is_empty() {
        let found = found.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {found}"
        ));
    }
    merge(live, config, ty).map_err(|why| format!("failed to merge patch: {why}"))
}

/// The paths at which `value` has lists and maps that are one value.
fn find_atomic(value: &Value, shape: Shaped<'_>, path: &mut Vec<Element>, found: &mut Vec<String>) {
    let shown = |path: &[Element]| path.iter().map(ToString::to_string).collect::<String>();
    match (shape.atom(Some(value)), value) {
        (Atom::Map(map), Value::Object(members)) => {
            if map.atomic {
                found.push(shown(path));
            }
            for (name, member) in members.iter().filter(|(name, _)| map.declares(name)) {
                path.push(Element::Field(name.into()));
                find_atomic(member, map.member_or_any(name), path, found);
                path.pop();
            }
        }
        (Atom::List(list), Value::Array(items)) => {
            if list.atomic() {
                found.push(shown(path));
            }
            for (i, item) in items.iter().enumerate() {
                path.push(Element::Index(i as i64));
                find_atomic(item, list.item, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn check(config: Value, want: Result<Value, &str>) {
        let live = object!({
            "metadata": {"name": "p", "labels": {"a": "1"}},
            "spec": {"containers": [{"name": "a", "image": "i", "command": ["x"]}, {"name": "b"}]}
        });
        let ty = crate::kind("", "v1", "Pod").unwrap();
        assert_eq!(
            overlay(&live, &config, ty).as_ref().map_err(String::as_str),
            want.as_ref().map_err(|e| *e)
        );
    }

    #[test]
    fn what_is_set_is_merged() {
        check(
            object!({"metadata": {"labels": {"b": "2"}}, "spec": {"containers": [{"name": "a", "image": "j"}]}}),
            Ok(object!({
                "metadata": {"name": "p", "labels": {"a": "1", "b": "2"}},
                "spec": {"containers": [{"name": "a", "image": "j", "command": ["x"]}, {"name": "b"}]}
            })),
        );
    }

    #[test]
    fn what_is_one_value_is_not_set() {
        check(
            object!({"spec": {"containers": [{"name": "a", "command": ["y"]}], "nodeSelector": {"c": "d"}}}),
            Err(
                "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.containers[0].command, .spec.nodeSelector",
            ),
        );
        check(
            object!({"spec": {"nope": 1}}),
            Err("failed to convert patch object to typed object: .spec.nope: field not declared in schema"),
        );
    }
}
