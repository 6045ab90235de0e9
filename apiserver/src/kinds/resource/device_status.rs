//! What drivers tell of the devices that a claim was given.

use std::net::IpAddr;

use api::field::Problem;
use api::{Value, names};

use super::claim::validate_raw;
use super::validate_pool_name;
use crate::kinds::Errors;
use crate::kinds::check::At;
use crate::kinds::volume_sources::validate_driver_name;

const CONDITIONS: usize = 8;
const ADDRESSES: usize = 16;
const INTERFACE_BYTES: usize = 256;
const HARDWARE_BYTES: usize = 128;

/// Checks what is told of a device; `unknown` shows one that the claim was not given.
pub(super) fn validate(device: &At<'_>, unknown: Option<Value>, errors: &mut Errors) {
    validate_driver_name(&device.get("driver"), errors);
    validate_pool_name(&device.get("pool"), errors);
    device.get("device").named(errors, names::dns_label);
    validate_share(&device.get("shareID"), errors);
    if let Some(shown) = unknown {
        device.invalid_as(errors, shown, "must be an allocated device in the claim");
    }
    let conditions = device.get("conditions");
    conditions.not_more(errors, CONDITIONS);
    let before = errors.len();
    conditions.conditions(errors);
    for error in errors[before..].iter_mut().filter(|e| e.problem == Problem::Required) {
        // What is required of conditions here is told without a word about it.
        error.detail.clear();
    }
    if device.get("data").is_set() {
        validate_raw(&device.get("data"), false, errors);
    }
    validate_network(&device.get("networkData"), errors);
}

/// A share of a device is named by a UUID.
pub(super) fn validate_share(share: &At<'_>, errors: &mut Errors) {
    const NORMAL: &str = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
    if !share.is_set() {
        return;
    }
    match wrong_uuid(share.text()) {
        Some(why) => share.invalid(errors, format!("error validating uid: {why}")),
        None if share.text().bytes().any(|b| b.is_ascii_uppercase()) => share.invalid(errors, NORMAL),
        None => {}
    }
}

fn wrong_uuid(text: &str) -> Option<String> {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    if text.len() != 36 {
        return Some(format!("invalid UUID length: {}", text.len()));
    }
    let fits = |(at, b): (usize, u8)| if DASHES.contains(&at) { b == b'-' } else { b.is_ascii_hexdigit() };
    (!text.bytes().enumerate().all(fits)).then(|| "invalid UUID format".to_owned())
}

fn validate_network(network: &At<'_>, errors: &mut Errors) {
    network.get("interfaceName").not_longer(errors, INTERFACE_BYTES);
    network.get("hardwareAddress").not_longer(errors, HARDWARE_BYTES);
    let addresses = network.get("ips");
    if !addresses.not_more(errors, ADDRESSES) {
        return;
    }
    for address in addresses.items() {
        match canonical(address.text()) {
            None => {
                let why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
                address.invalid(errors, why);
            }
            Some(canonical) if canonical != address.text() => {
                address.invalid(errors, format!("must be in canonical form ({canonical:?})"));
            }
            Some(_) => {}
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for address in addresses.items() {
        match seen.contains(&address.text()) {
            true => address.duplicate(errors),
            false => seen.push(address.value.as_str().unwrap_or_default()),
        }
    }
}

/// An address and the length of its prefix, as they should be written.
fn canonical(text: &str) -> Option<String> {
    let (address, length) = text.split_once('/')?;
    // Zeros before the numbers of an address were once allowed.
    let plain: Vec<&str> = address
        .split('.')
        .map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0",
            rest => rest,
        })
        .collect();
    let ip: IpAddr = address.parse().ok().or_else(|| plain.join(".").parse().ok())?;
    let length: u8 = length.parse().ok().filter(|n| *n <= if ip.is_ipv4() { 32 } else { 128 })?;
    Some(format!("{ip}/{length}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_form() {
        let check = |text: &str, want: Option<&str>| assert_eq!(canonical(text).as_deref(), want, "{text}");
        check("10.0.0.1/8", Some("10.0.0.1/8"));
        check("010.0.0.1/8", Some("10.0.0.1/8"));
        check("FE80::1/64", Some("fe80::1/64"));
        check("10.0.0.1", None);
        check("10.0.0.1/33", None);
        check("1", None);
    }

    #[test]
    fn shares_are_named_by_uuids() {
        assert_eq!(wrong_uuid("123e4567-e89b-12d3-a456-426614174000"), None);
        assert_eq!(wrong_uuid("x").unwrap(), "invalid UUID length: 1");
        assert_eq!(wrong_uuid("123e4567-e89b-12d3-a456-42661417400g").unwrap(), "invalid UUID format");
    }
}
