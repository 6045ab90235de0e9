//! PersistentVolumeClaims.

use api::field::Path;
use api::quantity::Quantity;
use api::{Value, names, object};

use super::check::{At, difference};
use super::pod::validate_quantity;
use super::{Entry, Errors, Part, Strategy, default_if_empty, default_to};

pub(super) const STRATEGIES: &[Entry] = &[("", "persistentvolumeclaims", &CLAIM)];

pub(super) const ACCESS_MODES: [&str; 4] =
    ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const SPEC: &str = "core/v1.PersistentVolumeClaimSpec";

static CLAIM: Strategy = Strategy {
    default: |claim| {
        default_spec(claim.make_object().entry("spec"));
        default_if_empty(claim.make_object().entry("status"), "phase", "Pending");
    },
    prepare_create: |claim| {
        claim.set(&["status"], object!({"phase": "Pending"}));
        drop_sources(claim, &Value::Null);
        align_sources(claim);
    },
    prepare_update: |new, old| {
        drop_sources(new, old);
        align_sources(new);
    },
    validate: |claim, errors| validate_spec(&At::of(claim, "spec"), errors),
    validate_update,
    warn: warnings,
    parts: &[STATUS],
    ..Strategy::NEUTRAL
};

/// Fills in a claim's spec.
pub(super) fn default_spec(spec: &mut Value) {
    default_to(spec, "volumeMode", "Filesystem");
}

/// Sources that nobody fills claims from are dropped, unless the claim `old` had one already: sources in other namespaces,
/// and those that the older of both fields could never name.
fn drop_sources(claim: &mut Value, old: &Value) {
    let had = |field: &str| !old.at(&["spec", field]).is_null();
    let (had_source, had_reference) = (had("dataSource"), had("dataSourceRef"));
    let Some(spec) = claim.make_object().get_mut("spec") else { return };
    if !had_reference && !spec.str_at(&["dataSourceRef", "namespace"]).is_empty() {
        spec.make_object().remove("dataSourceRef");
    }
    if had_source || had_reference || !spec.get("dataSourceRef").is_null() {
        return;
    }
    let usual = match spec.get("dataSource") {
        Value::Null => true,
        source => matches!(
            (source.str_at(&["apiGroup"]), source.str_at(&["kind"])),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        ),
    };
    if !usual {
        spec.make_object().remove("dataSource");
    }
}

/// Both ways to name what a claim is filled from have the same value.
fn align_sources(claim: &mut Value) {
    let spec = claim.make_object().entry("spec");
    let (source, reference) = (spec.get("dataSource").clone(), spec.get("dataSourceRef").clone());
    if reference.is_null() && !source.is_null() {
        spec.set(&["dataSourceRef"], source);
    } else if source.is_null() && !reference.is_null() && reference.str_at(&["namespace"]).is_empty() {
        let mut source = reference;
        source.make_object().remove("namespace");
        spec.set(&["dataSource"], source);
    }
}

/// Checks the access modes of a claim or volume.
pub(super) fn validate_access_modes(modes: &At<'_>, errors: &mut Errors) {
    for mode in modes.items() {
        modes.with(mode.value).one_of(errors, &ACCESS_MODES);
    }
    let given = modes.texts();
    let shared = given.iter().any(|m| *m != "ReadWriteOncePod" && ACCESS_MODES.contains(m));
    if given.contains(&"ReadWriteOncePod") && shared {
        modes.forbidden(errors, "may not use ReadWriteOncePod with other access modes");
    }
}

/// Checks the spec of a claim, or of a template of claims.
pub(super) fn validate_spec(spec: &At<'_>, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.len() == 0 {
        modes.required(errors, "at least 1 access mode is required");
    }
    spec.get("selector").label_selector(errors);
    validate_access_modes(&modes, errors);
    let resources = spec.get("resources");
    let asked = At {
        value: spec.value.at(&["resources", "requests", "storage"]),
        path: resources.path.key("storage"),
    };
    if !asked.is_set() {
        asked.required(errors, "");
    } else if asked.quantity_positive(errors) {
        validate_quantity("storage", &asked, errors);
    }
    spec.get("storageClassName").named_if_any(errors, names::dns_subdomain);
    spec.get("volumeMode").one_of(errors, &["Block", "Filesystem"]);
    validate_sources(spec, errors);
    spec.get("volumeAttributesClassName").named_if_any(errors, names::dns_subdomain);
}

