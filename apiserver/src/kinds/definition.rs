//! CustomResourceDefinitions: their defaults, the versions they remember, and what makes one valid.
//!
//! What becomes of a definition after it is written is the business of [`crate::custom`].
//! Mirrors apiextensions-apiserver's registry and validation.

mod names;
mod rules;
mod schema;
mod spec;
mod structural;
mod v1beta1;
mod versions;

use api::field::{FieldError, Problem};
use api::{Value, object};

use super::metadata::check_wanted_name;
use super::{Entry, Errors, Strategy};

pub use structural::violations;
pub use v1beta1::from_v1beta1;

pub(super) const STRATEGIES: &[Entry] = &[("apiextensions.k8s.io", "customresourcedefinitions", &DEFINITION)];

/// Keeps a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// The annotation by which definitions in groups of the Kubernetes community say who approved them.
pub const APPROVED: &str = "api-approved.kubernetes.io";

static DEFINITION: Strategy = Strategy {
    generation: true,
    unconditional_update: false,
    default,
    prepare_create: |d| {
        d.set(&["status"], Value::object());
        remember_version(d);
    },
    prepare_update: |new, _| remember_version(new),
    validate,
    validate_update,
    warn: spec::warnings,
    ..Strategy::NEUTRAL
};

fn default(definition: &mut Value) {
    let kind = definition.str_at(&["spec", "names", "kind"]).to_owned();
    let spec = definition.make_object().entry("spec");
    let names = spec.make_object().entry("names");
    super::default_if_empty(names, "singular", kind.to_ascii_lowercase());
    if !kind.is_empty() {
        super::default_if_empty(names, "listKind", format!("{kind}List"));
    }
    super::default_to(spec, "conversion", object!({"strategy": "None"}));
    let service = spec.at_mut(&["conversion", "webhook", "clientConfig", "service"]);
    if let Some(service) = service.filter(|s| !s.is_null()) {
        super::default_to(service, "port", 443);
    }
}

/// The storage version is among those that objects may be stored in.
fn remember_version(definition: &mut Value) {
    let versions = definition.array_at(&["spec", "versions"]);
    let storage = versions.iter().find(|v| v.get("storage").as_bool() == Some(true));
    let Some(name) = storage.map(|v| v.get("name").clone()) else { return };
    let stored = definition.make_object().entry("status").make_object().entry("storedVersions").make_array();
    if !stored.contains(&name) {
        stored.push(name);
    }
}

fn validate(definition: &Value, errors: &mut Errors) {
    // Only a new object has no version yet.
    let is_new = definition.resource_version().is_empty();
    if is_new {
        let spec = definition.get("spec");
        let want = format!("{}.{}", spec.str_at(&["names", "plural"]), spec.str_at(&["group"]));
        check_wanted_name(definition, &want, "must be spec.names.plural+\".\"+spec.group", errors);
    }
    spec::validate(definition.get("spec"), errors);
    names::validate(definition.at(&["status", "acceptedNames"]), "status.acceptedNames", errors);
    versions::validate_stored(definition, errors);
    if is_new {
        validate_approval(definition, None, errors);
        rules::validate(definition, None, errors);
    }
}

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let established = crate::custom::is_true(old, "Established");
    let mut immutable = |path: &[&str]| {
        if new.at(path) != old.at(path) {
            invalid(errors, &path.join("."), new.at(path).clone(), "field is immutable");
        }
    };
    if established {
        immutable(&["spec", "scope"]);
        immutable(&["spec", "names", "kind"]);
    }
    immutable(&["spec", "group"]);
    immutable(&["spec", "names", "plural"]);
    validate_approval(new, Some(old), errors);
    rules::validate(new, Some(old), errors);
}

/// Checks who approved a definition in a group of the Kubernetes community; `old` is the one it replaces.
fn validate_approval(new: &Value, old: Option<&Value>, errors: &mut Errors) {
    if !is_protected(new.str_at(&["spec", "group"])) {
        return;
    }
    let (state, reason) = approval(new);
    if old.is_some_and(|old| approval(old).0 == state) {
        return;
    }
    let path = format!("metadata.annotations[{APPROVED}]");
    match state {
        Approval::Missing => required(errors, &path, &reason),
        Approval::Invalid => invalid(errors, &path, new.annotation(APPROVED).unwrap_or_default(), reason),
        Approval::Given | Approval::Bypassed => {}
    }
}

/// True for groups that only the Kubernetes community defines resources in.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|g| group.strip_suffix(g).is_some_and(|r| r.is_empty() || r.ends_with('.')))
}

/// Who approved a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// The annotation says nothing that can be understood.
    Invalid,
    /// An address says where.
    Given,
    /// Nobody, and the annotation says so.
    Bypassed,
    /// There is no annotation.
    Missing,
}

/// Who approved a definition, and a sentence about it.
pub fn approval(definition: &Value) -> (Approval, String) {
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let given = definition.annotation(APPROVED).unwrap_or_default();
    let quoted = api::field::go_quote(APPROVED);
    let is_address = given.parse::<http::Uri>().is_ok_and(|u| u.host().is_some() && u.scheme().is_some());
    if given.is_empty() {
        (Approval::Missing, format!("protected groups must have approval annotation {quoted}, {SEE}"))
    } else if given.starts_with("unapproved") {
        (Approval::Bypassed, format!("not approved: {}", api::field::go_quote(given)))
    } else if is_address {
        (Approval::Given, format!("approved in {given}"))
    } else {
        let why = format!(
            "protected groups must have approval annotation {quoted} with either a URL or a reason starting with \"unapproved\", {SEE}"
        );
        (Approval::Invalid, why)
    }
}

fn push(errors: &mut Errors, path: &str, problem: Problem, detail: impl Into<String>) {
    errors.push(FieldError { field: path.to_owned(), problem, detail: detail.into() });
}

fn invalid(errors: &mut Errors, path: &str, value: impl Into<Value>, detail: impl Into<String>) {
    push(errors, path, Problem::Invalid(value.into()), detail);
}

fn required(errors: &mut Errors, path: &str, detail: &str) {
    push(errors, path, Problem::Required, detail);
}

fn forbidden(errors: &mut Errors, path: &str, detail: impl Into<String>) {
    push(errors, path, Problem::Forbidden, detail);
}

fn not_supported(errors: &mut Errors, path: &str, value: &str, supported: &[&str]) {
    let quoted: Vec<String> = supported.iter().map(|s| api::field::go_quote(s)).collect();
    push(
        errors,
        path,
        Problem::NotSupported(value.into()),
        format!("supported values: {}", quoted.join(", ")),
    );
}

#[cfg(test)]
mod tests;
