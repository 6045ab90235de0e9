//! Validation against a JSON schema, with kube-openapi's messages.

use std::collections::HashMap;

use api::Value;
use api::field::{FieldError, Problem};
use regex::Regex;

use super::formats;

type Patterns = HashMap<String, Option<Regex>>;

/// Finds all patterns of a schema.
pub(super) fn collect_patterns(schema: &Value, out: &mut Patterns) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map.iter() {
                match value.as_str() {
                    Some(pattern) if key == "pattern" => {
                        out.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
                    }
                    _ => collect_patterns(value, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|v| collect_patterns(v, out)),
        _ => {}
    }
}

/// Everything that is wrong with a value; parts that are as they were in `old` are not looked at.
pub(super) fn validate(
    value: &Value,
    old: Option<&Value>,
    schema: &Value,
    patterns: &Patterns,
) -> Vec<FieldError> {
    let mut walker = Walker { patterns, errors: Vec::new(), matched: 0 };
    walker.visit(value, old, schema, "");
    walker.errors
}

/// True for a number that JavaScript counts among the integers, give or take what rounding adds.
fn is_integer(n: f64) -> bool {
    const LARGEST: f64 = 9_007_199_254_740_991.0;
    let off = (n - n.round()).abs();
    n.abs() <= LARGEST && (off == 0.0 || off < 1e-9 * n.round().abs())
}

/// True when a number of a type fits its format.
fn in_range(value: &Value, kind: &str, format: &str) -> bool {
    match (kind, value) {
        ("integer", Value::Int(n)) => match format {
            "int32" => i32::try_from(*n).is_ok(),
            "uint32" => u32::try_from(*n).is_ok(),
            "uint64" => *n >= 0,
            _ => true,
        },
        ("integer", Value::Float(n)) => {
            let (least, most) = match format {
                "int32" => (f64::from(i32::MIN), f64::from(i32::MAX)),
                "uint32" => (0.0, f64::from(u32::MAX)),
                "uint64" => (0.0, 2_f64.powi(64).next_down()),
                _ => (-(2_f64.powi(63)), 2_f64.powi(63).next_down()),
            };
            n.fract() == 0.0 && (least..=most).contains(n)
        }
        ("number", _) if matches!(format, "float" | "float32") => {
            !matches!(value, Value::Float(n) if n.abs() > f64::from(f32::MAX))
        }
        _ => true,
    }
}

/// The item of an old list that became `item`: only items of maps are known again, by their keys.
fn counterpart<'v>(old: Option<&'v Value>, item: &Value, schema: &Value) -> Option<&'v Value> {
    if schema.str_at(&["x-kubernetes-list-type"]) != "map" {
        return None;
    }
    let keys = schema.array_at(&["x-kubernetes-list-map-keys"]);
    let same = |other: &&Value| keys.iter().filter_map(Value::as_str).all(|k| other.get(k) == item.get(k));
    old?.as_array()?.iter().find(same)
}

struct Walker<'p> {
    patterns: &'p Patterns,
    errors: Vec<FieldError>,
    /// How many checks were made: tells which of several failed alternatives comes closest.
    matched: usize,
}

