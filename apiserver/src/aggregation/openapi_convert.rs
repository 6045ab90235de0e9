//! A version 2 document as one of version 3, for servers that know no other. Mirrors the converter of kube-openapi.

use api::{Map, Value, object};

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

/// The version 3 document.
pub(super) fn convert(document: &Value) -> Value {
    let members = |from: &Value, change: &dyn Fn(&Value) -> Value| -> Value {
        let mut out = Map::new();
        for (name, value) in from.as_object().into_iter().flat_map(|m| m.iter()) {
            out.push(name, change(value));
        }
        Value::Object(out)
    };
    let mut components = object!({"schemas": (members(document.get("definitions"), &schema))});
    if !document.get("securityDefinitions").is_null() {
        components.set(&["securitySchemes"], document.get("securityDefinitions"));
    }
    if !document.get("parameters").is_null() {
        components.set(&["parameters"], members(document.get("parameters"), &parameter));
    }
    if !document.get("responses").is_null() {
        let produces = document.get("produces");
        components.set(&["responses"], members(document.get("responses"), &|r| response(r, produces)));
    }
    object!({
        "openapi": "3.0.0",
        "info": (document.get("info").clone()),
        "paths": (members(document.get("paths"), &path)),
        "components": components,
    })
}

fn path(item: &Value) -> Value {
    let mut out = Map::new();
    for (name, value) in item.as_object().into_iter().flat_map(|m| m.iter()) {
        let value = match name {
            "parameters" => Value::Array(value.as_array().into_iter().flatten().map(parameter).collect()),
            name if METHODS.contains(&name) => operation(value),
            _ => value.clone(),
        };
        out.push(name, value);
    }
    Value::Object(out)
}

fn operation(operation: &Value) -> Value {
    let mut out = Map::new();
    let mut parameters = Vec::new();
    for one in operation.array_at(&["parameters"]) {
        if one.str_at(&["name"]) == "body" && !one.get("schema").is_null() {
            out.push(
                "requestBody",
                object!({"content": (content(operation.get("consumes"), one.get("schema")))}),
            );
        } else {
            parameters.push(parameter(one));
        }
    }
    if !parameters.is_empty() {
        out.push("parameters", Value::Array(parameters));
    }
    let mut responses = Map::new();
    for (code, value) in operation.get("responses").as_object().into_iter().flat_map(|m| m.iter()) {
        responses.push(code, response(value, operation.get("produces")));
    }
    out.push("responses", Value::Object(responses));
    for (name, value) in operation.as_object().into_iter().flat_map(|m| m.iter()) {
        if !matches!(name, "parameters" | "responses" | "consumes" | "produces" | "schemes" | "security") {
            out.push(name, value.clone());
        }
    }
    Value::Object(out)
}

/// A schema for each media type.
fn content(types: &Value, of: &Value) -> Value {
    let mut out = Map::new();
    for name in types.as_array().into_iter().flatten().filter_map(Value::as_str) {
        out.insert(name, object!({"schema": (schema(of))}));
    }
    Value::Object(out)
}

fn response(response: &Value, produces: &Value) -> Value {
    if let Some(reference) = response.get("$ref").as_str() {
        return object!({"$ref": (reference.replacen("#/responses/", "#/components/responses/", 1))});
    }
    let mut out = object!({"description": (response.str_at(&["description"]))});
    if !response.get("schema").is_null() {
        out.set(&["content"], content(produces, response.get("schema")));
    }
    out
}

fn parameter(parameter: &Value) -> Value {
    if let Some(reference) = parameter.get("$ref").as_str() {
        return object!({"$ref": (reference.replacen("#/parameters/", "#/components/parameters/", 1))});
    }
    let (mut own, mut of) = (Value::object(), Value::object());
    for (name, value) in parameter.as_object().into_iter().flat_map(|m| m.iter()) {
        match name {
            "type" | "format" | "uniqueItems" => of.set(&[name], value),
            "schema" => of = schema(value),
            "name" | "description" | "in" | "required" | "allowEmptyValue" => own.set(&[name], value),
            name if name.starts_with("x-") => own.set(&[name], value),
            _ => {}
        }
    }
    own.set(&["schema"], of);
    own
}

/// A schema with its references; a reference with something beside it is wrapped, for it would hide that.
fn schema(from: &Value) -> Value {
    let Some(members) = from.as_object() else { return from.clone() };
    let mut out = Map::new();
    for (name, value) in members.iter() {
        let value = match name {
            "$ref" => {
                let name = value.as_str().unwrap_or_default();
                Value::from(name.replacen("#/definitions/", "#/components/schemas/", 1))
            }
            "properties" => {
                let mut properties = Map::new();
                for (name, value) in value.as_object().into_iter().flat_map(|m| m.iter()) {
                    properties.push(name, schema(value));
                }
                Value::Object(properties)
            }
            "items" | "additionalProperties" | "additionalItems" => match value.as_array() {
                Some(list) => Value::Array(list.iter().map(schema).collect()),
                None => schema(value),
            },
            _ => value.clone(),
        };
        out.push(name, value);
    }
    if out.len() > 1
        && let Some(reference) = out.remove("$ref")
    {
        out.push("allOf", object!([{"$ref": reference}]));
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_parameters_and_references_are_where_version_3_has_them() {
        let reference = object!({"$ref": "#/definitions/T"});
        let document = object!({
            "swagger": "2.0", "info": {"title": "t", "version": "1"},
            "paths": {"/a": {"post": {
                "operationId": "x", "consumes": ["application/json"], "produces": ["application/json"],
                "parameters": [
                    {"name": "body", "in": "body", "schema": (reference.clone())},
                    {"name": "q", "in": "query", "type": "string", "uniqueItems": true},
                    {"$ref": "#/parameters/p"},
                ],
                "responses": {"200": {"description": "OK", "schema": (reference.clone())}},
            }}},
            "definitions": {"T": {"type": "object", "properties": {"u": {"$ref": "#/definitions/U", "default": {}}}}},
        });
        let reference = object!({"$ref": "#/components/schemas/T"});
        let operation = object!({
            "requestBody": {"content": {"application/json": {"schema": (reference.clone())}}},
            "parameters": [
                {"name": "q", "in": "query", "schema": {"type": "string", "uniqueItems": true}},
                {"$ref": "#/components/parameters/p"},
            ],
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
            "operationId": "x",
        });
        let converted = convert(&document);
        assert_eq!(converted.at(&["paths", "/a", "post"]), &operation);
        let wrapped = object!({"default": {}, "allOf": [{"$ref": "#/components/schemas/U"}]});
        assert_eq!(converted.at(&["components", "schemas", "T", "properties", "u"]), &wrapped);
    }
}
