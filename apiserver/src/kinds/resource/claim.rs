//! ResourceClaims, their templates and DeviceClasses: which devices are asked for, and which have been found.

use std::collections::{HashMap, HashSet};

use api::{Value, names, object};
use cel::Version;
use cel::device::Selector;

use super::{device_status, validate_binding_conditions, validate_pool_name, validate_qualified};
use crate::kinds::check::At;
use crate::kinds::pod::validate_node_selector;
use crate::kinds::pod::validate_template_metadata;
use crate::kinds::resource_names::is_extended;
use crate::kinds::volume_sources::validate_driver_name;
use crate::kinds::{Errors, Part, StatusMetadata, Strategy, default_if_empty, default_to};

const REQUESTS: usize = 32;
const SUBREQUESTS: usize = 8;
const LIST: usize = 32;
const TOLERATIONS: usize = 16;
const CONSUMERS: usize = 256;
const EXPRESSION_BYTES: usize = 10 * 1024;
const EXPRESSION_COST: u64 = 1_000_000;
const PARAMETER_BYTES: usize = 10 * 1024;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

pub(super) static CLAIM: Strategy = Strategy {
    status_metadata: StatusMetadata::Managers,
    default: |claim| {
        default_requests(claim.at_mut(&["spec", "devices", "requests"]));
        let results = claim.at_mut(&["status", "allocation", "devices", "results"]);
        results.and_then(Value::as_array_mut).into_iter().flatten().for_each(default_tolerations);
    },
    validate: |claim, errors| validate_devices(&At::of(claim, "spec.devices"), errors),
    validate_update: |new, old, errors| {
        At::of(new, "spec").immutable_struct(errors, old.get("spec"), "resource/v1.ResourceClaimSpec");
    },
    revalidates: false,
    parts: &[Part {
        name: "status",
        fixed: &[&["metadata"], &["spec"]],
        prepare: drop_freed_devices,
        validate: validate_status,
    }],
    ..Strategy::NEUTRAL
};

pub(super) static TEMPLATE: Strategy = Strategy {
    default: |template| default_requests(template.at_mut(&["spec", "spec", "devices", "requests"])),
    validate: |template, errors| {
        let metadata = At::of(template, "spec.metadata");
        validate_template_metadata(&metadata, errors);
        validate_devices(&At::of(template, "spec.spec.devices"), errors);
    },
    validate_update: |new, old, errors| {
        let ty = "resource/v1.ResourceClaimTemplateSpec";
        At::of(new, "spec").immutable_struct(errors, old.get("spec"), ty);
    },
    ..Strategy::NEUTRAL
};

pub(super) static CLASS: Strategy = Strategy {
    name: api::names::long_name,
    prefix: Some(api::names::path_segment),
    validate: |class, errors| validate_class(class, None, errors),
    validate_update: |new, old, errors| validate_class(new, Some(old), errors),
    revalidates: false,
    generation: true,
    ..Strategy::NEUTRAL
};

fn default_requests(requests: Option<&mut Value>) {
    for request in requests.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(exactly) = request.at_mut(&["exactly"]).filter(|e| !e.is_null()) {
            default_count(exactly);
        }
        let subrequests = request.at_mut(&["firstAvailable"]).and_then(Value::as_array_mut);
        subrequests.into_iter().flatten().for_each(default_count);
    }
}

fn default_tolerations(of: &mut Value) {
    let tolerations = of.make_object().get_mut("tolerations").and_then(Value::as_array_mut);
    for toleration in tolerations.into_iter().flatten() {
        default_if_empty(toleration, "operator", "Equal");
    }
}

fn default_count(request: &mut Value) {
    default_tolerations(request);
    default_to(request, "allocationMode", "ExactCount");
    let counts = request.str_at(&["allocationMode"]) == "ExactCount";
    if counts && request.get("count").as_i64().unwrap_or(0) == 0 {
        request.set(&["count"], 1);
    }
}

/// The requests of a claim, each with the names of those that it can be met by.
type Requests<'c> = HashMap<&'c str, HashSet<&'c str>>;

fn requests_of(devices: &Value) -> Requests<'_> {
    let each = devices.array_at(&["requests"]).iter();
    each.map(|request| {
        let others = request.array_at(&["firstAvailable"]).iter();
        (request.str_at(&["name"]), others.map(|other| other.str_at(&["name"])).collect())
    })
    .collect()
}

/// Checks each item of a list that is not too long.
fn each(list: &At<'_>, most: usize, errors: &mut Errors, check: &dyn Fn(&At<'_>, &mut Errors)) {
    if list.not_more(errors, most) {
        list.items().for_each(|item| check(&item, errors));
    }
}