impl Walker<'_> {
    fn push(&mut self, path: &str, problem: Problem, detail: String) {
        self.errors.push(FieldError { field: path.trim_start_matches('.').to_owned(), problem, detail });
    }

    /// `<path> in body <what>` as the detail of an invalid value.
    fn invalid(&mut self, path: &str, value: Value, what: String) {
        self.push(path, Problem::Invalid(value), format!("{path} in body {what}"));
    }

    fn visit(&mut self, value: &Value, old: Option<&Value>, schema: &Value, path: &str) {
        if !matches!(schema, Value::Object(_)) || old == Some(value) {
            return;
        }
        self.kind(value, schema, path);
        if value.is_null() {
            return self.one_of_enum(value, schema, path);
        }
        self.alternatives(value, schema, path);
        match value {
            Value::String(text) => {
                self.string(text, schema, path);
                self.format(text, schema, path);
            }
            Value::Int(_) | Value::Float(_) => self.number(value, schema, path),
            Value::Array(items) => self.list(items, old, schema, path),
            _ => {}
        }
        self.one_of_enum(value, schema, path);
        if let Value::Object(map) = value {
            self.object(map, old, schema, path);
        }
        self.matched += 1;
    }

    fn kind(&mut self, value: &Value, schema: &Value, path: &str) {
        let want = match schema.str_at(&["type"]) {
            _ if schema.get("x-kubernetes-int-or-string") == &Value::Bool(true) => "integer,string",
            want => want,
        };
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Int(_) => "integer",
            Value::Float(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let fits = |want: &str| match (want, value) {
            ("number", Value::Int(_)) => true,
            ("integer", Value::Float(n)) => is_integer(*n),
            (want, _) => want == found,
        };
        if want.is_empty() || want.split(',').any(fits) {
            return;
        }
        if value.is_null() && schema.get("nullable") == &Value::Bool(true) {
            return;
        }
        // A fraction where a format says how wide integers are is told in the names of formats.
        let format = schema.str_at(&["format"]);
        let (want, found) = match value {
            Value::Float(_) if !format.is_empty() => (format, "float64"),
            _ => (want, found),
        };
        let detail = format!("{path} in body must be of type {want}: \"{found}\"");
        self.push(path, Problem::TypeInvalid(found.into()), detail);
    }

    fn one_of_enum(&mut self, value: &Value, schema: &Value, path: &str) {
        let Some(allowed) = schema.get("enum").as_array() else { return };
        if allowed.contains(value) || (value.is_null() && schema.get("nullable") == &Value::Bool(true)) {
            return;
        }
        let texts: Vec<String> = allowed
            .iter()
            .map(|v| api::field::go_quote(&v.as_str().map_or_else(|| v.to_string(), str::to_owned)))
            .collect();
        let detail = format!("supported values: {}", texts.join(", "));
        self.push(path, Problem::NotSupported(value.clone()), detail);
    }

    fn string(&mut self, text: &str, schema: &Value, path: &str) {
        let length = text.chars().count() as i64;
        // What is wrong first is all that is told.
        if let Some(max) = schema.get("maxLength").as_i64().filter(|max| length > *max) {
            let detail = format!("may not be more than {max} bytes");
            self.push(path, Problem::TooLong, detail);
        } else if let Some(min) = schema.get("minLength").as_i64().filter(|min| length < *min) {
            self.invalid(path, text.into(), format!("should be at least {min} chars long"));
        } else if let Some(pattern) = schema.get("pattern").as_str() {
            let matches =
                self.patterns.get(pattern).and_then(Option::as_ref).is_some_and(|r| r.is_match(text));
            if !matches {
                self.invalid(path, text.into(), format!("should match '{pattern}'"));
            }
        }
    }

    fn format(&mut self, text: &str, schema: &Value, path: &str) {
        let format = schema.str_at(&["format"]);
        if !formats::fits(text, format) {
            let shown = api::field::go_quote(text);
            let detail = format!("{path} in body must be of type {format}: {shown}");
            self.push(path, Problem::TypeInvalid(text.into()), detail);
        }
    }

    fn number(&mut self, value: &Value, schema: &Value, path: &str) {
        let float = |v: &Value| match v {
            Value::Int(n) => Some(*n as f64),
            Value::Float(n) => Some(*n),
            _ => None,
        };
        let Some(n) = float(value) else { return };
        let (kind, format) = (schema.str_at(&["type"]), schema.str_at(&["format"]));
        if !in_range(value, kind, format) {
            let format =
                if format.is_empty() { "(default format)" } else { &format!("with format {format}") };
            self.composite(format!("Checked value must be of type {kind} {format} in {path}"));
        }
        // Integers are held against the integer part of a bound.
        let integer = matches!(value, Value::Int(_));
        let bound = |key: &str| float(schema.get(key)).map(|b| if integer { b.trunc() } else { b });
        let exclusive = |key: &str| schema.get(key) == &Value::Bool(true);
        match bound("multipleOf") {
            Some(step) if step <= 0.0 => {
                let detail =
                    format!("factor MultipleOf declared for {path} must be positive: {}", Value::Float(step));
                self.push(path, Problem::Invalid(Value::Float(step)), detail);
            }
            Some(step) if !is_integer(if step < 1.0 { 1.0 / step * n } else { n / step }) => {
                self.invalid(path, value.clone(), format!("should be a multiple of {}", Value::Float(step)));
            }
            _ => {}
        }
        if let Some(max) = bound("maximum") {
            let max_shown = Value::Float(max);
            if exclusive("exclusiveMaximum") {
                if n >= max {
                    self.invalid(path, value.clone(), format!("should be less than {max_shown}"));
                }
            } else if n > max {
                self.invalid(path, value.clone(), format!("should be less than or equal to {max_shown}"));
            }
        }
        if let Some(min) = bound("minimum") {
            let min_shown = Value::Float(min);
            if exclusive("exclusiveMinimum") {
                if n <= min {
                    self.invalid(path, value.clone(), format!("should be greater than {min_shown}"));
                }
            } else if n < min {
                self.invalid(path, value.clone(), format!("should be greater than or equal to {min_shown}"));
            }
        }
    }

    fn list(&mut self, items: &[Value], old: Option<&Value>, schema: &Value, path: &str) {
        for (i, item) in items.iter().enumerate() {
            self.visit(item, counterpart(old, item, schema), schema.get("items"), &format!("{path}[{i}]"));
        }
        let size = items.len() as i64;
        if let Some(min) = schema.get("minItems").as_i64().filter(|min| size < *min) {
            self.invalid(path, size.into(), format!("should have at least {min} items"));
        }
        if let Some(max) = schema.get("maxItems").as_i64().filter(|max| size > *max) {
            let word = if max == 1 { "item" } else { "items" };
            self.push(path, Problem::TooMany(size.into()), format!("must have at most {max} {word}"));
        }
        let again = || items.iter().enumerate().any(|(i, v)| items[..i].contains(v));
        if schema.get("uniqueItems") == &Value::Bool(true) && again() {
            self.invalid(path, "".into(), "shouldn't contain duplicates".into());
        }
    }

    fn object(&mut self, map: &api::Map, old: Option<&Value>, schema: &Value, path: &str) {
        let size = map.len() as i64;
        if let Some(min) = schema.get("minProperties").as_i64().filter(|min| size < *min) {
            self.invalid(path, size.into(), format!("should have at least {min} properties"));
        }
        if let Some(max) = schema.get("maxProperties").as_i64().filter(|max| size > *max) {
            let word = if max == 1 { "item" } else { "items" };
            self.push(path, Problem::TooMany(size.into()), format!("must have at most {max} {word}"));
        }
        let properties = schema.get("properties").as_object();
        for (name, value) in map.iter() {
            let inner = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let before = old.and_then(|o| o.as_object()?.get(name));
            match properties.and_then(|p| p.get(name)) {
                Some(of) => self.visit(value, before, of, &inner),
                None => self.visit(value, before, schema.get("additionalProperties"), &inner),
            }
        }
        for name in schema.array_at(&["required"]).iter().filter_map(Value::as_str) {
            if !map.contains_key(name) {
                self.push(&format!("{path}.{name}"), Problem::Required, String::new());
            }
        }
    }

    /// Checks one alternative apart.
    fn alone(&self, value: &Value, schema: &Value, path: &str) -> (Vec<FieldError>, usize) {
        let mut walker = Walker { patterns: self.patterns, errors: Vec::new(), matched: 0 };
        walker.visit(value, None, schema, path);
        (walker.errors, walker.matched)
    }

    /// A sentence about the whole object.
    fn composite(&mut self, text: String) {
        let problem = Problem::Invalid("".into());
        self.errors.push(FieldError { field: "<nil>".into(), problem, detail: text });
    }

    fn alternatives(&mut self, value: &Value, schema: &Value, path: &str) {
        let shown = api::field::go_quote(path);
        let results = |key: &str| -> Vec<(Vec<FieldError>, usize)> {
            schema.array_at(&[key]).iter().map(|s| self.alone(value, s, path)).collect()
        };
        let (any, one, all) = (results("anyOf"), results("oneOf"), results("allOf"));
        let closest = |results: &[(Vec<FieldError>, usize)]| {
            let mut best: Option<&(Vec<FieldError>, usize)> = None;
            for r in results {
                if best.is_none_or(|b| r.1 > b.1) {
                    best = Some(r);
                }
            }
            best.map(|r| r.0.clone()).unwrap_or_default()
        };
        if !any.is_empty() && !any.iter().any(|(e, _)| e.is_empty()) {
            self.composite(format!("{shown} must validate at least one schema (anyOf)"));
            self.errors.extend(closest(&any));
        }
        let valid = one.iter().filter(|(e, _)| e.is_empty()).count();
        if !one.is_empty() && valid != 1 {
            let more = match valid {
                0 => "Found none valid".to_owned(),
                n => format!("Found {n} valid alternatives"),
            };
            self.composite(format!("{shown} must validate one and only one schema (oneOf). {more}"));
            if valid == 0 {
                self.errors.extend(closest(&one));
            }
        }
        let valid = all.iter().filter(|(e, _)| e.is_empty()).count();
        if valid != all.len() {
            let more = if valid == 0 { ". None validated" } else { "" };
            all.iter().for_each(|(e, _)| self.errors.extend(e.iter().cloned()));
            self.composite(format!("{shown} must validate all the schemas (allOf){more}"));
        }
        let not = schema.get("not");
        if !not.is_null() && self.alone(value, not, path).0.is_empty() {
            self.composite(format!("{shown} must not validate the schema (not)"));
        }
    }
}