fn validate_sources(spec: &At<'_>, errors: &mut Errors) {
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    for at in [&source, &reference].into_iter().filter(|s| s.is_set()) {
        at.get("name").not_empty(errors);
        at.get("kind").not_empty(errors);
        let (group, kind) = (at.get("apiGroup"), at.get("kind").text());
        if group.text().is_empty() && kind != "PersistentVolumeClaim" {
            let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            at.invalid_as(errors, kind, why);
        }
        group.named_if_any(errors, names::dns_subdomain);
    }
    let namespace = reference.get("namespace");
    namespace.named_if_any(errors, names::dns_label);
    if !source.is_set() || !reference.is_set() {
        return;
    }
    // What upstream quotes here is the path, whose own form is an empty object.
    if !namespace.text().is_empty() {
        let why = "may not be specified when dataSourceRef.namespace is specified";
        spec.invalid_as(errors, Value::object(), why);
    } else if ["apiGroup", "kind", "name"].iter().any(|f| source.value.get(f) != reference.value.get(f)) {
        spec.invalid_as(errors, Value::object(), "must match dataSourceRef");
    }
}

fn warnings(claim: &Value) -> Vec<String> {
    let mut out = Vec::new();
    if claim.annotation(BETA_CLASS).is_some() {
        let why = "deprecated since v1.8; use \"storageClassName\" attribute instead";
        out.push(format!("metadata.annotations[{BETA_CLASS}]: {why}"));
    }
    for kind in ["requests", "limits"] {
        let amount = claim.str_at(&["spec", "resources", kind, "storage"]);
        if amount.parse::<Quantity>().is_ok_and(|q| q.millis() % 1000 != 0) {
            let quoted = api::field::go_quote(amount);
            out.push(format!(
                "spec.resources.{kind}[storage]: fractional byte value {quoted} is invalid, must be an integer"
            ));
        }
    }
    out
}

const FIXED: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (mut is, mut was) = (new.get("spec").clone(), old.get("spec").clone());
    // A binder sets the volume once.
    if was.str_at(&["volumeName"]).is_empty() {
        put(&mut was, "volumeName", is.get("volumeName"));
    }
    validate_class(new, old, &mut is, errors);
    if new.str_at(&["status", "phase"]) == "Bound" {
        // A user may ask for more, and for another attributes class.
        if !is.at(&["resources", "requests"]).is_null() {
            is.set(&["resources", "requests", "storage"], was.at(&["resources", "requests", "storage"]));
        }
        put(&mut is, "volumeAttributesClassName", was.get("volumeAttributesClassName"));
    }
    let spec = At::of(new, "spec");
    if is != was {
        spec.forbidden(errors, format!("{FIXED}\n{}", difference(&was, &is, SPEC)));
    }
    let size = |claim: &Value, path: &[&str]| {
        claim.at(path).as_str().and_then(|q| q.parse::<Quantity>().ok()).unwrap_or(Quantity::ZERO)
    };
    const STORAGE: [&str; 4] = ["spec", "resources", "requests", "storage"];
    if size(new, &STORAGE) < size(old, &STORAGE)
        && size(new, &STORAGE) <= size(old, &["status", "capacity", "storage"])
    {
        let why = "field can not be less than status.capacity";
        spec.get("resources.requests.storage").forbidden(errors, why);
    }
    let mode = At { value: new.at(&["spec", "volumeMode"]), path: Path::new("volumeMode") };
    mode.immutable(errors, old.at(&["spec", "volumeMode"]));
    let class = spec.get("volumeAttributesClassName");
    if class.value != old.at(&["spec", "volumeAttributesClassName"])
        && !old.at(&["status", "currentVolumeAttributesClassName"]).is_null()
    {
        if !class.is_set() {
            let why = "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil";
            class.forbidden(errors, why);
        } else if class.text().is_empty() {
            let why =
                "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil";
            class.forbidden(errors, why);
        }
    }
}

