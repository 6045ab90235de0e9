//! Field paths and field errors: what validation reports, in the words of the Kubernetes API.
//!
//! A path is a linked list on the stack; its text is made only when there is an error to tell.

use std::fmt;

use crate::value::Value;

/// Where a value stands in an object: `spec.containers[0].ports[1].name`.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A path of one field of the object.
    pub const fn new(name: &'a str) -> Self {
        Self { parent: None, step: Step::Name(name) }
    }

    /// The field `name` of the object at this path. Name may hold dots: `child("spec.template")`.
    pub const fn child(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Name(name) }
    }

    /// The item `i` of the list at this path.
    pub const fn index(&'a self, i: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Index(i) }
    }

    /// The member `key` of the map at this path.
    pub const fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Name(n) if self.parent.is_some() && !n.is_empty() => write!(f, ".{n}"),
            Step::Name(n) => f.write_str(n),
            Step::Index(i) => write!(f, "[{i}]"),
            Step::Key(k) => write!(f, "[{k}]"),
        }
    }
}

/// What is wrong with a field. `reason` gives the cause's machine-readable word, `Display` the sentence.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// No value is given where one must be.
    Required,
    /// The value is not acceptable; it is quoted in the message.
    Invalid(Value),
    /// The object or list is not acceptable; it is not quoted.
    InvalidPart,
    /// The value is not one of the supported ones.
    NotSupported(Value),
    /// The value collides with another of the same list.
    Duplicate(Value),
    /// The object or list collides with another; it is not quoted.
    DuplicatePart,
    /// The value may not be set here.
    Forbidden,
    /// The value names something that does not exist.
    NotFound(Value),
    /// The value has more than so many bytes.
    TooLong,
    /// The list has more than so many items.
    TooMany(Value),
    /// The value has the wrong JSON type.
    TypeInvalid(Value),
    /// The server failed to check the value.
    Internal,
}

impl Problem {
    /// The `reason` of the cause in a `Status`.
    pub fn reason(&self) -> &'static str {
        match self {
            Problem::Required => "FieldValueRequired",
            Problem::Invalid(_) | Problem::InvalidPart => "FieldValueInvalid",
            Problem::NotSupported(_) => "FieldValueNotSupported",
            Problem::Duplicate(_) | Problem::DuplicatePart => "FieldValueDuplicate",
            Problem::Forbidden => "FieldValueForbidden",
            Problem::NotFound(_) => "FieldValueNotFound",
            Problem::TooLong => "FieldValueTooLong",
            Problem::TooMany(_) => "FieldValueTooMany",
            Problem::TypeInvalid(_) => "FieldValueTypeInvalid",
            Problem::Internal => "InternalError",
        }
    }
}

/// One field that did not pass validation.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The path, such as `spec.containers[0].name`.
    pub field: String,
    /// What is wrong.
    pub problem: Problem,
    /// More about it; may be empty.
    pub detail: String,
}

impl FieldError {
    /// An error with any problem.
    pub fn new(path: &Path<'_>, problem: Problem, detail: impl Into<String>) -> Self {
        Self { field: path.to_string(), problem, detail: detail.into() }
    }

    /// `field: Required value: detail`.
    pub fn required(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::new(path, Problem::Required, detail)
    }

    /// `field: Invalid value: value: detail`.
    pub fn invalid(path: &Path<'_>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(path, Problem::Invalid(value.into()), detail)
    }

    /// `field: Unsupported value: value: supported values: "a", "b"`, in the order given.
    pub fn not_supported(path: &Path<'_>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail =
            if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        Self::new(path, Problem::NotSupported(value.into()), detail)
    }

    /// `field: Duplicate value: value`.
    pub fn duplicate(path: &Path<'_>, value: impl Into<Value>) -> Self {
        Self::new(path, Problem::Duplicate(value.into()), "")
    }

    /// `field: Forbidden: detail`.
    pub fn forbidden(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::new(path, Problem::Forbidden, detail)
    }

    /// `field: Not found: value`.
    pub fn not_found(path: &Path<'_>, value: impl Into<Value>) -> Self {
        Self::new(path, Problem::NotFound(value.into()), "")
    }

    /// `field: Too long: may not be more than n bytes`.
    pub fn too_long(path: &Path<'_>, max: usize) -> Self {
        Self::new(path, Problem::TooLong, format!("may not be more than {max} bytes"))
    }

    /// `field: Too many: actual: must have at most n items`.
    pub fn too_many(path: &Path<'_>, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        Self::new(path, Problem::TooMany(actual.into()), format!("must have at most {max} {items}"))
    }

    /// The message without the field: what a `Status` cause says.
    pub fn body(&self) -> String {
        let (word, value) = match &self.problem {
            Problem::Required => ("Required value", None),
            Problem::Invalid(v) => ("Invalid value", Some(v)),
            Problem::InvalidPart => ("Invalid value", None),
            Problem::NotSupported(v) => ("Unsupported value", Some(v)),
            Problem::Duplicate(v) => ("Duplicate value", Some(v)),
            Problem::DuplicatePart => ("Duplicate value", None),
            Problem::Forbidden => ("Forbidden", None),
            Problem::NotFound(v) => ("Not found", Some(v)),
            Problem::TooLong => ("Too long", None),
            Problem::TooMany(v) => ("Too many", Some(v)),
            Problem::TypeInvalid(v) => ("Invalid value", Some(v)),
            Problem::Internal => ("Internal error", None),
        };
        let mut text = word.to_owned();
        if let Some(v) = value {
            text = format!("{text}: {}", quote(v));
        }
        if !self.detail.is_empty() {
            text = format!("{text}: {}", self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.body())
        } else {
            write!(f, "{}: {}", self.field, self.body())
        }
    }
}

/// A value as upstream's messages print it: strings quoted, numbers bare, everything else as JSON as Go writes it, with
/// what HTML would take for markup escaped.
fn quote(v: &Value) -> String {
    match v {
        Value::String(s) => go_quote(s),
        Value::Array(_) | Value::Object(_) => {
            v.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
        }
        other => other.to_string(),
    }
}

/// What is wrong, in one sentence: the finding, or a list of all in brackets, each once.
pub fn aggregate(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) }
}

/// Go's `%q`: like JSON, with non-printing characters escaped.
pub fn go_quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            '\u{80}'..='\u{9f}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_as_upstream() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let check = |e: FieldError, want: &str| assert_eq!(e.to_string(), want);
        check(FieldError::required(&containers, ""), "spec.containers: Required value");
        check(
            FieldError::invalid(&first.child("name"), "A", "must be lower case"),
            r#"spec.containers[0].name: Invalid value: "A": must be lower case"#,
        );
        check(
            FieldError::not_supported(&spec.child("restartPolicy"), "x", &["OnFailure", "Always", "Never"]),
            r#"spec.restartPolicy: Unsupported value: "x": supported values: "OnFailure", "Always", "Never""#,
        );
        check(
            FieldError::invalid(&spec, crate::object!({"rule": "a < b && c > d"}), "odd"),
            r#"spec: Invalid value: {"rule":"a \u003c b \u0026\u0026 c \u003e d"}: odd"#,
        );
        check(FieldError::duplicate(&first, 3), "spec.containers[0]: Duplicate value: 3");
    }
}
