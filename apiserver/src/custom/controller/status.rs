//! The status of a definition: names that are free are accepted, then it is established; its schema and its group are
//! judged.

use api::Value;

use super::set_condition;
use crate::kinds::definition::{Approval, approval, is_protected, violations};

/// The names that a definition has been given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names {
    /// Its group.
    pub group: String,
    resources: Vec<String>,
    kinds: Vec<String>,
}

impl Names {
    /// The names in the status of a definition.
    pub fn of(definition: &Value) -> Self {
        let names = definition.at(&["status", "acceptedNames"]);
        let text = |key: &str| names.str_at(&[key]).to_owned();
        let mut resources = vec![text("plural"), text("singular")];
        resources.extend(names.array_at(&["shortNames"]).iter().filter_map(Value::as_str).map(str::to_owned));
        Self {
            group: definition.str_at(&["spec", "group"]).to_owned(),
            resources,
            kinds: vec![text("kind"), text("listKind")],
        }
    }

    /// True when every name of these is also among `later`: none became free.
    pub fn keeps(&self, later: &Self) -> bool {
        self.resources.iter().all(|n| later.resources.contains(n))
            && self.kinds.iter().all(|n| later.kinds.contains(n))
    }
}

/// The definition with the status that it should have, given the names of all others; none when it has it.
pub fn next_status<'n>(definition: &Value, others: impl Iterator<Item = &'n Names>) -> Option<Value> {
    let mut next = definition.clone();
    let group = definition.str_at(&["spec", "group"]);
    let others: Vec<&Names> = others.filter(|n| n.group == group).collect();
    establish(&mut next, definition);
    accept_names(&mut next, definition, &others);
    judge_schema(&mut next);
    judge_group(&mut next);
    (next != *definition).then_some(next)
}

/// Accepts the names that nobody else in the group has.
fn accept_names(next: &mut Value, definition: &Value, others: &[&Names]) {
    let (wanted, mut accepted) =
        (definition.at(&["spec", "names"]), definition.at(&["status", "acceptedNames"]).clone());
    if without_empty(wanted) == without_empty(&accepted) && !condition(definition, "NamesAccepted").is_null()
    {
        return;
    }
    let used = |name: &str, kinds: bool| {
        let taken = |n: &&&Names| if kinds { &n.kinds } else { &n.resources }.iter().any(|t| t == name);
        (!name.is_empty() && others.iter().any(|n| taken(&n)))
            .then(|| format!("{} is already in use", api::field::go_quote(name)))
    };
    let mut conflict: Option<(&str, String)> = None;
    for (field, kinds, reason) in [
        ("plural", false, "PluralConflict"),
        ("singular", false, "SingularConflict"),
        ("shortNames", false, "ShortNamesConflict"),
        ("kind", true, "KindConflict"),
        ("listKind", true, "ListKindConflict"),
    ] {
        let (want, have) = (wanted.get(field), accepted.get(field).clone());
        if *want == have || (want.is_empty() && have.is_empty()) {
            continue;
        }
        let taken: Vec<String> = match want {
            Value::Array(names) => names
                .iter()
                .filter(|n| !have.as_array().is_some_and(|h| h.contains(n)))
                .filter_map(|n| used(n.as_str().unwrap_or_default(), kinds))
                .collect(),
            name => used(name.as_str().unwrap_or_default(), kinds).into_iter().collect(),
        };
        match taken.as_slice() {
            [] => accepted.set(&[field], want),
            [one] => conflict = Some((reason, one.clone())),
            many => conflict = Some((reason, format!("[{}]", many.join(", ")))),
        }
    }
    accepted.set(&["categories"], wanted.get("categories"));
    next.set(&["status", "acceptedNames"], without_empty_lists(accepted));
    let all = conflict.is_none();
    let (status, reason, message) = match conflict {
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
        Some((reason, message)) => ("False", reason, message),
    };
    set_condition(next, "NamesAccepted", status, reason, &message);
    let established = condition(next, "Established").clone();
    if established.str_at(&["status"]) != "True" && all {
        set_condition(next, "Established", "False", "Installing", "the initial names have been accepted");
    } else if established.is_null() {
        set_condition(next, "Established", "False", "NotAccepted", "not all names are accepted");
    }
}

/// Establishes what has its names; by then the resource is served.
fn establish(next: &mut Value, definition: &Value) {
    if !super::super::is_true(definition, "NamesAccepted") || super::super::is_true(definition, "Established")
    {
        return;
    }
    let bundle = definition.at(&["spec", "conversion", "webhook", "clientConfig", "caBundle"]);
    if !bundle.is_empty() && !super::super::conversion::is_bundle(bundle) {
        let why = "The conversion webhook CABundle is invalid";
        return set_condition(next, "Established", "False", "InvalidCABundle", why);
    }
    set_condition(
        next,
        "Established",
        "True",
        "InitialNamesAccepted",
        "the initial names have been accepted",
    );
}

