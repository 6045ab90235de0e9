//! Regular expressions: linear in time, and limited in size.

use ::regex::{Error, Regex, RegexBuilder};
use regex_syntax::ast::ErrorKind;

use super::call::{Builtin, Call, fail, no_overload};
use crate::value::{Outcome, Text, Val};

/// Largest compiled pattern, in bytes.
const MAX_COMPILED: usize = 1 << 20;
/// Deepest nesting of groups.
const MAX_NESTING: u32 = 200;

/// Compiles a pattern; the error is Go's message.
/// What is wrong with a pattern, in the words of Go.
pub fn pattern_error(pattern: &str) -> Option<String> {
    compile(pattern).err()
}

pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    // Go's `\z` is the end of the text there and here; `\Q..\E` and `\C` are not known here.
    if let Some(doubled) = nested_repetition(pattern) {
        return Err(format!("error parsing regexp: invalid nested repetition operator: `{doubled}`"));
    }
    RegexBuilder::new(pattern)
        .size_limit(MAX_COMPILED)
        .nest_limit(MAX_NESTING)
        .build()
        .map_err(|e| complaint(pattern, &e))
}

fn complaint(pattern: &str, error: &Error) -> String {
    let found = match regex_syntax::ast::parse::Parser::new().parse(pattern) {
        Ok(_) => None,
        Err(e) => {
            let rest = pattern.get(e.span().start.offset..).unwrap_or_default().to_owned();
            match e.kind() {
                ErrorKind::GroupUnopened => Some(("unexpected )", pattern.to_owned())),
                ErrorKind::GroupUnclosed => Some(("missing closing )", pattern.to_owned())),
                ErrorKind::ClassUnclosed => Some(("missing closing ]", rest)),
                ErrorKind::RepetitionMissing => {
                    Some(("missing argument to repetition operator", rest.chars().take(1).collect()))
                }
                ErrorKind::EscapeUnexpectedEof => {
                    Some(("trailing backslash at end of expression", String::new()))
                }
                ErrorKind::EscapeUnrecognized => {
                    Some(("invalid escape sequence", rest.chars().take(2).collect()))
                }
                _ => None,
            }
        }
    };
    match found {
        Some((message, part)) => format!("error parsing regexp: {message}: `{part}`"),
        None => format!("error parsing regexp: {error}"),
    }
}

/// Repetitions of repetitions, such as `x++`, which Go refuses and `regex` takes.
fn nested_repetition(pattern: &str) -> Option<&str> {
    let bytes = pattern.as_bytes();
    let (mut at, mut class, mut repeated) = (0, false, None);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'\\' => (at, repeated) = (at + 2, None),
            b'[' if !class => {
                class = true;
                // A bracket that comes first is a member.
                at += 1 + usize::from(bytes.get(at + 1) == Some(&b'^'));
                at += usize::from(bytes.get(at) == Some(&b']'));
                repeated = None;
            }
            b']' if class => (at, class, repeated) = (at + 1, false, None),
            b'*' | b'+' | b'?' if !class => {
                if let Some(first) = repeated {
                    return pattern.get(first..start + 1);
                }
                at += 1 + usize::from(bytes.get(at + 1) == Some(&b'?'));
                repeated = (start > 0 && !matches!(bytes[start - 1], b'(' | b'|')).then_some(start);
            }
            _ => (at, repeated) = (at + 1, None),
        }
    }
    None
}

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "matches" => |call, args| dynamic(call, "matches", "", args),
        "find" => |call, args| dynamic(call, "find", "Illegal regex: ", args),
        "findAll" => |call, args| dynamic(call, "findAll", "Illegal regex: ", args),
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
        Err(e) => fail(format!("{complaint}{e}")),
    }
}
