//! Access that another server decides about, by reviews.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/webhook/>.

use std::time::Duration;

use api::selector::{FieldTerm, Operator, Requirement};
use api::{Value, object};
use cel::access::Expression;

use super::{Attributes, Decision};
use crate::authn::UserInfo;
use crate::kubeconfig::{Answers, Remote};

/// The pause after the first failure.
const BACKOFF: Duration = Duration::from_millis(500);
/// So many answers are kept.
pub(super) const ANSWERS: usize = 8192;

/// Another server, and when it is asked.
pub(super) struct Webhook {
    pub(super) remote: Remote,
    /// Version of reviews: `v1` or `v1beta1`.
    pub(super) version: &'static str,
    /// How long answers are kept that allow, and others.
    pub(super) ttl: (Duration, Duration),
    pub(super) timeout: Duration,
    /// Refuse when there is no answer.
    pub(super) denies: bool,
    /// What must hold for it to be asked.
    pub(super) conditions: Vec<(Expression, String)>,
    pub(super) answers: Answers<Decision>,
}

/// The `spec` of a review.
pub(super) fn spec(user: &UserInfo, what: &Attributes<'_>) -> Value {
    let mut spec = Value::object();
    if what.resource.is_empty() {
        spec.set(&["nonResourceAttributes"], members(&[("path", what.path), ("verb", what.verb)]));
    } else {
        let attributes = [
            ("namespace", what.namespace),
            ("verb", what.verb),
            ("group", what.group),
            ("version", what.version),
            ("resource", what.resource),
            ("subresource", what.subresource),
            ("name", what.name),
        ];
        let mut resource = members(&attributes);
        let selectors = [
            ("fieldSelector", what.selectors.fields.iter().map(field).collect::<Vec<_>>()),
            ("labelSelector", what.selectors.labels.iter().filter_map(label).collect()),
        ];
        for (selector, requirements) in selectors.into_iter().filter(|(_, r)| !r.is_empty()) {
            resource.set(&[selector, "requirements"], requirements);
        }
        spec.set(&["resourceAttributes"], resource);
    }
    spec.set(&["user"], user.name.as_str());
    if !user.groups.is_empty() {
        spec.set(&["groups"], user.groups.clone());
    }
    if !user.extra.is_empty() {
        let mut extra: api::Map =
            user.extra.iter().map(|(k, v)| (k.as_str(), Value::from(v.clone()))).collect();
        extra.sort_keys();
        spec.set(&["extra"], Value::Object(extra));
    }
    if !user.uid.is_empty() {
        spec.set(&["uid"], user.uid.as_str());
    }
    spec
}

/// A requirement on a field, as reviews have it.
fn field(term: &FieldTerm) -> Value {
    let operator = if term.equal { "In" } else { "NotIn" };
    object!({"key": (term.field.as_str()), "operator": operator, "values": [(term.value.as_str())]})
}

/// A requirement on a label, as reviews have it; they know no comparison of numbers.
fn label(requirement: &Requirement) -> Option<Value> {
    let (operator, values) = match &requirement.operator {
        Operator::Equals(value) => ("In", vec![value.clone()]),
        Operator::NotEquals(value) => ("NotIn", vec![value.clone()]),
        Operator::In(values) => ("In", values.clone()),
        Operator::NotIn(values) => ("NotIn", values.clone()),
        Operator::Exists => ("Exists", Vec::new()),
        Operator::DoesNotExist => ("DoesNotExist", Vec::new()),
        Operator::GreaterThan(_) | Operator::LessThan(_) => return None,
    };
    let mut out = object!({"key": (requirement.key.as_str()), "operator": operator});
    if !values.is_empty() {
        out.set(&["values"], values);
    }
    Some(out)
}

fn members(list: &[(&str, &str)]) -> Value {
    let given = list.iter().filter(|(_, value)| !value.is_empty());
    Value::Object(given.map(|(name, value)| (*name, Value::from(*value))).collect())
}

/// The `spec` as conditions see it: members that were left out are empty.
fn seen(spec: &Value) -> Value {
    let mut seen = spec.clone();
    let empty = |seen: &mut Value, path: &[&str], value: Value| {
        if seen.at(path).is_null() {
            seen.set(path, value);
        }
    };
    empty(&mut seen, &["groups"], Value::Array(Vec::new()));
    empty(&mut seen, &["extra"], Value::object());
    empty(&mut seen, &["uid"], "".into());
    let (of, fields): (&str, &[&str]) = match spec.get("resourceAttributes").is_null() {
        true => ("nonResourceAttributes", &["path", "verb"]),
        false => {
            let all = &["namespace", "verb", "group", "version", "resource", "subresource", "name"];
            ("resourceAttributes", all)
        }
    };
    for field in fields {
        empty(&mut seen, &[of, field], "".into());
    }
    seen
}

