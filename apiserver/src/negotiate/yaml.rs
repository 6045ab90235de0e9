//! Bodies in YAML. Of a key that stands twice the last one wins; a strict reader complains in the words of Go's.

use std::collections::HashSet;
use std::fmt;

use api::error::{ApiError, Result};
use api::json::Decoded;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error, Spanned};

mod words;

/// How deep mappings and sequences may nest: as deep as in JSON.
const MAX_DEPTH: usize = 127;

/// Reads a YAML body.
pub fn yaml(body: &[u8]) -> Result<Decoded> {
    read_body(body).map_err(|why| match std::str::from_utf8(body) {
        Ok(_) => ApiError::bad_request(format!("error converting YAML to JSON: {why}")),
        Err(_) => ApiError::bad_request(why),
    })
}

/// Reads a YAML body; the error is a sentence in one line.
pub(super) fn read_body(body: &[u8]) -> std::result::Result<Decoded, String> {
    let text = std::str::from_utf8(body).map_err(|_| "yaml: invalid UTF-8".to_owned())?;
    if text.contains(|c: char| c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return Err("yaml: control characters are not allowed".to_owned());
    }
    let text = first_document(text);
    let refuse = |e: Error| words::of(&e.to_string(), text);
    let decoded: Document = read(text).map_err(refuse)?;
    let Document(Decoded { value, duplicates, .. }) = decoded;
    let complaint = if duplicates.is_empty() { None } else { complaint(text).map_err(refuse)? };
    Ok(Decoded { value, complaint, ..Decoded::default() })
}

/// What comes before anything that would begin a second document, which nobody reads.
fn first_document(text: &str) -> &str {
    let Err(error) = read::<serde::de::IgnoredAny>(text) else { return text };
    let told = error.to_string();
    if !told.contains("<document start>") {
        return text;
    }
    let end = words::place(&told).and_then(|(line, column)| words::offset(text, line, column));
    end.map_or(text, |end| &text[..end])
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> std::result::Result<T, Error> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
    };
    serde_saphyr::from_str_with_options(text, options)
}

struct Document(Decoded);

impl<'de> serde::Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        api::json::deserialize_with_findings(d).map(Document)
    }
}

/// The keys that stand twice with their lines.
fn complaint(text: &str) -> std::result::Result<Option<String>, Error> {
    let Repeated(lines) = read(text)?;
    if lines.is_empty() {
        return Ok(None);
    }
    let lines: Vec<String> =
        lines.iter().map(|(line, key)| format!("  line {line}: key {key:?} already set in map")).collect();
    Ok(Some(format!("yaml: unmarshal errors:\n{}", lines.join("\n"))))
}

/// Lines and names of keys that their mapping holds already.
#[derive(Default)]
struct Repeated(Vec<(u64, String)>);

impl<'de> serde::Deserialize<'de> for Repeated {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let mut found = Repeated::default();
        d.deserialize_any(Walk(&mut found))?;
        Ok(found)
    }
}

struct Walk<'r>(&'r mut Repeated);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_none<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> std::result::Result<(), D::Error> {
        d.deserialize_any(self)
    }
    fn visit_bool<E>(self, _: bool) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> std::result::Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        while items.next_element_seed(Walk(&mut *self.0))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> std::result::Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = members.next_key::<Spanned<String>>()? {
            if seen.contains(&key.value) {
                self.0.0.push((key.referenced.line(), key.value));
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            seen.insert(key.value);
            members.next_value_seed(Walk(&mut *self.0))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_keys_are_named_with_their_lines_and_the_last_wins() {
        let read =
            yaml(b"a: 1\nspec:\n  foo: foo1\n  foo: foo2\n  bar:\n  - x: 1\n    x: 2\na: 3\n").unwrap();
        assert_eq!(read.value.to_json(), br#"{"a":3,"spec":{"foo":"foo2","bar":[{"x":2}]}}"#);
        assert!(read.duplicates.is_empty());
        let expected = "yaml: unmarshal errors:\n  line 4: key \"foo\" already set in map\n  line 7: key \"x\" already set in map\n  line 8: key \"a\" already set in map";
        assert_eq!(read.complaint.as_deref(), Some(expected));
        assert_eq!(yaml(b"a: 1\nb: {c: 2}\n").unwrap().complaint, None);
        assert!(yaml(b"a: [").is_err());
        assert!(yaml(b"\xff").is_err());
    }
}
