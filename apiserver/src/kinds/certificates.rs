//! Certificate signing requests: who asks is what the server knows, and what is asked for never changes.

mod request;

pub(crate) use request::requested_name;

use api::Value;
use api::field::{FieldError, Path};
use jiff::Timestamp;

use super::{Entry, Errors, Field, Part, Strategy};
use crate::authn::UserInfo;
pub(super) use request::validate_signer;

const GROUP: &str = "certificates.k8s.io";

pub(super) const STRATEGIES: &[Entry] = &[(GROUP, "certificatesigningrequests", &REQUEST)];

static REQUEST: Strategy = Strategy {
    fields: &[Field::text("spec.signerName", &["spec", "signerName"])],
    name: api::names::path_segment,
    requested_by,
    validate: |r, errors| {
        request::validate_spec(r.get("spec"), errors);
        validate_status(r, None, errors);
    },
    reset: &[&["spec"], &["status"]],
    prepare_update: |new, old| restore(new, old, "spec"),
    parts: &[APPROVAL, STATUS],
    ..Strategy::NEUTRAL
};

/// Approvers change the conditions alone.
const APPROVAL: Part = Part {
    name: "approval",
    fixed: &[&["spec"], &["status", "certificate"]],
    prepare: |new, old| {
        date_conditions(new, old);
        let conditions = new.at(&["status", "conditions"]).clone();
        restore(new, old, "spec");
        restore(new, old, "status");
        if !conditions.is_null() {
            new.set(&["status", "conditions"], conditions);
        } else {
            new.remove_at(&["status", "conditions"]);
        }
    },
    validate: |new, old, errors| {
        validate_status(new, Some(old), errors);
        validate_status_update(new, old, false, errors);
    },
};

/// Signers write the certificate and say what failed.
const STATUS: Part = Part {
    name: "status",
    fixed: &[&["spec"], &["status", "conditions"]],
    prepare: |new, old| {
        for kind in ["Approved", "Denied"] {
            keep_conditions(new, old, kind);
        }
        date_conditions(new, old);
    },
    validate: |new, old, errors| {
        validate_status(new, Some(old), errors);
        validate_approval_is_kept(new, old, errors);
        validate_status_update(new, old, true, errors);
    },
};

/// Nobody can ask in the name of another.
fn requested_by(request: &mut Value, user: &UserInfo) {
    let spec = request.make_object().entry("spec").make_object();
    for field in ["username", "uid", "groups", "extra"] {
        spec.remove(field);
    }
    if !user.name.is_empty() {
        spec.insert("username", user.name.as_str());
    }
    if !user.uid.is_empty() {
        spec.insert("uid", user.uid.as_str());
    }
    if !user.groups.is_empty() {
        spec.insert("groups", user.groups.clone());
    }
    if !user.extra.is_empty() {
        let extra: api::Map = user.extra.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        spec.insert("extra", extra);
    }
}

fn restore(new: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Value::Null => {
            new.make_object().remove(field);
        }
        value => new.set(&[field], value),
    }
}

fn conditions<'v>(request: &'v Value, kind: &str) -> Vec<&'v Value> {
    let all = request.array_at(&["status", "conditions"]).iter();
    all.filter(|c| c.str_at(&["type"]) == kind).collect()
}

/// A writer that knows nothing of a condition's details does not change it.
fn keep_conditions(new: &mut Value, old: &Value, kind: &str) {
    let before = conditions(old, kind);
    if before.len() != conditions(new, kind).len() {
        return;
    }
    let present = new.at_mut(&["status", "conditions"]).and_then(Value::as_array_mut);
    let same = present.into_iter().flatten().filter(|c| c.str_at(&["type"]) == kind);
    for (condition, was) in same.zip(before) {
        *condition = was.clone();
    }
}

