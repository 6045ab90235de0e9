//! Regular expressions: linear in time, and limited in size.

use ::regex::{Error, Regex, RegexBuilder};

use super::call::{Builtin, Call, fail, no_overload};
use crate::value::{Outcome, Text, Val};

/// Largest compiled pattern, in bytes.
const MAX_COMPILED: usize = 1 << 20;
/// Deepest nesting of groups.
const MAX_NESTING: u32 = 200;

/// Compiles a pattern.
pub(crate) fn compile(pattern: &str) -> Result<Regex, Error> {
    // Go's `\z` is the end of the text there and here; `\Q..\E` and `\C` are not known here.
    RegexBuilder::new(pattern).size_limit(MAX_COMPILED).nest_limit(MAX_NESTING).build()
}

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "matches" => |call, args| dynamic(call, "matches", "error parsing regexp", args),
        "find" => |call, args| dynamic(call, "find", "Illegal regex", args),
        "findAll" => |call, args| dynamic(call, "findAll", "Illegal regex", args),
        _ => return None,
    })
}

/// The same functions with a pattern that has been compiled already.
pub(crate) fn with_pattern<'a>(name: &str, regex: &Regex, args: &[Val<'a>]) -> Outcome<'a> {
    match (name, args) {
        ("matches", [Val::String(text), _]) => Ok(Val::Bool(regex.is_match(text))),
        ("find", [Val::String(text), _]) => Ok(part(text, regex.find(text).map_or(0..0, |m| m.range()))),
        ("findAll", [Val::String(text), _]) => Ok(found(regex, text, usize::MAX)),
        ("findAll", [Val::String(text), _, Val::Int(n)]) => {
            Ok(found(regex, text, usize::try_from(*n).unwrap_or(usize::MAX)))
        }
        _ => no_overload(),
    }
}

fn found<'a>(regex: &Regex, text: &Text<'a>, most: usize) -> Val<'a> {
    Val::list(regex.find_iter(text).take(most).map(|m| part(text, m.range())).collect())
}

/// A part of a text, borrowed if the text is.
pub(crate) fn part<'a>(text: &Text<'a>, range: std::ops::Range<usize>) -> Val<'a> {
    match text {
        Text::Borrowed(text) => Val::String(Text::Borrowed(&text[range])),
        Text::Shared(text) => Val::string(&text[range]),
    }
}

fn dynamic<'a>(call: &mut Call<'_>, name: &str, complaint: &str, args: &[Val<'a>]) -> Outcome<'a> {
    let Some(Val::String(pattern)) = args.get(1) else { return no_overload() };
    match call.pattern(pattern) {
        Ok(regex) => with_pattern(name, &regex, args),
        Err(e) => fail(format!("{complaint}: {e}")),
    }
}
