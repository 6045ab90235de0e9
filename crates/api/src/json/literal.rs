//! How a number was written, for messages that quote it.

use std::fmt;

use compact_str::CompactString;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Step;

/// The text of what stands at `path` in a JSON document; none when there is nothing.
pub fn number_at(source: &[u8], path: &[Step]) -> Option<String> {
    let mut de = serde_json::Deserializer::from_slice(source);
    Seek(path).deserialize(&mut de).ok()?
}

/// Looks for the value at the end of a path.
struct Seek<'p>(&'p [Step]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Option<String>, D::Error> {
        if self.0.is_empty() {
            let found: Box<RawValue> = serde::Deserialize::deserialize(d)?;
            return Ok(Some(found.get().to_owned()));
        }
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Option<String>, A::Error> {
        let mut found = None;
        while let Some(key) = members.next_key::<CompactString>()? {
            match self.0 {
                [Step::Key(wanted), rest @ ..] if *wanted == key => {
                    found = members.next_value_seed(Seek(rest))?;
                }
                _ => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<String>, A::Error> {
        let mut found = None;
        for i in 0.. {
            match self.0 {
                [Step::Index(wanted), rest @ ..] if *wanted == i => {
                    match items.next_element_seed(Seek(rest))? {
                        Some(item) => found = item,
                        None => break,
                    }
                }
                _ if items.next_element::<IgnoredAny>()?.is_none() => break,
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_as_they_were_written() {
        let document = br#"{"a":{"b":[1,2.50,{"c":9223372036854775808}]},"a.b":1}"#;
        let at = |path: &[Step]| number_at(document, path);
        let (a, b) = (Step::Key("a".into()), Step::Key("b".into()));
        assert_eq!(at(&[a.clone(), b.clone(), Step::Index(1)]).as_deref(), Some("2.50"));
        let deep = [a.clone(), b.clone(), Step::Index(2), Step::Key("c".into())];
        assert_eq!(at(&deep).as_deref(), Some("9223372036854775808"));
        assert_eq!(at(&[a, b, Step::Index(7)]), None);
    }
}
