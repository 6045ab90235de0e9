//! URLs, as Go reads them where a request names one: absolute, or a path from the root.

use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::call::{Builtin, Call, fail, no_overload, text};
use crate::value::map::Entries;
use crate::value::{Map, Outcome, Val};

/// The parts of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    user: Option<String>,
    host: String,
    /// The path, escaped.
    path: String,
    query: Option<String>,
    fragment: Option<String>,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.scheme.is_empty() {
            write!(f, "{}:", self.scheme)?;
        }
        if !self.host.is_empty() || self.user.is_some() || !self.scheme.is_empty() {
            f.write_str("//")?;
            if let Some(user) = &self.user {
                write!(f, "{user}@")?;
            }
            f.write_str(&self.host)?;
        }
        f.write_str(&self.path)?;
        if let Some(query) = &self.query {
            write!(f, "?{query}")?;
        }
        if let Some(fragment) = &self.fragment {
            write!(f, "#{fragment}")?;
        }
        Ok(())
    }
}

/// Reads a URL; the error is Go's message.
pub(crate) fn parse(raw: &str) -> Result<Url, String> {
    let wrap = |e: &str| format!("parse {raw:?}: {e}");
    if raw.chars().any(|c| c.is_ascii_control()) {
        return Err(wrap("net/url: invalid control character in URL"));
    }
    if raw.is_empty() {
        return Err(wrap("empty url"));
    }
    let (scheme, rest) = scheme(raw).map_err(wrap)?;
    let absolute = rest.starts_with('/');
    if !absolute && scheme.is_empty() {
        return Err(wrap("invalid URI for request"));
    }
    let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(r, f)| (r, Some(f.to_owned())));
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(r, q)| (r, Some(q.to_owned())));
    let mut url = Url {
        scheme: scheme.to_ascii_lowercase(),
        user: None,
        host: String::new(),
        path: rest.to_owned(),
        query,
        fragment,
    };
    if !absolute {
        // Opaque, such as `mailto:a@b`, which Go takes apart no further.
        return Ok(Url { path: String::new(), ..url });
    }
    let has_authority = rest.starts_with("//") && (!scheme.is_empty() || !rest.starts_with("///"));
    if has_authority {
        let rest = &rest[2..];
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, host) =
            authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u.to_owned()), h));
        check_host(host).map_err(|e| wrap(&e))?;
        url.user = user;
        url.host = decode(host).map_err(|e| wrap(&e))?;
        url.path = path.to_owned();
    }
    decode(&url.path).map_err(|e| wrap(&e))?;
    url.path = escape_path(&url.path);
    Ok(url)
}

fn scheme(raw: &str) -> Result<(&str, &str), &'static str> {
    let end = raw.find(|c: char| !c.is_ascii_alphabetic());
    let mut at = end.unwrap_or(raw.len());
    if at > 0 {
        at += raw[at..]
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
            .count();
    }
    match raw[at..].strip_prefix(':') {
        Some(_) if at == 0 => Err("missing protocol scheme"),
        Some(rest) => Ok((&raw[..at], rest)),
        None => Ok(("", raw)),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    let port = match host.strip_prefix('[') {
        Some(rest) => match rest.rsplit_once(']') {
            Some((_, port)) => port,
            None => return Err("missing ']' in host".into()),
        },
        None => host.rfind(':').map_or("", |at| &host[at..]),
    };
    let valid =
        port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    if !valid {
        return Err(format!("invalid port {port:?} after host"));
    }
    match host.chars().find(|c| matches!(c, ' ' | '<' | '>' | '"' | '^' | '`' | '{' | '}' | '|' | '\\')) {
        Some(c) => Err(format!("invalid character {:?} in host name", c.to_string())),
        None => Ok(()),
    }
}

/// Decodes escapes; text that breaks one off is refused.
fn decode(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        let hex = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_hexdigit);
        if !hex(at + 1) || !hex(at + 2) {
            let broken: String = text[at..].chars().take(3).collect();
            return Err(format!("invalid URL escape {broken:?}"));
        }
    }
    Ok(percent_decode_str(text).decode_utf8_lossy().into_owned())
}

/// A path with everything escaped that Go escapes.
fn escape_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(b)),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@'
            | b'%' => {
                out.push(char::from(b));
            }
            b'!' | b'\'' | b'(' | b')' | b'*' | b'[' | b']' => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

impl Url {
    fn port_at(&self) -> Option<usize> {
        self.host.rfind(':').filter(|at| !self.host[*at..].contains(']'))
    }

    fn hostname(&self) -> &str {
        let host = self.port_at().map_or(self.host.as_str(), |at| &self.host[..at]);
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    fn port(&self) -> &str {
        self.port_at().map_or("", |at| &self.host[at + 1..])
    }

    fn query_values(&self) -> Vec<(String, Vec<String>)> {
        let mut found: Vec<(String, Vec<String>)> = Vec::new();
        for pair in self.query.as_deref().unwrap_or_default().split('&') {
            // Go leaves out what it cannot read.
            if pair.is_empty() || pair.contains(';') {
                continue;
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Ok(key), Ok(value)) = (decode(&key.replace('+', " ")), decode(&value.replace('+', " ")))
            else {
                continue;
            };
            match found.iter_mut().find(|(k, _)| *k == key) {
                Some((_, values)) => values.push(value),
                None => found.push((key, vec![value])),
            }
        }
        found
    }
}

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "url" => |_, args| match args {
            [Val::String(s)] => match parse(s) {
                Ok(url) => Ok(Val::Url(Arc::new(url))),
                Err(e) => fail(format!("URL parse error during conversion from string: {e}")),
            },
            _ => no_overload(),
        },
        "isURL" => |_, args| match args {
            [Val::String(s)] => Ok(Val::Bool(parse(s).is_ok())),
            _ => no_overload(),
        },
        "getScheme" => |_, args| part(args, |u| &u.scheme),
        "getHost" => |_, args| part(args, |u| &u.host),
        "getHostname" => |_, args| part(args, Url::hostname),
        "getPort" => |_, args| part(args, Url::port),
        "getEscapedPath" => |_, args| part(args, |u| &u.path),
        "getQuery" => query,
        _ => return None,
    })
}

fn part<'a>(args: &[Val<'a>], of: fn(&Url) -> &str) -> Outcome<'a> {
    match args {
        [Val::Url(url)] => text(of(url)),
        _ => no_overload(),
    }
}

fn query<'a>(_: &mut Call<'_>, args: &[Val<'a>]) -> Outcome<'a> {
    let [Val::Url(url)] = args else { return no_overload() };
    let mut entries = Entries::default();
    for (key, values) in url.query_values() {
        entries.insert(Val::string(key), Val::list(values.into_iter().map(Val::string).collect()))?;
    }
    Ok(Val::Map(Map::new(entries)))
}
