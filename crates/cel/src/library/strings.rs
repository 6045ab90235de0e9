//! Text: the extension of cel-go in its second version.

use super::call::{Builtin, Call, fail, fits, list_fits, no_overload, text};
use super::regex::part;
use crate::value::{Outcome, Val};

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "charAt" => char_at,
        "lowerAscii" => |_, args| map(args, str::to_ascii_lowercase),
        "upperAscii" => |_, args| map(args, str::to_ascii_uppercase),
        "trim" => |_, args| match args {
            [Val::String(s)] => {
                let trimmed = s.trim();
                let start = trimmed.as_ptr() as usize - s.as_ptr() as usize;
                Ok(part(s, start..start + trimmed.len()))
            }
            _ => no_overload(),
        },
        "replace" => replace,
        "split" => split,
        "substring" => substring,
        "join" => join,
        "strings.quote" => |_, args| map(args, quote),
        "format" => super::format::format_call,
        "jsonpatch.escapeKey" => |_, args| map(args, |s| s.replace('~', "~0").replace('/', "~1")),
        _ => return None,
    })
}

fn map<'a>(args: &[Val<'a>], f: impl Fn(&str) -> String) -> Outcome<'a> {
    match args {
        [Val::String(s)] => text(f(s)),
        _ => no_overload(),
    }
}

fn out_of_range<'a>(at: i64) -> Outcome<'a> {
    fail(format!("index out of range: {at}"))
}

/// Where the character number `at` begins, the end counting as one.
fn offset(s: &str, at: i64) -> Option<usize> {
    let at = usize::try_from(at).ok()?;
    s.char_indices().map(|(i, _)| i).chain([s.len()]).nth(at)
}

fn char_at<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::String(s), Val::Int(at)] = args else { return no_overload() };
    match offset(s, *at) {
        Some(start) => Ok(part(s, start..start + s[start..].chars().next().map_or(0, char::len_utf8))),
        None => out_of_range(*at),
    }
}

fn substring<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (s, start, end) = match args {
        [Val::String(s), Val::Int(start)] => (s, *start, None),
        [Val::String(s), Val::Int(start), Val::Int(end)] => (s, *start, Some(*end)),
        _ => return no_overload(),
    };
    if let Some(end) = end
        && start > end
    {
        return fail(format!("invalid substring range. start: {start}, end: {end}"));
    }
    let Some(from) = offset(s, start) else { return out_of_range(start) };
    let to = match end {
        None => s.len(),
        Some(end) => match offset(s, end) {
            Some(to) => to,
            None => return out_of_range(end),
        },
    };
    Ok(part(s, from..to))
}

/// The number of the character where `wanted` is first found at or after the character `from`.
pub(crate) fn index_of<'a>(s: &str, wanted: &str, from: i64) -> Outcome<'a> {
    if wanted.is_empty() {
        return Ok(Val::Int(from));
    }
    if from < 0 {
        return out_of_range(from);
    }
    let found = offset(s, from).and_then(|start| s[start..].find(wanted).map(|i| start + i));
    Ok(Val::Int(found.map_or(-1, |at| s[..at].chars().count() as i64)))
}

/// The number of the character where `wanted` is last found at or before the character `from`.
pub(crate) fn last_index_of<'a>(s: &str, wanted: &str, from: Option<i64>) -> Outcome<'a> {
    let length = s.chars().count() as i64;
    if wanted.is_empty() {
        return Ok(Val::Int(from.unwrap_or(length)));
    }
    if s.len() < wanted.len() && from.is_none() {
        return Ok(Val::Int(-1));
    }
    let from = from.unwrap_or(length - 1);
    if from < 0 {
        return out_of_range(from);
    }
    if from >= length {
        return Ok(Val::Int(-1));
    }
    // What begins at or before the character `from` ends at or before this one.
    let end = offset(s, from + wanted.chars().count() as i64).unwrap_or(s.len());
    Ok(Val::Int(s[..end].rfind(wanted).map_or(-1, |at| s[..at].chars().count() as i64)))
}

fn replace<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (s, old, new, most) = match args {
        [Val::String(s), Val::String(old), Val::String(new)] => (s, old, new, usize::MAX),
        [Val::String(s), Val::String(old), Val::String(new), Val::Int(n)] => {
            (s, old, new, usize::try_from(*n).unwrap_or(usize::MAX))
        }
        _ => return no_overload(),
    };
    let places = s.matches(&**old).count().min(most);
    fits(s.len() + places.saturating_mul(new.len()))?;
    text(s.replacen(&**old, new, most))
}

fn split<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (s, separator, most) = match args {
        [Val::String(s), Val::String(separator)] => (s, separator, -1),
        [Val::String(s), Val::String(separator), Val::Int(n)] => (s, separator, *n),
        _ => return no_overload(),
    };
    if most == 0 {
        return Ok(Val::list(vec![]));
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut start = 0;
    let mut push = |range: std::ops::Range<usize>| parts.push(part(s, range));
    if separator.is_empty() {
        // Go splits between characters, and an empty text into nothing.
        for (n, (at, c)) in s.char_indices().enumerate() {
            if n + 1 == most {
                push(at..s.len());
                break;
            }
            push(at..at + c.len_utf8());
        }
        return Ok(Val::list(parts));
    }
    for (n, (at, found)) in s.match_indices(&**separator).enumerate() {
        if n + 1 >= most {
            break;
        }
        push(start..at);
        start = at + found.len();
    }
    push(start..s.len());
    Ok(Val::list(parts))
}

fn join<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let (list, separator) = match args {
        [Val::List(list)] => (list, ""),
        [Val::List(list), Val::String(separator)] => (list, &**separator),
        _ => return no_overload(),
    };
    list_fits(list.len())?;
    let mut out = String::new();
    for (n, item) in list.iter().enumerate() {
        let item = item?;
        let Val::String(item) = &item else { return fail(format!("join: invalid input: {item}")) };
        if n > 0 {
            out.push_str(separator);
        }
        out.push_str(item);
        fits(out.len())?;
    }
    text(out)
}

/// Text in quotes, with what cannot be seen escaped.
pub(crate) fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
