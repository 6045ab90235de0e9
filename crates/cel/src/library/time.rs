//! Points and spans of time, written as Go writes them.

use std::cmp::Ordering;
use std::fmt;

use jiff::Span;
use jiff::civil::{DateTime, date};
use jiff::tz::{Offset, TimeZone};

use super::call::{Builtin, no_overload};
use crate::value::{EvalError, Outcome, Val};

/// The first and the last second that the language knows: the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const NANOS: i128 = 1_000_000_000;

/// A point in time, in nanoseconds since 1970, and how it was written. The language knows times that `jiff` does not: the last day of the year 9999,
/// on which much is said to end.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    nanos: i128,
    /// Seconds east of UTC, for writing it again.
    offset: i32,
}

/// Moments are the same wherever they were written.
impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Moment {}
impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Moment {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Moment {
    fn new(nanos: i128, offset: i32) -> Option<Self> {
        let moment = Self { nanos, offset };
        SECONDS.contains(&moment.unix_seconds()).then_some(moment)
    }

    /// Whole seconds since 1970, rounded down.
    pub(crate) fn unix_seconds(self) -> i64 {
        self.nanos.div_euclid(NANOS) as i64
    }

    /// The first moment of the year 1, which counts as no time at all.
    pub(crate) fn is_zero(self) -> bool {
        self.nanos == i128::from(*SECONDS.start()) * NANOS
    }

    /// The time of day on the calendar, this many seconds east of UTC.
    fn civil(self, offset: i64) -> DateTime {
        let nanos = self.nanos + i128::from(offset) * NANOS;
        let (days, rest) = (nanos.div_euclid(86_400 * NANOS), nanos.rem_euclid(86_400 * NANOS));
        let midnight = date(1970, 1, 1).at(0, 0, 0, 0);
        let span = Span::new().days(days as i64).nanoseconds(rest as i64);
        midnight.saturating_add(span)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.civil(i64::from(self.offset));
        write!(f, "{:04}-{:02}-{:02}T", t.year(), t.month(), t.day())?;
        write!(f, "{:02}:{:02}:{:02}", t.hour(), t.minute(), t.second())?;
        let nanos = format!("{:09}", self.nanos.rem_euclid(NANOS));
        match nanos.trim_end_matches('0') {
            "" => {}
            fraction => write!(f, ".{fraction}")?,
        }
        if self.offset == 0 {
            return f.write_str("Z");
        }
        let minutes = self.offset.abs() / 60;
        let sign = if self.offset < 0 { '-' } else { '+' };
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// The time `seconds` after 1970, within the years 1 to 9999.
pub(crate) fn from_unix(seconds: i64) -> Option<Moment> {
    Moment::new(i128::from(seconds) * NANOS, 0)
}

/// Reads RFC 3339, strictly: `2006-01-02T15:04:05.999Z`.
pub(crate) fn parse_timestamp(text: &str) -> Option<Moment> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    if ![(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
        .iter()
        .all(|(at, c)| bytes.get(*at) == Some(c))
    {
        return None;
    }
    let day = date_of(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0;
    if matches!(bytes.get(at), Some(b'.' | b',')) {
        let end = at + 1 + bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        // More digits than nanoseconds are cut off, as Go does.
        let digits = text.get(at + 1..end.min(at + 10))?;
        nanos = format!("{digits:0<9}").parse::<i128>().ok().filter(|_| !digits.is_empty())?;
        at = end;
    }
    let offset = match &bytes[at..] {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -60 } else { 60 }
        }
        _ => return None,
    };
    let seconds = day * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Moment::new(i128::from(seconds) * NANOS + nanos, offset as i32)
}

/// Days since 1970.
fn date_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let date = jiff::civil::Date::new(i16::try_from(year).ok()?, month as i8, day as i8).ok()?;
    let span = jiff::civil::Date::constant(1970, 1, 1).until(date).ok()?;
    Some(i64::from(span.get_days()))
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

pub(crate) fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "getFullYear" => |_, args| part(args, |t| i64::from(t.year()), None),
        "getMonth" => |_, args| part(args, |t| i64::from(t.month()) - 1, None),
        "getDayOfYear" => |_, args| part(args, |t| i64::from(t.day_of_year()) - 1, None),
        "getDayOfMonth" => |_, args| part(args, |t| i64::from(t.day()) - 1, None),
        "getDate" => |_, args| part(args, |t| i64::from(t.day()), None),
        "getDayOfWeek" => |_, args| part(args, |t| i64::from(t.weekday().to_sunday_zero_offset()), None),
        "getHours" => |_, args| part(args, |t| i64::from(t.hour()), Some(3_600_000_000_000)),
        "getMinutes" => |_, args| part(args, |t| i64::from(t.minute()), Some(60_000_000_000)),
        "getSeconds" => |_, args| part(args, |t| i64::from(t.second()), Some(1_000_000_000)),
        "getMilliseconds" => |_, args| part(args, |t| i64::from(t.millisecond()), Some(1_000_000)),
        _ => return None,
    })
}

/// A part of a time in a zone, or how often a unit is in a duration.
fn part<'a>(args: &[Val<'a>], of: fn(DateTime) -> i64, unit: Option<i64>) -> Outcome<'a> {
    let (t, offset) = match (args, unit) {
        ([Val::Duration(d)], Some(unit)) => return Ok(Val::Int(d / unit)),
        ([Val::Timestamp(t)], _) => (t, 0),
        ([Val::Timestamp(t), Val::String(zone)], _) => (t, offset(*t, zone)?),
        _ => return no_overload(),
    };
    Ok(Val::Int(of(t.civil(offset))))
}

/// How many seconds east of UTC a zone is at a time: a zone by its name, or an offset such as `-02:30`.
fn offset(t: Moment, zone: &str) -> Result<i64, EvalError> {
    let unknown = || EvalError::new(format!("unknown time zone {zone}"));
    let Some((hours, minutes)) = zone.split_once(':') else {
        if matches!(zone, "" | "UTC") {
            return Ok(0);
        }
        let found = TimeZone::get(zone).map_err(|_| unknown())?;
        let at = jiff::Timestamp::from_second(t.unix_seconds()).unwrap_or(jiff::Timestamp::MAX);
        return Ok(i64::from(found.to_offset(at).seconds()));
    };
    let number = |text: &str| {
        text.parse::<i32>()
            .map_err(|_| EvalError::new(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
    };
    let (h, m) = (number(hours)?, number(minutes)?);
    let minutes = h
        .checked_mul(60)
        .and_then(|h| if zone.starts_with('-') { h.checked_sub(m) } else { h.checked_add(m) });
    let seconds = minutes.and_then(|m| m.checked_mul(60)).ok_or_else(unknown)?;
    Offset::from_seconds(seconds).map(|offset| i64::from(offset.seconds())).map_err(|_| unknown())
}

/// The time `nanos` later.
pub(crate) fn add_to_timestamp<'a>(t: Moment, nanos: i128) -> Outcome<'a> {
    Moment::new(t.nanos + nanos, t.offset)
        .map(Val::Timestamp)
        .ok_or_else(|| EvalError::new("timestamp overflow"))
}

/// The time between, in nanoseconds, if it can be counted.
pub(crate) fn difference(a: Moment, b: Moment) -> Option<i64> {
    i64::try_from(a.nanos - b.nanos).ok()
}
