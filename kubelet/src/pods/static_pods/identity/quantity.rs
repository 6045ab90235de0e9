//! Quantities as upstream keeps them in memory: a number of 64 bits with a decimal scale where that does, or else a decimal
//! of any length; and the text they were read from where it is canonical.

/// Scale of the least amount that there is.
const NANO: i32 = -9;
/// Scale of the least amount of a resource.
const MILLI: i32 = -3;
/// The most that an amount with a binary suffix comes to.
const MOST: u128 = i64::MAX as u128;

/// A quantity in memory.
#[derive(Default)]
struct Kept {
    value: i64,
    scale: i32,
    /// Whether it is negative, its digits, and how many of them are behind the point.
    long: Option<(bool, u128, i32)>,
    text: String,
    format: &'static str,
}

/// A quantity's fields, as upstream dumps them; nothing for an empty text. Amounts of resources are rounded up to thousandths.
pub(super) fn dump(text: &str, round: bool) -> String {
    // What is longer than any amount can be has been refused when it was decoded.
    let kept = parse(text).unwrap_or_default();
    let kept = if round { kept.rounded() } else { kept };
    let long = kept.long.map_or("<nil>".to_owned(), |(negative, digits, behind)| {
        let words = [digits as u64, (digits >> 64) as u64];
        let words = words.iter().take(if words[1] != 0 { 2 } else { usize::from(words[0] != 0) });
        let words: Vec<String> = words.map(u64::to_string).collect();
        format!(
            "{{unscaled:(big.Int){{neg:(bool){negative} abs:(big.nat)[{}]}} scale:(inf.Scale){behind}}}",
            words.join(" ")
        )
    });
    format!(
        "{{i:(resource.int64Amount){{value:(int64){} scale:(resource.Scale){}}} d:(resource.infDecAmount){{Dec:(*inf.Dec){long}}} \
         s:(string){} Format:(resource.Format){}}}",
        kept.value, kept.scale, kept.text, kept.format
    )
}

impl Kept {
    fn rounded(mut self) -> Self {
        if let Some((negative, digits, behind)) = self.long {
            self.long = rescale(digits, behind, -MILLI).map(|digits| (negative, digits, -MILLI));
        } else if self.scale < MILLI {
            let divisor = 10i64.checked_pow(MILLI.abs_diff(self.scale));
            let up = |value: i64, d: i64| value / d + if value % d == 0 { 0 } else { value.signum() };
            self.value = divisor.map_or(self.value.signum(), |divisor| up(self.value, divisor));
            self.scale = MILLI;
            self.text.clear();
        }
        self
    }
}

/// Digits with so many behind the point, as digits with so many others behind it, rounded up.
fn rescale(digits: u128, behind: i32, wanted: i32) -> Option<u128> {
    let factor = 10u128.checked_pow(behind.abs_diff(wanted));
    if wanted >= behind {
        return digits.checked_mul(factor?);
    }
    Some(factor.map_or(u128::from(digits != 0), |factor| digits.div_ceil(factor)))
}

fn parse(text: &str) -> Option<Kept> {
    if text.is_empty() {
        return None;
    }
    if text == "0" {
        return Some(Kept { text: "0".to_owned(), format: "DecimalSI", ..Kept::default() });
    }
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (number, suffix) =
        rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let (binary, exponent, format) = unit(suffix)?;
    let digits = format!("{whole}{fraction}");
    if let Some(kept) = short(text, negative, &digits, fraction.len(), (binary, exponent, format)) {
        return Some(kept);
    }
    let mut behind = i32::try_from(fraction.len()).ok()?;
    let mut long: u128 = digits.parse().ok()?;
    if binary {
        long = long.checked_mul(1 << exponent)?;
    } else {
        behind -= exponent;
    }
    if long != 0 {
        long = rescale(long, behind, -NANO)?;
        behind = -NANO;
    }
    let (most, one) =
        (MOST.checked_mul(10u128.checked_pow(behind.unsigned_abs())?)?, 10u128.pow(behind.unsigned_abs()));
    let mut format = format;
    if binary && long > most {
        (long, behind) = (MOST, 0);
    } else if binary && long > 0 && long < one {
        format = "DecimalSI";
    }
    Some(Kept { long: Some((negative, long, behind)), format, ..Kept::default() })
}

/// A quantity that a number of 64 bits holds for sure.
fn short(
    text: &str,
    negative: bool,
    digits: &str,
    fraction: usize,
    (binary, exponent, format): (bool, i32, &'static str),
) -> Option<Kept> {
    let length = i32::try_from(digits.len()).ok()?;
    let room = match binary {
        false => 18 - length,
        true if fraction == 0 => 15 - length - exponent * 3 / 10 - 1,
        true => -1,
    };
    let scale = if binary { 0 } else { exponent } - i32::try_from(fraction).ok()?;
    if room < 0 || scale < NANO {
        return None;
    }
    let value: i64 = digits.parse().ok()?;
    let whole = value.checked_mul(if binary { 1 << exponent } else { 1 })?;
    let canonical = match binary {
        true => value & 7 != 0,
        false => scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0'),
    };
    Some(Kept {
        value: if negative { -whole } else { whole },
        scale,
        long: None,
        text: if canonical { text.to_owned() } else { String::new() },
        format,
    })
}

/// Whether a suffix is binary, its exponent, and what upstream calls such a format.
fn unit(suffix: &str) -> Option<(bool, i32, &'static str)> {
    let decimal = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"].iter().position(|known| *known == suffix);
    if let Some(at) = decimal {
        return Some((false, i32::try_from(at).ok()? * 3 + NANO, "DecimalSI"));
    }
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter().position(|known| *known == suffix);
    if let Some(at) = binary {
        return Some((true, (i32::try_from(at).ok()? + 1) * 10, "BinarySI"));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((false, exponent, "DecimalExponent"))
}
