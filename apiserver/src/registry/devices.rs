//! What claims for devices may be asked for and told by whom: access for administrators, where a namespace is meant for
//! it, and the parts of their status, which different clients write.

use std::collections::BTreeSet;

use api::field::{FieldError, Path};
use api::{ApiError, Value};

use super::Call;
use crate::authz::{Attributes, Decision};
use crate::resources::TABLE;

/// The label of namespaces in which administrators may be given access.
const LABEL: &str = "resource.kubernetes.io/admin-access";
/// What a ServiceAccount's token says of the node that its pod is on.
const NODE: &str = "authentication.kubernetes.io/node-name";
/// What stands before verbs of those who write from the node of the devices, and from anywhere.
const ASSOCIATED: &str = "associated-node:";
const ARBITRARY: &str = "arbitrary-node:";

impl Call {
    /// Refuses what is asked of devices, or told of them, without leave.
    pub(super) fn check_devices(&self, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        self.check_admin_access(new, old, errors);
        if let (Some(old), "resourceclaims", "status") = (old, self.row.built_in(), self.subresource.as_str())
        {
            let (new, old) = (new.get("status"), old.get("status"));
            self.check_binding(new, old, errors);
            self.check_drivers(new, old, errors);
        }
    }

    /// Refuses claims and templates that ask for access for administrators, and status that gives it, where it is not
    /// meant to be.
    fn check_admin_access(&self, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        let asks = |list: &Value, part: &[&str]| {
            let items = list.as_array().into_iter().flatten();
            items.map(|item| item.at(part).as_bool() == Some(true)).position(|asks| asks)
        };
        let results = |object: &Value| {
            asks(object.at(&["status", "allocation", "devices", "results"]), &["adminAccess"])
        };
        let requests =
            |object: &Value| asks(object.at(&["devices", "requests"]), &["exactly", "adminAccess"]);
        let (list, index) = match (self.row.built_in(), self.subresource.as_str(), old) {
            // What is asked for does not change any more.
            ("resourceclaims", "", None) => ("spec.devices.requests", requests(new.get("spec"))),
            ("resourceclaimtemplates", "", None) => {
                ("spec.devices.requests", requests(new.at(&["spec", "spec"])))
            }
            ("resourceclaims", "status", Some(old)) if results(old).is_none() => {
                ("status.allocation.devices.results", results(new))
            }
            _ => return,
        };
        let Some(index) = index else { return };
        let path = format!("{list}[{index}].adminAccess");
        let namespaces = self.server.storage.cache(TABLE.store("", "namespaces"));
        let meant = namespaces.get(&self.namespace).is_some_and(|ns| ns.label(LABEL) == Some("true"));
        if !meant {
            let why = format!(
                "admin access to devices requires the `{LABEL}: true` label on the containing namespace"
            );
            errors.push(FieldError::forbidden(&Path::new(&path), why));
        }
    }

    /// Which devices a claim has, and who uses it, is for those who may bind.
    fn check_binding(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        let same = |field: &str| new.get(field) == old.get(field);
        if same("allocation") && same("reservedFor") {
            return;
        }
        let what = Attributes { subresource: "binding", ..self.of_claims(self.verb) };
        if let Err(why) = self.may(&what) {
            let verb = self.verb;
            let why = format!(
                "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"{verb}\" permission: {why}"
            );
            errors.push(FieldError::forbidden(&Path::new("status.allocation"), why));
        }
    }

    /// What is told of devices is for those who may speak for their driver.
    fn check_drivers(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if new.get("allocation").is_null() {
            // Nothing is left to be told of anything.
            return;
        }
        let mut verbs = vec![format!("{ARBITRARY}{}", self.verb)];
        if self.is_on(node_of(new)) {
            verbs.insert(0, format!("{ASSOCIATED}{}", self.verb));
        }
        for driver in changed_drivers(new, old) {
            let refusals = verbs.iter().map(|verb| {
                let claims = self.of_claims(verb);
                self.may(&Attributes {
                    subresource: "driver",
                    namespace: &self.namespace,
                    name: driver,
                    ..claims
                })
            });
            let refusals: Vec<_> = refusals.collect();
            if refusals.iter().any(Result::is_ok) {
                continue;
            }
            let why = refusals.into_iter().find_map(Result::err).map(|e| e.to_string()).unwrap_or_default();
            let verbs = verbs.join(" ");
            let why = format!(
                "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{verbs}]\" permission: {why}"
            );
            errors.push(FieldError::forbidden(&Path::new("status.devices"), why));
        }
    }