/// Checks each item of a list that is not too long and has no key twice.
fn each_once(
    list: &At<'_>,
    most: usize,
    errors: &mut Errors,
    key: &dyn Fn(&Value) -> Value,
    check: &dyn Fn(&At<'_>, &mut Errors),
) {
    each(list, most, errors, check);
    let mut seen: Vec<Value> = Vec::new();
    for item in list.items().take(if list.len() > most { 0 } else { most }) {
        let key = key(item.value);
        if seen.contains(&key) {
            item.with(&key).duplicate(errors);
        } else {
            seen.push(key);
        }
    }
}

fn name_of(item: &Value) -> Value {
    item.str_at(&["name"]).into()
}

fn validate_devices(devices: &At<'_>, errors: &mut Errors) {
    let requests = requests_of(devices.value);
    each_once(&devices.get("requests"), REQUESTS, errors, &name_of, &validate_request);
    each(&devices.get("constraints"), LIST, errors, &|constraint, errors| {
        validate_names(&constraint.get("requests"), &requests, errors);
        let (same, other) = (constraint.get("matchAttribute"), constraint.get("distinctAttribute"));
        match (same.is_set(), other.is_set()) {
            (true, _) => validate_full_name(&same, errors),
            (_, true) => validate_full_name(&other, errors),
            _ => constraint.required(errors, "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set"),
        }
    });
    each(&devices.get("config"), LIST, errors, &|config, errors| {
        validate_names(&config.get("requests"), &requests, errors);
        validate_configuration(config, false, errors);
    });
}

fn validate_request(request: &At<'_>, errors: &mut Errors) {
    request.get("name").named(errors, names::dns_label);
    let (exactly, first) = (request.get("exactly"), request.get("firstAvailable"));
    match (exactly.is_set(), first.len() > 0) {
        (false, false) => {
            request.required(errors, "exactly one of `exactly` or `firstAvailable` is required");
        }
        (true, true) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            request.invalid_as(errors, Value::Null, why);
        }
        (true, false) => validate_exact(&exactly, errors),
        (false, true) => each_once(&first, SUBREQUESTS, errors, &name_of, &|one, errors| {
            one.get("name").named(errors, names::dns_label);
            validate_exact(one, errors);
        }),
    }
}

