//! The rules for names, labels and annotations, with upstream's sentences, and generated names.
//!
//! Each check returns the sentences of what is wrong; an empty list means valid.
//! Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>, RFC 1123, RFC 1035.

use rand::Rng;

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

const LABEL_1123: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_1123: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

const ENV_NAME: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const SUBDOMAIN_UNDERSCORE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";
const HTTP_HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// Keys and values of labels count bytes, in their words.
fn too_many_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn lower_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label_1123(s: &str) -> bool {
    let b = s.as_bytes();
    let ends = b.first().is_some_and(|c| lower_or_digit(*c)) && b.last().is_some_and(|c| lower_or_digit(*c));
    ends && b.iter().all(|c| lower_or_digit(*c) || *c == b'-')
}

fn is_qualified_part(s: &str) -> bool {
    let b = s.as_bytes();
    let ends =
        b.first().is_some_and(u8::is_ascii_alphanumeric) && b.last().is_some_and(u8::is_ascii_alphanumeric);
    ends && b.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

/// Names such as those of containers and ports: RFC 1123 labels.
pub fn dns_label(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > LABEL_MAX {
        errors.push(too_long(LABEL_MAX));
    }
    if !is_label_1123(s) {
        let dotted = s.split('.').all(is_label_1123);
        errors.push(if dotted { "must not contain dots" } else { LABEL_1123 }.to_owned());
    }
    errors
}

/// Names of most objects: RFC 1123 subdomains.
pub fn dns_subdomain(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > SUBDOMAIN_MAX {
        errors.push(too_long(SUBDOMAIN_MAX));
    }
    if !s.split('.').all(is_label_1123) {
        errors.push(SUBDOMAIN_1123.to_owned());
    }
    errors
}

/// Names of objects as declared rules have them: RFC 1123 subdomains, measured in bytes.
pub fn long_name(s: &str) -> Vec<String> {
    let mut errors = dns_subdomain(s);
    if s.len() > SUBDOMAIN_MAX {
        errors[0] = format!("must be no more than {SUBDOMAIN_MAX} bytes");
    }
    errors
}

/// Names of Services: RFC 1035 labels.
pub fn dns1035_label(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > LABEL_MAX {
        errors.push(too_long(LABEL_MAX));
    }
    if !is_label_1123(s) || !s.as_bytes().first().is_some_and(u8::is_ascii_lowercase) {
        errors.push(LABEL_1035.to_owned());
    }
    errors
}

/// Names that need only stand in a URL path: RBAC objects and the like.
pub fn path_segment(s: &str) -> Vec<String> {
    match s {
        "." | ".." => vec![format!("may not be '{s}'")],
        _ => {
            ["/", "%"].iter().filter(|c| s.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
        }
    }
}

/// Keys of labels, annotations and resources: an optional DNS prefix, a slash and a name.
pub fn qualified_name(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let (prefix, name) = match s.split_once('/') {
        None => (None, s),
        Some((prefix, name)) if !name.contains('/') => (Some(prefix), name),
        Some(_) => {
            return vec![format!(
                "a valid label key {}",
                with_prefix_hint(QUALIFIED.trim_start_matches("name part "))
            )];
        }
    };
    match prefix {
        Some("") => errors.push("prefix part must be non-empty".to_owned()),
        Some(p) => {
            let found = dns_subdomain(p).into_iter().map(|e| e.replace("253 characters", "253 bytes"));
            errors.extend(found.map(|e| format!("prefix part {e}")));
        }
        None => {}
    }
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        errors.push(format!("name part {}", too_many_bytes(LABEL_MAX)));
    }
    if !is_qualified_part(name) {
        errors.push(QUALIFIED.to_owned());
    }
    errors
}

/// Names of hosts that may begin with `*.`.
pub fn wildcard_subdomain(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > SUBDOMAIN_MAX {
        errors.push(too_long(SUBDOMAIN_MAX));
    }
    if !s.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label_1123)) {
        errors.push(WILDCARD.to_owned());
    }
    errors
}

/// Search domains: subdomains whose labels may begin with, and hold, an underscore.
pub fn search_domain(s: &str) -> Vec<String> {
    let label = |label: &str| {
        let bytes = label.strip_prefix('_').unwrap_or(label).as_bytes();
        let ends = bytes.first().is_some_and(|c| lower_or_digit(*c))
            && bytes.last().is_some_and(|c| lower_or_digit(*c));
        ends && bytes.iter().all(|c| lower_or_digit(*c) || b"-_".contains(c))
    };
    let mut errors = Vec::new();
    if s.len() > SUBDOMAIN_MAX {
        errors.push(too_long(SUBDOMAIN_MAX));
    }
    if !s.split('.').all(label) {
        errors.push(SUBDOMAIN_UNDERSCORE.to_owned());
    }
    errors
}

