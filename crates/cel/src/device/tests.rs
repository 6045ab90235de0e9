use api::object;

use super::{Device, Selector};
use crate::env::Version;

fn device() -> Device {
    let device = object!({
        "name": "gpu-0",
        "allowMultipleAllocations": true,
        "attributes": {
            "model": {"string": "A100"}, "numa": {"int": 1}, "ok": {"bool": true},
            "other.example.com/driverVersion": {"version": "1.2.3"}
        },
        "capacity": {"memory": {"value": "80Gi"}}
    });
    Device::new("gpu.example.com", &device).unwrap()
}

fn check(expression: &str, expected: &str) {
    let outcome = match Selector::new(expression, Version::STORED) {
        Ok(selector) => selector.matches(&device()).map_or_else(|e| e.to_string(), |b| b.to_string()),
        Err(e) => e,
    };
    assert!(outcome.starts_with(expected), "{expression}: {outcome}");
}

#[test]
fn devices_match_selectors() {
    for expression in [
        "device.driver == 'gpu.example.com' && device.allowMultipleAllocations",
        "device.attributes['gpu.example.com'].model == 'A100' && device.attributes['gpu.example.com'].ok",
        "device.attributes['gpu.example.com'].numa > 0",
        "device.attributes['other.example.com'].driverVersion.isGreaterThan(semver('1.0.0'))",
        "device.capacity['gpu.example.com'].memory.compareTo(quantity('64Gi')) > 0",
        "cel.bind(gpu, device.attributes['gpu.example.com'], gpu.model.startsWith('A') && gpu.ok)",
        "!('unknown.example.com' in device.attributes) && !has(device.attributes['unknown.example.com'].x)",
        "'gpu.example.com' in device.attributes",
        "device.attributes['gpu.example.com'].?missing.orValue('none') == 'none'",
    ] {
        check(expression, "true");
    }
    check("device.attributes['unknown.example.com'].x == 1", "no such key: x");
    check(
        "device.attributes['gpu.example.com'].model",
        "CEL result of type string could not be converted to bool",
    );
    check("device.driver", "must evaluate to bool or the unknown type, not string");
    check("device.nope", "compilation failed: ERROR: <input>:1:7: undefined field 'nope'");
}

#[test]
fn values_that_selectors_cannot_use_are_refused() {
    let error = |device| Device::new("d", &device).unwrap_err().to_string();
    assert_eq!(error(object!({"attributes": {"a": {}}})), "attribute a: unsupported attribute value");
    assert!(
        error(object!({"attributes": {"a": {"version": "x"}}}))
            .starts_with("attribute a: parse semantic version: ")
    );
    assert!(
        error(object!({"capacity": {"c": {"value": "x"}}})).starts_with("capacity c: quantities must match")
    );
}

#[test]
fn costs_of_selectors_are_estimated() {
    let cost = |expression: &str| Selector::new(expression, Version::STORED).unwrap().max_cost();
    for (expression, expected) in [
        ("device.driver == ''", 2),
        ("device.driver == 'dra.example.com'", 4),
        ("device.attributes['dra.example.com'].name", 4),
        ("cel.bind(dra, device.attributes['dra.example.com'], dra.name)", 15),
        ("device.attributes['dra.example.com'].name > 0", 5),
        ("device.attributes['dra.example.com'].name == 'fish'", 5),
        ("device.attributes['no-such-domain'].noSuchAttr.isGreaterThan(quantity('0'))", 6),
        ("'no-such-domain' in device.attributes", 3),
    ] {
        assert_eq!(cost(expression), expected, "{expression}");
    }
    let nested = "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, a == d))))";
    assert!(cost(nested) > super::MAX_COST);
}
