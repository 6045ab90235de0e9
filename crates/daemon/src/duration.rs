//! Durations as Go writes them: `1m30s`, `500ms`, `0s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

const SECOND: u64 = 1_000_000_000;

/// A non-negative duration that reads and prints as Go's `time.Duration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    /// A whole number of seconds.
    pub const fn from_secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    /// True for no time at all, which many settings read as "off" or "default".
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<GoDuration> for Duration {
    fn from(d: GoDuration) -> Self {
        d.0
    }
}

fn unit(name: &str) -> Option<u64> {
    Some(match name {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        _ => return None,
    })
}

impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("time: invalid duration {text:?}");
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut nanos = 0.0_f64;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| c != '.' && !c.is_ascii_digit())
                .ok_or_else(|| format!("time: missing unit in duration {text:?}"))?;
            let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
            rest = &rest[digits..];
            let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
            let factor = unit(&rest[..end])
                .ok_or_else(|| format!("time: unknown unit {:?} in duration {text:?}", &rest[..end]))?;
            rest = &rest[end..];
            nanos += number * factor as f64;
        }
        if nanos > i64::MAX as f64 {
            return Err(invalid());
        }
        Ok(Self(Duration::from_nanos(nanos.round() as u64)))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos() as u64;
        let small = |size: u64, name: &str, f: &mut fmt::Formatter<'_>| {
            write!(f, "{}{name}", decimal(nanos / size, nanos % size, size))
        };
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => small(1_000, "µs", f),
            1_000_000..SECOND => small(1_000_000, "ms", f),
            _ => {
                let (seconds, fraction) = (nanos / SECOND, nanos % SECOND);
                let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if seconds >= 60 {
                    write!(f, "{minutes}m")?;
                }
                write!(f, "{}s", decimal(seconds % 60, fraction, SECOND))
            }
        }
    }
}

fn decimal(whole: u64, fraction: u64, size: u64) -> String {
    if fraction == 0 {
        return whole.to_string();
    }
    let width = size.ilog10() as usize;
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_go_does() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("10s", 10 * SECOND, "10s"),
            ("1m30s", 90 * SECOND, "1m30s"),
            ("8760h", 8760 * 3600 * SECOND, "8760h0m0s"),
            ("1.5h", 5400 * SECOND, "1h30m0s"),
            ("1500ms", SECOND * 3 / 2, "1.5s"),
            ("20ms", 20_000_000, "20ms"),
            ("7us", 7_000, "7µs"),
        ] {
            let d: GoDuration = text.parse().unwrap();
            assert_eq!(d.0.as_nanos() as u64, nanos, "{text}");
            assert_eq!(d.to_string(), printed, "{text}");
        }
        for bad in ["", "10", "s", "1x", "1..s", "-1s"] {
            assert!(bad.parse::<GoDuration>().is_err(), "{bad}");
        }
    }
}
