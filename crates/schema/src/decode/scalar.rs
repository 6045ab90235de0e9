//! Values without members: type checks and canonical forms.

use api::{Value, quantity::Quantity};
use compact_str::CompactString;

use crate::types::{Shape, Ty};

/// Why a value is not acceptable.
pub(crate) enum Error {
    /// Wrong JSON type, in Go's words: `number 1.5`.
    Type(String),
    /// Reported unless something else fails at once.
    Saved(String),
    /// Fails at once: a value's own parser refused it.
    Hard(String),
    /// The same, with the words for what came and what was wanted; the message names the place.
    Refused(String, &'static str),
}

/// Reads a value that is not null as a type that is neither struct, list nor map.
pub(crate) fn read(value: Value, ty: Ty<'_>) -> Result<Option<Value>, Error> {
    let value = match (ty.shape(), value) {
        (Shape::Raw | Shape::FieldsV1, value) => value,
        (Shape::String, value @ Value::String(_)) => value,
        (Shape::Bool, value @ Value::Bool(_)) => value,
        (Shape::Int64, value @ Value::Int(_)) => value,
        (Shape::Float, value @ (Value::Int(_) | Value::Float(_))) => value,
        (Shape::Int32, Value::Int(n)) if i32::try_from(n).is_ok() => Value::Int(n),
        (Shape::Int32 | Shape::Int64, n @ (Value::Int(_) | Value::Float(_))) => {
            return Err(Error::Type(format!("number {n}")));
        }
        (Shape::Bytes, Value::String(s)) => bytes(s)?,
        (Shape::Quantity, value) => quantity(value)?,
        (Shape::Time, value) => return time(value, false),
        (Shape::MicroTime, value) => return time(value, true),
        (Shape::Duration, Value::String(s)) => Value::String(duration(s)?),
        (Shape::Duration, value) => return Err(wrong(&value, "string")),
        (Shape::IntOrString, value) => int_or_string(value)?,
        (_, value) => return Err(Error::Type(value.kind_name().to_owned())),
    };
    Ok(Some(value))
}

/// A type that a value's own parser does not take.
fn wrong(value: &Value, want: &'static str) -> Error {
    let what = match value {
        Value::Int(_) | Value::Float(_) if want.starts_with("int") => format!("number {value}"),
        v => v.kind_name().to_owned(),
    };
    Error::Refused(what, want)
}

fn int_or_string(value: Value) -> Result<Value, Error> {
    match value {
        Value::Int(n) if i32::try_from(n).is_ok() => Ok(Value::Int(n)),
        value @ Value::String(_) => Ok(value),
        value => Err(wrong(&value, "int32")),
    }
}

fn quantity(value: Value) -> Result<Value, Error> {
    let text = match value {
        Value::String(s) => s,
        other => CompactString::from(other.to_string()),
    };
    let shown = api::quantity::shown(text.trim()).map_err(|e| Error::Hard(e.to_string()))?;
    Ok(Value::String(shown.into()))
}

/// Rounds an amount up to thousandths.
pub(crate) fn round_up(amount: &mut Value) {
    let parsed = amount.as_str().and_then(|text| text.parse::<Quantity>().ok());
    if let Some(rounded) = parsed.filter(|q| !q.is_in_millis()).map(|q| q.rounded_to_millis()) {
        *amount = rounded.to_string().into();
    }
}

/// Bytes as they are written in JSON.
pub(super) fn base64(bytes: &[u8]) -> Value {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes).into()
}

pub(super) fn time(value: Value, micro: bool) -> Result<Option<Value>, Error> {
    let Value::String(text) = &value else { return Err(wrong(&value, "string")) };
    if is_canonical_time(text, micro) {
        return Ok(Some(value));
    }
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let fits = !micro || has_micro(text);
    let Some(t) = rfc3339(text).filter(|_| fits).and_then(api::time::parse) else {
        return Err(Error::Hard(parse_error(text, layout)));
    };
    if t.as_second() == GO_ZERO_TIME {
        return Ok(None);
    }
    let text = if micro { api::time::format_micro(t) } else { api::time::format(t) };
    Ok(Some(text.into()))
}

/// True when the seconds have the six places that the layout asks for.
fn has_micro(text: &str) -> bool {
    let places = text.get(19..26).unwrap_or_default().strip_prefix('.');
    let after = text.as_bytes().get(26);
    places.is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit())) && !after.is_some_and(u8::is_ascii_digit)
}

/// `0001-01-01T00:00:00Z`: where Go's time is zero.
const GO_ZERO_TIME: i64 = -62_135_596_800;

/// Only what RFC 3339 allows; jiff's parser takes more.
fn rfc3339(text: &str) -> Option<&str> {
    let b = text.as_bytes();
    let shape =
        b.len() >= 20 && b[4] == b'-' && b[7] == b'-' && b[10] == b'T' && b[13] == b':' && b[16] == b':';
    let zone = shape && (text.ends_with('Z') || b.len() >= 25 && matches!(b[b.len() - 6], b'+' | b'-'));
    zone.then_some(text)
}

