//! Formats of strings. Those that are not known fit everything.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

/// Names of the formats of strings, without dashes.
const STRINGS: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// Formats that an expression describes.
static EXPRESSIONS: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    const BYTE_OF_COLOR: &str = r"\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*";
    let color = format!(r"^rgb\({BYTE_OF_COLOR},{BYTE_OF_COLOR},{BYTE_OF_COLOR}\)$");
    [
        ("byte", r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$"),
        ("hexcolor", r"^#?(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
        ("rgbcolor", &color),
        ("uuid", r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
        ("uuid3", r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
        ("uuid4", r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
        ("uuid5", r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
        // Eleven bytes, and dashes or blanks where they belong.
        ("ssn", r"^(?:[0-9]{3}[- ][0-9]{2}[- ][0-9]{4})$"),
        ("hostname", HOSTNAME),
        ("creditcard", CREDIT_CARD),
    ]
    .into_iter()
    .map(|(format, expression)| (format, Regex::new(expression).expect("a valid expression")))
    .collect()
});

/// A single label, or labels of which the last has letters only.
const HOSTNAME: &str = r"^([a-zA-Z0-9\p{S}\p{L}](-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?|([a-zA-Z0-9\p{S}\p{L}]([a-zA-Z0-9\-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?\.)+[a-zA-Z\p{L}]{2,63})$";

/// The digits of cards of those who issue them.
const CREDIT_CARD: &str = "^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$";

/// Amounts with units within a text that is no duration of Go's.
static AMOUNTS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"([0-9]+)\s*([A-Za-zµ]+)").expect("a valid expression"));

/// True for formats that are looked at in values of the type `kind`.
pub(super) fn is_known(kind: &str, format: &str) -> bool {
    match kind {
        "" | "string" => STRINGS.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// True when the text has the format.
pub(super) fn fits(text: &str, format: &str) -> bool {
    match format {
        "date-time" | "datetime" => api::time::parse(text).is_some(),
        "date" => text.len() == 10 && api::time::parse(&format!("{text}T00:00:00Z")).is_some(),
        "duration" => duration(text),
        "ipv4" => text.contains('.') && address(text).is_some(),
        "ipv6" => text.contains(':') && address(text).is_some(),
        "cidr" => cidr(text),
        "mac" => mac(text),
        "email" => email(text),
        "uri" => uri(text),
        "k8s-short-name" => api::names::dns_label(text).is_empty(),
        "k8s-long-name" => api::names::dns_subdomain(text).is_empty(),
        "bsonobjectid" => text.len() == 24 && hex(text),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "hostname" => text.len() <= 255 && text.split('.').all(|l| l.len() <= 63) && matches(format, text),
        "creditcard" => {
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            matches(format, &digits) && adds_up(&digits)
        }
        _ => matches(format, text),
    }
}

/// True when the expression of the format, if it has one, fits.
fn matches(format: &str, text: &str) -> bool {
    EXPRESSIONS.iter().find(|(name, _)| *name == format).is_none_or(|(_, e)| e.is_match(text))
}

fn hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Reads an address as old parsers do, which drop leading zeros in IPv4.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| {
        let parts = text.split('.').map(|p| match p.trim_start_matches('0') {
            "" if !p.is_empty() => "0",
            rest => rest,
        });
        parts.collect::<Vec<_>>().join(".").parse().ok()
    })
}

fn cidr(text: &str) -> bool {
    let Some((range, bits)) = text.split_once('/') else { return false };
    let most = match address(range) {
        Some(IpAddr::V4(_)) => 32,
        Some(IpAddr::V6(_)) => 8 * size_of::<Ipv6Addr>(),
        None => return false,
    };
    bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<usize>().is_ok_and(|b| b <= most)
}

/// A duration of Go's, or amounts of units by their names.
fn duration(text: &str) -> bool {
    const UNITS: [&str; 11] = ["ns", "us", "µs", "ms", "s", "m", "h", "hr", "d", "w", "wk"];
    const BEGINNINGS: [&str; 8] = ["nano", "micro", "milli", "sec", "min", "hour", "day", "week"];
    if crate::decode::scalar::parse_duration(text).is_some() {
        return true;
    }
    let mut any = false;
    for amount in AMOUNTS.captures_iter(text) {
        if amount[1].parse::<i64>().is_err() {
            return false;
        }
        let unit = amount[2].to_lowercase();
        any |= UNITS.contains(&unit.as_str()) || BEGINNINGS.iter().any(|b| unit.starts_with(b));
    }
    any
}

/// The digits of a number of a book; blanks and dashes do not count.
fn digits_of_book(text: &str) -> Option<Vec<u32>> {
    let plain: String = text.chars().filter(|c| !c.is_ascii_whitespace() && *c != '-').collect();
    let last = plain.len().checked_sub(1)?;
    let digit = |(i, c): (usize, char)| match c {
        'X' if i == last && last == 9 => Some(10),
        c => c.to_digit(10),
    };
    plain.chars().enumerate().map(digit).collect()
}

fn isbn10(text: &str) -> bool {
    digits_of_book(text).is_some_and(|digits| {
        let weighed = digits.iter().zip(1..).map(|(digit, at)| digit * at.min(10)).sum::<u32>();
        digits.len() == 10 && weighed % 11 == 0
    })
}

fn isbn13(text: &str) -> bool {
    digits_of_book(text).is_some_and(|digits| {
        let weighed =
            digits.iter().zip([1, 3].into_iter().cycle()).map(|(digit, by)| digit * by).sum::<u32>();
        digits.len() == 13 && weighed % 10 == 0
    })
}

/// True when the digits have the check digit of Luhn's formula.
fn adds_up(digits: &str) -> bool {
    let values = digits.chars().rev().filter_map(|c| c.to_digit(10)).enumerate();
    let sum: u32 = values.map(|(i, n)| if i % 2 == 0 { n } else { 2 * n / 10 + 2 * n % 10 }).sum();
    sum.is_multiple_of(10)
}

fn mac(text: &str) -> bool {
    let (separator, width) = match text {
        t if t.contains('-') => ('-', 2),
        t if t.contains(':') => (':', 2),
        t if t.contains('.') => ('.', 4),
        t => ('.', t.len()),
    };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len() * width, 12 | 16 | 40) && parts.iter().all(|p| p.len() == width && hex(p))
}

/// An address of mail, maybe with a name before it.
fn email(text: &str) -> bool {
    let address =
        text.strip_suffix('>').and_then(|t| t.rsplit_once('<')).map_or(text, |(_, address)| address);
    address.rsplit_once('@').is_some_and(|(name, host)| {
        !name.is_empty() && !host.is_empty() && !address.contains(char::is_whitespace)
    })
}

/// An absolute URI, or an absolute path.
fn uri(text: &str) -> bool {
    if text.starts_with('/') {
        return !text.contains(char::is_whitespace);
    }
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
            && !rest.is_empty()
            && !rest.contains(char::is_whitespace)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_formats_as_upstream_finds() {
        let check = |format: &str, good: &[&str], bad: &[&str]| {
            good.iter().for_each(|text| assert!(fits(text, format), "{format}: {text}"));
            bad.iter().for_each(|text| assert!(!fits(text, format), "{format}: {text}"));
        };
        check("isbn10", &["0-306-40615-2", "0 8044 2957 X"], &["0-306-40615-3", "X804429570", ""]);
        check("isbn13", &["978-3-16-148410-0"], &["9783161484101", "978316148410"]);
        check("isbn", &["0306406152", "9783161484100"], &["1"]);
        check("creditcard", &["4111 1111 1111 1111"], &["4111-1111-1111-1112", "abc", ""]);
        check("ssn", &["123-45-6789", "123 45 6789"], &["123456789", "123-45-67890"]);
        check("rgbcolor", &["rgb(1,2,3)", "rgb( 255 , 0,10)"], &["rgb(256,0,0)", "rgb(1,2)"]);
        check("hexcolor", &["#fff", "fff", "#A0B1C2"], &["#ff", "ggg"]);
        check("hostname", &["a", "a-b", "a.bc", "1.ab"], &["a.b1", "1.2.3.4", "a_b", "-a", ""]);
        check("ipv4", &["1.2.3.4", "01.2.3.4", "::ffff:1.2.3.4"], &["1.2.3", "::1", "1..2.3"]);
        check("ipv6", &["::1", "::ffff:1.2.3.4"], &["1.2.3.4"]);
        check(
            "cidr",
            &["10.0.0.0/8", "fe80::/10", "010.0.0.0/8"],
            &["10.0.0.0/33", "10.0.0.0/+1", "10.0.0.0/"],
        );
        check("mac", &["aa:bb:cc:dd:ee:ff", "aabb.ccdd.eeff", "aabbccddeeff"], &["aa:bb", "aabbccddee", ""]);
        check("uuid4", &["550e8400-e29b-41d4-a716-446655440000"], &["550e8400-e29b-11d4-a716-446655440000"]);
        check("uuid", &["550e8400e29b41d4a716446655440000"], &["550e-8400e29b41d4a716446655440000"]);
        check("duration", &["1h", "1 day", "2 weeks", "x 3hr"], &["", "day", "5 fortnights"]);
        check("email", &["a@b.c", "A <a@b.c>"], &["a", "a @b"]);
        check("byte", &["aGVsbG8=", "AB=="], &["", "aGVsbG8", "!!"]);
    }
}
