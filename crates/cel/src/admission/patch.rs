//! What mutations are made of: `Object{..}` for an apply configuration, `JSONPatch{..}` for an operation.

use crate::types::Type;
use crate::value::Val;

const OBJECT: &str = "Object";
const JSON_PATCH: &str = "JSONPatch";

pub(super) fn has_type(name: &str) -> bool {
    name == JSON_PATCH
        || name == OBJECT
        || name.strip_prefix(OBJECT).is_some_and(|rest| rest.starts_with('.'))
}

pub(super) fn field(object: &str, field: &str) -> Option<Type> {
    if object == JSON_PATCH {
        return match field {
            "op" | "path" | "from" => Some(Type::String),
            "value" => Some(Type::Dyn),
            _ => None,
        };
    }
    // Which fields there are is for the schema of the object to say.
    has_type(object).then_some(Type::Dyn)
}

impl Val<'_> {
    /// Checks that the parts of an apply configuration are of the types that their places name, such as `Object.spec`.
    ///
    /// # Errors
    /// All that are not.
    pub fn check_object_types(&self) -> Result<(), String> {
        let mut errors = Vec::new();
        walk(self, OBJECT, &mut errors);
        if errors.is_empty() { Ok(()) } else { Err(errors.join("\n")) }
    }
}

fn walk(v: &Val<'_>, place: &str, errors: &mut Vec<String>) {
    match v {
        Val::Struct(made) => {
            if *made.0 != *place {
                let quote = api::field::go_quote;
                errors.push(format!(
                    "unexpected type name {}, expected {}, which matches field name path from root Object type",
                    quote(&made.0),
                    quote(place)
                ));
            }
            for (field, value) in made.1.iter() {
                if let (Some(field), Ok(value)) = (field.as_str(), value) {
                    walk(&value, &format!("{place}.{field}"), errors);
                }
            }
        }
        Val::List(list) => list.iter().flatten().for_each(|item| walk(&item, place, errors)),
        Val::Map(map) => map.iter().filter_map(|(_, v)| v.ok()).for_each(|v| walk(&v, place, errors)),
        _ => {}
    }
}