/// Names of ports: IANA service names.
pub fn port_name(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 15 {
        errors.push(too_long(15));
    }
    if name.is_empty() || !name.bytes().all(|b| lower_or_digit(b) || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// Names of environment variables.
pub fn environment_variable(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.is_empty() {
        errors.push("environment variable name must be non-empty".to_owned());
    }
    if s.chars().any(|c| !(' '..='~').contains(&c) || c == '=') {
        errors.push(ENV_NAME.to_owned());
    }
    errors
}

/// Names of HTTP headers.
pub fn http_header(s: &str) -> Vec<String> {
    let ok = !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if ok { Vec::new() } else { vec![HTTP_HEADER.to_owned()] }
}

/// Percentages such as `25%`.
pub fn percent(s: &str) -> Vec<String> {
    let digits = s.strip_suffix('%').unwrap_or_default();
    let ok = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if ok { Vec::new() } else { vec![PERCENT.to_owned()] }
}

fn with_prefix_hint(text: &str) -> String {
    format!("{text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")
}

/// Values of labels.
pub fn label_value(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > LABEL_MAX {
        errors.push(too_many_bytes(LABEL_MAX));
    }
    if !s.is_empty() && !is_qualified_part(s) {
        errors.push(LABEL_VALUE.to_owned());
    }
    errors
}

/// Keys of ConfigMaps and Secrets.
pub fn config_key(s: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if s.len() > SUBDOMAIN_MAX {
        errors.push(too_long(SUBDOMAIN_MAX));
    }
    if s.is_empty() || !s.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c)) {
        errors.push(CONFIG_KEY.to_owned());
    }
    if s == "." || s == ".." {
        errors.push(format!("must not be '{s}'"));
    } else if s.starts_with("..") {
        errors.push("must not start with '..'".to_owned());
    }
    errors
}

/// The letters and digits of generated names: no vowels, and nothing that looks like one.
pub const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A random text of `n` characters of [`SUFFIX_ALPHABET`].
pub fn random_suffix(n: usize) -> String {
    let mut rng = rand::rng();
    (0..n).map(|_| char::from(SUFFIX_ALPHABET[rng.random_range(0..SUFFIX_ALPHABET.len())])).collect()
}

/// The name made from a `generateName`: at most 63 bytes, five of them random.
pub fn generate(base: &str) -> String {
    let mut end = base.len().min(LABEL_MAX - 5);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], random_suffix(5))
}

/// Encodes a number in [`SUFFIX_ALPHABET`], as names derived from a hash do.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| char::from(SUFFIX_ALPHABET[usize::from(b) % SUFFIX_ALPHABET.len()])).collect()
}

/// A fresh UID: a random UUID.
pub fn new_uid() -> String {
    uuid::Builder::from_random_bytes(rand::rng().random()).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rules() {
        let check = |f: fn(&str) -> Vec<String>, ok: &[&str], bad: &[&str]| {
            for s in ok {
                assert_eq!(f(s), Vec::<String>::new(), "{s}");
            }
            for s in bad {
                assert_ne!(f(s), Vec::<String>::new(), "{s}");
            }
        };
        let long = "a".repeat(64);
        check(dns_label, &["a", "a-b", "1a"], &["", "-a", "a-", "A", "a.b", &long]);
        check(dns_subdomain, &["a", "a.b-c.1"], &["", "a..b", ".a", "a_b"]);
        check(dns1035_label, &["a1"], &["1a", ""]);
        check(qualified_name, &["a", "x.io/A_b"], &["", "/a", "x.io/", "a/b/c", "X/a"]);
        check(label_value, &["", "A.b_c-1"], &["-a", "a b", &long]);
        check(wildcard_subdomain, &["*.a", "*.a.b"], &["a", "*", "*.", "a.*"]);
        check(search_domain, &["a", "_a.b_c"], &["", ".", "a_", "A"]);
        check(port_name, &["http", "a-1"], &["", "1", "a--b", "-a", "A", "sixteencharacter"]);
        check(environment_variable, &["A", "a.b c"], &["", "A=B", "\u{e4}", "\n"]);
        check(http_header, &["X-A"], &["", "a b"]);
        check(percent, &["0%", "150%"], &["", "%", "1", "-1%"]);
        check(config_key, &["a.b", "_A"], &["", ".", "..", "..a", "a/b"]);
    }

    #[test]
    fn generated_names_fit() {
        let name = generate(&"x".repeat(80));
        assert_eq!(name.len(), 63);
        assert!(dns_label(&name).is_empty());
    }
}
