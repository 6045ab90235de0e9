//! ResourceSlices: the devices that a driver publishes, and what they can do.

use api::quantity::Quantity;
use api::{Value, names};

use super::{each_named, validate_binding_conditions, validate_pool_name, validate_qualified};
use crate::kinds::check::{At, view};
use crate::kinds::pod::validate_node_selector;
use crate::kinds::volume_sources::validate_driver_name;
use crate::kinds::{Errors, Field, Strategy};

const DEVICES: usize = 128;
/// As many devices if one has taints, consumes counters or has lists for attributes.
const ADVANCED_DEVICES: usize = 64;
const COUNTER_SETS: usize = 8;
const COUNTERS: usize = 32;
const CONSUMPTIONS: usize = 2;
const ATTRIBUTES: usize = 32;
const ATTRIBUTE_VALUES: usize = 48;
const VALUE_BYTES: usize = 64;
const TAINTS: usize = 16;
const OPTIONS: usize = 10;
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

pub(super) static SLICE: Strategy = Strategy {
    fields: &[
        Field::text("spec.nodeName", &["spec", "nodeName"]),
        Field::text("spec.driver", &["spec", "driver"]),
    ],
    default: |slice| {
        let now = api::time::format(jiff::Timestamp::now());
        let devices = slice.at_mut(&["spec", "devices"]).and_then(Value::as_array_mut);
        for device in devices.into_iter().flatten() {
            for taint in device.at_mut(&["taints"]).and_then(Value::as_array_mut).into_iter().flatten() {
                crate::kinds::default_to(taint, "timeAdded", now.as_str());
            }
        }
    },
    validate: |slice, errors| validate_slice(slice, None, errors),
    validate_update: |new, old, errors| validate_slice(new, Some(old), errors),
    revalidates: false,
    generation: true,
    ..Strategy::NEUTRAL
};

