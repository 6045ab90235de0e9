//! Labels, selectors and qualified names.

use api::field::FieldError;
use api::names;

use super::At;
use crate::kinds::Errors;

impl At<'_> {
    /// It must be a map of labels.
    pub(crate) fn labels(&self, errors: &mut Errors) {
        crate::kinds::metadata::validate_labels(&self.path, self.value, errors);
    }

    /// It must be the key of a label, or a name of that form.
    pub(crate) fn qualified(&self, errors: &mut Errors) {
        self.named(errors, names::qualified_name);
    }

    /// It must be a LabelSelector, if it is there.
    pub(crate) fn label_selector(&self, errors: &mut Errors) {
        self.get("matchLabels").labels(errors);
        for requirement in self.get("matchExpressions").items() {
            requirement.selector_requirement(errors);
        }
    }

    /// True when a selector can be made of it.
    pub(crate) fn is_readable_selector(&self) -> bool {
        let mut found = Vec::new();
        self.label_selector(&mut found);
        found.is_empty()
    }

    fn selector_requirement(&self, errors: &mut Errors) {
        if !self.operator_fits_values(errors) {
            let operator = self.get("operator");
            operator.invalid_as(errors, operator.text(), "not a valid selector operator");
        }
        self.label_and_values(errors);
    }

    /// The operator of a requirement says whether there are values; false when it is not known.
    pub(crate) fn operator_fits_values(&self, errors: &mut Errors) -> bool {
        let values = self.get("values");
        match self.get("operator").text() {
            "In" | "NotIn" if values.len() == 0 => {
                values.required(errors, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if values.len() > 0 => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                values.forbidden(errors, why);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => return false,
        }
        true
    }

    /// The key of a requirement is that of a label, and so are its values.
    pub(crate) fn label_and_values(&self, errors: &mut Errors) {
        self.get("key").qualified(errors);
        for value in self.get("values").items() {
            value.named(errors, names::label_value);
        }
    }

    /// The conditions of a status, as `metav1.Condition` has them.
    pub(crate) fn conditions(&self, errors: &mut Errors) {
        let mut seen: Vec<String> = Vec::new();
        for condition in self.items() {
            let kind = condition.get("type");
            kind.required_condition_type(errors);
            if seen.iter().any(|k| k == kind.text()) {
                kind.duplicate(errors);
            }
            seen.push(kind.text().to_owned());
            let status = condition.get("status");
            if !["True", "False", "Unknown"].contains(&status.text()) {
                status.unsupported(errors, &["False", "True", "Unknown"]);
            }
            condition.get("observedGeneration").not_negative(errors);
            let since = condition.get("lastTransitionTime");
            if !since.is_set() {
                since.required(errors, "must be set");
            }
            let reason = condition.get("reason");
            if reason.text().is_empty() {
                reason.required(errors, "must be set");
            } else {
                condition_reason(&reason, errors);
            }
            condition.get("message").not_longer(errors, 32_768);
        }
    }

    fn required_condition_type(&self, errors: &mut Errors) {
        if self.text().is_empty() {
            self.required(errors, "must be set");
        } else {
            self.qualified(errors);
        }
    }
}

fn condition_reason(reason: &At<'_>, errors: &mut Errors) {
    const RULE: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
    let bytes = reason.text().as_bytes();
    if bytes.len() > 1024 {
        errors.push(FieldError::too_long(&reason.path, 1024));
    }
    let inside = |b: &u8| b.is_ascii_alphanumeric() || b"_,:".contains(b);
    let fits = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(inside)
        && bytes.last().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    if !fits {
        reason.invalid(errors, RULE);
    }
}
