//! Selectors in reviews of access: given as the text of a query, or as requirements.
//!
//! Source: KEP-4601.

use api::Value;
use api::selector::{FieldSelector, FieldTerm, LabelSelector};

use crate::authz::Selectors;
use crate::kinds::Errors;
use crate::kinds::check::At;

/// The selectors of `resourceAttributes`, and what to say of those that are not understood.
pub(super) fn read(resource: &Value) -> (Selectors, Vec<&'static str>) {
    let mut ignored = Vec::new();
    let (fields, understood) = match resource.str_at(&["fieldSelector", "rawSelector"]) {
        "" => requirements(resource, "fieldSelector", field),
        text => FieldSelector::parse(text).map_or((Vec::new(), false), |s| (s.terms, true)),
    };
    match (understood, fields.is_empty()) {
        (true, _) => {}
        (false, true) => ignored.push("spec.resourceAttributes.fieldSelector ignored due to parse error"),
        (false, false) => {
            ignored.push("spec.resourceAttributes.fieldSelector partially ignored due to parse error");
        }
    }
    let (labels, understood) = match resource.str_at(&["labelSelector", "rawSelector"]) {
        "" => requirements(resource, "labelSelector", |requirement| {
            let selector = api::object!({"matchExpressions": [(requirement.clone())]});
            LabelSelector::from_object(&selector).ok()??.requirements().first().cloned()
        }),
        text => {
            let parsed = LabelSelector::parse(text);
            parsed.map_or((Vec::new(), false), |s| (s.requirements().to_vec(), true))
        }
    };
    match (understood, labels.is_empty()) {
        (true, _) => {}
        (false, true) => ignored.push("spec.resourceAttributes.labelSelector ignored due to parse error"),
        (false, false) => {
            ignored.push("spec.resourceAttributes.labelSelector partially ignored due to parse error");
        }
    }
    (Selectors { fields, labels }, ignored)
}

/// Those requirements that `one` understands, and whether it does all.
fn requirements<T>(resource: &Value, selector: &str, one: impl Fn(&Value) -> Option<T>) -> (Vec<T>, bool) {
    let given = resource.array_at(&[selector, "requirements"]);
    let understood: Vec<T> = given.iter().filter_map(one).collect();
    let all = understood.len() == given.len();
    (understood, all)
}

/// Fields can be compared with one value each.
fn field(requirement: &Value) -> Option<FieldTerm> {
    let equal = match requirement.str_at(&["operator"]) {
        "In" => true,
        "NotIn" => false,
        _ => return None,
    };
    let [value] = requirement.array_at(&["values"]) else { return None };
    let value = value.as_str()?.to_owned();
    Some(FieldTerm { field: requirement.str_at(&["key"]).to_owned(), value, equal })
}

/// What is wrong with the selectors of a review.
pub(super) fn validate(review: &Value, errors: &mut Errors) {
    let resource = At::of(review, "spec.resourceAttributes");
    for (selector, of_labels) in [("fieldSelector", false), ("labelSelector", true)] {
        let at = resource.get(selector);
        if !at.is_set() {
            continue;
        }
        let (raw, list) = (at.get("rawSelector"), at.get("requirements"));
        if !raw.text().is_empty() && list.len() > 0 {
            raw.invalid(errors, "may not specified at the same time as requirements");
        }
        if raw.text().is_empty() && list.len() == 0 {
            let why = format!(
                "when spec.resourceAttributes.{selector} is specified, requirements or rawSelector is required"
            );
            list.required(errors, why);
        }
        for requirement in list.items() {
            let key = requirement.get("key");
            if !of_labels && key.text().is_empty() {
                key.required(errors, "must be specified");
            }
            // Servers to come may know more operators; what is not known narrows nothing.
            requirement.operator_fits_values(errors);
            if of_labels {
                requirement.label_and_values(errors);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn what_is_not_understood_is_left_out_and_told() {
        let (selectors, ignored) = read(&object!({
            "fieldSelector": {"requirements": [
                {"key": "a", "operator": "In", "values": ["b"]},
                {"key": "c", "operator": "In", "values": ["d", "e"]}
            ]},
            "labelSelector": {"rawSelector": "x in ("}
        }));
        assert_eq!(selectors.fields, FieldSelector::parse("a=b").unwrap().terms);
        assert!(selectors.labels.is_empty());
        assert_eq!(
            ignored,
            [
                "spec.resourceAttributes.fieldSelector partially ignored due to parse error",
                "spec.resourceAttributes.labelSelector ignored due to parse error",
            ]
        );
        let (selectors, ignored) =
            read(&object!({"labelSelector": {"requirements": [{"key": "k", "operator": "Exists"}]}}));
        assert_eq!(selectors.labels, LabelSelector::parse("k").unwrap().requirements());
        assert!(ignored.is_empty());
        assert_eq!(read(&Value::Null), (Selectors::default(), Vec::new()));
    }

    #[test]
    fn requirements_are_checked() {
        let review = object!({"spec": {"resourceAttributes": {
            "fieldSelector": {"rawSelector": "a=b", "requirements": [{"key": "", "operator": "In"}]},
            "labelSelector": {}
        }}});
        let mut errors = Vec::new();
        validate(&review, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "spec.resourceAttributes.fieldSelector.rawSelector: Invalid value: \"a=b\": may not specified at the same time as requirements",
                "spec.resourceAttributes.fieldSelector.requirements[0].key: Required value: must be specified",
                "spec.resourceAttributes.fieldSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                "spec.resourceAttributes.labelSelector.requirements: Required value: when spec.resourceAttributes.labelSelector is specified, requirements or rawSelector is required",
            ]
        );
    }
}
