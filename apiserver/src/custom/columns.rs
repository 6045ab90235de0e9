//! Columns of custom resources in tables.

use api::{Value, object};
use jiff::Timestamp;

use super::JsonPath;

/// A column besides the name.
pub struct Column {
    head: Value,
    kind: String,
    path: JsonPath,
}

impl Column {
    /// The columns of `additionalPrinterColumns` up to one whose path cannot be read; without any, the age.
    pub fn all(columns: &Value) -> Vec<Self> {
        let age = object!([{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": AGE}]);
        let given = if columns.is_empty() { &age } else { columns };
        given.as_array().into_iter().flatten().map_while(Self::new).collect()
    }

    fn new(column: &Value) -> Option<Self> {
        let text = |key: &str| column.str_at(&[key]).to_owned();
        let path = text("jsonPath");
        let mut description = text("description");
        if description.is_empty() {
            description = format!("Custom resource definition column (in JSONPath format): {path}");
        }
        let priority = column.get("priority").as_i64().unwrap_or(0);
        let head = object!({
            "name": (text("name")), "type": (text("type")), "format": (text("format")), "description": description,
            "priority": priority,
        });
        Some(Self { head, kind: text("type"), path: JsonPath::parse(&path).ok()? })
    }

    /// What the table says of the column.
    pub fn head(&self) -> Value {
        self.head.clone()
    }

    /// The cell of an object.
    pub fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self.path.find(object);
        let Some(value) = found.first() else { return Value::Null };
        match (self.kind.as_str(), *value) {
            ("string", Value::Null) => Value::Null,
            ("string", Value::String(_)) => (*value).clone(),
            ("string", other) => other.to_string().into(),
            ("integer", Value::Int(_))
            | ("number", Value::Int(_) | Value::Float(_))
            | ("boolean", Value::Bool(_)) => (*value).clone(),
            ("integer", Value::Float(n)) => Value::Int(*n as i64),
            ("date", Value::String(text)) => match api::time::parse(text) {
                Some(time) => api::time::human_duration(now.as_second() - time.as_second()).into(),
                None => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}

const AGE: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_the_types_of_their_columns() {
        let columns = object!([
            {"name": "A", "type": "string", "jsonPath": ".a"},
            {"name": "B", "type": "integer", "jsonPath": ".b"},
            {"name": "C", "type": "date", "jsonPath": ".c"},
            {"name": "D", "type": "boolean", "jsonPath": ".d"},
            {"name": "E", "type": "string", "jsonPath": ".none"},
        ]);
        let now = api::time::parse("2026-01-01T00:05:00Z").unwrap();
        let cells = |json: &str| -> String {
            let object = api::json::decode(json.as_bytes()).unwrap().value;
            let cells: Vec<Value> = Column::all(&columns).iter().map(|c| c.cell(&object, now)).collect();
            Value::Array(cells).to_string()
        };
        assert_eq!(
            cells(r#"{"a":7,"b":2.9,"c":"2026-01-01T00:00:00Z","d":true}"#),
            r#"["7",2,"5m",true,null]"#
        );
        assert_eq!(
            cells(r#"{"a":{"x":[1]},"b":"2","c":"soon","d":"yes"}"#),
            r#"["{\"x\":[1]}",null,"<invalid>",null,null]"#
        );
        assert_eq!(Column::all(&Value::Null)[0].head().str_at(&["name"]), "Age");
    }
}
