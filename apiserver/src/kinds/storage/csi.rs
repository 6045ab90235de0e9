//! CSI drivers, where they run, and how much room they have.

use std::collections::HashSet;

use api::{Value, names};

use super::{default_if_empty, default_to, validate_driver_name};
use crate::kinds::check::At;
use crate::kinds::{Errors, Strategy};

pub(super) static DRIVER: Strategy = Strategy {
    default: |d| {
        let spec = d.make_object().entry("spec");
        default_to(spec, "attachRequired", true);
        default_to(spec, "podInfoOnMount", false);
        default_to(spec, "storageCapacity", false);
        default_to(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        default_if_empty(spec, "volumeLifecycleModes", vec!["Persistent"]);
        default_to(spec, "requiresRepublish", false);
        default_to(spec, "seLinuxMount", false);
    },
    prepare_create: |d| {
        d.remove_at(&["spec", "preventPodSchedulingIfMissing"]);
    },
    prepare_update: |new, old| {
        if old.at(&["spec", "preventPodSchedulingIfMissing"]).is_null() {
            new.remove_at(&["spec", "preventPodSchedulingIfMissing"]);
        }
        if new.get("spec") != old.get("spec") {
            let generation = old.at(&["metadata", "generation"]).as_i64().unwrap_or(0);
            new.set(&["metadata", "generation"], generation + 1);
        }
    },
    validate: validate_driver,
    validate_update: |new, old, errors| {
        for (field, name) in
            [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            let spec = At::of(new, "spec");
            let at = At { value: spec.value.get(field), path: spec.path.child(name) };
            at.immutable(errors, old.at(&["spec", field]));
        }
    },
    warn: recommend,
    warn_change: Some(|new, old| {
        let same = new.at(&["spec", "tokenRequests"]) == old.at(&["spec", "tokenRequests"]);
        if same { Vec::new() } else { recommend(new) }
    }),
    unconditional_update: false,
    ..Strategy::NEUTRAL
};

/// Tokens are better kept in secrets.
fn recommend(driver: &Value) -> Vec<String> {
    let tokens = !driver.array_at(&["spec", "tokenRequests"]).is_empty();
    let plain = driver.at(&["spec", "serviceAccountTokenInSecrets"]).is_null();
    (tokens && plain).then(|| RECOMMENDED.to_owned()).into_iter().collect()
}

const RECOMMENDED: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";

fn validate_driver(driver: &Value, errors: &mut Errors) {
    let spec = At::of(driver, "spec");
    for (field, name) in [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ] {
        if !spec.get(field).is_set() {
            spec.get(name).required(errors, "");
        }
    }
    spec.get("fsGroupPolicy").one_of(errors, &["File", "None", "ReadWriteOnceWithFSType"]);
    let requests = spec.get("tokenRequests");
    validate_tokens(&requests, errors);
    let modes = spec.get("volumeLifecycleModes");
    for mode in modes.items() {
        if !matches!(mode.text(), "Persistent" | "Ephemeral") {
            modes.with(mode.value).unsupported(errors, &["Persistent", "Ephemeral"]);
        }
    }
    if !spec.get("seLinuxMount").is_set() {
        spec.get("seLinuxMount").required(errors, "");
    }
    let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
    if period.is_set() && period.int() < 10 {
        period.invalid(errors, "must be greater than or equal to 10 seconds");
    }
    let secret = spec.get("serviceAccountTokenInSecrets");
    if secret.is_set() && requests.len() == 0 {
        secret.invalid(errors, "serviceAccountTokenInSecrets is set but no tokenRequests are specified");
    }
}

fn validate_tokens(requests: &At<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for request in requests.items() {
        let (audience, expiration) = (request.get("audience"), request.get("expirationSeconds"));
        if !seen.insert(audience.text().to_owned()) {
            audience.with(&audience.text().into()).duplicate(errors);
            continue;
        }
        if expiration.is_set() && expiration.int() < 600 {
            expiration.invalid(errors, "may not specify a duration less than 10 minutes");
        }
        if expiration.int() > 1 << 32 {
            expiration.invalid(errors, "may not specify a duration larger than 2^32 seconds");
        }
    }
}

pub(super) static NODE: Strategy = Strategy {
    validate: validate_node,
    validate_update: |new, old, errors| {
        let list = At::of(new, "spec.drivers");
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            driver.make_object().remove("allocatable");
            driver
        };
        for before in old.array_at(&["spec", "drivers"]) {
            let same = |d: &&Value| d.get("name") == before.get("name");
            for driver in new.array_at(&["spec", "drivers"]).iter().filter(same) {
                let (is, was) = (fixed(driver), fixed(before));
                list.with(&is).immutable_struct(errors, &was, "storage/v1.CSINodeDriver");
            }
        }
    },
    unconditional_update: false,
    ..Strategy::NEUTRAL
};

fn validate_node(node: &Value, errors: &mut Errors) {
    const ID: usize = 256;
    let mut seen = HashSet::new();
    for driver in At::of(node, "spec.drivers").items() {
        let (name, id) = (driver.get("name"), driver.get("nodeID"));
        validate_driver_name(&name, errors);
        id.not_empty(errors);
        if id.text().len() > ID {
            id.invalid(errors, format!("must be {ID} characters or less"));
        }
        driver.get("allocatable.count").not_negative(errors);
        if !seen.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
        let mut keys = HashSet::new();
        for key in driver.get("topologyKeys").texts() {
            let value = Value::from(key);
            let at = driver.with(&value);
            at.not_empty(errors);
            if !keys.insert(key) {
                at.duplicate(errors);
            }
            at.qualified(errors);
        }
    }
}

pub(super) static CAPACITY: Strategy = Strategy {
    validate: |capacity, errors| {
        At::of(capacity, "nodeTopology").label_selector(errors);
        At::of(capacity, "storageClassName").named(errors, names::dns_subdomain);
        At::of(capacity, "capacity").quantity_not_negative(errors);
    },
    validate_update: |new, old, errors| {
        let topology = At::of(new, "nodeTopology");
        topology.immutable_struct(errors, old.get("nodeTopology"), "meta/v1.LabelSelector");
        At::of(new, "storageClassName").immutable(errors, old.get("storageClassName"));
    },
    unconditional_update: false,
    ..Strategy::NEUTRAL
};

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn drivers_of_a_node_differ() {
        let mut errors = Vec::new();
        let driver = || object!({"name": "a.b", "nodeID": "n"});
        validate_node(&object!({"spec": {"drivers": [(driver()), (driver())]}}), &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["spec.drivers[1].name: Duplicate value: \"a.b\""]
        );
    }

    #[test]
    fn a_driver_asks_for_tokens_that_live_long_enough() {
        let mut driver = object!({"spec": {"tokenRequests": [{"audience": "a", "expirationSeconds": 5}]}});
        (DRIVER.default)(&mut driver);
        let mut errors = Vec::new();
        validate_driver(&driver, &mut errors);
        assert_eq!(errors.len(), 1);
    }
}
