//! Devices: what drivers publish, and classes of them.

use api::{Value, names};

use super::check::At;
use super::pod::validate_node_selector;
use super::volume_sources::validate_driver_name;
use super::{Entry, Errors, Field, Strategy};

const GROUP: &str = "resource.k8s.io";

pub(super) const STRATEGIES: &[Entry] =
    &[(GROUP, "resourceslices", &SLICE), (GROUP, "deviceclasses", &CLASS)];

static CLASS: Strategy = Strategy { generation: true, ..Strategy::NEUTRAL };

static SLICE: Strategy = Strategy {
    fields: &[
        Field::text("spec.nodeName", &["spec", "nodeName"]),
        Field::text("spec.driver", &["spec", "driver"]),
    ],
    validate: validate_slice,
    validate_update: |new, old, errors| {
        let spec = At::of(new, "spec");
        for field in ["pool.name", "driver", "nodeName"] {
            let before = field.split('.').fold(old.get("spec"), Value::get);
            spec.get(field).immutable(errors, before);
        }
    },
    generation: true,
    ..Strategy::NEUTRAL
};

fn validate_slice(slice: &Value, errors: &mut Errors) {
    let spec = At::of(slice, "spec");
    validate_driver_name(&spec.get("driver"), errors);
    let pool = spec.get("pool");
    validate_pool_name(&pool.get("name"), errors);
    pool.get("resourceSliceCount").positive(errors);
    let generation = pool.get("generation");
    if generation.int() < 0 {
        generation.invalid(errors, "must be greater than or equal to zero");
    }
    validate_place(&spec, errors);
    if spec.get("sharedCounters").is_set() && spec.get("devices").is_set() {
        spec.invalid_as(errors, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    validate_devices(&spec, errors);
}

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

/// Devices are on one node, on some, on all, or each says where it is.
fn validate_place(spec: &At<'_>, errors: &mut Errors) {
    let mut set: Vec<&str> = Vec::new();
    let (node, selector) = (spec.get("nodeName"), spec.get("nodeSelector"));
    if node.is_set() && node.text().is_empty() {
        node.invalid(errors, "must be either unset or set to a non-empty string");
    } else if node.is_set() {
        set.push("`nodeName`");
        node.named(errors, names::dns_subdomain);
    }
    if selector.is_set() {
        set.push("`nodeSelector`");
        validate_node_selector(&selector, errors);
        let terms = selector.get("nodeSelectorTerms");
        if terms.len() != 1 {
            terms.invalid(errors, "must have exactly one node selector term");
        }
    }
    for (field, name) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")]
    {
        let flag = spec.get(field);
        if flag.is_true() {
            set.push(name);
        } else if flag.is_set() {
            flag.invalid(errors, "must be either unset or set to true");
        }
    }
    let why = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.len() {
        0 => spec.required(errors, why),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", set.join(", "));
            spec.invalid_as(errors, shown, format!("{why}, but multiple fields are set"));
        }
    }
}

fn validate_devices(spec: &At<'_>, errors: &mut Errors) {
    const DEVICES: usize = 128;
    let devices = spec.get("devices");
    devices.not_more(errors, DEVICES);
    let mut seen: Vec<String> = Vec::new();
    for device in devices.items() {
        let name = device.get("name");
        name.required_name(errors, names::dns_label);
        if seen.iter().any(|n| n == name.text()) {
            let value = Value::from(name.text());
            device.with(&value).duplicate(errors);
        }
        seen.push(name.text().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn slices_are_somewhere() {
        let check = |place: &str, want: &[&str]| {
            let mut slice =
                object!({"spec": {"driver": "a.b", "pool": {"name": "p", "resourceSliceCount": 1}}});
            if !place.is_empty() {
                slice.set(&["spec", place], true);
            }
            let mut errors = Vec::new();
            validate_slice(&slice, &mut errors);
            assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), want);
        };
        check("allNodes", &[]);
        check("", &["spec"]);
    }
}
