//! How the names of members are written in expressions, where not every name can stand.
//!
//! Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules>.

use std::borrow::Cow;

use crate::parser::is_reserved;

const SYMBOLS: [(&str, &str); 4] = [("__", "underscores"), (".", "dot"), ("-", "dash"), ("/", "slash")];

/// How a word that cannot be a variable is escaped.
pub(crate) fn reserved(word: &str) -> Option<String> {
    is_reserved(word).then(|| format!("__{word}__"))
}

/// The name of the member `name` in expressions; none when it cannot be named.
pub fn escape(name: &str) -> Option<Cow<'_, str>> {
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        return None;
    }
    if let Some(escaped) = reserved(name) {
        return Some(escaped.into());
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/')) {
        return None;
    }
    if !name.contains("__") && !name.contains(['-', '.', '/']) {
        return Some(name.into());
    }
    let mut out = String::with_capacity(name.len() + 16);
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        match SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
            Some((symbol, word)) => {
                out.push_str("__");
                out.push_str(word);
                out.push_str("__");
                rest = &rest[symbol.len()..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Some(out.into())
}

/// The member that an expression names; none when no member has that name.
pub fn unescape(escaped: &str) -> Option<Cow<'_, str>> {
    let mut out = String::new();
    let mut rest = escaped;
    while let Some(start) = rest.find("__") {
        let after = &rest[start + 2..];
        let Some(length) = after.find('_').filter(|n| *n > 0 && after[*n..].starts_with("__")) else {
            // Not a word between double underscores: what is up to the next candidate stays as it is.
            let keep = start + 1;
            out.push_str(&rest[..keep]);
            rest = &rest[keep..];
            continue;
        };
        let word = &after[..length];
        out.push_str(&rest[..start]);
        match SYMBOLS.iter().find(|(_, w)| *w == word) {
            Some((symbol, _)) => out.push_str(symbol),
            None if is_reserved(word) && word.len() + 4 == escaped.len() => out.push_str(word),
            None => return None,
        }
        rest = &after[length + 2..];
    }
    if out.is_empty() && rest.len() == escaped.len() {
        return Some(escaped.into());
    }
    out.push_str(rest);
    Some(out.into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_escaped_and_back() {
        for (name, escaped) in [
            ("a", "a"),
            ("a_b", "a_b"),
            ("namespace", "__namespace__"),
            ("a-b", "a__dash__b"),
            ("a.b/c", "a__dot__b__slash__c"),
            ("a__b", "a__underscores__b"),
            ("___", "__underscores___"),
            ("x-namespace", "x__dash__namespace"),
        ] {
            assert_eq!(super::escape(name).as_deref(), Some(escaped));
            assert_eq!(super::unescape(escaped).as_deref(), Some(name), "{escaped}");
        }
        for name in ["", "1a", "a b", "a$", "\u{e9}"] {
            assert_eq!(super::escape(name), None, "{name}");
        }
        for escaped in ["__foo__", "a__namespace__", "__namespace__a"] {
            assert_eq!(super::unescape(escaped), None, "{escaped}");
        }
        assert_eq!(super::unescape("a__b").as_deref(), Some("a__b"));
    }
}
