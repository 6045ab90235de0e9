//! Addresses and ranges of addresses.
//!
//! Old fields take what Go's parser took before it became strict: an address that an old object has stays acceptable
//! even when it has leading zeros or is an IPv4 address written in IPv6.

use std::net::IpAddr;

use ipnet::IpNet;

use super::At;
use crate::kinds::Errors;

const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Reads an address; leading zeros in IPv4 are dropped, as old parsers do.
fn sloppy(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let parts: Vec<&str> = text.split('.').collect();
    let plain = |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    if parts.len() != 4 || !parts.iter().all(plain) {
        return None;
    }
    let trimmed = parts.iter().map(|p| {
        let rest = p.trim_start_matches('0');
        if rest.is_empty() { "0" } else { rest }
    });
    trimmed.collect::<Vec<_>>().join(".").parse().ok()
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(six) if six.to_ipv4_mapped().is_some())
}

/// An address as Go prints it: mapped ones as IPv4.
fn canonical(address: IpAddr) -> String {
    match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or_else(|| six.to_string(), |four| four.to_string()),
        IpAddr::V4(four) => four.to_string(),
    }
}

impl At<'_> {
    /// The address, if it can be read.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        sloppy(self.text()).map(|a| a.to_canonical())
    }

    /// It must be an address; those in `before` are taken as they are. True when nothing is wrong.
    pub(crate) fn legacy_ip(&self, errors: &mut Errors, before: &[&str]) -> bool {
        let text = self.text();
        if before.contains(&text) {
            return true;
        }
        let Some(address) = sloppy(text) else {
            self.invalid_as(errors, text, NO_ADDRESS);
            return false;
        };
        let found = errors.len();
        if text.parse::<IpAddr>().is_err() {
            self.invalid(errors, "must not have leading 0s");
        }
        if is_mapped(address) {
            self.invalid(errors, "must not be an IPv4-mapped IPv6 address");
        }
        errors.len() == found
    }

    /// It must be an address in canonical form; true when it is.
    pub(crate) fn strict_ip(&self, errors: &mut Errors) -> bool {
        if !self.legacy_ip(errors, &[]) {
            return false;
        }
        let text = self.text();
        let want = sloppy(text).map(canonical).unwrap_or_default();
        if text != want {
            self.invalid(errors, format!("must be in canonical form (\"{want}\")"));
        }
        text == want
    }

    /// An endpoint may not have an address that means something on every machine.
    pub(crate) fn endpoint_ip(&self, errors: &mut Errors) {
        let Some(address) = self.ip() else {
            return self.invalid_as(errors, self.text(), "must be a valid IP address");
        };
        let (link_local, link_local_multicast) = match address {
            IpAddr::V4(four) => (four.is_link_local(), four.octets()[..3] == [224, 0, 0]),
            IpAddr::V6(six) => (six.segments()[0] & 0xffc0 == 0xfe80, six.segments()[0] & 0xff0f == 0xff02),
        };
        if address.is_unspecified() {
            self.invalid(errors, format!("may not be unspecified ({})", self.text()));
        }
        if address.is_loopback() {
            self.invalid(errors, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
        }
        if link_local {
            self.invalid(errors, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
        }
        if link_local_multicast {
            self.invalid(errors, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
        }
    }

    /// The range of addresses, if it can be read.
    pub(crate) fn cidr(&self) -> Option<IpNet> {
        read_range(self.text())
    }

    /// It must be a range of addresses; those in `before` are taken as they are. True when nothing is wrong.
    pub(crate) fn legacy_cidr(&self, errors: &mut Errors, before: &[&str]) -> bool {
        let text = self.text().trim();
        if before.contains(&text) {
            return true;
        }
        let Some(range) = read_range(text) else {
            self.invalid_as(errors, text, NO_RANGE);
            return false;
        };
        let strict = text.parse::<IpNet>().is_ok() && !has_leading_zero(text);
        let why = if !strict {
            "must not have leading 0s in IP or prefix length"
        } else if is_mapped(range.addr()) {
            "must not have an IPv4-mapped IPv6 address"
        } else if range.addr() != range.network() {
            "must not have bits set beyond the prefix length"
        } else {
            return true;
        };
        self.invalid_as(errors, text, why);
        false
    }

    /// It must be a range of addresses in canonical form.
    pub(crate) fn strict_cidr(&self, errors: &mut Errors) {
        if !self.legacy_cidr(errors, &[]) {
            return;
        }
        let want = self.cidr().map(|r| r.to_string()).unwrap_or_default();
        if self.text() != want {
            self.invalid(errors, format!("must be in canonical form (\"{want}\")"));
        }
    }
}

fn has_leading_zero(range: &str) -> bool {
    range.rsplit_once('/').is_some_and(|(_, bits)| bits.len() > 1 && bits.starts_with('0'))
}

fn read_range(text: &str) -> Option<IpNet> {
    let (address, bits) = text.split_once('/')?;
    if bits.is_empty() || !bits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    IpNet::new(sloppy(address)?, bits.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn check(text: &str, rule: fn(&At<'_>, &mut Errors), want: &[&str]) {
        let object = object!({"f": text});
        let mut errors = Vec::new();
        rule(&At::of(&object, "f"), &mut errors);
        let got: Vec<&str> = errors.iter().map(|e| e.detail.as_str()).collect();
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn addresses_of_old_fields() {
        let rule = |at: &At<'_>, errors: &mut Errors| {
            at.legacy_ip(errors, &[]);
        };
        check("10.0.0.1", rule, &[]);
        check("2001:DB8::1", rule, &[]);
        check("x", rule, &[NO_ADDRESS]);
        check("010.0.0.1", rule, &["must not have leading 0s"]);
        check("::ffff:1.2.3.4", rule, &["must not be an IPv4-mapped IPv6 address"]);
    }

    #[test]
    fn addresses_in_canonical_form() {
        let rule = |at: &At<'_>, errors: &mut Errors| {
            at.strict_ip(errors);
        };
        check("2001:db8::1", rule, &[]);
        check("2001:DB8::1", rule, &["must be in canonical form (\"2001:db8::1\")"]);
    }

    #[test]
    fn ranges() {
        let rule = |at: &At<'_>, errors: &mut Errors| at.strict_cidr(errors);
        check("10.0.0.0/8", rule, &[]);
        check("10.0.0.1/8", rule, &["must not have bits set beyond the prefix length"]);
        check("10.0.0.0/08", rule, &["must not have leading 0s in IP or prefix length"]);
        check("10.0.0.0", rule, &[NO_RANGE]);
    }

    #[test]
    fn endpoints_are_elsewhere() {
        let rule = |at: &At<'_>, errors: &mut Errors| at.endpoint_ip(errors);
        check("10.0.0.1", rule, &[]);
        check("127.0.0.1", rule, &["may not be in the loopback range (127.0.0.0/8, ::1/128)"]);
        check("169.254.1.1", rule, &["may not be in the link-local range (169.254.0.0/16, fe80::/10)"]);
        check("ff02::1", rule, &["may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"]);
    }
}