fn is_canonical_time(text: &str, micro: bool) -> bool {
    let b = text.as_bytes();
    let pattern: &[u8] = if micro { b"dddd-dd-ddTdd:dd:dd.ddddddZ" } else { b"dddd-dd-ddTdd:dd:ddZ" };
    b.len() == pattern.len()
        && b.iter().zip(pattern).all(|(b, p)| if *p == b'd' { b.is_ascii_digit() } else { b == p })
        && text < "3000"
        && text > "1000"
        && api::time::parse(text).is_some()
}

/// Go's message for a time that does not fit its layout: names the first part that does not.
fn parse_error(text: &str, layout: &str) -> String {
    const PARTS: [(&str, &str); 11] = [
        ("2006", "dddd"),
        ("-", "-"),
        ("01", "dd"),
        ("-", "-"),
        ("02", "dd"),
        ("T", "T"),
        ("15", "dd"),
        (":", ":"),
        ("04", "dd"),
        (":", ":"),
        ("05", "dd"),
    ];
    let mut rest = text;
    for (i, (part, pattern)) in PARTS.into_iter().enumerate() {
        let fits = rest.len() >= pattern.len()
            && rest
                .bytes()
                .zip(pattern.bytes())
                .all(|(b, p)| if p == b'd' { b.is_ascii_digit() } else { b == p });
        if !fits {
            return format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {part:?}");
        }
        let range = match i {
            2 => Some(("month", 1..=12)),
            6 => Some(("hour", 0..=23)),
            8 => Some(("minute", 0..=59)),
            10 => Some(("second", 0..=59)),
            _ => None,
        };
        if let Some((what, range)) = range
            && !rest[..2].parse::<u8>().is_ok_and(|n| range.contains(&n))
        {
            return format!("parsing time {text:?}: {what} out of range");
        }
        rest = &rest[pattern.len()..];
    }
    if layout.contains(".000000") {
        let places = rest.bytes().skip(1).take_while(u8::is_ascii_digit).count();
        if !rest.starts_with('.') || places < 6 {
            return format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as \".000000\"");
        }
        rest = &rest[7..];
    }
    let fraction = rest.strip_prefix('.').map_or(0, |r| 1 + r.bytes().take_while(u8::is_ascii_digit).count());
    let zone = if fraction > 1 { &rest[fraction..] } else { rest };
    if zone == "Z" || zone.starts_with(['+', '-']) && zone.len() == 6 {
        // All parts fit: the month has no such day.
        return format!("parsing time {text:?}: day out of range");
    }
    format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as \"Z07:00\"")
}

fn bytes(s: CompactString) -> Result<Value, Error> {
    let mut n = 0;
    let mut padding = 0;
    for (at, b) in s.bytes().enumerate() {
        let fine = match b {
            b'\r' | b'\n' => continue,
            b'=' => {
                padding += 1;
                n % 4 >= 2 && padding <= 2
            }
            _ => padding == 0 && (b.is_ascii_alphanumeric() || b == b'+' || b == b'/'),
        };
        if !fine {
            return Err(Error::Saved(format!("illegal base64 data at input byte {at}")));
        }
        n += 1;
    }
    if n % 4 != 0 {
        let at = s.len() - n % 4;
        return Err(Error::Saved(format!("illegal base64 data at input byte {at}")));
    }
    if s.contains(['\r', '\n']) {
        return Ok(Value::String(s.chars().filter(|c| !matches!(c, '\r' | '\n')).collect()));
    }
    Ok(Value::String(s))
}

/// A Go duration in its canonical form.
fn duration(s: CompactString) -> Result<CompactString, Error> {
    let nanos = parse_duration(&s)
        .ok_or_else(|| Error::Hard(format!("time: invalid duration {}", api::field::go_quote(&s))))?;
    Ok(format_duration(nanos).into())
}

const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Nanoseconds of a Go duration such as `1h2m3.5s`.
pub(crate) fn parse_duration(s: &str) -> Option<i64> {
    let (negative, mut rest) = match s.as_bytes().first()? {
        b'-' => (true, &s[1..]),
        b'+' => (false, &s[1..]),
        _ => (false, s),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0i64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let scale = UNITS.iter().find(|(u, _)| *u == unit)?.1;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(scale)?)?;
        if !fraction.is_empty() {
            let fraction: f64 = format!("0.{fraction}").parse().ok()?;
            total = total.checked_add((fraction * scale as f64) as i64)?;
        }
        rest = next;
    }
    Some(if negative { -total } else { total })
}

/// A Go duration as Go prints it.
pub(crate) fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let decimal = |n: u64, unit: u64| {
        let text = format!("{}.{:0width$}", n / unit, n % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match n {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{n}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(n, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(n, 1_000_000)),
        _ => {
            let (hours, minutes) = (n / 3_600_000_000_000, n / 60_000_000_000 % 60);
            let seconds = decimal(n % 60_000_000_000, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, m) => format!("{sign}{m}m{seconds}s"),
                (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
            }
        }
    }
}
