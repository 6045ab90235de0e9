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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is not written as one.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Form,
    /// Nothing is measured in this.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i128 = 1_000_000_000;
/// Upstream caps what is counted in powers of two at 2^63-1 whole units.
const MAX: i128 = i64::MAX as i128 * NANO;
/// Where this type ends.
const LIMIT: i128 = i128::MAX / 100;

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// What a quantity is made of, in the order of its text.
struct Parts<'t> {
    negative: bool,
    /// Digits before the point, without zeros in front.
    whole: &'t str,
    /// Digits after it.
    fraction: &'t str,
    suffix: &'t str,
}

impl<'t> Parts<'t> {
    /// Reads as upstream does, where a number without digits is zero.
    fn of(text: &'t str) -> Result<Self, ParseError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(ParseError::Form),
        };
        let split = |t: &'t str, more: fn(char) -> bool| t.split_at(t.find(|c| !more(c)).unwrap_or(t.len()));
        let digit = |c: char| c.is_ascii_digit();
        let (whole, rest) = split(rest.trim_start_matches('0'), digit);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split(rest, digit),
            None => ("", rest),
        };
        let (_, exponent) = split(suffix, |c| "eEinumkKMGTP".contains(c));
        let (_, beyond) = split(exponent.strip_prefix(['+', '-']).unwrap_or(exponent), digit);
        if !beyond.is_empty() {
            return Err(ParseError::Form);
        }
        Ok(Self { negative, whole, fraction, suffix })
    }

    /// True when upstream goes on to write the quantity as it was written.
    fn keep_their_text(&self, (format, binary, exponent): (Format, u32, i32)) -> bool {
        /// As many digits as surely fit 63 bits.
        const DIGITS: usize = 18;
        let whole = if self.whole.is_empty() { "0" } else { self.whole };
        let digits = format!("{whole}{}", self.fraction);
        let Ok(number) = digits.parse::<i64>() else { return false };
        match format {
            Format::BinarySi => {
                let room = 15 - whole.len() as i32 - (binary as f32 * 3.0 / 10.0) as i32 - 1;
                self.fraction.is_empty() && room >= 0 && number & 7 != 0
            }
            _ => {
                let scale = exponent - self.fraction.len() as i32;
                digits.len() <= DIGITS
                    && scale >= -9
                    && scale % 3 == 0
                    && !digits.ends_with("000")
                    && !digits.starts_with('0')
            }
        }
    }
}

/// A quantity as upstream shows it: as it was written when that is good enough, else in its canonical form.
pub fn shown(text: &str) -> Result<String, ParseError> {
    let quantity: Quantity = text.parse()?;
    let parts = Parts::of(text)?;
    Ok(if parts.keep_their_text(suffix_of(parts.suffix)?) { text.to_owned() } else { quantity.to_string() })
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parts = Parts::of(text)?;
        let (format, binary, exponent) = suffix_of(parts.suffix)?;
        let digits = format!("{}{}", parts.whole, parts.fraction);
        let digits = digits.trim_start_matches('0');
        let nanos = match digits.is_empty() {
            true => 0,
            // What does not fit is beyond every bound.
            false => digits
                .parse::<i128>()
                .map_or(LIMIT, |n| scale(n, 9 + exponent - parts.fraction.len() as i32, binary)),
        };
        let nanos = if format == Format::BinarySi { nanos.min(MAX) } else { nanos };
        Ok(Self { nanos: if parts.negative { -nanos } else { nanos }, format })
    }
}

/// Multiplies a magnitude by 2^binary and 10^exponent, rounding up and capping.
fn scale(n: i128, exponent: i32, binary: u32) -> i128 {
    let Some(mut n) = n.checked_mul(1 << binary) else { return LIMIT };
    for _ in 0..exponent.clamp(0, 128) {
        match n.checked_mul(10) {
            Some(m) if m <= LIMIT => n = m,
            _ => return if n == 0 { 0 } else { LIMIT },
        }
    }
    let mut inexact = false;
    for _ in 0..(-exponent).clamp(0, 256) {
        inexact |= n % 10 != 0;
        n /= 10;
    }
    (n + i128::from(inexact)).min(LIMIT)
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
        _ => Err(ParseError::Suffix),
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

    /// True when there is no fraction of a thousandth.
    pub fn is_in_millis(&self) -> bool {
        self.nanos % (NANO / 1000) == 0
    }

    /// Rounded away from zero to thousandths.
    pub fn rounded_to_millis(self) -> Self {
        let unit = NANO / 1000;
        let rest = self.nanos % unit;
        let up = if rest == 0 { 0 } else { unit * rest.signum() - rest };
        Self { nanos: self.nanos + up, ..self }
    }

    /// The sum, capped; takes this one's format unless it is zero.
    pub fn plus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-LIMIT, LIMIT), format }
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
        let error = |text: &str| text.parse::<Quantity>().unwrap_err();
        for bad in ["", "x", "1x", "1.2.3", "1 ", "1_0", "٣", "1Ki1x"] {
            assert_eq!(error(bad), ParseError::Form, "{bad}");
        }
        for bad in ["1ki", "1e", "1Kii", "1K", "1i"] {
            assert_eq!(error(bad), ParseError::Suffix, "{bad}");
        }
    }

    #[test]
    fn what_is_good_enough_stays_as_it_was_written() {
        for (text, want) in [
            ("+1", "+1"),
            ("1.500", "1.500"),
            ("1.5", "1500m"),
            ("01", "01"),
            ("0.1", "100m"),
            ("1000", "1k"),
            ("+1Gi", "+1Gi"),
            ("8Gi", "8Gi"),
            ("1024Mi", "1Gi"),
            ("1E3", "1E3"),
            ("-", "0"),
            (".", "0"),
            ("100000000000000000000", "100E"),
            ("100000000000Gi", "9223372036854775807"),
        ] {
            assert_eq!(shown(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn rounding_to_thousandths_goes_away_from_zero() {
        let rounded = |text: &str| text.parse::<Quantity>().unwrap().rounded_to_millis().to_string();
        assert_eq!([rounded("0.1m"), rounded("-1u"), rounded("2m")], ["1m", "-1m", "2m"]);
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
