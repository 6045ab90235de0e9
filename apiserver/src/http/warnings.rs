//! What a client is told besides the answer.

use std::sync::Arc;

use http::header::WARNING;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;

/// Most characters of all warnings of an answer, beyond which each is cut short.
const ALL: usize = 4096;
/// Most characters of a warning that is cut short.
const EACH: usize = 256;

/// Sentences for the `Warning` headers of an answer; clones share them.
#[derive(Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a sentence, once. What cannot be shown, as it is empty or has control characters or comes too late, is
    /// dropped.
    pub fn add(&self, text: String) {
        let mut warnings = self.0.lock();
        let fits = !text.is_empty() && !text.contains(char::is_control) && warnings.len() < ALL;
        if fits && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Writes the headers.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        for text in shown(&self.0.lock()) {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(header) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
                headers.append(WARNING, header);
            }
        }
    }
}

fn shown(warnings: &[String]) -> Vec<String> {
    if warnings.iter().map(|text| text.chars().count()).sum::<usize>() <= ALL {
        return warnings.to_vec();
    }
    let mut written = 0;
    let mut short = Vec::new();
    for text in warnings {
        if written >= ALL {
            break;
        }
        let text: String = text.chars().take(EACH).collect();
        written += text.chars().count();
        short.push(text);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_few_and_short() {
        let check = |texts: Vec<String>, want: &[usize]| {
            let warnings = Warnings::default();
            texts.into_iter().for_each(|text| warnings.add(text));
            let mut headers = HeaderMap::new();
            warnings.write(&mut headers);
            let got: Vec<usize> =
                headers.get_all(WARNING).iter().map(|v| v.len() - "299 - \"\"".len()).collect();
            assert_eq!(got, want);
        };
        check(vec!["a".to_owned(), "a".to_owned(), "b\nc".to_owned(), "\u{e9}".to_owned()], &[1, 2]);
        check(vec!["x".repeat(4096)], &[4096]);
        check(vec!["x".repeat(4097), "y".to_owned()], &[256, 1]);
        check((0..100).map(|n| format!("{n:03}{}", "z".repeat(997))).collect(), &[256; 16]);
    }
}
