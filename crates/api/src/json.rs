//! Reading JSON into values, with the bounds and the findings an API server needs: depth is limited, and keys that
//! appear twice are reported with their paths (the last one wins, as in Go).

use std::cell::{Cell, RefCell};
use std::fmt;

use compact_str::CompactString;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::value::{Map, Value};

mod literal;

pub use literal::number_at;

/// How deep objects and arrays may nest; far more than any API type needs.
pub const MAX_DEPTH: usize = 200;

/// How many keys that appear twice are reported: as many as upstream tells of.
const MAX_DUPLICATES: usize = 100;

/// A decoded document and what was noticed on the way.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The document.
    pub value: Value,
    /// Keys that appeared more than once, in order of appearance.
    pub duplicates: Vec<Duplicate>,
    /// What a strict reader of a format other than JSON has to say.
    pub complaint: Option<String>,
    /// The document as it was sent, when it has numbers of which a value does not keep how they were written.
    pub source: Option<Box<[u8]>>,
}

/// A key that its object held already. Displayed as its path, such as `spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// Path of the object, empty for the document.
    pub parent: String,
    /// The key.
    pub key: CompactString,
    /// How many different keys of the object come before this appearance.
    pub position: usize,
}

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.parent.is_empty() { "" } else { "." };
        write!(f, "{}{dot}{}", self.parent, self.key)
    }
}

/// Reads one JSON document. Trailing bytes other than white space are an error.
pub fn decode(bytes: &[u8]) -> Result<Decoded, serde_json::Error> {
    let findings = Findings::default();
    let mut de = serde_json::Deserializer::from_slice(bytes);
    let value = Node { findings: Some(&findings), depth: 0 }.deserialize(&mut de)?;
    de.end()?;
    let source = findings.inexact.get().then(|| bytes.into());
    Ok(Decoded { value, duplicates: findings.duplicates.into_inner(), complaint: None, source })
}

/// Reads a value from any serde format, noticing nothing.
pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Value, D::Error> {
    Node { findings: None, depth: 0 }.deserialize(d)
}

/// Reads a value from any serde format (YAML, say) and reports keys that appear twice.
pub fn deserialize_with_findings<'de, D: Deserializer<'de>>(d: D) -> Result<Decoded, D::Error> {
    let findings = Findings::default();
    let value = Node { findings: Some(&findings), depth: 0 }.deserialize(d)?;
    Ok(Decoded { value, duplicates: findings.duplicates.into_inner(), ..Decoded::default() })
}

#[derive(Default)]
struct Findings {
    path: RefCell<Vec<Step>>,
    duplicates: RefCell<Vec<Duplicate>>,
    /// There are numbers that are no 64-bit integers.
    inexact: Cell<bool>,
}

/// One step of the way to a value in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// To the member of an object.
    Key(CompactString),
    /// To the item of an array.
    Index(usize),
}

impl Findings {
    fn report(&self, key: &CompactString, position: usize) {
        if self.duplicates.borrow().len() >= MAX_DUPLICATES {
            return;
        }
        let mut parent = String::new();
        for step in self.path.borrow().iter() {
            match step {
                Step::Key(k) if parent.is_empty() => parent.push_str(k),
                Step::Key(k) => parent = format!("{parent}.{k}"),
                Step::Index(i) => parent = format!("{parent}[{i}]"),
            }
        }
        self.duplicates.borrow_mut().push(Duplicate { parent, key: key.clone(), position });
    }
}

#[derive(Clone, Copy)]
struct Node<'f> {
    findings: Option<&'f Findings>,
    depth: usize,
}

impl<'f> Node<'f> {
    fn child<E: Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("exceeded max depth"));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn enter(self, step: impl FnOnce() -> Step) {
        if let Some(f) = self.findings {
            f.path.borrow_mut().push(step());
        }
    }

    fn inexact(self) {
        if let Some(f) = self.findings {
            f.inexact.set(true);
        }
    }

    fn leave(self) {
        if let Some(f) = self.findings {
            f.path.borrow_mut().pop();
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        self.deserialize(d)
    }
    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }
    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::Int(n))
    }
    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(i64::try_from(n).map_or_else(
            |_| {
                self.inexact();
                Value::Float(n as f64)
            },
            Value::Int,
        ))
    }
    fn visit_f64<E>(self, n: f64) -> Result<Value, E> {
        self.inexact();
        Ok(Value::Float(n))
    }
    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(Value::String(s.into()))
    }
    fn visit_string<E>(self, s: String) -> Result<Value, E> {
        Ok(Value::String(s.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let child = self.child()?;
        let mut items = Vec::new();
        loop {
            self.enter(|| Step::Index(items.len()));
            let item = seq.next_element_seed(child)?;
            self.leave();
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let child = self.child()?;
        let mut map = Map::new();
        // Large maps (a ConfigMap's data) would make the scan for duplicates quadratic.
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = members.next_key::<CompactString>()? {
            self.enter(|| Step::Key(key.clone()));
            let value = members.next_value_seed(child)?;
            self.leave();
            if map.len() == 16 {
                seen = map.keys().map(CompactString::from).collect();
            }
            let duplicate = if map.len() >= 16 { !seen.insert(key.clone()) } else { map.contains_key(&key) };
            if !duplicate {
                map.push(key, value);
                continue;
            }
            if let Some(f) = self.findings {
                f.report(&key, map.len());
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_duplicates_are_reported_as_anybody_is_told_of() {
        let text = format!("{{{}}}", vec![r#""a":1"#; 1000].join(","));
        assert_eq!(decode(text.as_bytes()).unwrap().duplicates.len(), MAX_DUPLICATES);
    }

    #[test]
    fn numbers_are_read_exactly() {
        for text in ["1.8446744473709559e+31", "0.1", "2.2250738585072014e-308"] {
            assert_eq!(String::from_utf8(decode(text.as_bytes()).unwrap().value.to_json()).unwrap(), text);
        }
    }

    #[test]
    fn duplicate_keys_are_reported_with_their_paths_and_the_last_wins() {
        let d = decode(br#"{"a":1,"a":2,"s":{"c":[{"n":1},{"n":2,"n":3}]}}"#).unwrap();
        let shown: Vec<String> = d.duplicates.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a", "s.c[1].n"]);
        assert_eq!(d.value.get("a"), &Value::Int(2));
    }

    #[test]
    fn duplicates_are_found_in_maps_of_any_size() {
        let members: Vec<String> = (0..40).map(|i| format!("\"k{}\":{i}", i % 30)).collect();
        let d = decode(format!("{{{}}}", members.join(",")).as_bytes()).unwrap();
        assert_eq!(d.duplicates.len(), 10);
        assert_eq!(d.value.as_object().unwrap().len(), 30);
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = "[".repeat(100_000);
        assert!(decode(deep.as_bytes()).is_err());
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert!(decode(b"{} x").is_err());
    }
}