fn validate_slice(slice: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::of(slice, "spec");
    validate_driver_name(&spec.get("driver"), errors);
    let pool = spec.get("pool");
    validate_pool_name(&pool.get("name"), errors);
    pool.get("resourceSliceCount").positive(errors);
    let generation = pool.get("generation");
    if generation.int() < 0 {
        generation.invalid(errors, "must be greater than or equal to zero");
    }
    if let Some(old) = old {
        for field in ["pool.name", "driver", "nodeName"] {
            let before = field.split('.').fold(old.get("spec"), Value::get);
            spec.get(field).immutable(errors, before);
        }
    }
    validate_place(&spec, errors);
    if spec.get("sharedCounters").is_set() && spec.get("devices").is_set() {
        spec.invalid_as(errors, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let devices = spec.get("devices");
    let most = if devices.items().any(|d| is_advanced(d.value)) { ADVANCED_DEVICES } else { DEVICES };
    let each_place = spec.get("perDeviceNodeSelection").is_true();
    let before = |name: &str| {
        let all = old.map_or(&[][..], |old| old.array_at(&["spec", "devices"]));
        all.iter().find(|d| d.str_at(&["name"]) == name)
    };
    each_named(&devices, most, "name", errors, &|device, errors| {
        validate_device(device, before(device.get("name").text()), each_place, errors);
    });
    each_named(&spec.get("sharedCounters"), COUNTER_SETS, "name", errors, &|set, errors| {
        set.get("name").required_name(errors, names::dns_label);
        validate_counters(&set.get("counters"), errors);
    });
}

fn is_advanced(device: &Value) -> bool {
    let lists = |attribute: &Value| LISTS.iter().any(|list| !attribute.get(list).is_null());
    let attributes = device.get("attributes").as_object();
    !device.get("taints").is_empty()
        || !device.get("consumesCounters").is_empty()
        || attributes.into_iter().flat_map(|m| m.iter()).any(|(_, attribute)| lists(attribute))
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
            let shown = terms.items().map(|term| view(term.value, "core/v1.NodeSelectorTerm"));
            let shown = if terms.len() == 0 { terms.value.clone() } else { Value::Array(shown.collect()) };
            terms.invalid_as(errors, shown, "must have exactly one node selector term");
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

fn validate_device(device: &At<'_>, before: Option<&Value>, each_place: bool, errors: &mut Errors) {
    device.get("name").named(errors, names::dns_label);
    let (attributes, capacity) = (device.get("attributes"), device.get("capacity"));
    let all = attributes.len() + capacity.len();
    if all > ATTRIBUTES {
        let why = format!("the total number of attributes and capacities must not exceed {ATTRIBUTES}");
        device.invalid_as(errors, all as i64, why);
    }
    let values: usize = attributes.entries().map(|(_, a)| count_values(a.value)).sum();
    if values > ATTRIBUTE_VALUES {
        let why = format!("the total number of attribute values must not exceed {ATTRIBUTE_VALUES}");
        device.invalid_as(errors, values as i64, why);
    }
    for (key, attribute) in attributes.entries() {
        validate_qualified(&attributes, key, errors);
        validate_attribute(&attribute, errors);
    }
    let shared = device.get("allowMultipleAllocations").is_true();
    for (key, capacity_of) in capacity.entries() {
        validate_qualified(&capacity, key, errors);
        let policy = capacity_of.get("requestPolicy");
        if policy.is_set() && shared {
            validate_policy(&capacity_of, errors);
        } else if policy.is_set() {
            policy.forbidden(errors, "allowMultipleAllocations must be true");
        }
    }
    let taints = device.get("taints");
    if before.is_none_or(|before| before.get("taints") != taints.value) && taints.not_more(errors, TAINTS) {
        for taint in taints.items() {
            taint.get("key").named(errors, names::qualified_name);
            taint.get("value").named_if_any(errors, names::label_value);
            taint.get("effect").required_one_of(errors, &["NoExecute", "NoSchedule", "None"]);
        }
    }
    let consumed = device.get("consumesCounters");
    each_named(&consumed, CONSUMPTIONS, "counterSet", errors, &|consumption, errors| {
        consumption.get("counterSet").required_name(errors, names::dns_label);
        validate_counters(&consumption.get("counters"), errors);
    });
    validate_device_place(device, each_place, errors);
    validate_binding_conditions(device, errors);
}

fn validate_counters(counters: &At<'_>, errors: &mut Errors) {
    if !counters.not_empty(errors) || !counters.not_more(errors, COUNTERS) {
        return;
    }
    for (name, _) in counters.entries() {
        let name = Value::from(name);
        counters.with(&name).named(errors, names::dns_label);
    }
}

fn validate_device_place(device: &At<'_>, each_place: bool, errors: &mut Errors) {
    let (node, selector, all) = (device.get("nodeName"), device.get("nodeSelector"), device.get("allNodes"));
    if !each_place {
        if node.is_set() || selector.is_set() || all.is_set() {
            let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            device.invalid_as(errors, Value::Null, why);
        }
        return;
    }
    let mut set: Vec<&str> = Vec::new();
    if node.is_set() && node.text().is_empty() {
        node.invalid(errors, "must not be empty");
    } else if node.is_set() {
        set.push("`nodeName`");
        node.named(errors, names::dns_subdomain);
    }
    if selector.is_set() {
        set.push("`nodeSelector`");
        validate_node_selector(&selector, errors);
    }
    if all.is_true() {
        set.push("`allNodes`");
    } else if all.is_set() {
        all.invalid(errors, "must be either unset or set to true");
    }
    let why = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match set.len() {
        0 => device.required(errors, why),
        1 => {}
        _ => device.invalid_as(errors, format!("{{{}}}", set.join(", ")), why),
    }
}

fn count_values(attribute: &Value) -> usize {
    let listed: usize = LISTS.iter().map(|list| attribute.array_at(&[list]).len()).sum();
    listed.max(1)
}

fn validate_attribute(attribute: &At<'_>, errors: &mut Errors) {
    let (text, version) = (attribute.get("string"), attribute.get("version"));
    text.not_longer(errors, VALUE_BYTES);
    if version.is_set() {
        validate_version(&version, errors);
    }
    for name in LISTS {
        let list = attribute.get(name);
        if list.is_set() && list.len() == 0 {
            list.invalid(errors, "must not be empty if specified");
        }
        for item in list.items() {
            match name {
                "strings" => item.not_longer(errors, VALUE_BYTES),
                "versions" => validate_version(&item, errors),
                _ => {}
            }
        }
    }
    let why = "exactly one value must be specified";
    let fields = ["bool", "int", "string", "version"].into_iter().chain(LISTS);
    match fields.filter(|field| attribute.get(field).is_set()).count() {
        0 => attribute.invalid_as(errors, "", why),
        1 => {}
        _ => attribute.invalid_struct(errors, "resource/v1.DeviceAttribute", why),
    }
}

fn validate_version(version: &At<'_>, errors: &mut Errors) {
    let text = version.text();
    if semver::Version::parse(text).is_err() {
        version.invalid(errors, "must be a string compatible with semver.org spec 2.0.0");
    }
    version.not_longer(errors, VALUE_BYTES);
}

/// What may be asked of a capacity that is shared.
fn validate_policy(capacity: &At<'_>, errors: &mut Errors) {
    let (policy, most) = (capacity.get("requestPolicy"), capacity.get("value"));
    let (values, range, default) =
        (policy.get("validValues"), policy.get("validRange"), policy.get("default"));
    if values.len() > 0 && range.is_set() {
        let why = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
        return policy.forbidden(errors, why);
    }
    let Some(most_amount) = most.quantity() else { return };
    match (values.len() > 0, range.is_set(), default.quantity()) {
        (true, _, None) => default.required(errors, "required when validValues is defined"),
        (_, true, None) => default.required(errors, "required when validRange is defined"),
        (true, _, Some(wanted)) => {
            validate_options(&values, wanted, &default, most_amount, most.text(), errors)
        }
        (_, true, Some(wanted)) => validate_range(&range, wanted, &default, most_amount, most.text(), errors),
        _ => {}
    }
}

fn validate_options(
    values: &At<'_>,
    default: Quantity,
    given: &At<'_>,
    most: Quantity,
    shown: &str,
    errors: &mut Errors,
) {
    let amounts: Vec<Option<Quantity>> = values.items().map(|v| v.quantity()).collect();
    for (pair, value) in amounts.windows(2).zip(values.items().skip(1)) {
        if pair[0] > pair[1] {
            value.invalid(errors, "values must be sorted in ascending order");
        }
    }
    if values.not_more(errors, OPTIONS) {
        for (value, amount) in values.items().zip(&amounts) {
            if amount.is_some_and(|amount| amount > most) {
                value.invalid(errors, format!("option is larger than capacity value: {shown}"));
            }
        }
    }
    if !amounts.contains(&Some(default)) {
        values.invalid_as(errors, given.text(), "default value is not valid according to the requestPolicy");
    }
}

fn validate_range(
    range: &At<'_>,
    default: Quantity,
    given: &At<'_>,
    most: Quantity,
    shown: &str,
    errors: &mut Errors,
) {
    let (low, high, step) = (range.get("min"), range.get("max"), range.get("step"));
    let Some(least) = low.quantity() else {
        return low.required(errors, "required when validRange is defined");
    };
    if least > most {
        low.invalid(errors, format!("min is larger than capacity value: {shown}"));
    }
    if default < least {
        low.invalid_as(errors, given.text(), format!("default is less than min: {}", low.text()));
    }
    if let Some(largest) = high.quantity() {
        if least > largest {
            high.invalid_as(errors, low.text(), format!("min is larger than max: {}", high.text()));
        }
        if largest > most {
            high.invalid(errors, format!("max is larger than capacity value: {shown}"));
        }
        if default > largest {
            high.invalid_as(errors, given.text(), format!("default is more than max: {}", high.text()));
        }
    }
    let Some(size) = step.quantity() else { return };
    let one = least.plus(size);
    if one > most {
        step.invalid(errors, format!("one step {one} is larger than capacity value: {shown}"));
    }
    for (value, text) in [(Some(default), given.text()), (high.quantity(), high.text())] {
        let Some(value) = value else { continue };
        let off = (value.units() - least.units()).checked_rem(size.units());
        if off.is_none_or(|rest| rest != 0) {
            let (size, from) = (step.text(), low.text());
            step.invalid_as(
                errors,
                text,
                format!("value is not a multiple of a given step ({size}) from ({from})"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    fn slice(device: Value) -> Value {
        object!({"spec": {
            "driver": "a.b", "pool": {"name": "p", "resourceSliceCount": 1}, "allNodes": true, "devices": [device],
        }})
    }

    fn check(slice: &Value, want: &[&str]) {
        let mut errors = Vec::new();
        validate_slice(slice, None, &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
    }

    #[test]
    fn slices_are_somewhere() {
        let mut nowhere = slice(object!({"name": "d"}));
        check(&nowhere, &[]);
        nowhere.remove_at(&["spec", "allNodes"]);
        let why = "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        check(&nowhere, &[why]);
    }

    #[test]
    fn devices_have_attributes_and_capacities() {
        let good = object!({
            "name": "d", "allowMultipleAllocations": true,
            "attributes": {"model": {"string": "x"}, "a.b/driver": {"version": "1.2.3"}, "n": {"ints": [1, 2]}},
            "capacity": {"memory": {"value": "10", "requestPolicy": {"default": "2", "validRange": {"min": "2", "max": "8", "step": "2"}}}},
            "taints": [{"key": "k", "effect": "NoSchedule"}],
        });
        check(&slice(good), &[]);
        let bad = object!({
            "name": "d",
            "attributes": {"two": {"string": "x", "int": 1}, "v": {"version": "1"}},
            "capacity": {"memory": {"value": "1", "requestPolicy": {}}},
            "taints": [{"key": "", "effect": "Never"}],
            "bindingConditions": ["c"],
        });
        let mut errors = Vec::new();
        validate_slice(&slice(bad), None, &mut errors);
        let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.devices[0].attributes[two]",
                "spec.devices[0].attributes[v].version",
                "spec.devices[0].capacity[memory].requestPolicy",
                "spec.devices[0].taints[0].key",
                "spec.devices[0].taints[0].key",
                "spec.devices[0].taints[0].effect",
                "spec.devices[0].bindingFailureConditions",
            ]
        );
    }

    #[test]
    fn what_is_asked_of_capacities_fits() {
        let with = |policy: Value| {
            slice(object!({
                "name": "d", "allowMultipleAllocations": true, "capacity": {"m": {"value": "4", "requestPolicy": policy}},
            }))
        };
        let at = "spec.devices[0].capacity[m].requestPolicy";
        check(
            &with(object!({"default": "3", "validValues": ["2", "1", "8"]})),
            &[
                &format!(
                    "{at}.validValues[1]: Invalid value: \"1\": values must be sorted in ascending order"
                ),
                &format!(
                    "{at}.validValues[2]: Invalid value: \"8\": option is larger than capacity value: 4"
                ),
                &format!(
                    "{at}.validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy"
                ),
            ],
        );
        check(
            &with(object!({"default": "2", "validRange": {"min": "1", "step": "2"}})),
            &[&format!(
                "{at}.validRange.step: Invalid value: \"2\": value is not a multiple of a given step (2) from (1)"
            )],
        );
    }
}
