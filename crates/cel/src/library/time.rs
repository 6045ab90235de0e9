//! Points and spans of time, written as Go writes them.

use jiff::Timestamp;

/// The first and the last second that the language knows: the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The time `seconds` after 1970, within the years 1 to 9999.
pub(crate) fn from_unix(seconds: i64) -> Option<Timestamp> {
    SECONDS.contains(&seconds).then(|| Timestamp::from_second(seconds).ok()).flatten()
}

/// True for times within the years 1 to 9999.
pub(crate) fn in_range(t: Timestamp) -> bool {
    let floor = t.as_second() - i64::from(t.subsec_nanosecond() < 0);
    SECONDS.contains(&floor)
}

/// Reads RFC 3339, strictly: `2006-01-02T15:04:05.999Z`.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let digits =
        |from: usize, to: usize| bytes.get(from..to).is_some_and(|d| d.iter().all(u8::is_ascii_digit));
    let shape = digits(0, 4)
        && digits(5, 7)
        && digits(8, 10)
        && digits(11, 13)
        && digits(14, 16)
        && digits(17, 19)
        && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')].iter().all(|(at, c)| bytes[*at] == *c)
        && bytes[17..19] != *b"60";
    let rest = bytes.get(19..)?;
    let fraction = match rest.first() {
        Some(b'.' | b',') => 1 + rest[1..].iter().take_while(|b| b.is_ascii_digit()).count(),
        _ => 0,
    };
    let zone = rest.get(fraction..)?;
    let zone_fits = match zone {
        b"Z" => true,
        [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].iter().all(|d| d.is_ascii_digit()),
        _ => false,
    };
    if !shape || fraction == 1 || !zone_fits {
        return None;
    }
    // More digits than nanoseconds are cut off, as Go does.
    let kept = fraction.min(10);
    let text = format!("{}{}{}", &text[..19], text[19..19 + kept].replace(',', "."), &text[19 + fraction..]);
    text.parse().ok().filter(|t| in_range(*t))
}

/// Writes RFC 3339 with as many digits as needed.
pub(crate) fn format_timestamp(t: Timestamp) -> String {
    t.to_string()
}

const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads Go's form of durations, such as `1h15m30.918s`, in nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale = i128::from(UNITS.iter().find(|(name, _)| *name == unit)?.1);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 20 {
            return None;
        }
        total += whole.parse::<i128>().unwrap_or(0) * scale;
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            total += fraction.parse::<i128>().ok()? * scale / 10_i128.pow(fraction.len() as u32);
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Writes a duration as the language does: in seconds.
pub(crate) fn format_duration(nanos: i64) -> String {
    let seconds = (nanos / 1_000_000_000) as f64 + (nanos % 1_000_000_000) as f64 / 1e9;
    format!("{seconds}s")
}
