//! What a string or bytes token stands for.

/// The value of a string token (`bytes` false) or of a bytes token without its `b`; the error is cel-go's message.
pub(crate) fn unescape(token: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    let token = token.replace("\r\n", "\n").replace('\r', "\n");
    let (raw, quoted) = match token.strip_prefix(['r', 'R']) {
        Some(rest) => (true, rest),
        None => (false, token.as_str()),
    };
    let width =
        if quoted.len() >= 6 && (quoted.starts_with("'''") || quoted.starts_with("\"\"\"")) { 3 } else { 1 };
    let inner = quoted.get(width..quoted.len().saturating_sub(width)).ok_or("unable to unescape string")?;
    if raw || !inner.contains('\\') {
        return Ok(inner.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let kind = chars.next().ok_or("unable to unescape string, found '\\' as last character")?;
        let simple = match kind {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' | '\'' | '"' | '`' | '?' => kind as u8,
            'x' | 'X' | 'u' | 'U' | '0'..='3' => {
                push_number(kind, &mut chars, bytes, &mut out)?;
                continue;
            }
            _ => return Err("unable to unescape string"),
        };
        out.push(simple);
    }
    Ok(out)
}

fn push_number(
    kind: char,
    chars: &mut std::str::Chars<'_>,
    bytes: bool,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let (digits, radix, mut number) = match kind {
        'x' | 'X' => (2, 16, 0),
        'u' | 'U' if bytes => return Err("unable to unescape string"),
        'u' => (4, 16, 0),
        'U' => (8, 16, 0),
        octal => (2, 8, octal.to_digit(8).unwrap_or(0)),
    };
    for _ in 0..digits {
        let digit = chars.next().and_then(|c| c.to_digit(radix));
        number = (number << radix.trailing_zeros()) | digit.ok_or("unable to unescape string")?;
    }
    if bytes {
        out.push(number as u8);
    } else {
        let c = char::from_u32(number).ok_or("invalid unicode code point")?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(())
}
