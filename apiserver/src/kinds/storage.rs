//! Storage classes, CSI objects and attachments.

mod csi;

use std::collections::{BTreeMap, BTreeSet};

use api::{Map, Value, names};

use super::check::At;
use super::volume_sources::validate_driver_name;
use super::{Entry, Errors, Part, StatusMetadata, Strategy, default_if_empty, default_to};

const GROUP: &str = "storage.k8s.io";

pub(super) const STRATEGIES: &[Entry] = &[
    (GROUP, "storageclasses", &CLASS),
    (GROUP, "volumeattributesclasses", &ATTRIBUTES),
    (GROUP, "volumeattachments", &ATTACHMENT),
    (GROUP, "csidrivers", &csi::DRIVER),
    (GROUP, "csinodes", &csi::NODE),
    (GROUP, "csistoragecapacities", &csi::CAPACITY),
];

static CLASS: Strategy = Strategy {
    default: |c| {
        default_to(c, "reclaimPolicy", "Delete");
        default_to(c, "volumeBindingMode", "Immediate");
    },
    validate: |c, errors| {
        validate_provisioner(&At::of(c, "provisioner"), errors);
        validate_parameters(&At::of(c, "parameters"), true, errors);
        let reclaim = At::of(c, "reclaimPolicy");
        if !reclaim.text().is_empty() {
            reclaim.one_of(errors, &["Delete", "Retain"]);
        }
        let mode = At::of(c, "volumeBindingMode");
        if mode.is_set() {
            mode.one_of(errors, &["Immediate", "WaitForFirstConsumer"]);
        } else {
            mode.required(errors, "");
        }
        validate_topologies(&At::of(c, "allowedTopologies"), errors);
    },
    validate_update: |new, old, errors| {
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            At::of(new, field).immutable(errors, old.get(field));
        }
    },
    ..Strategy::NEUTRAL
};

fn validate_provisioner(provisioner: &At<'_>, errors: &mut Errors) {
    if provisioner.not_empty(errors) {
        for why in names::qualified_name(&provisioner.text().to_ascii_lowercase()) {
            provisioner.invalid_as(errors, provisioner.text().to_ascii_lowercase(), why);
        }
    }
}

fn validate_parameters(parameters: &At<'_>, may_be_empty: bool, errors: &mut Errors) {
    const COUNT: usize = 512;
    const BYTES: usize = 256 * 1024;
    if parameters.len() > COUNT {
        return errors.push(api::field::FieldError::too_long(&parameters.path, COUNT));
    }
    let members = || parameters.value.as_object().into_iter().flat_map(Map::iter);
    if members().any(|(key, _)| key.is_empty()) {
        parameters.invalid_as(errors, "", "field can not be empty.");
    }
    let bytes: usize = members().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > BYTES {
        errors.push(api::field::FieldError::too_long(&parameters.path, BYTES));
    }
    if !may_be_empty && parameters.len() == 0 {
        parameters.required(errors, "must contain at least one key/value pair");
    }
}

fn validate_topologies(terms: &At<'_>, errors: &mut Errors) {
    // Upstream compares with as many empty terms as there are terms.
    let mut seen: Vec<BTreeMap<String, BTreeSet<String>>> = vec![BTreeMap::new(); terms.len()];
    for term in terms.items() {
        let expressions = term.get("matchLabelExpressions");
        let mut map = BTreeMap::new();
        for requirement in expressions.items() {
            let (key, values) = (requirement.get("key"), requirement.get("values"));
            values.not_empty(errors);
            let mut set = BTreeSet::new();
            for value in values.items() {
                if !set.insert(value.text().to_owned()) {
                    value.duplicate(errors);
                }
            }
            key.qualified(errors);
            if map.insert(key.text().to_owned(), set).is_some() {
                key.duplicate(errors);
            }
        }
        for _ in seen.iter().filter(|other| **other == map) {
            expressions.with(&Value::from("")).duplicate(errors);
        }
        seen.push(map);
    }
}

static ATTRIBUTES: Strategy = Strategy {
    validate: validate_attributes,
    validate_update: |new, old, errors| {
        for field in ["driverName", "parameters"] {
            if new.get(field) != old.get(field) {
                At::of(new, field).forbidden(errors, format!("updates to {field} are forbidden."));
            }
        }
        validate_attributes(new, errors);
    },
    revalidates: false,
    ..Strategy::NEUTRAL
};

fn validate_attributes(class: &Value, errors: &mut Errors) {
    validate_provisioner(&At::of(class, "driverName"), errors);
    validate_parameters(&At::of(class, "parameters"), false, errors);
}

static ATTACHMENT: Strategy = Strategy {
    status_metadata: StatusMetadata::Managers,
    validate: validate_attachment,
    validate_update: |new, old, errors| {
        let spec = At::of(new, "spec");
        spec.immutable_struct(errors, old.get("spec"), "storage/v1.VolumeAttachmentSpec");
    },
    unconditional_update: false,
    parts: &[Part {
        name: "status",
        fixed: &[&["metadata"], &["spec"]],
        prepare: |_, _| {},
        validate: |new, _, errors| validate_attachment(new, errors),
    }],
    ..Strategy::NEUTRAL
};

fn validate_attachment(attachment: &Value, errors: &mut Errors) {
    let spec = At::of(attachment, "spec");
    validate_driver_name(&spec.get("attacher"), errors);
    let source = spec.get("source");
    let (name, inline) = (source.get("persistentVolumeName"), source.get("inlineVolumeSpec"));
    let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (name.is_set(), inline.is_set()) {
        (false, false) => source.required(errors, why),
        (true, true) => source.forbidden(errors, why),
        (true, false) if name.text().is_empty() => {
            name.required(errors, "must specify non empty persistentVolumeName");
        }
        (true, false) => {}
        (false, true) => super::volume::validate_spec(&inline, None, errors),
    }
    spec.get("nodeName").named(errors, names::dns_subdomain);
    validate_attachment_status(&At::of(attachment, "status"), errors);
    if name.is_set() {
        name.named(errors, names::dns_subdomain);
    }
}

fn validate_attachment_status(status: &At<'_>, errors: &mut Errors) {
    const METADATA: usize = 256 * 1024;
    const MESSAGE: usize = 1024;
    let metadata = status.get("attachmentMetadata");
    let members = metadata.value.as_object().into_iter().flat_map(Map::iter);
    let bytes: usize = members.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > METADATA {
        errors.push(api::field::FieldError::too_long(&metadata.path, METADATA));
    }
    for kind in ["attachError", "detachError"] {
        let error = status.get(kind);
        let (message, code) = (error.get("message"), error.get("errorCode"));
        if message.text().len() > MESSAGE {
            errors.push(api::field::FieldError::too_long(&message.path, METADATA));
        }
        if code.int() < 0 {
            code.invalid(errors, format!("must be between 0 and {}, inclusive", i32::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn attachments_have_one_source() {
        let check = |source: Value, want: &[&str]| {
            let mut errors = Vec::new();
            let spec = object!({"attacher": "a.b", "nodeName": "n", "source": source});
            validate_attachment(&object!({"spec": spec}), &mut errors);
            assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), want);
        };
        check(object!({"persistentVolumeName": "v"}), &[]);
        check(object!({}), &["spec.source"]);
    }

    #[test]
    fn topologies_differ() {
        let term = || object!({"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]});
        let class = object!({"t": [(term()), (term())]});
        let mut errors = Vec::new();
        validate_topologies(&At::of(&class, "t"), &mut errors);
        assert_eq!(errors.len(), 1);
    }
}