/// Fills in the times that the writer left out.
fn date_conditions(new: &mut Value, old: &Value) {
    let now = api::time::format(Timestamp::now());
    let before = old.array_at(&["status", "conditions"]);
    let present = new.at_mut(&["status", "conditions"]).and_then(Value::as_array_mut);
    for condition in present.into_iter().flatten() {
        super::default_to(condition, "lastUpdateTime", now.as_str());
        let same = |b: &&Value| {
            b.get("type") == condition.get("type")
                && b.get("status") == condition.get("status")
                && !b.get("lastTransitionTime").is_null()
        };
        let since =
            before.iter().find(same).map_or(Value::from(&now), |b| b.get("lastTransitionTime").clone());
        super::default_to(condition, "lastTransitionTime", since);
    }
}

fn validate_status(request: &Value, old: Option<&Value>, errors: &mut Errors) {
    let status = Path::new("status");
    let path = status.child("conditions");
    let both = |r: &Value| !conditions(r, "Approved").is_empty() && !conditions(r, "Denied").is_empty();
    let mut seen: Vec<&str> = Vec::new();
    for (i, condition) in request.array_at(&["status", "conditions"]).iter().enumerate() {
        let at = path.index(i);
        let kind = condition.str_at(&["type"]);
        if kind.is_empty() {
            errors.push(FieldError::required(&at.child("type"), ""));
        }
        let supported: &[&str] = match kind {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        match condition.str_at(&["status"]) {
            "" => errors.push(FieldError::required(&at.child("status"), "")),
            s if !supported.contains(&s) => {
                errors.push(FieldError::not_supported(&at.child("status"), s, supported));
            }
            _ => {}
        }
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if seen.contains(&other) && !other.is_empty() && !old.is_some_and(both) {
            let why = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(&path, kind, why));
        }
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(&at.child("type"), kind));
        }
        seen.push(kind);
    }
    let certificate = request.str_at(&["status", "certificate"]);
    if old.is_none_or(|o| o.str_at(&["status", "certificate"]) != certificate)
        && let Err(why) = request::check_certificates(certificate)
    {
        errors.push(FieldError::invalid(&status.child("certificate"), "<certificate data>", why));
    }
}

fn validate_approval_is_kept(new: &Value, old: &Value, errors: &mut Errors) {
    let status = Path::new("status");
    for kind in ["Approved", "Denied"] {
        if conditions(new, kind).len() > conditions(old, kind).len() {
            let why = format!("updates may not add a condition of type \"{kind}\"");
            errors.push(FieldError::forbidden(&status.child("conditions"), why));
        }
    }
}

fn validate_status_update(new: &Value, old: &Value, signer: bool, errors: &mut Errors) {
    let status = Path::new("status");
    for kind in ["Approved", "Denied", "Failed"] {
        if conditions(new, kind).len() < conditions(old, kind).len() {
            let why = format!("updates may not remove a condition of type \"{kind}\"");
            errors.push(FieldError::forbidden(&status.child("conditions"), why));
        }
    }
    let (is, was) = (new.str_at(&["status", "certificate"]), old.str_at(&["status", "certificate"]));
    if is != was {
        let why = if !signer {
            "updates may not set certificate content"
        } else if !was.is_empty() {
            "updates may not modify existing certificate content"
        } else {
            return;
        };
        errors.push(FieldError::forbidden(&status.child("certificate"), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn the_requester_is_who_the_server_says() {
        let mut request = object!({"spec": {"username": "root", "groups": ["system:masters"], "extra": {"a": ["b"]}, "uid": "1"}});
        let user = UserInfo { name: "jane".to_owned(), groups: vec!["g".to_owned()], ..UserInfo::default() };
        requested_by(&mut request, &user);
        assert_eq!(request.get("spec"), &object!({"username": "jane", "groups": ["g"]}));
    }

    #[test]
    fn approvals_cannot_be_taken_back_or_mixed() {
        let approved = object!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}});
        let both = object!({"status": {"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]}});
        let check = |new: &Value, old: &Value| {
            let mut errors = Vec::new();
            (APPROVAL.validate)(new, old, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            check(&object!({}), &approved),
            ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
        );
        assert_eq!(
            check(&both, &approved),
            [
                "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"
            ]
        );
        assert!(check(&approved, &object!({})).is_empty());
    }
}
