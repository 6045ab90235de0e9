//! Cron schedules as Kubernetes reads them: five fields, names of months and days, steps and ranges, `@hourly` and its like,
//! `@every 1h30m`; either day field matches when both are restricted.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

/// When something is due.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Schedule {
    /// At these minutes.
    Fields(Fields),
    /// So long after one another.
    Every(Duration),
}

/// One bit for each value; `day_star` and `weekday_star` say which day fields restrict nothing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    day_star: bool,
    weekday_star: bool,
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// No schedule has a gap longer than this (29 February over a century's turn).
const YEARS: i64 = 9;

impl Schedule {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(every) = text.strip_prefix("@every ") {
            let every: daemon::GoDuration = every.trim().parse()?;
            return Ok(Schedule::Every(every.0.max(Duration::from_secs(1))));
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = words[..] else {
            return Err(format!("expected exactly 5 fields, found {}: {text:?}", words.len()));
        };
        let star = |f: &str| f.starts_with('*') || f.starts_with('?');
        Ok(Schedule::Fields(Fields {
            minute: field(minute, 0, 59, &[])?,
            hour: field(hour, 0, 23, &[])?,
            day: field(day, 1, 31, &[])?,
            month: field(month, 1, 12, MONTHS)?,
            weekday: {
                let bits = field(weekday, 0, 7, DAYS)?;
                // Sunday is 0 and 7.
                (bits | (bits >> 7)) & 0x7f
            },
            day_star: star(day),
            weekday_star: star(weekday),
        }))
    }

    /// The first time after `after`, in a time zone.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let fields = match self {
            Schedule::Every(d) => {
                let seconds = i64::try_from(d.as_secs()).ok()?;
                return Timestamp::from_second(after.as_second() + seconds).ok();
            }
            Schedule::Fields(fields) => fields,
        };
        let mut at = zone.to_datetime(after).checked_add(1.minute()).ok()?;
        at = at.with().second(0).subsec_nanosecond(0).build().ok()?;
        let end = at.checked_add(Span::new().years(YEARS)).ok()?;
        while at < end {
            if !fields.day_matches(at) {
                at = at.checked_add(1.day()).ok()?.with().hour(0).minute(0).build().ok()?;
            } else if !bit(fields.hour, at.hour()) {
                at = at.checked_add(1.hour()).ok()?.with().minute(0).build().ok()?;
            } else if !bit(fields.minute, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                // A time that the clock skips in spring is due when the clock has moved on.
                let due = zone.to_timestamp(at).ok()?;
                if due > after {
                    return Some(due);
                }
                at = at.checked_add(1.minute()).ok()?;
            }
        }
        None
    }
}

fn bit(bits: u64, n: i8) -> bool {
    u32::try_from(n).is_ok_and(|n| bits >> n & 1 == 1)
}

impl Fields {
    fn day_matches(&self, at: DateTime) -> bool {
        let day = bit(self.day, at.day());
        let weekday = bit(self.weekday, at.weekday().to_sunday_zero_offset());
        let either = if self.day_star || self.weekday_star { day && weekday } else { day || weekday };
        bit(self.month, at.month()) && either
    }
}

/// The bits of a field: a list of `*`, `a`, `a-b`, each with an optional `/step`.
fn field(text: &str, min: u32, max: u32, names: &[&str]) -> Result<u64, String> {
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => {
                let step = step.parse::<usize>().ok().filter(|s| *s > 0);
                (
                    range,
                    Some(step.ok_or_else(|| format!("step of range should be a positive number: {part}"))?),
                )
            }
        };
        let value = |word: &str| {
            let named = names.iter().position(|n| word.eq_ignore_ascii_case(n));
            let first = if names == MONTHS { 1 } else { 0 };
            let named = named.and_then(|n| u32::try_from(n + first).ok());
            named.or_else(|| word.parse().ok()).ok_or_else(|| format!("failed to parse {word:?}"))
        };
        let (first, last) = match range {
            "*" | "?" => (min, max),
            _ => match range.split_once('-') {
                Some((first, last)) => (value(first)?, value(last)?),
                None if step.is_some() => (value(range)?, max),
                None => (value(range)?, value(range)?),
            },
        };
        if first < min || last > max || first > last {
            return Err(format!("{part:?} is not within {min}-{max}"));
        }
        for n in (first..=last).step_by(step.unwrap_or(1)) {
            bits |= 1 << n;
        }
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_is_found() {
        let check = |schedule: &str, after: &str, want: &str| {
            let after: Timestamp = after.parse().unwrap();
            let got = Schedule::parse(schedule).unwrap().next(after, &TimeZone::UTC).unwrap();
            assert_eq!(got, want.parse().unwrap(), "{schedule}");
        };
        check("*/15 * * * *", "2026-01-01T00:01:30Z", "2026-01-01T00:15:00Z");
        check("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
        check("30 4 1,15 * 5", "2026-01-02T05:00:00Z", "2026-01-09T04:30:00Z");
        check("0 9-17/4 * * mon-fri", "2026-01-03T10:00:00Z", "2026-01-05T09:00:00Z");
        check("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z");
        check("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        check("@every 90s", "2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z");
        check("5 * * dec *", "2026-01-01T00:00:00Z", "2026-12-01T00:05:00Z");
    }

    #[test]
    fn zones_count() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let after: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let got = Schedule::parse("0 3 * * *").unwrap().next(after, &zone).unwrap();
        assert_eq!(got, "2026-01-01T01:00:00Z".parse().unwrap());
    }

    #[test]
    fn malformed_schedules_are_refused() {
        for bad in ["", "* * * *", "60 * * * *", "* * 0 * *", "*/0 * * * *", "5-1 * * * *", "x * * * *"] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
    }
}
