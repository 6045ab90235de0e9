//! Resource quantities: exact decimal numbers with a suffix, such as `500m`, `1.5Gi` or `12e6`.
//!
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// How a quantity likes to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Powers of 1000: `n u m k M G T P E`.
    DecimalSi,
    /// Powers of 1024: `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// `e3`.
    DecimalExponent,
}

/// An exact number in units of 10^-9; smaller parts are rounded up, as upstream does.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseError;

const NANO: i128 = 1_000_000_000;
/// Upstream caps values at 2^63-1 whole units.
const MAX: i128 = i64::MAX as i128 * NANO;

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(ParseError),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) || number.len() > 64 {
            return Err(ParseError);
        }
        let (format, binary, exponent) = suffix_of(suffix)?;
        let digits = format!("{whole}{fraction}");
        let mut nanos = digits
            .trim_start_matches('0')
            .parse::<i128>()
            .or_else(|_| if digits.bytes().all(|b| b == b'0') { Ok(0) } else { Err(ParseError) })?;
        nanos = scale(nanos, 9 + exponent - fraction.len() as i32, binary);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

/// Multiplies a magnitude by 2^binary and 10^exponent, rounding up and capping.
fn scale(n: i128, exponent: i32, binary: u32) -> i128 {
    let Some(mut n) = n.checked_mul(1 << binary) else { return MAX };
    for _ in 0..exponent.clamp(0, 64) {
        match n.checked_mul(10) {
            Some(m) if m <= MAX * 10 => n = m,
            _ => return MAX,
        }
    }
    let mut inexact = false;
    for _ in 0..(-exponent).clamp(0, 128) {
        inexact |= n % 10 != 0;
        n /= 10;
    }
    (n + i128::from(inexact)).min(MAX)
}

fn suffix_of(suffix: &str) -> Result<(Format, u32, i32), ParseError> {
    if let Some((_, bits)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Ok((Format::BinarySi, *bits, 0));
    }
    if let Some((_, e)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((Format::DecimalSi, 0, *e));
    }
    match suffix.strip_prefix(['e', 'E']).map(str::parse::<i32>) {
        Some(Ok(e)) if e.abs() <= 64 => Ok((Format::DecimalExponent, 0, e)),
        _ => Err(ParseError),
    }
}

impl Quantity {
    /// A whole number of units.
    pub fn from_units(n: i64, format: Format) -> Self {
        Self { nanos: i128::from(n) * NANO, format }
    }

    /// A number of thousandths.
    pub fn from_millis(n: i64) -> Self {
        Self { nanos: i128::from(n) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Zero.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// In whole units, rounded up.
    pub fn units(&self) -> i64 {
        ceil_div(self.nanos, NANO)
    }

    /// In thousandths, rounded up.
    pub fn millis(&self) -> i64 {
        ceil_div(self.nanos, NANO / 1000)
    }

    /// As a floating-point number.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// True for zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// True below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// True when there is no fraction of a unit.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// The sum, capped; takes this one's format unless it is zero.
    pub fn plus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }

    /// The difference, capped; takes this one's format unless it is zero.
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self { nanos: -other.nanos, ..other })
    }
}

fn ceil_div(n: i128, d: i128) -> i64 {
    let q = n.div_euclid(d) + i128::from(n.rem_euclid(d) != 0);
    i64::try_from(q).unwrap_or(if q > 0 { i64::MAX } else { i64::MIN })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The canonical form: the largest suffix that needs no fraction.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, n) = if self.nanos < 0 { ("-", -self.nanos) } else { ("", self.nanos) };
        if n == 0 {
            return f.write_str("0");
        }
        let whole = n % NANO == 0;
        if self.format == Format::BinarySi && whole && n / NANO >= 1024 {
            let units = n / NANO;
            let (suffix, bits) =
                BINARY.iter().rev().find(|(_, bits)| units % (1 << bits) == 0).copied().unwrap_or(("", 0));
            return write!(f, "{sign}{}{suffix}", units >> bits);
        }
        let mut exponent = -9;
        let mut mantissa = n;
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        let suffix = match self.format {
            Format::DecimalExponent if exponent == 0 => String::new(),
            Format::DecimalExponent => format!("e{exponent}"),
            _ => DECIMAL.iter().find(|(_, e)| *e == exponent).map_or("", |(s, _)| s).to_owned(),
        };
        write!(f, "{sign}{mantissa}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms_are_upstreams() {
        for (text, want) in [
            ("0", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("500m", "500m"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024", "1024"),
            ("1000", "1k"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("100Mi", "100Mi"),
            ("12e6", "12e6"),
            ("1e3", "1e3"),
            ("1500", "1500"),
            ("-1", "-1"),
            ("0.1n", "1n"),
            ("1.1", "1100m"),
            ("5G", "5G"),
            ("0.5Ki", "512"),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "-", "x", "1x", "1.2.3", "1 ", "1ki", "e3", "1e", ".", "1Kii", "٣"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn huge_values_are_capped() {
        assert_eq!("1e60".parse::<Quantity>().unwrap().units(), i64::MAX);
    }

    proptest! {
        #[test]
        fn printing_and_reading_agree(n in -1_000_000_000_000i64..1_000_000_000_000, s in "(n|u|m||k|Ki|Mi|e3)") {
            let q: Quantity = format!("{n}{s}").parse().unwrap();
            prop_assert_eq!(q.to_string().parse::<Quantity>().unwrap(), q);
        }
    }
}
