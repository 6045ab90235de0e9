//! Semantic versions.

use std::sync::Arc;

use semver::Version;

use super::call::{Builtin, fail, no_overload};
use crate::value::{Outcome, Val};

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "semver" => |_, args| match read(args)? {
            Ok(version) => Ok(Val::Semver(Arc::new(version))),
            Err(e) => fail(e),
        },
        "isSemver" => |_, args| read(args).map(|v| Val::Bool(v.is_ok())),
        "major" => |_, args| part(args, |v| v.major),
        "minor" => |_, args| part(args, |v| v.minor),
        "patch" => |_, args| part(args, |v| v.patch),
        _ => return None,
    })
}

fn part<'a>(args: &[Val<'a>], of: fn(&Version) -> u64) -> Outcome<'a> {
    match args {
        [Val::Semver(v)] => Ok(Val::Int(of(v) as i64)),
        _ => no_overload(),
    }
}

type Read = Result<Version, String>;

fn read(args: &[Val<'_>]) -> Result<Read, crate::value::EvalError> {
    match args {
        [Val::String(s)] | [Val::String(s), Val::Bool(false)] => Ok(parse(s)),
        [Val::String(s), Val::Bool(true)] => Ok(normalize(s).and_then(|s| parse(&s))),
        _ => Err(crate::value::EvalError::no_overload()),
    }
}

/// The messages are those of the library that upstream uses.
fn parse(text: &str) -> Read {
    if text.is_empty() {
        return Err("Version string empty".into());
    }
    if text.splitn(3, '.').count() != 3 {
        return Err("No Major.Minor.Patch elements found".into());
    }
    Version::parse(text).map_err(|e| e.to_string())
}

/// Without a leading `v` and leading zeros, and with all three numbers.
fn normalize(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text
        .splitn(3, '.')
        .map(|part| {
            if part.len() < 2 {
                return part.to_owned();
            }
            let trimmed = part.trim_start_matches('0');
            let zero = if trimmed.starts_with(|c: char| c.is_ascii_digit()) { "" } else { "0" };
            format!("{zero}{trimmed}")
        })
        .collect();
    if parts.len() < 3 {
        if parts.last().is_some_and(|p| p.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".into());
        }
        parts.resize(3, "0".to_owned());
    }
    Ok(parts.join("."))
}
