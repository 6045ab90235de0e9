//! Access to devices for administrators, which namespaces must be meant for.

use api::Value;
use api::field::{FieldError, Path};

use super::Call;
use crate::resources::TABLE;

/// The label of namespaces in which it may be asked for.
const LABEL: &str = "resource.kubernetes.io/admin-access";

impl Call {
    /// Refuses claims and templates that ask for such access, and status that gives it, outside those namespaces.
    pub(super) fn check_admin_access(&self, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
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
}