    /// All claims, for a verb.
    fn of_claims<'a>(&self, verb: &'a str) -> Attributes<'a> {
        let row = &self.row;
        Attributes {
            verb,
            group: row.group,
            version: row.version,
            resource: row.plural,
            ..Attributes::default()
        }
    }

    fn may(&self, what: &Attributes<'_>) -> Result<(), ApiError> {
        let server = &self.server;
        let reason = match server.authorizer.authorize_now(&server.storage, &self.user, what) {
            Decision::Allow(_) => return Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => reason,
            Decision::Failed { why, .. } => why,
        };
        let mut why = what.refusal(&self.user);
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        Err(ApiError::forbidden(what.group, what.resource, what.name, &why))
    }

    /// True for a ServiceAccount whose token is of a pod on that node.
    fn is_on(&self, node: Option<&str>) -> bool {
        let account = self.user.name.starts_with("system:serviceaccount:");
        let own = self.user.extra.iter().find(|(key, _)| key == NODE).map_or(&[][..], |(_, nodes)| nodes);
        account && node.is_some() && matches!(own, [only] if Some(only.as_str()) == node)
    }
}

/// The node that an allocation is for, if it is for one alone.
fn node_of(status: &Value) -> Option<&str> {
    let [term] = status.array_at(&["allocation", "nodeSelector", "nodeSelectorTerms"]) else { return None };
    let ([field], []) = (term.array_at(&["matchFields"]), term.array_at(&["matchExpressions"])) else {
        return None;
    };
    let named = field.str_at(&["key"]) == "metadata.name" && field.str_at(&["operator"]) == "In";
    match field.array_at(&["values"]) {
        [only] if named => only.as_str().filter(|name| !name.is_empty()),
        _ => None,
    }
}

/// The drivers of whose devices something else is told than before.
fn changed_drivers<'s>(new: &'s Value, old: &'s Value) -> BTreeSet<&'s str> {
    let key =
        |device: &'s Value| ["driver", "pool", "device", "shareID"].map(|field| device.str_at(&[field]));
    let (now, before) = (new.array_at(&["devices"]), old.array_at(&["devices"]));
    let changed = now.iter().filter(|device| !before.contains(device));
    let gone = before.iter().filter(|device| !now.iter().any(|other| key(other) == key(device)));
    changed.chain(gone).map(|device| device.str_at(&["driver"])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::object;

    #[test]
    fn drivers_are_asked_about_whose_devices_changed() {
        let device =
            |driver: &str, data: i64| object!({"driver": driver, "pool": "p", "device": "d", "data": data});
        let status = |devices: Vec<Value>| object!({"devices": devices});
        let old = status(vec![device("a", 1), device("b", 1), device("c", 1)]);
        let new = status(vec![device("b", 1), device("c", 2), device("d", 1)]);
        assert_eq!(changed_drivers(&new, &old).into_iter().collect::<Vec<_>>(), ["a", "c", "d"]);
        assert!(changed_drivers(&old, &old).is_empty());
    }

    #[test]
    fn an_allocation_may_be_for_one_node() {
        let of = |terms: Value| object!({"allocation": {"nodeSelector": {"nodeSelectorTerms": terms}}});
        let one = object!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]});
        assert_eq!(node_of(&of(Value::Array(vec![one.clone()]))), Some("n"));
        assert_eq!(node_of(&of(Value::Array(vec![one.clone(), one]))), None);
        assert_eq!(node_of(&Value::object()), None);
    }
}