fn validate_exact(request: &At<'_>, errors: &mut Errors) {
    request.get("deviceClassName").required_name(errors, names::dns_subdomain);
    validate_selectors(&request.get("selectors"), false, errors);
    let (mode, count) = (request.get("allocationMode"), request.get("count"));
    match mode.text() {
        "All" if count.int() != 0 => {
            count.invalid(errors, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if count.int() <= 0 => {
            count.invalid_as(errors, count.int(), "must be greater than zero");
        }
        "All" | "ExactCount" => {}
        _ => mode.unsupported(errors, &["All", "ExactCount"]),
    }
    let tolerations = request.get("tolerations");
    each(&tolerations, TOLERATIONS, errors, &validate_toleration);
}

fn validate_toleration(toleration: &At<'_>, errors: &mut Errors) {
    let (operator, value) = (toleration.get("operator"), toleration.get("value"));
    toleration.get("key").named_if_any(errors, names::qualified_name);
    match operator.text() {
        "Exists" if !value.text().is_empty() => {
            value.invalid(errors, "must be empty for operator `Exists`");
        }
        "Equal" => value.named(errors, names::label_value),
        _ => operator.required_one_of(errors, &["Equal", "Exists"]),
    }
    let effect = toleration.get("effect");
    if !effect.text().is_empty() {
        effect.one_of(errors, &EFFECTS);
    }
}

/// Checks selectors; those that are `stored` may use what new ones may not yet.
fn validate_selectors(selectors: &At<'_>, stored: bool, errors: &mut Errors) {
    each(selectors, LIST, errors, &|selector, errors| {
        let cel = selector.get("cel");
        if !cel.is_set() {
            return cel.required(errors, "");
        }
        let expression = cel.get("expression");
        if expression.text().len() > EXPRESSION_BYTES {
            return expression.not_longer(errors, EXPRESSION_BYTES);
        }
        let version = if stored { Version::STORED } else { Version::NEW };
        match Selector::new(expression.text(), version) {
            Err(why) => expression.invalid_as(errors, expression.text(), why),
            Ok(compiled) if compiled.max_cost() > EXPRESSION_COST => {
                expression.forbidden(errors, "too complex, exceeds cost limit");
            }
            Ok(_) => {}
        }
    });
}

fn validate_names(list: &At<'_>, requests: &Requests<'_>, errors: &mut Errors) {
    each_once(list, REQUESTS, errors, &Value::clone, &|name, errors| validate_name(name, requests, errors));
}

/// The name of a request, or of one of those that it can be met by.
fn validate_name(name: &At<'_>, requests: &Requests<'_>, errors: &mut Errors) {
    let why = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let text = name.text();
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() > 2 {
        return name.invalid(errors, why);
    }
    for part in &parts {
        let part = Value::from(*part);
        name.with(&part).named(errors, names::dns_label);
    }
    let known = requests.get(parts[0]).is_some_and(|sub| parts.get(1).is_none_or(|part| sub.contains(part)));
    if !known {
        name.invalid_as(errors, text, why);
    }
}

/// A name that says whose it is.
fn validate_full_name(name: &At<'_>, errors: &mut Errors) {
    validate_qualified(name, name.text(), errors);
    if !name.text().contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        name.invalid(errors, why);
    }
}

fn validate_configuration(config: &At<'_>, stored: bool, errors: &mut Errors) {
    let opaque = config.get("opaque");
    if !opaque.is_set() {
        return opaque.required(errors, "");
    }
    validate_driver_name(&opaque.get("driver"), errors);
    validate_raw(&opaque.get("parameters"), stored, errors);
}

/// A JSON object of any sort that is not too large.
pub(super) fn validate_raw(raw: &At<'_>, stored: bool, errors: &mut Errors) {
    match raw.value {
        Value::Null => raw.required(errors, ""),
        value if !stored && value.to_json().len() > PARAMETER_BYTES => {
            errors.push(api::field::FieldError::too_long(&raw.path, PARAMETER_BYTES));
        }
        Value::Object(_) => {}
        _ => raw.invalid_as(errors, "<value omitted>", "must be a valid JSON object"),
    }
}

fn validate_class(class: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = At::of(class, "spec");
    let stored = |field: &str| old.is_some_and(|old| old.at(&["spec", field]) == spec.value.get(field));
    validate_selectors(&spec.get("selectors"), stored("selectors"), errors);
    let known = stored("config");
    each(&spec.get("config"), LIST, errors, &|config, errors| validate_configuration(config, known, errors));
    let extended = spec.get("extendedResourceName");
    if extended.is_set() && !is_extended(extended.text()) {
        extended.invalid(errors, "must be a valid extended resource name");
    }
}

/// What identifies a device that is allocated.
fn device_of(result: &Value) -> [String; 4] {
    ["driver", "pool", "device", "shareID"].map(|field| result.str_at(&[field]).to_owned())
}

fn allocated(claim: &Value) -> HashSet<[String; 4]> {
    claim.array_at(&["status", "allocation", "devices", "results"]).iter().map(device_of).collect()
}

/// The same as messages show it.
fn shown_device(device: &Value) -> Value {
    let [driver, pool, name, share] = device_of(device);
    object!({"Driver": driver, "Pool": pool, "Device": name, "ShareID": share})
}

/// What is told of devices goes with them.
fn drop_freed_devices(new: &mut Value, old: &Value) {
    let (is, was) = (allocated(new), allocated(old));
    let Some(devices) = new.at_mut(&["status", "devices"]).and_then(Value::as_array_mut) else { return };
    devices.retain(|d| is.contains(&device_of(d)) || !was.contains(&device_of(d)));
    if devices.is_empty() {
        new.remove_at(&["status", "devices"]);
    }
}

fn validate_status(new: &Value, old: &Value, errors: &mut Errors) {
    let (status, requests) = (At::of(new, "status"), requests_of(new.at(&["spec", "devices"])));
    let (consumers, allocation) = (status.get("reservedFor"), status.get("allocation"));
    let uid = |consumer: &Value| Value::from(consumer.str_at(&["uid"]));
    each_once(&consumers, CONSUMERS, errors, &uid, &|consumer, errors| {
        for field in ["resource", "name", "uid"] {
            consumer.get(field).not_empty(errors);
        }
    });
    let known = allocated(new);
    each_once(&status.get("devices"), usize::MAX, errors, &shown_device, &|device, errors| {
        let allocated = known.contains(&device_of(device.value));
        device_status::validate(device, (!allocated).then(|| shown_device(device.value)), errors);
    });
    let before = old.array_at(&["status", "reservedFor"]);
    if consumers.len() > 0 && !allocation.is_set() {
        consumers.forbidden(errors, "may not be specified when `allocated` is not set");
    } else if new.is_terminating() && consumers.items().any(|c| !before.contains(c.value)) {
        let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        consumers.forbidden(errors, why);
    }
    let allocated_before = old.at(&["status", "allocation"]);
    if allocation.is_set() && !allocated_before.is_null() {
        allocation.immutable_struct(errors, allocated_before, "resource/v1.AllocationResult");
    } else if allocation.is_set() {
        validate_allocation(&allocation, &requests, errors);
    }
}

fn validate_allocation(allocation: &At<'_>, requests: &Requests<'_>, errors: &mut Errors) {
    let devices = allocation.get("devices");
    each(&devices.get("results"), LIST, errors, &|result, errors| {
        validate_name(&result.get("request"), requests, errors);
        validate_driver_name(&result.get("driver"), errors);
        validate_pool_name(&result.get("pool"), errors);
        result.get("device").named(errors, names::dns_label);
        validate_binding_conditions(result, errors);
        device_status::validate_share(&result.get("shareID"), errors);
    });
    each(&devices.get("config"), 2 * LIST, errors, &|config, errors| {
        config.get("source").required_one_of(errors, &["FromClaim", "FromClass"]);
        validate_names(&config.get("requests"), requests, errors);
        validate_configuration(config, false, errors);
    });
    let selector = allocation.get("nodeSelector");
    if selector.is_set() {
        validate_node_selector(&selector, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(strategy: &Strategy, mut object: Value, want: &[&str]) {
        (strategy.default)(&mut object);
        let mut errors = Vec::new();
        (strategy.validate)(&object, &mut errors);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
    }

    fn claim(devices: Value) -> Value {
        object!({"spec": {"devices": devices}})
    }

    #[test]
    fn claims_ask_for_devices() {
        let good = object!({
            "requests": [
                {"name": "a", "exactly": {"deviceClassName": "c", "selectors": [{"cel": {"expression": "device.driver == 'd'"}}]}},
                {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "c"}, {"name": "y", "deviceClassName": "c", "allocationMode": "All"}]},
            ],
            "constraints": [{"requests": ["a", "b/x"], "matchAttribute": "d.example.com/model"}],
            "config": [{"opaque": {"driver": "d.example.com", "parameters": {"a": 1}}}],
        });
        check(&CLAIM, claim(good), &[]);
        let wrong = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        check(
            &CLAIM,
            claim(object!({
                "requests": [{"name": "a"}, {"name": "a", "exactly": {"count": (-1)}}],
                "constraints": [{"requests": ["b"]}],
                "config": [{"opaque": {"driver": "d", "parameters": 1}}],
            })),
            &[
                "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                "spec.devices.requests[1].exactly.deviceClassName: Required value",
                "spec.devices.requests[1].exactly.count: Invalid value: -1: must be greater than zero",
                "spec.devices.requests[1]: Duplicate value: \"a\"",
                &format!("spec.devices.constraints[0].requests[0]: Invalid value: \"b\": {wrong}"),
                "spec.devices.constraints[0]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
                "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
            ],
        );
    }

    #[test]
    fn classes_select_devices() {
        let class = |expression: &str| object!({"spec": {"selectors": [{"cel": {"expression": expression}}], "extendedResourceName": "example.com/gpu"}});
        check(&CLASS, class("device.attributes['d'].model == 'x'"), &[]);
        let mut errors = Vec::new();
        (CLASS.validate)(&class("device.nope"), &mut errors);
        assert_eq!(errors[0].field, "spec.selectors[0].cel.expression");
        check(
            &CLASS,
            object!({"spec": {"selectors": [{}], "extendedResourceName": "cpu"}}),
            &[
                "spec.selectors[0].cel: Required value",
                "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name",
            ],
        );
    }

    #[test]
    fn what_is_allocated_stays_so() {
        let devices = object!({"requests": [{"name": "a", "exactly": {"deviceClassName": "c"}}]});
        let with = |status: Value| {
            let mut claim = claim(devices.clone());
            claim.set(&["status"], status);
            claim
        };
        let result = object!({"request": "a", "driver": "d", "pool": "p", "device": "x"});
        let allocation = object!({"devices": {"results": [result]}});
        let consumer = object!({"resource": "pods", "name": "p", "uid": "u"});
        let check = |new: Value, old: Value, want: &[&str]| {
            let mut errors = Vec::new();
            validate_status(&with(new), &with(old), &mut errors);
            assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), want);
        };
        let reserved = object!({"allocation": (allocation.clone()), "reservedFor": [(consumer.clone())]});
        check(reserved.clone(), object!({}), &[]);
        check(
            object!({"reservedFor": [(consumer.clone()), consumer]}),
            object!({}),
            &["status.reservedFor[1]", "status.reservedFor"],
        );
        let mut other = reserved.clone();
        other.set(&["allocation", "nodeSelector"], object!({}));
        check(other, reserved, &["status.allocation"]);
    }
}
