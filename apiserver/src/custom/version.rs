//! One version of a custom resource.

use std::cmp::Ordering;
use std::sync::OnceLock;

use api::Value;
use api::field::{FieldError, Problem};
use cel::rules::Rules;
use schema::custom::CustomType;

use super::{Column, Scale};
use crate::kinds::validate_embedded_metadata;
use crate::resources::interned;

/// One version of a custom resource.
pub struct Version {
    /// The name: `v1`.
    pub name: &'static str,
    /// `group/v1`.
    pub api_version: String,
    /// True when clients may use it.
    pub served: bool,
    /// What its objects look like.
    pub ty: CustomType,
    /// Its columns besides the name.
    pub columns: Vec<Column>,
    /// Selectable fields, with their places among those of all versions.
    pub fields: Vec<(String, usize)>,
    /// Status is written by a subresource of its own.
    pub has_status: bool,
    /// The paths of the scale subresource, if it is served.
    pub scale: Option<Scale>,
    /// The warning that goes with every answer of a deprecated version.
    pub deprecation: Option<String>,
    /// The rules of the schema, compiled when they are first needed.
    rules: OnceLock<Option<Rules>>,
}

impl Version {
    /// Reads a member of `spec.versions`.
    pub fn new(group: &str, kind: &str, preserve: bool, spec: &Value) -> Self {
        let name = interned(spec.str_at(&["name"]));
        let api_version = format!("{group}/{name}");
        let schema = spec.at(&["schema", "openAPIV3Schema"]);
        let deprecation = (spec.get("deprecated").as_bool() == Some(true)).then(|| {
            match spec.get("deprecationWarning").as_str() {
                Some(text) => text.to_owned(),
                None => format!("{api_version} {kind} is deprecated"),
            }
        });
        Self {
            name,
            served: spec.get("served").as_bool() == Some(true),
            ty: CustomType::new(schema, preserve),
            columns: Column::all(spec.get("additionalPrinterColumns")),
            fields: Vec::new(),
            has_status: !spec.at(&["subresources", "status"]).is_null(),
            scale: Scale::new(spec.at(&["subresources", "scale"])),
            deprecation,
            rules: OnceLock::new(),
            api_version,
        }
    }

    /// Everything that is wrong with an object in this version, or with its status when that alone is written; `old` is the
    /// one it replaces. What rules found wrong before and has not changed is told to `warn` instead.
    pub fn validate(
        &self,
        object: &Value,
        old: Option<&Value>,
        status_alone: bool,
        warn: &mut dyn FnMut(String),
    ) -> Vec<FieldError> {
        let mut errors = self.ty.validate_change(object, old, status_alone);
        for (path, embedded) in self.ty.embedded(object) {
            validate_embedded_metadata(&path, embedded, &mut errors);
        }
        if let Some(scale) = &self.scale {
            scale.validate(object, status_alone, &mut errors);
        }
        if let Some(rules) = self.rules.get_or_init(|| Rules::new(self.ty.schema())) {
            evaluate(rules, object, old, warn, &mut errors);
        }
        errors
    }
}

/// Holds an object against rules, unless it is too wrong for that.
fn evaluate(
    rules: &Rules,
    object: &Value,
    old: Option<&Value>,
    warn: &mut dyn FnMut(String),
    errors: &mut Vec<FieldError>,
) {
    let blocks = |e: &FieldError| {
        matches!(
            e.problem,
            Problem::NotSupported(_)
                | Problem::Required
                | Problem::TooLong
                | Problem::TooMany(_)
                | Problem::TypeInvalid(_)
        )
    };
    if !errors.iter().any(blocks) {
        errors.extend(rules.validate(object, old, warn));
        return;
    }
    let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
    errors.push(FieldError {
        field: "<nil>".to_owned(),
        problem: Problem::Invalid(Value::Null),
        detail: detail.to_owned(),
    });
}

/// The order in which clients prefer versions: `v2`, `v1`, `v1beta2`, `v1beta1`, `v1alpha1`, then others by name.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major and minor of a version such as `v1beta2`.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let digits = |text: &str| -> Option<u64> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        plain.then(|| text.parse().ok()).flatten()
    };
    let rest = version.strip_prefix('v')?;
    for (word, stability) in [("alpha", 0), ("beta", 1)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((stability, digits(major)?, digits(minor)?));
        }
    }
    Some((2, digits(rest)?, 0))
}

#[cfg(test)]
mod tests {
    use super::compare_versions;

    #[test]
    fn versions_are_ordered_by_stability_then_number() {
        let mut versions =
            vec!["foo10", "v1alpha1", "v10", "v1", "foo1", "v3beta1", "v2", "v1beta2", "v11alpha2", "v01"];
        versions.sort_by(|a, b| compare_versions(a, b));
        let want = ["v10", "v2", "v1", "v3beta1", "v1beta2", "v11alpha2", "v1alpha1", "foo1", "foo10", "v01"];
        assert_eq!(versions, want);
    }
}
