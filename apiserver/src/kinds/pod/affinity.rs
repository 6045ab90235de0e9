//! Where a pod may go: affinity, tolerations, spreading.

use std::collections::HashSet;

use api::{Value, names};

use crate::kinds::Errors;
use crate::kinds::check::At;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Checks an affinity.
pub(super) fn validate(affinity: &At<'_>, errors: &mut Errors) {
    let node = affinity.get("nodeAffinity");
    if node.get(REQUIRED).is_set() {
        validate_node_selector(&node.get(REQUIRED), errors);
    }
    for term in node.get(PREFERRED).items() {
        validate_weight(&term, errors);
        validate_node_term(&term.get("preference"), false, errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.get(kind);
        for term in pods.get(REQUIRED).items() {
            validate_pod_term(&term, errors);
        }
        for term in pods.get(PREFERRED).items() {
            validate_weight(&term, errors);
            validate_pod_term(&term.get("podAffinityTerm"), errors);
        }
    }
}

fn validate_weight(term: &At<'_>, errors: &mut Errors) {
    let weight = term.get("weight");
    if !(1..=100).contains(&weight.int()) {
        weight.invalid_as(errors, weight.int(), "must be in the range 1-100");
    }
}

/// Checks a selector of nodes.
pub(in crate::kinds) fn validate_node_selector(selector: &At<'_>, errors: &mut Errors) {
    let terms = selector.get("nodeSelectorTerms");
    if terms.len() == 0 {
        return terms.required(errors, "must have at least one node selector term");
    }
    for term in terms.items() {
        validate_node_term(&term, true, errors);
    }
}

fn validate_node_term(term: &At<'_>, strict: bool, errors: &mut Errors) {
    for requirement in term.get("matchExpressions").items() {
        validate_node_requirement(&requirement, strict, errors);
    }
    for requirement in term.get("matchFields").items() {
        validate_node_field(&requirement, errors);
    }
}

fn validate_node_requirement(requirement: &At<'_>, strict: bool, errors: &mut Errors) {
    let (operator, values) = (requirement.get("operator"), requirement.get("values"));
    match operator.text() {
        "In" | "NotIn" if values.len() == 0 => {
            values.required(errors, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if values.len() > 0 => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            values.forbidden(errors, why);
        }
        "Gt" | "Lt" if values.len() != 1 => {
            values.required(errors, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => operator.invalid_as(errors, other, "not a valid selector operator"),
    }
    requirement.get("key").qualified(errors);
    if strict {
        for value in values.items() {
            value.named(errors, names::label_value);
        }
    }
}

fn validate_node_field(requirement: &At<'_>, errors: &mut Errors) {
    let (operator, values, key) =
        (requirement.get("operator"), requirement.get("values"), requirement.get("key"));
    match operator.text() {
        "In" | "NotIn" => {
            if values.len() != 1 {
                let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                values.required(errors, why);
            }
        }
        other => operator.invalid_as(errors, other, "not a valid selector operator"),
    }
    if key.text() != "metadata.name" {
        return key.invalid_as(errors, key.text(), "not a valid field selector key");
    }
    for value in values.items() {
        value.named(errors, names::dns_subdomain);
    }
}

fn validate_pod_term(term: &At<'_>, errors: &mut Errors) {
    term.get("labelSelector").label_selector(errors);
    term.get("namespaceSelector").label_selector(errors);
    for name in term.get("namespaces").items() {
        term.get("namespace").with(name.value).named(errors, names::dns_label);
    }
    validate_label_keys(term, errors);
    let key = term.get("topologyKey");
    if key.text().is_empty() {
        key.required(errors, "can not be empty");
    }
    key.qualified(errors);
}

/// Keys that take their values from the pod itself.
fn validate_label_keys(term: &At<'_>, errors: &mut Errors) {
    let selector = term.get("labelSelector");
    let (keys, others) = (term.get("matchLabelKeys"), term.get("mismatchLabelKeys"));
    for list in [&keys, &others] {
        if list.len() > 0 && !selector.is_set() {
            list.forbidden(errors, "must not be specified when labelSelector is not set");
            continue;
        }
        for key in list.items() {
            key.qualified(errors);
        }
    }
    let wanted = keys.texts();
    let labels = selector.value.get("matchLabels").as_object();
    let mut selected: HashSet<&str> = labels.into_iter().flat_map(api::Map::keys).collect();
    for key in selector.value.array_at(&["matchExpressions"]).iter().map(|e| e.str_at(&["key"])) {
        if let Some(i) = wanted.iter().rposition(|k| *k == key)
            && !selected.insert(key)
        {
            let at = At { value: term.value, path: term.path.index(i) };
            at.invalid_as(errors, key, "exists in both matchLabelKeys and labelSelector");
        }
        selected.insert(key);
    }
    let others = others.texts();
    for key in keys.items().filter(|k| others.contains(&k.text())) {
        key.invalid(errors, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks tolerations.
pub(in crate::kinds) fn validate_tolerations(tolerations: &At<'_>, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let (key, operator) = (toleration.get("key"), toleration.get("operator"));
        let (value, effect) = (toleration.get("value"), toleration.get("effect"));
        if !key.text().is_empty() {
            key.qualified(errors);
        } else if operator.text() != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            operator.invalid_as(errors, operator.text(), why);
        }
        if toleration.get("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            effect.invalid_as(errors, effect.text(), why);
        }
        match operator.text() {
            "" | "Equal" => {
                let found = names::label_value(value.text());
                if !found.is_empty() {
                    operator.invalid_as(errors, value.text(), found.join(";"));
                }
            }
            "Exists" if !value.text().is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                operator.invalid_as(errors, value.text(), why);
            }
            "Exists" => {}
            "Lt" | "Gt" => operator.unsupported(errors, &["Equal", "Exists", "Lt", "Gt"]),
            _ => operator.unsupported(errors, &["Equal", "Exists"]),
        }
        if !effect.text().is_empty() {
            effect.one_of(errors, &EFFECTS);
        }
    }
}

/// Checks the taints of a node.
pub(in crate::kinds) fn validate_taints(taints: &At<'_>, errors: &mut Errors) {
    let mut seen: HashSet<(String, String)> = HashSet::new();
    for taint in taints.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        key.qualified(errors);
        let found = names::label_value(value.text());
        if !found.is_empty() {
            value.invalid(errors, found.join(";"));
        }
        effect.required_one_of(errors, &EFFECTS);
        if !seen.insert((effect.text().to_owned(), key.text().to_owned())) {
            let shown = crate::kinds::check::view(taint.value, "core/v1.Taint");
            let mut error = api::field::FieldError::duplicate(&taint.path, shown);
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
}

/// Checks how a pod's kind is spread over the cluster.
pub(super) fn validate_spread(constraints: &At<'_>, errors: &mut Errors) {
    let items: Vec<At<'_>> = constraints.items().collect();
    for (i, constraint) in items.iter().enumerate() {
        constraint.get("maxSkew").positive(errors);
        let key = constraint.get("topologyKey");
        if key.text().is_empty() {
            key.required(errors, "can not be empty");
        }
        let action = constraint.get("whenUnsatisfiable");
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&action.text()) {
            action.unsupported(errors, &actions);
        }
        let same = |other: &At<'_>| {
            other.value.get("topologyKey") == key.value
                && other.value.get("whenUnsatisfiable") == action.value
        };
        if items[i + 1..].iter().any(same) {
            let shown = Value::from(format!("{{{}, {}}}", key.text(), action.text()));
            constraint.get("{topologyKey, whenUnsatisfiable}").with(&shown).duplicate(errors);
        }
        let domains = constraint.get("minDomains");
        if domains.is_set() {
            domains.positive(errors);
            if action.text() != "DoNotSchedule" {
                let why = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    action.text()
                );
                domains.invalid(errors, why);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.get(policy).one_of(errors, &["Honor", "Ignore"]);
        }
        validate_label_keys(constraint, errors);
        constraint.get("labelSelector").label_selector(errors);
    }
}
