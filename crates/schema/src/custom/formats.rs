//! Formats of strings. Those that are not known fit everything.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Names of the formats of strings, without dashes. Those of books and cards are known, but fit everything.
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
        "duration" => crate::decode::scalar::parse_duration(text).is_some(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => cidr(text),
        "mac" => mac(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => uuid(text, format),
        "hostname" => hostname(text),
        "email" => email(text),
        "uri" => uri(text),
        "byte" => base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).is_ok(),
        "k8s-short-name" => api::names::dns_label(text).is_empty(),
        "k8s-long-name" => api::names::dns_subdomain(text).is_empty(),
        "bsonobjectid" => text.len() == 24 && hex(text),
        "hexcolor" => text.strip_prefix('#').is_some_and(|t| matches!(t.len(), 3 | 6) && hex(t)),
        _ => true,
    }
}

fn hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let bits = bits.parse::<u8>().ok();
    match (address.parse::<Ipv4Addr>(), address.parse::<Ipv6Addr>()) {
        (Ok(_), _) => bits.is_some_and(|b| b <= 32),
        (_, Ok(_)) => bits.is_some_and(|b| b <= 128),
        _ => false,
    }
}

fn mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|p| p.len() == 2 && hex(p))
}

fn uuid(text: &str, format: &str) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let version = plain.as_bytes().get(12).copied();
    let right = match format {
        "uuid3" => version == Some(b'3'),
        "uuid4" => version == Some(b'4'),
        "uuid5" => version == Some(b'5'),
        _ => true,
    };
    plain.len() == 32 && hex(&plain) && right
}

fn hostname(text: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    !text.is_empty() && text.len() <= 255 && text.trim_end_matches('.').split('.').all(label)
}

fn email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(name, host)| {
        !name.is_empty() && !host.is_empty() && !text.contains(char::is_whitespace)
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