/// The class may be set once, where there was none.
fn validate_class(new: &Value, old: &Value, is: &mut Value, errors: &mut Errors) {
    let annotation = old.annotation(BETA_CLASS);
    let (class, before) = (new.at(&["spec", "storageClassName"]), old.at(&["spec", "storageClassName"]));
    let from_annotation = annotation.is_some()
        && before.is_null()
        && class.as_str() == annotation
        && new.annotation(BETA_CLASS).is_none_or(|a| Some(a) == annotation);
    if from_annotation {
        is.make_object().remove("storageClassName");
        return;
    }
    let text = new.annotation(BETA_CLASS).unwrap_or_default();
    if text != annotation.unwrap_or_default() {
        let metadata = Path::new("metadata");
        let annotations = metadata.child("annotations");
        let at = At { value: class, path: annotations.child(BETA_CLASS) };
        at.invalid_as(errors, text, "field is immutable");
    }
    let set_once =
        !class.is_null() && before.is_null() && annotation.is_none_or(|a| class.as_str() == Some(a));
    if set_once {
        put(is, "storageClassName", before);
    }
}

fn put(object: &mut Value, field: &str, value: &Value) {
    if value.is_null() {
        object.make_object().remove(field);
    } else {
        object.set(&[field], value);
    }
}

const RESIZES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

const STATUS: Part = Part {
    name: "status",
    fixed: &[&["spec"]],
    prepare: |_, _| {},
    validate: |new, _, errors| {
        let status = At::of(new, "status");
        for (_, amount) in status.get("capacity").entries() {
            if amount.quantity().is_some_and(|q| q.is_negative()) {
                let shown = amount.quantity().map_or(0, |q| q.units());
                amount.invalid_as(errors, shown, "must be a valid resource quantity");
            }
        }
        let states = status.get("allocatedResourceStatuses");
        for (name, state) in states.entries() {
            validate_key(&states, name, errors);
            if !RESIZES.contains(&state.text()) {
                states.with(&Value::from(name)).unsupported(errors, &RESIZES);
            }
        }
        let allocated = status.get("allocatedResources");
        for (name, amount) in allocated.entries() {
            let found = errors.len();
            validate_key(&allocated, name, errors);
            if errors.len() == found {
                validate_quantity("storage", &amount, errors);
            }
        }
    },
};

fn validate_key(map: &At<'_>, name: &str, errors: &mut Errors) {
    let key = Value::from(name);
    let at = map.with(&key);
    let found = errors.len();
    at.qualified(errors);
    if errors.len() == found && super::resource_names::is_native(name) && name != "storage" {
        at.unsupported(errors, &["storage"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(size: &str) -> Value {
        object!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}, "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}}})
    }

    #[test]
    fn bound_claims_may_grow_and_not_shrink() {
        let check = |new: &str, want: &[&str]| {
            let mut errors = Vec::new();
            validate_update(&claim(new), &claim("2Gi"), &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
        };
        check("3Gi", &[]);
        check(
            "1Gi",
            &["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"],
        );
    }

    #[test]
    fn claims_that_wait_do_not_change() {
        let mut new = claim("3Gi");
        new.set(&["status", "phase"], "Pending");
        let mut errors = Vec::new();
        validate_update(&new, &claim("2Gi"), &mut errors);
        assert!(errors[0].detail.starts_with(FIXED), "{errors:?}");
    }

    #[test]
    fn the_two_ways_to_name_a_source_agree() {
        let mut claim = object!({"spec": {"dataSource": {"kind": "K", "name": "n", "apiGroup": "g"}}});
        align_sources(&mut claim);
        assert_eq!(claim.at(&["spec", "dataSourceRef"]), claim.at(&["spec", "dataSource"]));
    }
}
