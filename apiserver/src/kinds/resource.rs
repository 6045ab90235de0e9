//! Devices: what drivers publish, classes of them, and claims to them.

mod claim;
mod device_status;
mod slice;

use api::{Value, names};

use super::check::At;
use super::volume_sources::validate_driver_name;
use super::{Entry, Errors};

const GROUP: &str = "resource.k8s.io";
const ID_BYTES: usize = 32;
const CONDITIONS: usize = 4;

pub(super) const STRATEGIES: &[Entry] = &[
    (GROUP, "resourceslices", &slice::SLICE),
    (GROUP, "deviceclasses", &claim::CLASS),
    (GROUP, "resourceclaims", &claim::CLAIM),
    (GROUP, "resourceclaimtemplates", &claim::TEMPLATE),
];

fn validate_pool_name(name: &At<'_>, errors: &mut Errors) {
    if !name.not_empty(errors) {
        return;
    }
    name.not_longer(errors, 253);
    for part in name.text().split('/') {
        for why in names::dns_subdomain(part) {
            name.invalid_as(errors, part, why);
        }
    }
}

/// A name of a driver's own, or one that says whose it is. More than one slash is let through, as upstream does.
fn validate_qualified(at: &At<'_>, name: &str, errors: &mut Errors) {
    let own = match name.split('/').collect::<Vec<_>>().as_slice() {
        [own] => *own,
        [domain, own] => {
            if domain.is_empty() {
                at.invalid_as(errors, "", "the domain must not be empty");
            } else {
                let domain = Value::from(*domain);
                validate_driver_name(&at.with(&domain), errors);
            }
            if own.is_empty() {
                return at.invalid_as(errors, "", "the name must not be empty");
            }
            own
        }
        _ => return,
    };
    let shown = Value::from(own);
    at.with(&shown).not_longer(errors, ID_BYTES);
    let first = own.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || !own.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        let why = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        at.invalid_as(errors, own, why);
    }
}

/// Checks each item of a list that is not too long and has no `key` twice.
fn each_named(
    list: &At<'_>,
    most: usize,
    key: &str,
    errors: &mut Errors,
    check: &dyn Fn(&At<'_>, &mut Errors),
) {
    if !list.not_more(errors, most) {
        return;
    }
    list.items().for_each(|item| check(&item, errors));
    let mut seen: Vec<&str> = Vec::new();
    for item in list.items() {
        let name = item.value.str_at(&[key]);
        if seen.contains(&name) {
            let name = Value::from(name);
            item.with(&name).duplicate(errors);
        } else {
            seen.push(name);
        }
    }
}

/// What must be true before a pod is bound, and what may not be.
fn validate_binding_conditions(device: &At<'_>, errors: &mut Errors) {
    let (wanted, feared) = (device.get("bindingConditions"), device.get("bindingFailureConditions"));
    for list in [&wanted, &feared] {
        if list.not_more(errors, CONDITIONS) {
            list.items().for_each(|name| name.named(errors, names::qualified_name));
        }
    }
    let (good, bad) = (wanted.texts(), feared.texts());
    for (list, texts) in [(&wanted, &good), (&feared, &bad)] {
        for (i, item) in list.items().enumerate() {
            if texts[..i].contains(&item.text()) {
                item.duplicate(errors);
            }
        }
    }
    for item in feared.items().filter(|item| good.contains(&item.text())) {
        item.invalid(errors, "bindingFailureConditions must not overlap with bindingConditions");
    }
    if good.is_empty() && !bad.is_empty() {
        wanted.invalid(errors, "bindingConditions are required to use bindingFailureConditions");
    }
    if bad.is_empty() && !good.is_empty() {
        feared.invalid(errors, "bindingFailureConditions are required to use bindingConditions");
    }
}