/// Old definitions may have schemas that are not structural.
fn judge_schema(next: &mut Value) {
    let mut sentences = Vec::new();
    if next.at(&["spec", "preserveUnknownFields"]).as_bool() == Some(true) {
        sentences.push("spec.preserveUnknownFields: Invalid value: true: must be false".to_owned());
    }
    for (i, version) in next.array_at(&["spec", "versions"]).iter().enumerate() {
        let schema = version.at(&["schema", "openAPIV3Schema"]);
        if !schema.is_null() {
            let path = format!("spec.versions[{i}].schema.openAPIV3Schema");
            sentences.extend(violations(schema, &path).iter().map(ToString::to_string));
        }
    }
    const KIND: &str = "NonStructuralSchema";
    match sentences.as_slice() {
        [] => {
            if !condition(next, KIND).is_null() {
                let conditions =
                    next.make_object().entry("status").make_object().entry("conditions").make_array();
                conditions.retain(|c| c.str_at(&["type"]) != KIND);
            }
        }
        [one] => set_condition(next, KIND, "True", "Violations", one),
        many => set_condition(next, KIND, "True", "Violations", &format!("[{}]", many.join(", "))),
    }
}

/// Groups of the Kubernetes community are for what it approved.
fn judge_group(next: &mut Value) {
    if !is_protected(next.str_at(&["spec", "group"])) {
        return;
    }
    let (state, message) = approval(next);
    let (status, reason) = match state {
        Approval::Invalid => ("False", "InvalidAnnotation"),
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Given => ("True", "ApprovedAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
    };
    set_condition(next, "KubernetesAPIApprovalPolicyConformant", status, reason, &message);
}

fn condition<'v>(definition: &'v Value, kind: &str) -> &'v Value {
    static NONE: Value = Value::Null;
    let conditions = definition.array_at(&["status", "conditions"]);
    conditions.iter().find(|c| c.str_at(&["type"]) == kind).unwrap_or(&NONE)
}

fn without_empty(names: &Value) -> Value {
    let members = names.as_object().into_iter().flat_map(|m| m.iter()).filter(|(_, v)| !v.is_empty());
    Value::Object(members.map(|(k, v)| (k, v.clone())).collect())
}

fn without_empty_lists(mut names: Value) -> Value {
    names.make_object().retain(|_, v| !v.is_null());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(short: &str, rest: &str) -> Value {
        let json = format!(
            r#"{{"spec":{{"group":"g.io","names":{{"plural":"ws","singular":"w","kind":"W","listKind":"WList","shortNames":["{short}"]}}}}{rest}}}"#
        );
        api::json::decode(json.as_bytes()).unwrap().value
    }

    fn conditions(definition: &Value) -> String {
        let all = definition.array_at(&["status", "conditions"]).iter();
        all.map(|c| format!("{}={}/{}", c.str_at(&["type"]), c.str_at(&["status"]), c.str_at(&["reason"])))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn free_names_are_accepted_then_the_definition_is_established() {
        let first = next_status(&definition("x", ""), std::iter::empty()).unwrap();
        assert_eq!(conditions(&first), "NamesAccepted=True/NoConflicts Established=False/Installing");
        assert_eq!(first.at(&["status", "acceptedNames"]), first.at(&["spec", "names"]));
        let second = next_status(&first, std::iter::empty()).unwrap();
        assert_eq!(
            conditions(&second),
            "NamesAccepted=True/NoConflicts Established=True/InitialNamesAccepted"
        );
        assert!(next_status(&second, std::iter::empty()).is_none());
    }

    #[test]
    fn names_of_others_are_not_accepted() {
        let other = r#","status":{"acceptedNames":{"plural":"others","kind":"Other","shortNames":["x"]}}"#;
        let other = Names::of(&definition("y", other));
        let next = next_status(&definition("x", ""), std::iter::once(&other)).unwrap();
        assert_eq!(conditions(&next), "NamesAccepted=False/ShortNamesConflict Established=False/NotAccepted");
        assert!(next.at(&["status", "acceptedNames", "shortNames"]).is_null());
        assert_eq!(next.str_at(&["status", "acceptedNames", "kind"]), "W");
        assert!(next_status(&next, std::iter::once(&other)).is_none());
        let free = next_status(&next, std::iter::empty()).unwrap();
        assert_eq!(conditions(&free), "NamesAccepted=True/NoConflicts Established=False/Installing");
    }
}
