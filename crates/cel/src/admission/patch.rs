//! What mutations are made of: `Object{..}` for an apply configuration, `JSONPatch{..}` for an operation.

use api::Value;

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
    /// The value as an apply configuration, whose parts are of the types that their places name, such as `Object.spec`.
    ///
    /// # Errors
    /// All parts that are not, or that it cannot be written into an object.
    pub fn to_configuration(&self) -> Result<Value, String> {
        self.check_types()?;
        self.to_value().map_err(|e| format!("invalid return type: {e}"))
    }

    /// The value as a JSON patch.
    ///
    /// # Errors
    /// When values of its operations are not of the types that their places name, or cannot be written into an object.
    pub fn to_json_patch(&self) -> Result<Value, String> {
        let Val::List(operations) = self else {
            return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
        };
        let mut patch = Vec::new();
        for operation in operations.iter() {
            let operation = operation.map_err(|e| e.to_string())?;
            let Val::Struct(made) = &operation else {
                return Err("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch"
                    .to_owned());
            };
            for (field, value) in made.1.iter().filter_map(|(f, v)| Some((f, v.ok()?))) {
                if field.as_str() == Some("value") {
                    value.check_types()?;
                }
            }
            let mut operation = operation.to_value().map_err(|e| {
                format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {e}")
            })?;
            if operation.str_at(&["from"]).is_empty() {
                operation.remove_at(&["from"]);
            }
            for field in ["op", "path"] {
                if operation.get(field).is_null() {
                    operation.set(&[field], "");
                }
            }
            patch.push(operation);
        }
        Ok(patch.into())
    }

    fn check_types(&self) -> Result<(), String> {
        let Val::Struct(made) = self else { return Ok(()) };
        let mut errors = Vec::new();
        walk(self, &made.0, &mut errors);
        if errors.is_empty() { Ok(()) } else { Err(format!("type mismatch: {}", errors.join("\n"))) }
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