impl Webhook {
    /// What the server says.
    pub(super) async fn authorize(&self, user: &UserInfo, what: &Attributes<'_>) -> Decision {
        let spec = spec(user, what);
        match self.matches(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::NoOpinion(String::new()),
            Err(why) => return self.failed(why),
        }
        let key = spec.to_json();
        if let Some(decision) = self.answers.get(&key) {
            return decision;
        }
        let review = object!({
            "kind": "SubjectAccessReview",
            "apiVersion": (format!("authorization.k8s.io/{}", self.version)),
            "metadata": {},
            "spec": (self.written(&spec)),
            "status": {"allowed": false},
        });
        let status = match self.remote.review(&review, self.timeout, BACKOFF).await {
            Ok(status) => status,
            Err(why) => {
                tracing::error!(url = self.remote.url(), why, "Failed to make webhook authorizer request");
                return self.failed(why);
            }
        };
        let decision = read(&status);
        let holds = if matches!(decision, Decision::Allow(_)) { self.ttl.0 } else { self.ttl.1 };
        self.answers.keep(key, decision.clone(), holds);
        decision
    }

    fn failed(&self, why: String) -> Decision {
        Decision::Failed { denied: self.denies, why }
    }

    fn matches(&self, spec: &Value) -> Result<bool, String> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let seen = seen(spec);
        let mut errors = Vec::new();
        for (condition, text) in &self.conditions {
            match condition.evaluate(&seen) {
                Ok(value) if value.as_bool() == Some(false) => return Ok(false),
                Ok(value) if value.as_bool() == Some(true) => {}
                Ok(_) => errors.push(format!(
                    "cel evaluation error: expression '{text}' eval result type should be bool"
                )),
                Err(e) => {
                    errors.push(format!("cel evaluation error: expression '{text}' resulted in error: {e}"))
                }
            }
        }
        match errors.len() {
            0 => Ok(true),
            1 => Err(errors.remove(0)),
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }

    /// The `spec` in the version of the reviews: the older one has another name for groups.
    fn written(&self, spec: &Value) -> Value {
        let Value::Object(map) = spec else { return spec.clone() };
        let name = |key: &'_ str| {
            if self.version == "v1beta1" && key == "groups" { "group".to_owned() } else { key.to_owned() }
        };
        let members: Vec<(String, Value)> = map.iter().map(|(k, v)| (name(k), v.clone())).collect();
        Value::Object(members.iter().map(|(k, v)| (k.as_str(), v.clone())).collect())
    }
}

fn read(status: &Value) -> Decision {
    let reason = status.str_at(&["reason"]).to_owned();
    let says = |field: &str| status.get(field).as_bool() == Some(true);
    match (says("allowed"), says("denied")) {
        (true, true) => {
            let why = "webhook subject access review returned both allow and deny response".to_owned();
            Decision::Failed { denied: true, why }
        }
        (false, true) => Decision::Deny(reason),
        (true, false) => Decision::Allow(reason),
        (false, false) => Decision::NoOpinion(reason),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::authz::Selectors;

    #[test]
    fn reviews_tell_what_is_asked() {
        let user = UserInfo { name: "ann".into(), groups: vec!["g".into()], ..UserInfo::default() };
        let what = Attributes {
            verb: "get",
            resource: "pods",
            namespace: "a",
            version: "v1",
            ..Attributes::default()
        };
        let asked = spec(&user, &what);
        let attributes = object!({"namespace": "a", "verb": "get", "version": "v1", "resource": "pods"});
        assert_eq!(asked, object!({"resourceAttributes": attributes, "user": "ann", "groups": ["g"]}));
        assert_eq!(seen(&asked).str_at(&["resourceAttributes", "subresource"]), "");
        assert!(seen(&asked).get("nonResourceAttributes").is_null());
        let selectors = Selectors::read("spec.nodeName=n,a!=b", "app in (x,y),!z,n>3");
        let asked = spec(&user, &Attributes { selectors: Cow::Owned(selectors), ..what });
        let fields = object!([{"key": "spec.nodeName", "operator": "In", "values": ["n"]}, {"key": "a", "operator": "NotIn", "values": ["b"]}]);
        assert_eq!(asked.at(&["resourceAttributes", "fieldSelector", "requirements"]), &fields);
        let labels = object!([{"key": "app", "operator": "In", "values": ["x", "y"]}, {"key": "z", "operator": "DoesNotExist"}]);
        assert_eq!(asked.at(&["resourceAttributes", "labelSelector", "requirements"]), &labels);
        let path = spec(&user, &Attributes { verb: "get", path: "/version", ..Attributes::default() });
        assert_eq!(path.get("nonResourceAttributes"), &object!({"path": "/version", "verb": "get"}));
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(read(&object!({"allowed": true, "reason": "r"})), Decision::Allow("r".into()));
        assert_eq!(read(&object!({"allowed": false, "denied": true})), Decision::Deny(String::new()));
        assert_eq!(read(&object!({"allowed": false})), Decision::NoOpinion(String::new()));
        assert!(matches!(
            read(&object!({"allowed": true, "denied": true})),
            Decision::Failed { denied: true, .. }
        ));
    }
}
