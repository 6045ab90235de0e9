//! What the documents say about types and fields.

use std::collections::HashMap;
use std::io::Read as _;

static PACKED: &[u8] = include_bytes!("../../data/descriptions.txt.gz");

/// Descriptions by type and field.
pub(super) struct Descriptions {
    text: String,
    /// Where each type's lines begin.
    types: HashMap<String, usize>,
}

impl Descriptions {
    pub(super) fn load() -> Self {
        let mut text = String::new();
        flate2::read::GzDecoder::new(PACKED)
            .read_to_string(&mut text)
            .expect("packed when the data was made");
        let mut types = HashMap::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if let Some((name, _)) = line.split_once('\t').filter(|(name, _)| !name.is_empty()) {
                types.insert(name.to_owned(), at);
            }
            at += line.len();
        }
        Self { text, types }
    }

    /// About a type, by its name with package.
    pub(super) fn of_type(&self, name: &str) -> Option<String> {
        let line = self.text[*self.types.get(name)?..].lines().next()?;
        line.split_once('\t').map(|(_, text)| unescape(text)).filter(|t| !t.is_empty())
    }

    /// About a field of a type.
    pub(super) fn of_field(&self, name: &str, field: &str) -> Option<String> {
        let lines = self.text[*self.types.get(name)?..].lines().skip(1);
        let mut fields = lines.map_while(|l| l.strip_prefix('\t')?.split_once('\t'));
        fields.find(|(name, _)| *name == field).map(|(_, text)| unescape(text))
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}
