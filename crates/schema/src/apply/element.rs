//! One step of a field path.

use std::cmp::Ordering;
use std::fmt;

use api::Value;
use compact_str::CompactString;

/// One step of a field path. Ordered as upstream orders the members of a set.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    /// A member of an object: `f:name`.
    Field(CompactString),
    /// An item of a list, by its keys in the order of their names: `k:{"name":"x"}`.
    Key(Vec<(CompactString, Value)>),
    /// An item of a set: `v:"x"`.
    Value(Value),
    /// An item by its place: `i:0`.
    Index(i64),
}

impl Element {
    /// Reads the key of a `FieldsV1` object. None for a kind of element that is not known; an error if malformed.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        if text.len() < 2 {
            return Err("key must be 2 characters long:".into());
        }
        let json = |rest: &str| {
            api::json::decode(rest.as_bytes())
                .map(|d| d.value)
                .map_err(|e| format!("parsing key as path element: {e}"))
        };
        Ok(Some(match text.split_once(':') {
            Some(("f", rest)) => Element::Field(rest.into()),
            Some(("v", rest)) => Element::Value(json(rest)?),
            Some(("k", rest)) => match json(rest)? {
                Value::Object(keys) => {
                    let mut keys: Vec<_> = keys.into_iter().collect();
                    keys.sort_by(|a, b| a.0.cmp(&b.0));
                    Element::Key(keys)
                }
                _ => return Err(format!("parsing key as path element: {rest} is no object")),
            },
            Some(("i", rest)) => Element::Index(rest.parse().map_err(|e| format!("{rest}: {e}"))?),
            Some((kind, _)) if kind.len() == 1 => return Ok(None),
            _ => return Err(format!("missing colon: {text}")),
        }))
    }

    /// The key of a `FieldsV1` object.
    pub fn text(&self) -> CompactString {
        match self {
            Element::Field(name) => compact_str::format_compact!("f:{name}"),
            Element::Key(keys) => {
                let members: Vec<String> =
                    keys.iter().map(|(k, v)| format!("{}:{v}", Value::from(k.as_str()))).collect();
                compact_str::format_compact!("k:{{{}}}", members.join(","))
            }
            Element::Value(v) => compact_str::format_compact!("v:{v}"),
            Element::Index(i) => compact_str::format_compact!("i:{i}"),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        }
    }
}

impl Eq for Element {}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Element::Field(a), Element::Field(b)) => a.cmp(b),
            (Element::Key(a), Element::Key(b)) => compare_members(a.iter().map(|(k, v)| (k.as_str(), v)), b),
            (Element::Value(a), Element::Value(b)) => compare_values(a, b),
            (Element::Index(a), Element::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

fn compare_members<'a>(
    a: impl Iterator<Item = (&'a str, &'a Value)>,
    b: &[(CompactString, Value)],
) -> Ordering {
    let mut b = b.iter();
    for (name, value) in a {
        let Some((other, with)) = b.next() else { return Ordering::Greater };
        let order = name.cmp(other).then_with(|| compare_values(value, with));
        if order != Ordering::Equal {
            return order;
        }
    }
    if b.next().is_some() { Ordering::Less } else { Ordering::Equal }
}

/// Numbers, then strings, booleans, lists, maps, null.
fn compare_values(a: &Value, b: &Value) -> Ordering {
    let rank = |v: &Value| match v {
        Value::Float(_) | Value::Int(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::Int(a), Value::Float(b)) => (*a as f64).total_cmp(b),
        (Value::Float(a), Value::Int(b)) => a.total_cmp(&(*b as f64)),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let first = a.iter().zip(b).map(|(a, b)| compare_values(a, b)).find(|o| *o != Ordering::Equal);
            first.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let sorted = |m: &api::Map| {
                let mut v: Vec<(CompactString, Value)> =
                    m.iter().map(|(k, v)| (k.into(), v.clone())).collect();
                v.sort_by(|a, b| a.0.cmp(&b.0));
                v
            };
            compare_members(sorted(a).iter().map(|(k, v)| (k.as_str(), v)), &sorted(b))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// As in paths: `.name`, `[name="x"]`, `[="x"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(keys) => {
                let texts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "[{}]", texts.join(","))
            }
            Element::Value(v) => write!(f, "[={v}]"),
            Element::Index(i) => write!(f, "[{i}]"),
        }
    }
}
