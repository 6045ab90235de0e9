//! `fieldPath` of a rule: where in the value an error is reported.

use api::Value;

/// Splits a path such as `.spec['a.b'].c` into delimiters, quoted strings and names.
fn tokens(path: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let end = if first == '\'' {
            let bytes = rest.as_bytes();
            (1..bytes.len())
                .find(|i| bytes[*i] == b'\'' && bytes[*i - 1] != b'\\')
                .map_or(rest.len(), |i| i + 1)
        } else if matches!(first, '.' | '[' | ']') {
            1
        } else {
            rest.find(['.', '[', ']']).unwrap_or(rest.len())
        };
        tokens.push(&rest[..end]);
        rest = &rest[end..];
    }
    tokens
}

fn unescape(quoted: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some('a') => '\x07',
                Some('b') => '\x08',
                Some('f') => '\x0c',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('v') => '\x0b',
                Some('\'') => '\'',
                Some('\\') => '\\',
                Some(other) => return Err(format!("invalid string literal: invalid escape char \\{other}")),
                None => '\\',
            },
            c => c,
        };
        out.push(c);
    }
    Ok(out)
}

/// The path as errors show it; the error says why it leads nowhere in the schema.
pub(super) fn parse(path: &str, schema: &Value) -> Result<String, String> {
    follow(path, schema, true).map(|(shown, _)| shown)
}

/// The path as errors show it, and the schema of what it leads to. Without `brackets` it has names after dots alone.
pub(super) fn follow<'s>(
    path: &str,
    schema: &'s Value,
    brackets: bool,
) -> Result<(String, &'s Value), String> {
    let mut shown = String::new();
    let mut schema = schema;
    let mut tokens = tokens(path).into_iter();
    const END: &str = "unexpected end of JSON path";
    while let Some(token) = tokens.next() {
        let name = match token {
            "." => tokens.next().ok_or(END)?.to_owned(),
            "[" if !brackets => return Err("array notation is not allowed".into()),
            "[" => {
                let quoted = tokens.next().ok_or(END)?;
                let inner = quoted.strip_prefix('\'').and_then(|q| q.strip_suffix('\''));
                let inner = inner.filter(|_| quoted.len() > 1);
                unescape(inner.ok_or_else(|| format!("expected single quoted string but got {quoted}"))?)?
            }
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        const NOWHERE: &str = "does not refer to a valid field";
        if let Some(properties) = schema.get("properties").as_object() {
            schema = properties.get(&name).ok_or(NOWHERE)?;
            if !shown.is_empty() {
                shown.push('.');
            }
            shown.push_str(&name);
        } else if schema.get("additionalProperties").as_object().is_some() {
            schema = schema.get("additionalProperties");
            shown.push_str(&format!("[{name}]"));
        } else {
            return Err(NOWHERE.into());
        }
        if token == "[" {
            match tokens.next() {
                Some("]") => {}
                Some(other) => return Err(format!("expected ] but got {other}")),
                None => return Err(END.into()),
            }
        }
    }
    Ok((shown, schema))
}
